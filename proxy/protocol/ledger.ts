/** The book of the connections of a listener: those that are open, how the others ended, and who waits for the last one. */
import type { AccessLogConfig } from '../../common/proxy-config.ts'
import type { TcpEnd, TcpRecord } from './tcp/session.ts'

/** A connection that is open. */
export interface LedgerEntry {
  /** From the application, and to it, so far. */
  readonly bytesIn: number
  readonly bytesOut: number
}

export interface LedgerOptions<Each> {
  /** Told of each connection that the access log wants, when it has ended. */
  readonly onLogged?: (record: Each) => void
  /** Told of what a person should see: a connection that failed for DNS, TLS, a refused connect or login. */
  readonly onTrouble?: (reason: TcpEnd, detail: string) => void
  /** For the sample of the access log. Default: Math.random. */
  readonly random?: () => number
}

/** Counts since the start, for metrics. */
export interface LedgerTotals {
  readonly accepted: number
  /** Connections that ended, by how. */
  readonly ends: Readonly<Partial<Record<TcpEnd, number>>>
  /** Bytes from the application and to it, those of open connections included. */
  readonly bytesIn: number
  readonly bytesOut: number
}

/** Of two ledgers together. */
export function sumOf(one: LedgerTotals, other: LedgerTotals): LedgerTotals {
  const ends: Partial<Record<TcpEnd, number>> = { ...one.ends }
  for (const end of Object.keys(other.ends) as TcpEnd[]) ends[end] = (ends[end] ?? 0) + (other.ends[end] ?? 0)
  return {
    accepted: one.accepted + other.accepted,
    ends,
    bytesIn: one.bytesIn + other.bytesIn,
    bytesOut: one.bytesOut + other.bytesOut,
  }
}

/** Ends in order; every other one is a failure. */
const ORDERLY: ReadonlySet<TcpEnd> = new Set<TcpEnd>(['client_closed', 'upstream_closed', 'idle_timeout'])

/** Failures that say something of the upstream or the configuration rather than of load or of the application, whatever the protocol. */
export const TROUBLE: ReadonlySet<TcpEnd> = new Set<TcpEnd>([
  'dns_failed',
  'no_healthy_endpoint',
  'connect_refused',
  'connect_timeout',
  'tls_verify_failed',
  'auth_unavailable',
  'upstream_reset',
])

export class Ledger<Entry extends LedgerEntry, Each extends TcpRecord = TcpRecord> {
  readonly #options: LedgerOptions<Each>
  readonly #open = new Set<Entry>()
  readonly #ends: Partial<Record<TcpEnd, number>> = {}
  #accepted = 0
  #bytesIn = 0
  #bytesOut = 0
  #waiters: (() => void)[] = []

  constructor(options: LedgerOptions<Each>) {
    this.#options = options
  }

  /** Connections that are open; one may end while they are walked over. */
  get open(): ReadonlySet<Entry> {
    return this.#open
  }

  get totals(): LedgerTotals {
    let bytesIn = this.#bytesIn
    let bytesOut = this.#bytesOut
    for (const entry of this.#open) {
      bytesIn += entry.bytesIn
      bytesOut += entry.bytesOut
    }
    return { accepted: this.#accepted, ends: { ...this.#ends }, bytesIn, bytesOut }
  }

  add(entry: Entry): void {
    this.#accepted++
    this.#open.add(entry)
  }

  /** Enters the end of a connection and tells of it; the second end of the same one is passed over. */
  close(entry: Entry, record: Each, accessLog: AccessLogConfig): void {
    if (!this.#open.delete(entry)) return
    this.#ends[record.end] = (this.#ends[record.end] ?? 0) + 1
    this.#bytesIn += record.bytesIn
    this.#bytesOut += record.bytesOut
    if (TROUBLE.has(record.end)) this.trouble(record.end, record.detail ?? '')
    if (this.#isLogged(record, accessLog)) this.#options.onLogged?.(record)
    if (this.#open.size === 0) for (const resolve of this.#waiters.splice(0)) resolve()
  }

  /** Tells of a failure that a person should see and that ended no connection. */
  trouble(reason: TcpEnd, detail: string): void {
    this.#options.onTrouble?.(reason, detail)
  }

  /** Resolves when no connection is open. */
  empty(): Promise<void> {
    if (this.#open.size === 0) return Promise.resolve()
    return new Promise((resolve) => this.#waiters.push(resolve))
  }

  #isLogged(record: Each, { mode, sample }: AccessLogConfig): boolean {
    if (mode === 'Off') return false
    if (mode === 'All' || !ORDERLY.has(record.end)) return true
    return sample > 0 && (this.#options.random ?? Math.random)() < sample
  }
}
