/** Keeps the addresses of one name up to date: looks again when the answer has run out or a connect failed, and keeps the last good ones. */
import { isIP } from 'node:net'
import { LookLoop } from './look-loop.ts'
import type { Resolution, Resolver } from './resolver.ts'

export interface NameWatchOptions {
  readonly resolver: Resolver
  /** A name, or an address, which is its own only address for ever. */
  readonly host: string
  /** The name is complete: no search list applies to it. Default: it does, unless the name ends in a dot. */
  readonly isFull?: boolean
  /** After each look-up, with the addresses that are good now (empty: none ever was) and whether they changed. */
  readonly onLookUp: (addresses: readonly string[], changed: boolean) => void
  readonly random?: () => number
}

export class NameWatch {
  readonly host: string
  readonly #onLookUp: NameWatchOptions['onLookUp']
  readonly #loop: LookLoop<Resolution>
  #addresses: readonly string[] = []
  #failure: string | null = null
  #found: string | null = null
  #lookedUpAt: number | null = null

  constructor({ resolver, host, isFull = false, onLookUp, random }: NameWatchOptions) {
    this.host = host
    this.#onLookUp = onLookUp
    const asked = isFull && !host.endsWith('.') ? `${host}.` : host
    this.#loop = new LookLoop(
      () => resolver.resolve(asked, this.#found),
      (resolution) => (resolution.ok ? this.#onFound(resolution) : this.#onFailure(resolution.why)),
      random,
    )
  }

  get addresses(): readonly string[] {
    return this.#addresses
  }

  /** Why the newest look-up failed; null when it did not. */
  get failure(): string | null {
    return this.#failure
  }

  /** When the last good look-up was, in monotonic milliseconds; null: there was none, or it is an address. */
  get lookedUpAt(): number | null {
    return this.#lookedUpAt
  }

  /** Calls back within this call for an address, later for a name. */
  start(): void {
    if (isIP(this.host) !== 0) {
      this.#addresses = [this.host]
      this.#onLookUp(this.#addresses, true)
    } else this.#loop.start()
  }

  /** Looks again as soon as the least interval allows. */
  refresh(): void {
    if (isIP(this.host) === 0) this.#loop.refresh()
  }

  stop(): void {
    this.#loop.stop()
  }

  #onFound(resolution: Extract<Resolution, { ok: true }>): void {
    this.#failure = null
    this.#found = resolution.found
    this.#lookedUpAt = performance.now()
    const { unknownFamily } = resolution
    // Half an answer takes nothing away from the other half.
    const kept = unknownFamily === null ? [] : this.#addresses.filter((address) => isIP(address) === unknownFamily)
    const addresses = [...new Set([...resolution.addresses, ...kept])].sort()
    const changed = addresses.join() !== this.#addresses.join()
    this.#addresses = addresses
    this.#loop.succeeded(resolution.ttlMs)
    this.#onLookUp(addresses, changed)
  }

  #onFailure(why: string): void {
    const isStale = this.#addresses.length > 0
    this.#failure = isStale ? `${why}; the last known addresses stay in use: ${this.#addresses.join(', ')}` : why
    this.#loop.failed(isStale)
    this.#onLookUp(this.#addresses, false)
  }
}
