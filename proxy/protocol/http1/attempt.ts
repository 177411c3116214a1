/** One try of a request at one endpoint: its connection, its time-outs and its answer, up to the one end that every attempt has. */
import type { Reason } from '../../../common/reasons.ts'
import type { Bulkhead, Waiter } from '../../policy/bulkhead.ts'
import type { Outcome } from '../../policy/policy.ts'
import { now, refreshClock } from '../../runtime/clock.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import { breakText } from '../../tls/alerts.ts'
import type { PickRefusal } from '../../upstream/cluster.ts'
import type { Dial, DialFailure, DialTimes } from '../../upstream/connector.ts'
import type { Endpoint } from '../../upstream/endpoint.ts'
import { type ConnectionWaiter, suits } from '../../upstream/handover.ts'
import {
  type ConnectionCaller,
  type ConnectionUser,
  evictIdle,
  HttpPool,
  type UpstreamConnection,
} from '../../upstream/http-pool.ts'
import type { AttemptOwner } from './attempt-owner.ts'
import { BodyKind } from './framing.ts'
import type { ResponseFacts } from './headers.ts'
import { protocols } from './outgoing.ts'
import type { HeadParser } from './parser.ts'
import { fieldText } from './request-view.ts'
import { type ResponseOwner, ResponseRelay } from './response.ts'

/** RFC 9110 section 10.1.1: nobody waits for a 100 forever; the upstream may not know the expectation. */
const CONTINUE_MS = 1_000
/** Longest wait for a connection or for DNS of a request without a deadline. */
export const MAX_WAIT_MS = 30_000
export const CONTINUE = Buffer.from('HTTP/1.1 100 Continue\r\n\r\n')

type State =
  /** Nothing under way. */
  | 'free'
  /** Every connection is busy. */
  | 'queued'
  | 'dialling'
  /** A connection was chosen; it is written to in the next turn. */
  | 'checking'
  /** The request is on its way, or its answer is. */
  | 'sent'

export class Attempt implements ConnectionUser, ConnectionCaller, ConnectionWaiter, ResponseOwner {
  // Bulkhead's links.
  nextWaiter: Waiter | null = null
  previousWaiter: Waiter | null = null
  waitsAt: Bulkhead | null = null
  passedOver = 0

  readonly response = new ResponseRelay(this)
  state: State = 'free'
  /** The last endpoint that was asked. */
  asked: Endpoint | null = null
  begunAt = 0
  /** It was taken out of the retry budget. */
  isRetry = false
  readonly #owner: AttemptOwner
  #endpoint: Endpoint | null = null
  #token = -1
  /** When the request was complete at the upstream; 0 before that. */
  #askedAt = 0
  /** How long an endpoint took to begin an answer that is good so far, and that it is judged by when it is whole; -1: none is. */
  #judgedMs = -1
  /** No connection that was used before will do. */
  #isFresh = false
  #connection: UpstreamConnection | null = null
  #dial: Dial | null = null
  #waitingSince = 0
  /** What the slower side had not taken when the idle time was up the last time. */
  #unsent = 0
  /** A 100 of this attempt was passed on. */
  #saidContinue = false
  /** Of the state. */
  readonly #step = new CoarseTimer(() => this.#onStep())

  constructor(owner: AttemptOwner) {
    this.#owner = owner
  }

  /** A new exchange begins. */
  reset(): void {
    this.asked = null
    this.#unsent = 0
    this.#beginResponse()
  }

