/** How many connections of the application a listener holds, and which of them gives way to a new one. */
import { readFileSync } from 'node:fs'
import { memoryLimit } from '../../runtime/overload.ts'
import type { Session } from './session.ts'

/** A connection that rests costs about 10 KB, half of them in the kernel: this is what half of the memory has room for. */
const BYTES_PER_CLIENT = 16 * 1024
const MIN_CLIENTS = 256
const MAX_CLIENTS = 16_384

/** Connections that one search finds for the next ones, too: it looks at all. */
const FOUND_AT_ONCE = 64

/** What the process itself has open, beside connections. */
const OTHER_FILES = 64

/**
 * The bound without AMBASSADOR_MAX_CLIENT_CONNECTIONS: what the memory has room for, and three quarters of the files that may be
 * open, since those clients have connections to upstreams, too.
 * @param memory limit of the container's memory in bytes; null: none
 * @param files limit of open files; null: none
 */
export function defaultMaxClients(memory = memoryLimit(), files = openFilesLimit()): number {
  const byMemory = memory === null ? MAX_CLIENTS : Math.max(MIN_CLIENTS, Math.floor(memory / 2 / BYTES_PER_CLIENT))
  const byFiles = files === null ? MAX_CLIENTS : Math.max(1, Math.floor((files - OTHER_FILES) * 0.75))
  return Math.min(MAX_CLIENTS, byMemory, byFiles)
}

/** How many files this process may have open (RLIMIT_NOFILE); null: no limit, or not known. */
function openFilesLimit(): number | null {
  try {
    const limit = Number(/^Max open files +(\S+)/m.exec(readFileSync('/proc/self/limits', 'utf8'))?.[1])
    return limit > 0 ? limit : null
  } catch {
    return null
  }
}

export class Room {
  readonly max: number
  /** Connections beyond the most that are told so; more are closed without a word. */
  readonly maxTurnedAway: number
  /** Those that rested longest, the longest last, when they were looked for. */
  #resting: Session[] = []

  constructor(max: number) {
    this.max = max
    this.maxTurnedAway = Math.max(8, Math.min(256, Math.ceil(max / 4)))
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
