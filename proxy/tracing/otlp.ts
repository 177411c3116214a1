/** Sends spans to an OpenTelemetry collector: OTLP over HTTP with JSON, in batches that never hold up a request. */

import type { Agent, ClientRequest } from 'node:http'
import type { LookupFunction } from 'node:net'
import { PRODUCT_VERSION } from '../../common/names.ts'
import { trustNodeRoots } from '../runtime/roots.ts'

/** Values of attributes; an integer is sent as one. */
export type Attributes = Readonly<Record<string, string | number>>

export interface SpanEvent {
  readonly name: string
  /** Milliseconds since 1970. */
  readonly atMs: number
  readonly attributes: Attributes
}

/** One exchange as a client span. Ids are lower-case hexadecimal. */
export interface Span {
  readonly traceId: string
  readonly spanId: string
  readonly parentId: string | null
  readonly traceState: string | null
  readonly isSampled: boolean
  readonly name: string
  /** Milliseconds since 1970. */
  readonly startMs: number
  readonly endMs: number
  /** Why it is an error; null: it is none. */
  readonly error: string | null
  readonly attributes: Attributes
  readonly events: readonly SpanEvent[]
}

export interface OtlpOptions {
  /** Base URL of the collector; spans go to `/v1/traces` below it, unless it ends with that already. */
  readonly endpoint: string
  /** Attributes of the resource: whose spans these are. */
  readonly resource: Attributes
  /** How the collector's name is looked up; throws for an address that must not be dialled. Default: the system's way. */
  readonly lookup?: (host: string, port: number) => LookupFunction
  /** Told of a failure: at the first one, and at most once a minute after it. */
  readonly onFailure?: (message: string, dropped: number) => void
  /** Between a span and the batch that it goes with, in milliseconds. Default 2 s. */
  readonly flushMs?: number
  /** Before a failed batch is sent again; doubles with each failure up to 30 s. Default 1 s. */
  readonly retryMs?: number
}

/** Spans that wait while the collector is slow or away; more are dropped and counted. About 2 MB. */
const MAX_WAITING = 2048
const MAX_BATCH = 256
const FLUSH_MS = 2_000
const TIMEOUT_MS = 10_000
/** What the end of the process waits for the last batch. */
const CLOSE_MS = 1_000
const RETRY_MS = 1_000
const MAX_RETRY_MS = 30_000
const MAX_TRIES = 5
const TELL_AGAIN_MS = 60_000
const MAX_ANSWER_BYTES = 64 * 1024

/** Worth another try (OTLP 1.x, "Retryable Response Codes"). */
const RETRYABLE: readonly number[] = [429, 502, 503, 504]

interface Answer {
  readonly status: number
  /** Of Retry-After; null: not said. */
  readonly retryAfterMs: number | null
  readonly body: string
}

export class OtlpExporter {
  /** Spans that the collector took, and spans that it never got. */
  exported = 0
  dropped = 0
  readonly endpoint: string
  readonly #options: OtlpOptions
  readonly #url: URL
  #waiting: Span[] = []
  /** The batch that is under way, or that waits for its next try. */
  #batch: Span[] = []
  #tries = 0
  #request: ClientRequest | null = null
  #timer: NodeJS.Timeout | null = null
  #agent: Agent | null = null
  #toldAt = Number.NEGATIVE_INFINITY
  #isClosed = false
  #onIdle: (() => void) | null = null

  constructor(options: OtlpOptions) {
    this.endpoint = options.endpoint
    this.#options = options
    this.#url = new URL(options.endpoint)
    const base = this.#url.pathname.replace(/\/+$/, '')
    this.#url.pathname = base.endsWith('/v1/traces') ? base : `${base}/v1/traces`
  }

