/** Runs work by key: each key once at a time, never lost, failures after a growing wait, everything below one overall rate. */
import { type Log, silentLog } from '../../common/log.ts'
import { backoffMs } from './backoff.ts'
import { type Clock, systemClock, type Timer } from './clock.ts'
import { Delays } from './delays.ts'
import { isAborted, retryAfterMs } from './errors.ts'
import { type Rate, TokenBucket } from './token-bucket.ts'

export interface WorkQueueOptions {
  /** For logs and metrics. */
  readonly name: string
  /** Does the work of a key. A number that it returns asks for the key again after so many milliseconds; what it throws is tried again with back-off. */
  // biome-ignore lint/suspicious/noConfusingVoidType: work that wants nothing more returns nothing
  readonly work: (key: string, signal: AbortSignal) => Promise<number | void>
  /** Keys that are worked on at the same time. Default 4. */
  readonly concurrency?: number
  /** Over all keys. Default 50 a second, burst 100. */
  readonly rate?: Rate
  /** Wait after failures of one key. Default 200 ms to 60 s. */
  readonly backoff?: { readonly initialMs?: number; readonly maxMs?: number }
  readonly clock?: Clock
  readonly random?: () => number
  readonly log?: Log
  /** Told the end of each piece of work: for metrics. */
  readonly observe?: (result: 'success' | 'requeued' | 'error', durationMs: number) => void
}

export class WorkQueue {
  readonly #options: WorkQueueOptions
  readonly #clock: Clock
  readonly #log: Log
  readonly #bucket: TokenBucket
  readonly #abort = new AbortController()
  /** Ready to be worked on, oldest first. */
  readonly #ready = new Set<string>()
  /** Being worked on; true: asked for again meanwhile. */
  readonly #running = new Map<string, boolean>()
  readonly #delayed: Delays
  readonly #failures = new Map<string, number>()
  #paceTimer: Timer | undefined
  /** Time at which the next piece of work may start; a token is reserved for it. */
  #nextAt: number | undefined
  #isShut = false
  #idle: PromiseWithResolvers<void> | undefined

  constructor(options: WorkQueueOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#log = options.log ?? silentLog
    this.#delayed = new Delays(this.#clock, (key) => this.add(key))
    this.#bucket = new TokenBucket(options.rate ?? { perSecond: 50, burst: 100 }, () => this.#clock.now())
  }

  /** Keys that are ready or delayed, without those being worked on. */
  get depth(): number {
    return this.#ready.size + this.#delayed.size
  }

  /** Asks for the key now. A key that is ready already is not doubled; one that is being worked on runs once more afterwards. */
  add(key: string): void {
    if (this.#isShut) return
    this.#delayed.delete(key)
    if (this.#running.has(key)) this.#running.set(key, true)
    else {
      this.#ready.add(key)
      this.#pump()
    }
  }

  /** Asks for the key after `ms`. Of two delays of one key the earlier one holds. */
  addAfter(key: string, ms: number): void {
    if (this.#isShut || this.#ready.has(key)) return
    if (ms <= 0) {
      this.add(key)
      return
    }
    const at = this.#clock.now() + ms
    const known = this.#delayed.dueAt(key)
    if (known === undefined || at < known) this.#delayed.set(key, at)
  }

  /** Drops what waits, aborts the signal of what runs, and resolves when nothing runs any more. */
  async shutdown(): Promise<void> {
    this.#isShut = true
    this.#ready.clear()
    this.#paceTimer?.cancel()
    this.#delayed.clear()
    this.#failures.clear()
    this.#abort.abort()
    if (this.#running.size === 0) return
    this.#idle ??= Promise.withResolvers<void>()
    await this.#idle.promise
  }

  #pump(): void {
    const concurrency = this.#options.concurrency ?? 4
    while (!this.#isShut && this.#ready.size > 0 && this.#running.size < concurrency) {
      const now = this.#clock.now()
      this.#nextAt ??= now + this.#bucket.reserve()
      if (this.#nextAt > now) {
        this.#paceTimer?.cancel()
        this.#paceTimer = this.#clock.after(this.#nextAt - now, () => this.#pump())
        return
      }
      this.#nextAt = undefined
      const [key] = this.#ready as unknown as [string]
      this.#ready.delete(key)
      this.#running.set(key, false)
      void this.#work(key)
    }
  }

  async #work(key: string): Promise<void> {
    const started = this.#clock.now()
    try {
      const again = await this.#options.work(key, this.#abort.signal)
      this.#failures.delete(key)
      if (typeof again === 'number') this.addAfter(key, again)
      this.#options.observe?.(typeof again === 'number' ? 'requeued' : 'success', this.#clock.now() - started)
    } catch (error) {
      this.#fail(key, error)
      this.#options.observe?.('error', this.#clock.now() - started)
    }
    const again = this.#running.get(key) === true
    this.#running.delete(key)
    if (this.#isShut) {
      if (this.#running.size === 0) this.#idle?.resolve()
      return
    }
    if (again) this.add(key)
    this.#pump()
  }

  #fail(key: string, error: unknown): void {
    if (this.#isShut && isAborted(error)) return
    const failures = (this.#failures.get(key) ?? 0) + 1
    this.#failures.set(key, failures)
    const waitMs = Math.max(
      retryAfterMs(error),
      backoffMs(failures, { initialMs: 200, maxMs: 60_000, ...this.#options.backoff, random: this.#options.random }),
    )
    this.#log.warn(
      { resource: this.#options.name, detail: key, count: failures, durationMs: waitMs, err: error },
      'work failed, trying again',
    )
    this.addAfter(key, waitMs)
  }
}
