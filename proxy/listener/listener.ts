/** A data port: bound on 127.0.0.1 and [::1] and on nothing else, whatever the config says. */
import { type Accepted, isWithoutIpv6, type ListeningSocket, listenAt } from '../runtime/listen.ts'

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

export class Listener {
  readonly port: number
  #serve: (accepted: Accepted) => void
  readonly #onError: (error: Error) => void
  readonly #sockets: ListeningSocket[] = []

  /**
   * `serve` takes over each accepted connection, as proxy/protocol/driver.ts says. `onError` is told when a connection could not be
   * accepted (no file descriptors left); the next one may be.
   */
  constructor(port: number, serve: (accepted: Accepted) => void, onError: (error: Error) => void = () => {}) {
    this.port = port
    this.#serve = serve
    this.#onError = onError
  }

  /** Addresses that are bound now, for people. */
  get addresses(): readonly string[] {
    return this.#sockets.map(({ name }) => name?.address ?? '')
  }

  /**
   * Binds both addresses, or the one of IPv4 where the kernel has no IPv6. On an error nothing is left bound.
   * @throws {PortInUseError} when a process of the pod has the port
   * @throws {BindError} for any other reason (a privileged port without the right to it)
   */
  async bind(): Promise<void> {
    for (const address of LOOPBACK) {
      try {
        const where = { port: this.port, host: address, backlog: BACKLOG, ipv6Only: true }
        this.#sockets.push(listenAt(where, (accepted) => this.#serve(accepted), this.#onError))
      } catch (error) {
        const { code } = error as NodeJS.ErrnoException
        if (address === '::1' && isWithoutIpv6(error)) continue
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
  handOver(serve: (accepted: Accepted) => void): void {
    this.#serve = serve
  }

  /** Accepts no more. Connections that were accepted live on. Resolves when the port is free. Idempotent. */
  async close(): Promise<void> {
    for (const socket of this.#sockets.splice(0)) socket.close()
    // The handle is gone a tick later.
    await new Promise((resolve) => setImmediate(resolve))
  }
}
