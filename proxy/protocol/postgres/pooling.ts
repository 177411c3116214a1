/** The connections of the application that share connections to the server, and the pools that they share. */

import type { Reason } from '../../../common/reasons.ts'
import { StatusCell } from '../../observe/cells.ts'
import { now, refreshClock } from '../../runtime/clock.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import { NO_HANDLER } from '../../runtime/raw-socket.ts'
import { dial } from '../../upstream/connector.ts'
import { Ledger, type LedgerOptions, type LedgerTotals } from '../ledger.ts'
import type { TcpRecord } from '../tcp/session.ts'
import { Back, CANCEL_REQUEST, message, untyped } from './messages.ts'
import { PIN_TEXT } from './pins.ts'
import { Pool, type PoolOwner } from './pool.ts'
import { outline } from './redact.ts'
import type { Server } from './server.ts'
import { PooledSession } from './session.ts'
import type { ClientLogin, PinReason, SessionHost } from './session-host.ts'
import type { PostgresSnapshot } from './snapshot.ts'
import { tlsOf } from './start-tls.ts'
import { databaseOf } from './startup.ts'

export interface PoolingOptions extends LedgerOptions<TcpRecord> {
  readonly snapshot: PostgresSnapshot
  /** Told once when a server cannot be asked what its stored functions do. */
  readonly onUnreadable?: (detail: string) => void
  /** Told now and then why clients keep their connection to the server. @param statement its outline; null: no statement did it */
  readonly onPinned?: (reason: PinReason, detail: string, statement: string | null) => void
}

/** How connections are used, for metrics. */
export interface PoolNumbers {
  /** Connections to the server, and those that no client uses. */
  readonly connections: number
  readonly free: number
  readonly pinned: Readonly<Partial<Record<PinReason, number>>>
  /** How long transactions waited for a connection: those that did. */
  readonly waits: StatusCell
  /** Times that a connection was given to a client. */
  readonly uses: number
}

/** One log line for each reason in this time. */
const PIN_LOG_MS = 10_000
/** Of the third version of the protocol, the newest that is spoken. */
const NEWEST_MINOR = 2
const TEXT: Readonly<Record<PinReason, string>> = {
  ...PIN_TEXT,
  large_statement: 'Parse of a statement longer than 64 KiB',
  copy: 'COPY or a pipeline that did not end as the protocol says',
  replication: 'the startup parameter replication',
}
/** Every server reports these; of the other RESTORABLE_PARAMETERS it depends on its version whether it tells their values. */
const SETTABLE: ReadonlySet<string> = new Set([
  'application_name',
  'client_encoding',
  'datestyle',
  'intervalstyle',
  'standard_conforming_strings',
  'timezone',
])
/** A client that has a connection to itself may reset what it began with: then that must be what the connection began with. */
const SETTABLE_IN_SESSION: ReadonlySet<string> = new Set(['application_name'])

export class Pooling implements SessionHost, PoolOwner {
  readonly #options: PoolingOptions
  #snapshot: PostgresSnapshot
  readonly #ledger: Ledger<PooledSession>
  readonly #byKey = new Map<string, PooledSession>()
  readonly #pools = new Map<string, Pool>()
  /** Of an earlier configuration, until their connections have ended. */
  #old: Pool[] = []
  #identity: string
  readonly #pinned: Partial<Record<PinReason, number>> = {}
  readonly #pinLogged = new Map<PinReason, number>()
  readonly #waits = new StatusCell()
  #uses = 0
  #isUnreadableTold = false
  isDraining = false

  constructor(options: PoolingOptions) {
    this.#options = options
    this.#snapshot = options.snapshot
    this.#ledger = new Ledger(options)
    this.#identity = identityOf(options.snapshot)
  }

  get snapshot(): PostgresSnapshot {
    return this.#snapshot
  }

