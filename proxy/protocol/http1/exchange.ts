/** One request and its answer: gates, attempts, retries and deadlines, up to the one end that every exchange has. */
import type { Reason } from '../../../common/reasons.ts'
import { backoffMs, parseRetryAfter, retryAfterBackoffMs } from '../../policy/backoff.ts'
import type { Bulkhead, Waiter } from '../../policy/bulkhead.ts'
import type { HeaderCredential } from '../../policy/credential.ts'
import type { Outcome } from '../../policy/policy.ts'
import { type Router, rewritten } from '../../routing/router.ts'
import { now, refreshClock } from '../../runtime/clock.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import { Trace } from '../../tracing/trace-context.ts'
import type { PickRefusal } from '../../upstream/cluster.ts'
import type { Dial, DialFailure, DialTimes } from '../../upstream/connector.ts'
import type { Endpoint } from '../../upstream/endpoint.ts'
import {
  type ConnectionUser,
  type ConnectionWaiter,
  evictIdle,
  HttpPool,
  type UpstreamConnection,
} from '../../upstream/http-pool.ts'
import { BodyKind } from './framing.ts'
import type { RequestFacts, ResponseFacts } from './headers.ts'
import { OutgoingRequest } from './outgoing.ts'
import type { Fault, HeadParser } from './parser.ts'
import { HeadView } from './request-view.ts'
import { answer, type Refusal, statusOf } from './respond.ts'
import { type ResponseOwner, ResponseRelay } from './response.ts'
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
/** RFC 9110 section 10.1.1: nobody waits for a 100 forever; the upstream may not know the expectation. */
const CONTINUE_MS = 1_000
/** Longest wait for a connection or for DNS of a request without a deadline. */
const MAX_WAIT_MS = 30_000
const NO_HOST = Buffer.alloc(0)
/** Stands where the token will be. */
const NO_LINE = Buffer.alloc(0)
const CONTINUE = Buffer.from('HTTP/1.1 100 Continue\r\n\r\n')

type State =
  /** Nothing under way. */
  | 'free'
  /** The rate limit made it wait. */
  | 'delayed'
  /** A token is being fetched. */
  | 'authorizing'
  /** Discovery has not found an endpoint yet. */
  | 'held'
  /** Every connection is busy. */
  | 'queued'
  | 'dialling'
  /** A connection was chosen; it is written to in the next turn. */
  | 'checking'
  /** The request is on its way, or its answer is. */
  | 'sent'
  /** Waits to be sent again. */
  | 'backoff'

/** What stands in the way of another attempt. */
type Obstacle = 'none' | 'final' | 'body' | 'budget' | 'deadline'

export class Exchange implements ConnectionUser, ConnectionWaiter, ResponseOwner {
  // Bulkhead's links.
  nextWaiter: Waiter | null = null
  previousWaiter: Waiter | null = null
  waitsAt: Bulkhead | null = null

  readonly request = new OutgoingRequest()
  readonly response = new ResponseRelay(this)
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

  /** Where it stands in a trace; null: nobody sends spans. */
  trace: Trace | null = null

  #client!: ExchangeClient
  #state: State = 'free'
  #isHead = false
  #isOld = false
  #isIdempotent = false
  #isUpgrade = false
  #isPersistent = true
  #expectsContinue = false
  #hasContinued = false
  #retries = 0
  #isRetrying = false
  #wasReplayed = false
  /** The client was told that its connection ends with this answer. */
  #saidClose = false
  /** Kept for the next request that is traced. */
  #ownTrace: Trace | null = null
  #attemptAt = 0
  #endpoint: Endpoint | null = null
  /** The last endpoint that was asked, for the log. */
  #asked: Endpoint | null = null
  #token = -1
  readonly #tried: Endpoint[] = []
  /** The credential that the request carries; NO_LINE: none yet. */
  #line: Buffer | null = null
  /** Another credential was tried after a 401. */
  #wasRefused = false
  /** Changes with each wait for a token, so that a late one is known as late. */
  #tokenTurn = 0
  #connection: UpstreamConnection | null = null
  #dial: Dial | null = null
  #leaveHold: (() => void) | null = null
  #waitingSince = 0
  /** What the slower side had not taken when the idle time was up the last time. */
  #unsent = 0
  #deadlineAt = Number.POSITIVE_INFINITY
  /** Of the whole exchange up to the answer. */
  readonly #deadline = new CoarseTimer(() => this.#onDeadline())
  /** Of the state. */
  readonly #step = new CoarseTimer(() => this.#onStep())

