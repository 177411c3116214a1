/** raw-socket.ts on real sockets: also the alarm for a Node release that changes the internals it leans on. */
import assert from 'node:assert/strict'
import { X509Certificate } from 'node:crypto'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { after, describe, it } from 'node:test'
import { createSecureContext, createServer as createTlsServer, type TLSSocket } from 'node:tls'
import { SHARED_READ_BUFFER } from '../../../proxy/runtime/buffers.ts'
import { adopt, NO_HANDLER, openTcp, type RawSocket, type SocketHandler } from '../../../proxy/runtime/raw-socket.ts'
import { type TlsOptions, TlsSocket, UntrustedError } from '../../../proxy/runtime/tls-socket.ts'
import { Pki } from '../../helpers/pki.ts'
import { rudeTlsServer } from '../../helpers/rude-tls.ts'
import { serving } from '../../helpers/serving.ts'

/** A handler that keeps what it hears. */
class Recorder implements SocketHandler {
  received = ''
  readonly events: string[] = []
  readonly #waiting: { event: string; resolve: () => void }[] = []

  onData(chunk: Buffer, length: number): void {
    this.received += chunk.toString('latin1', 0, length)
    this.#tell('data')
  }
  onEnd(): void {
    this.#tell('end')
  }
  onDrain(): void {
    this.#tell('drain')
  }
  onClose(error: Error | null): void {
    this.#tell(error === null ? 'close' : `close ${(error as NodeJS.ErrnoException).code}`)
  }
  #tell(event: string): void {
    this.events.push(event)
    for (const waiting of this.#waiting.filter((w) => event.startsWith(w.event))) waiting.resolve()
  }
  next(event: string): Promise<void> {
    if (event !== 'drain' && event !== 'data' && this.events.some((e) => e.startsWith(event))) return Promise.resolve()
    return new Promise((resolve) => this.#waiting.push({ event, resolve }))
  }
}

async function pair(): Promise<{ client: Socket; raw: RawSocket; heard: Recorder; close: () => Promise<void> }> {
  const heard = new Recorder()
  const accepted = Promise.withResolvers<RawSocket>()
  const server = serving((connection) => accepted.resolve(adopt(connection, heard)))
  const client = connect({ port: server.port, host: '127.0.0.1', allowHalfOpen: true })
  const raw = await accepted.promise
  const closed = new Promise<void>((resolve) => (raw.afterClose = resolve))
  const close = async (): Promise<void> => {
    raw.destroy()
    client.destroy()
    server.close()
    await closed
  }
  return { client, raw, heard, close }
}

/** Connected, and read from now on. */
const connected = (port: number, handler: SocketHandler): Promise<RawSocket> =>
  new Promise((resolve, reject) => {
    const onConnect = (raw: RawSocket): void => {
      raw.handler = handler
      raw.start()
      resolve(raw)
    }
    openTcp({ address: '127.0.0.1', port }, { ...NO_HANDLER, onConnect, onClose: reject })
  })

/** TLS to a server that is trusted by `trust`, or without asking who it is. */
const secured = (
  port: number,
  handler: SocketHandler,
  trust: Partial<TlsOptions> = { isUnverified: true },
): Promise<TlsSocket> =>
  new Promise((resolve, reject) => {
    const onSecure = (raw: TlsSocket): void => {
      raw.handler = handler
      resolve(raw)
    }
    const options = {
      context: createSecureContext(),
      serverName: 'localhost',
      sentName: null,
      session: undefined,
      alpn: null,
      isUnverified: false,
      ...trust,
    }
    const secure = { ...NO_HANDLER, onSecure, onClose: reject }
    const onConnect = (plain: RawSocket): void => void new TlsSocket(plain, options, secure, () => {})
    openTcp({ address: '127.0.0.1', port }, { ...NO_HANDLER, onConnect, onClose: reject })
  })

describe('RawSocket', () => {
  it('reads an accepted connection into one buffer that all sockets share', async () => {
    const one = await pair()
    const two = await pair()
    const chunks = new Set<Buffer>()
    for (const { raw, heard } of [one, two]) {
      raw.handler = {
        ...NO_HANDLER,
        onData: (chunk, length) => {
          chunks.add(chunk)
          heard.onData(chunk, length)
        },
      }
    }
    one.client.write('abc')
    two.client.write('def')
    await Promise.all([one.heard.next('data'), two.heard.next('data')])
    assert.equal(one.heard.received, 'abc')
    assert.equal(two.heard.received, 'def')
    assert.equal(chunks.size, 1)
    await one.close()
    await two.close()
  })

  it('sends all that was written before the end when it closes for a peer that has ended', async () => {
    const { client, raw, heard, close } = await pair()
    const piece = Buffer.alloc(1 << 20, 'x')
    client.pause()
    client.end()
    await heard.next('end')
    let pieces = 0
    for (let kept = 0; kept < 2; pieces++) if (!raw.write(piece)) kept++
    raw.end()
    assert.equal(raw.destroyed, false)
    let received = 0
    client.on('data', (data) => {
      received += data.length
    })
    client.resume()
    await once(client, 'end')
    assert.equal(received, pieces * piece.length)
    await heard.next('close')
    assert.deepEqual(
      heard.events.filter((event) => event.startsWith('close')),
      ['close'],
    )
    await close()
  })

  it('says that memory is free when the kernel took all, and reuse of it does not change what was sent', async () => {
    const { client, raw, close } = await pair()
    const memory = Buffer.from('first')
    assert.equal(raw.write(memory), true)
    assert.equal(raw.backlog, 0)
    memory.write('again')
    assert.equal(raw.write(memory), true)
    let got = ''
    client.on('data', (data) => {
      got += data.toString()
    })
    while (got.length < 10) await once(client, 'data')
    assert.equal(got, 'firstagain')
    await close()
  })

  it('keeps what the kernel does not take and reports when it is gone, in order', async () => {
    const { client, raw, heard, close } = await pair()
    client.pause()
    const piece = Buffer.alloc(1 << 20, 'x')
    let kept = 0
    let writes = 0
    while (kept < 3) {
      if (!raw.write(piece)) kept++
      writes++
    }
    assert.ok(raw.backlog > 0)
    const drained = heard.next('drain')
    let got = 0
    client.on('data', (data: Buffer) => {
      got += data.length
    })
    client.resume()
    await drained
    assert.equal(raw.backlog, 0)
    while (got < writes << 20) await once(client, 'data')
    assert.equal(got, writes << 20)
    await close()
  })

  it('passes a half-close in both directions', async () => {
    const { client, raw, heard, close } = await pair()
    client.end('question')
    await heard.next('end')
    assert.equal(heard.received, 'question')
    raw.write(Buffer.from('answer'))
    raw.end()
    let got = ''
    client.on('data', (data) => {
      got += data.toString()
    })
    await once(client, 'end')
    assert.equal(got, 'answer')
    await heard.next('close')
    assert.deepEqual(heard.events.slice(-2), ['end', 'close'])
    await close()
  })

  it('sends everything written before the FIN even when the kernel was slow', async () => {
    const { client, raw, close } = await pair()
    client.pause()
    const size = 24 << 20
    assert.equal(raw.write(Buffer.alloc(size, 'x')), false)
    raw.end()
    let got = 0
    client.on('data', (data: Buffer) => {
      got += data.length
    })
    client.resume()
    await once(client, 'end')
    assert.equal(got, size)
    await close()
  })

  it('reads nothing while paused', async () => {
    const { client, raw, heard, close } = await pair()
    raw.pause()
    client.write('early')
    await new Promise((resolve) => setTimeout(resolve, 30))
    assert.equal(heard.received, '')
    const data = heard.next('data')
    raw.resume()
    await data
    assert.equal(heard.received, 'early')
    await close()
  })

  it('reads into memory of its own when it is given some, and back into the shared one', async () => {
    const { client, raw, heard, close } = await pair()
    const own = Buffer.alloc(1024)
    const used: boolean[] = []
    raw.handler = {
      ...NO_HANDLER,
      onData(chunk, length) {
        used.push(chunk === own)
        raw.readInto(used.length < 2 ? own : null)
        heard.onData(chunk, length)
      },
    }
    for (let i = 0; i < 3; i++) {
      const data = heard.next('data')
      client.write('x')
      await data
    }
    assert.deepEqual(used, [false, true, false])
    await close()
  })

  it('resets so that the peer sees an error and not an end', async () => {
    const { client, raw, close } = await pair()
    client.resume()
    const failed = once(client, 'error')
    raw.reset()
    const [error] = (await failed) as [NodeJS.ErrnoException]
    assert.equal(error.code, 'ECONNRESET')
    await close()
  })

  it('is closed when it is reset while its FIN is on its way', async () => {
    const { client, raw, close } = await pair()
    client.on('error', () => {})
    client.resume()
    const ended = new Promise((resolve) => client.once('end', resolve))
    const gone = new Promise((resolve) => client.once('close', resolve))
    raw.end()
    raw.reset()
    await Promise.race([ended, gone])
    // To a socket that is closed nobody can write; to one whose descriptor was lost anybody can.
    const asking = setInterval(() => client.write('anybody?'), 5)
    await gone
    clearInterval(asking)
    await close()
  })

  it('delivers the last words of a peer that refused the rest of an upload', async () => {
    const server = createServer((socket) => {
      socket.once('data', () => {
        socket.pause()
        // Closing with unread bytes makes the kernel send RST after the words.
        socket.write('enough', () => socket.destroy())
      })
    })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const heard = new Recorder()
    const raw = await connected((server.address() as AddressInfo).port, heard)
    const piece = Buffer.alloc(1 << 20)
    while (raw.backlog === 0 && !raw.destroyed) raw.write(piece)
    await heard.next('close')
    assert.equal(heard.received, 'enough')
    server.close()
  })
})

describe('TlsSocket', () => {
  const pki = new Pki()
  after(() => pki.remove())

  /** TLS, and the other end of it. */
  async function pairOverTls() {
    const leaf = pki.authority().issue()
    const server = createTlsServer({ cert: leaf.cert, key: leaf.key })
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    const heard = new Recorder()
    const accepted = once(server, 'secureConnection') as Promise<[TLSSocket]>
    const raw = await secured((server.address() as AddressInfo).port, heard)
    const [peer] = await accepted
    peer.on('error', () => {})
    const close = async (): Promise<void> => {
      raw.destroy()
      peer.destroy()
      server.close()
      await once(server, 'close')
    }
    return { raw, heard, peer, close }
  }

  it('reads into the buffer that all sockets share, counts, and stops while it is paused', async () => {
    const { raw, heard, peer, close } = await pairOverTls()
    const chunks = new Set<Buffer>()
    raw.handler = {
      ...NO_HANDLER,
      onData: (chunk, length) => {
        chunks.add(chunk)
        heard.onData(chunk, length)
      },
    }
    const first = heard.next('data')
    peer.write('one')
    await first
    raw.pause()
    peer.write('two')
    await new Promise((resolve) => setTimeout(resolve, 30))
    assert.equal(heard.received, 'one')
    const second = heard.next('data')
    raw.resume()
    await second
    assert.equal(heard.received, 'onetwo')
    assert.equal(raw.bytesRead, 6)
    assert.deepEqual([...chunks], [SHARED_READ_BUFFER])
    await close()
  })

  it('is not slow while the kernel takes its records, and is when the peer does not read', async () => {
    const { raw, peer, close } = await pairOverTls()
    peer.pause()
    raw.write(Buffer.from('little'))
    assert.ok(raw.backlog > 0)
    assert.equal(raw.isSlow, false)
    const piece = Buffer.alloc(1 << 20)
    for (let n = 0; n < 64 && !raw.isSlow; n++) {
      raw.write(piece)
      if (!raw.isSlow) await new Promise((resolve) => setImmediate(resolve))
    }
    assert.equal(raw.isSlow, true)
    await close()
  })

  it('tells of the end of the peer, and ends', async () => {
    const { heard, raw, peer, close } = await pairOverTls()
    peer.end('bye')
    await heard.next('end')
    assert.equal(heard.received, 'bye')
    raw.end()
    await heard.next('close')
    assert.equal(heard.events.at(-1), 'close')
    await close()
  })
})

describe('a server of TLS', () => {
  const pki = new Pki()
  const ends: (() => unknown)[] = []
  after(async () => {
    for (const end of ends.splice(0).reverse()) await end()
    pki.remove()
  })
  const authority = pki.authority()

  /** Its port. */
  async function serverOf(leaf: { readonly cert: string; readonly key: string }): Promise<number> {
    const server = createTlsServer({ cert: leaf.cert, key: leaf.key }, (socket) =>
      socket.on('error', () => {}).resume(),
    )
    server.on('tlsClientError', () => {})
    server.listen(0, '127.0.0.1')
    await once(server, 'listening')
    ends.push(() => server.close())
    return (server.address() as AddressInfo).port
  }

  /** The error that the owner heard. */
  const refusal = (port: number, trust: Partial<TlsOptions>): Promise<unknown> =>
    secured(port, NO_HANDLER, trust).then(
      (raw) => raw.destroy(),
      (error) => error,
    )

  it('is written to when its chain and its name are right, and is heard of by its certificate', async () => {
    const leaf = authority.issue()
    const raw = await secured(await serverOf(leaf), NO_HANDLER, {
      context: createSecureContext({ ca: authority.cert }),
    })
    assert.equal(raw.peerCertificate?.equals(new X509Certificate(leaf.cert).raw), true)
    raw.destroy()
  })

  it('is refused when nobody trusted issued its certificate, with the chain that it showed', async () => {
    const error = await refusal(await serverOf(authority.issue()), {
      context: createSecureContext({ ca: pki.authority().cert }),
    })
    assert.ok(error instanceof UntrustedError, String(error))
    assert.match(error.code, /UNABLE_TO|SELF_SIGNED/)
    assert.ok(error.chain.length > 0)
  })

  it('is refused when its certificate is for another name', async () => {
    const error = await refusal(await serverOf(authority.issue()), {
      context: createSecureContext({ ca: authority.cert }),
      serverName: 'other.example.com',
      sentName: 'other.example.com',
    })
    assert.ok(error instanceof UntrustedError, String(error))
    assert.equal(error.code, 'ERR_TLS_CERT_ALTNAME_INVALID')
  })

  it('is refused whatever NODE_TLS_REJECT_UNAUTHORIZED says', async () => {
    process.env.NODE_TLS_REJECT_UNAUTHORIZED = '0'
    try {
      const error = await refusal(await serverOf(pki.authority().issue()), {
        context: createSecureContext({ ca: authority.cert }),
      })
      assert.ok(error instanceof UntrustedError, String(error))
    } finally {
      delete process.env.NODE_TLS_REJECT_UNAUTHORIZED
    }
  })
})

describe('the end of TLS', { concurrency: true }, () => {
  const pki = new Pki()
  const ends: (() => unknown)[] = []
  after(async () => {
    for (const end of ends.splice(0).reverse()) await end()
    pki.remove()
  })
  const leaf = pki.authority().issue()
  const SIZES = { nothing: 0, 'a record': 5, 'a megabyte': 1 << 20 }
  for (const maxVersion of ['TLSv1.2', 'TLSv1.3'] as const) {
    for (const [what, size] of Object.entries(SIZES)) {
      for (const pauses of [false, true]) {
        const how = `behind ${what}, over ${maxVersion}${pauses ? ', to a reader that pauses' : ''}`
        for (const isCut of [true, false]) {
          const title = isCut ? 'is told from a FIN without it' : 'is no cut'
          it(`${title} ${how}`, async () => {
            const got = Promise.withResolvers<string>()
            const server = await rudeTlsServer(
              { ...leaf, maxVersion },
              ({ tls, cut }) => {
                tls.on('data', (chunk: Buffer) => got.resolve(chunk.toString()))
                if (isCut) tls.write(Buffer.alloc(size), cut)
                else tls.end(Buffer.alloc(size))
              },
              ends,
            )
            let length = 0
            const ended = Promise.withResolvers<void>()
            const handler: SocketHandler = {
              ...NO_HANDLER,
              onData: (_chunk, bytes) => {
                length += bytes
                if (!pauses) return
                raw.pause()
                setImmediate(() => raw.resume())
              },
              onEnd: () => ended.resolve(),
            }
            const raw = await secured(server.port, handler)
            ends.push(() => raw.destroy())
            raw.write(Buffer.from('begin'))
            await ended.promise
            assert.deepEqual([length, raw.isCut], [size, isCut])
            if (!isCut) return
            // The other direction is open still.
            raw.write(Buffer.from('and on'))
            assert.equal(await got.promise, 'and on')
          })
        }
      }
    }
  }
})