  /** Transactions from now on are served by this one. What it changes of connections to the server, they change when they are free. */
  update(snapshot: PostgresSnapshot): void {
    const identity = identityOf(snapshot)
    const isSame = identity === this.#identity && snapshot.cluster === this.#snapshot.cluster
    this.#identity = identity
    // Who has a connection to the server goes on as before when there is no pooling any more.
    this.#snapshot = { ...snapshot, pooling: snapshot.pooling ?? this.#snapshot.pooling }
    // A bound that was lowered holds at once, as far as connections are free.
    const { connections } = snapshot.cluster
    while (connections.used > connections.max && this.evict()) {}
    if (isSame) return
    this.#old = [...this.#old, ...this.#pools.values()].filter((pool) => pool.size > 0)
    this.#pools.clear()
    for (const pool of this.#old) pool.retire()
  }

  /** Takes over a client whose startup packet was read. */
  serve(client: RawSocket, packet: Buffer, parameters: ReadonlyMap<string, string>, rest: Buffer): void {
    const { login: source, pooling } = this.#snapshot
    const settable = pooling?.mode === 'Session' ? SETTABLE_IN_SESSION : SETTABLE
    const login = loginOf(packet, parameters, source.login?.username ?? '', settable)
    const session = new PooledSession(this, client, login)
    this.#ledger.add(session)
    this.#byKey.set(login.key.toString('hex'), session)
    session.start(rest)
  }

  poolFor({ database, fixed }: ClientLogin): Pool {
    const key = JSON.stringify([database, [...fixed].sort()])
    const known = this.#pools.get(key)
    if (known !== undefined) return known
    const made = new Pool(this, database, fixed)
    this.#pools.set(key, made)
    return made
  }

  evict(): boolean {
    for (const pool of this.#pools.values()) if (pool.evict()) return true
    return false
  }

  /** False: the key is of no client here. */
  cancel(key: Buffer, done: () => void): boolean {
    const session = this.#byKey.get(key.toString('hex'))
    session?.cancel(done)
    return session !== undefined
  }

  cancelAt(server: Server, done: () => void): void {
    const { cluster, timeouts } = this.#snapshot
    if (server.key === null) {
      done()
      return
    }
    server.cancels++
    const over = () => {
      server.cancels--
      const next = server.onCancelled
      if (server.cancels === 0 && next !== null) {
        server.onCancelled = null
        refreshClock()
        next()
      }
      done()
    }
    const proxyProtocol = cluster.config.proxyProtocol ?? null
    const { key, endpoint: address } = server
    const { guard, tls } = cluster
    dial(
      { address, guard, tls, proxyProtocol, timeoutMs: timeouts.connectMs, ...tlsOf(cluster.config) },
      {
        onDialFailed: over,
        onDialled: (upstream) => {
          // The server ends this connection when the signal is sent.
          upstream.handler = { ...NO_HANDLER, onEnd: () => upstream.destroy(), onClose: over }
          upstream.write(untyped(CANCEL_REQUEST, key))
        },
      },
    )
  }

  onPinned(reason: PinReason, isStored: boolean, text: Buffer | null): void {
    this.#pinned[reason] = (this.#pinned[reason] ?? 0) + 1
    const last = this.#pinLogged.get(reason) ?? Number.NEGATIVE_INFINITY
    if (now() - last < PIN_LOG_MS) return
    this.#pinLogged.set(reason, now())
    const statement = text === null ? '' : outline(text)
    const detail = isStored ? `${TEXT[reason]}, in a stored function` : TEXT[reason]
    this.#options.onPinned?.(reason, detail, statement === '' ? null : statement)
  }

  onUnreadable(detail: string): void {
    if (this.#isUnreadableTold) return
    this.#isUnreadableTold = true
    this.#options.onUnreadable?.(detail)
  }

  onWaited(ms: number): void {
    this.#uses++
    if (ms > 0) this.#waits.add(ms)
  }

  onTrouble(reason: Reason, detail: string): void {
    this.#ledger.trouble(reason, detail)
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

  get numbers(): PoolNumbers {
    let connections = 0
    let free = 0
    for (const pool of [...this.#pools.values(), ...this.#old]) {
      connections += pool.size
      free += pool.free
    }
    return { connections, free, pinned: { ...this.#pinned }, waits: this.#waits, uses: this.#uses }
  }

  drain(): Promise<void> {
    this.isDraining = true
    for (const session of this.#ledger.open) session.drain()
    if (this.open === 0) this.#closePools()
    return this.#ledger.empty()
  }

  destroy(): void {
    this.isDraining = true
    for (const session of this.#ledger.open) session.destroy()
    this.#closePools()
  }

  #closePools(): void {
    for (const pool of [...this.#pools.values(), ...this.#old]) pool.destroy()
  }

  /** Called by a session, once. */
  onSessionEnd(session: PooledSession, record: TcpRecord): void {
    this.#byKey.delete(session.login.key.toString('hex'))
    this.#ledger.close(session, record, this.#snapshot.accessLog)
    if (this.isDraining && this.open === 0) this.#closePools()
  }
}

/** What connections to the server depend on beside the cluster. */
function identityOf({ cluster, login }: PostgresSnapshot): string {
  return JSON.stringify([login.login?.username ?? null, cluster.config.role ?? null])
}

/** Reads a startup packet: what can be set later, and what connections are shared by. */
function loginOf(
  packet: Buffer,
  parameters: ReadonlyMap<string, string>,
  username: string,
  settable: ReadonlySet<string>,
): ClientLogin {
  const minor = packet.readInt32BE(4) & 0xffff
  const settings = new Map<string, string>()
  const fixed = new Map<string, string>()
  const unknown: string[] = []
  for (const [name, value] of parameters) {
    if (name === 'user' || name === 'database') continue
    if (name.startsWith('_pq_.')) unknown.push(name)
    else if (settable.has(name.toLowerCase())) settings.set(name.toLowerCase(), value)
    else fixed.set(name, value)
  }
  const { randomBytes } = process.getBuiltinModule('node:crypto')
  // Protocol 3.2 has keys of up to 256 bytes; before, they have four.
  const key = randomBytes(4 + (minor >= 2 ? 32 : 4))
  key.writeInt32BE(key.readInt32BE(0) & 0x7fffffff, 0)
  const negotiation =
    minor > NEWEST_MINOR || unknown.length > 0
      ? message(
          Back.negotiateVersion,
          Math.min(minor, NEWEST_MINOR) + (3 << 16),
          unknown.length,
          ...unknown.map((name) => Buffer.from(`${name}\0`, 'latin1')),
        )
      : null
  return {
    database: databaseOf(parameters, username),
    settings,
    fixed,
    negotiation,
    key,
  }
}