  /** Takes a span. Never waits and never throws. */
  add(span: Span): void {
    if (this.#isClosed || this.#waiting.length + this.#batch.length >= MAX_WAITING) {
      this.dropped++
      return
    }
    this.#waiting.push(span)
    if (this.#batch.length > 0) return
    if (this.#waiting.length >= MAX_BATCH) this.#next()
    else if (this.#timer === null) this.#wait(this.#options.flushMs ?? FLUSH_MS)
  }

  /** Sends what waits, once and within a second, and takes no more. Resolves when that is done. */
  close(): Promise<void> {
    this.#isClosed = true
    if (this.#timer !== null) {
      // A batch that waits for its next try has it now.
      this.#tries = MAX_TRIES - 1
      this.#next()
    } else if (this.#request === null) this.#next()
    if (this.#request === null) return Promise.resolve()
    return new Promise((resolve) => {
      const late = setTimeout(() => {
        this.dropped += this.#waiting.splice(0).length
        this.#request?.destroy(new Error('the sidecar ends'))
      }, CLOSE_MS)
      this.#onIdle = () => {
        clearTimeout(late)
        this.#agent?.destroy()
        resolve()
      }
    })
  }

  #wait(ms: number): void {
    this.#timer = setTimeout(() => this.#next(), ms)
    this.#timer.unref()
  }

  /** Sends the batch whose try failed, or the next one. */
  #next(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
    if (this.#batch.length === 0) {
      this.#batch = this.#waiting.splice(0, MAX_BATCH)
      this.#tries = 0
    }
    if (this.#batch.length === 0) {
      this.#onIdle?.()
      return
    }
    this.#post(
      Buffer.from(JSON.stringify(documentOf(this.#options.resource, this.#batch))),
      (answer) => this.#onAnswer(answer),
      (error) => this.#failed(error.code ?? error.message, true, null),
    )
  }

  #onAnswer({ status, retryAfterMs, body }: Answer): void {
    if (status < 200 || status > 299) {
      this.#failed(`answered ${status}`, RETRYABLE.includes(status), retryAfterMs)
      return
    }
    const rejected = Math.min(rejectedSpans(body), this.#batch.length)
    this.exported += this.#batch.length - rejected
    this.#batch = []
    if (rejected > 0) this.#lost(rejected, `it refused ${rejected} spans`)
    this.#goOn()
  }

  #failed(what: string, isRetryable: boolean, retryAfterMs: number | null): void {
    this.#tries++
    if (isRetryable && this.#tries < MAX_TRIES && !this.#isClosed) {
      const { retryMs = RETRY_MS } = this.#options
      this.#tell(what)
      this.#wait(Math.min(MAX_RETRY_MS, retryAfterMs ?? retryMs * 2 ** (this.#tries - 1)))
      return
    }
    const lost = this.#batch.length
    this.#batch = []
    this.#lost(lost, what)
    this.#goOn()
  }

  #goOn(): void {
    if (this.#waiting.length >= MAX_BATCH || this.#isClosed) this.#next()
    else if (this.#waiting.length > 0) this.#wait(this.#options.flushMs ?? FLUSH_MS)
  }

  #lost(count: number, what: string): void {
    this.dropped += count
    this.#tell(what)
  }

  #tell(what: string): void {
    const time = performance.now()
    if (time - this.#toldAt < TELL_AGAIN_MS) return
    this.#toldAt = time
    this.#options.onFailure?.(`collector '${this.#url.origin}${this.#url.pathname}': ${what}`, this.dropped)
  }

  #post(body: Buffer, done: (answer: Answer) => void, failed: (error: NodeJS.ErrnoException) => void): void {
    // Loaded here and not at the start: most sidecars send no spans, and Node's client costs each half a megabyte.
    const isTls = this.#url.protocol === 'https:'
    if (isTls) trustNodeRoots()
    const http = process.getBuiltinModule(isTls ? 'node:https' : 'node:http')
    this.#agent ??= new http.Agent({ keepAlive: true, maxSockets: 1 })
    let isOver = false
    const end = (error: NodeJS.ErrnoException | null, answer?: Answer) => {
      if (isOver) return
      isOver = true
      this.#request = null
      if (answer === undefined) failed(error ?? new Error('closed the connection'))
      else done(answer)
    }
    const headers = {
      'content-type': 'application/json',
      'content-length': body.length,
      'user-agent': `ambassador/${PRODUCT_VERSION}`,
    }
    let lookup: LookupFunction | undefined
    try {
      lookup = this.#options.lookup?.(this.#url.hostname, Number(this.#url.port || (isTls ? 443 : 80)))
    } catch (error) {
      failed(error as Error)
      return
    }
    const request = http.request(this.#url, { method: 'POST', headers, agent: this.#agent, lookup }, (response) => {
      let text = ''
      response.setEncoding('utf8')
      response.on('data', (chunk: string) => {
        if (text.length + chunk.length > MAX_ANSWER_BYTES) request.destroy(new Error('answered with more than 64 KiB'))
        else text += chunk
      })
      response.on('end', () => {
        const retryAfterMs = waitOf(response.headers['retry-after'] ?? '')
        end(null, { status: response.statusCode ?? 0, retryAfterMs, body: text })
      })
      response.on('error', end)
    })
    this.#request = request
    request.setTimeout(TIMEOUT_MS, () => request.destroy(new Error(`no answer within ${TIMEOUT_MS} ms`)))
    request.on('error', end)
    request.on('close', () => end(null))
    request.end(body)
  }
}

/** Retry-After in seconds or as a date, in milliseconds from now; null: not said, or nobody can read it. */
function waitOf(value: string): number | null {
  const ms = /^\d+$/.test(value) ? Number(value) * 1000 : Date.parse(value) - Date.now()
  return Number.isNaN(ms) ? null : Math.max(0, ms)
}

/** How many spans of a batch a collector refused while it took the others (OTLP, "Partial Success"); 64-bit integers are strings. */
function rejectedSpans(body: string): number {
  try {
    const { rejectedSpans = 0 } = JSON.parse(body).partialSuccess ?? {}
    const count = Number(rejectedSpans)
    return Number.isFinite(count) ? Math.max(0, count) : 0
  } catch {
    // Some answer with nothing, or with protobuf whatever was asked for.
    return 0
  }
}

/** SPAN_KIND_CLIENT and STATUS_CODE_ERROR (opentelemetry/proto/trace/v1/trace.proto). */
const KIND_CLIENT = 3
const STATUS_ERROR = 2
/** Of `flags`: whether the parent is in another process is known, and it is. */
const IS_REMOTE_KNOWN = 0x100
const IS_REMOTE = 0x200

/** An ExportTraceServiceRequest in protobuf's JSON, with ids in hexadecimal as OTLP has it. */
function documentOf(resource: Attributes, spans: readonly Span[]): object {
  const scope = { name: 'ambassador', version: PRODUCT_VERSION }
  return {
    resourceSpans: [{ resource: { attributes: pairs(resource) }, scopeSpans: [{ scope, spans: spans.map(spanJson) }] }],
  }
}

function spanJson(span: Span): object {
  const { traceId, spanId, parentId, traceState, error, events } = span
  return {
    traceId,
    spanId,
    ...(traceState !== null && { traceState }),
    ...(parentId !== null && { parentSpanId: parentId }),
    flags: (span.isSampled ? 1 : 0) | IS_REMOTE_KNOWN | (parentId === null ? 0 : IS_REMOTE),
    name: span.name,
    kind: KIND_CLIENT,
    startTimeUnixNano: nanos(span.startMs),
    endTimeUnixNano: nanos(span.endMs),
    attributes: pairs(span.attributes),
    ...(events.length > 0 && {
      events: events.map(({ name, atMs, attributes }) => {
        return { timeUnixNano: nanos(atMs), name, attributes: pairs(attributes) }
      }),
    }),
    status: error === null ? {} : { code: STATUS_ERROR, message: error },
  }
}

/** 64-bit integers are strings in protobuf's JSON. */
function nanos(ms: number): string {
  const whole = Math.floor(ms)
  return `${whole}${String(Math.floor((ms - whole) * 1e6)).padStart(6, '0')}`
}

function pairs(attributes: Attributes): object[] {
  return Object.entries(attributes).map(([key, value]) => ({ key, value: valueJson(value) }))
}

function valueJson(value: string | number): object {
  if (typeof value === 'string') return { stringValue: value }
  return Number.isInteger(value) ? { intValue: String(value) } : { doubleValue: value }
}
