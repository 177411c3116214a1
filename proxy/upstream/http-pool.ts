/** Keep-alive connections to one endpoint: given out newest first, closed before the server closes them, bounded by the cluster. */
import type { Bulkhead } from '../policy/bulkhead.ts'
import { SMALL_READ_BUFFER } from '../runtime/buffers.ts'
import { now } from '../runtime/clock.ts'
import type { RawSocket, SocketHandler } from '../runtime/raw-socket.ts'
import { CoarseTimer, type TimerOwner } from '../runtime/timers.ts'
import { CloseHabit } from './close-habit.ts'
import type { Cluster } from './cluster.ts'
import { type Dial, type DialFailure, type Dialler, type DialTimes, dial, withoutDot } from './connector.ts'
import type { Address } from './discovery/discovery.ts'
import type { Endpoint, EndpointPool } from './endpoint.ts'
import { takerOf } from './handover.ts'

/** How long a connection stays idle when the server does not say how long it waits: below the 5 s of Node's own servers. */
export const IDLE_MS = 4_000
/** The server's own time (`Keep-Alive: timeout=N`) less this; a request that is sent in the last second may meet its FIN. */
const IDLE_MARGIN_MS = 1_000
const MAX_IDLE_MS = 60_000
/** A connection is not used again after this time (so that load follows DNS and rotated certificates), give or take a tenth, unless the limits say another. */
const MAX_AGE_MS = 600_000
/** Requests on one connection, unless the limits say another. */
const MAX_REQUESTS = 10_000

/** What uses a connection, from the moment that it is given out until it gives it back or it closes. */
export interface ConnectionUser {
  onUpstreamData(chunk: Buffer, length: number): void
  onUpstreamEnd(): void
  onUpstreamDrain(): void
  /** The connection is gone, and is no user's any more. */
  onUpstreamClose(error: Error | null): void
}

/** What a connection is dialled for. */
export interface ConnectionCaller {
  /** The connection may be one to another endpoint of the host. */
  onDialled(connection: UpstreamConnection, times: DialTimes): void
  onDialFailed(failure: DialFailure): void
}

/** One connection to the endpoint of its pool. */
export class UpstreamConnection implements SocketHandler, TimerOwner {
  readonly pool: HttpPool
  readonly raw: RawSocket
  /** Requests sent on it, the one under way included. */
  requests = 0
  #user: ConnectionUser | null = null
  readonly #expiresAt: number
  readonly #maxRequests: number
  #idleUntil = 0
  /** Since when it rests, or rested before the request under way. */
  #restsSince = 0
  /** How long it rested before the request under way. */
  restedMs = 0
  readonly #idleTimer: CoarseTimer

  constructor(pool: HttpPool, raw: RawSocket) {
    this.pool = pool
    this.raw = raw
    raw.handler = this
    const { maxConnectionAgeMs: maxAgeMs = MAX_AGE_MS, maxConnectionRequests = MAX_REQUESTS } =
      pool.cluster.config.limits
    this.#expiresAt = maxAgeMs === null ? Number.POSITIVE_INFINITY : now() + maxAgeMs * (0.9 + 0.2 * Math.random())
    this.#maxRequests = Math.ceil(maxConnectionRequests * (0.9 + 0.1 * Math.random()))
    this.#idleTimer = new CoarseTimer(this)
  }

  /** Takes it into use for one request. */
  use(user: ConnectionUser): void {
    this.#user = user
    this.restedMs = now() - this.#restsSince
    this.#idleTimer.clear()
    this.requests++
  }

  /** Ends the use, and the connection: what is on it belongs to nobody any more. Its slot is free at once. */
  destroy(): void {
    this.#user = null
    this.#idleTimer.release()
    this.raw.destroy()
    this.pool.onClosed(this)
  }

  /** It has rested for long enough. */
  onTimer(): void {
    this.destroy()
  }

  /** Takes the socket out of the pool for good, for a tunnel; its slot is freed by released(). */
  detach(): RawSocket {
    this.#user = null
    this.#idleTimer.release()
    this.pool.forget(this)
    return this.raw
  }

