import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'
import { after, describe, it } from 'node:test'
import { createServer } from 'node:tls'
import type { ProxyProtocol } from '../../../common/proxy-config.ts'
import { NO_GUARD } from '../../../proxy/policy/dial-guard.ts'
import type { RawSocket } from '../../../proxy/runtime/raw-socket.ts'
import type { TlsSocket } from '../../../proxy/runtime/tls-socket.ts'
import { type FileTls, TlsContexts } from '../../../proxy/tls/contexts.ts'
import { type DialFailure, dial } from '../../../proxy/upstream/connector.ts'
import type { Address } from '../../../proxy/upstream/discovery/discovery.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { type Leaf, Pki } from '../../helpers/pki.ts'
import { silentPort } from '../../helpers/silent-port.ts'
import { closedPort, TestServer, tcpServer } from '../../helpers/tcp.ts'

const pki = new Pki()
after(() => pki.remove())
const authority = pki.authority()
const ends = endsOfEach()

const address = (port: number, ip = '127.0.0.1'): Address => ({
  host: 'db.example',
  ip,
  port,
  weight: 1,
  priority: 0,
})

interface Setup {
  readonly rival?: Address
  readonly tls?: FileTls
  readonly proxyProtocol?: ProxyProtocol
  readonly isCheck?: boolean
}

const TIMEOUT_MS = 30_000

/** How a dial ended, how long it took, and the bytes that came. */
async function dialled(to: Address, setup: Setup = {}) {
  const startedAt = performance.now()
  const end = Promise.withResolvers<{ raw: RawSocket; address: Address } | DialFailure>()
  const { tls = null, proxyProtocol = null, ...rest } = setup
  dial(
    { address: to, guard: NO_GUARD, tls, proxyProtocol, alpn: null, timeoutMs: TIMEOUT_MS, ...rest },
    {
      onDialled: (raw, _times, where) => end.resolve({ raw, address: where }),
      onDialFailed: (failure) => end.resolve(failure),
    },
  )
  const outcome = await end.promise
  if ('raw' in outcome) ends.push(() => outcome.raw.destroy())
  return { outcome, ms: performance.now() - startedAt }
}

async function server(serve: (socket: Socket) => void = () => {}) {
  const made = await tcpServer(serve)
  ends.push(() => made.close())
  return made
}

function trusting(parts: { reason?: string } = {}): FileTls {
  const contexts = new TlsContexts({
    read: () => ({ state: 'Found', bytes: Buffer.from(authority.cert) }),
    name: () => 'the file',
  })
  return contexts.open({
    serverName: null,
    ca: { kind: 'file', path: 'ca' },
    clientCertificate: null,
    minVersion: 'TLSv1.2',
    ...(parts.reason !== undefined && { insecureSkipVerify: { reason: parts.reason } }),
  })
}

/** A server that reads `head` bytes in plain text, if any, and then speaks TLS. */
async function tlsBehind(leaf: Leaf, head: number) {
  const seen = Promise.withResolvers<string>()
  const inner = createServer({ cert: leaf.cert, key: leaf.key }, (socket) => {
    socket.on('error', () => {})
    socket.pipe(socket)
  })
  inner.on('tlsClientError', () => {})
  const secure = await new TestServer(inner, 'secureConnection').listen()
  ends.push(() => secure.close())
  const made = await server((socket) => {
    let read = Buffer.alloc(0)
    const to = connect(secure.port, '127.0.0.1')
    ends.push(() => to.destroy())
    for (const each of [socket, to]) each.on('error', () => {})
    to.on('data', (chunk: Buffer) => socket.write(chunk))
    to.on('close', () => socket.destroy())
    socket.on('data', (chunk: Buffer) => {
      const missing = head - read.length
      read = Buffer.concat([read, chunk.subarray(0, missing)])
      if (read.length === head) seen.resolve(read.toString('latin1'))
      if (chunk.length > missing) to.write(chunk.subarray(missing))
    })
  })
  return { port: made.port, head: seen.promise }
}