  #beginResponse(): void {
    const { isHead, isOld, target } = this.#owner
    this.response.begin(isHead, isOld, target.route === null ? null : target.route.responseChanges)
  }

  // --- a connection ----------------------------------------------------------------------------------------------------------

  /**
   * Looks for an endpoint and a connection to it.
   * @param picked an endpoint that was picked in this turn; null: none was
   * @param isFresh no connection that was used before will do
   */
  begin(time: number, picked: Endpoint | PickRefusal | null, isFresh: boolean): void {
    const owner = this.#owner
    const { cluster } = owner.target.upstream
    this.#isFresh = isFresh
    const endpoint = picked ?? cluster.pick(time, owner.tried, owner.hash)
    if (typeof endpoint === 'string') {
      owner.onNoEndpoint(endpoint, time)
      return
    }
    const pool = HttpPool.of(cluster, endpoint)
    const connection = isFresh ? null : pool.take(time, this.#isRepeatable)
    if (connection !== null) {
      this.#beginAt(endpoint, time)
      this.#use(connection)
      return
    }
    // A connection that idles at another endpoint gives up its slot.
    if (cluster.connections.tryAcquire() || (evictIdle(cluster) && cluster.connections.tryAcquire())) {
      this.#beginAt(endpoint, time)
      this.#connect(pool, time)
      return
    }
    if (!cluster.connections.wait(this)) {
      owner.onQueueFull()
      return
    }
    this.state = 'queued'
    this.passedOver = 0
    this.#waitingSince = time
    if (owner.deadlineAt === Number.POSITIVE_INFINITY) this.#step.set(time + MAX_WAIT_MS)
  }

  #beginAt(endpoint: Endpoint, time: number): void {
    const owner = this.#owner
    this.#token = endpoint.begin(time)
    this.#endpoint = endpoint
    this.asked = endpoint
    this.begunAt = time
    this.#saidContinue = false
    this.#askedAt = 0
    this.#judgedMs = -1
    owner.attempts++
    owner.target.upstream.cells.attempts++
  }

  #connect(pool: HttpPool, time: number): void {
    const { timeouts } = this.#owner.target
    this.state = 'dialling'
    this.#dial = pool.connect(this, timeouts.connectMs)
    this.onClientProgress(time)
  }

  #waited(time: number): void {
    this.#owner.queueMs += time - this.#waitingSince
    this.state = 'free'
    this.#step.clear()
  }

  /** A slot is ours. */
  onSlot(): void {
    const time = now()
    const owner = this.#owner
    const { cluster } = owner.target.upstream
    this.#waited(time)
    const endpoint = cluster.pick(time, owner.tried, owner.hash)
    if (typeof endpoint === 'string') {
      cluster.connections.release()
      // A changed config looks elsewhere, and has not found anything yet.
      if (cluster.isReady) owner.onNoEndpoint(endpoint, time)
      else owner.onLookAgain(time)
      return
    }
    const pool = HttpPool.of(cluster, endpoint)
    const connection = this.#isFresh ? null : pool.take(time, this.#isRepeatable)
    this.#beginAt(endpoint, time)
    if (connection === null) this.#connect(pool, time)
    else {
      cluster.connections.release()
      this.#use(connection)
    }
  }

  takes({ pool }: UpstreamConnection): boolean {
    const { target, tried, hash } = this.#owner
    return !this.#isFresh && suits(target.upstream.cluster, pool.endpoint, now(), tried, hash)
  }

  onIdleConnection(connection: UpstreamConnection): void {
    const time = now()
    this.#waited(time)
    this.#beginAt(connection.pool.endpoint, time)
    this.#use(connection)
  }

  onDialled(connection: UpstreamConnection, times: DialTimes): void {
    this.#dial = null
    this.#owner.connectMs = times.connectMs
    this.#owner.tlsMs = times.tlsMs
    if (connection.pool.endpoint !== this.#endpoint) this.#moveTo(connection.pool.endpoint)
    this.#use(connection)
  }

  /** Another address of the host accepted first; the one that was chosen is avoided for a while. */
  #moveTo(endpoint: Endpoint): void {
    const time = now()
    this.#endpoint?.dialFailed(time)
    if (this.#token >= 0) this.#endpoint?.settle(this.#token, 'abandoned', time)
    this.#endpoint?.leave()
    this.#token = endpoint.beginConnected(time)
    this.#endpoint = endpoint
    this.asked = endpoint
  }

  onDialFailed(failure: DialFailure): void {
    this.#dial = null
    const owner = this.#owner
    const isOurs = failure.reason === 'overloaded'
    if (!isOurs) {
      owner.target.upstream.cluster.dialFailed(this.#endpoint as Endpoint, now(), failure.isSilent)
      this.asked?.failed(failure.reason, failure.detail)
    }
    this.end(isOurs ? 'abandoned' : 'failure')
    owner.onFailed(this, failure.reason, failure.detail, 'ConnectFailure')
  }

  /** Another attempt is possible, for all that is known by now. */
  get #isRepeatable(): boolean {
    return this.#owner.isIdempotent && this.#owner.request.isReplayable
  }

  #use(connection: UpstreamConnection): void {
    connection.use(this)
    this.#connection = connection
    const { request } = this.#owner
    const mayGrow = !request.isComplete && request.body.kind === BodyKind.chunked
    if (connection.requests > 1 && (mayGrow || !this.#isRepeatable)) {
      // A request that cannot be sent twice, or may turn out so while its body comes: one turn later, a FIN that has come by now is known and another connection is taken.
      this.state = 'checking'
      setImmediate(onChecked, this, connection)
      return
    }
    this.#send(connection)
  }

  onChecked(connection: UpstreamConnection): void {
    if (this.state === 'checking' && this.#connection === connection) this.#send(connection)
  }

  #send(connection: UpstreamConnection): void {
    const owner = this.#owner
    const { request } = owner
    const time = now()
    this.state = 'sent'
    this.#beginResponse()
    const { credential } = owner.target.upstream
    if (credential?.signer !== undefined) request.sign(credential.signer, connection.pool.host)
    request.send(connection.raw, connection.pool.host, owner.clientSocket)
    if (request.isComplete) this.#awaitHead(time)
    else if (owner.expectsContinue) this.#step.set(time + CONTINUE_MS)
    else this.onProgress()
  }

  #awaitHead(time: number): void {
    this.#askedAt = time
    const { retry } = this.#owner.target
    const perTryMs = retry === null ? null : retry.config.perTryTimeoutMs
    if (retry !== null && retry.hedgeMs !== null) this.#owner.onAsked(time, retry.hedgeMs)
    if (perTryMs !== null) this.#step.set(time + perTryMs)
    else this.#step.clear()
  }

  // --- the client's side -------------------------------------------------------------------------------------------------------

  /** Part of the request's body came, and more is to come. */
  onClientProgress(time: number): void {
    const { request, target, expectsContinue } = this.#owner
    const { idleMs } = target.timeouts
    if (request.isComplete || expectsContinue || idleMs === null || this.state === 'queued') return
    this.#step.set(time + idleMs)
  }

  onRequestComplete(time: number): void {
    if (this.state === 'sent' && !this.response.isStarted) this.#awaitHead(time)
  }

  /** The client has taken everything: the upstream may go on. */
  onClientDrain(): void {
    this.#connection?.raw.resume()
    if (this.response.isStarted) this.onProgress()
  }

  // --- the upstream's side -------------------------------------------------------------------------------------------------

  onUpstreamData(chunk: Buffer, length: number): void {
    const connection = this.#connection
    if (connection === null) return
    if (this.state === 'checking') {
      // It speaks before it is asked: not the connection to ask on.
      this.#lost('upstream_reset', `endpoint ${this.asked?.name} sent bytes that nobody asked for`)
      return
    }
    this.response.onData(chunk, length, connection.raw, this.#owner.clientSocket)
  }

  onUpstreamDrain(): void {
    const { request, clientSocket } = this.#owner
    request.onDrain(clientSocket)
    if (this.state === 'sent' && !request.isComplete) this.onProgress()
  }

  onUpstreamEnd(): void {
    const connection = this.#connection
    if (connection === null) return
    const { response } = this
    if (this.state !== 'sent' || !response.mayEndWithConnection) {
      this.#lost('upstream_reset', `endpoint ${this.asked?.name} closed the connection`)
    } else if (connection.raw.isCut) {
      this.#lost(
        'upstream_reset',
        `endpoint ${this.asked?.name} ended an answer without a length by closing its connection, without ending TLS ` +
          '(close_notify): it may be cut short; have it send a length, or chunks',
      )
    } else {
      response.endWithConnection(this.#owner.clientSocket)
      this.onResponseEnd(false)
    }
  }

  onUpstreamClose(error: Error | null): void {
    if (this.#connection === null) return
    // Without a code it is an end of our own.
    const why = breakText(error) ?? error?.message ?? 'closed'
    this.#lost('upstream_reset', `the connection to endpoint ${this.asked?.name} broke: ${why}`)
  }

  onInterim(status: number): boolean {
    const owner = this.#owner
    if (status === 100) {
      if (owner.expectsContinue) {
        owner.expectsContinue = false
        this.onProgress()
      }
      // The proxy said it already, when the upstream took too long, or an earlier attempt did.
      if (owner.hasContinued && !this.#saidContinue) return false
      owner.hasContinued = true
      this.#saidContinue = true
    }
    return !owner.isOld
  }

  onSwitch(head: HeadParser, facts: ResponseFacts, chunk: Buffer, start: number, end: number): void {
    const owner = this.#owner
    if (!owner.isUpgrade || !owner.request.isComplete) {
      this.onBadResponse('it switches protocols without being asked')
      return
    }
    // RFC 9110 section 7.8: only to what was offered, and it has to say what that is.
    const chosen = protocols(fieldText(head, 'upgrade') ?? '')
    const { offered } = owner.request
    if (chosen.length === 0 || !chosen.every((each) => offered.includes(each))) {
      this.onBadResponse(`it switches to protocol '${chosen.join(', ')}', which was not offered`)
      return
    }
    const connection = this.#connection as UpstreamConnection
    this.#connection = null
    this.end('success')
    this.response.writeHead(head, facts, owner.clientSocket, false)
    owner.onSwitched(this, connection, Buffer.from(chunk.subarray(start, end)))
  }

  onFinalHead(head: HeadParser, facts: ResponseFacts, isWhole: boolean): boolean {
    const owner = this.#owner
    const { status } = head
    const time = now()
    if (status === 408 && !facts.isPersistent && this.#mayReplay) {
      // RFC 9110 section 15.5.9: the server had given up waiting for a request when this one came, which is no answer to it.
      this.end('abandoned')
      owner.onStale(this)
      return false
    }
    const outcome: Outcome =
      status === 429 ? 'throttled' : status >= 500 && status !== 501 && status !== 505 ? 'failure' : 'success'
    if (outcome === 'success' && !isWhole && this.#endpoint?.judgesWholeAnswers) {
      this.#endpoint.answered()
      this.#judgedMs = this.#tookMs(time)
      this.endRetry(true)
    } else this.#settle(outcome, time)
    if (outcome === 'failure') this.asked?.failed('answer', `status ${status}`)
    if (owner.onAnswer(this, head, time)) {
      this.#step.clear()
      return true
    }
    const connection = this.#connection as UpstreamConnection
    this.#connection = null
    owner.request.unsend(owner.clientSocket)
    this.state = 'free'
    this.#step.clear()
    this.#judge(outcome, time)
    this.#leave()
    if (isWhole && facts.isPersistent) connection.pool.giveBack(connection, facts.keepAliveSeconds)
    else connection.destroy()
    return false
  }

  /** The whole request was sent on a connection that was used before, and may be sent once more on a new one. */
  get #mayReplay(): boolean {
    const { isIdempotent, request } = this.#owner
    const wasUsed = (this.#connection?.requests ?? 0) > 1
    return wasUsed && isIdempotent && request.isComplete && request.isReplayable && !this.#isFresh
  }

  closesClient(facts: ResponseFacts): boolean {
    return this.#owner.closesClient(facts)
  }

  onProgress(): void {
    const { request, target, expectsContinue } = this.#owner
    const { idleMs } = target.timeouts
    if (this.state !== 'sent' || expectsContinue) return
    // Between the end of the request and the begin of the answer the deadlines count, not this.
    if (request.isComplete && !this.response.isStarted) return
    if (idleMs !== null) this.#step.set(now() + idleMs)
    else this.#step.clear()
  }

  onResponseEnd(isReusable: boolean): void {
    const owner = this.#owner
    const connection = this.#connection as UpstreamConnection
    this.#connection = null
    this.state = 'free'
    this.#step.clear()
    this.#judge('success', now())
    this.#leave()
    if (isReusable && owner.request.isComplete) connection.pool.giveBack(connection, this.response.keepAliveSeconds)
    else connection.destroy()
    owner.onAnswered()
  }

  onBadResponse(text: string, isForeign = false): void {
    const detail = `endpoint ${this.asked?.name} does not answer in well-formed HTTP/1.1: ${text}`
    this.#lost('upstream_reset', detail, 'http_protocol_error', isForeign)
  }

  /**
   * The connection cannot be used any more before the response was complete.
   * @param isForeign what came is no answer: on a connection that was used before, it is the rest of an earlier one
   */
  #lost(reason: Reason, detail: string, proxyError?: string, isForeign = false): void {
    const owner = this.#owner
    const connection = this.#connection as UpstreamConnection
    const isUnsent = this.state === 'checking'
    if (this.response.isStarted) {
      this.asked?.failed('upstream_truncated', detail)
      this.end('failure')
      owner.onBroken('upstream_truncated', detail)
      return
    }
    const hasNoAnswer = isForeign || (!this.response.hasBegun && proxyError === undefined)
    const isStale = connection.requests > 1 && hasNoAnswer
    const mayReplay = isUnsent || (owner.isIdempotent && owner.request.isReplayable)
    // Only of a connection that nothing was sent on it is certain that the close is not the answer to the request.
    if (isStale && isUnsent) connection.pool.onStale(connection.restedMs)
    if (!isStale) this.asked?.failed(reason, detail)
    this.end(isStale ? 'abandoned' : 'failure')
    // The server closed an idle connection while the request was on its way: nobody failed.
    if (isStale && mayReplay && !this.#isFresh) owner.onStale(this)
    // Who does not speak HTTP did take the request, and will not speak it at the next try either: that is no reset.
    else owner.onFailed(this, reason, detail, proxyError === undefined ? 'Reset' : null, proxyError)
  }

  // --- time-outs -----------------------------------------------------------------------------------------------------------

  #onStep(): void {
    if (this.state === 'queued') this.#owner.onWaitedTooLong(MAX_WAIT_MS)
    else if (this.state === 'sent') this.#onSentTooLong()
    // A client that stopped in the middle of its body while the request waited.
    else if (!this.#owner.request.isComplete) this.#owner.onIdleClient()
  }

  #onSentTooLong(): void {
    const owner = this.#owner
    if (owner.expectsContinue) {
      owner.expectsContinue = false
      owner.hasContinued = true
      owner.clientSocket.write(CONTINUE)
      this.onProgress()
      return
    }
    const { isStarted } = this.response
    if (!isStarted && owner.request.isComplete) {
      const perTryMs = owner.target.retry?.config.perTryTimeoutMs
      this.#timedOut(`endpoint ${this.asked?.name} did not answer within ${perTryMs} ms`)
      return
    }
    // Whoever reads slowly but does read is not idle, though none of our writes has ended meanwhile.
    const receiver = isStarted ? owner.clientSocket : this.#connection?.raw
    const unsent = receiver?.unsent ?? 0
    if (unsent !== this.#unsent) {
      this.#unsent = unsent
      this.onProgress()
      return
    }
    if (!isStarted) {
      if (unsent > 0) this.#timedOut('the upstream does not take the body of the request')
      else owner.onIdleClient()
      return
    }
    const who = unsent > 0 ? 'the application does not take' : `endpoint ${this.asked?.name} does not send`
    const detail = `${who} the body of the answer: no byte for ${owner.target.timeouts.idleMs} ms`
    this.end(unsent > 0 ? 'abandoned' : 'failure')
    owner.onBroken(unsent > 0 ? 'client_gone' : 'upstream_truncated', detail)
  }

  #timedOut(detail: string): void {
    this.asked?.failed('try_timeout', detail)
    this.end('failure')
    this.#owner.onFailed(this, 'try_timeout', detail, 'Timeout')
  }

  // --- the end -------------------------------------------------------------------------------------------------------------

  #tookMs(time: number): number {
    return this.#askedAt === 0 ? 0 : time - this.#askedAt
  }

  #settle(outcome: Outcome, time: number): void {
    this.#judge(outcome, time)
    this.endRetry(outcome === 'success')
  }

  /** Tells the breaker how the attempt went; once. */
  #judge(outcome: Outcome, time: number): void {
    if (this.#token < 0) return
    const hasBegunWell = this.#judgedMs >= 0
    // Whoever leaves in the middle of an answer says nothing against it.
    const verdict = hasBegunWell && outcome === 'abandoned' ? 'success' : outcome
    this.#endpoint?.settle(this.#token, verdict, time, hasBegunWell ? this.#judgedMs : this.#tookMs(time))
    this.#token = -1
  }

  /** It does not count as a retry in flight any more. */
  endRetry(succeeded: boolean): void {
    if (!this.isRetry) return
    this.isRetry = false
    this.#owner.target.upstream.cluster.budget.endRetry(succeeded)
  }

  /** The endpoint has no load of this attempt any more. */
  #leave(): void {
    this.#endpoint?.leave()
    this.#endpoint = null
  }

  /** Ends whatever is under way. Idempotent. @param outcome what the breaker is told, unless it knows already */
  end(outcome: Outcome): void {
    this.#dial?.cancel()
    this.#dial = null
    if (this.waitsAt !== null) {
      this.waitsAt.cancel(this)
      this.#waited(now())
    }
    this.#settle(outcome, now())
    this.#leave()
    const connection = this.#connection
    this.#connection = null
    this.state = 'free'
    this.#step.clear()
    connection?.destroy()
  }

  /** The attempt will not be used again. */
  release(): void {
    this.#step.release()
  }
}

function onChecked(attempt: Attempt, connection: UpstreamConnection): void {
  refreshClock()
  attempt.onChecked(connection)
}
