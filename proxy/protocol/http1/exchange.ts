/** One request and its answer: gates, attempts, retries and deadlines, up to the one end that every exchange has. */
import type { Reason } from '../../../common/reasons.ts'
import type { Outcome } from '../../policy/policy.ts'
import { hashOf, type Router, rewritten } from '../../routing/router.ts'
import { now } from '../../runtime/clock.ts'
import { isMemoryShort, overloadCause } from '../../runtime/overload.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import { Trace } from '../../tracing/trace-context.ts'
import { NONE } from '../../upstream/balancer.ts'
import type { PickRefusal } from '../../upstream/cluster.ts'
import { NO_HASH } from '../../upstream/consistent-hash.ts'
import type { Endpoint } from '../../upstream/endpoint.ts'
import { HttpPool, type UpstreamConnection } from '../../upstream/http-pool.ts'
import type { Attempt } from './attempt.ts'
import type { AttemptOwner, Condition } from './attempt-owner.ts'
import { Attempts } from './attempts.ts'
import type { AfterExchange, ExchangeClient } from './exchange-client.ts'
import { ExchangeFacts } from './exchange-facts.ts'
import { BodyKind } from './framing.ts'
import type { RequestFacts, ResponseFacts } from './headers.ts'
import { OutgoingRequest } from './outgoing.ts'
import type { Fault, HeadParser } from './parser.ts'
import { Preparation, type PreparationOwner } from './preparation.ts'
import { noEndpoint, notRetried, overDeadline, overloaded, queueFull, waitedTooLong } from './refusals.ts'
import { AnswerFields, fieldText, HeadView } from './request-view.ts'
import { answer, type Refusal, statusOf } from './respond.ts'
import type { ResponseRelay } from './response.ts'
import { Retries } from './retries.ts'
import type { HttpRoute, HttpSnapshot, HttpTarget } from './snapshot.ts'
import { beginTrace, traceAttempt } from './trace-fields.ts'

const NO_HOST = Buffer.alloc(0)

type State =
  /** Nothing under way. */
  | 'free'
  /** Something comes first: the preparation knows more. */
  | 'preparing'
  /** The attempt knows more. */
  | 'trying'
  /** Waits to be sent again. */
  | 'backoff'

export class Exchange extends ExchangeFacts implements AttemptOwner, PreparationOwner {
  readonly request = new OutgoingRequest()
  #client!: ExchangeClient
  #state: State = 'free'
  #isPersistent = true
  /** The next attempt needs a new connection: a reused one was dead. */
  #wasReplayed = false
  /** The client was told that its connection ends with this answer. */
  #saidClose = false
  /** Kept for the next request that is traced. */
  #ownTrace: Trace | null = null
  readonly #attempts = new Attempts(this)
  readonly #retries = new Retries()
  readonly #preparation = new Preparation(this)
  /** Of the whole exchange up to the answer. */
  readonly #deadline = new CoarseTimer(() => this.#onDeadline())
  /** Of the backoff, and until the request is sent a second time. */
  readonly #step = new CoarseTimer(() => this.#onStep())

  /** The last endpoint that was asked. */
  get endpoint(): Endpoint | null {
    return this.#attempts.current.asked
  }

  get response(): ResponseRelay {
    return this.#attempts.current.response
  }

  get clientSocket(): RawSocket {
    return this.#client.raw
  }

  get tried(): readonly Endpoint[] {
    return this.#retries.tried
  }

  /** The request's body is not complete: what the client sends next belongs to it. */
  get wantsBody(): boolean {
    return !this.request.isComplete
  }

  // --- begin ---------------------------------------------------------------------------------------------------------------

