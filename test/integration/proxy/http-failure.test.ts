/** What the application sees when something goes wrong: answers of our own, cut answers, gates, deadlines and clients that leave. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { OverloadWatch } from '../../../proxy/runtime/overload.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { httpProxy } from '../../helpers/http-proxy.ts'
import { ok, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'
import { onTime } from '../../helpers/on-time.ts'
import { closedPort, type TestClient } from '../../helpers/tcp.ts'

const ends = endsOfEach()

const BREAKER = { consecutiveFailures: 3, failureRate: null, openMs: 400, maxOpenMs: 600, halfOpenRequests: 1 }

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

/** Resolves when some text has come. */
async function has(client: TestClient, text: string): Promise<void> {
  while (!client.text.includes(text)) await client.read(client.length + 1)
}

describe('an answer of the proxy', () => {
  it('is a problem document with reason, Proxy-Status and request id, and leaves the connection open', async () => {
    const port = await closedPort()
    const proxy = await httpProxy({ ports: [port] }, ends)
    const client = proxy.connect()
    for (let i = 0; i < 2; i++) {
      const response = await client.get('/', 'X-Request-ID: abc').response()
      assert.equal(response.status, 502)
      assert.equal(response.field('content-type'), 'application/problem+json')
      assert.equal(response.field('x-ambassador-reason'), 'connect_refused')
      assert.equal(response.field('x-request-id'), 'abc')
      assert.equal(response.field('connection'), null)
      const detail = `endpoint 127.0.0.1:${port} cannot be connected to: ECONNREFUSED`
      assert.equal(response.field('proxy-status'), `ambassador; error=connection_refused; details="${detail}"`)
      assert.deepEqual(JSON.parse(response.body), {
        type: 'about:blank',
        title: 'Bad Gateway',
        status: 502,
        detail,
        reason: 'connect_refused',
        requestId: 'abc',
      })
    }
    assert.deepEqual(proxy.troubles[0]?.reason, 'connect_refused')
    assert.equal(proxy.cells.reasons.connect_refused, 2)
  })

  it('has no body for HEAD', async () => {
    const proxy = await httpProxy({ ports: [await closedPort()] }, ends)
    const client = proxy.connect()
    const response = await client.write('HEAD / HTTP/1.1\r\nHost: a\r\n\r\n').response({ isHead: true })
    assert.equal(response.status, 502)
    assert.equal(response.body, '')
    assert.notEqual(response.field('content-length'), '0')
    assert.equal((await client.get().response()).status, 502)
  })

  it('closes the connection when the body of the request was not read', async () => {
    const proxy = await httpProxy({ ports: [await closedPort()] }, ends)
    const client = proxy.connect()
    client.write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nbegin')
    const response = await client.response()
    assert.equal(response.status, 502)
    assert.equal(response.field('connection'), 'close')
    await client.tcp.ended()
  })

  it('waits for endpoints that are not known yet, and says why when none come', async () => {
    const upstream = await scriptedUpstream(ends, () => ok())
    const late = await httpProxy({ isLate: true, timeouts: { requestMs: 20_000 } }, ends)
    const waiting = late.connect().get().response()
    while (late.cells.active === 0) await sleep(1)
    await sleep(60)
    late.found([upstream.port])
    assert.equal((await waiting).status, 200)
    assert.ok((await late.recorded(1))[0]!.queueMs >= 40)

    const never = await httpProxy({ isLate: true, timeouts: { requestMs: 80 } }, ends)
    const response = await never.connect().get().response()
    assert.equal(response.status, 502)
    assert.equal(response.field('x-ambassador-reason'), 'dns_failed')
    assert.match(response.body, /'late\.example' does not resolve/)
  })
})

