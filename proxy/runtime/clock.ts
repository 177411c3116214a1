/** The coarse monotonic clock: read once per event from the kernel, then shared by everything that the event sets off. */

let current = performance.now()

/**
 * Milliseconds of the monotonic clock as of the event being handled (a read, a timer, a new connection), with fractions.
 * Costs a variable read; behind the true time by the length of the current event at most.
 */
export function now(): number {
  return current
}

/** Takes the time anew. Called where an event enters: socket reads, timers, accepts and dials; never inside a loop. */
export function refreshClock(): number {
  current = performance.now()
  return current
}
