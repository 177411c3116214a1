/** Slows requests down to what an upstream says it takes, in its 429, Retry-After and RateLimit fields, before it has to refuse them. */
import type { PacingConfig } from '../../common/proxy-config.ts'
import { readRetryAfter } from './backoff.ts'
import type { Millis } from './policy.ts'
import { type QuotaText, quotasOf } from './quota.ts'

/** An answer as a pacer looks at it. */
export interface AnswerView {
  /** The value of a field, its name in lower case; null: there is none. */
  field(name: string): string | null
}

/** Nothing an upstream says stops an application for longer; then one request finds out whether it still holds. */
export const MAX_PAUSE_MS = 300_000
/** After a 429 that says no time. */
const BARE_PAUSE_MS = 1_000
/** Distance of requests after the first 429; each further one doubles it, each answer that is none takes a twentieth off. */
const FIRST_INTERVAL_MS = 10
const MAX_INTERVAL_MS = 1_000
const RECOVERY = 0.95
/** A distance below this is none: 1,000 requests a second. */
const LEAST_INTERVAL_MS = 1
/** While more than this share of the quota is left nobody is slowed down. */
const PLENTY = 0.25

/** What is counted for all hosts of an upstream. */
export interface PacingCounts {
  /** Admitted late. */
  delayed: number
  /** Refused. */
  refused: number
}

/** One per host of an upstream. Requests that are admitted late hold their turn; those that would wait too long are refused. */
export class Pacer {
  #config: PacingConfig
  readonly #counts: PacingCounts
  /** Nobody begins before. */
  #pausedUntil: Millis = 0
  /** The next turn. */
  #nextAt: Millis = 0
  /** Distance of turns, learned from refusals. 0: none. */
  #learnedMs: Millis = 0
  /** Distance that makes the rest of the quota last, up to a time. */
  #spreadMs: Millis = 0
  #spreadUntil: Millis = 0
  /** The most that was ever left: what the quota is, of an upstream that does not say it. */
  #most = 0

  constructor(config: PacingConfig, counts: PacingCounts) {
    this.#config = config
    this.#counts = counts
  }

  reconfigure(config: PacingConfig): void {
    this.#config = config
  }

  /**
   * Takes a turn. One whose request goes away before is not given back: it is a fraction of a second.
   * @returns 0 or more: the turn is taken, go on after so many milliseconds. Less than 0: refused, and the same request might be
   * admitted after so many milliseconds (Retry-After).
   */
  admit(now: Millis): number {
    const waitMs = this.#take(now, this.#config.maxDelayMs)
    if (waitMs > 0) this.#counts.delayed++
    return waitMs
  }

  /**
   * The turn of a request has come. It takes another one when the upstream has refused others meanwhile.
   * @param waitedMs for its first turn
   * @returns as admit()
   */
  admitAgain(now: Millis, waitedMs: Millis): number {
    return now >= this.#pausedUntil ? 0 : this.#take(now, this.#config.maxDelayMs - waitedMs)
  }

  #take(now: Millis, maxDelayMs: Millis): number {
    const at = Math.max(now, this.#nextAt, this.#pausedUntil)
    const waitMs = at - now
    if (waitMs > maxDelayMs) {
      this.#counts.refused++
      return -waitMs
    }
    this.#nextAt = at + this.intervalMs(at)
    return waitMs
  }

  /** Distance of requests now; 0: none is kept. */
  intervalMs(now: Millis): Millis {
    return Math.max(this.#learnedMs, now < this.#spreadUntil ? this.#spreadMs : 0)
  }

  /** Learns from an answer. @param wallNow the time of day in milliseconds since 1970, for dates in it */
  onAnswer(status: number, answer: AnswerView, now: Millis, wallNow: number): void {
    const retryAfter = status === 429 || status === 503 ? answer.field('retry-after') : null
    if (status === 429 || retryAfter !== null) {
      this.#slowDown(now)
      const asked = retryAfter === null ? null : readRetryAfter(retryAfter, wallNow)
      this.#pause(now, asked ?? (status === 429 ? BARE_PAUSE_MS : 0))
    } else if (this.#learnedMs > 0) {
      this.#learnedMs *= RECOVERY
      if (this.#learnedMs < LEAST_INTERVAL_MS) this.#learnedMs = 0
    }
    const text: QuotaText = {
      rateLimit: answer.field('ratelimit'),
      policy: null,
      remaining: null,
      limit: null,
      reset: null,
    }
    if (text.rateLimit !== null) text.policy = answer.field('ratelimit-policy')
    else {
      // What came before the draft's two fields, with and without the X.
      text.remaining = answer.field('ratelimit-remaining') ?? answer.field('x-ratelimit-remaining')
      if (text.remaining === null) return
      text.limit = answer.field('ratelimit-limit') ?? answer.field('x-ratelimit-limit')
      text.reset = answer.field('ratelimit-reset') ?? answer.field('x-ratelimit-reset')
    }
    for (const { remaining, resetMs, quota } of quotasOf(text, wallNow)) this.#spread(remaining, resetMs, quota, now)
  }

  /** Many requests that were under way together may be refused together: that is one refusal. */
  #slowDown(now: Millis): void {
    if (now < this.#pausedUntil) return
    this.#learnedMs = Math.min(MAX_INTERVAL_MS, Math.max(FIRST_INTERVAL_MS, this.#learnedMs * 2))
  }

  #pause(now: Millis, ms: Millis): void {
    this.#pausedUntil = Math.max(this.#pausedUntil, now + Math.min(MAX_PAUSE_MS, ms))
  }

  #spread(remaining: number, resetMs: Millis, quota: number | null, now: Millis): void {
    this.#most = Math.max(this.#most, remaining)
    if (remaining <= 0) {
      this.#pause(now, resetMs)
      return
    }
    const isScarce = remaining < PLENTY * (quota ?? this.#most)
    const spreadMs = isScarce ? Math.min(MAX_PAUSE_MS, resetMs) / remaining : 0
    // Of several quotas the one that leaves least counts until its time is over.
    if (now < this.#spreadUntil && spreadMs < this.#spreadMs && resetMs < this.#spreadUntil - now) return
    this.#spreadMs = spreadMs
    this.#spreadUntil = now + Math.min(MAX_PAUSE_MS, resetMs)
  }
}
