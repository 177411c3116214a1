/** One request and its answer: gates, attempts, retries and deadlines, up to the one end that every exchange has. */
import type { Reason } from '../../../common/reasons.ts'
import { parseRetryAfter } from '../../policy/backoff.ts'
import type { HeaderCredential, RequestSigner } from '../../policy/credential.ts'
import type { Outcome } from '../../policy/policy.ts'
import { hashOf, type Router, rewritten } from '../../routing/router.ts'
import { now, refreshClock } from '../../runtime/clock.ts'
import { overloadCause, overloadDetail } from '../../runtime/overload.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import { Trace } from '../../tracing/trace-context.ts'
import { NONE } from '../../upstream/balancer.ts'
import type { PickRefusal } from '../../upstream/cluster.ts'
import { NO_HASH } from '../../upstream/consistent-hash.ts'
import type { Endpoint } from '../../upstream/endpoint.ts'
import { HttpPool, type UpstreamConnection } from '../../upstream/http-pool.ts'
import { Attempt, type AttemptOwner, CONTINUE, type Condition, MAX_WAIT_MS } from './attempt.ts'
import { Authorization } from './authorization.ts'
import { BodyKind } from './framing.ts'
import type { RequestFacts, ResponseFacts } from './headers.ts'
import { OutgoingRequest } from './outgoing.ts'
import type { Fault, HeadParser } from './parser.ts'
import { AnswerFields, fieldText, HeadView } from './request-view.ts'
import { answer, type Refusal, statusOf } from './respond.ts'
import type { ResponseRelay } from './response.ts'
import { type Obstacle, Retries } from './retries.ts'
import type { HttpRoute, HttpSnapshot, HttpTarget, RetryPlan } from './snapshot.ts'
import { Field } from './tables.ts'

/** How the client's connection goes on after an exchange. */
export type AfterExchange =
  /** It takes the next request. */
  | 'keep'
  /** Nothing more is sent; what the client still sends is read for a while so that it can read the answer. */
  | 'close'
  /** It is cut, so that the client sees an answer that is not complete. */
  | 'cut'
  /** It carries another protocol. */
  | 'tunnel'

/** The client's side of an exchange. */
export interface ExchangeClient {
  readonly raw: RawSocket
  /** The connection takes no request after this one, whatever the client wants. */
  readonly isDraining: boolean
  /** The exchange is over: what it was can be asked until onExchangeEnd, which follows at once. */
  record(exchange: Exchange): void
  /** Exactly once for each exchange, which may begin another one from here on. */
  onExchangeEnd(exchange: Exchange, after: AfterExchange): void
  /** The upstream took up another protocol: everything from here on belongs to it. `rest` is what it sent already. */
  onTunnel(exchange: Exchange, connection: UpstreamConnection, rest: Buffer): void
}

/** Bodies up to this are kept for a reused connection that turns out to be dead, when no retry says otherwise. */
const REPLAY_BYTES = 64 * 1024
const NO_HOST = Buffer.alloc(0)

type State =
  /** Nothing under way. */
  | 'free'
  /** The rate limit made it wait. */
  | 'delayed'
  /** A token is being fetched. */
  | 'authorizing'
  /** The rest of the body comes first: it is signed as a whole. */
  | 'collecting'
  /** Discovery has not found an endpoint yet. */
  | 'held'
  /** The attempt knows more. */
  | 'trying'
  /** Waits to be sent again. */
  | 'backoff'

export class Exchange implements AttemptOwner {
  readonly request = new OutgoingRequest()
  snapshot!: HttpSnapshot
  /** Where it goes: what a route says, or the snapshot itself. */
  target!: HttpTarget
  /** What the client was answered with; 0: it left first. */
  status = 0
  /** Why it failed, or why the answer is the proxy's own; null when it is the upstream's. */
  reason: Reason | null = null
  detail = ''
  attempts = 0
  startedAt = 0
  endedAt = 0
  /** Times for the access log, in milliseconds: of waiting for a connection, and of the last attempt. */
  queueMs = 0
  connectMs = 0
  tlsMs = 0
  /** From the begin to the first byte of the final answer; -1 when there was none. */
  ttfbMs = -1
  isHead = false
  isOld = false
  isIdempotent = false
  isUpgrade = false
  expectsContinue = false
  hasContinued = false
  deadlineAt = Number.POSITIVE_INFINITY
  /** Where it stands in a trace; null: nobody sends spans. */
  trace: Trace | null = null

