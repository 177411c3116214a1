/** Time that passes only when a program says so: what runs once in so many milliseconds then runs once in so many requests. */

interface Pending {
  at: number
  readonly everyMs: number | null
  readonly call: () => void
}

/** A certificate that is made later is valid by then. */
const AHEAD_MS = 3_600_000

/**
 * Puts virtual time in place of the clocks, timers and dice of the process. To be called before anything of the proxy is loaded: it reads the
 * clock as it is loaded.
 * @returns what lets that many milliseconds pass and fires what is due
 */
export const installVirtualTime = (): ((ms: number) => void) => {
  const wallOffset = Date.now() + AHEAD_MS
  let now = 0
  let dice = 1
  const pending = new Set<Pending>()
  const add = (call: () => void, ms: number, everyMs: number | null): object => {
    const timer: Pending = { at: now + ms, everyMs, call }
    pending.add(timer)
    const handle = { timer, ref: () => handle, unref: () => handle, hasRef: () => false, refresh: () => again() }
    const again = () => {
      timer.at = now + ms
      pending.add(timer)
      return handle
    }
    return handle
  }
  const drop = (handle: { readonly timer: Pending } | null | undefined): void => {
    if (handle != null) pending.delete(handle.timer)
  }
  Object.assign(globalThis, {
    setTimeout: (call: () => void, ms = 1) => add(call, ms, null),
    setInterval: (call: () => void, ms = 1) => add(call, ms, ms),
    clearTimeout: drop,
    clearInterval: drop,
  })
  performance.now = () => now
  Date.now = () => wallOffset + now
  Math.random = () => {
    dice = (dice * 48_271) % 2_147_483_647
    return dice / 2_147_483_647
  }
  return (ms) => {
    now += ms
    for (const timer of pending) {
      if (timer.at > now) continue
      if (timer.everyMs === null) pending.delete(timer)
      else timer.at = now + timer.everyMs
      timer.call()
    }
  }
}
