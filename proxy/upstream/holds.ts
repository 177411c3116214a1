/** Attempts that came before the endpoints of their cluster did: each waits until they are there, within a time of its own. */
import type { Millis } from '../policy/policy.ts'

interface Hold {
  readonly done: (ready: boolean) => void
  readonly timer: NodeJS.Timeout
}

/** Discovery is asked to look again this often while somebody waits. */
const REFRESH_MS = 1_000

export class Holds {
  readonly #refresh: () => void
  readonly #holds = new Set<Hold>()
  #refreshing: NodeJS.Timeout | undefined

  /** @param refresh has discovery look again */
  constructor(refresh: () => void) {
    this.#refresh = refresh
  }

  get isEmpty(): boolean {
    return this.#holds.size === 0
  }

  /** Calls `done` once: with what end() says, or with false after `timeoutMs`. @returns gives up waiting; `done` is then never called */
  add(timeoutMs: Millis, done: (ready: boolean) => void): () => void {
    const hold: Hold = { done, timer: setTimeout(() => this.#end(hold, false), timeoutMs) }
    this.#holds.add(hold)
    this.#refresh()
    this.#refreshing ??= setInterval(this.#refresh, REFRESH_MS).unref()
    return () => this.#remove(hold)
  }

  end(ready: boolean): void {
    for (const hold of this.#holds) this.#end(hold, ready)
  }

  #end(hold: Hold, ready: boolean): void {
    this.#remove(hold)
    hold.done(ready)
  }

  #remove(hold: Hold): void {
    clearTimeout(hold.timer)
    this.#holds.delete(hold)
    if (this.#holds.size > 0) return
    clearInterval(this.#refreshing)
    this.#refreshing = undefined
  }
}
