/** Clusters that are made as requests name hosts: one for each host and port, bounded in number, closed when nobody has asked for a while. */
import { isIP } from 'node:net'
import type { Millis } from '../policy/policy.ts'
import { now } from '../runtime/clock.ts'
import { CoarseTimer } from '../runtime/timers.ts'
import type { Cluster, ClusterOptions } from './cluster.ts'
import type { Endpoint } from './endpoint.ts'

/** Hosts at a time. One more takes the place of the one that nobody has used for longest. */
export const MAX_HOSTS = 64
/** So long after its last request a host is forgotten, with what its circuit breaker knew. */
export const HOST_IDLE_MS = 300_000
const SWEEP_MS = 30_000

interface Entry {
  readonly cluster: Cluster
  readonly host: string
  readonly port: number
  usedAt: Millis
}

export class HostClusters {
  #options: ClusterOptions
  readonly #make: (options: ClusterOptions) => Cluster
  readonly #entries = new Map<string, Entry>()
  readonly #timer = new CoarseTimer(() => this.sweep(now()))
  /** Of hosts that are forgotten: counters never go back. */
  #overflow = 0
  #denials = 0
  /** What a person wants of the circuits of hosts that are still to be named. */
  #forced: 'open' | 'closed' | 'auto' = 'auto'

  constructor(options: ClusterOptions, make: (options: ClusterOptions) => Cluster) {
    this.#options = options
    this.#make = make
  }

  /** The cluster of a host, made when it is new; null when there are too many that are all in use. */
  of(host: string, port: number): Cluster | null {
    const key = `${host} ${port}`
    const time = now()
    let entry = this.#entries.get(key)
    if (entry === undefined) {
      if (this.#entries.size >= MAX_HOSTS && !this.#evict()) return null
      entry = { cluster: this.#make(optionsOf(this.#options, host, port)), host, port, usedAt: time }
      this.#entries.set(key, entry)
      if (this.#forced !== 'auto') entry.cluster.forceCircuits(this.#forced, null)
      entry.cluster.start()
      if (this.#timer.at === Number.POSITIVE_INFINITY) this.#timer.set(time + SWEEP_MS)
    }
    entry.usedAt = time
    return entry.cluster
  }

  get size(): number {
    return this.#entries.size
  }

  get endpoints(): Iterable<Endpoint> {
    return [...this.#entries.values()].flatMap(({ cluster }) => [...cluster.endpoints])
  }

  /** Connections of all hosts together. */
  get usage(): { readonly used: number; readonly pending: number; readonly overflow: number } {
    let used = 0
    let pending = 0
    let overflow = this.#overflow
    for (const { cluster } of this.#entries.values()) {
      used += cluster.connections.used
      pending += cluster.connections.pending
      overflow += cluster.connections.overflow
    }
    return { used, pending, overflow }
  }

  get denials(): number {
    let denials = this.#denials
    for (const { cluster } of this.#entries.values()) denials += cluster.denials
    return denials
  }

  /** As the one of Cluster, for every host that is known or named later. */
  forceCircuits(to: 'open' | 'closed' | 'auto', endpoint: string | null): number {
    if (endpoint === null) this.#forced = to
    let count = 0
    for (const { cluster } of this.#entries.values()) count += cluster.forceCircuits(to, endpoint)
    return count
  }

  /** Forgets the hosts that have been idle for too long. */
  sweep(time: Millis): void {
    for (const [key, { cluster, usedAt }] of this.#entries) {
      if (time - usedAt >= HOST_IDLE_MS && cluster.isIdle) this.#forget(key)
    }
    if (this.#entries.size > 0) this.#timer.set(now() + SWEEP_MS)
  }

  update(options: ClusterOptions): void {
    this.#options = options
    for (const { cluster, host, port } of this.#entries.values()) cluster.update(optionsOf(options, host, port))
  }

  close(): void {
    for (const key of [...this.#entries.keys()]) this.#forget(key)
  }

  destroy(): void {
    for (const { cluster } of this.#entries.values()) cluster.destroy()
    this.close()
  }

  /** Makes room: the host that was used least lately goes, of those that nobody uses now. */
  #evict(): boolean {
    let oldest: string | null = null
    let usedAt = Number.POSITIVE_INFINITY
    for (const [key, entry] of this.#entries) {
      if (entry.usedAt >= usedAt || !entry.cluster.isIdle) continue
      oldest = key
      usedAt = entry.usedAt
    }
    if (oldest !== null) this.#forget(oldest)
    return oldest !== null
  }

  #forget(key: string): void {
    const cluster = this.#entries.get(key)?.cluster
    if (cluster === undefined) return
    this.#overflow += cluster.connections.overflow
    this.#denials += cluster.denials
    this.#entries.delete(key)
    cluster.close()
    if (this.#entries.size === 0) this.#timer.release()
  }
}

/** Everything as the upstream has it, for one host. */
function optionsOf(options: ClusterOptions, host: string, port: number): ClusterOptions {
  const endpoints = [{ host: isIP(host) === 0 ? host.toLowerCase() : host, port, weight: 1, priority: 0 }]
  return { ...options, config: { ...options.config, discovery: { kind: 'endpoints', endpoints } } }
}