  get endpoint(): Endpoint | null {
    return this.#asked
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
    const target = snapshot.router === null ? snapshot : routed(snapshot, snapshot.router, head, facts)
    const { upstream, retry, route } = target
    this.#client = client
    this.snapshot = snapshot
    this.target = target
    this.#isHead = facts.isHead
    this.#isOld = facts.isOld
    this.#isIdempotent = facts.isIdempotent || head.has(Field.idempotencyKey) || retry?.config.methods === 'All'
    this.#isUpgrade = facts.isUpgrade
    this.#isPersistent = facts.isPersistent
    this.#expectsContinue = facts.expectsContinue
    this.#reset(time)
    if (snapshot.tracing === null) this.trace = null
    else this.#beginTrace(head, snapshot.tracing.sample)
    upstream.cells.active++
    const { cluster, credential } = upstream
    const picked = cluster.isReady ? cluster.pick(time) : null
    const host = picked === null || typeof picked === 'string' ? NO_HOST : HttpPool.of(cluster, picked).host
    const line = credential === null ? null : (credential.line ?? (credential.renewed === undefined ? null : NO_LINE))
    this.#line = line
    const name = line === null ? null : upstream.credentialName
    const limit = retry === null ? REPLAY_BYTES : retry.config.maxBufferedBodyBytes
    const path = route === null || route.rewrite === null ? null : rewrittenPath(route.rewrite, head, facts)
    const changes = route === null ? null : route.requestChanges
    const behind = this.request.begin(head, facts, host, name, line, path, changes, this.trace, limit, chunk, next, end)
    if (behind === -1) {
      this.onBadBody(this.request.body.fault)
      return end
    }
    if (credential !== null && line === null) {
      this.#refuse({ reason: 'auth_unavailable', detail: credential.failure ?? '' })
      return behind
    }
    if (this.request.isComplete) this.#onRequestComplete(time)
    else this.#onClientProgress(time)
    const waitMs = target.rateLimit === null ? 0 : target.rateLimit.admit(time)
    if (waitMs < 0) {
      this.#refuse({ reason: 'rate_limited', detail: '', retryAfterMs: -waitMs })
    } else if (waitMs > 0) {
      this.#state = 'delayed'
      this.#waitingSince = time
      this.#step.set(time + waitMs)
    } else {
      if (retry !== null) cluster.budget.deposit(time)
      this.#attempt(time, picked)
    }
    return behind
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
    this.#hasContinued = false
    this.#unsent = 0
    this.#retries = 0
    this.#isRetrying = false
    this.#wasReplayed = false
    this.#wasRefused = false
    this.#asked = null
    this.#tried.length = 0
    this.#deadlineAt = Number.POSITIVE_INFINITY
    this.response.begin(this.#isHead, this.#isOld, this.target.route?.responseChanges ?? null)
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
    this.#expectsContinue = false
    if (this.request.isComplete) this.#onRequestComplete(time)
    else this.#onClientProgress(time)
    return behind
  }

  /** Part of a body came, and more is to come. */
  #onClientProgress(time: number): void {
    const { idleMs } = this.target.timeouts
    const isStepTaken =
      this.#state === 'delayed' ||
      this.#state === 'authorizing' ||
      this.#state === 'queued' ||
      this.#state === 'backoff'
    if (idleMs !== null && !isStepTaken && !this.#expectsContinue) this.#step.set(time + idleMs)
  }

  /** The deadline runs from here: how long an upload takes is the client's affair. */
  #onRequestComplete(time: number): void {
    const { requestMs } = this.target.timeouts
    if (requestMs !== null && !this.response.isStarted) {
      this.#deadlineAt = time + requestMs
      this.#deadline.set(this.#deadlineAt)
    }
    if (this.#state === 'sent' && !this.response.isStarted) this.#awaitHead(time)
  }

  /** The chunks of the request are not well-formed: the upstream must not take what it has for a whole request. */
  onBadBody(fault: Fault | null): void {
    this.#endAttempt('abandoned')
    this.#connection?.destroy()
    this.#connection = null
    const detail = fault?.text ?? ''
    if (this.response.isStarted) this.#fail('bad_request', detail)
    else this.#refuse({ reason: 'bad_request', detail, status: fault?.status })
  }

  // --- attempts ------------------------------------------------------------------------------------------------------------

  /** Looks for an endpoint and a connection to it. */
  #attempt(time: number, picked: Endpoint | PickRefusal | null): void {
    if (this.#line === NO_LINE && !this.#authorize(time)) return
    const { cluster } = this.target.upstream
    if (!cluster.isReady) {
      this.#hold(time)
      return
    }
    const endpoint = picked ?? cluster.pick(time, this.#tried)
    if (typeof endpoint === 'string') {
      this.#refuseEndpoint(endpoint, time)
      return
    }
    const pool = HttpPool.of(cluster, endpoint)
    const connection = this.#wasReplayed ? null : pool.take(time)
    if (connection !== null) {
      this.#beginAt(endpoint, time)
      this.#use(connection)
      return
    }
    // A connection that idles at another endpoint gives up its slot.
    if (cluster.connections.tryAcquire() || (evictIdle(cluster) && cluster.connections.tryAcquire())) {
      this.#beginAt(endpoint, time)
      this.#connect(pool)
      return
    }
    if (!cluster.connections.wait(this)) {
      const { maxConnections, maxPendingRequests } = cluster.config.limits
      const detail = `upstream '${cluster.name}' has ${maxConnections} connections in use and ${maxPendingRequests} requests waiting`
      this.#refuse({ reason: 'queue_full', detail, retryAfterMs: 1000 })
      return
    }
    this.#state = 'queued'
    this.#waitingSince = time
    if (this.#deadlineAt === Number.POSITIVE_INFINITY) this.#step.set(time + MAX_WAIT_MS)
  }

  /** Puts the token into the request; false: it is waited for, or the request was refused. */
  #authorize(time: number): boolean {
    const { credential } = this.target.upstream
    if (credential === null) return true
    const { line } = credential
    if (line === null) {
      this.#awaitToken(credential, time)
      return false
    }
    this.#line = line
    this.request.setCredential(line)
    return true
  }

  /** Waits until the fetch that is under way has ended, as long as a connection may take to be made. */
  #awaitToken(credential: HeaderCredential, time: number): void {
    this.#state = 'authorizing'
    this.#waitingSince = time
    this.#step.set(time + this.target.timeouts.connectMs)
    const turn = ++this.#tokenTurn
    // In the next turn: the answer that was refused is still being dealt with.
    setImmediate(() => {
      credential.renewed?.whenSettled(() => {
        if (this.#state !== 'authorizing' || this.#tokenTurn !== turn) return
        const later = refreshClock()
        this.#waited(later)
        if (credential.line === null) this.#refuse({ reason: 'auth_unavailable', detail: credential.failure ?? '' })
        else this.#attempt(later, null)
      })
    })
  }

  /** An answer 401: fetches another token and sends the request again, once. False: the answer is the client's. */
  #reauthorize(time: number): boolean {
    const { credential } = this.target.upstream
    const sent = this.#line
    if (credential === null || credential.renewed === undefined || sent === null || this.#wasRefused) return false
    // Nobody has acted upon a request that was refused, so its method does not matter.
    if (!this.request.isComplete || !this.request.isReplayable || this.#client.isDraining) return false
    if (!credential.renewed.refused(sent) && credential.line === sent) return false
    this.#wasRefused = true
    this.#line = NO_LINE
    this.#awaitToken(credential, time)
    return true
  }

  /** No endpoint is known yet: the application may be started before its upstream is in DNS. */
  #hold(time: number): void {
    const { cluster } = this.target.upstream
    this.#state = 'held'
    this.#waitingSince = time
    const leave = cluster.whenReady(Math.min(MAX_WAIT_MS, Math.max(0, this.#deadlineAt - time)), (isReady) => {
      this.#leaveHold = null
      if (this.#state !== 'held') return
      const later = refreshClock()
      this.#waited(later)
      if (isReady) this.#attempt(later, null)
      else this.#refuseEndpoint(cluster.whyUnready, later)
    })
    if (this.#state === 'held') this.#leaveHold = leave
  }

  #waited(time: number): void {
    this.queueMs += time - this.#waitingSince
    this.#state = 'free'
    this.#step.clear()
  }

  #refuseEndpoint(refusal: PickRefusal, time: number): void {
    const { cluster } = this.target.upstream
    if (this.attempts > 0 && this.reason !== null) {
      // What the attempts failed of says more than that there is nobody left to ask.
      this.#refuse({ reason: this.reason, detail: this.detail })
    } else if (refusal !== 'circuit_open') {
      this.#refuse({ reason: refusal, detail: cluster.discoveryFailure ?? '' })
    } else {
      const detail = `every endpoint of upstream '${cluster.name}' fails`
      this.#refuse({ reason: 'circuit_open', detail, retryAfterMs: cluster.retryAfterMs(time) })
    }
  }

  #beginAt(endpoint: Endpoint, time: number): void {
    this.#token = endpoint.begin(time)
    this.#endpoint = endpoint
    this.#asked = endpoint
    this.attempts++
    this.#attemptAt = time
    this.target.upstream.cells.attempts++
  }

  #connect(pool: HttpPool): void {
    this.#state = 'dialling'
    this.#dial = pool.connect(this, this.target.timeouts.connectMs)
  }

  /** A slot is ours. */
  onSlot(): void {
    const time = now()
    const { cluster } = this.target.upstream
    this.#waited(time)
    const endpoint = cluster.pick(time, this.#tried)
    if (typeof endpoint === 'string') {
      cluster.connections.release()
      this.#refuseEndpoint(endpoint, time)
      return
    }
    const pool = HttpPool.of(cluster, endpoint)
    const connection = this.#wasReplayed ? null : pool.take(time)
    this.#beginAt(endpoint, time)
    if (connection === null) this.#connect(pool)
    else {
      cluster.connections.release()
      this.#use(connection)
    }
  }

  onIdleConnection(connection: UpstreamConnection): boolean {
    const time = now()
    this.#waited(time)
    const { endpoint } = connection.pool
    if (!endpoint.isAvailable(time)) {
      this.#attempt(time, null)
      return false
    }
    this.#beginAt(endpoint, time)
    this.#use(connection)
    return true
  }

  onDialled(connection: UpstreamConnection, times: DialTimes): void {
    this.#dial = null
    this.connectMs = times.connectMs
    this.tlsMs = times.tlsMs
    this.#use(connection)
  }

  onDialFailed(failure: DialFailure): void {
    this.#dial = null
    const endpoint = this.#endpoint as Endpoint
    this.target.upstream.cluster.dialFailed(endpoint, now())
    this.#endAttempt('failure')
    this.#failed(failure.reason, failure.detail, 'ConnectFailure')
  }

  #use(connection: UpstreamConnection): void {
    connection.use(this)
    this.#connection = connection
    if (connection.requests > 1 && !this.#isIdempotent) {
      // A request that cannot be sent twice: one turn later, a FIN that has come by now is known and another connection is taken.
      this.#state = 'checking'
      setImmediate(onChecked, this, connection)
      return
    }
    this.#send(connection)
  }

  onChecked(connection: UpstreamConnection): void {
    if (this.#state === 'checking' && this.#connection === connection) this.#send(connection)
  }

  #send(connection: UpstreamConnection): void {
    const time = now()
    this.#state = 'sent'
    this.response.begin(this.#isHead, this.#isOld, this.target.route?.responseChanges ?? null)
    this.request.send(connection.raw, connection.pool.host, this.#client.raw)
    if (this.request.isComplete) this.#awaitHead(time)
    else if (this.#expectsContinue) this.#step.set(time + CONTINUE_MS)
    else this.onProgress()
  }

  #awaitHead(time: number): void {
    const perTryMs = this.target.retry?.config.perTryTimeoutMs ?? null
    if (perTryMs !== null) this.#step.set(time + perTryMs)
    else this.#step.clear()
  }

  // --- the upstream's side -------------------------------------------------------------------------------------------------

  onUpstreamData(chunk: Buffer, length: number): void {
    const connection = this.#connection
    if (connection === null) return
    if (this.#state === 'checking') {
      // It speaks before it is asked: not the connection to ask on.
      this.#lost('upstream_reset', `endpoint ${this.#asked?.name} sent bytes that nobody asked for`)
      return
    }
    this.response.onData(chunk, length, connection.raw, this.#client.raw)
  }

  onUpstreamDrain(): void {
    this.request.onDrain(this.#client.raw)
    if (this.#state === 'sent' && !this.request.isComplete) this.onProgress()
  }

  onUpstreamEnd(): void {
    const connection = this.#connection
    if (connection === null) return
    if (this.#state === 'sent' && this.response.endsWithConnection(this.#client.raw)) this.onResponseEnd(false)
    else this.#lost('upstream_reset', `endpoint ${this.#asked?.name} closed the connection`)
  }

  onUpstreamClose(error: Error | null): void {
    if (this.#connection === null) return
    const code = (error as NodeJS.ErrnoException | null)?.code ?? 'closed'
    this.#lost('upstream_reset', `the connection to endpoint ${this.#asked?.name} broke: ${code}`)
  }

  onInterim(status: number): boolean {
    if (status === 100) {
      if (this.#expectsContinue) {
        this.#expectsContinue = false
        this.onProgress()
      }
      // The proxy said it already, when the upstream took too long.
      if (this.#hasContinued) return false
    }
    return !this.#isOld
  }

  onSwitch(head: HeadParser, facts: ResponseFacts, chunk: Buffer, start: number, end: number): void {
    const connection = this.#connection as UpstreamConnection
    if (!this.#isUpgrade || !this.request.isComplete) {
      this.onBadResponse('it switches protocols without being asked')
      return
    }
    this.ttfbMs = now() - this.startedAt
    this.status = 101
    this.reason = null
    this.detail = ''
    this.#endAttempt('success')
    this.response.writeHead(head, facts, this.#client.raw, false)
    this.target.upstream.cells.upgrades++
    this.#connection = null
    this.#client.onTunnel(this, connection, Buffer.from(chunk.subarray(start, end)))
    this.#finish('tunnel', connection.raw.backlog > 0)
  }

  onFinalHead(head: HeadParser, facts: ResponseFacts, isWhole: boolean): boolean {
    const { status } = head
    const time = now()
    this.ttfbMs = time - this.startedAt
    const outcome: Outcome =
      status === 429 ? 'throttled' : status >= 500 && status !== 501 && status !== 505 ? 'failure' : 'success'
    this.#settle(outcome, time)
    const plan = this.target.retry
    const isDropped =
      (status === 401 && this.#reauthorize(time)) ||
      (plan !== null && plan.statuses[status] === 1 && this.#mayDrop(head, plan, time))
    if (isDropped) {
      const connection = this.#connection as UpstreamConnection
      this.#connection = null
      this.#leave()
      this.request.unsend(this.#client.raw)
      if (isWhole && facts.isPersistent) connection.pool.giveBack(connection, facts.keepAliveSeconds)
      else connection.destroy()
      return false
    }
    this.status = status
    // What an earlier try failed of is not the news any more.
    this.reason = null
    this.detail = ''
    this.#deadline.clear()
    this.#step.clear()
    return true
  }

  /** Decides whether an answer is thrown away for another attempt, and begins to wait for that. */
  #mayDrop(head: HeadParser, plan: RetryPlan, time: number): boolean {
    const { cluster } = this.target.upstream
    let asked: number | null = null
    if (head.has(Field.retryAfter)) asked = parseRetryAfter(head.value(head.first[Field.retryAfter]!), Date.now())
    // An answer before the end of the request is the upstream's last word on it.
    if (!this.request.isComplete || this.#obstacle(plan, this.#isIdempotent) !== 'none') return false
    // An answer in the hand is better than our own 503.
    if (this.#endpoint !== null) this.#tried.push(this.#endpoint)
    if (typeof cluster.pick(time, this.#tried) === 'string') return false
    if (this.#startBackoff(plan, time, asked) !== 'none') return false
    this.reason = null
    if (this.trace !== null) this.#traceAttempt(this.trace, time, head.status)
    return true
  }

  closesClient(facts: ResponseFacts): boolean {
    // Without chunks, the end of the connection is the only end that a body of unknown length has.
    const isEndless = this.#isOld && (facts.body === BodyKind.untilClose || facts.body === BodyKind.chunked)
    this.#saidClose = isEndless || !this.#isPersistent || !this.request.isComplete || this.#client.isDraining
    return this.#saidClose
  }

  onProgress(): void {
    const { idleMs } = this.target.timeouts
    if (this.#state !== 'sent' || this.#expectsContinue) return
    // Between the end of the request and the begin of the answer the deadlines count, not this.
    if (this.request.isComplete && !this.response.isStarted) return
    if (idleMs !== null) this.#step.set(now() + idleMs)
    else this.#step.clear()
  }

  onResponseEnd(isReusable: boolean): void {
    const connection = this.#connection as UpstreamConnection
    this.#connection = null
    this.#leave()
    const { isComplete } = this.request
    if (isReusable && isComplete) connection.pool.giveBack(connection, this.response.keepAliveSeconds)
    else connection.destroy()
    this.#finish(this.#saidClose || !isComplete || this.#client.isDraining ? 'close' : 'keep')
  }

  /** The end of the client's connection is the end of the body: only a reset can show that it was cut short. */
  get endsWithClose(): boolean {
    const { kind } = this.response.body
    return this.response.isStarted && this.#isOld && (kind === BodyKind.untilClose || kind === BodyKind.chunked)
  }

  onBadResponse(text: string): void {
    const detail = `endpoint ${this.#asked?.name} does not answer in well-formed HTTP/1.1: ${text}`
    this.#lost('upstream_reset', detail, 'http_protocol_error')
  }

  /** The connection cannot be used any more before the response was complete. */
  #lost(reason: Reason, detail: string, proxyError?: string): void {
    const connection = this.#connection
    this.#connection = null
    connection?.destroy()
    if (this.response.isStarted) {
      this.#endAttempt('abandoned')
      this.#fail('upstream_truncated', detail)
      return
    }
    const isStale =
      connection !== null && connection.requests > 1 && !this.response.hasBegun && proxyError === undefined
    const isUnsent = this.#state === 'checking'
    if (isStale && !this.#wasReplayed && (isUnsent || (this.#isIdempotent && this.request.isReplayable))) {
      // The server closed an idle connection while the request was on its way: nobody failed.
      this.#endAttempt('abandoned')
      this.#wasReplayed = true
      this.attempts--
      this.target.upstream.cells.replays++
      this.request.unsend(this.#client.raw)
      this.#state = 'free'
      this.#attempt(now(), null)
      return
    }
    this.#endAttempt(isStale ? 'abandoned' : 'failure')
    // Who does not speak HTTP did take the request, and will not speak it at the next try either: that is no reset.
    this.#failed(reason, detail, proxyError === undefined ? 'Reset' : null, proxyError)
  }

  // --- failure and retry ---------------------------------------------------------------------------------------------------

  /** An attempt failed without an answer. */
  #failed(
    reason: Reason,
    detail: string,
    condition: 'ConnectFailure' | 'Reset' | 'Timeout' | null,
    proxyError?: string,
  ): void {
    this.request.unsend(this.#client.raw)
    this.response.abandon(null)
    this.#state = 'free'
    this.#step.clear()
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
    if (this.#asked !== null) this.#tried.push(this.#asked)
    const time = now()
    // What never reached the upstream may be sent again whatever its method.
    const isSafe = condition === 'ConnectFailure' || this.#isIdempotent
    let obstacle = this.#obstacle(plan, isSafe)
    if (obstacle === 'none') obstacle = this.#startBackoff(plan, time, null)
    if (obstacle === 'none' && this.trace !== null) this.#traceAttempt(this.trace, time, 0)
    if (obstacle === 'body') this.#refuse({ reason: 'body_too_large_to_retry', detail })
    else if (obstacle === 'budget') this.#refuse({ reason: 'budget_exhausted', detail })
    else if (obstacle === 'deadline') this.#refuse({ reason: 'deadline', detail })
    else if (obstacle === 'final') this.#refuse({ reason, detail, proxyError })
  }

  /** The try that has just failed is followed by another one. */
  #traceAttempt(trace: Trace, time: number, status: number): void {
    const attempt = {
      endpoint: this.#asked?.name ?? '',
      startedAt: this.#attemptAt,
      endedAt: time,
      status,
      reason: this.reason,
    }
    if (trace.attempts === null) trace.attempts = [attempt]
    else trace.attempts.push(attempt)
  }

  #obstacle(plan: RetryPlan, isSafe: boolean): Obstacle {
    if (!isSafe) return 'final'
    if (this.#retries >= plan.config.maxRetries) {
      this.target.upstream.cluster.budget.limitExceeded++
      return 'final'
    }
    return this.request.isKept ? 'none' : 'body'
  }

  /** Takes a retry out of the budget and begins to wait for it; everything else allows it. */
  #startBackoff(plan: RetryPlan, time: number, retryAfterMs: number | null): Obstacle {
    const waitMs =
      retryAfterMs === null ? backoffMs(this.#retries + 1, plan.config.backoff) : retryAfterBackoffMs(retryAfterMs)
    if (time + waitMs >= this.#deadlineAt) return 'deadline'
    this.#endRetry(false)
    if (!this.target.upstream.cluster.budget.tryRetry(time)) return 'budget'
    this.#isRetrying = true
    this.#retries++
    this.#wasReplayed = false
    this.#state = 'backoff'
    this.#step.set(time + waitMs)
    return 'none'
  }

  #endRetry(succeeded: boolean): void {
    if (!this.#isRetrying) return
    this.#isRetrying = false
    this.target.upstream.cluster.budget.endRetry(succeeded)
  }

  #onStep(): void {
    const time = now()
    switch (this.#state) {
      case 'delayed':
        this.#waited(time)
        if (this.target.retry !== null) this.target.upstream.cluster.budget.deposit(time)
        this.#attempt(time, null)
        break
      case 'authorizing': {
        const { connectMs } = this.target.timeouts
        const failure = this.target.upstream.credential?.failure
        this.#refuse({ reason: 'auth_unavailable', detail: `no token within ${connectMs} ms: ${failure}` })
        break
      }
      case 'queued':
        this.#onWaitedTooLong(MAX_WAIT_MS)
        break
      case 'backoff':
        this.#state = 'free'
        this.#attempt(time, null)
        break
      case 'sent':
        this.#onSentTooLong()
        break
      default:
        // A client that stopped in the middle of its body while the request waited.
        if (!this.request.isComplete) this.#onIdleClient()
    }
  }

  #onSentTooLong(): void {
    if (this.#expectsContinue) {
      this.#expectsContinue = false
      this.#hasContinued = true
      this.#client.raw.write(CONTINUE)
      this.onProgress()
      return
    }
    const { isStarted } = this.response
    if (!isStarted && this.request.isComplete) {
      const perTryMs = this.target.retry?.config.perTryTimeoutMs
      this.#timedOut(`endpoint ${this.#asked?.name} did not answer within ${perTryMs} ms`)
      return
    }
    // Whoever reads slowly but does read is not idle, though none of our writes has ended meanwhile.
    const receiver = isStarted ? this.#client.raw : this.#connection?.raw
    const unsent = receiver?.unsent ?? 0
    if (unsent !== this.#unsent) {
      this.#unsent = unsent
      this.onProgress()
      return
    }
    if (!isStarted) {
      if (unsent > 0) this.#timedOut('the upstream does not take the body of the request')
      else this.#onIdleClient()
      return
    }
    this.#endAttempt('abandoned')
    this.#connection?.destroy()
    this.#connection = null
    const who = unsent > 0 ? 'the application does not take' : `endpoint ${this.#asked?.name} does not send`
    const detail = `${who} the body of the answer: no byte for ${this.target.timeouts.idleMs} ms`
    this.#fail(unsent > 0 ? 'client_gone' : 'upstream_truncated', detail)
  }

  #timedOut(detail: string): void {
    this.#endAttempt('failure')
    this.#connection?.destroy()
    this.#connection = null
    this.#failed('try_timeout', detail, 'Timeout')
  }

  #onIdleClient(): void {
    this.#endAttempt('abandoned')
    this.#connection?.destroy()
    this.#connection = null
    const detail = `the application sent no byte of the request's body for ${this.target.timeouts.idleMs} ms`
    this.#refuse({ reason: 'bad_request', detail, status: 408 })
  }

  #onDeadline(): void {
    if (this.response.isStarted) return
    const { requestMs } = this.target.timeouts
    if (this.#state === 'queued') {
      this.#onWaitedTooLong(requestMs ?? 0)
      return
    }
    if (this.#state === 'held') {
      this.#endAttempt('abandoned')
      this.#waited(now())
      this.#refuseEndpoint(this.target.upstream.cluster.whyUnready, now())
      return
    }
    if (this.#state === 'delayed') this.target.rateLimit?.giveBack()
    const wasSent = this.#state === 'sent'
    this.#endAttempt(wasSent || this.#state === 'dialling' ? 'failure' : 'abandoned')
    this.#connection?.destroy()
    this.#connection = null
    const last = this.detail === '' ? '' : `, the last attempt failed: ${this.detail}`
    const where = wasSent ? ` from endpoint ${this.#asked?.name}` : ''
    this.#refuse({ reason: 'deadline', detail: `no answer${where} within ${requestMs} ms${last}` })
  }

  #onWaitedTooLong(ms: number): void {
    const { cluster } = this.target.upstream
    cluster.connections.cancel(this)
    this.#waited(now())
    this.#refuse({
      reason: 'queue_full',
      detail: `no connection to upstream '${cluster.name}' became free within ${ms} ms`,
    })
  }

  // --- the client's side ---------------------------------------------------------------------------------------------------

  /** The client has taken everything: the upstream may go on. */
  onClientDrain(): void {
    this.#connection?.raw.resume()
    if (this.response.isStarted) this.onProgress()
  }

  /** The client sends no more requests; this one it may still wait for. */
  onClientHalfClosed(): void {
    this.#isPersistent = false
  }

  /** The client is gone: whatever is under way is given up at once. */
  onClientGone(): void {
    if (this.#state === 'delayed') this.target.rateLimit?.giveBack()
    this.#endAttempt('abandoned')
    const connection = this.#connection
    this.#connection = null
    connection?.destroy()
    if (!this.response.isStarted) this.status = 0
    this.reason = 'client_gone'
    this.detail = ''
    this.#finish('cut')
  }

  // --- the end -------------------------------------------------------------------------------------------------------------

  /** Tells the breaker how the attempt went; once. */
  #settle(outcome: Outcome, time: number): void {
    if (this.#token >= 0) {
      this.#endpoint?.settle(this.#token, outcome, time)
      this.#token = -1
    }
    this.#endRetry(outcome === 'success')
  }

  /** The endpoint has no load of this exchange any more. */
  #leave(): void {
    this.#endpoint?.leave()
    this.#endpoint = null
  }

  /** Ends what waits or is dialled, and what the endpoint counts. The connection is the caller's affair. */
  #endAttempt(outcome: Outcome): void {
    this.#dial?.cancel()
    this.#dial = null
    this.#leaveHold?.()
    this.#leaveHold = null
    if (this.waitsAt !== null) this.waitsAt.cancel(this)
    this.#settle(outcome, now())
    this.#leave()
  }

  /** Answers in the upstream's place. */
  #refuse(refusal: Refusal): void {
    this.#endAttempt('abandoned')
    this.#connection?.destroy()
    this.#connection = null
    this.reason = refusal.reason
    this.detail = refusal.detail
    this.status = statusOf(refusal)
    const closes = !this.#isPersistent || !this.request.isComplete || this.#client.isDraining
    const { requestId } = this.request
    const bytes = answer(refusal, { isHead: this.#isHead, isOld: this.#isOld, closes, requestId })
    this.#client.raw.write(bytes)
    this.#finish(closes ? 'close' : 'keep')
  }

  /** The answer cannot be completed: the client's connection is cut, in whatever way its framing needs to show it. */
  #fail(reason: Reason, detail: string): void {
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
    cells.active--
    cells.requestBytes += this.request.body.contentBytes
    if (this.response.isStarted) cells.responseBytes += this.response.body.contentBytes
    cells.add(this.status, this.endedAt - this.startedAt)
    if (this.reason !== null) cells.reasons[this.reason]++
    if (after !== 'keep') this.response.abandon(null)
    this.#client.record(this)
    this.request.end(isHeld)
    this.#client.onExchangeEnd(this, after)
  }

  /** The exchange will not be used again. */
  release(): void {
    this.#deadline.release()
    this.#step.release()
  }
}

const view = new HeadView()

/** What the routes say of a request; without one that matches, the snapshot. */
function routed(snapshot: HttpSnapshot, router: Router<HttpTarget>, head: HeadParser, facts: RequestFacts): HttpTarget {
  view.of(head, facts)
  return router.route(view)?.pick(view, Math.random) ?? snapshot
}

function rewrittenPath(rewrite: NonNullable<HttpRoute['rewrite']>, head: HeadParser, facts: RequestFacts): Buffer {
  return Buffer.from(rewritten(view.of(head, facts).target(), rewrite), 'latin1')
}

function onChecked(exchange: Exchange, connection: UpstreamConnection): void {
  refreshClock()
  exchange.onChecked(connection)
}
