/** Serves the connections of a TCP listener: each is a session of its own, which the newest configuration lets in. */
import { refreshClock } from '../../runtime/clock.ts'
import type { Accepted } from '../../runtime/listen.ts'
import { adopt, NO_HANDLER, type RawSocket } from '../../runtime/raw-socket.ts'
import type { Driver } from '../driver.ts'
import { Ledger, type LedgerOptions, type LedgerTotals } from '../ledger.ts'
import { type Greeter, type TcpRecord, TcpSession } from './session.ts'
import type { TcpSnapshot } from './snapshot.ts'

export interface TcpDriverOptions extends LedgerOptions<TcpRecord> {
  readonly snapshot: TcpSnapshot
}

/** Counts since the start, for metrics. */
export interface TcpTotals extends LedgerTotals {
  /** Dials, and those among them that followed a failed one. */
  readonly dials: number
  readonly redials: number
}

export class TcpDriver implements Driver {
  #snapshot: TcpSnapshot
  readonly #ledger: Ledger<TcpSession>
  #dials = 0
  #redials = 0

  constructor(options: TcpDriverOptions) {
    this.#snapshot = options.snapshot
    this.#ledger = new Ledger(options)
  }

  get snapshot(): TcpSnapshot {
    return this.#snapshot
  }

  /** Connections from now on are served by this one; open ones live on, and take its idle time at their next byte. */
  update(snapshot: TcpSnapshot): void {
    this.#snapshot = snapshot
  }

  serve(socket: Accepted): void {
    refreshClock()
    this.#begin(new TcpSession(this, adopt(socket, NO_HANDLER)))
  }

  /** Takes over a connection whose protocol has begun: `rest` is what the application sent behind that. */
  serveGreeted(client: RawSocket, rest: Buffer, greeter: Greeter): void {
    const session = new TcpSession(this, client, greeter)
    if (rest.length > 0) session.onData(rest, rest.length)
    this.#begin(session)
  }

  #begin(session: TcpSession): void {
    this.#ledger.add(session)
    session.start()
  }

  get open(): number {
    return this.#ledger.open.size
  }

  /** The same as `open`: what an unknown protocol is in the middle of cannot be seen. */
  get busy(): number {
    return this.open
  }

  get totals(): TcpTotals {
    return { ...this.#ledger.totals, dials: this.#dials, redials: this.#redials }
  }

  /** Waits for the connections to end: an unknown protocol has no boundary at which one could be ended without harm. */
  drain(): Promise<void> {
    return this.#ledger.empty()
  }

  destroy(): void {
    for (const session of this.#ledger.open) session.destroy()
  }

  /** Called by a session, once. */
  onSessionEnd(session: TcpSession, record: TcpRecord): void {
    this.#dials += record.attempts
    this.#redials += Math.max(0, record.attempts - 1)
    this.#ledger.close(session, record, this.#snapshot.accessLog)
  }
}
