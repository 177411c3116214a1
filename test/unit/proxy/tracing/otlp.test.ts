import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { OtlpExporter, type OtlpOptions, type Span } from '../../../../proxy/tracing/otlp.ts'
import { SpanSender } from '../../../../proxy/tracing/sender.ts'
import { endsOfEach } from '../../../helpers/ends.ts'
import { type CollectorAnswer, OtlpCollector } from '../../../helpers/otlp-collector.ts'
import { closedPort } from '../../../helpers/tcp.ts'

const ends = endsOfEach()

const TRACE = '0af7651916cd43dd8448eb211c80319c'

const span = (over: Partial<Span> = {}): Span => ({
  traceId: TRACE,
  spanId: '00f067aa0ba902b7',
  parentId: 'b7ad6b7169203331',
  traceState: 'congo=t61rcWkgMzE',
  isSampled: true,
  name: 'GET',
  startMs: 1_700_000_000_000.25,
  endMs: 1_700_000_000_010.5,
  error: null,
  attributes: { 'http.response.status_code': 200, 'server.address': 'api.example.com', share: 0.5 },
  events: [],
  ...over,
})

function exporter(collector: OtlpCollector, options: Partial<OtlpOptions> = {}) {
  const failures: string[] = []
  const made = new OtlpExporter({
    endpoint: collector.url,
    resource: { 'service.name': 'ambassador' },
    onFailure: (message) => failures.push(message.replace(/127\.0\.0\.1:\d+/, 'HOST')),
    flushMs: 1,
    retryMs: 1,
    ...options,
  })
  ends.push(() => made.close())
  return { made, failures }
}

const collecting = (answer?: (index: number) => CollectorAnswer | Promise<CollectorAnswer>) =>
  new OtlpCollector(answer).start(ends)

