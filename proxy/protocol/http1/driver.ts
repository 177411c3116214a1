/** Serves the connections of an HTTP listener, and hands out the exchanges that their requests become. */
import type { AccessLogConfig } from '../../../common/proxy-config.ts'
import { SMALL_READ_BUFFER } from '../../runtime/buffers.ts'
import { refreshClock } from '../../runtime/clock.ts'
import { type Accepted, drop } from '../../runtime/listen.ts'
import { isMemoryShort } from '../../runtime/overload.ts'
import { adopt, type SocketHandler } from '../../runtime/raw-socket.ts'
import type { Driver } from '../driver.ts'
import { TROUBLE } from '../ledger.ts'
import { Exchange } from './exchange.ts'
import { type HttpRecord, recordOf } from './record.ts'
import { crowded, overloaded } from './refusals.ts'
import { newRequestId } from './request-id.ts'
import { answer, type Refusal, statusOf } from './respond.ts'
import { defaultMaxClients, Room } from './room.ts'
import { type AskedFor, Session, type SessionHost } from './session.ts'
import type { HttpSnapshot } from './snapshot.ts'
import { isTraced } from './span.ts'
import { TurnedAway } from './turned-away.ts'

export interface HttpDriverOptions {
  readonly snapshot: HttpSnapshot
  /** Told of each exchange that the access log wants, when it has ended. */
  readonly onLogged?: (record: HttpRecord) => void
  /** Told of each exchange whose span is to be sent, when it has ended. */
  readonly onTraced?: (exchange: Exchange) => void
  /** Told of each failure that a person should see (DNS, TLS, a refused connect, a credential). */
  readonly onTrouble?: (reason: string, detail: string) => void
  /** For the sample of the access log. */
  readonly random?: () => number
  /** Most connections of the application. Default: what the container's memory has room for, at most 16,384. */
  readonly maxClients?: number
}

/** Failures of every protocol, and those that only requests have. */
const HTTP_TROUBLE: ReadonlySet<string> = new Set<string>([
  ...TROUBLE,
  'upstream_truncated',
  'circuit_open',
  'egress_denied',
])

/** Exchanges that are kept for the next requests. */
const MAX_SPARE = 256

export class HttpDriver implements Driver, SessionHost {
  #snapshot: HttpSnapshot
  readonly #options: HttpDriverOptions
  readonly #random: () => number
  readonly #sessions = new Set<Session>()
  readonly #room: Room
  readonly #turnedAway = new Set<TurnedAway>()
  readonly #spare: Exchange[] = []
  #drained: (() => void)[] = []
  #isDraining = false
  /** Connections accepted since the start. */
  accepted = 0

  constructor(options: HttpDriverOptions) {
    this.#options = options
    this.#snapshot = options.snapshot
    this.#random = options.random ?? Math.random
    this.#room = new Room(options.maxClients ?? defaultMaxClients())
  }

  get snapshot(): HttpSnapshot {
    return this.#snapshot
  }

  get isDraining(): boolean {
    return this.#isDraining
  }

  /** Requests from now on are served by this one; connections live on. */
  update(snapshot: HttpSnapshot): void {
    this.#snapshot = snapshot
  }

