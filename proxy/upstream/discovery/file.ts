/** Discovery by a list that another program writes: whoever reads the file hands over each new list; its names are resolved by DNS. */
import type { Resolver } from '../dns/resolver.ts'
import type { Address, Discovery } from './discovery.ts'
import { NameSet, type Target } from './name-set.ts'

/** What is read again and again elsewhere: the last good list. */
export interface TargetSource {
  /** Null: there was never a good one. */
  readonly targets: readonly Target[] | null
  /** Why the newest content is not in use, with the remedy; null when it is. */
  readonly failure: string | null
  /** Calls back after each reading that changed one of the two, until the returned function is called. */
  subscribe(onRead: () => void): () => void
}

export class FileDiscovery implements Discovery {
  readonly #source: TargetSource
  readonly #names: NameSet
  #onChange: (endpoints: readonly Address[]) => void = () => {}
  #onFailure: ((failure: string | null) => void) | undefined
  #targets: readonly Target[] | null = null
  #told: string | null = null
  #unsubscribe = () => {}

  constructor(source: TargetSource, resolver: Resolver) {
    this.#source = source
    this.#names = new NameSet({
      resolver,
      onChange: (addresses) => this.#onChange(addresses),
      onFailure: () => this.#tellFailure(),
    })
  }

  start(onChange: (endpoints: readonly Address[]) => void, onFailure?: (failure: string | null) => void): void {
    this.#onChange = onChange
    this.#onFailure = onFailure
    this.#unsubscribe = this.#source.subscribe(() => this.#read())
    this.#read()
  }

  refresh(host?: string): void {
    this.#names.refresh(host)
  }

  get failure(): string | null {
    const failures = [this.#source.failure, this.#names.failure].filter((failure) => failure !== null)
    return failures.length === 0 ? null : failures.join('; ')
  }

  get lookedUpAt(): number | null {
    return this.#names.lookedUpAt
  }

  stop(): void {
    this.#unsubscribe()
    this.#names.stop()
  }

  #read(): void {
    const { targets } = this.#source
    if (targets !== null && targets !== this.#targets) {
      this.#targets = targets
      this.#names.setTargets(targets)
    }
    this.#tellFailure()
  }

  #tellFailure(): void {
    if (this.failure !== this.#told) this.#onFailure?.((this.#told = this.failure))
  }
}
