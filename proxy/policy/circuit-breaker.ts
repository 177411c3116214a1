/** Refuses attempts at an endpoint that keeps failing. One per endpoint, shared by everything that uses it. */
import type { BreakerConfig } from '../../common/proxy-config.ts'
import { type FailureDetector, failureDetector, slowCallDetector } from './failure-detector.ts'
import type { Millis, Outcome, Random } from './policy.ts'

/** `closed`: traffic flows. `open`: none does. `half-open`: a few probes find out. */
export type CircuitState = 'closed' | 'open' | 'half-open'

export interface BreakerOptions {
  readonly config: BreakerConfig
  /** A probe that has not been settled after this long has failed, so that one that hangs cannot hold the circuit half-open. */
  readonly probeTimeoutMs: Millis
  /** Told of each change of state, after it. */
  readonly onChange?: (state: CircuitState) => void
  readonly random?: Random
}

// closed    => open       when the detector judges the endpoint failing
// open      => half-open  at the first attempt after `until`
// half-open => closed     when all probes have succeeded
// half-open => open       at the first probe that failed, was slow or hung, for twice as long
// any       => forced     when a person says so; forced => closed when a person lets go
type State =
  | { readonly kind: 'closed' }
  | { readonly kind: 'open'; readonly trips: number; readonly until: Millis }
  | { readonly kind: 'forced'; readonly isOpen: boolean }
  | { readonly kind: 'half-open'; readonly trips: number; started: number; passed: number; deadline: Millis }

/** Share by which an open time is made longer or shorter, so that the sidecars of a fleet do not probe together. */
const JITTER = 0.1

export class CircuitBreaker {
  #config: BreakerConfig
  #probeTimeoutMs: Millis
  #detector: FailureDetector | null
  /** Counts slow attempts as failures. */
  #slow: FailureDetector | null
  readonly #onChange: ((state: CircuitState) => void) | undefined
  readonly #random: Random
  #state: State = { kind: 'closed' }
  /** Which state a token was given out in; a result from an earlier one is out of date. */
  #epoch = 0

  constructor(options: BreakerOptions) {
    this.#config = options.config
    this.#probeTimeoutMs = options.probeTimeoutMs
    this.#detector = failureDetector(options.config)
    this.#slow = slowCallDetector(options.config)
    this.#onChange = options.onChange
    this.#random = options.random ?? Math.random
  }

  /** As it is known; an open circuit whose time has passed stays `open` here until the next attempt. */
  get state(): CircuitState {
    const state = this.#state
    return state.kind === 'forced' ? (state.isOpen ? 'open' : 'closed') : state.kind
  }

  /** True when `tryAcquire` would admit an attempt now. Changes nothing but a hung probe into the failure that it is. */
  wouldAdmit(now: Millis): boolean {
    const state = this.#state
    if (state.kind === 'closed') return true
    if (state.kind === 'open') return now >= state.until
    if (state.kind === 'forced') return !state.isOpen
    if (state.started < this.#config.halfOpenRequests) return true
    if (now >= state.deadline) this.#trip(state.trips + 1, now)
    return false
  }

  /** Admits an attempt: a token (0 or more) for `settle`, to which it must be given exactly once; -1 when refused. */
  tryAcquire(now: Millis): number {
    let state = this.#state
    if (state.kind === 'closed') return this.#epoch
    if (!this.wouldAdmit(now)) return -1
    if (state.kind === 'forced') return this.#epoch
    if (state.kind === 'open') {
      state = { kind: 'half-open', trips: state.trips, started: 0, passed: 0, deadline: 0 }
      this.#become(state)
    }
    state.started++
    state.deadline = now + this.#probeTimeoutMs
    return this.#epoch
  }

  /**
   * Tells how an admitted attempt ended. What was admitted in an earlier state changes nothing.
   * @param tookMs how long the endpoint took to answer; 0 when nobody knows
   */
  settle(token: number, outcome: Outcome, now: Millis, tookMs: Millis = 0): void {
    if (token !== this.#epoch) return
    const state = this.#state
    const { slowCall } = this.#config
    const isSlow = slowCall !== undefined && tookMs >= slowCall.durationMs
    if (state.kind === 'closed') {
      if (outcome === 'abandoned') return
      const isFailing = this.#detector?.record(outcome, now)
      const isTooSlow = this.#slow?.record(isSlow ? 'failure' : 'success', now)
      if (isFailing || isTooSlow) this.#trip(1, now)
    } else if (state.kind === 'half-open') {
      if (outcome === 'abandoned') state.started--
      else if (outcome !== 'success' || isSlow) this.#trip(state.trips + 1, now)
      else if (++state.passed >= this.#config.halfOpenRequests) {
        this.#forget()
        this.#become({ kind: 'closed' })
      }
    }
  }

  /** Milliseconds until the next attempt may be admitted; 0 when one may be now or only a probe's end decides. */
  retryAfterMs(now: Millis): Millis {
    return this.#state.kind === 'open' ? Math.max(0, this.#state.until - now) : 0
  }

  /**
   * Takes over a changed configuration. The state stays, but a half-open circuit begins its probes anew; what the detector
   * counted is forgotten when its own part changed.
   */
  reconfigure(config: BreakerConfig, probeTimeoutMs: Millis): void {
    const { consecutiveFailures, failureRate } = this.#config
    const detectorChanged =
      config.consecutiveFailures !== consecutiveFailures ||
      config.failureRate?.ratio !== failureRate?.ratio ||
      config.failureRate?.minimumRequests !== failureRate?.minimumRequests ||
      config.failureRate?.windowMs !== failureRate?.windowMs
    if (detectorChanged) this.#detector = failureDetector(config)
    const slow = this.#config.slowCall
    const slowChanged =
      config.slowCall?.durationMs !== slow?.durationMs ||
      config.slowCall?.ratio !== slow?.ratio ||
      config.slowCall?.minimumRequests !== slow?.minimumRequests ||
      config.slowCall?.windowMs !== slow?.windowMs
    if (slowChanged) this.#slow = slowCallDetector(config)
    this.#config = config
    this.#probeTimeoutMs = probeTimeoutMs
    if (this.#state.kind === 'half-open') this.#become({ kind: 'open', trips: this.#state.trips, until: 0 })
  }

  /** What people want of the circuit: `open` and `closed` last until `auto`, which begins closed with nothing counted. */
  force(to: 'open' | 'closed' | 'auto'): void {
    this.#forget()
    this.#become(to === 'auto' ? { kind: 'closed' } : { kind: 'forced', isOpen: to === 'open' })
  }

  /** People have decided on its state. */
  get isForced(): boolean {
    return this.#state.kind === 'forced'
  }

  #forget(): void {
    this.#detector?.reset()
    this.#slow?.reset()
  }

  #trip(trips: number, now: Millis): void {
    const { openMs, maxOpenMs } = this.#config
    const exact = Math.min(openMs * 2 ** (trips - 1), Math.max(openMs, maxOpenMs))
    const until = now + exact * (1 - JITTER + 2 * JITTER * this.#random())
    this.#become({ kind: 'open', trips, until })
  }

  #become(state: State): void {
    this.#state = state
    this.#epoch++
    this.#onChange?.(this.state)
  }
}
