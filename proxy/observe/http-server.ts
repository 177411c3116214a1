/** A small HTTP server for the sidecar's own two ports: fixed paths, short answers, bounded in every direction. */
import { createServer, type Server } from 'node:net'
import { listenAt } from '../runtime/listen.ts'
import { LISTEN_OPTIONS } from '../runtime/raw-socket.ts'
import { HttpServerConnection } from './http-server-connection.ts'

export interface Answer {
  readonly status: number
  /** Default text/plain. */
  readonly type?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body: string
}

export type Method = 'GET' | 'POST' | 'PUT'

/** Gets the body as text (empty for GET) and what follows the question mark in the request target. */
export type Handler = (body: string, query: string) => Answer

/** Path → method → handler. HEAD is answered wherever GET is. */
export type Routes = Readonly<Record<string, Partial<Record<Method, Handler>>>>

/** What a guard may look at. */
export interface Asked {
  readonly method: string
  /** The value of a field by its lower-case name, those of a repeated one with commas between; undefined when it is not there. */
  field(name: string): string | undefined
}

export interface HttpServerOptions {
  readonly routes: Routes
  /** Refuses a request before anything else looks at it. */
  readonly guard?: (asked: Asked) => Answer | null
}

/** The port cannot be bound. */
export class ServerPortError extends Error {
  override readonly name = 'ServerPortError'
}

/** One more closes the oldest: whoever holds connections open must not keep kubelet out. */
const MAX_CONNECTIONS = 64

/**
 * Speaks HTTP by the codec of the data path, which is as strict and there anyway: with Node's own server each sidecar would carry
 * half a megabyte more.
 */
export class HttpServer {
  readonly #options: HttpServerOptions
  readonly #servers: Server[] = []
  readonly #connections = new Set<HttpServerConnection>()

  constructor(options: HttpServerOptions) {
    this.#options = options
  }

  /** The port that is bound; 0 before listen(). */
  get port(): number {
    const address = this.#servers[0]?.address()
    return typeof address === 'object' && address !== null ? address.port : 0
  }

  /**
   * Binds `port` (0: a free one): `any` on all addresses, `loopback` on 127.0.0.1 and ::1; without IPv6 in the kernel on those of
   * IPv4 alone.
   * @param what whose port it is, for the message
   * @throws {ServerPortError} when the port is taken or cannot be bound
   */
  async listen(port: number, scope: 'any' | 'loopback', what: string): Promise<void> {
    try {
      if (scope === 'loopback') {
        await this.#bind(port, '127.0.0.1')
        await this.#bind(this.port, '::1').catch(onlyWithoutIpv6)
      } else {
        // `::` takes the addresses of both families.
        await this.#bind(port, '::').catch((error: NodeJS.ErrnoException) => {
          onlyWithoutIpv6(error)
          return this.#bind(port, '0.0.0.0')
        })
      }
    } catch (error) {
      await this.close()
      const { code, message } = error as NodeJS.ErrnoException
      const why = code === 'EADDRINUSE' ? 'is in use by another process of this pod' : `cannot be bound: ${message}`
      throw new ServerPortError(`${what}: port ${port} ${why}, use another port`)
    }
  }

  /** Accepts no more and cuts what is open. Idempotent. */
  async close(): Promise<void> {
    const closed = this.#servers.splice(0).map((server) => new Promise((resolve) => server.close(resolve)))
    for (const connection of this.#connections) connection.destroy()
    await Promise.all(closed)
  }

  async #bind(port: number, host: string): Promise<void> {
    const server = this.#create()
    await listenAt(server, { port, host, ipv6Only: host === '::1' })
    // An accept that fails must not end the process; whoever asked will ask again.
    server.on('error', () => {})
    this.#servers.push(server)
  }

  #create(): Server {
    return createServer(LISTEN_OPTIONS, (socket) => {
      if (this.#connections.size >= MAX_CONNECTIONS) this.#closeOldest()
      const connection = new HttpServerConnection(socket, this.#options, () => this.#connections.delete(connection))
      this.#connections.add(connection)
    })
  }

  #closeOldest(): void {
    for (const oldest of this.#connections) {
      // Its place is free from now on, though its close is told later.
      this.#connections.delete(oldest)
      oldest.destroy()
      return
    }
  }
}

/** Swallows the errors of a kernel without IPv6, or with it turned off. */
function onlyWithoutIpv6(error: NodeJS.ErrnoException): void {
  if (!['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EINVAL'].includes(error.code ?? '')) throw error
}
