/** Serves the connections of a TCP listener: each is a session of its own, which the newest configuration lets in. */
import type { Socket } from 'node:net'
import { refreshClock } from '../../runtime/clock.ts'
import { adopt, type RawSocket } from '../../runtime/raw-socket.ts'
import type { Driver } from '../driver.ts'
import { type Greeter, type TcpEnd, type TcpRecord, TcpSession } from './session.ts'
import type { TcpSnapshot } from './snapshot.ts'

export interface TcpDriverOptions {
  readonly snapshot: TcpSnapshot
  /** Told of each connection that the access log wants, when it has ended. */
  readonly onLogged?: (record: TcpRecord) => void
  /** Told of each connection that failed for a reason that a person should see (DNS, TLS, a refused connect). */
  readonly onTrouble?: (record: TcpRecord) => void
  /** For the sample of the access log. */
  readonly random?: () => number
}

/** Counts since the start, for metrics. */
export interface TcpTotals {
  readonly accepted: number
  /** Connections that ended, by how. */
  readonly ends: Readonly<Partial<Record<TcpEnd, number>>>
  /** Bytes from the application and to it, those of open connections included. */
  readonly bytesIn: number
  readonly bytesOut: number
  /** Dials, and those among them that followed a failed one. */
  readonly dials: number
  readonly redials: number
}

/** Ends in order; every other one is a failure. */
const ORDERLY: ReadonlySet<TcpEnd> = new Set<TcpEnd>(['client_closed', 'upstream_closed', 'idle_timeout'])

/** Failures that say something of the upstream or the configuration rather than of load or of the application. */
const TROUBLE: ReadonlySet<TcpEnd> = new Set<TcpEnd>([
  'dns_failed',
  'no_healthy_endpoint',
  'connect_refused',
  'connect_timeout',
  'tls_verify_failed',
  'auth_unavailable',
  'upstream_reset',
])

export class TcpDriver implements Driver {
  readonly #options: TcpDriverOptions
  #snapshot: TcpSnapshot
  readonly #sessions = new Set<TcpSession>()
  #drained: (() => void)[] = []
  #accepted = 0
  readonly #ends: Partial<Record<TcpEnd, number>> = {}
  #bytesIn = 0
  #bytesOut = 0
  #dials = 0
  #redials = 0

  constructor(options: TcpDriverOptions) {
    this.#options = options
    this.#snapshot = options.snapshot
  }

  get snapshot(): TcpSnapshot {
    return this.#snapshot
  }

  /** Connections from now on are served by this one; open ones live on, and take its idle time at their next byte. */
  update(snapshot: TcpSnapshot): void {
    this.#snapshot = snapshot
  }

  serve(socket: Socket): void {
    refreshClock()
    this.#accepted++
    this.#begin(new TcpSession(this, (handler) => adopt(socket, handler)))
  }

  /** Takes over a connection whose protocol has begun: `rest` is what the application sent behind that. */
  serveGreeted(client: RawSocket, rest: Buffer, greeter: Greeter): void {
    this.#accepted++
    const makeClient = (handler: RawSocket['handler']): RawSocket => {
      client.handler = handler
      return client
    }
    const session = new TcpSession(this, makeClient, greeter)
    if (rest.length > 0) session.onData(rest, rest.length)
    this.#begin(session)
  }

  #begin(session: TcpSession): void {
    this.#sessions.add(session)
    session.start()
  }

  get open(): number {
    return this.#sessions.size
  }

  /** The same as `open`: what an unknown protocol is in the middle of cannot be seen. */
  get busy(): number {
    return this.#sessions.size
  }

  get totals(): TcpTotals {
    let bytesIn = this.#bytesIn
    let bytesOut = this.#bytesOut
    for (const session of this.#sessions) {
      bytesIn += session.bytesIn
      bytesOut += session.bytesOut
    }
    const ends = { ...this.#ends }
    return { accepted: this.#accepted, ends, bytesIn, bytesOut, dials: this.#dials, redials: this.#redials }
  }

  /** Waits for the connections to end: an unknown protocol has no boundary at which one could be ended without harm. */
  drain(): Promise<void> {
    if (this.#sessions.size === 0) return Promise.resolve()
    return new Promise((resolve) => this.#drained.push(resolve))
  }

  destroy(): void {
    for (const session of this.#sessions) session.destroy()
  }

  /** Called by a session, once. */
  onSessionEnd(session: TcpSession, record: TcpRecord): void {
    this.#sessions.delete(session)
    this.#ends[record.end] = (this.#ends[record.end] ?? 0) + 1
    this.#bytesIn += record.bytesIn
    this.#bytesOut += record.bytesOut
    this.#dials += record.attempts
    this.#redials += Math.max(0, record.attempts - 1)
    if (TROUBLE.has(record.end)) this.#options.onTrouble?.(record)
    if (this.#isLogged(record)) this.#options.onLogged?.(record)
    if (this.#sessions.size === 0) for (const resolve of this.#drained.splice(0)) resolve()
  }

  #isLogged(record: TcpRecord): boolean {
    const { mode, sample } = this.#snapshot.accessLog
    if (mode === 'Off') return false
    if (mode === 'All' || !ORDERLY.has(record.end)) return true
    return sample > 0 && (this.#options.random ?? Math.random)() < sample
  }
}
