/** How long the machine kept this process from running: what no product in it can make up for. */

const LOOK_MS = 10

/** Looks at the clock every few milliseconds until it is stopped. */
export class Lateness {
  readonly #timer: NodeJS.Timeout
  #lookedAt = performance.now()
  /** The longest that it did not run, in milliseconds. */
  longestMs = 0
  /** All such times together, in milliseconds: no delay that the process measures is longer than its own work and this. */
  lostMs = 0

  constructor() {
    this.#timer = setInterval(() => {
      const time = performance.now()
      const late = Math.max(0, time - this.#lookedAt - LOOK_MS)
      this.#lookedAt = time
      this.longestMs = Math.max(this.longestMs, late)
      this.lostMs += late
    }, LOOK_MS)
  }

  stop(): void {
    clearInterval(this.#timer)
  }
}
