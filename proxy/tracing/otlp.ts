/** Sends spans to an OpenTelemetry collector: OTLP over HTTP with JSON (OpenTelemetry Protocol 1.x, section "OTLP/HTTP"). */
import { PRODUCT_VERSION } from '../../common/names.ts'
import type { TraceContext } from './trace-context.ts'

/** One exchange as a client span. */
export interface Span {
  readonly context: TraceContext
  /** Low-cardinality: the method. */
  readonly name: string
  /** Wall clock, milliseconds since 1970. */
  readonly startMs: number
  readonly endMs: number
  readonly isError: boolean
  readonly attributes: Readonly<Record<string, string | number>>
}

export interface OtlpOptions {
  /** Base address of the collector; spans go to `/v1/traces` below it. */
  readonly endpoint: URL
  /** Resource attributes: service.name and where the sidecar runs. */
  readonly resource: Readonly<Record<string, string>>
  readonly onFailure?: (message: string) => void
}

/** Spans that wait while the collector is slow; more are dropped and counted, never waited for. */
const MAX_QUEUED = 2048
const MAX_BATCH = 256
const FLUSH_MS = 2_000
const TIMEOUT_MS = 5_000

export class OtlpExporter {
  /** Spans delivered, and spans lost because the collector was slow, away or unwilling. */
  sent = 0
  dropped = 0
  readonly #options: OtlpOptions
  readonly #url: URL
  #queue: Span[] = []
  #timer: NodeJS.Timeout | null = null
  #sending: Promise<void> | null = null
  #isClosed = false

  constructor(options: OtlpOptions) {
    this.#options = options
    const base = options.endpoint.pathname.replace(/\/+$/, '')
    this.#url = new URL(options.endpoint)
    this.#url.pathname = base.endsWith('/v1/traces') ? base : `${base}/v1/traces`
  }

  /** Takes a span; never waits and never throws. */
  add(span: Span): void {
    if (this.#isClosed || this.#queue.length >= MAX_QUEUED) {
      this.dropped++
      return
    }
    this.#queue.push(span)
    if (this.#queue.length >= MAX_BATCH) void this.flush()
    else if (this.#timer === null) {
      this.#timer = setTimeout(() => void this.flush(), FLUSH_MS)
      this.#timer.unref()
    }
  }

  /** Sends what waits; resolves when it was delivered or lost. */
  flush(): Promise<void> {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    this.#sending ??= this.#drain().finally(() => {
      this.#sending = null
    })
    return this.#sending
  }

  /** Sends what waits and takes no more. */
  async close(): Promise<void> {
    this.#isClosed = true
    await this.flush()
  }

  async #drain(): Promise<void> {
    while (this.#queue.length > 0) {
      const batch = this.#queue.splice(0, MAX_BATCH)
      try {
        await this.#post(Buffer.from(JSON.stringify(this.#document(batch))))
        this.sent += batch.length
      } catch (error) {
        this.dropped += batch.length
        this.#options.onFailure?.(`collector '${this.#url.origin}': ${(error as Error).message}, spans are dropped`)
      }
    }
  }

  #document(batch: readonly Span[]): object {
    return {
      resourceSpans: [
        {
          resource: { attributes: attributesOf(this.#options.resource) },
          scopeSpans: [{ scope: { name: 'ambassador', version: PRODUCT_VERSION }, spans: batch.map(spanOf) }],
        },
      ],
    }
  }

  #post(body: Buffer): Promise<void> {
    return new Promise((resolve, reject) => {
      const { request: send } = process.getBuiltinModule(this.#url.protocol === 'https:' ? 'node:https' : 'node:http')
      const headers = { 'content-type': 'application/json', 'content-length': body.length }
      const request = send(this.#url, { method: 'POST', headers, agent: false, timeout: TIMEOUT_MS }, (response) => {
        response.resume()
        response.on('end', () => {
          const status = response.statusCode ?? 0
          if (status >= 200 && status < 300) resolve()
          else reject(new Error(`answered ${status}`))
        })
        response.on('error', reject)
      })
      request.on('timeout', () => request.destroy(new Error(`no answer within ${TIMEOUT_MS} ms`)))
      request.on('error', reject)
      request.end(body)
    })
  }
}

/** SPAN_KIND_CLIENT and STATUS_CODE_ERROR of the protocol. */
const KIND_CLIENT = 3
const STATUS_ERROR = 2

function spanOf(span: Span): object {
  const { traceId, spanId, parentId } = span.context
  return {
    traceId,
    spanId,
    ...(parentId === null ? {} : { parentSpanId: parentId }),
    name: span.name,
    kind: KIND_CLIENT,
    startTimeUnixNano: nanos(span.startMs),
    endTimeUnixNano: nanos(span.endMs),
    attributes: attributesOf(span.attributes),
    status: span.isError ? { code: STATUS_ERROR } : {},
  }
}

/** 64-bit integers are strings in protobuf's JSON. */
function nanos(ms: number): string {
  const whole = Math.floor(ms)
  return `${whole}${String(Math.floor((ms - whole) * 1e6)).padStart(6, '0')}`
}

function attributesOf(attributes: Readonly<Record<string, string | number>>): object[] {
  return Object.entries(attributes).map(([key, value]) => ({
    key,
    value:
      typeof value === 'string'
        ? { stringValue: value }
        : Number.isInteger(value)
          ? { intValue: String(value) }
          : { doubleValue: value },
  }))
}
