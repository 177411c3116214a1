/** How long to wait before the next try: exponential, with jitter, reset by success. */

export interface BackoffOptions {
  /** Ceiling of the first wait. Default 200 ms. */
  readonly initialMs?: number
  /** Ceiling of every wait. Default 30 s. */
  readonly maxMs?: number
  /** 0 to 1, evenly spread. */
  readonly random?: () => number
}

/** The wait after `failures` failures in a row (1 is the first): between half of the ceiling and the ceiling, so that it is never zero. */
export function backoffMs(failures: number, options: BackoffOptions = {}): number {
  const { initialMs = 200, maxMs = 30_000, random = Math.random } = options
  const ceiling = Math.min(maxMs, initialMs * 2 ** Math.min(Math.max(0, failures - 1), 30))
  return Math.round(ceiling * (0.5 + random() / 2))
}

/** Counts failures in a row. */
export class Backoff {
  readonly #options: BackoffOptions
  #failures = 0

  constructor(options: BackoffOptions = {}) {
    this.#options = options
  }

  get failures(): number {
    return this.#failures
  }

  /** Notes a failure and says how long to wait; a server that asked for a longer wait (`atLeastMs`, from Retry-After) gets it. */
  next(atLeastMs = 0): number {
    this.#failures++
    return Math.max(atLeastMs, backoffMs(this.#failures, this.#options))
  }

  reset(): void {
    this.#failures = 0
  }
}
