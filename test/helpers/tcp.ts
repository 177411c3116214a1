/** Plain TCP peers for tests: servers on free ports of loopback, and clients that collect what they get. */
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type NetConnectOpts, type Server, type Socket } from 'node:net'
import { freePort } from './ports.ts'

/** A server whose open sockets are known, so that a test can end them and itself. */
export class TestServer {
  readonly server: Server
  readonly sockets = new Set<Socket>()
  accepted = 0
  /** Also those in the middle of a TLS handshake. */
  readonly #raw = new Set<Socket>()
  #wake: (() => void)[] = []

  /** `server` must not listen yet; see the functions below for the usual ones. */
  constructor(server: Server, event: 'connection' | 'secureConnection' = 'connection') {
    this.server = server
    server.on('connection', (socket: Socket) => {
      this.#raw.add(socket)
      socket.on('close', () => this.#raw.delete(socket))
    })
    server.on(event, (socket: Socket) => {
      this.accepted++
      this.sockets.add(socket)
      socket.on('error', () => {})
      socket.on('close', () => this.sockets.delete(socket))
      for (const wake of this.#wake.splice(0)) wake()
    })
  }

  async listen(port = 0, host = '127.0.0.1'): Promise<this> {
    this.server.listen(port, host)
    await once(this.server, 'listening')
    return this
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port
  }

  /** Resolves when `count` connections have been accepted since the start. */
  async connections(count: number): Promise<void> {
    while (this.accepted < count) await new Promise<void>((resolve) => this.#wake.push(resolve))
  }

  async close(): Promise<void> {
    const closed = once(this.server, 'close')
    this.server.close()
    for (const socket of [...this.sockets, ...this.#raw]) socket.destroy()
    await closed
  }
}

/** Serves each connection with `serve`, which may half-close. */
export function tcpServer(serve: (socket: Socket) => void, port = 0, host = '127.0.0.1'): Promise<TestServer> {
  return new TestServer(createServer({ allowHalfOpen: true }, serve)).listen(port, host)
}

/** What the first byte from there is, or the code of the error. */
export async function firstByte(options: NetConnectOpts): Promise<string> {
  const socket = connect(options)
  try {
    const [chunk] = (await once(socket, 'data')) as [Buffer]
    return chunk.toString()
  } catch (error) {
    return (error as NodeJS.ErrnoException).code ?? 'error'
  } finally {
    socket.destroy()
  }
}

/** Sends back what it gets, and ends when the other side does. */
export const echo = (socket: Socket): void => {
  socket.pipe(socket)
}

/** A port of loopback that nobody listens on, and that nobody takes by chance: a dial is refused, and a server may come back there. */
export const closedPort = freePort

/** Resolves with a number that has stopped to change: a process that stood still sees nothing change either, so it is looked at several times. */
export async function settled(count: () => number): Promise<number> {
  let seen = count()
  for (let same = 0; same < 6; same++) {
    await new Promise((resolve) => setTimeout(resolve, 20))
    if (count() !== seen) same = -1
    seen = count()
  }
  return seen
}

/** A connection whose bytes are collected. */
export class TestClient {
  readonly socket: Socket
  #received: Buffer[] = []
  #length = 0
  #isEnded = false
  #error: NodeJS.ErrnoException | null = null
  #isClosed = false
  #wake: (() => void)[] = []

  constructor(options: NetConnectOpts & { port: number }) {
    this.socket = connect({ host: '127.0.0.1', allowHalfOpen: true, ...options })
    this.socket.on('data', (chunk: Buffer) => {
      this.#received.push(chunk)
      this.#length += chunk.length
      this.#changed()
    })
    this.socket.on('end', () => {
      this.#isEnded = true
      this.#changed()
    })
    this.socket.on('error', (error) => {
      this.#error = error
    })
    this.socket.on('close', () => {
      this.#isClosed = true
      this.#changed()
    })
  }

  get received(): Buffer {
    return Buffer.concat(this.#received)
  }

  /** The same, a character for each byte. */
  get text(): string {
    return this.received.toString('latin1')
  }

  get length(): number {
    return this.#length
  }

  /** Code of the error that the connection ended with; null when it was orderly. */
  get error(): string | null {
    return this.#error?.code ?? null
  }

  write(data: string | Buffer): this {
    this.socket.write(data)
    return this
  }

  /** Half-closes. */
  end(data?: string): this {
    if (data === undefined) this.socket.end()
    else this.socket.end(data)
    return this
  }

  /** Resolves with all that came, when it is at least `length` bytes. Fails when the connection ends before. */
  async read(length: number): Promise<string> {
    await this.#until(() => this.#length >= length || this.#isClosed)
    if (this.#length < length) throw new Error(`closed after ${this.#length} of ${length} bytes (${this.error})`)
    return this.received.toString('latin1')
  }

  /** Resolves when the other side will send no more. */
  async ended(): Promise<string> {
    await this.#until(() => this.#isEnded || this.#isClosed)
    return this.received.toString('latin1')
  }

  /** Resolves when the connection is closed: the code of its error, or null. */
  async closed(): Promise<string | null> {
    await this.#until(() => this.#isClosed)
    return this.error
  }

  async #until(condition: () => boolean): Promise<void> {
    while (!condition()) await new Promise<void>((resolve) => this.#wake.push(resolve))
  }

  #changed(): void {
    for (const wake of this.#wake.splice(0)) wake()
  }
}