describe('a dial with a rival', () => {
  it('goes to the other address when the first does not accept for a moment', async () => {
    const other = await server()
    const rival = address(other.port)
    const { outcome, ms } = await dialled(address(await silentPort(ends)), { rival })
    assert.ok('raw' in outcome)
    assert.equal(outcome.address, rival)
    // One that waited for the first to give up would take all of the time.
    assert.ok(ms >= 200 && ms < TIMEOUT_MS / 2, `${ms} ms`)
  })

  it('stays with the first when that accepts', async () => {
    const [first, other] = [await server(), await server()]
    const to = address(first.port)
    const { outcome } = await dialled(to, { rival: address(other.port) })
    assert.ok('raw' in outcome)
    assert.equal(outcome.address, to)
    await new Promise((resolve) => setTimeout(resolve, 350))
    assert.equal(other.accepted, 0)
  })

  it('goes to the other address at once when the first refuses', async () => {
    const other = await server()
    const rival = address(other.port)
    const { outcome } = await dialled(address(await closedPort()), { rival })
    assert.ok('raw' in outcome)
    assert.equal(outcome.address, rival)
    assert.equal(other.accepted, 1)
  })

  it('does not go to the other address when the first accepts and then fails', async () => {
    const [first, other] = [await server((socket) => socket.destroy()), await server()]
    const { outcome } = await dialled(address(first.port), { rival: address(other.port), tls: trusting() })
    assert.ok('reason' in outcome)
    await new Promise((resolve) => setTimeout(resolve, 350))
    assert.equal(other.accepted, 0)
  })

  it('fails with the words of the first when both refuse', async () => {
    const port = await closedPort()
    const { outcome } = await dialled(address(port), { rival: address(await closedPort()) })
    assert.ok('reason' in outcome)
    assert.equal(outcome.reason, 'connect_refused')
    assert.match(outcome.detail, new RegExp(`127\\.0\\.0\\.1:${port}`))
  })
})

describe('the PROXY protocol', () => {
  it('goes before everything else, with the addresses of the connection', async () => {
    const heard = Promise.withResolvers<string>()
    const upstream = await server((socket) => socket.once('data', (chunk: Buffer) => heard.resolve(chunk.toString())))
    const { outcome } = await dialled(address(upstream.port), { proxyProtocol: 'V1' })
    assert.ok('raw' in outcome)
    const localPort = outcome.raw.local?.port
    assert.equal(await heard.promise, `PROXY TCP4 127.0.0.1 127.0.0.1 ${localPort} ${upstream.port}\r\n`)
  })

  it('of a check tells no addresses', async () => {
    const heard = Promise.withResolvers<string>()
    const upstream = await server((socket) =>
      socket.once('data', (chunk: Buffer) => heard.resolve(chunk.toString('hex'))),
    )
    await dialled(address(upstream.port), { proxyProtocol: 'V2', isCheck: true })
    assert.equal(await heard.promise, '0d0a0d0a000d0a515549540a20000000')
  })

  it('goes before TLS in plain text', async () => {
    const leaf = authority.issue({ names: ['db.example'] })
    const upstream = await tlsBehind(leaf, 28)
    const { outcome } = await dialled(address(upstream.port), { proxyProtocol: 'V2', tls: trusting() })
    assert.ok('raw' in outcome, JSON.stringify(outcome))
    const { raw } = outcome
    const answer = new Promise<string>((resolve) => {
      raw.handler = {
        onData: (chunk, length) => resolve(chunk.toString('latin1', 0, length)),
        onEnd() {},
        onDrain() {},
        onClose() {},
      }
    })
    raw.write(Buffer.from('through TLS'))
    assert.equal(await answer, 'through TLS')
    assert.match(await upstream.head, /^\r\n\r\n\0\r\nQUIT\n!\x11\0\x0c/)
  })

  it('over TLS to nobody is refused with the reason', async () => {
    const { outcome } = await dialled(address(await closedPort()), { proxyProtocol: 'V1', tls: trusting() })
    assert.ok('reason' in outcome)
    assert.equal(outcome.reason, 'connect_refused')
  })
})

