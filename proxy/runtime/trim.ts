/** Gives memory back while nobody waits: what the start, or a burst of traffic, needed once. */
import { type Collect, collector } from './engine.ts'

/** After the start, when the first configs are in force and nothing is compiled any more. */
const FIRST_MS = 1_000
const LOOK_MS = 60_000
/** Worth a pause of some 20 milliseconds and functions that are compiled again. */
const GROWTH_BYTES = 8 * 1024 * 1024

/**
 * V8 keeps the pages of its young generation and the code of functions that ran once; a collection of the last resort returns both:
 * 2 of 15 MB after the start. It stops the event loop, so it is done only while nothing is in the middle of work, and again only
 * when the heap has grown much since. Does nothing while there is no collector, see engine.ts; the image has one.
 */
export class IdleTrim {
  readonly #isBusy: () => boolean
  readonly #collector: () => Collect | undefined
  #timer: NodeJS.Timeout | null = null
  #heapBytes = 0
  /** Collections so far, and how long the last one stopped the event loop. */
  count = 0
  lastMs = 0

  constructor(isBusy: () => boolean, of = collector) {
    this.#isBusy = isBusy
    this.#collector = of
  }

  start(): void {
    this.#schedule(FIRST_MS)
  }

  stop(): void {
    if (this.#timer !== null) clearTimeout(this.#timer)
    this.#timer = null
  }

  #schedule(ms: number): void {
    this.#timer = setTimeout(() => {
      this.look()
      this.#schedule(LOOK_MS)
    }, ms)
    this.#timer.unref()
  }

  /** Collects when it is worth it and nobody waits. */
  look(): void {
    const collect = this.#collector()
    if (collect === undefined || this.#isBusy()) return
    if (process.memoryUsage().heapTotal < this.#heapBytes + (this.count > 0 ? GROWTH_BYTES : 0)) return
    const startedAt = performance.now()
    collect({ type: 'major', execution: 'sync', flavor: 'last-resort' })
    this.lastMs = performance.now() - startedAt
    this.count++
    this.#heapBytes = process.memoryUsage().heapTotal
  }
}