  /** Of what ConsistentHash looks at; NO_HASH: nothing. */
  hash = NO_HASH

  #client!: ExchangeClient
  #state: State = 'free'
  #isPersistent = true
  /** The next attempt needs a new connection: a reused one was dead. */
  #wasReplayed = false
  /** The application says what its content is signed as. */
  #isPayloadKnown = false
  /** The client was told that its connection ends with this answer. */
  #saidClose = false
  /** Kept for the next request that is traced. */
  #ownTrace: Trace | null = null
  #leaveHold: (() => void) | null = null
  #waitingSince = 0
  readonly #attempt = new Attempt(this)
  readonly #retries = new Retries()
  readonly #authorization = new Authorization((time) => this.#onToken(time))
  /** Of the whole exchange up to the answer. */
  readonly #deadline = new CoarseTimer(() => this.#onDeadline())
  /** Of the state. */
  readonly #step = new CoarseTimer(() => this.#onStep())

  /** The last endpoint that was asked. */
  get endpoint(): Endpoint | null {
    return this.#attempt.asked
  }

  get response(): ResponseRelay {
    return this.#attempt.response
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

  get isIdle(): boolean {
    return this.#state === 'free'
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
    this.snapshot = snapshot
    this.target = target
    this.isHead = facts.isHead
    this.isOld = facts.isOld
    this.isIdempotent = facts.isIdempotent || head.has(Field.idempotencyKey) || retry?.config.methods === 'All'
    this.isUpgrade = facts.isUpgrade
    this.#isPersistent = facts.isPersistent
    this.expectsContinue = facts.expectsContinue
    this.#reset(time)
    if (snapshot.tracing === null) this.trace = null
    else this.#beginTrace(head, snapshot.tracing.sample)
    upstream.cells.active++
    const { cluster, credential } = upstream
    const { hashOn } = upstream
    this.hash = hashOn === null ? NO_HASH : hashOf(hashOn, view.of(head, facts))
    const picked = cluster.isReady ? cluster.pick(time, NONE, this.hash) : null
    const host = picked === null || typeof picked === 'string' ? NO_HOST : HttpPool.of(cluster, picked).host
    const isAuthorized = this.#authorization.begin(credential)
    const { line } = this.#authorization
    const name = line === null ? null : upstream.credentialName
    const limit = this.#keptBytes
    const path = route === null || route.rewrite === null ? null : rewrittenPath(route.rewrite, head, facts)
    const changes = route === null ? upstream.requestChanges : route.requestChanges
    const payload = credential?.signer === undefined ? null : fieldText(head, credential.signer.payloadField)
    this.#isPayloadKnown = payload !== null
    const behind = this.request.begin(head, facts, host, name, line, path, changes, this.trace, limit, chunk, next, end)
    if (behind === -1) {
      this.onBadBody(this.request.body.fault)
      return end
    }
    if (hosts !== null && hosts.refusal !== null) {
      this.#refuse(hosts.refusal)
      return behind
    }
    if (!isAuthorized) {
      this.#refuseWithoutToken()
      return behind
    }
    if (overloadCause() !== null) {
      this.#refuse({ reason: 'overloaded', detail: overloadDetail(), retryAfterMs: 1000 })
      return behind
    }
    const problem = payload === null ? null : (credential?.signer?.payloadProblem(payload) ?? null)
    if (problem !== null) {
      this.#refuse({ reason: 'bad_request', detail: problem })
      return behind
    }
    if (this.request.isComplete) this.#onRequestComplete(time)
    const waitMs = this.#admit(target, time)
    if (waitMs < 0) return behind
    if (waitMs > 0) {
      this.#state = 'delayed'
      this.#waitingSince = time
      this.#step.set(time + waitMs)
    } else {
      if (retry !== null) cluster.budget.deposit(time)
      this.#try(time, picked)
    }
    return behind
  }

  /** How long the limits make it wait; less than 0: it was refused. */
  #admit({ rateLimit, upstream }: HttpTarget, time: number): number {
    const ownMs = rateLimit === null ? 0 : rateLimit.admit(time)
    if (rateLimit !== null && ownMs < 0) {
      const fields = rateLimit.fieldLines(-ownMs)
      this.#refuse({ reason: 'rate_limited', detail: '', retryAfterMs: -ownMs, fields })
      return ownMs
    }
    const { pacer } = upstream.cluster
    if (pacer === null) return ownMs
    const pacedMs = pacer.admit(time + ownMs)
    if (pacedMs >= 0) return ownMs + pacedMs
    rateLimit?.giveBack()
    this.#refusePaced(-pacedMs)
    return pacedMs
  }

