/** A small HTTP server for the sidecar's own two ports: fixed paths, short answers, bounded in every direction. */
import { type Accepted, isWithoutIpv6, type ListeningSocket, listenAt } from '../runtime/listen.ts'
import { HttpServerConnection } from './http-server-connection.ts'

export interface Answer {
  readonly status: number
  /** Default text/plain. */
  readonly type?: string
  readonly headers?: Readonly<Record<string, string>>
  readonly body: string
}

export type Method = 'GET' | 'POST' | 'PUT'

/** Gets the body as text (empty for GET), what follows the question mark in the request target, and Accept (empty when there is none). */
export type Handler = (body: string, query: string, accept: string) => Answer

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
  readonly #sockets: ListeningSocket[] = []
  readonly #connections = new Set<HttpServerConnection>()
  /** Connections that are not closed, those included that were told to. */
  #open = 0
  /** Who waits for the last of them. */
  #onEmpty: (() => void) | null = null

  constructor(options: HttpServerOptions) {
    this.#options = options
  }

  /** The port that is bound; 0 before listen(). */
  get port(): number {
    return this.#sockets[0]?.name?.port ?? 0
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
        this.#bind(port, '127.0.0.1')
        this.#bindIpv6(this.port, '::1')
      } else if (!this.#bindIpv6(port, '::')) this.#bind(port, '0.0.0.0')
    } catch (error) {
      await this.close()
      const { code, message } = error as NodeJS.ErrnoException
      const why = code === 'EADDRINUSE' ? 'is in use by another process of this pod' : `cannot be bound: ${message}`
      throw new ServerPortError(`${what}: port ${port} ${why}, use another port`)
    }
  }

  /** Accepts no more and cuts what is open. Idempotent. */
  async close(): Promise<void> {
    for (const socket of this.#sockets.splice(0)) socket.close()
    for (const connection of this.#connections) connection.destroy()
    if (this.#open > 0) await new Promise<void>((resolve) => (this.#onEmpty = resolve))
  }

  #bind(port: number, host: string): void {
    const where = { port, host, ipv6Only: host === '::1' }
    // An accept that fails must not end the process; whoever asked will ask again.
    const onError = (): void => {}
    this.#sockets.push(listenAt(where, (accepted) => this.#serve(accepted), onError))
  }

  /** `::` takes the addresses of both families. @returns false when the kernel has no IPv6, or has it turned off */
  #bindIpv6(port: number, host: '::' | '::1'): boolean {
    try {
      this.#bind(port, host)
      return true
    } catch (error) {
      if (isWithoutIpv6(error)) return false
      throw error
    }
  }

  #serve(accepted: Accepted): void {
    if (this.#connections.size >= MAX_CONNECTIONS) this.#closeOldest()
    const connection = new HttpServerConnection(accepted, this.#options, () => this.#onGone(connection))
    this.#connections.add(connection)
    this.#open++
  }

  #onGone(connection: HttpServerConnection): void {
    this.#connections.delete(connection)
    if (--this.#open === 0) this.#onEmpty?.()
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
