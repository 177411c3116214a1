/** Discovery by DNS SRV records (RFC 2782): their targets with priority and weight, and every address of each target. */
import { LookLoop } from '../dns/look-loop.ts'
import type { Resolver, ServiceResolution } from '../dns/resolver.ts'
import type { Address, Discovery } from './discovery.ts'
import { NameSet, oldest, type Target } from './name-set.ts'

/** RFC 2782: beside targets of some weight, one of weight 0 gets hardly anything; where all have 0 they share alike. */
const WEIGHT_OF_ZERO = 0.01

export class SrvDiscovery implements Discovery {
  readonly #names: NameSet
  readonly #loop: LookLoop<ServiceResolution>
  #onChange: (endpoints: readonly Address[]) => void = () => {}
  #onFailure: ((failure: string | null) => void) | undefined
  #found: string | null = null
  #foundAt: number | null = null
  #targets: readonly Target[] = []
  #serviceFailure: string | null = null
  #told: string | null = null

  constructor(config: { readonly name: string }, resolver: Resolver) {
    this.#names = new NameSet({
      resolver,
      areFull: true,
      onChange: (addresses) => this.#onChange(addresses),
      onFailure: () => this.#tellFailure(),
      // The weight is that of the target, however many addresses it has.
      weightOf: ({ weight }, count) => weight / count,
    })
    this.#loop = new LookLoop(
      () => resolver.resolveService(config.name, this.#found),
      (resolution) => (resolution.ok ? this.#onFound(resolution) : this.#onMissing(resolution.why)),
    )
  }

  start(onChange: (endpoints: readonly Address[]) => void, onFailure?: (failure: string | null) => void): void {
    this.#onChange = onChange
    this.#onFailure = onFailure
    this.#loop.start()
  }

  refresh(host?: string): void {
    this.#loop.refresh()
    this.#names.refresh(host)
  }

  get failure(): string | null {
    const failures = [this.#serviceFailure, this.#names.failure].filter((failure) => failure !== null)
    return failures.length === 0 ? null : failures.join('; ')
  }

  get lookedUpAt(): number | null {
    return oldest([this.#foundAt, this.#names.lookedUpAt])
  }

  stop(): void {
    this.#loop.stop()
    this.#names.stop()
  }

  #onFound({ records, ttlMs, found }: Extract<ServiceResolution, { ok: true }>): void {
    this.#found = found
    this.#foundAt = performance.now()
    this.#serviceFailure = null
    this.#loop.succeeded(ttlMs)
    this.#targets = records.map(({ target, port, weight, priority }) => {
      return { host: target, port, weight: weight === 0 ? WEIGHT_OF_ZERO : weight, priority }
    })
    this.#names.setTargets(this.#targets)
    this.#tellFailure()
  }

  #onMissing(why: string): void {
    const isStale = this.#targets.length > 0
    const kept = this.#targets.map(({ host, port }) => `${host}:${port}`).join(', ')
    this.#serviceFailure = isStale ? `${why}; the last known targets stay in use: ${kept}` : why
    this.#loop.failed(isStale)
    this.#tellFailure()
  }

  #tellFailure(): void {
    if (this.failure !== this.#told) this.#onFailure?.((this.#told = this.failure))
  }
}
