/** Judges from the ends of attempts whether an endpoint is failing: failures in a row, or their share within a sliding window. */
import type { BreakerConfig } from '../../common/proxy-config.ts'
import type { Millis } from './policy.ts'

/** Strategy of a breaker. `record` is on the path of every request: no allocation, no clock of its own. */
export interface FailureDetector {
  /** Counts one ended attempt; true when the endpoint is to be judged failing now. */
  record(outcome: 'success' | 'failure' | 'throttled', now: Millis): boolean
  /** Forgets everything. */
  reset(): void
}

/** Fails after `limit` failures with no success between them. A throttled attempt neither counts nor clears. */
export class ConsecutiveFailures implements FailureDetector {
  readonly #limit: number
  #row = 0

  constructor(limit: number) {
    this.#limit = limit
  }

  record(outcome: 'success' | 'failure' | 'throttled'): boolean {
    if (outcome === 'success') this.#row = 0
    else if (outcome === 'failure') this.#row++
    return this.#row >= this.#limit
  }

  reset(): void {
    this.#row = 0
  }
}

/** Slices of the window: what is counted is never older than the window and at least nine tenths of it. */
const BUCKETS = 10

/**
 * Fails when at least `minimumRequests` attempts ended within the window and the share `ratio` of them failed.
 *
 * The buckets belong to fixed spans of time, not to calls: a gap in the traffic empties what it passes over, so nothing that
 * happened before a gap longer than the window is ever counted.
 */
export class FailureRate implements FailureDetector {
  readonly #ratio: number
  readonly #minimum: number
  readonly #bucketMs: number
  readonly #total = new Uint32Array(BUCKETS)
  readonly #failed = new Uint32Array(BUCKETS)
  #totalSum = 0
  #failedSum = 0
  /** Number of the span of time that the newest bucket stands for. */
  #newest = 0

  constructor(options: { ratio: number; minimumRequests: number; windowMs: Millis }) {
    this.#ratio = options.ratio
    this.#minimum = options.minimumRequests
    this.#bucketMs = Math.max(1, options.windowMs) / BUCKETS
  }

  record(outcome: 'success' | 'failure' | 'throttled', now: Millis): boolean {
    this.#advance(now)
    const slot = this.#newest % BUCKETS
    this.#total[slot] = this.#total[slot]! + 1
    this.#totalSum++
    if (outcome !== 'success') {
      this.#failed[slot] = this.#failed[slot]! + 1
      this.#failedSum++
    }
    // Judged at a success too, which may be the attempt that makes them enough. The product is not exact in binary: 55 of 100 must be 55%.
    return this.#totalSum >= this.#minimum && this.#failedSum >= this.#ratio * this.#totalSum - 1e-9
  }

  reset(): void {
    this.#total.fill(0)
    this.#failed.fill(0)
    this.#totalSum = 0
    this.#failedSum = 0
  }

  #advance(now: Millis): void {
    const span = Math.floor(now / this.#bucketMs)
    const passed = span - this.#newest
    if (passed <= 0) return
    if (passed >= BUCKETS) this.reset()
    else {
      for (let at = this.#newest + 1; at <= span; at++) {
        const slot = at % BUCKETS
        this.#totalSum -= this.#total[slot]!
        this.#failedSum -= this.#failed[slot]!
        this.#total[slot] = 0
        this.#failed[slot] = 0
      }
    }
    this.#newest = span
  }
}

/** Fails as soon as one of two does; both see every attempt. */
class Either implements FailureDetector {
  readonly #a: FailureDetector
  readonly #b: FailureDetector

  constructor(a: FailureDetector, b: FailureDetector) {
    this.#a = a
    this.#b = b
  }

  record(outcome: 'success' | 'failure' | 'throttled', now: Millis): boolean {
    const a = this.#a.record(outcome, now)
    return this.#b.record(outcome, now) || a
  }

  reset(): void {
    this.#a.reset()
    this.#b.reset()
  }
}

/** The detector of slow attempts, which are recorded as failures; null when they are not counted. */
export function slowCallDetector({ slowCall }: Pick<BreakerConfig, 'slowCall'>): FailureDetector | null {
  return slowCall === undefined ? null : new FailureRate(slowCall)
}

/** The detector that a breaker's configuration asks for; null when it asks for none. */
export function failureDetector(
  config: Pick<BreakerConfig, 'consecutiveFailures' | 'failureRate'>,
): FailureDetector | null {
  const row = config.consecutiveFailures === null ? null : new ConsecutiveFailures(config.consecutiveFailures)
  const rate = config.failureRate === null ? null : new FailureRate(config.failureRate)
  return row !== null && rate !== null ? new Either(row, rate) : (row ?? rate)
}
