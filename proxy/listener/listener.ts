/** A data port: bound on 127.0.0.1 and [::1] and on nothing else, whatever the config says. */
import { createServer, type Server, type Socket } from 'node:net'
import { listenAt } from '../runtime/listen.ts'
import { LISTEN_OPTIONS } from '../runtime/raw-socket.ts'

/** The port is taken. */
export class PortInUseError extends Error {
  override readonly name = 'PortInUseError'
  readonly port: number

  /** `address` null: on every address. `owner` says who has it. */
  constructor(port: number, address: string | null, owner: string) {
    super(
      `port ${port}${address === null ? '' : ` on ${address}`} is in use by ${owner}, give one of the two another port`,
    )
    this.port = port
  }
}

/** The port cannot be bound for another reason. */
export class BindError extends Error {
  override readonly name = 'BindError'
}

/** Connections that wait in the kernel to be accepted; an event loop that is busy for a moment must not refuse anybody. */
export const BACKLOG = 1024

const LOOPBACK = ['127.0.0.1', '::1'] as const

/** Codes of a kernel without IPv6, or with it turned off. */
const NO_IPV6 = new Set(['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EINVAL'])

export class Listener {
  readonly port: number
  #serve: (socket: Socket) => void
  readonly #onError: (error: Error) => void
  readonly #servers: Server[] = []

  /**
   * `serve` takes over each accepted socket, as proxy/protocol/driver.ts says. `onError` is told when a connection could not be
   * accepted (no file descriptors left); the next one may be.
   */
  constructor(port: number, serve: (socket: Socket) => void, onError: (error: Error) => void = () => {}) {
    this.port = port
    this.#serve = serve
    this.#onError = onError
  }

  /** Addresses that are bound now, for people. */
  get addresses(): readonly string[] {
    return this.#servers.map((server) => {
      const address = server.address()
      return typeof address === 'object' && address !== null ? address.address : ''
    })
  }

  /**
   * Binds both addresses, or the one of IPv4 where the kernel has no IPv6. On an error nothing is left bound.
   * @throws {PortInUseError} when a process of the pod has the port
   * @throws {BindError} for any other reason (a privileged port without the right to it)
   */
  async bind(): Promise<void> {
    for (const address of LOOPBACK) {
      const server = createServer(LISTEN_OPTIONS, (socket) => this.#serve(socket))
      try {
        await listenAt(server, { port: this.port, host: address, backlog: BACKLOG, ipv6Only: true })
        server.on('error', this.#onError)
        this.#servers.push(server)
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException
        if (address === '::1' && NO_IPV6.has(code ?? '')) continue
        await this.close()
        if (code === 'EADDRINUSE') throw new PortInUseError(this.port, address, 'another process of this pod')
        if (code === 'EACCES') {
          throw new BindError(`port ${this.port} needs a privilege that this container lacks, use 1024 to 65535`)
        }
        throw new BindError(`port ${this.port} on ${address} cannot be bound: ${(error as Error).message}`)
      }
    }
  }

  /** Connections from now on go to another driver; those that are open stay with theirs. */
  handOver(serve: (socket: Socket) => void): void {
    this.#serve = serve
  }

  /** Accepts no more. Connections that were accepted live on. Resolves when the port is free. Idempotent. */
  async close(): Promise<void> {
    const servers = this.#servers.splice(0)
    for (const server of servers) server.close()
    // close() of a Server tells its callback only when the last connection has ended; the handle is gone a tick later.
    await new Promise((resolve) => setImmediate(resolve))
  }
}
