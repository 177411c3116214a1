/** Discovery of the pods of a Kubernetes Service: the operator follows them and hands each new set over in the config. */
import type { ServiceDiscoveryConfig } from '../../../common/proxy-config.ts'
import type { Address, Discovery } from './discovery.ts'

/** The newest endpoints of one Service. It outlives the discoveries that read it, and each config that brings endpoints. */
export class ServiceFeed {
  #addresses: readonly Address[] = []
  /** What the last set came to, so that the same one wakes nobody. */
  #told = '[]'
  readonly #listeners = new Set<() => void>()

  get addresses(): readonly Address[] {
    return this.#addresses
  }

  /** Takes over the endpoints of a config. */
  set({ host, endpoints }: ServiceDiscoveryConfig): void {
    const addresses = endpoints.map(({ ip, port, zone, forZones }): Address => {
      return { host, ip, port, weight: 1, priority: 0, zone, forZones }
    })
    const told = JSON.stringify(addresses)
    if (told === this.#told) return
    this.#told = told
    this.#addresses = addresses
    for (const onChange of this.#listeners) onChange()
  }

  /** Calls back after each new set, until the returned function is called. */
  subscribe(onChange: () => void): () => void {
    this.#listeners.add(onChange)
    return () => this.#listeners.delete(onChange)
  }
}

export class ServiceDiscovery implements Discovery {
  readonly #name: string
  readonly #feed: ServiceFeed
  #told: string | null = null
  #unsubscribe = () => {}

  constructor({ namespace, name }: ServiceDiscoveryConfig, feed: ServiceFeed) {
    this.#name = `Service '${name}' of namespace '${namespace}'`
    this.#feed = feed
  }

  start(onChange: (endpoints: readonly Address[]) => void, onFailure?: (failure: string | null) => void): void {
    const tell = (): void => {
      onChange(this.#feed.addresses)
      if (this.failure !== this.#told) onFailure?.((this.#told = this.failure))
    }
    this.#unsubscribe = this.#feed.subscribe(tell)
    tell()
  }

  /** The operator looks all the time. */
  refresh(): void {}

  get failure(): string | null {
    if (this.#feed.addresses.length > 0) return null
    return `${this.#name} has no endpoint: look at its pods, and at the Ambassador with kubectl describe`
  }

  stop(): void {
    this.#unsubscribe()
  }
}