describe('an upstream that breaks a rule', () => {
  const BAD: Record<string, string> = {
    'both framings': 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nTransfer-Encoding: chunked\r\n\r\nhi',
    'two lengths': 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nContent-Length: 3\r\n\r\nhi',
    'a bare LF': 'HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nhi',
    'a NUL': 'HTTP/1.1 200 OK\r\nX: a\0b\r\nContent-Length: 2\r\n\r\nhi',
    'a bare CR': 'HTTP/1.1 200 OK\r\nX: a\rb\r\nContent-Length: 2\r\n\r\nhi',
    'a head without end': `HTTP/1.1 200 OK\r\nX: ${'y'.repeat(70_000)}`,
    'a bad first chunk': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nzz\r\n',
    'a switch that nobody asked for': 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: x\r\nConnection: Upgrade\r\n\r\n',
    'another protocol': 'SSH-2.0-OpenSSH_9.2\r\n',
  }
  for (const [name, bytes] of Object.entries(BAD)) {
    it(`is answered with 502: ${name}`, async () => {
      const upstream = await scriptedUpstream(ends, () => bytes)
      const proxy = await httpProxy({ ports: [upstream.port] }, ends)
      const response = await proxy.connect().get().response()
      assert.equal(response.status, 502)
      assert.equal(response.field('x-ambassador-reason'), 'upstream_reset')
      assert.match(response.field('proxy-status')!, /error=http_protocol_error/)
      assert.equal(proxy.cluster.connections.used, 0, 'its connection is not used again')
    })
  }

  it('cannot put an answer into the mouth of the next one', async () => {
    const upstream = await scriptedUpstream(ends, ({ index }) =>
      index === 0 ? `${ok('one')}${ok('poison')}` : ok(`fresh`),
    )
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    assert.equal((await client.get().response()).body, 'one')
    assert.equal((await client.get().response()).body, 'fresh')
    assert.equal(upstream.connections, 2)
  })

  it('cannot do so later either: bytes on an idle connection end it', async () => {
    const upstream = await scriptedUpstream(ends, () => ok('answer'))
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    await client.get().response()
    const closed = new Promise((resolve) => upstream.requests[0]!.socket.once('close', resolve))
    upstream.requests[0]!.socket.write(ok('poison'))
    await closed
    assert.equal((await client.get().response()).body, 'answer')
    assert.equal(upstream.connections, 2)
  })
})

