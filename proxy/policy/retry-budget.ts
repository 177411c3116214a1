/** Bounds how much retries may add to the load of an upstream: a share of its requests, or a few a second when that is more. */
import type { Millis } from './policy.ts'

/**
 * What a request or a retry counts for lasts this long. No longer, for what is saved up is spent at once when an upstream dies: in any
 * second, retries are at most the share of the requests of that second, from the first one on.
 */
export const BUDGET_TTL_MS = 1_000
const SLICES = 10
const SLICE_MS = BUDGET_TTL_MS / SLICES

export interface RetryBudgetOptions {
  /** Retries per request, 0 to 1, over the last second. */
  readonly ratio: number
  /** Retries per second that are allowed whatever the share; one that is not used is not saved up. */
  readonly minPerSecond: number
  /** Most retries in flight at once. */
  readonly maxConcurrent: number
}

/** One per cluster. Each request pays in, each retry takes out; both are forgotten after a second. */
export class RetryBudget {
  #options: RetryBudgetOptions
  readonly #paidIn = new Float64Array(SLICES)
  readonly #takenOut = new Float64Array(SLICES)
  #paidInSum = 0
  #takenOutSum = 0
  #newest = 0
  #active = 0

  /** Retries that were sent. */
  requests = 0
  /** Retries whose attempt succeeded. */
  successes = 0
  /** Failures that were not tried again because the request had used up its own number of retries. */
  limitExceeded = 0
  /** Failures that were not tried again because the budget was used up or too many retries were in flight. */
  overflow = 0

  constructor(options: RetryBudgetOptions) {
    this.#options = options
  }

  /** Retries in flight. */
  get active(): number {
    return this.#active
  }

  /** Pays in for one request (its first attempt). */
  deposit(now: Millis): void {
    this.#advance(now)
    const slot = this.#newest % SLICES
    this.#paidIn[slot] = this.#paidIn[slot]! + 1
    this.#paidInSum++
  }

  /** Takes out one retry and counts it in flight until `endRetry`; false (counted as overflow) when there is none left. */
  tryRetry(now: Millis): boolean {
    this.#advance(now)
    const { ratio, minPerSecond, maxConcurrent } = this.#options
    // The larger of the two and not their sum: a busy upstream that is dead gets its share on top and nothing more.
    const allowed = Math.max((minPerSecond * BUDGET_TTL_MS) / 1000, ratio * this.#paidInSum)
    const balance = allowed - this.#takenOutSum
    // The sum of shares is not exact in binary: five times 0.2 must be one retry.
    if (balance < 1 - 1e-9 || this.#active >= maxConcurrent) {
      this.overflow++
      return false
    }
    const slot = this.#newest % SLICES
    this.#takenOut[slot] = this.#takenOut[slot]! + 1
    this.#takenOutSum++
    this.#active++
    this.requests++
    return true
  }

  /** Ends a retry that `tryRetry` allowed; exactly once each. */
  endRetry(succeeded: boolean): void {
    this.#active--
    if (succeeded) this.successes++
  }

  /** Takes over a changed configuration; what was paid in and taken out stays. */
  reconfigure(options: RetryBudgetOptions): void {
    this.#options = options
  }

  #advance(now: Millis): void {
    const span = Math.floor(now / SLICE_MS)
    const passed = span - this.#newest
    if (passed <= 0) return
    const from = passed >= SLICES ? span - SLICES + 1 : this.#newest + 1
    for (let at = from; at <= span; at++) {
      const slot = at % SLICES
      this.#paidInSum -= this.#paidIn[slot]!
      this.#takenOutSum -= this.#takenOut[slot]!
      this.#paidIn[slot] = 0
      this.#takenOut[slot] = 0
    }
    this.#newest = span
  }
}
