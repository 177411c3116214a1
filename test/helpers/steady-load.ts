/** A steady rate of exchanges by the clock: what a busy machine was too late to send is sent as soon as it can. */

/** How often the load looks what is due. */
const TICK_MS = 10

export interface SteadyLoadOptions {
  readonly perSecond: number
  /** One exchange: what was answered, or how it failed. Must not reject. */
  readonly one: () => Promise<string>
  /** More are not under way at a time. Default 200. */
  readonly max?: number
  /** Most that are begun at one look at the clock, so that what a busy machine was too late for does not come in one burst. Default: all. */
  readonly maxAtOnce?: number
}

export class SteadyLoad {
  readonly #options: SteadyLoadOptions
  readonly #startedAt = performance.now()
  readonly #timer: NodeJS.Timeout
  readonly #pending = new Set<Promise<void>>()
  #tickedAt = performance.now()
  #endedAt = 0
  sent = 0
  /** The longest that this process was late to look at its clock, in milliseconds: what no proxy in it can be quicker than. */
  lateMs = 0
  /** All such times together. */
  lostMs = 0
  /** Answers, how often, and when the newest exchange began that got it (of performance.now()). */
  readonly answers = new Map<string, { count: number; lastBeganAt: number }>()

  constructor(options: SteadyLoadOptions) {
    this.#options = options
    this.#timer = setInterval(() => this.#tick(), TICK_MS)
  }

  /** How often an answer came. */
  count(answer: string): number {
    return this.answers.get(answer)?.count ?? 0
  }

  /** Every answer that is none of these, with its count. */
  others(...expected: readonly string[]): Record<string, number> {
    const found = [...this.answers].filter(([answer]) => !expected.includes(answer))
    return Object.fromEntries(found.map(([answer, { count }]) => [answer, count]))
  }

  /** Exchanges a second that were really sent. */
  get rate(): number {
    return Math.round((this.sent * 1000) / ((this.#endedAt || performance.now()) - this.#startedAt))
  }

  /** Resolves when this many more exchanges have been sent than now. */
  async more(count: number): Promise<void> {
    const until = this.sent + count
    while (this.sent < until) await new Promise((resolve) => setTimeout(resolve, TICK_MS))
  }

  /** Sends no more and waits for what is under way. */
  async stop(): Promise<void> {
    clearInterval(this.#timer)
    this.#endedAt ||= performance.now()
    await Promise.all(this.#pending)
  }

  #tick(): void {
    const at = performance.now()
    const late = Math.max(0, at - this.#tickedAt - TICK_MS)
    this.lateMs = Math.max(this.lateMs, late)
    this.lostMs += late
    this.#tickedAt = at
    const { perSecond, max = 200, maxAtOnce = max } = this.#options
    const due = Math.floor(((at - this.#startedAt) * perSecond) / 1000)
    for (let begun = 0; begun < maxAtOnce && this.sent < due && this.#pending.size < max; begun++) {
      this.sent++
      const one = this.#send().finally(() => this.#pending.delete(one))
      this.#pending.add(one)
    }
  }

  async #send(): Promise<void> {
    const beganAt = performance.now()
    const answer = await this.#options.one()
    const known = this.answers.get(answer)
    if (known === undefined) this.answers.set(answer, { count: 1, lastBeganAt: beganAt })
    else {
      known.count++
      known.lastBeganAt = Math.max(known.lastBeganAt, beganAt)
    }
  }
}
