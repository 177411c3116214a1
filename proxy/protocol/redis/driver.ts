/** Serves the connections of a Redis listener: each is a session of its own over one connection to a server. */
import type { Socket } from 'node:net'
import { now, refreshClock } from '../../runtime/clock.ts'
import { adopt } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import { RedisPool } from '../../upstream/redis-pool.ts'
import type { Driver } from '../driver.ts'
import { RedisCells } from './cells.ts'
import { type RedisEnd, type RedisRecord, RedisSession } from './session.ts'
import type { RedisSnapshot } from './snapshot.ts'

export interface RedisDriverOptions {
  readonly snapshot: RedisSnapshot
  /** Told of each connection that the access log wants, when it has ended. */
  readonly onLogged?: (record: RedisRecord) => void
  /** Told of what a person should see: a connection that failed for DNS, TLS, a refused connect or login. */
  readonly onTrouble?: (reason: string, detail: string) => void
  /** For the sample of the access log. */
  readonly random?: () => number
}

/** Counts since the start, for metrics. */
export interface RedisTotals {
  readonly ends: Readonly<Partial<Record<RedisEnd, number>>>
  /** Bytes from the application and to it, those of open connections included. */
  readonly bytesIn: number
  readonly bytesOut: number
}

const ORDERLY: ReadonlySet<RedisEnd> = new Set<RedisEnd>(['client_closed', 'upstream_closed', 'idle_timeout'])
const TROUBLE: ReadonlySet<RedisEnd> = new Set<RedisEnd>([
  'dns_failed',
  'connect_refused',
  'connect_timeout',
  'tls_verify_failed',
  'auth_unavailable',
  'no_healthy_endpoint',
  'upstream_reset',
])
/** How often a credential is looked at that may have been renewed. */
const RENEW_MS = 1000

export class RedisDriver implements Driver {
  readonly cells = new RedisCells()
  readonly #options: RedisDriverOptions
  #snapshot: RedisSnapshot
  readonly #sessions = new Set<RedisSession>()
  #drained: (() => void)[] = []
  readonly #ends: Partial<Record<RedisEnd, number>> = {}
  #bytesIn = 0
  #bytesOut = 0
  #line: Buffer | null
  readonly #renew = new CoarseTimer(() => {
    this.#look()
    if (this.#sessions.size > 0) this.#renew.set(now() + RENEW_MS)
  })
  isDraining = false

  constructor(options: RedisDriverOptions) {
    this.#options = options
    this.#snapshot = options.snapshot
    this.#line = options.snapshot.credential?.line ?? null
  }

  get snapshot(): RedisSnapshot {
    return this.#snapshot
  }

  /** Connections to the upstream are made by this one from now on; open ones live on. */
  update(snapshot: RedisSnapshot): void {
    this.#snapshot = snapshot
    this.#look()
  }

  serve(socket: Socket): void {
    refreshClock()
    if (this.#snapshot.credential !== null && this.#sessions.size === 0) this.#renew.set(now() + RENEW_MS)
    this.#sessions.add(new RedisSession(this, (handler) => adopt(socket, handler)))
  }

  /** Has every session log in anew when the credential was renewed. */
  #look(): void {
    const { credential, cluster } = this.#snapshot
    const line = credential?.line ?? null
    if (line === this.#line || line === null) return
    this.#line = line
    refreshClock()
    for (const { pool } of cluster.endpoints) if (pool instanceof RedisPool) pool.credentialChanged()
    for (const session of this.#sessions) session.renew()
  }

  get open(): number {
    return this.#sessions.size
  }

  get busy(): number {
    let busy = 0
    for (const session of this.#sessions) if (session.isBusy) busy++
    return busy
  }

  get totals(): RedisTotals {
    let bytesIn = this.#bytesIn
    let bytesOut = this.#bytesOut
    for (const session of this.#sessions) {
      bytesIn += session.bytesIn
      bytesOut += session.bytesOut
    }
    return { ends: { ...this.#ends }, bytesIn, bytesOut }
  }

  drain(): Promise<void> {
    this.isDraining = true
    for (const session of [...this.#sessions]) session.drain()
    if (this.#sessions.size === 0) return Promise.resolve()
    return new Promise((resolve) => this.#drained.push(resolve))
  }

  destroy(): void {
    this.isDraining = true
    this.#renew.release()
    for (const session of [...this.#sessions]) session.destroy()
  }

  onRefusedCredential(detail: string): void {
    this.#options.onTrouble?.('auth_unavailable', detail)
  }

  /** Called by a session, once. */
  onSessionEnd(session: RedisSession, record: RedisRecord): void {
    this.#sessions.delete(session)
    this.#ends[record.end] = (this.#ends[record.end] ?? 0) + 1
    this.#bytesIn += record.bytesIn
    this.#bytesOut += record.bytesOut
    if (TROUBLE.has(record.end)) this.#options.onTrouble?.(record.end, record.detail ?? '')
    if (this.#isLogged(record)) this.#options.onLogged?.(record)
    if (this.#sessions.size > 0) return
    for (const resolve of this.#drained.splice(0)) resolve()
    this.#renew.release()
  }

  #isLogged(record: RedisRecord): boolean {
    const { mode, sample } = this.#snapshot.accessLog
    if (mode === 'Off') return false
    if (mode === 'All' || !ORDERLY.has(record.end)) return true
    return sample > 0 && (this.#options.random ?? Math.random)() < sample
  }
}