  serve(socket: Accepted): void {
    const time = refreshClock()
    this.accepted++
    const open = (handler: SocketHandler) => adopt(socket, handler, SMALL_READ_BUFFER)
    const isTaken = !isMemoryShort() && (this.#sessions.size < this.#room.max || this.#room.make(this.#sessions, time))
    if (isTaken) {
      this.#sessions.add(new Session(this, open))
    } else if (this.#turnedAway.size < this.#room.maxTurnedAway) {
      const gone = (its: TurnedAway) => this.#turnedAway.delete(its)
      this.#turnedAway.add(new TurnedAway(open, (isHead) => this.#turnAway(isHead), gone))
    } else drop(socket)
  }

  #turnAway(isHead: boolean): Buffer {
    const refusal = isMemoryShort() ? overloaded() : crowded(this.#room.max)
    const requestId = newRequestId()
    this.onRefused(refusal, requestId)
    return answer(refusal, { isHead, isOld: false, closes: true, requestId })
  }

  get open(): number {
    return this.#sessions.size
  }

  get busy(): number {
    let busy = 0
    for (const session of this.#sessions) if (session.isBusy) busy++
    return busy
  }

  get growing(): number {
    let growing = 0
    for (const session of this.#sessions) if (session.isGrowing) growing++
    return growing
  }

  endSome(count: number, detail: string): number {
    if (count <= 0) return 0
    // The newest have got least of what they asked for.
    const held = [...this.#sessions].filter((session) => session.isHeldUp).slice(-count)
    for (const session of held) session.shed(detail)
    return held.length
  }

  drain(): Promise<void> {
    this.#isDraining = true
    for (const session of this.#sessions) session.drain()
    if (this.#sessions.size === 0) return Promise.resolve()
    return new Promise((resolve) => this.#drained.push(resolve))
  }

  destroy(): void {
    for (const session of this.#sessions) session.destroy()
    for (const { raw } of this.#turnedAway) raw.destroy()
  }

  // --- what sessions ask -----------------------------------------------------------------------------------------------------------

  takeExchange(): Exchange {
    return this.#spare.pop() ?? new Exchange()
  }

  giveExchange(exchange: Exchange): void {
    if (this.#spare.length < MAX_SPARE) this.#spare.push(exchange)
    else exchange.release()
  }

  record(exchange: Exchange): void {
    const { onLogged, onTraced, onTrouble } = this.#options
    if (exchange.reason !== null && HTTP_TROUBLE.has(exchange.reason)) onTrouble?.(exchange.reason, exchange.detail)
    // One that became a tunnel has its line when that ends.
    const isOver = exchange.status !== 101
    if (onLogged !== undefined && isOver && this.#isLogged(exchange, exchange.snapshot.accessLog)) {
      onLogged(recordOf(exchange))
    }
    const { trace, snapshot } = exchange
    if (trace === null || snapshot.tracing === null || !isTraced(exchange, trace, snapshot.tracing)) return
    const durationMs = exchange.endedAt - exchange.startedAt
    exchange.target.upstream.cells.exemplify(exchange.status, { traceId: trace.traceId, durationMs, atMs: Date.now() })
    onTraced?.(exchange)
  }

  onTunnelEnd(record: HttpRecord): void {
    if (this.#isLogged(record, this.#snapshot.accessLog)) this.#options.onLogged?.(record)
  }

  #isLogged(ended: Pick<HttpRecord, 'reason' | 'status'>, { mode, sample }: AccessLogConfig): boolean {
    if (mode === 'All') return true
    if (mode === 'Off') return false
    return ended.reason !== null || ended.status >= 500 || (sample > 0 && this.#random() < sample)
  }

  onRefused(refusal: Refusal, requestId: string, asked?: AskedFor): void {
    const status = statusOf(refusal)
    const { cells } = this.#snapshot.upstream
    // It took no time that anybody waited for; an application that sends such requests has to be seen all the same.
    cells.add(status, 0)
    cells.reasons[refusal.reason]++
    if (this.#snapshot.accessLog.mode === 'Off') return
    this.#options.onLogged?.({
      requestId,
      traceId: null,
      method: asked?.method ?? null,
      path: asked?.path ?? null,
      status,
      reason: refusal.reason,
      detail: refusal.detail,
      upstream: null,
      route: null,
      endpoint: null,
      attempts: 0,
      requestBytes: 0,
      responseBytes: 0,
      queueMs: 0,
      connectMs: 0,
      tlsMs: 0,
      ttfbMs: null,
      totalMs: 0,
    })
  }

  onSessionEnd(session: Session): void {
    this.#sessions.delete(session)
    if (this.#sessions.size === 0) for (const resolve of this.#drained.splice(0)) resolve()
  }
}
