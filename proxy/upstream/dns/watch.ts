/** Keeps the addresses of one name up to date: looks again when the answer has run out or a connect failed, and keeps the last good ones. */
import { isIP } from 'node:net'
import type { Resolution, Resolver } from './resolver.ts'

export interface NameWatchOptions {
  readonly resolver: Resolver
  /** A name, or an address, which is its own only address for ever. */
  readonly host: string
  /** After each look-up, with the addresses that are good now (empty: none ever was) and whether they changed. */
  readonly onLookUp: (addresses: readonly string[], changed: boolean) => void
  readonly random?: () => number
}

/** Look-ups are at least this far apart, whoever asks for them. */
const MIN_INTERVAL_MS = 1_000

/** Waits after a failure, doubling: while nothing was ever found, and while there are addresses to go on with. */
const RETRY_MS = 1_000
const MAX_RETRY_MS = 5_000
const MAX_STALE_RETRY_MS = 30_000

/** An answer is asked for again this much after it has run out, at most: so that the sidecars of a fleet do not ask together. */
const MAX_JITTER_MS = 500

export class NameWatch {
  readonly host: string
  readonly #options: NameWatchOptions
  #addresses: readonly string[] = []
  #failure: string | null = null
  #found: string | null = null
  #failures = 0
  #startedAt = Number.NEGATIVE_INFINITY
  #isLooking = false
  #isStopped = false
  #timer: NodeJS.Timeout | undefined

  constructor(options: NameWatchOptions) {
    this.host = options.host
    this.#options = options
  }

  get addresses(): readonly string[] {
    return this.#addresses
  }

  /** Why the newest look-up failed; null when it did not. */
  get failure(): string | null {
    return this.#failure
  }

  /** Calls back within this call for an address, later for a name. */
  start(): void {
    if (isIP(this.host) !== 0) {
      this.#addresses = [this.host]
      this.#options.onLookUp(this.#addresses, true)
    } else this.#look()
  }

  /** Looks again as soon as the least interval allows. */
  refresh(): void {
    if (this.#isStopped || this.#isLooking || isIP(this.host) !== 0) return
    const wait = this.#startedAt + MIN_INTERVAL_MS - performance.now()
    if (wait <= 0) this.#look()
    else this.#schedule(wait)
  }

  stop(): void {
    this.#isStopped = true
    clearTimeout(this.#timer)
  }

  #look(): void {
    clearTimeout(this.#timer)
    this.#isLooking = true
    this.#startedAt = performance.now()
    void this.#options.resolver.resolve(this.host, this.#found).then((resolution) => {
      this.#isLooking = false
      if (this.#isStopped) return
      if (resolution.ok) this.#onFound(resolution)
      else this.#onFailure(resolution)
    })
  }

  #onFound(resolution: Extract<Resolution, { ok: true }>): void {
    this.#failures = 0
    this.#failure = null
    this.#found = resolution.found
    const { unknownFamily } = resolution
    // Half an answer takes nothing away from the other half.
    const kept = unknownFamily === null ? [] : this.#addresses.filter((address) => isIP(address) === unknownFamily)
    const addresses = [...new Set([...resolution.addresses, ...kept])].sort()
    const changed = addresses.join() !== this.#addresses.join()
    this.#addresses = addresses
    this.#schedule(resolution.ttlMs + this.#random() * Math.min(MAX_JITTER_MS, 0.1 * resolution.ttlMs))
    this.#options.onLookUp(addresses, changed)
  }

  #onFailure(resolution: Extract<Resolution, { ok: false }>): void {
    const isStale = this.#addresses.length > 0
    this.#failure = isStale
      ? `${resolution.why}; the last known addresses stay in use: ${this.#addresses.join(', ')}`
      : resolution.why
    const longest = isStale ? MAX_STALE_RETRY_MS : MAX_RETRY_MS
    const wait = Math.min(longest, RETRY_MS * 2 ** this.#failures++)
    this.#schedule(wait * (1 + 0.1 * this.#random()))
    this.#options.onLookUp(this.#addresses, false)
  }

  #schedule(ms: number): void {
    clearTimeout(this.#timer)
    this.#timer = setTimeout(() => this.#look(), ms)
    this.#timer.unref()
  }

  #random(): number {
    return (this.#options.random ?? Math.random)()
  }
}
