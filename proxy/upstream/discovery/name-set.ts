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

/**
 * What is found of many names is told of together, this much later for each of them (0.1 s for a thousand): each telling looks at all of
 * them. Of few it is told at once.
 */
const TELL_MS = 0.1
const FEW = 50

/** Failures that a sentence tells of. */
const MAX_FAILURES = 5

/** A name that is slow to answer does not hold back the others for longer than this. */
const FIRST_LOOK_MS = 1_000

export class NameSet {
  readonly #options: NameSetOptions
  #targets: readonly Target[] = []
  /** Of them. */
  #hosts: ReadonlySet<string> = new Set()
  readonly #watches = new Map<string, NameWatch>()
  /** Hosts without a first look-up: none of a priority should get traffic only because its name was the quickest. */
  #waiting = new Set<string>()
  #firstLook: NodeJS.Timeout | undefined
  #telling: NodeJS.Timeout | undefined
  /** Of the names whose newest look-up failed. */
  readonly #failures = new Map<string, string>()
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
    this.#hosts = hosts
    const added = [...hosts].filter((host) => !this.#watches.has(host))
    this.#waiting = new Set([...[...this.#waiting].filter((host) => hosts.has(host)), ...added])
    // One that runs already goes on: sets that follow each other every second must not put it off for ever.
    if (this.#waiting.size > 0) this.#firstLook ??= setTimeout(() => this.#endFirstLook(), FIRST_LOOK_MS).unref()
    const watches = added.map((host) => {
      const { resolver, areFull = false } = this.#options
      const onLookUp = (_addresses: readonly string[], changed: boolean) => {
        this.#onLookUp(host, watch.failure, changed)
      }
      const watch = new NameWatch({ resolver, host, isFull: areFull, onLookUp })
      this.#watches.set(host, watch)
      return watch
    })
    for (const host of this.#failures.keys()) if (!hosts.has(host)) this.#failures.delete(host)
    for (const watch of watches) watch.start()
    if (added.length === 0) {
      if (this.#waiting.size === 0) this.#tell()
      this.#options.onFailure()
    }
  }

  /** @param host this one alone. Default: all */
  refresh(host?: string): void {
    if (host !== undefined) this.#watches.get(host)?.refresh()
    else for (const watch of this.#watches.values()) watch.refresh()
  }

  /** Why the newest look-ups of names failed; null when none did. */
  get failure(): string | null {
    if (this.#failures.size === 0) return null
    const failures = [...this.#failures.values()]
    const more = failures.length - MAX_FAILURES
    return failures.slice(0, MAX_FAILURES).join('; ') + (more > 0 ? `; and ${more} more names` : '')
  }

  /** The oldest of the last good look-ups of the names; null: there is none. */
  get lookedUpAt(): number | null {
    return oldest([...this.#watches.values()].map((watch) => watch.lookedUpAt))
  }

  stop(): void {
    this.#isStopped = true
    clearTimeout(this.#firstLook)
    clearTimeout(this.#telling)
    for (const watch of this.#watches.values()) watch.stop()
  }

  #onLookUp(host: string, failure: string | null, changed: boolean): void {
    const wasWaiting = this.#waiting.delete(host)
    const isNews = failure !== (this.#failures.get(host) ?? null)
    // A name that the newest set does not have is watched on until that set has an address.
    if (failure === null || !this.#hosts.has(host)) this.#failures.delete(host)
    else this.#failures.set(host, failure)
    const isFound = this.#waiting.size === 0 && (changed || wasWaiting)
    if (!isFound && !isNews) return
    if (this.#watches.size <= FEW || (wasWaiting && this.#waiting.size === 0)) this.#tellAll(isFound)
    else this.#telling ??= setTimeout(() => this.#tellAll(true), TELL_MS * this.#watches.size).unref()
  }

  #tellAll(isFound: boolean): void {
    clearTimeout(this.#telling)
    this.#telling = undefined
    if (isFound && this.#waiting.size === 0) this.#tell()
    this.#options.onFailure()
  }

  #endFirstLook(): void {
    this.#waiting.clear()
    this.#tell()
  }

  #tell(): void {
    clearTimeout(this.#firstLook)
    this.#firstLook = undefined
    const { weightOf = ({ weight }: Target) => weight } = this.#options
    const addresses = this.#targets.flatMap((target) => {
      const ips = this.#watches.get(target.host)?.addresses ?? []
      const { host, port, priority, zone } = target
      const where = zone === undefined ? {} : { zone }
      return ips.map((ip) => ({ host, ip, port, weight: weightOf(target, ips.length), priority, ...where }))
    })
    // The last good ones stay, and their names are watched on for them.
    if (addresses.length === 0) return
    for (const [host, watch] of this.#watches) {
      if (this.#hosts.has(host)) continue
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
