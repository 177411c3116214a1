/** Time as code sees it: monotonic milliseconds and timers, so that a test can be the clock. */

export interface Timer {
  /** Ends the timer; does nothing when it fired already. */
  cancel(): void
}

export interface Clock {
  /** Milliseconds that never go back. */
  now(): number
  /** Wall time in milliseconds since 1970, for what people read. */
  wall(): number
  /** Calls once after `ms`. The timer keeps the process alive. */
  after(ms: number, call: () => void): Timer
}

/** Longest single timer: setTimeout fires at once above 2^31-1 ms (24.8 days), so longer ones go in steps. */
const LONGEST_MS = 12 * 60 * 60 * 1000

export const systemClock: Clock = {
  now: () => performance.now(),
  wall: () => Date.now(),
  after(ms, call) {
    let left = Math.max(0, ms)
    let handle: NodeJS.Timeout
    const step = (): void => {
      const part = Math.min(left, LONGEST_MS)
      left -= part
      handle = setTimeout(left > 0 ? step : call, part)
    }
    step()
    return { cancel: () => clearTimeout(handle) }
  },
}

/**
 * Resolves after `ms`, or as soon as the signal aborts: then with false. Never rejects, so a loop asks the signal once.
 */
export function sleep(clock: Clock, ms: number, signal?: AbortSignal): Promise<boolean> {
  if (signal?.aborted) return Promise.resolve(false)
  return new Promise((resolve) => {
    const onAbort = (): void => {
      timer.cancel()
      resolve(false)
    }
    const timer = clock.after(ms, () => {
      signal?.removeEventListener('abort', onAbort)
      resolve(true)
    })
    signal?.addEventListener('abort', onAbort, { once: true })
  })
}