describe('the exporter of spans', () => {
  it('delivers a span as the protocol writes it', async () => {
    const collector = await collecting()
    const { made } = exporter(collector)
    made.add(span({ error: 'no answer', events: [{ name: 'e', atMs: 1_700_000_000_001, attributes: { n: 1 } }] }))
    const [sent] = await collector.collected(1)
    assert.deepEqual(sent, {
      traceId: TRACE,
      spanId: '00f067aa0ba902b7',
      parentSpanId: 'b7ad6b7169203331',
      traceState: 'congo=t61rcWkgMzE',
      flags: 0x301,
      name: 'GET',
      kind: 3,
      startNanos: 1_700_000_000_000_250_000n,
      endNanos: 1_700_000_000_010_500_000n,
      attributes: { 'http.response.status_code': 200, 'server.address': 'api.example.com', share: 0.5 },
      events: [{ name: 'e', atNanos: 1_700_000_000_001_000_000n, attributes: { n: 1 } }],
      status: { code: 2, message: 'no answer' },
    })
    assert.deepEqual(collector.resources, [{ 'service.name': 'ambassador' }])
    const [request] = collector.requests
    assert.equal(request?.method, 'POST')
    assert.equal(request?.path, '/v1/traces')
    assert.equal(request?.headers['content-type'], 'application/json')
    await made.close()
    assert.equal(made.exported, 1)
  })

  it('leaves out what a span does not have', async () => {
    const collector = await collecting()
    const { made } = exporter(collector)
    made.add(span({ parentId: null, traceState: null, isSampled: false }))
    const [sent] = await collector.collected(1)
    assert.equal(sent?.parentSpanId, undefined)
    assert.equal(sent?.traceState, undefined)
    assert.equal(sent?.flags, 0x100)
    assert.deepEqual(sent?.status, {})
  })

  it('sends below the path of the endpoint, once', async () => {
    const collector = await collecting()
    for (const path of ['/', '/otlp', '/otlp/', '/v1/traces', '/v1/traces/']) {
      const { made } = exporter(collector, { endpoint: collector.url + path })
      made.add(span())
      await made.close()
    }
    assert.deepEqual(
      collector.requests.map(({ path }) => path),
      ['/v1/traces', '/otlp/v1/traces', '/otlp/v1/traces', '/v1/traces', '/v1/traces'],
    )
  })

  it('puts spans together in batches on one connection', async () => {
    const collector = await collecting()
    const { made } = exporter(collector)
    for (let i = 0; i < 1000; i++) made.add(span())
    await collector.collected(1000)
    assert.ok(collector.requests.length <= 5, `${collector.requests.length} requests`)
    assert.equal(collector.connections, 1)
    assert.equal(made.dropped, 0)
  })

  it('tries a batch again that the collector could not take just now', async () => {
    const answers = [503, 429, 502, 200]
    const collector = await collecting((index) => ({ status: answers[index] ?? 200 }))
    const { made, failures } = exporter(collector)
    made.add(span())
    await collector.collected(1)
    await made.close()
    assert.equal(made.exported, 1)
    assert.equal(made.dropped, 0)
    assert.deepEqual(failures, ["collector 'http://HOST/v1/traces': answered 503"], 'it is told once a minute')
  })

  it('waits as long as Retry-After says', async () => {
    const collector = await collecting((index) =>
      index === 0 ? { status: 429, headers: { 'retry-after': '1' } } : { status: 200 },
    )
    const { made } = exporter(collector)
    const started = performance.now()
    made.add(span())
    await collector.collected(1)
    assert.ok(performance.now() - started >= 990)
  })

  it('waits until the date of Retry-After', async () => {
    let until = 0
    const collector = await collecting((index) => {
      if (index > 0) return { status: 200 }
      until = Math.ceil(Date.now() / 1000) * 1000 + 1000
      return { status: 503, headers: { 'retry-after': new Date(until).toUTCString() } }
    })
    const { made } = exporter(collector)
    made.add(span())
    await collector.collected(1)
    assert.ok(Date.now() >= until - 10)
  })

  it('gives a batch up that will never be taken', async () => {
    const collector = await collecting(() => ({ status: 400 }))
    const { made, failures } = exporter(collector)
    made.add(span())
    await collector.asked(1)
    await made.close()
    assert.equal(collector.requests.length, 1)
    assert.equal(made.dropped, 1)
    assert.deepEqual(failures, ["collector 'http://HOST/v1/traces': answered 400"])
  })

  it('gives a batch up after five tries', async () => {
    const collector = await collecting(() => ({ status: 503 }))
    const { made } = exporter(collector)
    made.add(span())
    await collector.asked(5)
    await made.close()
    assert.equal(collector.requests.length, 5)
    assert.equal(made.dropped, 1)
  })

  it('counts what a collector refused while it took the others', async () => {
    const partial = JSON.stringify({ partialSuccess: { rejectedSpans: '2', errorMessage: 'no' } })
    const collector = await collecting(() => ({ status: 200, body: partial }))
    const { made, failures } = exporter(collector, { flushMs: 20 })
    for (let i = 0; i < 5; i++) made.add(span())
    await collector.collected(5)
    await made.close()
    assert.equal(made.exported, 3)
    assert.equal(made.dropped, 2)
    assert.deepEqual(failures, ["collector 'http://HOST/v1/traces': it refused 2 spans"])
  })

  it('keeps a bounded number of spans while the collector hangs, and takes no time', async () => {
    let release = () => {}
    const hang = new Promise<void>((resolve) => (release = resolve))
    const collector = await collecting(async () => {
      await hang
      return { status: 200 }
    })
    const { made } = exporter(collector)
    for (let i = 0; i < 10_000; i++) made.add(span())
    assert.equal(made.dropped, 10_000 - 2048)
    await collector.asked(0)
    release()
    await collector.collected(2048)
    await made.close()
    assert.equal(made.exported, 2048)
  })

  it('counts spans as dropped when nobody listens, and the end does not wait', async () => {
    const failures: string[] = []
    const made = new OtlpExporter({
      endpoint: `http://127.0.0.1:${await closedPort()}`,
      resource: {},
      onFailure: (message) => failures.push(message),
      flushMs: 1,
    })
    made.add(span())
    await made.close()
    assert.equal(made.dropped, 1)
    assert.match(failures[0] ?? '', /^collector 'http:\/\/127\.0\.0\.1:\d+\/v1\/traces': ECONNREFUSED$/)
    made.add(span())
    assert.equal(made.dropped, 2, 'it is closed')
  })

  it('ends within a second though the collector hangs', async () => {
    const collector = await collecting(() => new Promise(() => {}))
    const { made } = exporter(collector)
    for (let i = 0; i < 600; i++) made.add(span())
    const started = performance.now()
    await made.close()
    assert.ok(performance.now() - started < 5000)
    assert.equal(made.dropped, 600)
  })
})

describe('the spans of an Ambassador', () => {
  it('follow the collector that the config names, and are counted over all of them', async () => {
    const first = await collecting()
    const second = await collecting()
    const lines: string[] = []
    const log = { debug() {}, info() {}, error() {}, warn: (_: object, text: string) => lines.push(text) }
    const sender = new SpanSender('shop', 'payments', { pod: 'checkout-1', log })
    const config = { sample: 1, slowMs: 1 }
    sender.add(span())
    sender.update({ endpoint: first.url, ...config })
    sender.add(span({ name: 'one' }))
    sender.update({ endpoint: first.url, sample: 0.5, slowMs: 2 })
    sender.add(span({ name: 'two' }))
    sender.update({ endpoint: second.url, ...config })
    sender.add(span({ name: 'three' }))
    await sender.close()
    assert.deepEqual(
      (await first.collected(2)).map(({ name }) => name),
      ['one', 'two'],
    )
    assert.deepEqual(
      (await second.collected(1)).map(({ name }) => name),
      ['three'],
    )
    assert.deepEqual(second.resources, [
      {
        'service.name': 'ambassador',
        'service.namespace': 'shop',
        'k8s.namespace.name': 'shop',
        'service.instance.id': 'checkout-1',
        'k8s.pod.name': 'checkout-1',
      },
    ])
    while (sender.exported < 3) await new Promise((resolve) => setImmediate(resolve))
    sender.update(undefined)
    assert.equal(sender.exported, 3)
    assert.equal(sender.dropped, 0)
    assert.deepEqual(lines, [])
  })
})
