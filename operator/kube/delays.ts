/** Keys that are due later: a heap and one timer, because ten thousand pods must not mean ten thousand timers. */
import type { Clock, Timer } from './clock.ts'

interface Due {
  readonly key: string
  readonly at: number
}

export class Delays {
  readonly #clock: Clock
  readonly #onDue: (key: string) => void
  /** The truth; what the heap holds beside it is out of date and passed over. */
  readonly #at = new Map<string, number>()
  readonly #heap: Due[] = []
  #timer: Timer | undefined
  #timerAt = Number.POSITIVE_INFINITY

  /** `onDue` is told each key once, when its time has come. */
  constructor(clock: Clock, onDue: (key: string) => void) {
    this.#clock = clock
    this.#onDue = onDue
  }

  get size(): number {
    return this.#at.size
  }

  /** When a key is due, or undefined. */
  dueAt(key: string): number | undefined {
    return this.#at.get(key)
  }

  set(key: string, at: number): void {
    this.#at.set(key, at)
    if (this.#heap.length > 2 * this.#at.size + 64) this.#rebuild()
    else this.#push({ key, at })
    this.#arm()
  }

  delete(key: string): void {
    this.#at.delete(key)
  }

  clear(): void {
    this.#at.clear()
    this.#heap.length = 0
    this.#timer?.cancel()
    this.#timerAt = Number.POSITIVE_INFINITY
  }

  #arm(): void {
    const next = this.#heap[0]?.at ?? Number.POSITIVE_INFINITY
    if (next >= this.#timerAt || next === Number.POSITIVE_INFINITY) return
    this.#timer?.cancel()
    this.#timerAt = next
    this.#timer = this.#clock.after(next - this.#clock.now(), () => this.#fire())
  }

  #fire(): void {
    this.#timerAt = Number.POSITIVE_INFINITY
    const due: string[] = []
    const now = this.#clock.now()
    for (let first = this.#heap[0]; first !== undefined && first.at <= now; first = this.#heap[0]) {
      this.#pop()
      if (this.#at.get(first.key) !== first.at) continue
      this.#at.delete(first.key)
      due.push(first.key)
    }
    for (const key of due) this.#onDue(key)
    this.#arm()
  }

  /** Without what is out of date. A sorted list is a heap. */
  #rebuild(): void {
    this.#heap.length = 0
    for (const [key, at] of this.#at) this.#heap.push({ key, at })
    this.#heap.sort((a, b) => a.at - b.at)
  }

  #push(due: Due): void {
    const heap = this.#heap
    let at = heap.push(due) - 1
    while (at > 0) {
      const parent = (at - 1) >> 1
      if (heap[parent]!.at <= due.at) break
      heap[at] = heap[parent]!
      at = parent
    }
    heap[at] = due
  }

  #pop(): void {
    const heap = this.#heap
    const last = heap.pop()
    if (last === undefined || heap.length === 0) return
    let at = 0
    for (;;) {
      let child = 2 * at + 1
      if (child >= heap.length) break
      if (child + 1 < heap.length && heap[child + 1]!.at < heap[child]!.at) child++
      if (heap[child]!.at >= last.at) break
      heap[at] = heap[child]!
      at = child
    }
    heap[at] = last
  }
}
