/** A collector of OpenTelemetry for tests: takes OTLP over HTTP with JSON and refuses what protobuf's JSON mapping does not allow. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type IncomingHttpHeaders } from 'node:http'
import type { AddressInfo } from 'node:net'

export interface CollectedSpan {
  readonly traceId: string
  readonly spanId: string
  readonly parentSpanId: string | undefined
  readonly traceState: string | undefined
  readonly flags: number
  readonly name: string
  readonly kind: number
  readonly startNanos: bigint
  readonly endNanos: bigint
  readonly attributes: Readonly<Record<string, string | number>>
  readonly events: readonly {
    readonly name: string
    readonly atNanos: bigint
    readonly attributes: Readonly<Record<string, string | number>>
  }[]
  readonly status: { readonly code?: number; readonly message?: string }
}

export interface CollectorAnswer {
  readonly status: number
  readonly headers?: Record<string, string>
  readonly body?: string
}

export class OtlpCollector {
  readonly spans: CollectedSpan[] = []
  readonly resources: Readonly<Record<string, string | number>>[] = []
  readonly requests: {
    readonly method: string
    readonly path: string
    readonly headers: IncomingHttpHeaders
    /** The body as it came. */
    readonly text: string
  }[] = []
  /** What was not as the protocol has it. */
  readonly problems: string[] = []
  connections = 0
  readonly #server
  #wake: (() => void)[] = []

  /** @param answer what the request of a number (from 0) gets; default 200 with an empty object */
  constructor(answer: (index: number) => CollectorAnswer | Promise<CollectorAnswer> = () => ({ status: 200 })) {
    this.#server = createServer(async (request, response) => {
      let text = ''
      for await (const chunk of request) text += chunk
      const index = this.requests.length
      this.requests.push({ method: request.method ?? '', path: request.url ?? '', headers: request.headers, text })
      const { status, headers, body } = await answer(index)
      if (status === 200) this.#take(text)
      response.writeHead(status, { 'content-type': 'application/json', ...headers }).end(body ?? '{}')
      for (const each of this.#wake.splice(0)) each()
    })
    this.#server.on('connection', () => this.connections++)
  }

  async start(ends: (() => unknown)[]): Promise<this> {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
    ends.push(() => {
      this.#server.closeAllConnections()
      this.#server.close()
    })
    return this
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}`
  }

  /** Resolves when that many spans were taken. */
  async collected(count: number): Promise<readonly CollectedSpan[]> {
    while (this.spans.length < count) await this.#next()
    assert.deepEqual(this.problems, [])
    return this.spans
  }

  /** Resolves when that many requests were answered. */
  async asked(count: number): Promise<void> {
    while (this.requests.length < count) await this.#next()
  }

  #next(): Promise<void> {
    return new Promise((resolve) => this.#wake.push(resolve))
  }

  #take(text: string): void {
    try {
      for (const each of list(JSON.parse(text), 'resourceSpans')) {
        keys(each, ['resource', 'scopeSpans'])
        this.resources.push(attributesOf((each['resource'] as Json)['attributes']))
        for (const scoped of list(each, 'scopeSpans')) {
          keys(scoped, ['scope', 'spans'])
          for (const span of list(scoped, 'spans')) this.spans.push(spanOf(span))
        }
      }
    } catch (error) {
      this.problems.push((error as Error).message)
    }
  }
}

type Json = Record<string, unknown>

function list(object: Json, key: string): Json[] {
  assert.ok(Array.isArray(object[key]), `${key} is a list`)
  return object[key]
}

/** Fields that opentelemetry/proto/trace/v1/trace.proto has, in lowerCamelCase as OTLP's JSON wants them. */
const SPAN_KEYS = [
  'traceId',
  'spanId',
  'traceState',
  'parentSpanId',
  'flags',
  'name',
  'kind',
  'startTimeUnixNano',
  'endTimeUnixNano',
  'attributes',
  'events',
  'status',
]

function keys(object: Json, allowed: readonly string[]): void {
  for (const key of Object.keys(object)) assert.ok(allowed.includes(key), `'${key}' is a field`)
}

function spanOf(span: Json): CollectedSpan {
  keys(span, SPAN_KEYS)
  const { traceId, spanId, parentSpanId, traceState, flags, name, kind, status, events = [] } = span
  // bytes are base64 in protobuf's JSON, but for ids, which OTLP has in hexadecimal.
  matches(traceId, /^(?!0{32})[0-9a-f]{32}$/)
  matches(spanId, /^(?!0{16})[0-9a-f]{16}$/)
  if (parentSpanId !== undefined) matches(parentSpanId, /^(?!0{16})[0-9a-f]{16}$/)
  assert.ok(Number.isInteger(flags) && (flags as number) >= 0)
  assert.ok(typeof name === 'string' && name !== '')
  assert.ok([1, 2, 3, 4, 5].includes(kind as number), `kind ${kind} is one`)
  keys(status as Json, ['code', 'message'])
  const { code, message } = status as { code?: number; message?: string }
  assert.ok(code === undefined || [1, 2].includes(code), `code ${code} is one`)
  const startNanos = nanos(span['startTimeUnixNano'])
  const endNanos = nanos(span['endTimeUnixNano'])
  assert.ok(endNanos >= startNanos, 'a span ends after it begins')
  return {
    traceId: traceId as string,
    spanId: spanId as string,
    parentSpanId: parentSpanId as string | undefined,
    traceState: traceState as string | undefined,
    flags: flags as number,
    name,
    kind: kind as number,
    startNanos,
    endNanos,
    attributes: attributesOf(span['attributes']),
    events: (events as Json[]).map((event) => {
      keys(event, ['timeUnixNano', 'name', 'attributes'])
      return {
        name: String(event['name']),
        atNanos: nanos(event['timeUnixNano']),
        attributes: attributesOf(event['attributes']),
      }
    }),
    status: { ...(code !== undefined && { code }), ...(message !== undefined && { message }) },
  }
}

function matches(value: unknown, pattern: RegExp): void {
  assert.ok(typeof value === 'string' && pattern.test(value), `${JSON.stringify(value)} matches ${pattern}`)
}

/** fixed64 is a string of decimal digits. Nothing that a test sends is older than 2020. */
function nanos(value: unknown): bigint {
  matches(value, /^[0-9]{19}$/)
  const found = BigInt(value as string)
  assert.ok(found > 1_577_836_800_000_000_000n)
  return found
}

function attributesOf(pairs: unknown): Record<string, string | number> {
  assert.ok(Array.isArray(pairs), 'attributes are a list')
  const found: Record<string, string | number> = {}
  for (const pair of pairs as Json[]) {
    keys(pair, ['key', 'value'])
    const [[kind, value] = ['', '']] = Object.entries(pair['value'] as Json)
    assert.equal(Object.keys(pair['value'] as Json).length, 1, 'a value has one kind')
    const key = pair['key'] as string
    assert.ok(!(key in found), `${key} comes once`)
    if (kind === 'stringValue') {
      assert.equal(typeof value, 'string')
      found[key] = value as string
    } else if (kind === 'intValue') {
      // int64 is a string.
      matches(value, /^-?[0-9]+$/)
      found[key] = Number(value)
    } else {
      assert.equal(kind, 'doubleValue')
      assert.equal(typeof value, 'number')
      found[key] = value as number
    }
  }
  return found
}
