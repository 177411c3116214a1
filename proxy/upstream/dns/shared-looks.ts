/** Look-ups that several callers share, and names that do not exist, remembered for a moment. */

interface Outcome {
  readonly ok: boolean
  /** Of a failure: DNS itself says that there is nothing. */
  readonly isDefinite?: boolean
}

/**
 * How long a name that does not exist is not asked for again. RFC 2308 allows as long as the SOA record says; but somebody
 * may be waiting for this name to appear.
 */
const NEGATIVE_MS = 1_000
const MAX_NEGATIVE_NAMES = 1000

export class SharedLooks<R extends Outcome> {
  readonly #inFlight = new Map<string, Promise<R>>()
  readonly #negative = new Map<string, { readonly until: number; readonly outcome: R }>()

  /** The outcome of the look-up of this key that is under way or failed just now, else of a new one. */
  look(key: string, begin: () => Promise<R>): Promise<R> {
    const negative = this.#negative.get(key)
    if (negative !== undefined) {
      if (performance.now() < negative.until) return Promise.resolve(negative.outcome)
      this.#negative.delete(key)
    }
    const running = this.#inFlight.get(key)
    if (running !== undefined) return running
    const look = begin().then((outcome) => {
      this.#inFlight.delete(key)
      if (!outcome.ok && outcome.isDefinite) {
        if (this.#negative.size >= MAX_NEGATIVE_NAMES) this.#negative.clear()
        this.#negative.set(key, { until: performance.now() + NEGATIVE_MS, outcome })
      }
      return outcome
    })
    this.#inFlight.set(key, look)
    return look
  }
}