  /**
   * Takes over a request whose head is well-formed.
   * @returns the offset in `chunk` behind what belongs to it. The exchange may have ended by then.
   */
  begin(
    client: ExchangeClient,
    snapshot: HttpSnapshot,
    head: HeadParser,
    facts: RequestFacts,
    chunk: Buffer,
    next: number,
    end: number,
  ): number {
    const time = now()
    let target: HttpTarget = snapshot.router === null ? snapshot : routed(snapshot, snapshot.router, head, facts)
    const { hosts } = target.upstream
    if (hosts !== null) target = hosts.target(target, head)
    const { upstream, retry, route } = target
    this.#client = client
    this.#isPersistent = facts.isPersistent
    this.take(snapshot, target, head, facts, time)
    this.#wasReplayed = false
    this.#retries.reset()
    this.#attempts.reset()
    if (snapshot.tracing === null) this.trace = null
    else beginTrace((this.trace = this.#ownTrace ??= new Trace()), head, snapshot.tracing.sample)
    upstream.cells.active++
    const { cluster, credential } = upstream
    const { hashOn } = upstream
    this.hash = hashOn === null ? NO_HASH : hashOf(hashOn, view.of(head, facts))
    const picked = cluster.isReady ? cluster.pick(time, NONE, this.hash) : null
    const host = picked === null || typeof picked === 'string' ? NO_HOST : HttpPool.of(cluster, picked).host
    const payload = credential?.signer === undefined ? null : fieldText(head, credential.signer.payloadField)
    const isAuthorized = this.#preparation.begin(credential, payload !== null)
    const { line, keptBytes: limit } = this.#preparation
    const name = line === null ? null : upstream.credentialName
    const path = route === null || route.rewrite === null ? null : rewrittenPath(route.rewrite, head, facts)
    const changes = route === null ? upstream.requestChanges : route.requestChanges
    const behind = this.request.begin(head, facts, host, name, line, path, changes, this.trace, limit, chunk, next, end)
    if (behind === -1) {
      this.onBadBody(this.request.body.fault)
      return end
    }
    if (hosts !== null && hosts.refusal !== null) {
      this.onRefusal(hosts.refusal)
      return behind
    }
    if (!isAuthorized) {
      this.#preparation.refuseWithoutToken()
      return behind
    }
    if (overloadCause() !== null) {
      this.onRefusal(overloaded())
      return behind
    }
    const problem = payload === null ? null : (credential?.signer?.payloadProblem(payload) ?? null)
    if (problem !== null) {
      this.onRefusal({ reason: 'bad_request', detail: problem })
      return behind
    }
    if (this.request.isComplete) this.#onRequestComplete(time)
    const waitMs = this.#preparation.admit(time)
    if (waitMs > 0) this.#state = 'preparing'
    else if (waitMs === 0) {
      if (retry !== null) cluster.budget.deposit(time)
      this.#try(time, picked)
    }
    return behind
  }

  /** More of the request's body. Returns the offset behind what belongs to it. */
  onRequestBody(chunk: Buffer, start: number, end: number): number {
    const behind = this.request.accept(this.#client.raw, chunk, start, end)
    if (behind === -1) {
      this.onBadBody(this.request.body.fault)
      return end
    }
    const time = now()
    // A client that does not wait for its 100 has given the expectation up.
    this.expectsContinue = false
    if (this.request.isComplete) this.#onRequestComplete(time)
    else if (this.#state === 'trying') this.#attempts.current.onClientProgress(time)
    if (this.#state === 'preparing') this.#preparation.onRequestBody(time)
    return behind
  }

  /** The deadline runs from here: how long an upload takes is the client's affair. */
  #onRequestComplete(time: number): void {
    const { requestMs } = this.target.timeouts
    if (requestMs !== null && !this.response.isStarted) {
      this.deadlineAt = time + requestMs
      this.#deadline.set(this.deadlineAt)
    }
    if (this.#state === 'trying') this.#attempts.current.onRequestComplete(time)
  }

  /** The chunks of the request are not well-formed: the upstream must not take what it has for a whole request. */
  onBadBody(fault: Fault | null): void {
    this.#endAttempt('abandoned')
    const detail = fault?.text ?? ''
    if (this.response.isStarted) this.onBroken('bad_request', detail)
    else this.onRefusal({ reason: 'bad_request', detail, status: fault?.status })
  }

  // --- attempts ------------------------------------------------------------------------------------------------------------

  /** Sends the request, as soon as there is a token and somebody to ask. */
  #try(time: number, picked: Endpoint | PickRefusal | null): void {
    if (!this.#preparation.isReady(time)) {
      // Unless it was refused just now.
      if (this.#preparation.isWaiting) this.#state = 'preparing'
      return
    }
    this.#state = 'trying'
    this.#attempts.current.begin(time, picked, this.#wasReplayed)
  }

  onPrepared(time: number): void {
    this.#try(time, null)
  }

  onLookAgain(time: number): void {
    this.#try(time, null)
  }

  /** A refused request that can be sent again whatever its method is: nobody has acted upon it. */
  get #isRepeatable(): boolean {
    return this.request.isComplete && this.request.isReplayable && !this.#client.isDraining
  }

  /** An answer that refuses the credential: waits for another one, once. False: the answer is the client's. */
  #reauthorize({ response }: Attempt, head: HeadParser, time: number): boolean {
    const signer = this.target.upstream.credential?.signer
    const isExpired = signer?.saysExpired(fieldText(head, signer.errorField), response.begun) === true
    let isAwaited = false
    if (head.status === 401 || isExpired) isAwaited = this.#isRepeatable && this.#preparation.awaitAnotherToken(time)
    else if (signer !== undefined && this.#isRepeatable) {
      const date = fieldText(head, 'date')
      isAwaited = date !== null && this.#preparation.awaitAnotherSignature(Date.parse(date), time)
    }
    if (isAwaited) this.#state = 'preparing'
    return isAwaited
  }

  onNoEndpoint(refusal: PickRefusal, time: number): void {
    const { cluster } = this.target.upstream
    if (this.attempts > 0 && this.reason !== null) {
      // What the attempts failed of says more than that there is nobody left to ask.
      this.onRefusal({ reason: this.reason, detail: this.detail })
    } else this.onRefusal(noEndpoint(cluster, refusal, time))
  }

  onQueueFull(): void {
    this.onRefusal(queueFull(this.target.upstream.cluster))
  }

  onWaitedTooLong(ms: number): void {
    this.onRefusal(waitedTooLong(this.target.upstream.cluster, ms))
  }

  // --- answers -------------------------------------------------------------------------------------------------------------

  onAnswer(attempt: Attempt, head: HeadParser, time: number): boolean {
    const { status } = head
    const { pacer } = this.target.upstream.cluster
    if (pacer !== null) pacer.onAnswer(status, answerFields.of(head), time, Date.now())
    const plan = this.target.retry
    // The other attempt may do better than an answer that would be tried again.
    if (plan !== null && plan.statuses[status] === 1 && this.#leave(attempt)) return false
    this.#attempts.win(attempt)
    if ((status === 401 || status === 400 || status === 403) && this.#reauthorize(attempt, head, time)) return false
    if (plan !== null && plan.statuses[status] === 1 && this.#retries.afterAnswer(this, attempt, head, time)) {
      this.#startBackoff(attempt, time)
      this.reason = null
      if (this.trace !== null) traceAttempt(this.trace, attempt, time, status, null)
      return false
    }
    this.status = status
    this.ttfbMs = time - this.startedAt
    this.#step.clear()
    // What an earlier try failed of is not the news any more.
    this.reason = null
    this.detail = ''
    this.#deadline.clear()
    return true
  }

  closesClient(facts: ResponseFacts): boolean {
    // Without chunks, the end of the connection is the only end that a body of unknown length has.
    const isEndless = this.isOld && (facts.body === BodyKind.untilClose || facts.body === BodyKind.chunked)
    this.#saidClose = isEndless || !this.#isPersistent || !this.request.isComplete || this.#client.isDraining
    return this.#saidClose
  }

  onSwitched(_attempt: Attempt, connection: UpstreamConnection, rest: Buffer): void {
    this.ttfbMs = now() - this.startedAt
    this.status = 101
    this.reason = null
    this.detail = ''
    this.target.upstream.cells.upgrades++
    this.#client.onTunnel(this, connection, rest)
    this.#finish('tunnel', connection.raw.backlog > 0)
  }

  onAnswered(): void {
    this.#finish(this.#saidClose || !this.request.isComplete || this.#client.isDraining ? 'close' : 'keep')
  }

  /** The end of the client's connection is the end of the body: only a reset can show that it was cut short. */
  get endsWithClose(): boolean {
    const { kind } = this.response.body
    return this.response.isStarted && this.isOld && (kind === BodyKind.untilClose || kind === BodyKind.chunked)
  }

  // --- failure and retry ---------------------------------------------------------------------------------------------------

  /** One of two attempts is over: the other one goes on. False: there is no other one. */
  #leave(attempt: Attempt): boolean {
    if (!this.#attempts.leave(attempt)) return false
    if (attempt.asked !== null) this.#retries.tried.push(attempt.asked)
    attempt.response.abandon(null)
    return true
  }

  onStale(attempt: Attempt): void {
    this.attempts--
    if (this.#leave(attempt)) return
    this.#wasReplayed = true
    this.target.upstream.cells.replays++
    this.request.unsend(this.#client.raw)
    this.#try(now(), null)
  }

  onFailed(attempt: Attempt, reason: Reason, detail: string, condition: Condition, proxyError?: string): void {
    if (this.#leave(attempt)) return
    this.request.unsend(this.#client.raw)
    this.response.abandon(null)
    this.#state = 'free'
    this.reason = reason
    this.detail = detail
    const time = now()
    const obstacle = this.#retries.afterFailure(this, attempt, condition, time)
    if (obstacle === 'none') {
      this.#startBackoff(attempt, time)
      if (this.trace !== null) traceAttempt(this.trace, attempt, time, 0, reason)
    } else if (obstacle === 'final') this.onRefusal({ reason, detail, proxyError })
    else this.onRefusal(notRetried(obstacle, reason, detail))
  }

  #startBackoff(attempt: Attempt, time: number): void {
    attempt.isRetry = true
    this.#wasReplayed = false
    this.#state = 'backoff'
    this.#step.set(time + this.#retries.waitMs)
  }

  onAsked(time: number, hedgeMs: number): void {
    if (this.#attempts.mayHedge) this.#step.set(time + hedgeMs)
  }

  #onStep(): void {
    if (this.#state === 'backoff') this.#try(now(), null)
    else if (this.#state === 'trying') this.#attempts.hedge(now())
  }

  onIdleClient(): void {
    const detail = `the application sent no byte of the request's body for ${this.target.timeouts.idleMs} ms`
    this.onRefusal({ reason: 'bad_request', detail, status: 408 })
  }

  #onDeadline(): void {
    if (this.response.isStarted) return
    const { requestMs } = this.target.timeouts
    const attempt = this.#attempts.current
    if (attempt.state === 'queued') {
      this.onWaitedTooLong(requestMs ?? 0)
      return
    }
    if (this.#preparation.isHeld) {
      this.onNoEndpoint(this.target.upstream.cluster.whyUnready, now())
      return
    }
    const wasSent = attempt.state === 'sent'
    this.#endAttempt(wasSent || attempt.state === 'dialling' ? 'failure' : 'abandoned')
    this.onRefusal(overDeadline(requestMs, wasSent ? (attempt.asked?.name ?? '') : null, this.detail))
  }

  // --- the client's side ---------------------------------------------------------------------------------------------------

  /** The client has taken everything: the upstream may go on. */
  onClientDrain(): void {
    this.#attempts.current.onClientDrain()
  }

  /** The client sends no more requests; this one it may still wait for. */
  onClientHalfClosed(): void {
    this.#isPersistent = false
  }

  /** The client is gone: whatever is under way is given up at once. */
  onClientGone(): void {
    this.#endAttempt('abandoned')
    if (!this.response.isStarted) this.status = 0
    this.reason = 'client_gone'
    this.detail = ''
    this.#finish('cut')
  }

  /** Is given up so that the process does not run out of memory. */
  onShed(detail: string): void {
    if (!this.response.isStarted) {
      this.onRefusal({ reason: 'overloaded', detail, retryAfterMs: 1000 })
      return
    }
    this.#endAttempt('abandoned')
    this.onBroken('overloaded', detail)
  }

  // --- the end -------------------------------------------------------------------------------------------------------------

  /** Ends what waits or is under way. */
  #endAttempt(outcome: Outcome): void {
    this.#preparation.cancel()
    this.#attempts.end(outcome)
  }

  /** Answers in the upstream's place. */
  onRefusal(refusal: Refusal): void {
    this.#endAttempt('abandoned')
    this.reason = refusal.reason
    this.detail = refusal.detail
    this.status = statusOf(refusal)
    const closes = !this.#isPersistent || !this.request.isComplete || this.#client.isDraining || isMemoryShort()
    const { requestId } = this.request
    const bytes = answer(refusal, { isHead: this.isHead, isOld: this.isOld, closes, requestId })
    this.#client.raw.write(bytes)
    this.#finish(closes ? 'close' : 'keep')
  }

  /** The client's connection is cut, in whatever way its framing needs to show that the answer is not complete. */
  onBroken(reason: Reason, detail: string): void {
    this.reason = reason
    this.detail = detail
    this.#finish('cut')
  }

  #finish(after: AfterExchange, isHeld = false): void {
    this.#state = 'free'
    this.#deadline.clear()
    this.#step.clear()
    this.endedAt = now()
    const { cells } = this.target.upstream
    const { response } = this
    cells.active--
    cells.requestBytes += this.request.body.contentBytes
    if (response.isStarted) cells.responseBytes += response.body.contentBytes
    cells.add(this.status, this.endedAt - this.startedAt)
    if (this.queueMs > 0) cells.queueWait.add(this.queueMs)
    if (this.reason !== null) cells.reasons[this.reason]++
    const mirror = this.target.route?.mirror ?? null
    if (mirror !== null && this.attempts > 0 && this.request.isComplete && !this.isUpgrade) mirror.offer(this.request)
    if (after !== 'keep') response.abandon(null)
    this.#client.record(this)
    this.request.end(isHeld)
    this.#client.onExchangeEnd(this, after)
  }

  /** The exchange will not be used again. */
  release(): void {
    this.#deadline.release()
    this.#step.release()
    this.#preparation.release()
    this.#attempts.release()
  }
}

const view = new HeadView()
const answerFields = new AnswerFields()

/** What the routes say of a request; without one that matches, the snapshot. */
function routed(snapshot: HttpSnapshot, router: Router<HttpTarget>, head: HeadParser, facts: RequestFacts): HttpTarget {
  view.of(head, facts)
  return router.route(view)?.pick(view, Math.random) ?? snapshot
}

function rewrittenPath(rewrite: NonNullable<HttpRoute['rewrite']>, head: HeadParser, facts: RequestFacts): Buffer {
  return Buffer.from(rewritten(view.of(head, facts).target(), rewrite), 'latin1')
}
