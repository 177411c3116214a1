/** Bounds how much retries may add to the load of an upstream: a share of its requests, and a reserve for one that is not dead. */
import type { Millis } from './policy.ts'

/**
 * What a request or a retry counts for lasts this long. No longer, for a share that is saved up is spent at once when an upstream dies.
 */
const BUDGET_TTL_MS = 1_000
/** So much of the reserve is saved up: a few requests that need two retries each want more than one second gives. */
const RESERVE_MS = 10_000
/** What a retry of the reserve costs: a little more than one, so that a dead upstream is under its share again soon after it is known to be busy. */
const RESERVE_PRICE = 1.1
/**
 * The reserve lends no more once so many seconds' worth of retries failed within a second and none helped. Two, for the share of a quiet
 * upstream is at most one of them: what is beside the share is never less than was asked for.
 */
const VAIN_SECONDS = 2
/** A retry helps when at least one of so many succeeds. */
const HELPFUL = 4
const SLICES = 10
const SLICE_MS = BUDGET_TTL_MS / SLICES

export interface RetryBudgetOptions {
  /** Retries per request, 0 to 1, over the last second. */
  readonly ratio: number
  /**
   * Retries per second beside the share, saved up for ten seconds. They are for an upstream that has few requests (fewer than these
   * retries are the share of, in each of the last ten) or whose retries succeed. While none helps, it is lent until twice as many have
   * failed within a second. A busy one that is dead gets its share and nothing
   * more: what it took of the reserve before it was known to be busy, it pays back from its share.
   */
  readonly minPerSecond: number
  /** Most retries in flight at once. */
  readonly maxConcurrent: number
}

/** One per cluster. Each request pays in, each retry takes out; both are forgotten after a second, what was taken of the reserve is not. */
export class RetryBudget {
  #options: RetryBudgetOptions
  readonly #paidIn = new Float64Array(SLICES)
  readonly #takenOut = new Float64Array(SLICES)
  readonly #failed = new Float64Array(SLICES)
  readonly #succeeded = new Float64Array(SLICES)
  #paidInSum = 0
  #takenOutSum = 0
  #failedSum = 0
  #succeededSum = 0
  /** What is taken of the reserve and not given back yet. */
  #debt = 0
  #debtAt = 0
  /** When it was last seen to be busy: one whose requests come in bursts is not quiet between them. */
  #busyAt = Number.NEGATIVE_INFINITY
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
    this.#count(this.#paidIn)
    this.#paidInSum++
  }

  /** Takes out one retry and counts it in flight until `endRetry`; false (counted as overflow) when there is none left. */
  tryRetry(now: Millis): boolean {
    this.#advance(now)
    if (this.#active >= this.#options.maxConcurrent || !this.#take(now)) {
      this.overflow++
      return false
    }
    this.#active++
    this.requests++
    return true
  }

  #take(now: Millis): boolean {
    const { ratio, minPerSecond } = this.#options
    if (ratio * this.#paidInSum > minPerSecond) {
      // What it was given back in the second that made it busy was meant for a quiet one.
      if (this.#debt > 0 && now - this.#busyAt >= RESERVE_MS) this.#debt += minPerSecond
      this.#busyAt = now
    }
    const isQuiet = now - this.#busyAt >= RESERVE_MS
    const isHelpful = this.#isHelpful
    // Retries in flight are not judged: many requests may fail at once, and one retry of each help.
    const lends = isHelpful || (isQuiet && this.#failedSum < VAIN_SECONDS * minPerSecond)
    if (lends) this.#debt = Math.max(0, this.#debt - ((now - this.#debtAt) * minPerSecond) / 1000)
    this.#debtAt = now
    // The sum of shares is not exact in binary: five times 0.2 must be one retry.
    const isOfShare = ratio * this.#paidInSum - this.#takenOutSum >= 1 - 1e-9
    if (!isOfShare) {
      if (!lends || this.#debt + 1 > (minPerSecond * RESERVE_MS) / 1000 + 1e-9) return false
      this.#debt += RESERVE_PRICE
      return true
    }
    this.#count(this.#takenOut)
    this.#takenOutSum++
    if (isQuiet || isHelpful || this.#debt < 1) return true
    this.#debt--
    return false
  }

  /** Whether the retries of the last second were of use; not known of one that had none. */
  get #isHelpful(): boolean {
    return this.#succeededSum > 0 && this.#succeededSum * HELPFUL >= this.#succeededSum + this.#failedSum
  }

  #count(slices: Float64Array): void {
    const slot = this.#newest % SLICES
    slices[slot] = slices[slot]! + 1
  }

  /** Ends a retry that `tryRetry` allowed; exactly once each. */
  endRetry(succeeded: boolean): void {
    this.#active--
    this.#count(succeeded ? this.#succeeded : this.#failed)
    if (succeeded) {
      this.successes++
      this.#succeededSum++
    } else this.#failedSum++
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
      this.#failedSum -= this.#failed[slot]!
      this.#succeededSum -= this.#succeeded[slot]!
      this.#paidIn[slot] = 0
      this.#takenOut[slot] = 0
      this.#failed[slot] = 0
      this.#succeeded[slot] = 0
    }
    this.#newest = span
  }
}