describe('a certificate that is not trusted', () => {
  const DAY_MS = 86_400_000
  it('for its dates is refused with both of them', async () => {
    const notAfter = new Date(Math.floor(Date.now() / 1000) * 1000 - DAY_MS)
    const leaf = authority.issue({ names: ['db.example'], notBefore: new Date(notAfter.getTime() - DAY_MS), notAfter })
    const { outcome } = await dialled(address((await tlsBehind(leaf, 0)).port), { tls: trusting() })
    assert.ok('reason' in outcome)
    assert.equal(outcome.reason, 'tls_verify_failed')
    const until = notAfter.toISOString().replace('.000Z', 'Z')
    assert.match(outcome.detail, new RegExp(`CN=db\\.example has expired \\(valid from \\S+Z to ${until}\\)`))
  })

  it('because its time has not come is refused with both dates too', async () => {
    const notBefore = new Date(Math.floor(Date.now() / 1000) * 1000 + DAY_MS)
    const leaf = authority.issue({ names: ['db.example'], notBefore })
    const { outcome } = await dialled(address((await tlsBehind(leaf, 0)).port), { tls: trusting() })
    assert.ok('reason' in outcome)
    assert.match(outcome.detail, /CN=db\.example is not yet valid \(valid from \S+Z to \S+Z\)/)
  })

  it('is taken when the config says so with a reason', async () => {
    const leaf = pki.selfSigned({ names: ['somebody.else'] })
    const { port } = await tlsBehind(leaf, 0)
    const refused = await dialled(address(port), { tls: trusting() })
    assert.ok('reason' in refused.outcome)
    assert.equal(refused.outcome.reason, 'tls_verify_failed')
    const { outcome } = await dialled(address(port), { tls: trusting({ reason: 'a test' }) })
    assert.ok('raw' in outcome, JSON.stringify(outcome))
  })
})

describe('the key share that is sent', () => {
  /** A server whose groups may change, and how many bytes each of its clients has sent. */
  async function choosing(groups: string | undefined) {
    const leaf = authority.issue({ names: ['db.example'] })
    const listening = async (ecdhCurve: string | undefined): Promise<number> => {
      const inner = createServer({ ...leaf, ecdhCurve }, (socket) => socket.on('error', () => {}))
      const secure = await new TestServer(inner, 'secureConnection').listen()
      ends.push(() => secure.close())
      return secure.port
    }
    let port = await listening(groups)
    const sent: number[] = []
    const made = await server((socket) => {
      const nth = sent.push(0) - 1
      const to = connect(port, '127.0.0.1')
      ends.push(() => to.destroy())
      for (const each of [socket, to]) each.on('error', () => {})
      socket.on('data', (chunk: Buffer) => {
        sent[nth]! += chunk.length
        to.write(chunk)
      })
      to.on('data', (chunk: Buffer) => socket.write(chunk))
    })
    const change = async (to: string | undefined): Promise<void> => {
      port = await listening(to)
    }
    return { port: made.port, sent, change }
  }

  const handshake = async (port: number, tls: FileTls): Promise<string | undefined> => {
    const { outcome } = await dialled(address(port), { tls })
    assert.ok('raw' in outcome, JSON.stringify(outcome))
    return (outcome.raw as TlsSocket).group ?? undefined
  }

  it('is the one that the server takes, once it took it three times', async () => {
    const { port, sent } = await choosing('X25519')
    const tls = trusting()
    for (let i = 0; i < 5; i++) assert.equal(await handshake(port, tls), 'X25519')
    // The share of the hybrid alone has 1,216 bytes.
    assert.ok(Math.min(...sent.slice(0, 3)) > 1300, sent.join())
    assert.ok(Math.max(...sent.slice(3)) < 1000, sent.join())
  })

  it('saves a server that takes no X25519 from asking again', async () => {
    const { port, sent } = await choosing('P-256')
    const tls = trusting()
    for (let i = 0; i < 4; i++) assert.equal(await handshake(port, tls), 'prime256v1')
    assert.ok((sent[3] ?? 0) < 1000 && (sent[2] ?? 0) > 1300, sent.join())
  })

  it('does not keep a server that learns the hybrid from having it', async () => {
    const { port, change } = await choosing('X25519')
    const tls = trusting()
    for (let i = 0; i < 4; i++) await handshake(port, tls)
    await change(undefined)
    for (let i = 0; i < 4; i++) assert.equal(await handshake(port, tls), 'X25519MLKEM768')
  })
})
