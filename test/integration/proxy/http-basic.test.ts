/** Requests through the driver on real sockets: what reaches the upstream, what comes back, and how connections are used. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { endsOfEach } from '../../helpers/ends.ts'
import { httpProxy } from '../../helpers/http-proxy.ts'
import { ok, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'

const ends = endsOfEach()

describe('a request through the proxy', () => {
  it('reaches the upstream unchanged but for Host and the request id, and so does its answer', async () => {
    const upstream = await scriptedUpstream(ends, () =>
      ok('hello', 'X-Mixed-CASE: a', 'set-cookie: 1', 'Set-Cookie: 2'),
    )
    const proxy = await httpProxy({ ports: [upstream.port], host: 'api.example' }, ends)
    const client = proxy
      .connect()
      .write('GET /a/../b?c=%2f HTTP/1.1\r\nhost: localhost:8081\r\nAccept: */*\r\nx-A: 1\r\nX-a: 2\r\n\r\n')
    const response = await client.response()
    assert.equal(response.status, 200)
    assert.equal(response.body, 'hello')
    assert.deepEqual(response.fields, [
      ['Content-Length', '5'],
      ['X-Mixed-CASE', 'a'],
      ['set-cookie', '1'],
      ['Set-Cookie', '2'],
    ])
    const { head } = await upstream.request(0)
    assert.match(
      head,
      new RegExp(
        `^GET /a/../b\\?c=%2f HTTP/1.1\r\nhost: api.example:${upstream.port}\r\nAccept: \\*/\\*\r\nx-A: 1\r\nX-a: 2\r\n` +
          'X-Request-ID: [0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\r\n\r\n$',
      ),
    )
  })

  it('shares one upstream connection with the next one, also of another client', async () => {
    const upstream = await scriptedUpstream(ends, ({ target }) => ok(target))
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const one = proxy.connect()
    const two = proxy.connect()
    for (const [i, client] of [one, two, one, two].entries()) {
      assert.equal((await client.get(`/${i}`).response()).body, `/${i}`)
    }
    assert.equal(upstream.connections, 1)
    assert.equal(proxy.cluster.connections.used, 1)
  })

  it('answers pipelined requests in their order', async () => {
    const upstream = await scriptedUpstream(ends, ({ target }) => ok(target))
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    client.write(['/1', '/2', '/3'].map((path) => `GET ${path} HTTP/1.1\r\nHost: a\r\n\r\n`).join(''))
    for (const path of ['/1', '/2', '/3']) assert.equal((await client.response()).body, path)
  })

  it('works a byte at a time in both directions', async () => {
    const upstream = await scriptedUpstream(ends, async ({ socket, body }) => {
      socket.setNoDelay(true)
      for (const byte of `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${body.length.toString(16)}\r\n${body}\r\n0\r\n\r\n`) {
        socket.write(byte)
        await new Promise((resolve) => setImmediate(resolve))
      }
      return null
    })
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    client.socket.setNoDelay(true)
    for (const byte of 'POST /slow HTTP/1.1\r\nHost: a\r\nContent-Length: 11\r\n\r\nhello world') {
      client.write(byte)
      await new Promise((resolve) => setImmediate(resolve))
    }
    const response = await client.response()
    assert.equal(response.body, 'hello world')
    assert.equal((await upstream.request(0)).body, 'hello world')
  })

  it('passes chunks and trailers both ways', async () => {
    const upstream = await scriptedUpstream(
      ends,
      () => 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X-T\r\n\r\n3;x=y\r\nabc\r\n0\r\nX-T: 1\r\n\r\n',
    )
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy
      .connect()
      .write('PUT / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5;ext\r\nhello\r\n0\r\nX-Up: 2\r\n\r\n')
    const raw = await client.tcp.read(82)
    assert.match(raw, /\r\n\r\n3\r\nabc\r\n0\r\nX-T: 1\r\n\r\n$/)
    assert.equal((await upstream.request(0)).body, '5\r\nhello\r\n0\r\nX-Up: 2\r\n\r\n')
  })

  it('chunks a body that ends with the upstream connection', async () => {
    const upstream = await scriptedUpstream(ends, ({ socket }) => {
      socket.end('HTTP/1.1 200 OK\r\n\r\nhello world')
      return null
    })
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    for (let i = 0; i < 2; i++) {
      const response = await client.get().response()
      assert.equal(response.field('transfer-encoding'), 'chunked')
      assert.equal(response.body, 'hello world')
    }
    assert.equal(upstream.connections, 2)
  })

  it('knows that answers to HEAD, 204 and 304 have no body', async () => {
    const answers: Record<string, string> = {
      '/head': 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n',
      '/204': 'HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\n',
      '/304': 'HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n',
      '/ok': ok('fine'),
    }
    const upstream = await scriptedUpstream(ends, ({ target }) => answers[target])
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    const head = await client.write('HEAD /head HTTP/1.1\r\nHost: a\r\n\r\n').response({ isHead: true })
    assert.equal(head.field('content-length'), '1000')
    assert.equal((await client.get('/204').response()).field('content-length'), null)
    assert.equal((await client.get('/304').response()).field('content-length'), '1000')
    assert.equal((await client.get('/ok').response()).body, 'fine')
    assert.equal(upstream.connections, 1)
  })

  it('passes interim responses before the final one', async () => {
    const upstream = await scriptedUpstream(
      ends,
      () => `HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 102 Processing\r\n\r\n${ok()}`,
    )
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect().get()
    assert.equal((await client.response()).status, 200)
    assert.deepEqual(client.interim, [103, 102])
  })

  it('refuses an upstream that sends interim responses without end', async () => {
    const upstream = await scriptedUpstream(ends, () => `${'HTTP/1.1 102 x\r\n\r\n'.repeat(11)}${ok()}`)
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const response = await proxy.connect().get().response()
    assert.equal(response.status, 502)
    assert.equal(response.field('x-ambassador-reason'), 'upstream_reset')
  })

  it('serves HTTP/1.0, and keeps the connection only when asked to', async () => {
    const upstream = await scriptedUpstream(ends, ({ head }) => ok(head.split('\r\n')[0]))
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const kept = proxy.connect()
    for (let i = 0; i < 2; i++) {
      const response = await kept.write('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n').response()
      assert.equal(response.body, 'GET / HTTP/1.1')
      assert.equal(response.field('connection'), 'keep-alive')
    }
    const once = proxy.connect().write('GET / HTTP/1.0\r\n\r\n')
    assert.equal((await once.response()).field('connection'), 'close')
    await once.tcp.ended()
  })

  it('gives an HTTP/1.0 client a body without chunks', async () => {
    const upstream = await scriptedUpstream(
      ends,
      () => 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n6\r\n world\r\n0\r\n\r\n',
    )
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect().write('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')
    const raw = await client.tcp.ended()
    assert.match(raw, /Connection: close\r\n\r\nhello world$/)
    assert.doesNotMatch(raw, /chunked/i)
  })

  it('closes after the last request of a connection and says so', async () => {
    const upstream = await scriptedUpstream(ends, () => ok())
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect().get('/', 'Connection: close')
    assert.equal((await client.response()).field('connection'), 'close')
    await client.tcp.ended()
    assert.equal((await upstream.request(0)).field('connection'), null)
    assert.equal(proxy.cluster.connections.used, 1, 'the upstream connection is kept')
  })

  it('puts the credential in place of the application’s', async () => {
    const upstream = await scriptedUpstream(ends, () => ok())
    const line = Buffer.from('Authorization: Bearer secret\r\n')
    const proxy = await httpProxy(
      { ports: [upstream.port], credential: { name: 'authorization', line, failure: null } },
      ends,
    )
    await proxy.connect().get('/', 'authorization: Basic own').response()
    assert.equal((await upstream.request(0)).field('authorization'), 'Bearer secret')
    assert.doesNotMatch(JSON.stringify(proxy.records), /secret/)
  })

  it('is refused with auth_unavailable while there is no credential', async () => {
    const upstream = await scriptedUpstream(ends, () => ok())
    const failure = "secret 'payments-token' has no key 'token', create it"
    const proxy = await httpProxy(
      { ports: [upstream.port], credential: { name: 'authorization', line: null, failure } },
      ends,
    )
    const response = await proxy.connect().get().response()
    assert.equal(response.status, 503)
    assert.equal(response.field('x-ambassador-reason'), 'auth_unavailable')
    assert.equal(JSON.parse(response.body).detail, failure)
    assert.equal(upstream.connections, 0)
  })

  it('is recorded with its times, sizes and endpoint, and without its query', async () => {
    const upstream = await scriptedUpstream(ends, () => withStatus(404, 'nope'))
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    await proxy
      .connect()
      .write('POST /a/b?token=secret HTTP/1.1\r\nHost: a\r\nX-Request-ID: abc\r\nContent-Length: 3\r\n\r\nxyz')
      .response()
    const [record] = await proxy.recorded(1)
    const { queueMs, connectMs, tlsMs, ttfbMs, totalMs, ...rest } = record!
    assert.deepEqual(rest, {
      requestId: 'abc',
      method: 'POST',
      path: '/a/b',
      status: 404,
      reason: null,
      detail: null,
      upstream: 'live',
      route: null,
      endpoint: `127.0.0.1:${upstream.port}`,
      attempts: 1,
      requestBytes: 3,
      responseBytes: 4,
      traceId: null,
    })
    assert.equal(queueMs, 0)
    assert.equal(tlsMs, 0)
    assert.ok(connectMs > 0 && ttfbMs! >= connectMs && totalMs >= ttfbMs!)
    assert.equal(proxy.cells.byStatus[404]?.count, 1)
    assert.equal(proxy.cells.active, 0)
  })
})
