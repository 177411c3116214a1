/** Discovery by DNS: every A and AAAA record of one name is an endpoint. */

import type { Resolver } from '../dns/resolver.ts'
import { NameWatch } from '../dns/watch.ts'
import type { Address, Discovery } from './discovery.ts'

export class DnsDiscovery implements Discovery {
  readonly #watch: NameWatch
  #onChange: (endpoints: readonly Address[]) => void = () => {}
  #onFailure: ((failure: string | null) => void) | undefined
  #told: string | null = null

  constructor(config: { readonly hostname: string; readonly port: number }, resolver: Resolver) {
    const { hostname: host, port } = config
    this.#watch = new NameWatch({
      resolver,
      host,
      onLookUp: (addresses, changed) => {
        if (changed) this.#onChange(addresses.map((ip) => ({ host, ip, port, weight: 1, priority: 0 })))
        if (this.failure !== this.#told) this.#onFailure?.((this.#told = this.failure))
      },
    })
  }

  start(onChange: (endpoints: readonly Address[]) => void, onFailure?: (failure: string | null) => void): void {
    this.#onChange = onChange
    this.#onFailure = onFailure
    this.#watch.start()
  }

  refresh(): void {
    this.#watch.refresh()
  }

  get failure(): string | null {
    return this.#watch.failure
  }

  get lookedUpAt(): number | null {
    return this.#watch.lookedUpAt
  }

  stop(): void {
    this.#watch.stop()
  }
}
