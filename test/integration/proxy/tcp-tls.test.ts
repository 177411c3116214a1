import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, describe, it } from 'node:test'
import { createServer, type TLSSocket, type TlsOptions } from 'node:tls'
import type { DataRef, TlsConfig } from '../../../common/proxy-config.ts'
import { type FileTls, TlsContexts } from '../../../proxy/tls/contexts.ts'
import { type Leaf, Pki } from '../../helpers/pki.ts'
import { echo, settled, TestServer, tcpServer } from '../../helpers/tcp.ts'
import { tcpProxy } from '../../helpers/tcp-proxy.ts'

const pki = new Pki()
after(() => pki.remove())
const authority = pki.authority()
const stranger = pki.authority('A stranger')
const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

const CA: DataRef = { kind: 'file', path: 'ca' }
const CERT: DataRef = { kind: 'file', path: 'cert' }
const KEY: DataRef = { kind: 'file', path: 'key' }

/** The TLS of an upstream whose files a test may change. */
function upstreamTls(files: Record<string, string>, parts: Partial<TlsConfig> = {}) {
  const contexts = new TlsContexts({
    read: (ref) => ({ state: 'Found', bytes: Buffer.from(files[ref.kind === 'file' ? ref.path : ''] ?? '') }),
    name: () => 'the file',
  })
  const tls = contexts.open({ serverName: null, ca: CA, clientCertificate: null, minVersion: 'TLSv1.2', ...parts })
  return { files, contexts, tls }
}

interface ServerSetup extends TlsOptions {
  readonly leaf: Leaf
  readonly serve?: (socket: TLSSocket) => void
}

/** A TLS server that counts the bytes of applications it got. */
async function tlsServer(setup: ServerSetup) {
  const { leaf, serve = echo, ...options } = setup
  const seen = { bytes: 0, handshakes: 0, resumed: 0, serverNames: [] as (string | false | null)[] }
  const server = createServer(
    { cert: leaf.cert, key: leaf.key, allowHalfOpen: true, ...options } as TlsOptions,
    (socket) => {
      seen.handshakes++
      if (socket.isSessionReused()) seen.resumed++
      seen.serverNames.push(socket.servername)
      socket.on('data', (chunk: Buffer) => {
        seen.bytes += chunk.length
      })
      serve(socket)
    },
  )
  server.on('tlsClientError', () => {})
  const made = await new TestServer(server, 'secureConnection').listen()
  ends.push(() => made.close())
  return { port: made.port, server, made, seen }
}

async function proxyTo(port: number, tls: FileTls, host = 'localhost') {
  return await tcpProxy({ ports: [port], tls, host }, ends)
}

/** OpenSSL's own server, which wants a client certificate and sends the alert that fits; Node's only closes. */
async function opensslServer(version: 'tls1_2' | 'tls1_3', ...more: readonly string[]) {
  const dir = mkdtempSync(join(tmpdir(), 'ambassador-s_server-'))
  const { cert, key } = authority.issue()
  for (const [name, content] of Object.entries({ cert, key, ca: authority.cert }))
    writeFileSync(join(dir, name), content)
  const args = ['s_server', '-accept', '127.0.0.1:0', `-${version}`, '-Verify', '1', '-verify_return_error']
  const files = ['-cert', join(dir, 'cert'), '-key', join(dir, 'key'), '-CAfile', join(dir, 'ca')]
  const child = spawn('openssl', [...args, ...files, ...more], { stdio: ['pipe', 'pipe', 'ignore'] })
  const ended = once(child, 'close')
  ends.push(async () => {
    child.kill('SIGKILL')
    await ended
    rmSync(dir, { recursive: true })
  })
  let said = ''
  const port = await new Promise<number>((resolve, reject) => {
    child.stdout.on('data', (chunk: Buffer) => {
      said += chunk
      const found = /^ACCEPT .*:(\d+)$/m.exec(said)?.[1]
      if (found !== undefined) resolve(Number(found))
    })
    child.once('close', () => reject(new Error(`openssl s_server ended: ${said}`)))
  })
  return { port }
}

