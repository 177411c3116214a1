/** What a request waits for before it is sent: its turn, an endpoint, a token, and the rest of a body that is signed. */
import type { HeaderCredential, RequestSigner } from '../../policy/credential.ts'
import { now, refreshClock } from '../../runtime/clock.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import type { PickRefusal } from '../../upstream/cluster.ts'
import { CONTINUE, MAX_WAIT_MS } from './attempt.ts'
import { Authorization } from './authorization.ts'
import type { OutgoingRequest } from './outgoing.ts'
import { limited, paced } from './refusals.ts'
import type { Refusal } from './respond.ts'
import type { HttpTarget } from './snapshot.ts'

/** Bodies up to this are kept for a reused connection that turns out to be dead, when no retry says otherwise. */
const REPLAY_BYTES = 64 * 1024

/** The exchange whose request it is. After each call nothing more is done with the event that led to it. */
export interface PreparationOwner {
  readonly request: OutgoingRequest
  readonly target: HttpTarget
  readonly clientSocket: RawSocket
  readonly deadlineAt: number
  expectsContinue: boolean
  hasContinued: boolean
  queueMs: number
  /** What was waited for is there, or may be: the request can go on. */
  onPrepared(time: number): void
  /** It cannot be sent. */
  onRefusal(refusal: Refusal): void
  onNoEndpoint(refusal: PickRefusal, time: number): void
  onIdleClient(): void
}

type State =
  /** Nothing is waited for. */
  | 'free'
  /** The limits made it wait. */
  | 'delayed'
  /** A token is being fetched. */
  | 'authorizing'
  /** The rest of the body comes first: it is signed as a whole. */
  | 'collecting'
  /** Discovery has not found an endpoint yet. */
  | 'held'

export class Preparation {
  readonly #owner: PreparationOwner
  #state: State = 'free'
  #waitingSince = 0
  /** The application says what its content is signed as. */
  #isPayloadKnown = false
  #leaveHold: (() => void) | null = null
  readonly #authorization = new Authorization((time) => this.#onToken(time))
  /** Of the state. */
  readonly #step = new CoarseTimer(() => this.#onStep())

  constructor(owner: PreparationOwner) {
    this.#owner = owner
  }

  /** A request begins. False: it cannot be sent, for its credential is not there and will not come. */
  begin(credential: HeaderCredential | null, isPayloadKnown: boolean): boolean {
    this.#isPayloadKnown = isPayloadKnown
    return this.#authorization.begin(credential)
  }

  /** The line of the credential that the request carries; null: none. */
  get line(): Buffer | null {
    return this.#authorization.line
  }

  /** Most bytes of a body that are kept, for the sake of another attempt or of a signature. */
  get keptBytes(): number {
    return this.#owner.target.retry?.config.maxBufferedBodyBytes ?? REPLAY_BYTES
  }

  get isWaiting(): boolean {
    return this.#state !== 'free'
  }

  /** Discovery has not found an endpoint yet. */
  get isHeld(): boolean {
    return this.#state === 'held'
  }

  // --- its turn ------------------------------------------------------------------------------------------------------------

  /** How long the limits make the request wait; less than 0: it was refused. */
  admit(time: number): number {
    const { rateLimit, upstream } = this.#owner.target
    const ownMs = rateLimit === null ? 0 : rateLimit.admit(time)
    if (rateLimit !== null && ownMs < 0) {
      this.#owner.onRefusal(limited(rateLimit, -ownMs))
      return ownMs
    }
    const { pacer } = upstream.cluster
    const pacedMs = pacer === null ? 0 : pacer.admit(time + ownMs)
    if (pacedMs < 0) {
      rateLimit?.giveBack()
      this.#owner.onRefusal(paced(upstream.cluster, -pacedMs))
      return pacedMs
    }
    const waitMs = ownMs + pacedMs
    if (waitMs > 0) this.#wait('delayed', time, time + waitMs)
    return waitMs
  }

