/** How late the event loop runs its timers: the one number that says whether everything else was delayed. */

/** A look costs microseconds; Node's own histogram of delays would wake the process a hundred times a second. */
const LOOK_MS = 250

export class EventLoopDelay {
  #timer: NodeJS.Timeout | null = null
  #dueAt = 0
  #maxMs = 0
  readonly #onLook: (delayMs: number) => void

  /** @param onLook told how late each look is */
  constructor(onLook: (delayMs: number) => void = () => {}) {
    this.#onLook = onLook
  }

  start(): void {
    this.#look()
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }

  /** The longest delay since the last call, in milliseconds. */
  takeMaxMs(): number {
    // A loop that is late right now has not told it yet.
    const current = this.#timer === null ? 0 : performance.now() - this.#dueAt
    const max = Math.max(this.#maxMs, current, 0)
    this.#maxMs = 0
    return max
  }

  #look(): void {
    this.#dueAt = performance.now() + LOOK_MS
    this.#timer = setTimeout(() => {
      const delayMs = performance.now() - this.#dueAt
      this.#maxMs = Math.max(this.#maxMs, delayMs)
      this.#onLook(delayMs)
      this.#look()
    }, LOOK_MS)
    this.#timer.unref()
  }
}
