/** The addresses of several names, one watch for each; a set that is replaced goes on until the new names were looked up. */
import type { Resolver } from '../dns/resolver.ts'
import { NameWatch } from '../dns/watch.ts'
import type { Address } from './discovery.ts'

/** A name or address with a port; each address of the name is an endpoint. */
export interface Target {
  readonly host: string
  readonly port: number
  readonly weight: number
  readonly priority: number
  /** Where it is; absent: not known. */
  readonly zone?: string | undefined
}

export interface NameSetOptions {
  readonly resolver: Resolver
  /** The names are complete, as all that DNS itself says are: no search list applies to them. Default false. */
  readonly areFull?: boolean
  /** The addresses of all targets, after each change. Never empty. */
  readonly onChange: (addresses: readonly Address[]) => void
  /** Told when `failure` may have become another text. */
  readonly onFailure: () => void
  /** The weight of each of the `count` addresses of a target. Default: that of the target. */
  readonly weightOf?: (target: Target, count: number) => number
}

/** A name that is slow to answer does not hold back the others for longer than this. */
const FIRST_LOOK_MS = 1_000

export class NameSet {
  readonly #options: NameSetOptions
  #targets: readonly Target[] = []
  readonly #watches = new Map<string, NameWatch>()
  /** Hosts without a first look-up: none of a priority should get traffic only because its name was the quickest. */
  #waiting = new Set<string>()
  #firstLook: NodeJS.Timeout | undefined
  #told = ''
  #isStopped = false

  constructor(options: NameSetOptions) {
    this.#options = options
  }

  /** From now on these. The addresses of the earlier ones stay until each new name was looked up, a second at most. */
  setTargets(targets: readonly Target[]): void {
    if (this.#isStopped) return
    this.#targets = targets
    const hosts = new Set(targets.map(({ host }) => host))
    const added = [...hosts].filter((host) => !this.#watches.has(host))
    this.#waiting = new Set([...[...this.#waiting].filter((host) => hosts.has(host)), ...added])
    clearTimeout(this.#firstLook)
    this.#firstLook = setTimeout(() => {
      this.#waiting.clear()
      this.#tell()
    }, FIRST_LOOK_MS)
    this.#firstLook.unref()
    const watches = added.map((host) => {
      const onLookUp = (_addresses: readonly string[], changed: boolean) => this.#onLookUp(host, changed)
      const { resolver, areFull = false } = this.#options
      const watch = new NameWatch({ resolver, host, isFull: areFull, onLookUp })
      this.#watches.set(host, watch)
      return watch
    })
    for (const watch of watches) watch.start()
    if (added.length === 0) this.#onLookUp(null, true)
  }

  refresh(): void {
    for (const watch of this.#watches.values()) watch.refresh()
  }

  /** Why the newest look-ups of names failed; null when none did. */
  get failure(): string | null {
    const hosts = new Set(this.#targets.map(({ host }) => host))
    const failures = [...hosts].map((host) => this.#watches.get(host)?.failure ?? null).filter((text) => text !== null)
    return failures.length === 0 ? null : failures.join('; ')
  }

  /** The oldest of the last good look-ups of the names; null: there is none. */
  get lookedUpAt(): number | null {
    return oldest([...this.#watches.values()].map((watch) => watch.lookedUpAt))
  }

  stop(): void {
    this.#isStopped = true
    clearTimeout(this.#firstLook)
    for (const watch of this.#watches.values()) watch.stop()
  }

  #onLookUp(host: string | null, changed: boolean): void {
    const wasWaiting = host !== null && this.#waiting.delete(host)
    if (this.#waiting.size === 0 && (changed || wasWaiting)) this.#tell()
    this.#options.onFailure()
  }

  #tell(): void {
    clearTimeout(this.#firstLook)
    const { weightOf = ({ weight }: Target) => weight } = this.#options
    const addresses = this.#targets.flatMap((target) => {
      const ips = this.#watches.get(target.host)?.addresses ?? []
      const { host, port, priority, zone } = target
      const where = zone === undefined ? {} : { zone }
      return ips.map((ip) => ({ host, ip, port, weight: weightOf(target, ips.length), priority, ...where }))
    })
    // The last good ones stay, and their names are watched on for them.
    if (addresses.length === 0) return
    const hosts = new Set(this.#targets.map(({ host }) => host))
    for (const [host, watch] of this.#watches) {
      if (hosts.has(host)) continue
      watch.stop()
      this.#watches.delete(host)
    }
    const told = JSON.stringify(addresses)
    if (told === this.#told) return
    this.#told = told
    this.#options.onChange(addresses)
  }
}

/** The earliest of some times, of which null is none. */
export function oldest(times: readonly (number | null)[]): number | null {
  const known = times.filter((time) => time !== null)
  return known.length === 0 ? null : Math.min(...known)
}
