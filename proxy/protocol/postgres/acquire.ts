/** Gets a client its connection to the server: one that is free, or a new one; until then it waits, and is told so. */
import type { Reason } from '../../../common/reasons.ts'
import type { Bulkhead, Waiter } from '../../policy/bulkhead.ts'
import { now, refreshClock } from '../../runtime/clock.ts'
import type { CoarseTimer } from '../../runtime/timers.ts'
import type { ConnectFailed, Connecting } from './connecting.ts'
import type { Pool, PoolClient } from './pool.ts'
import { notice } from './respond.ts'
import type { Server, ServerUser } from './server.ts'
import type { SessionHost } from './session-host.ts'

/** A person that waits is told why after this time, or after half of the time that the wait may take. */
const NOTICE_MS = 5000
/** A failed connection is tried again after this time, while a client waits. */
const AGAIN_MS = 200

/** Whose connection it is to be. */
export interface Acquirer extends ServerUser {
  /** What it wants one of. */
  readonly pool: Pool
  /** The client was let in: it waits for its request and not for its login. */
  readonly isIn: boolean
  /** Nothing is wanted any more. */
  readonly isOver: boolean
  onAcquired(server: Server): void
  /** @param response the server's own words; null: ours are made of the reason */
  onNotAcquired(reason: Reason, detail: string, response: Buffer | null): void
  /** Connections were tried, and none was made. */
  onTried(endpoint: string | null, attempts: number): void
  /** It is time to take() again. */
  onAgain(): void
}

/** A client has one for its lifetime: start(), then take(), until end() or cancel(). */
export class Acquisition implements PoolClient {
  nextWaiter: Waiter | null = null
  previousWaiter: Waiter | null = null
  waitsAt: Bulkhead | null = null
  connecting: Connecting | null = null
  readonly #acquirer: Acquirer
  readonly #host: SessionHost
  /** The client's: it wakes this one while isOn. */
  readonly #timer: CoarseTimer
  #since = 0
  #isTold = false

  constructor(acquirer: Acquirer, host: SessionHost, timer: CoarseTimer) {
    this.#acquirer = acquirer
    this.#host = host
    this.#timer = timer
  }

  get pool(): Pool {
    return this.#acquirer.pool
  }

  /** One is wanted. */
  get isOn(): boolean {
    return this.#since > 0
  }

  start(): void {
    this.#since = now()
  }

  /** Returns how many milliseconds that took. */
  end(): number {
    const waitedMs = this.#since === 0 ? 0 : now() - this.#since
    this.#since = 0
    this.#isTold = false
    return waitedMs
  }

  /** A free one. Null: the acquirer hears of it later. */
  take(): Server | null {
    const { isIn, pool } = this.#acquirer
    const server = pool.take(this, this.#acquirer)
    if (server !== null) return server
    const limitMs = this.#limitMs
    const isToBeTold = isIn && !this.#isTold
    this.#timer.set(this.#since + (isToBeTold ? Math.min(NOTICE_MS, limitMs / 2) : limitMs))
    return null
  }

  cancel(): void {
    this.#acquirer.pool.cancel(this)
  }

  /** A client that is to be let in waits in the queue like every other, and for a server to answer as long as for any. */
  get #limitMs(): number {
    const { pooling, timeouts } = this.#host.snapshot
    if (!this.#acquirer.isIn && this.connecting !== null) return timeouts.connectMs * 3
    return pooling?.queueTimeoutMs ?? timeouts.connectMs
  }

  onSlot(): void {
    this.#acquirer.pool.connect(this)
  }

  onServer(server: Server): void {
    refreshClock()
    if (this.#acquirer.isOver) this.#acquirer.pool.give(server)
    else this.#acquirer.onAcquired(server)
  }

  onNoServer(failure: ConnectFailed | 'queue full'): void {
    const acquirer = this.#acquirer
    if (acquirer.isOver) return
    const { cluster, pooling, timeouts } = this.#host.snapshot
    if (failure === 'queue full') {
      const { max, pending } = cluster.connections
      const detail = `upstream '${cluster.name}' has ${max} connections and ${pending} clients wait for one`
      acquirer.onNotAcquired('queue_full', detail, null)
      return
    }
    acquirer.onTried(failure.endpoint, failure.attempts)
    const limitMs = acquirer.isIn ? (pooling?.queueTimeoutMs ?? timeouts.connectMs) : timeouts.connectMs
    // The server may be restarting, or another one is being promoted.
    if (!failure.isFinal && now() + AGAIN_MS < this.#since + limitMs) this.#timer.set(now() + AGAIN_MS)
    else acquirer.onNotAcquired(failure.reason, failure.detail, failure.response)
  }

  /** The timer has woken: there is something to say, to try again or to give up. */
  onTimer(): void {
    const acquirer = this.#acquirer
    const { connections, name } = this.#host.snapshot.cluster
    const waitsInQueue = this.waitsAt !== null
    if (!waitsInQueue && this.connecting === null) {
      acquirer.onAgain()
      return
    }
    const limitMs = this.#limitMs
    const deadline = this.#since + limitMs
    if (now() < deadline) {
      if (waitsInQueue && acquirer.isIn && !this.#isTold) {
        this.#isTold = true
        const text = `waiting for one of the ${connections.max} connections of upstream '${name}'`
        acquirer.client.write(
          notice(text, 'ambassador: limits.maxConnections and postgres.pooling.queueTimeout decide'),
        )
      }
      this.#timer.set(deadline)
      return
    }
    const detail = waitsInQueue
      ? `none of the ${connections.max} connections of upstream '${name}' became free in ${limitMs} ms`
      : `upstream '${name}' did not let the sidecar in within ${limitMs} ms`
    this.cancel()
    acquirer.onNotAcquired(waitsInQueue ? 'queue_full' : 'connect_timeout', detail, null)
  }
}
