import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { afterEach, describe, it } from 'node:test'
import { OtlpExporter, type Span } from '../../../../proxy/tracing/otlp.ts'
import { takeUp, traceparentOf } from '../../../../proxy/tracing/trace-context.ts'

const TRACE = '0af7651916cd43dd8448eb211c80319c'
const PARENT = 'b7ad6b7169203331'

describe('the trace of a request', () => {
  it('goes on with a new span id when the caller sent one', () => {
    const context = takeUp(`00-${TRACE}-${PARENT}-01`, false)
    assert.equal(context.traceId, TRACE)
    assert.equal(context.parentId, PARENT)
    assert.equal(context.isSampled, true)
    assert.match(traceparentOf(context), new RegExp(`^00-${TRACE}-[0-9a-f]{16}-01$`))
    assert.notEqual(context.spanId, PARENT)
  })

  it('is sampled by us when the caller does not', () => {
    assert.equal(takeUp(`00-${TRACE}-${PARENT}-00`, true).isSampled, true)
    assert.equal(takeUp(`00-${TRACE}-${PARENT}-00`, false).isSampled, false)
  })

  it('of a later version is read by its first four fields', () => {
    assert.equal(takeUp(`01-${TRACE}-${PARENT}-01-more`, false).traceId, TRACE)
  })

  const malformed = [
    null,
    '',
    `ff-${TRACE}-${PARENT}-01`,
    `00-${'0'.repeat(32)}-${PARENT}-01`,
    `00-${TRACE}-${'0'.repeat(16)}-01`,
    `00-${TRACE.toUpperCase()}-${PARENT}-01`,
    `00-${TRACE}-${PARENT}-01-more`,
    `00-${TRACE}-${PARENT}`,
    'x'.repeat(5000),
  ]
  for (const field of malformed) {
    it(`begins here when the field is ${JSON.stringify(field)?.slice(0, 60)}`, () => {
      const context = takeUp(field, true)
      assert.equal(context.parentId, null)
      assert.match(context.traceId, /^[0-9a-f]{32}$/)
      assert.notEqual(context.traceId, TRACE)
    })
  }

  it('has ids of its own each time', () => {
    const ids = new Set(Array.from({ length: 2000 }, () => takeUp(null, true).spanId))
    assert.equal(ids.size, 2000)
  })
})

const open: { close(): void }[] = []
afterEach(() => {
  for (const thing of open.splice(0)) thing.close()
})

async function collector(answer: () => number): Promise<{ url: URL; bodies: string[]; paths: string[] }> {
  const bodies: string[] = []
  const paths: string[] = []
  const server: Server = createServer(async (request, response) => {
    let body = ''
    for await (const chunk of request) body += chunk
    bodies.push(body)
    paths.push(request.url ?? '')
    response.writeHead(answer()).end('{}')
  })
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  open.push({
    close: () => {
      server.closeAllConnections()
      server.close()
    },
  })
  return { url: new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`), bodies, paths }
}

const span = (over: Partial<Span> = {}): Span => ({
  context: takeUp(`00-${TRACE}-${PARENT}-01`, true),
  name: 'GET',
  startMs: 1_700_000_000_000.25,
  endMs: 1_700_000_000_010.5,
  isError: false,
  attributes: { 'http.response.status_code': 200, 'server.address': 'api.example.com' },
  ...over,
})

describe('the exporter of spans', () => {
  it('delivers a span as the protocol writes it', async () => {
    const to = await collector(() => 200)
    const exporter = new OtlpExporter({ endpoint: to.url, resource: { 'service.name': 'checkout' } })
    exporter.add(span({ isError: true }))
    await exporter.close()
    assert.deepEqual(to.paths, ['/v1/traces'])
    const [resourceSpans] = JSON.parse(to.bodies[0] as string).resourceSpans
    assert.deepEqual(resourceSpans.resource.attributes, [{ key: 'service.name', value: { stringValue: 'checkout' } }])
    const [sent] = resourceSpans.scopeSpans[0].spans
    assert.equal(sent.traceId, TRACE)
    assert.equal(sent.parentSpanId, PARENT)
    assert.equal(sent.kind, 3)
    assert.equal(sent.startTimeUnixNano, '1700000000000250000')
    assert.equal(sent.endTimeUnixNano, '1700000000010500000')
    assert.deepEqual(sent.status, { code: 2 })
    assert.deepEqual(sent.attributes[0], { key: 'http.response.status_code', value: { intValue: '200' } })
    assert.equal(exporter.sent, 1)
  })

  it('drops and counts spans, and says why, while the collector does not take them', async () => {
    const to = await collector(() => 503)
    const failures: string[] = []
    const exporter = new OtlpExporter({
      endpoint: to.url,
      resource: {},
      onFailure: (message) => failures.push(message),
    })
    exporter.add(span())
    await exporter.flush()
    assert.equal(exporter.dropped, 1)
    assert.match(failures[0] as string, /^collector 'http:\/\/127\.0\.0\.1:\d+': answered 503, spans are dropped$/)
  })

  it('keeps a bounded number of spans while the collector hangs', async () => {
    let release = () => {}
    const hang = new Promise<void>((resolve) => {
      release = resolve
    })
    const server: Server = createServer(async (request, response) => {
      request.resume()
      await hang
      response.end()
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    open.push({
      close: () => {
        server.closeAllConnections()
        server.close()
      },
    })
    const endpoint = new URL(`http://127.0.0.1:${(server.address() as AddressInfo).port}`)
    const exporter = new OtlpExporter({ endpoint, resource: {} })
    for (let i = 0; i < 5000; i++) exporter.add(span())
    assert.ok(exporter.dropped >= 5000 - 2048 - 256, `${exporter.dropped} dropped`)
    release()
    await exporter.close()
    assert.equal(exporter.sent + exporter.dropped, 5000)
  })
})
