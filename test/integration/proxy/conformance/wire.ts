/** Both ends of the wire around a proxy in a process of its own: a raw client, and an upstream that captures and is told what to say. */
import { once } from 'node:events'
import { mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { configHash } from '../../../../common/config-hash.ts'
import { type ProxyConfig, proxyConfig } from '../../../../common/proxy-config.ts'
import { plainConfig } from '../../../../proxy/config/plain.ts'
import { freePort } from '../../../helpers/ports.ts'
import { ProxyProcess } from '../../../helpers/proxy-process.ts'

/** Nothing here takes this long unless it is stuck; a test says then what it waited for. */
const STUCK_MS = 30_000

/** Turns of the event loop in which it does all that it has been told to do. */
async function turns(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise<void>((resolve) => setImmediate(resolve))
}

/** How bytes are delivered: all in one write, or one write for each. */
export type Delivery = 'whole' | 'bytewise'
export const DELIVERIES: readonly Delivery[] = ['whole', 'bytewise']

/** One end of a connection: everything that comes is kept, and nothing is answered by itself. */
export class Wire {
  readonly socket: Socket
  #chunks: Buffer[] = []
  #text: string | null = ''
  #length = 0
  /** FIN came. */
  isEnded = false
  isClosed = false
  /** Code of the error that it ended with. */
  error: string | null = null
  #wake: (() => void)[] = []

  constructor(socket: Socket) {
    this.socket = socket
    socket.setNoDelay(true)
    socket.on('data', (chunk: Buffer) => {
      this.#chunks.push(chunk)
      this.#length += chunk.length
      this.#text = null
      this.#changed()
    })
    socket.on('end', () => {
      this.isEnded = true
      this.#changed()
    })
    socket.on('error', (error: NodeJS.ErrnoException) => {
      this.error = error.code ?? error.message
    })
    socket.on('close', () => {
      this.isClosed = true
      this.#changed()
    })
  }

  get length(): number {
    return this.#length
  }

  /** All that came, a byte a character. */
  get text(): string {
    this.#text ??= Buffer.concat(this.#chunks).toString('latin1')
    return this.#text
  }

  /** The other side has said or shown that nothing more comes. */
  get isOver(): boolean {
    return this.isEnded || this.isClosed
  }

  async send(text: string, delivery: Delivery = 'whole'): Promise<void> {
    const bytes = Buffer.from(text, 'latin1')
    if (delivery === 'whole') {
      this.socket.write(bytes)
      return
    }
    for (let i = 0; i < bytes.length && !this.isClosed; i++) {
      this.socket.write(bytes.subarray(i, i + 1))
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
  }

  end(): void {
    this.socket.end()
  }

  destroy(): void {
    this.socket.destroy()
  }

  reset(): void {
    this.socket.resetAndDestroy()
  }

  /** Resolves as soon as `holds`; rejects when it does not in good time. */
  async until(what: string, holds: () => boolean, ms = STUCK_MS): Promise<this> {
    const deadline = performance.now() + ms
    while (!holds()) {
      const left = deadline - performance.now()
      if (left <= 0) {
        const state = `${this.isEnded ? 'ended' : 'open'}, ${this.isClosed ? `closed ${this.error}` : 'not closed'}`
        throw new Error(`waited ${ms} ms for ${what}; ${state}, got ${JSON.stringify(this.text.slice(0, 600))}`)
      }
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#wake.push(() => {
          clearTimeout(timer)
          resolve()
        })
      })
    }
    return this
  }

  /** Resolves with everything that came, once that contains `part`; rejects at an end without it. */
  async has(part: string | RegExp): Promise<string> {
    const isThere = (): boolean => (typeof part === 'string' ? this.text.includes(part) : part.test(this.text))
    await this.until(String(part), () => isThere() || this.isOver)
    if (!isThere()) throw new Error(`ended (${this.error}) without ${part}: ${JSON.stringify(this.text.slice(0, 600))}`)
    return this.text
  }

  /** Resolves with everything that came, once the other side sends no more. */
  async over(ms?: number): Promise<string> {
    await this.until('the end', () => this.isOver, ms)
    return this.text
  }

  async closed(): Promise<string | null> {
    await this.until('the close', () => this.isClosed)
    return this.error
  }

  #changed(): void {
    for (const wake of this.#wake.splice(0)) wake()
  }
}

