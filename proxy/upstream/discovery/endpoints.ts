/** Discovery of a fixed list: addresses as they stand, names resolved by DNS with each address an endpoint of the same weight and priority. */
import type { Resolver } from '../dns/resolver.ts'
import type { Address, Discovery } from './discovery.ts'
import { NameSet, type Target } from './name-set.ts'

export class EndpointsDiscovery implements Discovery {
  readonly #endpoints: readonly Target[]
  readonly #names: NameSet
  #onChange: (endpoints: readonly Address[]) => void = () => {}
  #onFailure: ((failure: string | null) => void) | undefined
  #told: string | null = null

  constructor(config: { readonly endpoints: readonly Target[] }, resolver: Resolver) {
    this.#endpoints = config.endpoints
    this.#names = new NameSet({
      resolver,
      onChange: (addresses) => this.#onChange(addresses),
      onFailure: () => {
        if (this.failure !== this.#told) this.#onFailure?.((this.#told = this.failure))
      },
    })
  }

  start(onChange: (endpoints: readonly Address[]) => void, onFailure?: (failure: string | null) => void): void {
    this.#onChange = onChange
    this.#onFailure = onFailure
    this.#names.setTargets(this.#endpoints)
  }

  refresh(host?: string): void {
    this.#names.refresh(host)
  }

  get failure(): string | null {
    return this.#names.failure
  }

  get lookedUpAt(): number | null {
    return this.#names.lookedUpAt
  }

  stop(): void {
    this.#names.stop()
  }
}
