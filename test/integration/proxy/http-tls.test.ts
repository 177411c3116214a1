/** HTTP to an upstream behind TLS: verified, resumed, and nothing sent to one that is not trusted. */
import assert from 'node:assert/strict'
import { after, afterEach, describe, it } from 'node:test'
import { createSecureContext, createServer, type TLSSocket } from 'node:tls'
import type { UpstreamTls } from '../../../proxy/tls/upstream-tls.ts'
import { httpProxy } from '../../helpers/http-proxy.ts'
import { type LeafOptions, Pki } from '../../helpers/pki.ts'
import { rudeTlsServer } from '../../helpers/rude-tls.ts'
import { TestServer } from '../../helpers/tcp.ts'

const pki = new Pki()
const ca = pki.authority()
after(() => pki.remove())
const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

interface TlsUpstream {
  readonly server: TestServer
  readonly sockets: TLSSocket[]
  /** Per connection: the session was resumed. */
  readonly resumed: boolean[]
  received: string
}

async function tlsUpstream(
  leaf: LeafOptions = {},
  answer: Buffer | string = 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok',
): Promise<TlsUpstream> {
  const { cert, key } = ca.issue(leaf)
  const sockets: TLSSocket[] = []
  const upstream: { server: TestServer; sockets: TLSSocket[]; resumed: boolean[]; received: string } = {
    server: null as never,
    sockets,
    resumed: [],
    received: '',
  }
  const server = createServer({ cert, key, ALPNProtocols: ['http/1.1', 'h2'] }, (socket) => {
    sockets.push(socket)
    upstream.resumed.push(socket.isSessionReused())
    socket.on('error', () => {})
    socket.on('data', (data) => {
      upstream.received += data.toString('latin1')
      if (data.includes('\r\n\r\n')) socket.write(answer)
    })
  })
  upstream.server = await new TestServer(server, 'secureConnection').listen()
  ends.push(() => upstream.server.close())
  return upstream
}

function trust(pem: string | null, serverName: string | null = null): UpstreamTls & { sessions: Map<string, Buffer> } {
  const sessions = new Map<string, Buffer>()
  return {
    context: pem === null ? null : createSecureContext({ ca: pem }),
    failure: pem === null ? "configMap 'ca' key 'ca.pem' is not a certificate" : null,
    serverName,
    isUnverified: false,
    sessions,
    session: (key) => sessions.get(key),
    keepSession: (key, session) => void sessions.set(key, session),
    agreed: () => {},
  }
}

