/** When a name is looked up again: when the answer has run out, after a failure, and soon when somebody asks, but never too often. */

/** Look-ups are at least this far apart, whoever asks for them. */
const MIN_INTERVAL_MS = 1_000

/** Waits after a failure, doubling: while nothing was ever found, and while there is an earlier answer to go on with. */
const RETRY_MS = 1_000
const MAX_RETRY_MS = 5_000
const MAX_STALE_RETRY_MS = 30_000

/** An answer is asked for again this much after it has run out, at most: so that the sidecars of a fleet do not ask together. */
const MAX_JITTER_MS = 500

export class LookLoop<R> {
  readonly #look: () => Promise<R>
  readonly #onAnswer: (answer: R) => void
  readonly #random: () => number
  #failures = 0
  #startedAt = Number.NEGATIVE_INFINITY
  #isLooking = false
  #isStopped = false
  #timer: NodeJS.Timeout | undefined

  /**
   * @param look must not reject
   * @param onAnswer calls succeeded() or failed() first, which says when the next look-up is
   */
  constructor(look: () => Promise<R>, onAnswer: (answer: R) => void, random: () => number = Math.random) {
    this.#look = look
    this.#onAnswer = onAnswer
    this.#random = random
  }

  /** Looks now. */
  start(): void {
    clearTimeout(this.#timer)
    this.#isLooking = true
    this.#startedAt = performance.now()
    void this.#look().then((answer) => {
      this.#isLooking = false
      if (!this.#isStopped) this.#onAnswer(answer)
    })
  }

  /** Looks again as soon as the least interval allows. */
  refresh(): void {
    if (this.#isStopped || this.#isLooking) return
    const wait = this.#startedAt + MIN_INTERVAL_MS - performance.now()
    if (wait <= 0) this.start()
    else this.#schedule(wait)
  }

  /** The answer holds for so long. */
  succeeded(ttlMs: number): void {
    this.#failures = 0
    this.#schedule(ttlMs + this.#random() * Math.min(MAX_JITTER_MS, 0.1 * ttlMs))
  }

  /** @param isStale there is an earlier answer to go on with */
  failed(isStale: boolean): void {
    const wait = Math.min(isStale ? MAX_STALE_RETRY_MS : MAX_RETRY_MS, RETRY_MS * 2 ** this.#failures++)
    this.#schedule(wait * (1 + 0.1 * this.#random()))
  }

  stop(): void {
    this.#isStopped = true
    clearTimeout(this.#timer)
  }

  #schedule(ms: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.start(), ms)
    this.#timer.unref()
  }
}
