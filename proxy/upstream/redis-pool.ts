/** Connections to one Redis endpoint that are logged in and wait for a session, and the sessions that use one. */
import { now } from '../runtime/clock.ts'
import type { RawSocket, SocketHandler } from '../runtime/raw-socket.ts'
import { CoarseTimer } from '../runtime/timers.ts'
import type { Cluster } from './cluster.ts'
import type { Dial } from './connector.ts'
import type { Endpoint, EndpointPool } from './endpoint.ts'
import { logIn } from './redis/login.ts'

/** Whoever uses a connection to the endpoint. */
export interface PoolMember {
  /** The endpoint is no longer the one to talk to. */
  onEndpointRetired(): void
  /** Nothing more may be sent to it for now, or it may again. */
  onEndpointHalted(): void
  /** Whatever is under way ends now. @param why for a person */
  onEndpointCut(why: string): void
  destroy(): void
}

/** Connections that are kept ready, and how long after the last one was wanted. */
const SPARES = 2
const WANTED_MS = 30_000

export class RedisPool implements EndpointPool {
  readonly #cluster: Cluster
  readonly #endpoint: Endpoint
  readonly #spares: Spare[] = []
  readonly #dials = new Set<Dial>()
  readonly #members = new Set<PoolMember>()
  readonly #timer: CoarseTimer
  #isRetired = false

  constructor(cluster: Cluster, endpoint: Endpoint) {
    this.#cluster = cluster
    this.#endpoint = endpoint
    this.#timer = new CoarseTimer(() => this.#dropSpares())
  }

  /** The pool of an endpoint, made at its first use. */
  static of(cluster: Cluster, endpoint: Endpoint): RedisPool {
    const { pool } = endpoint
    if (pool instanceof RedisPool) return pool
    const made = new RedisPool(cluster, endpoint)
    endpoint.pool = made
    return made
  }

  /** Connections that wait. */
  get spares(): number {
    return this.#spares.length
  }

  /**
   * A connection that is logged in, with the slot of the cluster that it holds; null when none waits. It is the one that has waited
   * longest: the others would wait on for as long as somebody comes, and something between may forget them without a word.
   */
  take(): RawSocket | null {
    const line = this.#cluster.login?.credential?.line ?? null
    for (;;) {
      const spare = this.#spares.shift()
      if (spare === undefined) return null
      const raw = spare.take(line)
      if (raw !== null) return raw
      this.#cluster.connections.release()
    }
  }

  /** Closes one, so that its slot can be used elsewhere; false when none waits. */
  evict(): boolean {
    const spare = this.#spares.shift()
    if (spare === undefined) return false
    spare.destroy()
    this.#cluster.connections.release()
    return true
  }

  join(member: PoolMember): void {
    this.#members.add(member)
  }

  leave(member: PoolMember): void {
    this.#members.delete(member)
  }

  /** Somebody has just taken a connection: has the next ones ready. Never more than a quarter of what the upstream may have. */
  replenish(timeoutMs: number): void {
    this.#timer.set(now() + WANTED_MS)
    this.#fill(timeoutMs)
  }

  #fill(timeoutMs: number): void {
    const { connections } = this.#cluster
    while (
      !this.#isRetired &&
      this.#spares.length + this.#dials.size < SPARES &&
      connections.used < connections.max * 0.75 &&
      connections.tryAcquire()
    ) {
      this.#dialOne(timeoutMs)
    }
  }

  #dialOne(timeoutMs: number): void {
    const { tls, login, connections } = this.#cluster
    if (login === null || (tls !== null && tls.context === null)) {
      connections.release()
      return
    }
    const { line = null } = login.credential ?? {}
    const started = logIn(
      {
        address: this.#endpoint,
        tls,
        alpn: null,
        timeoutMs,
        guard: this.#cluster.guard,
        proxyProtocol: this.#cluster.config.proxyProtocol ?? null,
      },
      login,
      {
        onLoggedIn: (raw) => {
          this.#dials.delete(started)
          this.#spares.push(new Spare(raw, line, this))
        },
        // Whoever needs a connection finds out for itself, and tells.
        onLoginFailed: () => {
          this.#dials.delete(started)
          connections.release()
        },
      },
    )
    this.#dials.add(started)
  }

  /** Only for Spare: it was closed by the server. */
  onSpareClosed(spare: Spare): void {
    const at = this.#spares.indexOf(spare)
    if (at < 0) return
    this.#spares.splice(at, 1)
    this.#cluster.connections.release()
  }

  /** What logs in from now on does so with another credential: those that wait for somebody are made anew. */
  credentialChanged(timeoutMs: number): void {
    this.#dropSpares()
    this.#dropDials()
    if (this.#timer.at !== Number.POSITIVE_INFINITY) this.#fill(timeoutMs)
  }

  #dropSpares(): void {
    while (this.evict()) {}
  }

  retire(): void {
    if (this.#isRetired) return
    this.#isRetired = true
    this.#stop()
    for (const member of [...this.#members]) member.onEndpointRetired()
  }

  cut(why: string): void {
    this.#dropSpares()
    for (const member of [...this.#members]) member.onEndpointCut(why)
  }

  halt(): void {
    for (const member of [...this.#members]) member.onEndpointHalted()
  }

  destroy(): void {
    this.#isRetired = true
    this.#stop()
    for (const member of [...this.#members]) member.destroy()
  }

  #stop(): void {
    this.#timer.release()
    this.#dropSpares()
    this.#dropDials()
  }

  #dropDials(): void {
    for (const each of this.#dials) {
      each.cancel()
      this.#cluster.connections.release()
    }
    this.#dials.clear()
  }
}

/** A connection that waits: whatever comes on it makes it useless. */
class Spare implements SocketHandler {
  readonly #raw: RawSocket
  /** What it logged in with. */
  readonly line: Buffer | null
  readonly #pool: RedisPool

  constructor(raw: RawSocket, line: Buffer | null, pool: RedisPool) {
    this.#raw = raw
    this.line = line
    this.#pool = pool
    raw.handler = this
  }

  /** Null, and then it is closed: it has ended, or logged in with another credential than `line`. */
  take(line: Buffer | null): RawSocket | null {
    const raw = this.#raw
    if (!raw.destroyed && !raw.ended && this.line === line) return raw
    raw.destroy()
    return null
  }

  destroy(): void {
    this.#raw.destroy()
  }

  onData(): void {
    this.#end()
  }

  onEnd(): void {
    this.#end()
  }

  onDrain(): void {}

  onClose(): void {
    this.#end()
  }

  #end(): void {
    this.#raw.destroy()
    this.#pool.onSpareClosed(this)
  }
}

/** Closes a waiting connection of any endpoint of a cluster whose slots are all taken; false when none waits. */
export function evictSpare(cluster: Cluster): boolean {
  for (const { pool } of cluster.endpoints) if (pool instanceof RedisPool && pool.evict()) return true
  return false
}
