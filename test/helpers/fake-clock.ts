/** A clock that a test moves: timers fire in order, and promises between them get their turn. */
import type { Clock, Timer } from '../../operator/kube/clock.ts'

interface Pending {
  readonly at: number
  readonly order: number
  readonly call: () => void
}

export class FakeClock implements Clock {
  #now = 1_000_000
  #order = 0
  readonly #pending = new Set<Pending>()
  /** Wall time minus monotonic time. */
  wallOffset = Date.parse('2026-01-01T00:00:00Z') - 1_000_000

  now(): number {
    return this.#now
  }

  wall(): number {
    return this.#now + this.wallOffset
  }

  after(ms: number, call: () => void): Timer {
    const pending = { at: this.#now + Math.max(0, ms), order: this.#order++, call }
    this.#pending.add(pending)
    return { cancel: () => this.#pending.delete(pending) }
  }

  /** How many timers wait. */
  get timers(): number {
    return this.#pending.size
  }

  /** Moves the time, firing what is due on the way. */
  async advance(ms: number): Promise<void> {
    const end = this.#now + ms
    await settle()
    for (;;) {
      let next: Pending | undefined
      for (const each of this.#pending) {
        if (
          each.at <= end &&
          (next === undefined || each.at < next.at || (each.at === next.at && each.order < next.order))
        )
          next = each
      }
      if (next === undefined) break
      this.#pending.delete(next)
      this.#now = Math.max(this.#now, next.at)
      next.call()
      await settle()
    }
    this.#now = end
  }
}

/** Lets every promise that is ready go on. */
export async function settle(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await new Promise((resolve) => setImmediate(resolve))
}