  /** May wait for the next request; the pool asks. */
  rest(time: number, serverSeconds: number): boolean {
    this.#user = null
    const idleMs = serverSeconds < 0 ? IDLE_MS : Math.min(MAX_IDLE_MS, serverSeconds * 1000 - IDLE_MARGIN_MS)
    const isUsable =
      idleMs > 0 &&
      this.requests < this.#maxRequests &&
      time < this.#expiresAt &&
      this.raw.backlog === 0 &&
      !this.raw.ended
    if (!isUsable || this.raw.destroyed) return false
    // A slow client may have had it paused at the end of the response; paused, it would miss the server's FIN.
    this.raw.resume()
    this.#restsSince = time
    this.#idleUntil = Math.min(time + idleMs, this.#expiresAt)
    this.#idleTimer.set(this.#idleUntil)
    return true
  }

  isFresh(time: number): boolean {
    return time < this.#idleUntil && !this.raw.destroyed
  }

  /** How long it has rested. */
  restMs(time: number): number {
    return time - this.#restsSince
  }

  #closedByServer(): void {
    this.pool.onStale(this.restMs(now()))
  }

  onData(chunk: Buffer, length: number): void {
    // Nobody asked: an answer without a request would be taken for the answer to the next one.
    if (this.#user === null) this.destroy()
    else this.#user.onUpstreamData(chunk, length)
  }

  onEnd(): void {
    if (this.#user === null) {
      this.#closedByServer()
      this.destroy()
    } else this.#user.onUpstreamEnd()
  }

  onDrain(): void {
    this.#user?.onUpstreamDrain()
  }

  onClose(error: Error | null): void {
    const user = this.#user
    if (user === null && error !== null) this.#closedByServer()
    this.#user = null
    this.#idleTimer.release()
    this.pool.onClosed(this)
    user?.onUpstreamClose(error)
  }
}

/** A dial under way, which holds a slot of the cluster until it fails. */
class PoolDial implements Dial, Dialler {
  readonly #pool: HttpPool
  readonly #caller: ConnectionCaller
  readonly #dial: Dial
  #isOver = false

  constructor(pool: HttpPool, caller: ConnectionCaller, timeoutMs: number) {
    this.#pool = pool
    this.#caller = caller
    const { endpoint, cluster } = pool
    this.#dial = dial(
      {
        address: endpoint,
        guard: cluster.guard,
        rival: cluster.rivalOf(endpoint, now()),
        tls: cluster.tls,
        alpn: ALPN,
        proxyProtocol: cluster.config.proxyProtocol ?? null,
        timeoutMs,
        readBuffer: SMALL_READ_BUFFER,
      },
      this,
    )
  }

  onDialled(raw: RawSocket, times: DialTimes, address: Address): void {
    this.#isOver = true
    this.#caller.onDialled(this.#pool.onDialled(this, raw, address), times)
  }

  onDialFailed(failure: DialFailure): void {
    this.#end()
    this.#caller.onDialFailed(failure)
  }

  cancel(): void {
    if (this.#isOver) return
    this.#dial.cancel()
    this.#end()
  }

  #end(): void {
    this.#isOver = true
    this.#pool.onDialEnd(this)
  }
}

const ALPN = ['http/1.1'] as const

export class HttpPool implements EndpointPool {
  readonly cluster: Cluster
  readonly endpoint: Endpoint
  /** What Host says to this endpoint: its configured name, with the port unless it is the default one. */
  readonly host: Buffer
  /** Newest last. */
  readonly #idle: UpstreamConnection[] = []
  readonly #open = new Set<UpstreamConnection>()
  readonly #dials = new Set<PoolDial>()
  #isRetired = false
  readonly #habit = new CloseHabit()

  constructor(cluster: Cluster, endpoint: Endpoint) {
    this.cluster = cluster
    this.endpoint = endpoint
    this.host = Buffer.from(hostOf(endpoint, cluster.tls !== null), 'latin1')
  }

  /** The pool of an endpoint, made at its first use. */
  static of(cluster: Cluster, endpoint: Endpoint): HttpPool {
    const { pool } = endpoint
    if (pool instanceof HttpPool) return pool
    const made = new HttpPool(cluster, endpoint)
    endpoint.pool = made
    return made
  }

  get idle(): number {
    return this.#idle.length
  }

  get open(): number {
    return this.#open.size
  }

  /** Open ones and those that are being made. */
  get connections(): number {
    return this.#open.size + this.#dials.size
  }

