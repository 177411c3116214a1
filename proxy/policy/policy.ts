/** Words that all policies share. A gate answers at once and never awaits; what it admitted is settled exactly once. */

/**
 * How an attempt ended, for breakers and detectors.
 * `abandoned`: the client left or the proxy gave up for a reason that says nothing of the endpoint; never counted.
 */
export type Outcome = 'success' | 'failure' | 'abandoned'

/** Milliseconds of the monotonic clock that every policy is given; never the wall clock (NTP steps, suspended machines). */
export type Millis = number
