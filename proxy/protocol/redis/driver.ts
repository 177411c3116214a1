/** Serves the connections of a Redis listener: each is a session of its own over one connection to a server. */
import { now, refreshClock } from '../../runtime/clock.ts'
import type { Accepted } from '../../runtime/listen.ts'
import { adopt } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import { RedisPool } from '../../upstream/redis-pool.ts'
import type { Driver } from '../driver.ts'
import { Ledger, type LedgerOptions, type LedgerTotals } from '../ledger.ts'
import { RedisCells } from './cells.ts'
import { type RedisRecord, RedisSession } from './session.ts'
import type { RedisSnapshot } from './snapshot.ts'

export interface RedisDriverOptions extends LedgerOptions<RedisRecord> {
  readonly snapshot: RedisSnapshot
}

/** How often a credential is looked at that may have been renewed. */
const RENEW_MS = 1000

export class RedisDriver implements Driver {
  readonly cells = new RedisCells()
  #snapshot: RedisSnapshot
  readonly #ledger: Ledger<RedisSession, RedisRecord>
  #line: Buffer | null
  readonly #renew = new CoarseTimer(() => {
    this.#look()
    if (this.open > 0 || this.#hasSpares) this.#renew.set(now() + RENEW_MS)
  })
  isDraining = false

  constructor(options: RedisDriverOptions) {
    this.#snapshot = options.snapshot
    this.#ledger = new Ledger(options)
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

  serve(socket: Accepted): void {
    refreshClock()
    if (this.#snapshot.credential !== null && this.#renew.at === Number.POSITIVE_INFINITY)
      this.#renew.set(now() + RENEW_MS)
    this.#ledger.add(new RedisSession(this, (handler) => adopt(socket, handler)))
  }

  /** Has every session log in anew when the credential was renewed. */
  #look(): void {
    const { credential, cluster, timeouts } = this.#snapshot
    const line = credential?.line ?? null
    if (line === this.#line || line === null) return
    this.#line = line
    refreshClock()
    for (const { pool } of cluster.endpoints) if (pool instanceof RedisPool) pool.credentialChanged(timeouts.connectMs)
    for (const session of this.#ledger.open) session.renew()
  }

  /** Connections wait for a session that log in as the last ones did. */
  get #hasSpares(): boolean {
    for (const { pool } of this.#snapshot.cluster.endpoints)
      if (pool instanceof RedisPool && pool.spares > 0) return true
    return false
  }

  get open(): number {
    return this.#ledger.open.size
  }

  get busy(): number {
    let busy = 0
    for (const session of this.#ledger.open) if (session.isBusy) busy++
    return busy
  }

  get totals(): LedgerTotals {
    return this.#ledger.totals
  }

  drain(): Promise<void> {
    this.isDraining = true
    for (const session of this.#ledger.open) session.drain()
    return this.#ledger.empty()
  }

  destroy(): void {
    this.isDraining = true
    this.#renew.release()
    for (const session of this.#ledger.open) session.destroy()
  }

  onRefusedCredential(detail: string): void {
    this.#ledger.trouble('auth_unavailable', detail)
  }

  /** Called by a session, once. */
  onSessionEnd(session: RedisSession, record: RedisRecord): void {
    this.#ledger.close(session, record, this.#snapshot.accessLog)
  }
}
