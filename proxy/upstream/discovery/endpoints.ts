/** Discovery of a fixed list: addresses as they stand, names resolved by DNS with each address an endpoint of the same weight and priority. */
import type { DiscoveryConfig } from '../../../common/proxy-config.ts'
import type { Resolver } from '../dns/resolver.ts'
import { NameWatch } from '../dns/watch.ts'
import type { Address, Discovery } from './discovery.ts'

/** A name that is slow to answer does not hold back the others for longer than this. */
const FIRST_SET_MS = 1_000

type EndpointConfig = Extract<DiscoveryConfig, { kind: 'endpoints' }>['endpoints'][number]

export class EndpointsDiscovery implements Discovery {
  readonly #endpoints: readonly EndpointConfig[]
  readonly #watches = new Map<string, NameWatch>()
  /** Hosts without a first look-up; none of a priority should get traffic only because its name was the quickest. */
  readonly #waiting: Set<string>
  #firstSet: NodeJS.Timeout | undefined
  #onChange: (endpoints: readonly Address[]) => void = () => {}
  #onFailure: ((failure: string | null) => void) | undefined
  #isTold = false
  #toldFailure: string | null = null

  constructor(config: { readonly endpoints: readonly EndpointConfig[] }, resolver: Resolver) {
    this.#endpoints = config.endpoints
    this.#waiting = new Set(config.endpoints.map(({ host }) => host))
    for (const host of this.#waiting) {
      const onLookUp = (_addresses: readonly string[], changed: boolean) => this.#onLookUp(host, changed)
      this.#watches.set(host, new NameWatch({ resolver, host, onLookUp }))
    }
  }

  start(onChange: (endpoints: readonly Address[]) => void, onFailure?: (failure: string | null) => void): void {
    this.#onChange = onChange
    this.#onFailure = onFailure
    this.#firstSet = setTimeout(() => {
      this.#waiting.clear()
      this.#tell()
    }, FIRST_SET_MS)
    this.#firstSet.unref()
    for (const watch of this.#watches.values()) watch.start()
  }

  refresh(): void {
    for (const watch of this.#watches.values()) watch.refresh()
  }

  get failure(): string | null {
    const failures = [...this.#watches.values()].map((watch) => watch.failure).filter((failure) => failure !== null)
    return failures.length === 0 ? null : failures.join('; ')
  }

  stop(): void {
    clearTimeout(this.#firstSet)
    for (const watch of this.#watches.values()) watch.stop()
  }

  #onLookUp(host: string, changed: boolean): void {
    this.#waiting.delete(host)
    if (this.#waiting.size === 0 && (changed || !this.#isTold)) this.#tell()
    if (this.failure !== this.#toldFailure) this.#onFailure?.((this.#toldFailure = this.failure))
  }

  #tell(): void {
    clearTimeout(this.#firstSet)
    const addresses = this.#endpoints.flatMap(({ host, port, weight, priority }) =>
      (this.#watches.get(host)?.addresses ?? []).map((ip) => ({ host, ip, port, weight, priority })),
    )
    if (addresses.length === 0) return
    this.#isTold = true
    this.#onChange(addresses)
  }
}