/** Offset behind the message that begins at `from`; -1 while it is not complete. Reads only what well-behaved peers send. */
function messageEnd(text: string, from = 0): number {
  const headEnd = text.indexOf('\r\n\r\n', from) + 4
  if (headEnd < from + 4) return -1
  const head = text.slice(from, headEnd)
  if (/^transfer-encoding:[ \t]*chunked/im.test(head)) {
    let at = headEnd
    for (;;) {
      const line = text.indexOf('\r\n', at)
      if (line < 0) return -1
      const size = Number.parseInt(text.slice(at, line), 16)
      if (size === 0) {
        if (text.startsWith('\r\n', line + 2)) return line + 4
        const end = text.indexOf('\r\n\r\n', line + 2)
        return end < 0 ? -1 : end + 4
      }
      at = line + 2 + size + 2
      if (at > text.length) return -1
    }
  }
  const length = Number(/^content-length:[ \t]*(\d+)/im.exec(head)?.[1] ?? 0)
  return text.length >= headEnd + length ? headEnd + length : -1
}

/** Messages that are complete, in order, and what is left. */
export function messages(text: string): { readonly whole: readonly string[]; readonly rest: string } {
  const whole: string[] = []
  let at = 0
  for (;;) {
    const end = messageEnd(text, at)
    if (end < 0) return { whole, rest: text.slice(at) }
    whole.push(text.slice(at, end))
    at = end
  }
}

/** A connection of the proxy to the upstream. */
export class UpstreamWire extends Wire {
  /** Resolves with the request of a number (from 0) on this connection, once it is complete. */
  async request(index = 0): Promise<string> {
    const find = (): string | undefined => messages(this.text).whole[index]
    await this.until(`request ${index}`, () => find() !== undefined || this.isClosed)
    const found = find()
    if (found === undefined) throw new Error(`closed before request ${index}: ${JSON.stringify(this.text)}`)
    return found
  }
}

/** An upstream that accepts, captures, and does what a test does with its connections. */
class CaptureUpstream {
  readonly server: Server
  wires: UpstreamWire[] = []
  /** What answers; null: the test does it by hand. Called for each request that is complete. */
  respond: ((wire: UpstreamWire, request: string, index: number) => void) | null = null
  /** Requests that were complete since the last clear(). */
  requests: string[] = []
  #wake: (() => void)[] = []

  constructor() {
    this.server = createServer({ allowHalfOpen: true }, (socket) => {
      const wire = new UpstreamWire(socket)
      this.wires.push(wire)
      let at = 0
      socket.on('data', () => {
        const { text } = wire
        for (let end = messageEnd(text, at); end >= 0; end = messageEnd(text, at)) {
          const request = text.slice(at, end)
          at = end
          // What comes while the test answers by hand stays its business.
          if (this.respond === null) continue
          this.requests.push(request)
          this.respond(wire, request, this.requests.length - 1)
        }
        for (const wake of this.#wake.splice(0)) wake()
      })
      for (const wake of this.#wake.splice(0)) wake()
    })
  }

  async listen(): Promise<this> {
    this.server.listen(0, '127.0.0.1')
    await once(this.server, 'listening')
    return this
  }

  get port(): number {
    return (this.server.address() as AddressInfo).port
  }

  /** The connection of a number (from 0) since the last clear(). */
  async wire(index = 0): Promise<UpstreamWire> {
    await this.until(`connection ${index}`, () => this.wires.length > index)
    return this.wires[index]!
  }

  /** Resolves as soon as `holds`, which is asked at each connection and each read. */
  async until(what: string, holds: () => boolean): Promise<void> {
    const deadline = performance.now() + STUCK_MS
    while (!holds()) {
      const left = deadline - performance.now()
      if (left <= 0) throw new Error(`the upstream waited ${STUCK_MS} ms for ${what}`)
      await new Promise<void>((resolve) => {
        const timer = setTimeout(resolve, left)
        this.#wake.push(() => {
          clearTimeout(timer)
          resolve()
        })
      })
    }
  }

  /** Ends all connections and waits until the proxy knows, so that the next test begins with none. */
  async clear(): Promise<void> {
    this.respond = null
    // A connection that the kernel has accepted belongs to the case that ends, though Node tells of it only now.
    await turns()
    const { wires } = this
    for (const wire of wires) wire.end()
    // The proxy closes each as soon as it sees our FIN, or knows that its client is gone.
    await Promise.all(wires.map((wire) => wire.until('close', () => wire.isClosed)))
    this.wires = []
    this.requests = []
  }

