/** What a test says of times holds while the machine gives it its turn: how late this process was, and attempts that do not count. */

/** A machine that never gives a turn is told so in the end. */
const MAX_ATTEMPTS = 20
const LOOK_MS = 5

/** Watches how late this process gets its turn, from its making until stop(). */
export class Lateness {
  #worstMs = 0
  #last = performance.now()
  readonly #timer = setInterval(() => this.#look(), LOOK_MS)

  /** The longest that it stood still, in milliseconds. */
  get worstMs(): number {
    this.#look()
    return this.#worstMs
  }

  stop(): void {
    clearInterval(this.#timer)
  }

  #look(): void {
    const now = performance.now()
    this.#worstMs = Math.max(this.#worstMs, now - this.#last - LOOK_MS)
    this.#last = now
  }
}

/**
 * Makes an attempt, and another one when it fails while this process stood still for more than `lateMs`: then it says nothing of the
 * product. For what has a deadline on both sides in one process; an attempt begins with a world of its own.
 * @throws what the attempt threw when this process was on time
 */
export async function onTime<T>(lateMs: number, attempt: () => Promise<T>): Promise<T> {
  for (let count = 1; ; count++) {
    const lateness = new Lateness()
    try {
      return await attempt()
    } catch (error) {
      if (lateness.worstMs <= lateMs || count === MAX_ATTEMPTS) throw error
    } finally {
      lateness.stop()
    }
  }
}
