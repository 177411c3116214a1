/** One connection of the application: requests one after the other, pipelined ones in order, and an end that lets the last answer be read. */
import { now, refreshClock } from '../../runtime/clock.ts'
import { askWhetherGone } from '../../runtime/half-close.ts'
import type { RawSocket, SocketHandler } from '../../runtime/raw-socket.ts'
import { CoarseTimer, type TimerOwner } from '../../runtime/timers.ts'
import type { UpstreamConnection } from '../../upstream/http-pool.ts'
import type { Exchange } from './exchange.ts'
import type { AfterExchange, ExchangeClient } from './exchange-client.ts'
import { HeadReader, NO_MEMORY } from './head-reader.ts'
import { RequestFacts } from './headers.ts'
import type { Fault, HeadParser } from './parser.ts'
import type { HttpRecord } from './record.ts'
import { newRequestId } from './request-id.ts'
import { answer, optionsAnswer, type Refusal } from './respond.ts'
import type { HttpSnapshot } from './snapshot.ts'
import { Field } from './tables.ts'
import { Tunnel } from './tunnel.ts'

/** A head must be complete this long after its first byte. */
const HEAD_MS = 10_000
/** How long what a client still sends is read and thrown away after the last answer, so that a reset does not overtake the answer. */
const LINGER_MS = 2_000
const MAX_LINGER_MS = 10_000
/** A client that has not read its last answer yet is waited for as long as it reads something within this time. */
const SLOW_READER_MS = 30_000
/** Bytes of later requests that are kept while one is under way; then reading stops. */
const MAX_AHEAD_BYTES = 16 * 1024

/** How long a connection without a request counts as new. */
const NEW_MS = 1_000

/** A client that half-closed and waits, or that is not read from, is looked at this often. */
const ASK_AGAIN_MS = 1_000
/** Its FIN may be here before the kernel is done with its close: it is looked at this soon for the second time. */
const ASK_SOON_MS = 50

/** What a session needs of its driver. */
export interface SessionHost {
  readonly snapshot: HttpSnapshot
  readonly isDraining: boolean
  takeExchange(): Exchange
  giveExchange(exchange: Exchange): void
  record(exchange: Exchange): void
  /** A request that was refused before it became an exchange. @param asked its method and path, as far as they can be told */
  onRefused(refusal: Refusal, requestId: string, asked?: AskedFor): void
  /** An exchange that became a tunnel is over. */
  onTunnelEnd(record: HttpRecord): void
  onSessionEnd(session: Session): void
}

/** What a request that was refused is about. */
export interface AskedFor {
  readonly method: string
  /** Without the query, which may hold secrets; null: the target is no path. */
  readonly path: string | null
}

const facts = new RequestFacts()

export class Session implements SocketHandler, ExchangeClient, TimerOwner {
  readonly raw: RawSocket
  readonly #host: SessionHost
  readonly #reader = new HeadReader('request')
  #exchange: Exchange | null = null
  /** What the client sent beyond the request under way, or beyond the one whose answer it has not taken. */
  #ahead: Buffer | null = null
  #isConsuming = false
  /** The last answer has been given. */
  #isClosing = false
  #closesBy = 0
  /** What the client had not taken when it was last looked at, while closing. */
  #unsent = 0
  #tunnel: Tunnel | null = null
  /** No request came yet. */
  #isNew = true
  /** When the last request was done, or the connection came. */
  restsSince = now()
  /** Of a head that is not complete, and of a connection that is closing. */
  readonly #timer = new CoarseTimer(this)

  constructor(host: SessionHost, open: (handler: SocketHandler) => RawSocket) {
    this.#host = host
    this.raw = open(this)
  }

  get isBusy(): boolean {
    return this.#exchange !== null || this.#tunnel !== null
  }

  get isDraining(): boolean {
    return this.#host.isDraining
  }

  /** A request is under way, and nothing is held for a slow peer yet. A tunnel may rest for hours. */
  get isGrowing(): boolean {
    return this.#exchange !== null && this.raw.backlog === 0 && !this.raw.isPaused
  }

  /** A peer does not take what is held for it: the client its answer, or the upstream its request. */
  get isHeldUp(): boolean {
    return this.#exchange !== null && !this.#isConsuming && (this.raw.backlog > 0 || this.raw.isPaused)
  }

  /** Gives up the request under way for the sake of its memory. */
  shed(detail: string): void {
    this.#exchange?.onShed(detail)
  }