  #refusePaced(retryAfterMs: number): void {
    const detail = `upstream '${this.target.upstream.cluster.name}' said that it takes no more for now`
    this.#refuse({ reason: 'rate_limited', detail, retryAfterMs })
  }

  #beginTrace(head: HeadParser, sample: number): void {
    const trace = (this.#ownTrace ??= new Trace())
    this.trace = trace
    const isOne = head.has(Field.traceparent) && (head.repeated & (1 << Field.traceparent)) === 0
    const index = isOne ? head.first[Field.traceparent]! : -1
    trace.begin(head.bytes, isOne ? head.valueStart(index) : -1, isOne ? head.valueEnd(index) : -1, sample)
    if (!trace.hasParent || !head.has(Field.tracestate)) return
    // Several fields are one list (section 3.3.1); nobody sends several, so the span does without.
    if ((head.repeated & (1 << Field.tracestate)) !== 0) return
    const state = head.first[Field.tracestate]!
    trace.takeState(head.bytes, head.valueStart(state), head.valueEnd(state))
  }

  #reset(time: number): void {
    this.status = 0
    this.reason = null
    this.detail = ''
    this.attempts = 0
    this.startedAt = time
    this.queueMs = 0
    this.connectMs = 0
    this.tlsMs = 0
    this.ttfbMs = -1
    this.hasContinued = false
    this.deadlineAt = Number.POSITIVE_INFINITY
    this.#wasReplayed = false
    this.#retries.reset()
    this.#attempt.reset()
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
    else if (this.#state === 'trying') this.#attempt.onClientProgress(time)
    else if (this.#state === 'held' || this.#state === 'collecting') this.#awaitClient(time)
    if (this.#state === 'collecting' && (this.request.isComplete || !this.request.isReplayable)) {
      this.#waited(time)
      this.#try(time, null)
    }
    return behind
  }

  /** The deadline runs from here: how long an upload takes is the client's affair. */
  #onRequestComplete(time: number): void {
    const { requestMs } = this.target.timeouts
    if (requestMs !== null && !this.response.isStarted) {
      this.deadlineAt = time + requestMs
      this.#deadline.set(this.deadlineAt)
    }
    if (this.#state === 'trying') this.#attempt.onRequestComplete(time)
    else if (this.#state === 'held') this.#step.clear()
  }

  /** The chunks of the request are not well-formed: the upstream must not take what it has for a whole request. */
  onBadBody(fault: Fault | null): void {
    this.#endAttempt('abandoned')
    const detail = fault?.text ?? ''
    if (this.response.isStarted) this.onBroken('bad_request', detail)
    else this.#refuse({ reason: 'bad_request', detail, status: fault?.status })
  }

  // --- attempts ------------------------------------------------------------------------------------------------------------

  /** Sends the request, as soon as there is a token and somebody to ask. */
  #try(time: number, picked: Endpoint | PickRefusal | null): void {
    const { credential, cluster } = this.target.upstream
    if (credential !== null && this.#authorization.isMissing && !this.#authorize(credential, time)) return
    if (!cluster.isReady) {
      this.#hold(time)
      return
    }
    this.#state = 'trying'
    this.#attempt.begin(time, picked, this.#wasReplayed)
  }

  onLookAgain(_attempt: Attempt, time: number): void {
    this.#try(time, null)
  }

  /** Puts the token into the request; false: it is waited for. */
  #authorize(credential: HeaderCredential, time: number): boolean {
    const { line } = credential
    if (line === null) {
      this.#awaitToken(credential, time)
      return false
    }
    if (credential.signer === undefined) this.request.setCredential(line)
    else if (!this.#isSignable(credential.signer, time)) return false
    this.#authorization.line = line
    return true
  }

  /** Whether what a signature is made over is there; otherwise it is waited for, or the request was refused. */
  #isSignable(signer: RequestSigner, time: number): boolean {
    const { request } = this
    if (this.#isPayloadKnown || (request.isComplete && request.isReplayable)) return true
    if (!request.isReplayable) {
      if (signer.allowsUnsigned) return true
      const detail = `the body is larger than the ${this.#keptBytes} bytes that may be kept to be signed: raise retry.maxBufferedBody`
      this.#refuse({ reason: 'bad_request', detail, status: 413 })
      return false
    }
    this.#state = 'collecting'
    this.#waitingSince = time
    if (this.expectsContinue) {
      // The upstream is not asked before the body is there, so the client hears it from here.
      this.expectsContinue = false
      this.hasContinued = true
      this.#client.raw.write(CONTINUE)
    }
    this.#awaitClient(time)
    return false
  }

  /** Most bytes of a body that are kept, for the sake of another attempt or of a signature. */
  get #keptBytes(): number {
    return this.target.retry?.config.maxBufferedBodyBytes ?? REPLAY_BYTES
  }

  /** As long as a connection may take to be made. */
  #awaitToken(credential: HeaderCredential, time: number): void {
    this.#state = 'authorizing'
    this.#waitingSince = time
    this.#step.set(time + this.target.timeouts.connectMs)
    this.#authorization.wait(credential)
  }

  #onToken(time: number): void {
    if (this.#state !== 'authorizing') return
    this.#waited(time)
    if (this.target.upstream.credential?.line === null) this.#refuseWithoutToken()
    else this.#try(time, null)
  }

  #refuseWithoutToken(): void {
    this.#refuse({ reason: 'auth_unavailable', detail: this.target.upstream.credential?.failure ?? '' })
  }

  /** An answer 401: fetches another token and sends the request again, once. False: the answer is the client's. */
  #reauthorize(time: number): boolean {
    const { credential } = this.target.upstream
    // Nobody has acted upon a request that was refused, so its method does not matter.
    if (credential === null || !this.request.isComplete || !this.request.isReplayable) return false
    if (this.#client.isDraining || !this.#authorization.mayRenew(credential)) return false
    this.#awaitToken(credential, time)
    return true
  }

  /** A signature was refused, maybe for its time: signs by the upstream's clock and sends the request again, once. */
  #resign(head: HeadParser, time: number): boolean {
    const { credential } = this.target.upstream
    if (credential?.signer === undefined || !this.request.isComplete || !this.request.isReplayable) return false
    const date = this.#client.isDraining ? null : fieldText(head, 'date')
    if (date === null || !this.#authorization.mayResign(credential, Date.parse(date))) return false
    this.#awaitToken(credential, time)
    return true
  }

  /** No endpoint is known yet: the application may be started before its upstream is in DNS. */
  #hold(time: number): void {
    const { cluster } = this.target.upstream
    this.#state = 'held'
    this.#waitingSince = time
    if (!this.request.isComplete) this.#awaitClient(time)
    const leave = cluster.whenReady(Math.min(MAX_WAIT_MS, Math.max(0, this.deadlineAt - time)), (isReady) => {
      this.#leaveHold = null
      if (this.#state !== 'held') return
      const later = refreshClock()
      this.#waited(later)
      if (isReady) this.#try(later, null)
      else this.onNoEndpoint(cluster.whyUnready, later)
    })
    if (this.#state === 'held') this.#leaveHold = leave
  }

  /** Part of the body is missing, and nobody takes it yet. */
  #awaitClient(time: number): void {
    const { idleMs } = this.target.timeouts
    if (idleMs !== null && !this.expectsContinue) this.#step.set(time + idleMs)
  }

  #waited(time: number): void {
    this.queueMs += time - this.#waitingSince
    this.#state = 'free'
    this.#step.clear()
  }

  onNoEndpoint(refusal: PickRefusal, time: number): void {
    const { cluster } = this.target.upstream
    if (this.attempts > 0 && this.reason !== null) {
      // What the attempts failed of says more than that there is nobody left to ask.
      this.#refuse({ reason: this.reason, detail: this.detail })
    } else if (refusal === 'no_healthy_endpoint' && cluster.isReady) {
      const detail = `no endpoint of upstream '${cluster.name}' is healthy by its checks and attempts`
      this.#refuse({ reason: refusal, detail })
    } else if (refusal === 'egress_denied') {
      this.#refuse({ reason: 'egress_denied', ...(cluster.denied ?? { detail: '' }) })
    } else if (refusal !== 'circuit_open') {
      this.#refuse({ reason: refusal, detail: cluster.discoveryFailure ?? '' })
    } else {
      const isForced = [...cluster.endpoints].some(({ breaker }) => breaker?.isForced)
      const detail = isForced
        ? `a person holds the circuit of upstream '${cluster.name}' open, PUT /circuit of the admin port lets it go`
        : `every endpoint of upstream '${cluster.name}' fails`
      this.#refuse({ reason: 'circuit_open', detail, retryAfterMs: cluster.retryAfterMs(time) })
    }
  }

  onQueueFull(): void {
    const { cluster } = this.target.upstream
    const { maxConnections, maxPendingRequests } = cluster.config.limits
    const detail = `upstream '${cluster.name}' has ${maxConnections} connections in use and ${maxPendingRequests} requests waiting`
    this.#refuse({ reason: 'queue_full', detail, retryAfterMs: 1000 })
  }

  onWaitedTooLong(ms: number): void {
    const detail = `no connection to upstream '${this.target.upstream.cluster.name}' became free within ${ms} ms`
    this.#refuse({ reason: 'queue_full', detail })
  }

  // --- answers -------------------------------------------------------------------------------------------------------------

  onAnswer(attempt: Attempt, head: HeadParser, time: number): boolean {
    const { status } = head
    this.ttfbMs = time - this.startedAt
    const { pacer } = this.target.upstream.cluster
    if (pacer !== null) pacer.onAnswer(status, answerFields.of(head), time, Date.now())
    if (status === 401 && this.#reauthorize(time)) return false
    if ((status === 400 || status === 403) && this.#resign(head, time)) return false
    const plan = this.target.retry
    if (plan !== null && plan.statuses[status] === 1 && this.#mayDrop(attempt, head, plan, time)) return false
    this.status = status
    // What an earlier try failed of is not the news any more.
    this.reason = null
    this.detail = ''
    this.#deadline.clear()
    return true
  }

  /** Decides whether an answer is thrown away for another attempt, and begins to wait for that. */
  #mayDrop(attempt: Attempt, head: HeadParser, plan: RetryPlan, time: number): boolean {
    const { cluster } = this.target.upstream
    const { tried } = this.#retries
    let asked: number | null = null
    if (head.has(Field.retryAfter)) asked = parseRetryAfter(head.value(head.first[Field.retryAfter]!), Date.now())
    // An answer before the end of the request is the upstream's last word on it.
    if (!this.request.isComplete) return false
    if (this.#retries.obstacle(plan, this.request, cluster.budget, this.isIdempotent) !== 'none') return false
    // An answer in the hand is better than our own 503.
    if (attempt.asked !== null) tried.push(attempt.asked)
    if (typeof cluster.pick(time, tried) === 'string') return false
    if (this.#startBackoff(attempt, plan, time, asked) !== 'none') return false
    this.reason = null
    if (this.trace !== null) this.#traceAttempt(this.trace, attempt, time, head.status)
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

  onStale(_attempt: Attempt): void {
    this.#wasReplayed = true
    this.attempts--
    this.target.upstream.cells.replays++
    this.request.unsend(this.#client.raw)
    this.#try(now(), null)
  }

  onFailed(attempt: Attempt, reason: Reason, detail: string, condition: Condition, proxyError?: string): void {
    this.request.unsend(this.#client.raw)
    this.response.abandon(null)
    this.#state = 'free'
    this.reason = reason
    this.detail = detail
    const plan = this.target.retry
    const isWanted =
      plan !== null &&
      condition !== null &&
      (condition === 'ConnectFailure' ? plan.onConnectFailure : condition === 'Reset' ? plan.onReset : plan.onTimeout)
    if (!isWanted) {
      this.#refuse({ reason, detail, proxyError })
      return
    }
    if (attempt.asked !== null) this.#retries.tried.push(attempt.asked)
    // What never reached the upstream may be sent again whatever its method.
    const isSafe = condition === 'ConnectFailure' || this.isIdempotent
    const { budget } = this.target.upstream.cluster
    let obstacle = this.#retries.obstacle(plan, this.request, budget, isSafe)
    const time = now()
    if (obstacle === 'none') obstacle = this.#startBackoff(attempt, plan, time, null)
    if (obstacle === 'none' && this.trace !== null) this.#traceAttempt(this.trace, attempt, time, 0)
    if (obstacle === 'none') return
    if (obstacle === 'final') this.#refuse({ reason, detail, proxyError })
    else this.#refuse(notRetried(obstacle, reason, detail))
  }

  /** The try that has just failed is followed by another one. */
  #traceAttempt(trace: Trace, { asked, begunAt }: Attempt, time: number, status: number): void {
    const { reason } = this
    const attempt = { endpoint: asked?.name ?? '', startedAt: begunAt, endedAt: time, status, reason }
    if (trace.attempts === null) trace.attempts = [attempt]
    else trace.attempts.push(attempt)
  }

  #startBackoff(attempt: Attempt, plan: RetryPlan, time: number, retryAfterMs: number | null): Obstacle {
    const { budget } = this.target.upstream.cluster
    const obstacle = this.#retries.take(plan, budget, time, this.deadlineAt, retryAfterMs)
    if (obstacle !== 'none') return obstacle
    attempt.isRetry = true
    this.#wasReplayed = false
    this.#state = 'backoff'
    this.#step.set(time + this.#retries.waitMs)
    return 'none'
  }

  #onStep(): void {
    const time = now()
    switch (this.#state) {
      case 'delayed': {
        const waitMs = this.target.upstream.cluster.pacer?.admitAgain(time, time - this.#waitingSince) ?? 0
        if (waitMs > 0) {
          this.#step.set(time + waitMs)
          break
        }
        this.#waited(time)
        if (waitMs < 0) {
          this.#refusePaced(-waitMs)
          break
        }
        if (this.target.retry !== null) this.target.upstream.cluster.budget.deposit(time)
        this.#try(time, null)
        break
      }
      case 'authorizing': {
        const { connectMs } = this.target.timeouts
        const failure = this.target.upstream.credential?.failure
        this.#refuse({ reason: 'auth_unavailable', detail: `no token within ${connectMs} ms: ${failure}` })
        break
      }
      case 'backoff':
        this.#try(time, null)
        break
      case 'held':
      case 'collecting':
        this.onIdleClient()
    }
  }

  onIdleClient(): void {
    const detail = `the application sent no byte of the request's body for ${this.target.timeouts.idleMs} ms`
    this.#refuse({ reason: 'bad_request', detail, status: 408 })
  }

  #onDeadline(): void {
    if (this.response.isStarted) return
    const { requestMs } = this.target.timeouts
    const attempt = this.#attempt
    if (attempt.state === 'queued') {
      this.onWaitedTooLong(requestMs ?? 0)
      return
    }
    if (this.#state === 'held') {
      this.#waited(now())
      this.onNoEndpoint(this.target.upstream.cluster.whyUnready, now())
      return
    }
    if (this.#state === 'delayed') this.target.rateLimit?.giveBack()
    const wasSent = attempt.state === 'sent'
    this.#endAttempt(wasSent || attempt.state === 'dialling' ? 'failure' : 'abandoned')
    const last = this.detail === '' ? '' : `, the last attempt failed: ${this.detail}`
    const where = wasSent ? ` from endpoint ${attempt.asked?.name}` : ''
    this.#refuse({ reason: 'deadline', detail: `no answer${where} within ${requestMs} ms${last}` })
  }

  // --- the client's side ---------------------------------------------------------------------------------------------------

  /** The client has taken everything: the upstream may go on. */
  onClientDrain(): void {
    this.#attempt.onClientDrain()
  }

  /** The client sends no more requests; this one it may still wait for. */
  onClientHalfClosed(): void {
    this.#isPersistent = false
  }

  /** The client is gone: whatever is under way is given up at once. */
  onClientGone(): void {
    if (this.#state === 'delayed') this.target.rateLimit?.giveBack()
    this.#endAttempt('abandoned')
    if (!this.response.isStarted) this.status = 0
    this.reason = 'client_gone'
    this.detail = ''
    this.#finish('cut')
  }

  // --- the end -------------------------------------------------------------------------------------------------------------

  /** Ends what waits or is under way. */
  #endAttempt(outcome: Outcome): void {
    this.#leaveHold?.()
    this.#leaveHold = null
    this.#authorization.cancel()
    this.#attempt.end(outcome)
  }

  /** Answers in the upstream's place. */
  #refuse(refusal: Refusal): void {
    this.#endAttempt('abandoned')
    this.reason = refusal.reason
    this.detail = refusal.detail
    this.status = statusOf(refusal)
    const closes = !this.#isPersistent || !this.request.isComplete || this.#client.isDraining
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
    this.#attempt.release()
  }
}

/** Words for an attempt that failed and is not followed by another one: the reason says why not, the detail what it failed of. */
function notRetried(obstacle: 'body' | 'budget' | 'deadline', reason: Reason, detail: string): Refusal {
  const failure = `the attempt failed with ${reason}: ${detail}`
  if (obstacle === 'body') {
    return { reason: 'body_too_large_to_retry', detail: `the body is too large to be sent again; ${failure}` }
  }
  if (obstacle === 'budget') return { reason: 'budget_exhausted', detail: `the retry budget is used up; ${failure}` }
  return { reason: 'deadline', detail: `no time is left for another attempt; ${failure}` }
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