  /**
   * An idle connection, the one that was used last; null when there is none.
   * @param isRepeatable the request may be sent again when the connection turns out to be closed; one that may not gets none that its
   *   server is known to close about now
   */
  take(time: number, isRepeatable = true): UpstreamConnection | null {
    if (!isRepeatable) return this.#takeSafe(time)
    for (;;) {
      const connection = this.#idle.pop()
      if (connection === undefined) return null
      if (connection.isFresh(time)) return connection
      connection.destroy()
    }
  }

  #takeSafe(time: number): UpstreamConnection | null {
    for (let at = this.#idle.length - 1; at >= 0; at--) {
      const connection = this.#idle[at]!
      if (!connection.isFresh(time) || this.#habit.isRisky(connection.restMs(time), time)) continue
      this.#idle.splice(at, 1)
      return connection
    }
    return null
  }

  /** The server closed a connection that it had left open behind an answer. @param afterMs after that answer */
  onStale(afterMs: number): void {
    this.#habit.saw(afterMs, now())
  }

  /** Dials for a caller, which has acquired a slot of the cluster for it. */
  connect(caller: ConnectionCaller, timeoutMs: number): Dial {
    const started = new PoolDial(this, caller, timeoutMs)
    this.#dials.add(started)
    return started
  }

  /**
   * Ends a use in order: the response is complete and was the last byte that came. The connection goes to a request that waits,
   * or rests.
   * @param serverSeconds of `Keep-Alive: timeout`; -1: not said
   */
  giveBack(connection: UpstreamConnection, serverSeconds: number): void {
    const isTooMany = this.#slots.used > this.#slots.max
    if (this.#isRetired || isTooMany || !connection.rest(now(), serverSeconds)) {
      connection.destroy()
      return
    }
    if (this.#slots.pending === 0) {
      this.#idle.push(connection)
      return
    }
    const taker = takerOf(connection, this.#slots)
    if (taker === null) {
      // Whoever goes on waiting waits for its slot: resting, it would hold that for seconds.
      connection.destroy()
      return
    }
    this.#slots.cancel(taker)
    taker.onIdleConnection(connection)
  }

  /** Closes the connection that has been idle longest, so that its slot can be used elsewhere; false when there is none. */
  evict(): boolean {
    const oldest = this.#idle.shift()
    oldest?.destroy()
    return oldest !== undefined
  }

  retire(): void {
    this.#isRetired = true
    for (const connection of this.#idle.splice(0)) connection.destroy()
  }

  destroy(): void {
    this.retire()
    for (const each of [...this.#dials]) each.cancel()
    for (const connection of [...this.#open]) connection.destroy()
  }

  /** As destroy(), but whoever uses a connection hears of its end. */
  cut(why: string): void {
    this.retire()
    for (const { raw } of [...this.#open]) raw.destroy(new Error(why))
  }

  get #slots(): Bulkhead {
    return this.cluster.connections
  }

  /** Only for PoolDial. */
  onDialled(from: PoolDial, raw: RawSocket, address: Address): UpstreamConnection {
    this.#dials.delete(from)
    // Another address of the host may have been quicker to accept.
    const pool = address === this.endpoint ? this : HttpPool.of(this.cluster, address as Endpoint)
    const connection = new UpstreamConnection(pool, raw)
    pool.#open.add(connection)
    return connection
  }

  /** Only for PoolDial. */
  onDialEnd(from: PoolDial): void {
    this.#dials.delete(from)
    this.#slots.release()
  }

  /** Only for UpstreamConnection. */
  onClosed(connection: UpstreamConnection): void {
    if (!this.#open.delete(connection)) return
    const at = this.#idle.indexOf(connection)
    if (at >= 0) this.#idle.splice(at, 1)
    this.#slots.release()
  }

  /** The socket lives on outside the pool; its new owner calls released() when it has closed. */
  forget(connection: UpstreamConnection): void {
    this.#open.delete(connection)
  }

  released(): void {
    this.#slots.release()
  }
}

/** Closes an idle connection of any endpoint of a cluster whose slots are all taken; false when none is idle. */
export function evictIdle(cluster: Cluster): boolean {
  for (const { pool } of cluster.endpoints) if (pool instanceof HttpPool && pool.evict()) return true
  return false
}

function hostOf(endpoint: Endpoint, isTls: boolean): string {
  const host = endpoint.host.includes(':') ? `[${endpoint.host}]` : withoutDot(endpoint.host)
  if (endpoint.port === 0) return host
  return endpoint.port === (isTls ? 443 : 80) ? host : `${host}:${endpoint.port}`
}
