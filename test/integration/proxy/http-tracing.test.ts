/** Trace context and spans on real sockets, with a collector that is strict about the protocol. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { endsOfEach } from '../../helpers/ends.ts'
import { type Answer, ok, type ReceivedRequest, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'
import { onTime } from '../../helpers/on-time.ts'
import { OtlpCollector } from '../../helpers/otlp-collector.ts'
import { renderedProxy } from '../../helpers/rendered-proxy.ts'
import { closedPort } from '../../helpers/tcp.ts'

const ends = endsOfEach()

const TRACE = '0af7651916cd43dd8448eb211c80319c'
const PARENT = 'b7ad6b7169203331'
const PARENT_FIELD = `00-${TRACE}-${PARENT}-01`

type Respond = (request: ReceivedRequest) => Answer | Promise<Answer>

async function setup(respond: Respond = () => ok(), tracing: object | null = { sample: '100%' }, spec: object = {}) {
  const collector = await new OtlpCollector().start(ends)
  const upstream = await scriptedUpstream(ends, respond)
  const given = {
    upstreams: [{ name: 'live', endpoints: [{ host: '127.0.0.1', port: upstream.port }] }],
    ...(tracing !== null && { tracing: { otlpEndpoint: collector.url, ...tracing } }),
    ...spec,
  } as never
  const proxy = await renderedProxy(given, ends)
  return {
    collector,
    upstream,
    proxy,
    client: proxy.connect(),
    /** Everything that was and will be sent. */
    spans: async () => {
      await proxy.driver.spans?.close()
      assert.deepEqual(collector.problems, [])
      return collector.spans
    },
  }
}

describe('trace context without tracing', () => {
  it('is passed on to the byte, well-formed or not', async () => {
    const { upstream, client } = await setup(undefined, null)
    const lines = [
      `TraceParent: ${PARENT_FIELD}`,
      'tracestate: congo=t61rcWkgMzE',
      'Tracestate: rojo=1',
      'traceparent: nonsense',
    ]
    await client.get('/', ...lines).response()
    const { head } = await upstream.request(0)
    for (const line of lines) assert.ok(head.includes(`\r\n${line}\r\n`), line)
  })

  it('is not begun', async () => {
    const { upstream, client } = await setup(undefined, null)
    await client.get('/').response()
    assert.equal((await upstream.request(0)).field('traceparent'), null)
  })
})

describe('trace context with tracing', () => {
  it('goes on with a span id of ours, in the place and case of the field, with its state', async () => {
    const { upstream, client, spans } = await setup()
    await client.get('/', 'A: 1', `TraceParent: ${PARENT_FIELD}`, 'B: 2', 'tracestate: congo=t61rcWkgMzE').response()
    const { head } = await upstream.request(0)
    const [, spanId] =
      /\r\nA: 1\r\nTraceParent: 00-0af7651916cd43dd8448eb211c80319c-([0-9a-f]{16})-01\r\nB: 2\r\ntracestate: congo=t61rcWkgMzE\r\n/.exec(
        head,
      ) ?? []
    assert.notEqual(spanId, undefined, head)
    assert.notEqual(spanId, PARENT)
    const [span] = await spans()
    assert.equal(span?.traceId, TRACE)
    assert.equal(span?.spanId, spanId)
    assert.equal(span?.parentSpanId, PARENT)
    assert.equal(span?.traceState, 'congo=t61rcWkgMzE')
  })

  it('is begun for a request without one', async () => {
    const { upstream, client, spans } = await setup()
    await client.get('/').response()
    const field = (await upstream.request(0)).field('traceparent') ?? ''
    const [span] = await spans()
    assert.equal(field, `00-${span?.traceId}-${span?.spanId}-01`)
    assert.equal(span?.parentSpanId, undefined)
  })

  it('is begun anew where nobody can read it, and its state goes', async () => {
    const { upstream, client } = await setup()
    for (const lines of [
      ['traceparent: nonsense'],
      [`traceparent: ${PARENT_FIELD}`, `Traceparent: ${PARENT_FIELD}`],
      [],
    ]) {
      await client.get('/', ...lines, 'tracestate: a=1', 'X: 1').response()
    }
    for (let i = 0; i < 3; i++) {
      const { head } = await upstream.request(i)
      assert.equal(head.match(/^traceparent:/gim)?.length, 1)
      assert.match(head, /\r\ntraceparent: 00-[0-9a-f]{32}-[0-9a-f]{16}-01\r\n/)
      assert.doesNotMatch(head, /tracestate/i)
      assert.ok(!head.includes(TRACE))
    }
  })

  it('leaves every other byte of the head alone', async () => {
    const { upstream, client } = await setup()
    const plain = await setup(undefined, null)
    const lines = ['X-Request-ID: 1', 'a:b', 'A:  c  ', 'Authorization: secret', `traceparent: ${PARENT_FIELD}`]
    await client.get('/a/../b%2f?c=%20', ...lines).response()
    await plain.client.get('/a/../b%2f?c=%20', ...lines).response()
    const traced = (await upstream.request(0)).head.replace(/-[0-9a-f]{16}-01/, `-${PARENT}-01`)
    const untraced = (await plain.upstream.request(0)).head
    assert.equal(
      traced.replace(`127.0.0.1:${upstream.port}`, 'HOST'),
      untraced.replace(`127.0.0.1:${plain.upstream.port}`, 'HOST'),
    )
  })

  it('has the same span for each try of a request, and another for each request', async () => {
    let count = 0
    const { upstream, client } = await setup(() => (++count === 1 ? withStatus(503) : ok()), undefined, {
      retry: { on: ['503'], backoff: { initial: '1ms', max: '1ms' } },
    })
    await client.get('/').response()
    await client.get('/').response()
    const fields = [0, 1, 2].map(async (index) => (await upstream.request(index)).field('traceparent'))
    const [first, second, third] = await Promise.all(fields)
    assert.equal(first, second)
    assert.notEqual(first, third)
  })
})

