/** Bounds how many bytes of requests are held at once: those above wait in line, and the line has an end too. */
import type { Clock, Timer } from '../kube/clock.ts'

interface Waiter {
  readonly weight: number
  readonly timer: Timer
  readonly resolve: (isAdmitted: boolean) => void
}

export class Limiter {
  readonly #capacity: number
  readonly #maxWaiting: number
  readonly #clock: Clock
  readonly #waiting = new Set<Waiter>()
  #used = 0

  /** @param capacity weight that may be in use; a single request may exceed it when it is alone */
  constructor(options: { readonly capacity: number; readonly maxWaiting: number; readonly clock: Clock }) {
    this.#capacity = options.capacity
    this.#maxWaiting = options.maxWaiting
    this.#clock = options.clock
  }

  get waiting(): number {
    return this.#waiting.size
  }

  /** True: go on, and release(weight) at the end. False: the line is full, or the deadline (of the clock) came first. */
  acquire(weight: number, deadline: number): boolean | Promise<boolean> {
    if (this.#waiting.size === 0 && this.#fits(weight)) {
      this.#used += weight
      return true
    }
    const left = deadline - this.#clock.now()
    if (this.#waiting.size >= this.#maxWaiting || left <= 0) return false
    return new Promise((resolve) => {
      const waiter: Waiter = {
        weight,
        resolve,
        timer: this.#clock.after(left, () => {
          this.#waiting.delete(waiter)
          resolve(false)
          this.#admit() // a light one behind a heavy one that gave up
        }),
      }
      this.#waiting.add(waiter)
    })
  }

  release(weight: number): void {
    this.#used -= weight
    this.#admit()
  }

  #admit(): void {
    for (const waiter of this.#waiting) {
      if (!this.#fits(waiter.weight)) return // in order: a heavy one must not starve behind light ones
      this.#waiting.delete(waiter)
      waiter.timer.cancel()
      this.#used += waiter.weight
      waiter.resolve(true)
    }
  }

  #fits(weight: number): boolean {
    return this.#used === 0 || this.#used + weight <= this.#capacity
  }
}