describe('bytes that an answer leaves behind it', () => {
  /** Answers the first request of a connection with `first`, and sends the rest of it when the next request is there. */
  const untidy = (first: string, rest: string) =>
    scriptedUpstream(ends, ({ index, socket }) => {
      if (index === 0) return first
      if (index === 1) socket.write(`${rest}${ok('late')}`)
      return index === 1 ? null : ok(`fresh ${index}`)
    })
  const CASES: Record<string, [method: string, first: string, rest: string]> = {
    'the body of an answer to HEAD': ['HEAD', 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n', 'hello'],
    'the chunks of an answer to HEAD': [
      'HEAD',
      'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n',
      '5\r\nhello\r\n0\r\n\r\n',
    ],
    'a body behind 204': ['GET', 'HTTP/1.1 204 No Content\r\n\r\n', 'hello'],
    'a body behind 304': ['GET', 'HTTP/1.1 304 Not Modified\r\n\r\n', '<html></html>'],
    'more than its length': ['GET', 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok', '\n\nmore'],
  }
  for (const [name, [method, first, rest]] of Object.entries(CASES)) {
    it(`are never the answer to the next request, which is asked once more: ${name}`, async () => {
      const upstream = await untidy(first, rest)
      const proxy = await httpProxy({ ports: [upstream.port] }, ends)
      const client = proxy.connect()
      await client.write(`${method} / HTTP/1.1\r\nHost: a\r\n\r\n`).response({ isHead: method === 'HEAD' })
      assert.equal((await client.get().response()).body, 'fresh 2')
      assert.equal(upstream.connections, 2)
      assert.equal(proxy.cells.replays, 1)
      assert.equal(proxy.cluster.connections.used, 1)
    })
  }

  it('cost a request that cannot be sent twice a 502', async () => {
    const [, first, rest] = CASES['the body of an answer to HEAD']!
    const upstream = await untidy(first, rest)
    const proxy = await httpProxy({ ports: [upstream.port], retry: {} }, ends)
    const client = proxy.connect()
    await client.write('HEAD / HTTP/1.1\r\nHost: a\r\n\r\n').response({ isHead: true })
    const response = await client.post('x').response()
    assert.equal(response.status, 502)
    assert.match(response.field('proxy-status')!, /error=http_protocol_error/)
    assert.equal(upstream.requests.length, 2)
  })

  it('on a new connection are what it speaks: it is not asked again', async () => {
    const upstream = await scriptedUpstream(ends, () => 'SSH-2.0-OpenSSH_9.2\r\n')
    const proxy = await httpProxy({ ports: [upstream.port], retry: {} }, ends)
    assert.equal((await proxy.connect().get().response()).status, 502)
    assert.equal(upstream.requests.length, 1)
  })
})

describe('an answer that is cut short', () => {
  const cases: Record<string, string> = {
    'Content-Length': 'HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello',
    chunked: 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n',
    'in a chunk': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\na\r\nhello',
  }
  for (const [name, bytes] of Object.entries(cases)) {
    for (const how of ['FIN', 'RST'] as const) {
      it(`is cut for the application too: ${name}, ${how}`, async () => {
        const upstream = await scriptedUpstream(ends, () => bytes)
        const proxy = await httpProxy({ ports: [upstream.port] }, ends)
        const client = proxy.connect().get()
        const { socket } = await upstream.request(0)
        await has(client.tcp, 'hello')
        if (how === 'FIN') socket.end()
        else socket.resetAndDestroy()
        const raw = await client.tcp.ended()
        assert.match(raw, /hello(\r\n)?$/)
        assert.doesNotMatch(raw, /\r\n0\r\n/)
        assert.equal((await proxy.recorded(1))[0]?.reason, 'upstream_truncated')
        assert.equal(proxy.cells.reasons.upstream_truncated, 1)
      })
    }
  }

  it('is cut when a body up to the end of the connection ends by a reset', async () => {
    const upstream = await scriptedUpstream(ends, () => 'HTTP/1.1 200 OK\r\n\r\nhello')
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect().get()
    await has(client.tcp, 'hello')
    upstream.requests[0]!.socket.resetAndDestroy()
    assert.doesNotMatch(await client.tcp.ended(), /\r\n0\r\n/)
    const old = proxy.connect().write('GET / HTTP/1.0\r\n\r\n')
    await has(old.tcp, 'hello')
    upstream.requests[1]!.socket.resetAndDestroy()
    assert.equal(await old.tcp.closed(), 'ECONNRESET')
  })
})

describe('gates', () => {
  it('refuse above the rate with 429 and Retry-After', async () => {
    const upstream = await scriptedUpstream(ends, () => ok())
    const rateLimit = { requests: 1, perMs: 60_000, burst: 2, onLimit: 'Reject', maxDelayMs: 0 } as const
    const proxy = await httpProxy({ ports: [upstream.port], rateLimit }, ends)
    const client = proxy.connect()
    assert.equal((await client.get().response()).status, 200)
    assert.equal((await client.get().response()).status, 200)
    const response = await client.get().response()
    assert.equal(response.status, 429)
    assert.equal(response.field('x-ambassador-reason'), 'rate_limited')
    const retryAfter = Number(response.field('retry-after'))
    assert.ok(retryAfter > 30 && retryAfter <= 60, String(retryAfter))
    assert.equal(upstream.requests.length, 2)
  })

  it('delay above the rate when told to, in order', async () => {
    const upstream = await scriptedUpstream(ends, ({ target }) => ok(target))
    const rateLimit = { requests: 2, perMs: 1000, burst: 1, onLimit: 'Delay', maxDelayMs: 5000 } as const
    const proxy = await httpProxy({ ports: [upstream.port], rateLimit }, ends)
    const started = performance.now()
    const clients = ['/0', '/1', '/2', '/3'].map((path) => proxy.connect().get(path))
    await Promise.all(clients.map((client) => client.response()))
    assert.ok(performance.now() - started >= 1450)
    // The last one waits for its turn as much shorter as it came later than the first, which a busy machine sees to.
    assert.ok(proxy.records.some(({ queueMs }) => queueMs >= 700))
  })

  it('delay no longer than they are told to: what would wait longer is refused at once', async () => {
    const upstream = await scriptedUpstream(ends, () => ok())
    const rateLimit = { requests: 1, perMs: 60_000, burst: 1, onLimit: 'Delay', maxDelayMs: 30_000 } as const
    const proxy = await httpProxy({ ports: [upstream.port], rateLimit }, ends)
    const client = proxy.connect()
    assert.equal((await client.get().response()).status, 200)
    const response = await client.get().response()
    assert.deepEqual([response.status, response.field('x-ambassador-reason')], [429, 'rate_limited'])
    assert.ok(Number(response.field('retry-after')) > 30 - 5)
    assert.equal(upstream.requests.length, 1)
    const record = (await proxy.recorded(2))[1]!
    assert.equal(record.queueMs, 0, 'it did not wait in vain')
  })

  it('refuse while the breaker is open, let one probe through and close again', () =>
    onTime(200, async () => {
      let answerProbe: (answer: string) => void = () => {}
      const probed = new Promise<string>((resolve) => {
        answerProbe = resolve
      })
      const upstream = await scriptedUpstream(ends, ({ index }) =>
        index < 3 ? withStatus(500) : index === 3 ? probed : ok(),
      )
      const proxy = await httpProxy({ ports: [upstream.port], breaker: BREAKER, timeouts: { requestMs: 5000 } }, ends)
      const client = proxy.connect()
      for (let i = 0; i < 3; i++) assert.equal((await client.get().response()).status, 500)
      const refused = await client.get().response()
      assert.equal(refused.status, 503)
      assert.equal(refused.field('x-ambassador-reason'), 'circuit_open')
      assert.equal(refused.field('retry-after'), '1')
      await sleep(450)
      const many = Array.from({ length: 20 }, () => proxy.connect().get())
      const answers = Promise.all(many.map((each) => each.response()))
      await proxy.recorded(4 + 19)
      answerProbe(ok())
      const statuses = (await answers).map(({ status }) => status)
      assert.equal(statuses.filter((status) => status === 200).length, 1, 'one probe')
      assert.equal(statuses.filter((status) => status === 503).length, 19)
      assert.equal(upstream.requests.length, 4)
      assert.equal((await client.get().response()).status, 200)
    }))

  it('refuse while a person holds the circuit open, serve while it is held closed, and begin anew when it is let go', async () => {
    let status = 500
    const upstream = await scriptedUpstream(ends, () => withStatus(status))
    const breaker = {
      consecutiveFailures: 1,
      failureRate: null,
      openMs: 60_000,
      maxOpenMs: 60_000,
      halfOpenRequests: 1,
    }
    const proxy = await httpProxy({ ports: [upstream.port], breaker }, ends)
    const ask = async () => (await proxy.connect().get().response()).status
    proxy.cluster.forceCircuits('closed', null)
    for (let i = 0; i < 3; i++) assert.equal(await ask(), 500)
    assert.equal(proxy.cluster.forceCircuits('open', null), 1)
    const refused = await proxy.connect().get().response()
    assert.equal(refused.field('x-ambassador-reason'), 'circuit_open')
    assert.match(refused.body, /a person holds the circuit of upstream '[^']+' open/)
    assert.equal(upstream.requests.length, 3)
    proxy.cluster.forceCircuits('auto', null)
    status = 200
    assert.equal(await ask(), 200)
    status = 500
    assert.equal(await ask(), 500)
    assert.equal(await ask(), 503)
    assert.equal(upstream.requests.length, 5)
  })

  it('open on slow answers, for the time from the end of the request counts', async () => {
    const upstream = await scriptedUpstream(ends, ({ target, socket }) => {
      if (target !== '/slow') return withStatus(200)
      setTimeout(() => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n'), 60)
      return null
    })
    const slowCall = { durationMs: 50, ratio: 1, minimumRequests: 2, windowMs: 60_000 }
    const breaker = {
      consecutiveFailures: null,
      failureRate: null,
      slowCall,
      openMs: 60_000,
      maxOpenMs: 60_000,
      halfOpenRequests: 1,
    }
    const proxy = await httpProxy({ ports: [upstream.port], breaker }, ends)
    const client = proxy.connect()
    assert.equal((await client.get('/slow').response()).status, 200)
    assert.equal((await client.get('/slow').response()).status, 200)
    assert.equal((await client.get('/').response()).field('x-ambassador-reason'), 'circuit_open')
  })

  it('let exactly one of 200 callers probe while it is half-open, and tell the others so', () =>
    onTime(200, async () => {
      let isDead = true
      const upstream = await scriptedUpstream(ends, ({ socket }) => {
        if (isDead) socket.destroy()
        return null
      })
      const breaker = { consecutiveFailures: 2, failureRate: null, openMs: 400, maxOpenMs: 400, halfOpenRequests: 1 }
      const proxy = await httpProxy({ ports: [upstream.port], breaker, timeouts: { requestMs: 1000 } }, ends)
      const reason = async () => (await proxy.connect().get().response()).field('x-ambassador-reason')
      await reason()
      await reason()
      assert.equal(await reason(), 'circuit_open')
      isDead = false
      const before = upstream.requests.length
      await sleep(450)
      const reasons = await Promise.all(Array.from({ length: 200 }, reason))
      assert.equal(upstream.requests.length - before, 1)
      assert.equal(reasons.filter((each) => each === 'circuit_open').length, 199)
      assert.equal(reasons.filter((each) => each === 'deadline').length, 1)
    }))

  it('refuse new requests of an overloaded sidecar with 503 and Retry-After, and let the one under way end', async () => {
    const upstream = await scriptedUpstream(ends, ({ target, socket }) => {
      if (target === '/held') ends.push(() => socket.destroy())
      return target === '/held' ? null : withStatus(200)
    })
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const held = proxy.connect().get('/held')
    await proxy.connect().get().response()
    const watch = new OverloadWatch({ cgroupDir: '/nowhere' })
    ends.push(() => watch.stop())
    watch.look(1000)
    watch.look(1000)
    const refused = await proxy.connect().get().response()
    assert.equal(refused.status, 503)
    assert.equal(refused.field('x-ambassador-reason'), 'overloaded')
    assert.equal(refused.field('retry-after'), '1')
    assert.match(refused.body, /the event loop is 1000 ms late/)
    upstream.requests
      .find(({ target }) => target === '/held')
      ?.socket.write('HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n')
    assert.equal((await held.response()).status, 200)
    watch.look(0)
    assert.equal((await proxy.connect().get().response()).status, 200)
  })

  it('queue a bounded number of requests for a bounded number of connections', async () => {
    const waiting: (() => void)[] = []
    const upstream = await scriptedUpstream(
      ends,
      () => new Promise<string>((resolve) => waiting.push(() => resolve(ok()))),
    )
    const limits = { maxConnections: 2, maxPendingRequests: 1 }
    const proxy = await httpProxy({ ports: [upstream.port], limits }, ends)
    const first = [proxy.connect().get(), proxy.connect().get()]
    await upstream.request(1)
    const queued = proxy.connect().get()
    while (proxy.cluster.connections.pending === 0) await new Promise((resolve) => setImmediate(resolve))
    const refused = await proxy.connect().get().response()
    assert.equal(refused.status, 503)
    assert.equal(refused.field('x-ambassador-reason'), 'queue_full')
    for (const answer of waiting.splice(0)) answer()
    for (const client of first) assert.equal((await client.response()).status, 200)
    await upstream.request(2)
    for (const answer of waiting.splice(0)) answer()
    assert.equal((await queued.response()).status, 200)
    assert.equal(upstream.connections, 2, 'the queued request took a connection that became idle')
    assert.ok((await proxy.recorded(4)).at(-1)!.queueMs > 0)
  })

  it('do not let idle connections of one endpoint keep the others from being used', async () => {
    const one = await scriptedUpstream(ends, () => ok('one'))
    const two = await scriptedUpstream(ends, () => ok('two'))
    const proxy = await httpProxy({ ports: [one.port, two.port], limits: { maxConnections: 1 } }, ends)
    const seen = new Set<string>()
    const client = proxy.connect()
    for (let i = 0; i < 100 && seen.size < 2; i++) seen.add((await client.get().response()).body)
    assert.deepEqual([...seen].sort(), ['one', 'two'])
    assert.ok(proxy.cluster.connections.used <= 1)
  })
})

describe('deadlines', () => {
  it('end a request that is not answered in time', async () => {
    const upstream = await scriptedUpstream(ends, () => null)
    const proxy = await httpProxy({ ports: [upstream.port], timeouts: { requestMs: 60 } }, ends)
    const started = performance.now()
    const response = await proxy.connect().get().response()
    const took = performance.now() - started
    assert.ok(took >= 55 && took < 20_000, String(took))
    assert.equal(response.status, 504)
    assert.equal(response.field('x-ambassador-reason'), 'deadline')
    assert.equal(proxy.cluster.connections.used, 0)
  })

  it('leave an answer that has begun alone, however long it takes', () =>
    onTime(100, async () => {
      const upstream = await scriptedUpstream(ends, async ({ socket }) => {
        socket.write('HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n')
        for (const byte of 'hello') {
          await sleep(90)
          socket.write(byte)
        }
        return null
      })
      const proxy = await httpProxy({ ports: [upstream.port], timeouts: { requestMs: 200, idleMs: 300 } }, ends)
      assert.equal((await proxy.connect().get().response()).body, 'hello')
    }))

  it('cut an answer in which no byte moves', async () => {
    const upstream = await scriptedUpstream(ends, () => 'HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhe')
    const proxy = await httpProxy({ ports: [upstream.port], timeouts: { idleMs: 60 } }, ends)
    const client = proxy.connect().get()
    assert.match(await client.tcp.ended(), /he$/)
    const [record] = await proxy.recorded(1)
    assert.equal(record?.reason, 'upstream_truncated')
    assert.match(record?.detail ?? '', /no byte for 60 ms/)
  })

  it('end a request whose body does not come', async () => {
    const upstream = await scriptedUpstream(ends, () => ok())
    const proxy = await httpProxy({ ports: [upstream.port], timeouts: { idleMs: 60 } }, ends)
    const client = proxy.connect().write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhe')
    const response = await client.response()
    assert.equal(response.status, 408)
    assert.equal(response.field('x-ambassador-reason'), 'bad_request')
    assert.equal(upstream.requests.length, 0)
    assert.equal(proxy.cluster.connections.used, 0, 'the upstream does not wait for the rest')
  })
})

describe('a request that is well-formed and refused', () => {
  it('keeps its id, and is named in the log without its query', async () => {
    const proxy = await httpProxy({ ports: [1] }, ends)
    const requests = [
      'GET /a?secret=1 HTTP/1.1\r\nX-Request-ID: mine\r\n\r\n',
      'TRACE /b HTTP/1.1\r\nHost: a\r\nX-Request-ID: mine\r\n\r\n',
      'CONNECT user:secret@a:1 HTTP/1.1\r\nHost: a\r\nX-Request-ID: mine\r\n\r\n',
      'GET http://user:secret@a/ HTTP/1.1\r\nHost: a\r\nX-Request-ID: mine\r\n\r\n',
      'GET /c HTTP/1.1\r\nHost : a\r\nX-Request-ID: mine\r\n\r\n',
    ]
    const ids: (string | null)[] = []
    for (const request of requests) ids.push((await proxy.connect().write(request).response()).field('X-Request-ID'))
    const records = await proxy.recorded(requests.length)
    assert.deepEqual(
      records.map(({ method, path, status, requestId }) => [method, path, status, requestId === 'mine']),
      [
        ['GET', '/a', 400, true],
        ['TRACE', '/b', 405, true],
        ['CONNECT', null, 405, true],
        ['GET', null, 400, true],
        // Nothing of it can be trusted.
        [null, null, 400, false],
      ],
    )
    assert.deepEqual(
      ids,
      records.map(({ requestId }) => requestId),
    )
    assert.doesNotMatch(JSON.stringify(records), /secret/)
  })
})

describe('a client that leaves', () => {
  it('frees the upstream at once', async () => {
    const upstream = await scriptedUpstream(ends, () => null)
    const proxy = await httpProxy({ ports: [upstream.port], retry: {} }, ends)
    const client = proxy.connect().get()
    const { socket } = await upstream.request(0)
    const closed = new Promise((resolve) => socket.once('close', resolve))
    client.socket.destroy()
    await closed
    const [record] = await proxy.recorded(1)
    assert.equal(record?.reason, 'client_gone')
    assert.equal(record?.status, 0)
    assert.equal(proxy.cluster.connections.used, 0)
    assert.equal(upstream.requests.length, 1)
  })

  it('frees it in the middle of an answer, and in the middle of a request', async () => {
    const upstream = await scriptedUpstream(ends, () => 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nsome')
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const one = proxy.connect().get()
    await one.tcp.read(40)
    one.socket.destroy()
    await proxy.recorded(1)
    const two = proxy.connect().write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\nsome')
    await upstream.server.connections(2)
    two.socket.destroy()
    const records = await proxy.recorded(2)
    assert.deepEqual(
      records.map(({ reason }) => reason),
      ['client_gone', 'client_gone'],
    )
    assert.equal(proxy.cluster.connections.used, 0)
  })

  it('does not count against the endpoint', async () => {
    const upstream = await scriptedUpstream(ends, ({ index }) => (index < 5 ? null : ok()))
    const proxy = await httpProxy({ ports: [upstream.port], breaker: { ...BREAKER, consecutiveFailures: 1 } }, ends)
    for (let i = 0; i < 5; i++) {
      const client = proxy.connect().get()
      await upstream.request(i)
      client.socket.destroy()
      await proxy.recorded(i + 1)
    }
    assert.equal((await proxy.connect().get().response()).status, 200)
  })

  it('leaves the queue', async () => {
    const upstream = await scriptedUpstream(ends, ({ index }) => (index === 0 ? null : ok()))
    const proxy = await httpProxy({ ports: [upstream.port], limits: { maxConnections: 1 } }, ends)
    const first = proxy.connect().get()
    await upstream.request(0)
    const second = proxy.connect().get()
    while (proxy.cluster.connections.pending === 0) await new Promise((resolve) => setImmediate(resolve))
    second.socket.destroy()
    await proxy.recorded(1)
    assert.equal(proxy.cluster.connections.pending, 0)
    first.socket.destroy()
    await proxy.recorded(2)
    assert.equal((await proxy.connect().get().response()).status, 200)
  })
})