describe('a span', () => {
  it('says what was asked of whom and how it went, in the words of the conventions', async () => {
    const { upstream, client, spans, proxy } = await setup(() => withStatus(404, 'nothing'))
    const before = Date.now()
    await client.get('/a/b?token=secret', 'X-Request-ID: r-1', 'Authorization: secret').response()
    const [span] = await spans()
    assert.ok(span)
    assert.equal(span.name, 'GET')
    assert.equal(span.kind, 3)
    assert.deepEqual(span.attributes, {
      'http.request.method': 'GET',
      'network.protocol.name': 'http',
      'network.protocol.version': '1.1',
      'ambassador.name': 'test',
      'ambassador.upstream': 'live',
      'ambassador.request_id': 'r-1',
      'server.address': '127.0.0.1',
      'server.port': upstream.port,
      'network.peer.address': '127.0.0.1',
      'network.peer.port': upstream.port,
      'url.full': `http://127.0.0.1:${upstream.port}/a/b`,
      'http.response.status_code': 404,
      'error.type': '404',
    })
    assert.equal(span.status.code, 2)
    assert.ok(
      !JSON.stringify(span, (_, value) => (typeof value === 'bigint' ? String(value) : value)).includes('secret'),
    )
    const startMs = Number(span.startNanos / 1_000_000n)
    assert.ok(startMs >= before - 1 && startMs <= Date.now())
    const [line] = await proxy.logged(1)
    assert.equal(line?.['traceId'], span.traceId)
  })

  it('has a name of few values whatever the method is', async () => {
    const { client, spans } = await setup()
    await client.write('PURGEX / HTTP/1.1\r\nHost: a\r\n\r\n').response()
    const [span] = await spans()
    assert.equal(span?.name, 'HTTP')
    assert.equal(span?.attributes['http.request.method'], '_OTHER')
    assert.equal(span?.attributes['http.request.method_original'], 'PURGEX')
    assert.deepEqual(span?.status, {})
  })

  it('has an event for each try that was followed by another', async () => {
    let count = 0
    const { client, spans, upstream } = await setup(
      ({ socket }) => {
        count++
        if (count === 1) return withStatus(503, '', 'Connection: close')
        if (count === 2) {
          socket.destroy()
          return null
        }
        return ok()
      },
      undefined,
      { retry: { maxRetries: 3, on: ['503', 'Reset'], backoff: { initial: '1ms', max: '1ms' } } },
    )
    await client.get('/').response()
    const [span] = await spans()
    assert.equal(span?.attributes['http.request.resend_count'], 2)
    assert.deepEqual(span?.status, {})
    assert.deepEqual(
      span?.events.map(({ name, attributes: { 'ambassador.attempt.duration_ms': ms, ...rest } }) => {
        assert.ok(Number(ms) >= 0)
        return { name, ...rest }
      }),
      [
        {
          name: 'attempt failed',
          'ambassador.attempt': 1,
          'ambassador.endpoint': `127.0.0.1:${upstream.port}`,
          'error.type': '503',
          'http.response.status_code': 503,
        },
        {
          name: 'attempt failed',
          'ambassador.attempt': 2,
          'ambassador.endpoint': `127.0.0.1:${upstream.port}`,
          'error.type': 'upstream_reset',
        },
      ],
    )
    for (const { atNanos } of span?.events ?? []) {
      assert.ok(atNanos >= (span?.startNanos ?? 0n) && atNanos <= (span?.endNanos ?? 0n))
    }
  })

  it('of an exchange that failed has its reason', async () => {
    const port = await closedPort()
    const { client, spans } = await setup(
      undefined,
      { sample: '0%' },
      {
        upstreams: [{ name: 'live', endpoints: [{ host: '127.0.0.1', port }] }],
        retry: { maxRetries: 0 },
      },
    )
    assert.equal((await client.get('/').response()).status, 502)
    const [span] = await spans()
    assert.equal(span?.attributes['error.type'], 'connect_refused')
    assert.equal(span?.attributes['ambassador.reason'], 'connect_refused')
    assert.equal(span?.status.code, 2)
    assert.match(span?.status.message ?? '', /ECONNREFUSED/)
  })
})

