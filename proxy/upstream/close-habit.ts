/** When a server closes connections that rest, as far as it was seen: a request that cannot be sent twice keeps away from that. */

/** What was seen holds this long after the last time; connections rest no longer than seconds, so a habit shows again soon. */
const REMEMBER_MS = 10_000
/** A close that was seen this long after an answer may have come earlier, and the next one may come that much later. */
const MARGIN_MS = 25

/** Of the endpoint of one pool. All times are in milliseconds. */
export class CloseHabit {
  #shortestMs = 0
  #longestMs = 0
  #until = 0

  /** The server closed a connection, without having said so, that had rested for `restMs`. */
  saw(restMs: number, time: number): void {
    if (time >= this.#until) {
      this.#shortestMs = restMs
      this.#longestMs = restMs
    }
    this.#shortestMs = Math.min(this.#shortestMs, restMs)
    this.#longestMs = Math.max(this.#longestMs, restMs)
    this.#until = time + REMEMBER_MS
  }

  /**
   * A connection that has rested for `restMs` may be closed while a request is on its way: between half the shortest and twice the
   * longest rest that was seen to end so. One that outlives that, of a server that closes some connections right behind an answer, is
   * one that stays.
   */
  isRisky(restMs: number, time: number): boolean {
    if (time >= this.#until) return false
    return restMs > this.#shortestMs / 2 - MARGIN_MS && restMs < 2 * this.#longestMs + MARGIN_MS
  }
}