  /** Nothing goes on that a close would cut. A connection that is new is about to send its request. */
  mayGiveWay(time: number): boolean {
    if (this.isBusy || this.#isClosing || this.#reader.isPartial || this.raw.destroyed) return false
    // What it was answered may still be on its way.
    return this.raw.backlog === 0 && (!this.#isNew || time - this.restsSince >= NEW_MS)
  }

  // --- what the client sends -------------------------------------------------------------------------------------------------

  onData(chunk: Buffer, length: number): void {
    if (this.#isClosing) {
      this.#onLeftover()
      return
    }
    this.#consume(chunk, length)
  }

  #consume(chunk: Buffer, length: number): void {
    let at = 0
    this.#isConsuming = true
    while (at < length && !this.#isClosing && this.#tunnel === null) {
      const exchange = this.#exchange
      if (exchange === null) {
        // Whoever asks on and on and does not read its answers is not asked what else it wants.
        if (this.raw.backlog > 0) {
          this.#timer.clear()
          this.#stash(chunk, at, length)
          break
        }
        at = this.#readHead(chunk, at, length)
      } else if (exchange.wantsBody) {
        at = exchange.onRequestBody(chunk, at, length)
        // What is not read shows no end either.
        if (this.raw.isPaused && this.#exchange === exchange) this.#timer.set(now() + ASK_AGAIN_MS)
      } else {
        this.#stash(chunk, at, length)
        break
      }
    }
    this.#isConsuming = false
  }

  /** Reads a head and begins its exchange. Returns the offset behind what was used. */
  #readHead(chunk: Buffer, start: number, end: number): number {
    const reader = this.#reader
    const result = reader.read(chunk, start, end)
    if (result === 0) {
      if (reader.isPartial && this.#timer.at === Number.POSITIVE_INFINITY) this.#timer.set(now() + HEAD_MS)
      return end
    }
    this.#timer.clear()
    const { head } = reader
    const fault = result === -1 ? head.fault : facts.examine(head)
    if (fault !== null) {
      this.#refuse(fault, result === -1 ? null : head)
      return end
    }
    if (facts.maxForwards === 0) {
      this.raw.write(optionsAnswer())
      this.#close()
      return end
    }
    const exchange = this.#host.takeExchange()
    this.#exchange = exchange
    this.#isNew = false
    const next = exchange.begin(this, this.#host.snapshot, head, facts, chunk, reader.next, end)
    reader.done()
    if (this.raw.ended && this.#exchange === exchange) this.#onEndOf(exchange, next < end)
    return next
  }

  #stash(chunk: Buffer, start: number, end: number): void {
    const more = chunk.subarray(start, end)
    this.#ahead = this.#ahead === null ? Buffer.from(more) : Buffer.concat([this.#ahead, more])
    if (this.#ahead.length < MAX_AHEAD_BYTES) return
    this.raw.pause()
    this.#timer.set(now() + ASK_AGAIN_MS)
  }

  /**
   * A head that breaks a rule. Nothing behind it can be trusted, so the connection ends with the answer.
   * @param head when it is well-formed and means nothing that can be done
   */
  #refuse(fault: Fault, head: HeadParser | null = null): void {
    const isScarce = fault === NO_MEMORY
    const refusal: Refusal = {
      reason: isScarce ? 'overloaded' : 'bad_request',
      detail: fault.text,
      status: fault.status,
      retryAfterMs: isScarce ? 1000 : undefined,
    }
    const requestId = (head?.has(Field.requestId) && head.value(head.first[Field.requestId]!)) || newRequestId()
    const isHead = this.#reader.beginsWith('HEAD ')
    this.raw.write(answer(refusal, { isHead, isOld: false, closes: true, requestId }))
    this.#host.onRefused(refusal, requestId, head === null ? undefined : askedFor(head))
    this.#close()
  }

  onEnd(): void {
    const exchange = this.#exchange
    if (exchange !== null) this.#onEndOf(exchange, this.#ahead !== null)
    // What it asked for before comes when it has read its answers.
    else if (this.#ahead !== null && !this.#isClosing) return
    else if (this.#isClosing || !this.#reader.isPartial) this.raw.end()
    else this.raw.destroy()
  }

  /** The client will send no more: a request that is cut short is nobody's, and for a whole one a client may wait that half-closed. */
  #onEndOf(exchange: Exchange, hasMore: boolean): void {
    if (!hasMore) exchange.onClientHalfClosed()
    if (exchange.wantsBody && !hasMore) exchange.onClientGone()
    else this.#askWhetherGone(exchange, ASK_SOON_MS)
  }

  /** While it waits for its answer, it is looked at again, for it may still go away. */
  #askWhetherGone(exchange: Exchange, againMs: number): void {
    const { raw } = this
    const answered = (isGone: boolean): void => {
      refreshClock()
      if (this.#exchange !== exchange || !(raw.ended || raw.isPaused)) return
      if (isGone) exchange.onClientGone()
      else this.#timer.set(now() + againMs)
    }
    askWhetherGone(raw, answered, raw.ended)
  }

  onDrain(): void {
    if (this.#exchange !== null) this.#exchange.onClientDrain()
    else if (this.#ahead !== null && !this.#isConsuming) this.#goOn()
  }

  onClose(): void {
    this.#timer.release()
    this.#reader.done()
    this.#exchange?.onClientGone()
    if (this.#tunnel === null) this.#host.onSessionEnd(this)
  }

  // --- what the exchange says --------------------------------------------------------------------------------------------------

  record(exchange: Exchange): void {
    this.#host.record(exchange)
    this.#tunnel?.take(exchange)
  }

  onExchangeEnd(exchange: Exchange, after: AfterExchange): void {
    this.#exchange = null
    this.restsSince = now()
    this.#timer.clear()
    const isReset = after === 'cut' && exchange.endsWithClose
    this.#host.giveExchange(exchange)
    if (after === 'tunnel') return
    if (after === 'cut') {
      this.#isClosing = true
      if (isReset) this.raw.reset()
      else this.raw.destroy()
    } else if (after === 'close' || this.#host.isDraining) this.#close()
    else if (!this.#isConsuming) this.#goOn()
  }

  /** The next request may be there already; it begins when the answers before it are taken. */
  #goOn(): void {
    while (this.#ahead !== null && this.#exchange === null && !this.#isClosing && this.raw.backlog === 0) {
      const ahead = this.#ahead
      this.#ahead = null
      this.#timer.clear()
      this.#consume(ahead, ahead.length)
    }
    if (this.#ahead !== null || this.#exchange !== null || this.#isClosing) return
    if (this.raw.ended) {
      this.#close()
    } else this.raw.resume()
  }

  onTunnel(exchange: Exchange, connection: UpstreamConnection, rest: Buffer): void {
    const host = this.#host
    const early = this.#ahead
    this.#ahead = null
    this.#timer.release()
    this.#tunnel = new Tunnel({
      client: this.raw,
      connection,
      exchange,
      early,
      rest,
      onEnd: (record) => {
        host.onTunnelEnd(record)
        host.onSessionEnd(this)
      },
    })
  }

  // --- the end -------------------------------------------------------------------------------------------------------------------

  /** Nothing more is sent. What the client still sends is read for a while: a reset would take the answer from under it. */
  #close(): void {
    this.#isClosing = true
    this.#ahead = null
    this.raw.end()
    this.raw.resume()
    const time = now()
    this.#closesBy = time + MAX_LINGER_MS
    this.#timer.set(time + LINGER_MS)
  }

  #onLeftover(): void {
    const time = now()
    if (time >= this.#closesBy) this.raw.destroy()
    else this.#timer.set(Math.min(this.#closesBy, time + LINGER_MS))
  }

  onTimer(): void {
    const { unsent } = this.raw
    if (this.#isClosing && unsent !== this.#unsent) {
      // The last answer is still being read.
      this.#unsent = unsent
      this.#closesBy = now() + SLOW_READER_MS
      this.#timer.set(this.#closesBy)
    } else if (this.#isClosing) this.raw.destroy()
    else if (this.#exchange !== null && (this.raw.ended || this.raw.isPaused))
      this.#askWhetherGone(this.#exchange, ASK_AGAIN_MS)
    else if (this.#exchange === null && this.#ahead === null && this.#reader.isPartial) {
      this.#refuse({ status: 408, text: `the head of the request was not complete within ${HEAD_MS} ms` })
    }
  }

  /** Closes an idle connection at once; a busy one closes after its answer, which says so. */
  drain(): void {
    if (this.#exchange === null && !this.#isClosing && this.#tunnel === null && !this.#reader.isPartial) this.#close()
  }

  /** Ends everything now. */
  destroy(): void {
    if (this.#tunnel !== null) this.#tunnel.destroy()
    else this.raw.destroy()
  }
}

function askedFor({ bytes, start, methodEnd, targetStart, targetEnd }: HeadParser): AskedFor {
  const [path = ''] = bytes.toString('latin1', targetStart, targetEnd).split('?')
  return { method: bytes.toString('latin1', start, methodEnd), path: path.startsWith('/') ? path : null }
}
