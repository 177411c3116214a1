/** How many connections of the application a listener holds, and which of them gives way to a new one. */
import { memoryLimit } from '../../runtime/overload.ts'
import type { Session } from './session.ts'

/** A connection that rests costs about 10 KB, half of them in the kernel: this is what half of the memory has room for. */
const BYTES_PER_CLIENT = 16 * 1024
const MIN_CLIENTS = 256
const MAX_CLIENTS = 16_384

/** Connections that one search finds for the next ones, too: it looks at all. */
const FOUND_AT_ONCE = 64

/** The bound without AMBASSADOR_MAX_CLIENT_CONNECTIONS. @param limit of the container's memory in bytes; null: none */
export function defaultMaxClients(limit: number | null = memoryLimit()): number {
  if (limit === null) return MAX_CLIENTS
  return Math.max(MIN_CLIENTS, Math.min(MAX_CLIENTS, Math.floor(limit / 2 / BYTES_PER_CLIENT)))
}

export class Room {
  readonly max: number
  /** Those that rested longest, the longest last, when they were looked for. */
  #resting: Session[] = []

  constructor(max: number) {
    this.max = max
  }

  /** Closes the connection that has rested longest; false: none rests. */
  make(sessions: Iterable<Session>, time: number): boolean {
    const given = this.#next(time)
    if (given !== null) {
      given.destroy()
      return true
    }
    this.#resting = [...sessions]
      .filter((each) => each.mayGiveWay(time))
      .sort((one, other) => one.restsSince - other.restsSince)
      .slice(0, FOUND_AT_ONCE)
      .reverse()
    const found = this.#next(time)
    found?.destroy()
    return found !== null
  }

  #next(time: number): Session | null {
    for (;;) {
      const session = this.#resting.pop()
      if (session === undefined) return null
      if (session.mayGiveWay(time)) return session
    }
  }
}