  async close(): Promise<void> {
    for (const wire of this.wires) wire.destroy()
    this.server.close()
  }
}

/** A part of the config that a group of cases changes. */
export type Patch = (config: Omit<ProxyConfig, 'hash'>) => Omit<ProxyConfig, 'hash'>

/** The proxy as a child process, an upstream behind it, and raw clients in front. */
export class Bench {
  readonly upstream: CaptureUpstream
  readonly proxy: ProxyProcess
  readonly port: number
  #clients: Wire[] = []

  constructor(upstream: CaptureUpstream, proxy: ProxyProcess, port: number) {
    this.upstream = upstream
    this.proxy = proxy
    this.port = port
  }

  /** Starts both. Default config: the one of a plain container without retries, every exchange logged. */
  static async start(patch: Patch = (config) => config): Promise<Bench> {
    const upstream = await new CaptureUpstream().listen()
    const port = await freePort()
    const { hash: _, ...plain } = plainConfig({
      namespace: '',
      host: '127.0.0.1',
      port: upstream.port,
      listenPort: port,
      protocol: 'HTTP',
      maxRetries: 0,
      tls: null,
    })
    const config = patch({ ...plain, accessLog: { mode: 'All', sample: 0 } })
    const directory = mkdtempSync(join(tmpdir(), 'ambassador-conformance-'))
    const file = join(directory, 'config.json')
    writeFileSync(file, JSON.stringify(proxyConfig.parse({ ...config, hash: configHash(config) })))
    const proxy = await ProxyProcess.start({ AMBASSADOR_CONFIG: file })
    await proxy.ready()
    rmSync(directory, { recursive: true })
    return new Bench(upstream, proxy, port)
  }

  client(): Wire {
    const wire = new Wire(connect({ host: '127.0.0.1', port: this.port, allowHalfOpen: true }))
    this.#clients.push(wire)
    return wire
  }

  /** Runs `meanwhile` while the proxy stands still, so that everything in it is there before the proxy sees any of it. */
  async frozen(meanwhile: () => Promise<void>): Promise<void> {
    this.proxy.kill('SIGSTOP')
    // The signal takes effect when the kernel says so: until then the proxy may still read what comes.
    while (!/^State:\s+T/m.test(readFileSync(`/proc/${this.proxy.child.pid}/status`, 'latin1'))) {
      await new Promise<void>((resolve) => setImmediate(resolve))
    }
    await meanwhile()
    // Loopback delivers within the call that sends, or right behind it; the turns are for Node to make that call.
    await turns()
    await new Promise<void>((resolve) => setTimeout(resolve, 20))
    await turns()
    this.proxy.kill('SIGCONT')
  }

  /** Resolves when the proxy has nothing left of any exchange: no request under way, no connection to the upstream. */
  async idle(): Promise<void> {
    await this.clear()
    const deadline = performance.now() + STUCK_MS
    for (;;) {
      const { body } = await this.proxy.get('/metrics')
      const values = body
        .split('\n')
        .filter((line) => /^ambassador_requests_active|^ambassador_connections\{/.test(line))
      const left = values.filter((line) => !line.endsWith(' 0'))
      if (values.length > 2 && left.length === 0) return
      if (performance.now() > deadline) throw new Error(`still there: ${left.join(', ')}`)
      await new Promise<void>((resolve) => setTimeout(resolve, 20))
    }
  }

  /** What Host says to the upstream. */
  get host(): string {
    return `127.0.0.1:${this.upstream.port}`
  }

  /** Ends what a case left behind. */
  async clear(): Promise<void> {
    const clients = this.#clients
    this.#clients = []
    for (const client of clients) client.destroy()
    await this.upstream.clear()
  }

  async stop(): Promise<void> {
    for (const client of this.#clients) client.destroy()
    await this.upstream.close()
    this.proxy.kill('SIGKILL')
    await this.proxy.exit
  }
}

const MADE_ID = /X-Request-ID: [0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}\r\n/

/** A captured request without the id that the proxy made. */
export function withoutId(request: string): string {
  return request.replace(MADE_ID, '')
}
