/** Lets requests or connections through at a rate: a token bucket that refuses, or delays within a bound. */
import type { RateLimitConfig } from '../../common/proxy-config.ts'
import type { Millis } from './policy.ts'

/**
 * A bucket of `burst` tokens, full at first, which gains `requests` tokens per `perMs`. Kept as one number, the moment at which
 * the bucket will be full again (the generic cell rate algorithm), so nothing runs between requests and nothing is rounded:
 * in any span of time no more than burst + span · rate are admitted.
 */
export class RateLimit {
  #config: RateLimitConfig
  #tokenMs: Millis
  #fullAt = Number.NEGATIVE_INFINITY

  /** Admitted late. */
  delayed = 0
  /** Refused. */
  limited = 0

  constructor(config: RateLimitConfig) {
    this.#config = config
    this.#tokenMs = config.perMs / config.requests
  }

  /**
   * Takes a token.
   * @returns 0: go on now. More than 0 (with `Delay` only): the token is taken, go on after so many milliseconds.
   * Less than 0: refused, and the same request might be admitted after so many milliseconds (Retry-After).
   */
  admit(now: Millis): number {
    const fullAt = Math.max(this.#fullAt, now)
    const waitMs = fullAt - now - (this.#config.burst - 1) * this.#tokenMs
    // A float's error must not make a request that comes exactly on time wait for a picosecond.
    if (waitMs <= 1e-6) {
      this.#fullAt = fullAt + this.#tokenMs
      return 0
    }
    if (this.#config.onLimit === 'Delay' && waitMs <= this.#config.maxDelayMs) {
      this.#fullAt = fullAt + this.#tokenMs
      this.delayed++
      return waitMs
    }
    this.limited++
    return -waitMs
  }

  /**
   * Field lines for the answer to a request that was refused: RateLimit-Policy and RateLimit (draft-ietf-httpapi-ratelimit-headers-10).
   * The quota is that of the rate, in whole seconds as the draft wants it; the burst is not part of it.
   * @param waitMs as admit() told it, without its sign
   */
  fieldLines(waitMs: Millis): readonly string[] {
    const { requests, perMs } = this.#config
    const seconds = Math.ceil(perMs / 1000)
    const quota = Math.max(1, Math.floor((requests * seconds * 1000) / perMs))
    const resetSeconds = Math.max(1, Math.ceil(waitMs / 1000))
    return [`RateLimit-Policy: "ambassador";q=${quota};w=${seconds}`, `RateLimit: "ambassador";r=0;t=${resetSeconds}`]
  }

  /** Returns a token whose request left before its delay was over. */
  giveBack(): void {
    this.#fullAt -= this.#tokenMs
  }

  /** Tokens in the bucket now; less than 0 while delayed requests have taken tokens that are still to come. */
  remaining(now: Millis): number {
    return this.#config.burst - Math.max(0, this.#fullAt - now) / this.#tokenMs
  }

  /** Takes over a changed configuration; tokens that were taken stay taken, at most the new burst of them. */
  reconfigure(config: RateLimitConfig, now: Millis): void {
    const taken = Math.min(config.burst, Math.max(0, this.#fullAt - now) / this.#tokenMs)
    this.#config = config
    this.#tokenMs = config.perMs / config.requests
    this.#fullAt = now + taken * this.#tokenMs
  }
}
