/** What the access log says of one exchange. */
import type { Exchange } from './exchange.ts'

/** Times in milliseconds. Never a query string, a field or a body: they may hold secrets. */
export interface HttpRecord {
  readonly requestId: string
  /** Of the trace that the request belongs to; null without `tracing`. */
  readonly traceId: string | null
  /** Null for bytes that were no request. */
  readonly method: string | null
  readonly path: string | null
  /** 0: the application left before it was answered. */
  readonly status: number
  /** Reason code of a failure or of an answer of our own; null when the upstream answered. */
  readonly reason: string | null
  readonly detail: string | null
  readonly upstream: string | null
  /** `routes[0]`; null: no route took it. */
  readonly route: string | null
  /** `ip:port` of the last attempt. */
  readonly endpoint: string | null
  readonly attempts: number
  readonly requestBytes: number
  readonly responseBytes: number
  /** Waiting for the rate limit, for DNS or for a connection. */
  readonly queueMs: number
  /** Of the last attempt that dialled; 0 when every connection was there already. */
  readonly connectMs: number
  readonly tlsMs: number
  /** Until the first byte of the final answer; null when there was none. */
  readonly ttfbMs: number | null
  readonly totalMs: number
}

/** The record of an exchange that has just ended. */
export function recordOf(exchange: Exchange): HttpRecord {
  const { request, response, target } = exchange
  return {
    requestId: request.requestId,
    traceId: exchange.trace?.traceId ?? null,
    method: request.method,
    path: request.path,
    status: exchange.status,
    reason: exchange.reason,
    detail: exchange.detail === '' ? null : exchange.detail,
    upstream: target.upstream.cluster.name,
    route: target.route?.name ?? null,
    endpoint: exchange.endpoint?.name ?? null,
    attempts: exchange.attempts,
    requestBytes: request.body.contentBytes,
    responseBytes: response.isStarted ? response.body.contentBytes : 0,
    queueMs: exchange.queueMs,
    connectMs: exchange.connectMs,
    tlsMs: exchange.tlsMs,
    ttfbMs: exchange.ttfbMs < 0 ? null : exchange.ttfbMs,
    totalMs: exchange.endedAt - exchange.startedAt,
  }
}
