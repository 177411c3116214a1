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
  /** Sidecars that share the limit; 1: it is of this one alone. */
  #sidecars = 1
  #tokenMs: Millis = 0
  #burst = 1
  #fullAt = Number.NEGATIVE_INFINITY

  /** Admitted late. */
  delayed = 0
  /** Refused. */
  limited = 0

  /** @param sidecars among which a limit of the fleet is shared */
  constructor(config: RateLimitConfig, sidecars = 1) {
    this.#config = config
    this.#share(sidecars)
  }

  /** A share of the burst is never less than the one request that makes it a limit and not a stop. */
  #share(sidecars: number): void {
    const { requests, perMs, burst, perFleet } = this.#config
    this.#sidecars = perFleet === true ? sidecars : 1
    this.#tokenMs = (perMs * this.#sidecars) / requests
    this.#burst = Math.max(1, burst / this.#sidecars)
  }

  /**
   * Takes a token.
   * @returns 0: go on now. More than 0 (with `Delay` only): the token is taken, go on after so many milliseconds.
   * Less than 0: refused, and the same request might be admitted after so many milliseconds (Retry-After).
   */
  admit(now: Millis): number {
    const fullAt = Math.max(this.#fullAt, now)
    const waitMs = fullAt - now - (this.#burst - 1) * this.#tokenMs
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
    const quota = Math.max(1, Math.floor((requests * seconds * 1000) / perMs / this.#sidecars))
    const resetSeconds = Math.max(1, Math.ceil(waitMs / 1000))
    return [`RateLimit-Policy: "ambassador";q=${quota};w=${seconds}`, `RateLimit: "ambassador";r=0;t=${resetSeconds}`]
  }

  /** Returns a token whose request left before its delay was over. */
  giveBack(): void {
    this.#fullAt -= this.#tokenMs
  }

  /** Tokens in the bucket now; less than 0 while delayed requests have taken tokens that are still to come. */
  remaining(now: Millis): number {
    return this.#burst - Math.max(0, this.#fullAt - now) / this.#tokenMs
  }

  /** Takes over a changed configuration; tokens that were taken stay taken, at most the new burst of them. */
  reconfigure(config: RateLimitConfig, now: Millis, sidecars = 1): void {
    const taken = Math.max(0, this.#fullAt - now) / this.#tokenMs
    this.#config = config
    this.#share(sidecars)
    this.#fullAt = now + Math.min(this.#burst, taken) * this.#tokenMs
  }

  /** The fleet has grown or shrunk. Nothing happens to a limit that is not shared. */
  shareAmong(sidecars: number, now: Millis): void {
    if (this.#config.perFleet === true && sidecars !== this.#sidecars) this.reconfigure(this.#config, now, sidecars)
  }
}

/** Why a connection was refused, for a person. @param waitMs as admit() told it, without its sign */
export function whyLimited(waitMs: Millis): string {
  return `the rate limit is reached, the next connection may come in ${Math.ceil(waitMs)} ms`
}