describe('the histogram of durations', () => {
  it('has the newest request whose span is sent as the example of its bucket, and no other one', async () => {
    const { client, proxy } = await setup(({ target }) => (target === '/404' ? withStatus(404) : ok()), {
      sample: '0%',
    })
    await client.get('/404').response()
    await client.get('/', `traceparent: 00-${'1'.repeat(32)}-${PARENT}-01`).response()
    await proxy.logged(2)
    const { cells } = proxy.compiler.clusters[0]!
    const examples = cells.byStatus[200]?.exemplars?.filter((each) => each !== null) ?? []
    assert.deepEqual(
      examples.map(({ traceId }) => traceId),
      ['1'.repeat(32)],
    )
    const [example] = examples
    assert.ok(example !== undefined && example.durationMs > 0 && Math.abs(Date.now() - example.atMs) < 60_000)
    assert.equal(cells.byStatus[404]?.exemplars, null)
  })
})

describe('which spans are sent', () => {
  it('those that the application sampled, and with 0% no other one that went well in time', () =>
    onTime(300, async () => {
      const { client, spans } = await setup(undefined, { sample: '0%', slowerThan: '1h' })
      await client.get('/0').response()
      await client.get('/1', `traceparent: ${PARENT_FIELD}`).response()
      await client.get('/2', `traceparent: 00-${TRACE}-${PARENT}-00`).response()
      const found = await spans()
      assert.deepEqual(
        found.map(({ attributes }) => String(attributes['url.full']).slice(-2)),
        ['/1'],
      )
    }))

  it('with 100% not those that the application did not sample', async () => {
    const { client, spans } = await setup(undefined, { sample: '100%' })
    await client.get('/0', `traceparent: 00-${TRACE}-${PARENT}-00`).response()
    await client.get('/1').response()
    const found = await spans()
    assert.deepEqual(
      found.map(({ attributes }) => String(attributes['url.full']).slice(-2)),
      ['/1'],
    )
  })

  it('whatever the sample says, failures and answers that begin late', () =>
    onTime(40, async () => {
      const { client, spans, upstream } = await setup(
        async ({ target, socket }) => {
          if (target === '/500') return withStatus(500)
          if (target === '/404') return withStatus(404)
          if (target === '/slow') await new Promise((resolve) => setTimeout(resolve, 150))
          if (target === '/stream') {
            socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\na')
            setTimeout(() => socket.write('b'), 150)
            return null
          }
          return ok()
        },
        { sample: '0%', slowerThan: '100ms' },
        { retry: { maxRetries: 0 } },
      )
      for (const path of ['/500', '/404', '/slow', '/stream']) {
        await client.get(path, `traceparent: 00-${TRACE}-${PARENT}-00`).response()
      }
      const found = (await spans()).map(({ attributes, flags }) => {
        assert.equal(flags & 1, 0, 'it was not sampled')
        return String(attributes['url.full']).replace(`http://127.0.0.1:${upstream.port}`, '')
      })
      // A machine under load may be late with any of them; these two are always there.
      for (const path of ['/500', '/slow']) assert.ok(found.includes(path), path)
      assert.ok(found.length < 4, found.join(' '))
    }))
})

describe('a collector that is away', () => {
  it('costs no request anything', async () => {
    const port = await closedPort()
    const { proxy } = await setup(undefined, { sample: '100%', otlpEndpoint: `http://127.0.0.1:${port}` })
    const client = proxy.connect()
    for (let i = 0; i < 50; i++) assert.equal((await client.get('/').response()).status, 200)
    await proxy.driver.spans?.close()
    assert.equal(proxy.driver.spans?.dropped, 50)
  })

  it('that comes with a new config is sent to from then on', async () => {
    const { proxy, client, upstream, collector, spans } = await setup(undefined, null)
    await client.get('/0').response()
    const spec = { upstreams: [{ name: 'live', endpoints: [{ host: '127.0.0.1', port: upstream.port }] }] }
    proxy.update({ ...spec, tracing: { otlpEndpoint: collector.url, sample: '100%' } } as never)
    await client.get('/1').response()
    assert.equal((await spans()).length, 1)
  })
})
