/** An exchange that has ended as a client span, with the names of OpenTelemetry's semantic conventions for HTTP. */
import type { Attributes, Span, SpanEvent } from '../../tracing/otlp.ts'
import type { Trace, TracedAttempt } from '../../tracing/trace-context.ts'
import type { Exchange } from './exchange.ts'

/** Spans of an Ambassador: which are sent. */
export interface Tracing {
  /** Share of the traces that begin here, 0 to 1. */
  readonly sample: number
  /** An answer that begins later than this is sent whatever the sample says. */
  readonly slowMs: number
}

/** The methods that http.request.method may have; others are `_OTHER`, so that its values are few. */
const METHODS: ReadonlySet<string> = new Set(['GET', 'HEAD', 'POST', 'PUT', 'DELETE', 'OPTIONS', 'PATCH', 'QUERY'])
const MAX_PATH = 1024

/** Whether the span of an exchange is sent: its trace is sampled, it failed, or its answer began late. */
export function isTraced(exchange: Exchange, trace: Trace, { slowMs }: Tracing): boolean {
  if (trace.isSampled || exchange.reason !== null || exchange.status >= 500) return true
  // The length of a body says nothing: a stream is no slow request.
  return exchange.ttfbMs > slowMs
}

/**
 * The span of an exchange that has just ended. Never a query string, a field or a body: they may hold secrets.
 * @param wallMs now, in milliseconds since 1970
 */
export function spanOf(exchange: Exchange, trace: Trace, ambassador: string, wallMs: number = Date.now()): Span {
  const { request, status, reason, target, endpoint } = exchange
  const { cluster } = target.upstream
  const { method } = request
  const isKnown = METHODS.has(method)
  const scheme = cluster.tls === null ? 'http' : 'https'
  const error = reason ?? (status >= 400 ? String(status) : null)
  const attributes: Record<string, string | number> = {
    'http.request.method': isKnown ? method : '_OTHER',
    'network.protocol.name': 'http',
    'network.protocol.version': '1.1',
    'ambassador.name': ambassador,
    'ambassador.upstream': cluster.name,
    'ambassador.request_id': request.requestId,
  }
  if (!isKnown) attributes['http.request.method_original'] = method
  if (endpoint !== null) {
    const { host, port } = endpoint
    const authority = host.includes(':') ? `[${host}]` : host
    attributes['server.address'] = host
    attributes['server.port'] = port
    attributes['network.peer.address'] = endpoint.ip
    attributes['network.peer.port'] = port
    const path = request.path.slice(0, MAX_PATH)
    attributes['url.full'] = `${scheme}://${authority}:${port}${path.startsWith('/') ? path : '/'}`
  }
  if (status > 0) attributes['http.response.status_code'] = status
  if (error !== null) attributes['error.type'] = error
  if (exchange.attempts > 1) attributes['http.request.resend_count'] = exchange.attempts - 1
  if (target.route !== null) attributes['ambassador.route'] = target.route.name
  if (reason !== null) attributes['ambassador.reason'] = reason
  return {
    traceId: trace.traceId,
    spanId: trace.spanId,
    parentId: trace.parentId,
    traceState: trace.state,
    isSampled: trace.isSampled,
    name: isKnown ? method : 'HTTP',
    startMs: wallMs - (exchange.endedAt - exchange.startedAt),
    endMs: wallMs,
    error: error === null ? null : exchange.detail,
    attributes,
    events: (trace.attempts ?? []).map((attempt, index) => eventOf(attempt, index, exchange.endedAt, wallMs)),
  }
}

/** A try that was followed by another one. The last one is the span itself. */
function eventOf(attempt: TracedAttempt, index: number, endedAt: number, wallMs: number): SpanEvent {
  const { endpoint, status, reason } = attempt
  const attributes: Attributes = {
    'ambassador.attempt': index + 1,
    'ambassador.endpoint': endpoint,
    'ambassador.attempt.duration_ms': Math.round((attempt.endedAt - attempt.startedAt) * 1000) / 1000,
    'error.type': reason ?? String(status),
    ...(status > 0 && { 'http.response.status_code': status }),
  }
  return { name: 'attempt failed', atMs: wallMs - (endedAt - attempt.endedAt), attributes }
}