describe('TCP to TLS', () => {
  const good = authority.issue()
  const belowIntermediate = authority.intermediate().issue()

  it('originates TLS for a plain application, with half-close in both directions', async () => {
    const upstream = await tlsServer({
      leaf: good,
      serve: (socket) => {
        const chunks: Buffer[] = []
        socket.on('data', (chunk: Buffer) => chunks.push(chunk))
        socket.on('end', () => setTimeout(() => socket.end(`got ${Buffer.concat(chunks)}`), 10))
      },
    })
    const { client, record } = await proxyTo(upstream.port, upstreamTls({ ca: authority.cert }).tls)
    assert.equal(await client().end('hello').ended(), 'got hello')
    const { end, tlsMs, bytesIn, bytesOut } = await record()
    assert.deepEqual([end, bytesIn, bytesOut], ['client_closed', 5, 9])
    assert.ok(tlsMs > 0)
    assert.deepEqual(upstream.seen.serverNames, ['localhost'])
  })

  it('carries a large transfer both ways, and a server that speaks first', async () => {
    const upstream = await tlsServer({
      leaf: good,
      serve: (socket) => {
        socket.write('ready')
        echo(socket)
      },
    })
    const { client } = await proxyTo(upstream.port, upstreamTls({ ca: authority.cert }).tls)
    const app = client()
    await app.read(5)
    const letters = Array.from({ length: 200 }, (_, i) =>
      String.fromCharCode(97 + (i % 26)).repeat(1 + ((i * 7919) % 50_000)),
    ).join('')
    app.end(letters)
    const received = await app.ended()
    assert.equal(received.length, 5 + letters.length)
    assert.equal(received.slice(5) === letters, true)
  })

  it('stops reading from a TLS upstream whose application does not read', async () => {
    const chunk = Buffer.alloc(1 << 20, 'x')
    const upstream = await tlsServer({
      leaf: good,
      serve: (socket) => {
        const more = () => {
          while (!socket.destroyed && socket.write(chunk)) {}
        }
        socket.on('drain', more)
        more()
      },
    })
    const { client, driver } = await proxyTo(upstream.port, upstreamTls({ ca: authority.cert }).tls)
    const app = client()
    app.socket.pause()
    await upstream.made.connections(1)
    const seen = await settled(() => driver.totals.bytesOut)
    assert.ok(seen < 50_000_000)
    app.socket.resume()
    await app.read(seen + 10_000_000)
    assert.match(app.received.subarray(0, 1_000_000).toString(), /^x+$/)
  })

  const refused: [title: string, leaf: Leaf, host: string, parts: Partial<TlsConfig>, detail: RegExp][] = [
    [
      'a certificate for another name',
      authority.issue({ names: ['other.example'] }),
      'localhost',
      {},
      /its certificate is for DNS:other\.example, not for 'localhost'; set tls\.serverName/,
    ],
    [
      'a certificate for a name where the host is an address',
      authority.issue({ names: ['localhost'] }),
      '127.0.0.1',
      {},
      /its certificate is for DNS:localhost, not for '127\.0\.0\.1'/,
    ],
    [
      'a certificate of a CA that is not trusted',
      stranger.issue(),
      'localhost',
      {},
      /its certificate is not trusted: .*; set tls\.ca to the CA that issued it$/,
    ],
    [
      'a certificate that signed itself',
      pki.selfSigned(),
      'localhost',
      {},
      /its certificate is not trusted: .*self-signed certificate \(DEPTH_ZERO_SELF_SIGNED_CERT\); set tls\.ca to the CA that issued it$/,
    ],
    [
      'an expired certificate',
      authority.issue({ notBefore: new Date('2020-01-01'), notAfter: new Date('2021-01-01') }),
      'localhost',
      {},
      /its certificate is not trusted: CN=localhost has expired \(valid from 2020-01-01T00:00:00Z to 2021-01-01T00:00:00Z\)/,
    ],
    [
      'a certificate that is not yet valid',
      authority.issue({ notBefore: new Date('2040-01-01'), notAfter: new Date('2041-01-01') }),
      'localhost',
      {},
      /its certificate is not trusted: CN=localhost is not yet valid \(valid from 2040-01-01T00:00:00Z to 2041-01-01T00:00:00Z\)/,
    ],
    [
      'a certificate for clients only',
      authority.issue({ usage: 'clientAuth' }),
      'localhost',
      {},
      /its certificate is not trusted: unsuitable certificate purpose|unsupported certificate purpose/,
    ],
    [
      'a right certificate under a wrong tls.serverName',
      authority.issue(),
      'localhost',
      { serverName: 'db.example' },
      /not for 'db\.example'/,
    ],
    [
      'a chain without its intermediate',
      { ...belowIntermediate, cert: belowIntermediate.cert.slice(0, belowIntermediate.cert.indexOf('-----BEGIN', 1)) },
      'localhost',
      {},
      /, 'CN=Test Intermediate CA' that issued it is neither known nor sent along by the server; set tls\.ca/,
    ],
    [
      'a chain whose CA may not issue for the name',
      authority.intermediate('Narrow', ['nameConstraints=critical,permitted;DNS:other.example']).issue(),
      'localhost',
      {},
      /not trusted: permitted subtree violation \(\w+\); have it issued anew, for servers and by the rules of its CA$/,
    ],
    [
      'a certificate with no name but a common name, for another one',
      authority.issue({ names: [], commonName: 'db.example' }),
      'localhost',
      {},
      /its certificate is for CN=db\.example, not for 'localhost'; set tls\.serverName/,
    ],
    [
      'a common name where the host is an address',
      authority.issue({ names: [], commonName: '127.0.0.1' }),
      '127.0.0.1',
      {},
      /its certificate is for CN=127\.0\.0\.1, not for '127\.0\.0\.1'/,
    ],
    [
      'a wildcard for a name of two labels more',
      authority.issue({ names: ['*.example'] }),
      'localhost',
      { serverName: 'a.db.example' },
      /its certificate is for DNS:\*\.example, not for 'a\.db\.example'/,
    ],
  ]
  for (const maxVersion of ['TLSv1.3', 'TLSv1.2'] as const) {
    for (const [title, leaf, host, parts, detail] of refused) {
      it(`refuses ${title} over ${maxVersion} each time, and sends it nothing`, async () => {
        const upstream = await tlsServer({ leaf, maxVersion })
        const { client, record } = await proxyTo(upstream.port, upstreamTls({ ca: authority.cert }, parts).tls, host)
        // Three times: a session that such a handshake left behind must not let the next one pass.
        for (let i = 0; i < 3; i++) {
          assert.equal(await client().write('secret').closed(), 'ECONNRESET')
          const { end, detail: text } = await record(i)
          assert.equal(end, 'tls_verify_failed')
          assert.match(text ?? '', detail)
        }
        assert.equal(upstream.seen.bytes, 0)
      })
    }
  }

  it('takes a certificate for the address when the host is one, and sends no server name then', async () => {
    const upstream = await tlsServer({ leaf: authority.issue({ names: ['127.0.0.1'] }) })
    const { client } = await proxyTo(upstream.port, upstreamTls({ ca: authority.cert }).tls, '127.0.0.1')
    assert.equal(await client().end('x').ended(), 'x')
    assert.deepEqual(upstream.seen.serverNames, [false])
  })

  it('sends and verifies tls.serverName in place of the host', async () => {
    const upstream = await tlsServer({ leaf: authority.issue({ names: ['*.db.example'] }) })
    const { client } = await proxyTo(
      upstream.port,
      upstreamTls({ ca: authority.cert }, { serverName: 'a.db.example' }).tls,
    )
    assert.equal(await client().end('x').ended(), 'x')
    assert.deepEqual(upstream.seen.serverNames, ['a.db.example'])
  })

  it('follows a chain with an intermediate, and trusts an intermediate that is named as the CA', async () => {
    const intermediate = authority.intermediate()
    const leaf = intermediate.issue()
    const upstream = await tlsServer({ leaf })
    for (const ca of [authority.cert, intermediate.cert]) {
      const { client } = await proxyTo(upstream.port, upstreamTls({ ca }).tls)
      assert.equal(await client().end('x').ended(), 'x')
    }
  })

  it('trusts a server certificate that is named as the CA, and no other one of its issuer', async () => {
    const upstream = await tlsServer({ leaf: good })
    const other = await tlsServer({ leaf: belowIntermediate })
    const { tls } = upstreamTls({ ca: good.cert })
    assert.equal(await (await proxyTo(upstream.port, tls)).client().end('x').ended(), 'x')
    assert.equal(await (await proxyTo(other.port, tls)).client().write('x').closed(), 'ECONNRESET')
  })

  it('knows a server that has no alternative name by its common name', async () => {
    const upstream = await tlsServer({ leaf: authority.issue({ names: [], commonName: 'db.example' }) })
    const { client } = await proxyTo(
      upstream.port,
      upstreamTls({ ca: authority.cert }, { serverName: 'db.example' }).tls,
    )
    assert.equal(await client().end('x').ended(), 'x')
  })

  it('shows its client certificate', async () => {
    const names: string[] = []
    const upstream = await tlsServer({
      leaf: good,
      ca: authority.cert,
      requestCert: true,
      rejectUnauthorized: true,
      serve: (socket) => {
        names.push(String(socket.getPeerCertificate().subject.CN))
        echo(socket)
      },
    })
    const client = authority.issue({ commonName: 'shop', names: [] })
    const mutual = { clientCertificate: { certificate: CERT, privateKey: KEY } }
    const { tls } = upstreamTls({ ca: authority.cert, cert: client.cert, key: client.key }, mutual)
    const proxied = await proxyTo(upstream.port, tls)
    assert.equal(await proxied.client().end('x').ended(), 'x')
    assert.deepEqual(names, ['shop'])
  })

  for (const version of ['tls1_3', 'tls1_2'] as const) {
    it(`says what an upstream of OpenSSL says of the client certificate over ${version}`, async () => {
      const mutual = { clientCertificate: { certificate: CERT, privateKey: KEY } }
      const tlsWith = ({ cert, key }: Leaf) => upstreamTls({ ca: authority.cert, cert, key }, mutual).tls
      const HOUR_MS = 3_600_000
      // It is good when we read it, and has ended by the clock of a server that is ahead.
      const old = tlsWith(authority.issue({ names: [], notAfter: new Date(Date.now() + HOUR_MS) }))
      assert.equal(old.failure, null)
      const stranger = tlsWith(pki.authority('Nobody').issue({ names: [] }))
      const server = await opensslServer(version)
      const ahead = await opensslServer(version, '-attime', String(Math.floor((Date.now() + 2 * HOUR_MS) / 1000)))
      const cases: [port: number, FileTls, RegExp][] = [
        [
          server.port,
          upstreamTls({ ca: authority.cert }).tls,
          /it wants a client certificate; set tls\.clientCertificate \(|shares no cipher with us, or wants a client/,
        ],
        [server.port, stranger, /it does not trust the client certificate; use one of a CA that it trusts \(ERR_SSL_/],
        [ahead.port, old, /it takes the client certificate for expired; renew it \(ERR_SSL_/],
      ]
      for (const [port, tls, detail] of cases) {
        const { client, record } = await proxyTo(port, tls)
        await client().write('x').closed()
        const seen = await record()
        assert.equal(seen.end, 'upstream_reset')
        assert.match(seen.detail ?? '', detail)
      }
    })
  }

  // RFC 8446 section 6.2.
  const alerts: [number, RegExp][] = [
    [10, /it does not keep to TLS; see what listens there/],
    [40, /it shares no cipher with us, or wants a client certificate; see its log/],
    [43, /it takes no client certificate of this kind; use one for clients, with a usual key/],
    [46, /it does not take the client certificate; see its log/],
    [49, /it does not let this client certificate in/],
    [70, /it speaks no protocol version that is allowed/],
    [71, /it wants stronger ciphers than we share with it; see its log/],
    [80, /something went wrong inside it; see its log/],
    [112, /it does not know the server name; set tls\.serverName/],
    [116, /it wants a client certificate; set tls\.clientCertificate/],
    [120, /it speaks none of the protocols that were offered \(ALPN\)/],
  ]
  it('says in words with what alert an upstream ended the handshake', async () => {
    const { tls } = upstreamTls({ ca: authority.cert })
    for (const [alert, detail] of alerts) {
      const upstream = await tcpServer((socket) => {
        socket.once('data', () => socket.end(Buffer.from([21, 3, 3, 0, 2, 2, alert])))
      })
      ends.push(() => upstream.close())
      const { client, record } = await proxyTo(upstream.port, tls)
      await client().write('x').closed()
      const seen = await record()
      assert.equal(seen.end, 'upstream_reset')
      assert.match(seen.detail ?? '', new RegExp(`ended the TLS handshake: ${detail.source}`))
    }
  })

  it('resumes sessions over both versions', async () => {
    for (const maxVersion of ['TLSv1.3', 'TLSv1.2'] as const) {
      const upstream = await tlsServer({ leaf: good, maxVersion })
      const { client } = await proxyTo(upstream.port, upstreamTls({ ca: authority.cert }).tls)
      for (let i = 0; i < 10; i++) assert.equal(await client().end('x').ended(), 'x')
      assert.deepEqual([upstream.seen.handshakes, upstream.seen.resumed], [10, 9])
    }
  })

  it('does not resume a session of earlier files: a CA that is taken away is not trusted any more', async () => {
    const upstream = await tlsServer({ leaf: good })
    const { files, contexts, tls } = upstreamTls({ ca: authority.cert })
    const { client, record } = await proxyTo(upstream.port, tls)
    assert.equal(await client().end('x').ended(), 'x')
    files['ca'] = stranger.cert
    contexts.reload()
    assert.equal(await client().closed(), 'ECONNRESET')
    assert.equal((await record(1)).end, 'tls_verify_failed')
  })

  it('keeps no session of a connection that began with earlier files, whenever its ticket comes', async () => {
    const server = Promise.withResolvers<TLSSocket>()
    const upstream = await tlsServer({ leaf: good, serve: (socket) => server.resolve(socket) })
    const { files, contexts, tls } = upstreamTls({ ca: authority.cert })
    const kept = tls.keepSession.bind(tls)
    const ticket = Promise.withResolvers<void>()
    const isChanged = Promise.withResolvers<void>()
    tls.keepSession = (key, session, context) => {
      void isChanged.promise.then(() => {
        kept(key, session, context)
        ticket.resolve()
      })
    }
    const { client, record } = await proxyTo(upstream.port, tls)
    client().write('x')
    await server.promise
    files['ca'] = stranger.cert
    contexts.reload()
    isChanged.resolve()
    await ticket.promise
    assert.equal(await client().closed(), 'ECONNRESET')
    assert.equal((await record(0)).end, 'tls_verify_failed')
    assert.equal(upstream.seen.resumed, 0)
  })

  it('refuses an upstream below the minimum version', async () => {
    const upstream = await tlsServer({ leaf: good, maxVersion: 'TLSv1.2' })
    const { client, record } = await proxyTo(
      upstream.port,
      upstreamTls({ ca: authority.cert }, { minVersion: 'TLSv1.3' }).tls,
    )
    assert.equal(await client().closed(), 'ECONNRESET')
    const { end, detail } = await record()
    assert.equal(end, 'upstream_reset')
    assert.match(detail ?? '', /speaks no protocol version that is allowed; lower tls\.minVersion or update it \(/)
  })

  it('dials nobody and blames no endpoint while there are no usable files', async () => {
    const upstream = await tlsServer({ leaf: good })
    const { client, record, cluster } = await proxyTo(upstream.port, upstreamTls({ ca: 'nonsense' }).tls)
    assert.equal(await client().closed(), 'ECONNRESET')
    const { end, detail, attempts } = await record()
    assert.deepEqual(
      [end, detail, attempts],
      ['tls_verify_failed', 'TLS cannot be set up: tls.ca: the file has no certificate, put one there in PEM form', 0],
    )
    assert.deepEqual(
      [...cluster.endpoints].map(({ failures }) => failures),
      [0],
    )
  })

  it('gives up on an upstream that accepts and never answers the handshake', async () => {
    const upstream = await tcpServer((socket) => socket.resume())
    ends.push(() => upstream.close())
    const { client, record } = await tcpProxy(
      {
        ports: [upstream.port],
        tls: upstreamTls({ ca: authority.cert }).tls,
        host: 'localhost',
        timeouts: { connectMs: 1_000 },
      },
      ends,
    )
    assert.equal(await client().closed(), 'ECONNRESET')
    const { end, detail } = await record()
    assert.equal(end, 'connect_timeout')
    assert.match(detail ?? '', /did not finish the TLS handshake within 1000 ms/)
  })

  it('blames nobody for a dial that the application did not wait for, also when it was the probe of a breaker', async () => {
    const upstream = await tcpServer((socket) => socket.resume())
    ends.push(() => upstream.close())
    const breaker = { consecutiveFailures: 1, failureRate: null, openMs: 50, maxOpenMs: 50, halfOpenRequests: 1 }
    const { tls } = upstreamTls({ ca: authority.cert })
    const { client, record, cluster } = await tcpProxy(
      { ports: [upstream.port], tls, host: 'localhost', breaker, timeouts: { connectMs: 1_500 } },
      ends,
    )
    await client().closed()
    const [endpoint] = [...cluster.endpoints]
    assert.equal(endpoint?.breaker?.state, 'open')
    while (cluster.retryAfterMs(performance.now()) > 0) await new Promise((resolve) => setTimeout(resolve, 5))
    const leaving = client()
    await upstream.connections(2)
    assert.equal(endpoint?.breaker?.state, 'half-open')
    leaving.socket.resetAndDestroy()
    assert.equal((await record(1)).end, 'client_gone')
    assert.deepEqual([endpoint?.breaker?.state, endpoint?.active, cluster.connections.used], ['half-open', 0, 0])
    // Its place is free: the next one is a probe again.
    assert.equal(cluster.pick(performance.now()), endpoint)
  })

  /** A relay in front of a TLS 1.2 server that notes the kinds of records on their way to it, and passes no FIN back. */
  async function tapped(port: number) {
    const seen = { kinds: [] as number[], end: '' }
    const over = Promise.withResolvers<void>()
    const tap = await tcpServer((socket) => {
      const onward = connect({ port, host: '127.0.0.1', allowHalfOpen: true })
      ends.push(() => onward.destroy())
      let bytes = Buffer.alloc(0)
      socket.on('data', (chunk: Buffer) => {
        onward.write(chunk)
        bytes = Buffer.concat([bytes, chunk])
        // RFC 5246 section 6.2.1: one byte of kind, two of version, two of length.
        while (bytes.length >= 5 && bytes.length >= 5 + bytes.readUInt16BE(3)) {
          seen.kinds.push(bytes[0]!)
          bytes = bytes.subarray(5 + bytes.readUInt16BE(3))
        }
      })
      socket.on('end', () => {
        seen.end = 'FIN'
        over.resolve()
        onward.end()
      })
      socket.on('error', () => (seen.end = 'RST'))
      socket.on('close', () => over.resolve())
      onward.on('data', (chunk: Buffer) => socket.write(chunk))
      onward.on('error', () => {})
    })
    ends.push(() => tap.close())
    return { port: tap.port, seen, over: over.promise }
  }
  const ALERT = 21
  const DATA = 23

  it('ends with close_notify before the FIN, and takes that of the upstream for its end without one', async () => {
    const upstream = await tlsServer({ leaf: good, maxVersion: 'TLSv1.2', serve: (socket) => socket.end('bye') })
    const tap = await tapped(upstream.port)
    const { client, record } = await proxyTo(tap.port, upstreamTls({ ca: authority.cert }).tls)
    const app = client().write('hello')
    assert.equal(await app.ended(), 'bye')
    app.end()
    assert.equal(await app.closed(), null)
    await tap.over
    assert.deepEqual(tap.seen.kinds.slice(-2), [DATA, ALERT])
    assert.equal(tap.seen.end, 'FIN')
    const { end, bytesIn, bytesOut } = await record()
    assert.deepEqual([end, bytesIn, bytesOut], ['upstream_closed', 5, 3])
  })

  it('sends no close_notify for an application that was cut off: what it sent is not whole', async () => {
    const upstream = await tlsServer({ leaf: good, maxVersion: 'TLSv1.2', serve: (socket) => socket.resume() })
    const tap = await tapped(upstream.port)
    const { client } = await proxyTo(tap.port, upstreamTls({ ca: authority.cert }).tls)
    const app = client().write('half of it')
    await upstream.made.connections(1)
    while (upstream.seen.bytes < 10) await new Promise((resolve) => setTimeout(resolve, 5))
    app.socket.resetAndDestroy()
    await tap.over
    assert.equal(tap.seen.kinds.at(-1), DATA)
  })

  it('offers no protocol of its own (ALPN): it does not know what the application speaks', async () => {
    const chosen: unknown[] = []
    const upstream = await tlsServer({
      leaf: good,
      ALPNProtocols: ['postgresql', 'http/1.1'],
      serve: (socket) => {
        chosen.push(socket.alpnProtocol)
        echo(socket)
      },
    })
    const { client } = await proxyTo(upstream.port, upstreamTls({ ca: authority.cert }).tls)
    assert.equal(await client().end('x').ended(), 'x')
    assert.deepEqual(chosen, [false])
  })

  for (const minVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    it(`with minVersion ${minVersion} speaks the newest that both know`, async () => {
      const versions: (string | null)[] = []
      const upstream = await tlsServer({
        leaf: good,
        serve: (socket) => {
          versions.push(socket.getProtocol())
          echo(socket)
        },
      })
      const { client } = await proxyTo(upstream.port, upstreamTls({ ca: authority.cert }, { minVersion }).tls)
      assert.equal(await client().end('x').ended(), 'x')
      assert.deepEqual(versions, ['TLSv1.3'])
    })
  }

  it('passes a reset of a TLS upstream on as a reset', async () => {
    let raw: Socket | undefined
    const upstream = await tlsServer({
      leaf: good,
      serve: (socket) => {
        socket.on('error', () => {})
        socket.write('partial')
      },
    })
    upstream.server.on('connection', (socket) => {
      raw = socket
    })
    const { client, record } = await proxyTo(upstream.port, upstreamTls({ ca: authority.cert }).tls)
    const app = client()
    await app.read(7)
    raw?.resetAndDestroy()
    assert.equal(await app.closed(), 'ECONNRESET')
    assert.equal((await record()).end, 'upstream_reset')
  })

  it('lets no handshake fail while the certificates of both sides are replaced again and again', async () => {
    const pairs = [authority.issue(), authority.issue(), authority.issue()]
    const clients = [authority.issue({ names: [] }), authority.issue({ names: [] })]
    const upstream = await tlsServer({
      leaf: pairs[0]!,
      ca: authority.cert,
      requestCert: true,
      rejectUnauthorized: true,
    })
    const files = { ca: authority.cert, cert: clients[0]!.cert, key: clients[0]!.key }
    const made = upstreamTls(files, { clientCertificate: { certificate: CERT, privateKey: KEY } })
    const { client, driver } = await proxyTo(upstream.port, made.tls)
    let served = 0
    for (let i = 0; i < 200; i++) {
      if (i % 10 === 0) {
        const next = clients[(i / 10) % 2]!
        Object.assign(files, { cert: next.cert, key: next.key })
        Object.assign(made.files, files)
        made.contexts.reload()
      }
      // Now and then a broken pair: it is never used.
      if (i % 30 === 5) {
        made.files['key'] = pairs[0]!.key
        made.contexts.reload()
        assert.match(made.tls.failure ?? '', /does not match/)
      }
      if (i % 25 === 0) upstream.server.setSecureContext({ ...pairs[(i / 25) % 3]!, ca: authority.cert })
      if ((await client().end('x').ended()) === 'x') served++
    }
    assert.equal(served, 200)
    assert.deepEqual(driver.totals.ends, { client_closed: 200 })
  })
})
