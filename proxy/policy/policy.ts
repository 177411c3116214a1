/** Words that all policies share. A gate answers at once and never awaits; what it admitted is settled exactly once. */

/**
 * How an attempt ended, for breakers and detectors.
 * - `success`: the endpoint did its work (an answer of its own, whatever the application thinks of it)
 * - `failure`: no connection, no answer, or an answer that says that the endpoint is broken
 * - `throttled`: the endpoint asks for less (429). It is alive, so this breaks no row of successes and starts none of failures,
 *   but it counts in a failure rate and fails a probe
 * - `abandoned`: the client left or the proxy gave up for a reason that says nothing of the endpoint; never counted
 */
export type Outcome = 'success' | 'failure' | 'throttled' | 'abandoned'

/** Milliseconds of the monotonic clock that every policy is given; never the wall clock (NTP steps, suspended machines). */
export type Millis = number

/** A number in [0, 1), as Math.random gives; a parameter so that tests decide. */
export type Random = () => number