describe('an upstream behind TLS', () => {
  it('is asked over a verified connection that is kept, with ALPN and SNI', async () => {
    const upstream = await tlsUpstream({ names: ['api.example'] })
    const proxy = await httpProxy({ ports: [upstream.server.port], host: 'api.example', tls: trust(ca.cert) }, ends)
    const client = proxy.connect()
    for (let i = 0; i < 3; i++) assert.equal((await client.get().response()).body, 'ok')
    assert.equal(upstream.server.accepted, 1)
    assert.equal(upstream.sockets[0]?.alpnProtocol, 'http/1.1')
    assert.equal((upstream.sockets[0] as TLSSocket & { servername: string }).servername, 'api.example')
    assert.ok(proxy.records[0]!.tlsMs > 0)
    assert.match(upstream.received, new RegExp(`Host: api.example:${upstream.server.port}\r\n`))
  })

  it('by a name with a dot at its end, which keeps it from the search list, is known by the name without it', async () => {
    const upstream = await tlsUpstream({ names: ['api.example'] })
    const proxy = await httpProxy({ ports: [upstream.server.port], host: 'api.example.', tls: trust(ca.cert) }, ends)
    assert.equal((await proxy.connect().get().response()).status, 200)
    assert.equal((upstream.sockets[0] as TLSSocket & { servername: string }).servername, 'api.example')
    assert.match(upstream.received, new RegExp(`Host: api.example:${upstream.server.port}\r\n`))
  })

  it('is resumed on the next connection', async () => {
    const upstream = await tlsUpstream(
      { names: ['api.example'] },
      'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\nok',
    )
    const tls = trust(ca.cert)
    const proxy = await httpProxy({ ports: [upstream.server.port], host: 'api.example', tls }, ends)
    const client = proxy.connect()
    await client.get().response()
    while (tls.sessions.size === 0) await new Promise((resolve) => setImmediate(resolve))
    await client.get().response()
    assert.deepEqual(upstream.resumed, [false, true])
  })

  it('by address is verified against the addresses in its certificate', async () => {
    const right = await tlsUpstream({ names: ['127.0.0.1'] })
    const proxy = await httpProxy({ ports: [right.server.port], tls: trust(ca.cert) }, ends)
    assert.equal((await proxy.connect().get().response()).status, 200)
    const wrong = await tlsUpstream({ names: ['127.0.0.2'] })
    const other = await httpProxy({ ports: [wrong.server.port], tls: trust(ca.cert) }, ends)
    assert.equal((await other.connect().get().response()).field('x-ambassador-reason'), 'tls_verify_failed')
  })

  it('with another name gets nothing, and the answer says what is wrong', async () => {
    const upstream = await tlsUpstream({ names: ['other.example'] })
    const proxy = await httpProxy({ ports: [upstream.server.port], host: 'api.example', tls: trust(ca.cert) }, ends)
    const response = await proxy.connect().post('secret').response()
    assert.equal(response.status, 502)
    assert.equal(response.field('x-ambassador-reason'), 'tls_verify_failed')
    assert.match(response.field('proxy-status')!, /error=tls_certificate_error/)
    assert.match(
      response.body,
      /its certificate is for DNS:other\.example, not for 'api\.example'; set tls\.serverName/,
    )
    assert.equal(upstream.received, '')
    assert.equal(proxy.cluster.connections.used, 0)
  })

  it('with a name that the config gives is verified against that', async () => {
    const upstream = await tlsUpstream({ names: ['other.example'] })
    const tls = trust(ca.cert, 'other.example')
    const proxy = await httpProxy({ ports: [upstream.server.port], host: 'api.example', tls }, ends)
    assert.equal((await proxy.connect().get().response()).status, 200)
  })

  it('of an unknown CA, or expired, gets nothing', async () => {
    const upstream = await tlsUpstream()
    const proxy = await httpProxy({ ports: [upstream.server.port], tls: trust(pki.authority('Other').cert) }, ends)
    const unknown = await proxy.connect().get().response()
    assert.equal(unknown.field('x-ambassador-reason'), 'tls_verify_failed')
    assert.match(unknown.body, /not trusted: .*; set tls\.ca to the CA that issued it/)
    const past = new Date(Date.now() - 1000)
    const expired = await tlsUpstream({ notBefore: new Date(Date.now() - 86_400_000), notAfter: past })
    const other = await httpProxy({ ports: [expired.server.port], tls: trust(ca.cert) }, ends)
    const response = await other.connect().get().response()
    assert.equal(response.field('x-ambassador-reason'), 'tls_verify_failed')
    assert.match(response.body, /CERT_HAS_EXPIRED/)
    assert.equal(upstream.received + expired.received, '')
  })

  it('is not dialled when the files of the config are not usable', async () => {
    const upstream = await tlsUpstream()
    const proxy = await httpProxy({ ports: [upstream.server.port], tls: trust(null) }, ends)
    const response = await proxy.connect().get().response()
    assert.equal(response.field('x-ambassador-reason'), 'tls_verify_failed')
    assert.match(response.body, /configMap 'ca' key 'ca\.pem' is not a certificate/)
    assert.equal(upstream.server.accepted, 0)
  })

  it('that does not speak TLS, or never finishes the handshake, is told apart', async () => {
    const plain = await new TestServer(
      (await import('node:net')).createServer((socket) => socket.end('no TLS here')),
    ).listen()
    ends.push(() => plain.close())
    const proxy = await httpProxy({ ports: [plain.port], tls: trust(ca.cert) }, ends)
    const response = await proxy.connect().get().response()
    assert.equal(response.field('x-ambassador-reason'), 'upstream_reset')
    assert.match(response.body, /TLS handshake/)
    const silent = await new TestServer((await import('node:net')).createServer(() => {})).listen()
    ends.push(() => silent.close())
    const slow = await httpProxy({ ports: [silent.port], tls: trust(ca.cert), timeouts: { connectMs: 80 } }, ends)
    const late = await slow.connect().get().response()
    assert.equal(late.field('x-ambassador-reason'), 'connect_timeout')
    assert.match(late.body, /did not finish the TLS handshake within 80 ms/)
  })

  it('that speaks only another protocol (ALPN) is told apart', async () => {
    const server = createServer({ ...ca.issue(), ALPNProtocols: ['h2'] }, (socket) => socket.on('error', () => {}))
    server.on('tlsClientError', () => {})
    const upstream = await new TestServer(server, 'secureConnection').listen()
    ends.push(() => upstream.close())
    const proxy = await httpProxy({ ports: [upstream.port], tls: trust(ca.cert) }, ends)
    const response = await proxy.connect().get().response()
    assert.equal(response.field('x-ambassador-reason'), 'upstream_reset')
    assert.match(
      response.body,
      /ended the TLS handshake: it speaks none of the protocols that were offered \(ALPN\); correct the port \(/,
    )
  })

  it('below tls.minVersion is told apart', async () => {
    const { cert, key } = ca.issue()
    const server = createServer({ cert, key, minVersion: 'TLSv1.2', maxVersion: 'TLSv1.2' }, () => {})
    server.on('tlsClientError', () => {})
    const upstream = await new TestServer(server, 'secureConnection').listen()
    ends.push(() => upstream.close())
    const tls = { ...trust(ca.cert), context: createSecureContext({ ca: ca.cert, minVersion: 'TLSv1.3' }) }
    const proxy = await httpProxy({ ports: [upstream.port], tls }, ends)
    const response = await proxy.connect().get().response()
    assert.equal(response.field('x-ambassador-reason'), 'upstream_reset')
    assert.match(response.body, /ended the TLS handshake: .*; lower tls\.minVersion or update it/)
  })

  it('takes and gives large bodies as they are', async () => {
    const size = 5_000_000
    const body = Buffer.alloc(size)
    for (let i = 0; i < size; i++) body[i] = (i * 31) & 0xff
    let got = 0
    let isRight = true
    const { cert, key } = ca.issue()
    const server = createServer({ cert, key }, (socket) => {
      let head = ''
      socket.on('data', (data: Buffer) => {
        let content = data
        if (!head.includes('\r\n\r\n')) {
          head += data.toString('latin1')
          const end = head.indexOf('\r\n\r\n')
          if (end < 0) return
          content = Buffer.from(head.slice(end + 4), 'latin1')
        }
        isRight &&= content.equals(body.subarray(got, got + content.length))
        got += content.length
        if (got === size)
          socket.write(Buffer.concat([Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`), body]))
      })
    })
    const upstream = await new TestServer(server, 'secureConnection').listen()
    ends.push(() => upstream.close())
    const proxy = await httpProxy({ ports: [upstream.port], tls: trust(ca.cert) }, ends)
    const client = proxy.connect().write(`PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: ${size}\r\n\r\n`).write(body)
    await proxy.recorded(1)
    while (client.tcp.length < size + 40) await new Promise((resolve) => setTimeout(resolve, 10))
    const { received } = client.tcp
    assert.ok(isRight, 'the upstream got what was sent')
    assert.ok(received.subarray(received.indexOf('\r\n\r\n') + 4).equals(body), 'the client got what was sent')
  })

  const HEAD = 'HTTP/1.1 200 OK\r\nConnection: close\r\n'
  const whole = Buffer.alloc(300_000, 'x')
  const cutShort = async (maxVersion: 'TLSv1.2' | 'TLSv1.3', answer: string) => {
    const upstream = await rudeTlsServer(
      { ...ca.issue(), maxVersion },
      ({ tls, cut }) => {
        tls.write(answer)
        tls.write(whole, cut)
      },
      ends,
    )
    return httpProxy({ ports: [upstream.port], tls: trust(ca.cert) }, ends)
  }
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    it(`that closes without ending TLS has not ended an answer without a length, over ${maxVersion}`, async () => {
      const proxy = await cutShort(maxVersion, `${HEAD}\r\n`)
      const client = proxy.connect().get()
      await client.tcp.ended()
      assert.match(client.tcp.text, /^HTTP\/1\.1 200 OK\r\n/)
      assert.doesNotMatch(client.tcp.text, /\r\n0\r\n\r\n$/)
      const old = proxy.connect().write('GET / HTTP/1.0\r\n\r\n')
      assert.equal(await old.tcp.closed(), 'ECONNRESET')
      for (const { reason, detail } of await proxy.recorded(2)) {
        assert.equal(reason, 'upstream_truncated')
        assert.match(
          detail ?? '',
          /^endpoint 127\.0\.0\.1:\d+ ended an answer without a length by closing .* without ending TLS \(close_notify\)/,
        )
      }
    })

    it(`that closes without ending TLS has ended an answer whose length is reached, over ${maxVersion}`, async () => {
      const proxy = await cutShort(maxVersion, `${HEAD}Content-Length: ${whole.length}\r\n\r\n`)
      assert.equal((await proxy.connect().get().response()).body.length, whole.length)
      assert.equal((await proxy.recorded(1))[0]?.reason, null)
    })

    it(`that ends TLS has ended an answer without a length, also to a client that reads later, over ${maxVersion}`, async () => {
      const server = createServer({ ...ca.issue(), maxVersion }, (socket) => {
        socket.on('error', () => {})
        socket.once('data', () => {
          socket.write(`${HEAD}\r\n`)
          socket.end(whole)
        })
      })
      const upstream = await new TestServer(server, 'secureConnection').listen()
      ends.push(() => upstream.close())
      const proxy = await httpProxy({ ports: [upstream.port], tls: trust(ca.cert) }, ends)
      for (const [n, isLate] of [false, true].entries()) {
        const client = proxy.connect()
        if (isLate) client.socket.pause()
        client.get()
        if (isLate) setTimeout(() => client.socket.resume(), 50)
        assert.equal((await client.response()).body.length, whole.length)
        assert.equal((await proxy.recorded(n + 1))[n]?.reason, null)
      }
    })
  }
})
