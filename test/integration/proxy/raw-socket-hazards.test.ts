/** What a socket must bear from its owner and from its peer: calls from within its own callbacks, and memory that is given away. */
import assert from 'node:assert/strict'
import { constants } from 'node:crypto'
import { once } from 'node:events'
import { rmSync } from 'node:fs'
import { type AddressInfo, connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { createSecureContext, createServer as createTlsServer, type TLSSocket } from 'node:tls'
import { listenAtPath } from '../../../proxy/runtime/listen.ts'
import { adopt, NO_HANDLER, openTcp, type RawSocket, type SocketHandler } from '../../../proxy/runtime/raw-socket.ts'
import { TlsSocket, UntrustedError } from '../../../proxy/runtime/tls-socket.ts'
import { Pki } from '../../helpers/pki.ts'

const ends: (() => unknown)[] = []
after(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

let paths = 0

describe('a Unix socket that is asked whether somebody holds its other end', () => {
  /** Both ends, with the number of times that ours told that everything is written. */
  async function pair() {
    const path = join(tmpdir(), `ambassador-hazards-${process.pid}-${paths++}.sock`)
    const accepted = Promise.withResolvers<RawSocket>()
    let onDrain: () => void = () => {}
    const handler: SocketHandler = { ...NO_HANDLER, onDrain: () => onDrain() }
    const listening = listenAtPath(path, 10, (connection) => accepted.resolve(adopt(connection, handler)), assert.fail)
    const peer = connect({ path, allowHalfOpen: true }).pause()
    peer.on('error', () => {})
    const raw = await accepted.promise
    ends.push(
      () => listening.close(),
      () => peer.destroy(),
      () => raw.destroy(),
      () => rmSync(path, { force: true }),
    )
    const drained = (): Promise<void> =>
      new Promise((resolve) => {
        onDrain = resolve
      })
    return { raw, peer, drained }
  }

  it('counts the bytes under way as before, and tells of their end again the next time', async () => {
    const { raw, peer, drained } = await pair()
    for (let turn = 0; turn < 3; turn++) {
      const size = 4 << 20
      assert.equal(raw.write(Buffer.alloc(size)), false)
      assert.equal(raw.isAbandoned(), false)
      assert.equal(raw.backlog, size)
      const end = drained()
      let got = 0
      const all = Promise.withResolvers<void>()
      const onData = (data: Buffer): void => {
        got += data.length
        if (got === size) all.resolve()
      }
      peer.on('data', onData).resume()
      await Promise.all([end, all.promise])
      peer.off('data', onData).pause()
      assert.equal(raw.backlog, 0)
      assert.equal(raw.isSlow, false)
    }
  })

  it('says so when it is gone in the middle of what is written', async () => {
    const { raw, peer } = await pair()
    assert.equal(raw.write(Buffer.alloc(4 << 20)), false)
    peer.destroy()
    while (!raw.isAbandoned()) await new Promise((resolve) => setImmediate(resolve))
    raw.destroy()
    assert.equal(raw.isAbandoned(), true)
  })
})

describe('a TLS socket with several records in one read', () => {
  const pki = new Pki()
  after(() => pki.remove())
  const leaf = pki.authority().issue()
  const RECORDS = 6

  /** Has it read a first record, and then all of the others at once, which are a hundred bytes of Z each. */
  async function readsTogether(onRecord: (raw: TlsSocket, chunk: Buffer, length: number) => void) {
    const server = createTlsServer({ cert: leaf.cert, key: leaf.key })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    ends.push(() => server.close())
    const accepted = once(server, 'secureConnection') as Promise<[TLSSocket]>
    const secured = Promise.withResolvers<TlsSocket>()
    const closed = Promise.withResolvers<Error | null>()
    const first = Promise.withResolvers<void>()
    let isFirst = true
    const options = {
      context: createSecureContext(),
      serverName: 'localhost',
      sentName: null,
      session: undefined,
      alpn: null,
      isUnverified: true,
    }
    const handler = {
      ...NO_HANDLER,
      onSecure: secured.resolve,
      onData: (chunk: Buffer, length: number) => {
        if (!isFirst) onRecord(raw, chunk, length)
        else {
          isFirst = false
          onRecord(raw, chunk, length)
          raw.pause()
          first.resolve()
        }
      },
      onClose: closed.resolve,
    }
    openTcp(
      { address: '127.0.0.1', port: (server.address() as AddressInfo).port },
      { ...NO_HANDLER, onConnect: (plain) => void new TlsSocket(plain, options, handler, () => {}) },
    )
    const raw = await secured.promise
    const [peer] = await accepted
    peer.on('error', () => {})
    ends.push(
      () => peer.destroy(),
      () => raw.destroy(),
    )
    const write = (text: string): Promise<unknown> => new Promise((resolve) => peer.write(text, resolve))
    await write('A')
    await first.promise
    for (let n = 0; n < RECORDS; n++) await write('Z'.repeat(100))
    raw.resume()
    return { raw, peer, closed: closed.promise }
  }

  it('reads none of them into memory that its owner gave away when it destroyed it', async () => {
    const own = Buffer.alloc(64 * 1024)
    let reads = 0
    const { closed } = await readsTogether((raw, chunk) => {
      reads++
      raw.readInto(own)
      if (chunk !== own) return
      own.fill('K')
      raw.destroy()
    })
    assert.equal(await closed, null)
    assert.equal(reads, 2)
    assert.deepEqual(own, Buffer.alloc(own.length, 'K'))
  })

  it('tells of each in its turn to an owner that writes nothing, and then something, from within', async () => {
    let depth = 0
    let deepest = 0
    const { raw, peer } = await readsTogether((raw) => {
      deepest = Math.max(deepest, ++depth)
      raw.write(Buffer.alloc(0))
      raw.write(Buffer.from('x'))
      depth--
    })
    let got = ''
    peer.setEncoding('latin1').on('data', (text: string) => {
      got += text
    })
    while (got.length < RECORDS + 1) await once(peer, 'data')
    assert.equal(got, 'x'.repeat(RECORDS + 1))
    assert.equal(deepest, 1)
    assert.equal(raw.bytesRead, 1 + RECORDS * 100)
  })
})

describe('a server of TLS 1.2 that renegotiates', () => {
  const pki = new Pki()
  after(() => pki.remove())
  const authority = pki.authority()
  const first = authority.issue()

  /** Shows another certificate when it is written to, and then writes. What the owner heard: the words, or why it was closed. */
  async function renegotiated(then: { readonly cert: string; readonly key: string }): Promise<string | Error | null> {
    const server = createTlsServer(
      { ...first, maxVersion: 'TLSv1.2', secureOptions: constants.SSL_OP_NO_SESSION_RESUMPTION_ON_RENEGOTIATION },
      (socket) => {
        socket.on('error', () => {})
        socket.once('data', () => {
          socket.setKeyCert(createSecureContext(then))
          socket.renegotiate({}, () => socket.write('trusted'))
        })
        ends.push(() => socket.destroy())
      },
    )
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    ends.push(() => server.close())
    const heard = Promise.withResolvers<string | Error | null>()
    const options = {
      context: createSecureContext({ ca: authority.cert }),
      serverName: 'localhost',
      sentName: 'localhost',
      session: undefined,
      alpn: null,
      isUnverified: false,
    }
    const handler = {
      ...NO_HANDLER,
      onSecure: (raw: TlsSocket) => {
        ends.push(() => raw.destroy())
        raw.write(Buffer.from('again'))
      },
      onData: (chunk: Buffer, length: number) => heard.resolve(chunk.toString('latin1', 0, length)),
      onClose: heard.resolve,
    }
    openTcp(
      { address: '127.0.0.1', port: (server.address() as AddressInfo).port },
      { ...NO_HANDLER, onConnect: (plain) => void new TlsSocket(plain, options, handler, () => {}) },
    )
    return heard.promise
  }

  it('is talked to on when its new certificate is right too', async () => {
    assert.equal(await renegotiated(first), 'trusted')
    assert.equal(await renegotiated(authority.issue()), 'trusted')
  })

  it('is refused when the new one is for another name, or of nobody trusted', async () => {
    const codes: readonly (readonly [leaf: { readonly cert: string; readonly key: string }, code: RegExp])[] = [
      [authority.issue({ names: ['other.example.com'] }), /^ERR_TLS_CERT_ALTNAME_INVALID$/],
      [pki.authority().issue(), /^UNABLE_TO_/],
    ]
    for (const [leaf, code] of codes) {
      const heard = await renegotiated(leaf)
      assert.ok(heard instanceof UntrustedError, String(heard))
      assert.match(heard.code, code)
    }
  })
})
