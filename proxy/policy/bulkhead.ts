/** Bounds how many connections an upstream gets, and how many may wait for one. */

/** Something that waits for a slot. The links belong to the bulkhead: nothing is allocated to wait, and leaving costs the same for the first and the last. */
export interface Waiter {
  /** Called when a slot is this waiter's, which is then already taken for it and must be released. Never called after `cancel`. */
  onSlot(): void
  nextWaiter: Waiter | null
  previousWaiter: Waiter | null
  /** The bulkhead it waits at; null when it does not wait. */
  waitsAt: Bulkhead | null
}

export interface BulkheadOptions {
  /** Most slots in use. */
  readonly max: number
  /** Most waiters; 0: nobody waits. */
  readonly maxPending: number
  /**
   * Who gets a free slot. `Oldest` is fair. `Newest` keeps the wait short for most when more come than can be served: the oldest,
   * whose clients are about to give up, run into their deadline instead of everybody.
   */
  readonly first: 'Oldest' | 'Newest'
}

/** A count of slots and a bounded list of waiters. Every wait ends by `onSlot` or by the waiter's own `cancel`: its deadline is its own. */
export class Bulkhead {
  #options: BulkheadOptions
  #used = 0
  #pending = 0
  #oldest: Waiter | null = null
  #newest: Waiter | null = null
  #isServing = false

  /** Times that somebody was refused because the queue was full. */
  overflow = 0

  constructor(options: BulkheadOptions) {
    this.#options = options
  }

  get used(): number {
    return this.#used
  }

  get max(): number {
    return this.#options.max
  }

  get pending(): number {
    return this.#pending
  }

  /** Takes a slot if one is free and nobody waits for it. */
  tryAcquire(): boolean {
    if (this.#used >= this.#options.max || this.#pending > 0) return false
    this.#used++
    return true
  }

  /** Queues a waiter; false (counted as overflow) when the queue is full. */
  wait(waiter: Waiter): boolean {
    if (this.#pending >= this.#options.maxPending) {
      this.overflow++
      return false
    }
    waiter.waitsAt = this
    waiter.nextWaiter = null
    waiter.previousWaiter = this.#newest
    if (this.#newest === null) this.#oldest = waiter
    else this.#newest.nextWaiter = waiter
    this.#newest = waiter
    this.#pending++
    return true
  }

  /** Takes a waiter out of the queue (its deadline passed, its client left). Does nothing when it does not wait here. */
  cancel(waiter: Waiter): void {
    if (waiter.waitsAt === this) this.#remove(waiter)
  }

  /** Frees a slot and gives it to the next waiter. */
  release(): void {
    this.#used--
    this.#serve()
  }

  /** Who gets the next slot that is free; null when nobody waits. */
  get next(): Waiter | null {
    return this.#options.first === 'Oldest' ? this.#oldest : this.#newest
  }

  /** Who comes behind this one, which waits here; null when nobody does. */
  after(waiter: Waiter): Waiter | null {
    return this.#options.first === 'Oldest' ? waiter.nextWaiter : waiter.previousWaiter
  }

  /**
   * Takes the next waiter out without a slot, for an owner that has something else for it (a pooled connection that became idle).
   * Null when nobody waits.
   */
  shift(): Waiter | null {
    const waiter = this.next
    if (waiter !== null) this.#remove(waiter)
    return waiter
  }

  /** Takes over changed bounds. Slots in use and waiters stay, also beyond lower bounds. */
  reconfigure(options: BulkheadOptions): void {
    this.#options = options
    this.#serve()
  }

  /** A waiter that releases its slot at once, as all do behind a circuit that has opened, is followed by the next one here, not below it. */
  #serve(): void {
    if (this.#isServing) return
    this.#isServing = true
    try {
      while (this.#used < this.#options.max) {
        const waiter = this.shift()
        if (waiter === null) return
        this.#used++
        waiter.onSlot()
      }
    } finally {
      this.#isServing = false
    }
  }

  #remove(waiter: Waiter): void {
    if (waiter.previousWaiter === null) this.#oldest = waiter.nextWaiter
    else waiter.previousWaiter.nextWaiter = waiter.nextWaiter
    if (waiter.nextWaiter === null) this.#newest = waiter.previousWaiter
    else waiter.nextWaiter.previousWaiter = waiter.previousWaiter
    waiter.nextWaiter = null
    waiter.previousWaiter = null
    waiter.waitsAt = null
    this.#pending--
  }
}