  /** The turn has come, and may have been put off again meanwhile. */
  #onTurn(time: number): void {
    const { cluster } = this.#owner.target.upstream
    const waitMs = cluster.pacer?.admitAgain(time, time - this.#waitingSince) ?? 0
    if (waitMs > 0) {
      this.#step.set(time + waitMs)
      return
    }
    this.#waited(time)
    if (waitMs < 0) {
      this.#owner.onRefusal(paced(cluster, -waitMs))
      return
    }
    if (this.#owner.target.retry !== null) cluster.budget.deposit(time)
    this.#owner.onPrepared(time)
  }

  // --- all the rest --------------------------------------------------------------------------------------------------------

  /** Whether the request can be sent now; otherwise something is waited for, or it was refused. */
  isReady(time: number): boolean {
    const { credential, cluster } = this.#owner.target.upstream
    if (credential !== null && this.#authorization.isMissing && !this.#authorize(credential, time)) return false
    if (cluster.isReady) return true
    this.#hold(time)
    return false
  }

  /** Puts the token into the request; false: it is waited for. */
  #authorize(credential: HeaderCredential, time: number): boolean {
    const { line } = credential
    if (line === null) {
      this.#awaitToken(credential, time)
      return false
    }
    if (credential.signer === undefined) this.#owner.request.setCredential(line)
    else if (!this.#isSignable(credential.signer, time)) return false
    this.#authorization.line = line
    return true
  }

  /** Whether what a signature is made over is there; otherwise it is waited for, or the request was refused. */
  #isSignable(signer: RequestSigner, time: number): boolean {
    const owner = this.#owner
    const { request } = owner
    if (this.#isPayloadKnown || (request.isComplete && request.isReplayable)) return true
    if (!request.isReplayable) {
      if (signer.allowsUnsigned) return true
      const detail = `the body is larger than the ${this.keptBytes} bytes that may be kept to be signed: raise retry.maxBufferedBody`
      owner.onRefusal({ reason: 'bad_request', detail, status: 413 })
      return false
    }
    this.#wait('collecting', time, Number.POSITIVE_INFINITY)
    if (owner.expectsContinue) {
      // The upstream is not asked before the body is there, so the client hears it from here.
      owner.expectsContinue = false
      owner.hasContinued = true
      owner.clientSocket.write(CONTINUE)
    }
    this.#awaitClient(time)
    return false
  }

  /** As long as a connection may take to be made. */
  #awaitToken(credential: HeaderCredential, time: number): void {
    this.#wait('authorizing', time, time + this.#owner.target.timeouts.connectMs)
    this.#authorization.wait(credential)
  }

  #onToken(time: number): void {
    if (this.#state !== 'authorizing') return
    this.#waited(time)
    if (this.#owner.target.upstream.credential?.line === null) this.refuseWithoutToken()
    else this.#owner.onPrepared(time)
  }

  refuseWithoutToken(): void {
    const detail = this.#owner.target.upstream.credential?.failure ?? ''
    this.#owner.onRefusal({ reason: 'auth_unavailable', detail })
  }

  /** An answer 401: waits for another token, once. False: there is none to be had. */
  awaitAnotherToken(time: number): boolean {
    const { credential } = this.#owner.target.upstream
    if (credential === null || !this.#authorization.mayRenew(credential)) return false
    this.#awaitToken(credential, time)
    return true
  }

  /** A signature was refused by an upstream whose time this is: waits to sign by its clock, once. False: that would be the same. */
  awaitAnotherSignature(serverMs: number, time: number): boolean {
    const { credential } = this.#owner.target.upstream
    if (credential === null || !this.#authorization.mayResign(credential, serverMs)) return false
    this.#awaitToken(credential, time)
    return true
  }

  /** No endpoint is known yet: the application may be started before its upstream is in DNS. */
  #hold(time: number): void {
    const owner = this.#owner
    const { cluster } = owner.target.upstream
    this.#wait('held', time, Number.POSITIVE_INFINITY)
    if (!owner.request.isComplete) this.#awaitClient(time)
    const leave = cluster.whenReady(Math.min(MAX_WAIT_MS, Math.max(0, owner.deadlineAt - time)), (isReady) => {
      this.#leaveHold = null
      if (this.#state !== 'held') return
      const later = refreshClock()
      this.#waited(later)
      if (isReady) owner.onPrepared(later)
      else owner.onNoEndpoint(cluster.whyUnready, later)
    })
    if (this.#state === 'held') this.#leaveHold = leave
  }

  // --- the client's side ---------------------------------------------------------------------------------------------------

  /** More of the request's body came. */
  onRequestBody(time: number): void {
    const { request } = this.#owner
    if (this.#state === 'collecting' && (request.isComplete || !request.isReplayable)) {
      this.#waited(time)
      this.#owner.onPrepared(time)
    } else if (this.#state === 'held' && request.isComplete) this.#step.clear()
    else if (this.#state === 'held' || this.#state === 'collecting') this.#awaitClient(time)
  }

  /** Part of the body is missing, and nobody takes it yet. */
  #awaitClient(time: number): void {
    const { idleMs } = this.#owner.target.timeouts
    if (idleMs !== null && !this.#owner.expectsContinue) this.#step.set(time + idleMs)
  }

  // --- waiting -------------------------------------------------------------------------------------------------------------

  #wait(state: State, time: number, until: number): void {
    this.#state = state
    this.#waitingSince = time
    if (until === Number.POSITIVE_INFINITY) this.#step.clear()
    else this.#step.set(until)
  }

  #waited(time: number): void {
    this.#owner.queueMs += time - this.#waitingSince
    this.#state = 'free'
    this.#step.clear()
  }

  #onStep(): void {
    const time = now()
    switch (this.#state) {
      case 'delayed':
        this.#onTurn(time)
        break
      case 'authorizing': {
        const { timeouts, upstream } = this.#owner.target
        const detail = `no token within ${timeouts.connectMs} ms: ${upstream.credential?.failure}`
        this.#owner.onRefusal({ reason: 'auth_unavailable', detail })
        break
      }
      case 'held':
      case 'collecting':
        this.#owner.onIdleClient()
    }
  }

  /** The request is given up, or sent and over: nothing is waited for any more. Its turn is another one's. Idempotent. */
  cancel(): void {
    if (this.#state === 'delayed') this.#owner.target.rateLimit?.giveBack()
    this.#leaveHold?.()
    this.#leaveHold = null
    this.#authorization.cancel()
    if (this.#state !== 'free') this.#waited(now())
  }

  /** The exchange will not be used again. */
  release(): void {
    this.#step.release()
  }
}
