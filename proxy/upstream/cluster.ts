/** One upstream of an Ambassador: its endpoints as discovery finds them, who gets the next attempt, and what it may carry. */
import { canonicalJson, withoutEndpoints } from '../../common/config-hash.ts'
import type { ClusterConfig, DiscoveryConfig } from '../../common/proxy-config.ts'
import { Bulkhead } from '../policy/bulkhead.ts'
import type { CircuitState } from '../policy/circuit-breaker.ts'
import { type DialGuard, type DialRefusal, NO_GUARD } from '../policy/dial-guard.ts'
import { hearOutcome } from '../policy/outliers.ts'
import { Pacer, type PacingCounts } from '../policy/pacer.ts'
import type { Millis, Random } from '../policy/policy.ts'
import { RetryBudget } from '../policy/retry-budget.ts'
import { now } from '../runtime/clock.ts'
import type { UpstreamTls } from '../tls/upstream-tls.ts'
import { type Balancing, groupByPriority, NONE, type PriorityGroup, pickEndpoint } from './balancer.ts'
import { NO_HASH } from './consistent-hash.ts'
import { Departures } from './departures.ts'
import type { Address, Discovery, Halt } from './discovery/discovery.ts'
import { addressKey, addressName, Endpoint, type Turns } from './endpoint.ts'
import type { Prober } from './health/check.ts'
import { Health, type HealthOptions } from './health/health.ts'
import { Holds } from './holds.ts'
import { HostClusters } from './host-clusters.ts'
import type { RedisLogin } from './redis/login.ts'

/** Why there is no endpoint for an attempt; reason codes of common/reasons.ts. */
export type PickRefusal = 'dns_failed' | 'circuit_open' | 'no_healthy_endpoint' | 'egress_denied'

/** What a cluster is made of, and what a changed configuration may change. */
export interface ClusterOptions {
  readonly config: ClusterConfig
  /** Null: plain text. */
  readonly tls: UpstreamTls | null
  /** How connections log in; absent: they do not. */
  readonly login?: RedisLogin
  /** What a check of the protocol's own asks; absent: the protocol has none. */
  readonly prober?: Prober
  /** What must not be dialled, whatever discovery finds. Default: everything may be. */
  readonly guard?: DialGuard
  /** Of the retry block of the route; null: no budget beyond limits.maxConcurrentRetries. */
  readonly budget: { readonly ratio: number; readonly minPerSecond: number } | null
  /** How long an attempt may take before a probe counts as hung: connect and per-try time-outs together. */
  readonly probeTimeoutMs: Millis
  /** Who gets a connection that becomes free; HTTP takes `Newest`, TCP `Oldest`. See BulkheadOptions. */
  readonly queue: 'Oldest' | 'Newest'
  /** Zone of this pod. Absent or null: not known. */
  readonly zone?: string | null
}

/** What a cluster is given once. */
export interface ClusterParts {
  /** Makes the discovery of a configuration; called again only when that part of it changed. */
  readonly discover: (config: DiscoveryConfig) => Discovery
  /** Told of each change of a breaker's state. */
  readonly onCircuit?: (cluster: Cluster, endpoint: Endpoint, state: CircuitState) => void
  /** Told of each change of the set of endpoints. */
  readonly onEndpoints?: (cluster: Cluster) => void
  /** Told when discovery finds an address that must not be dialled and is left out. */
  readonly onDenied?: (cluster: Cluster, refusal: DialRefusal) => void
  /** Told when another server has become the master, with their names (`ip:port`). Only of discovery by Sentinel. */
  readonly onSwitch?: (cluster: Cluster, from: string, to: string) => void
  /** Told when looking for endpoints begins to fail, fails in another way, or works again (null). Endpoints that are known stay. */
  readonly onDiscovery?: (cluster: Cluster, failure: string | null) => void
  /** Told when checks find an endpoint unhealthy or it is ejected (with the reason), and when it is well again by its checks (null). */
  readonly onHealth?: (cluster: Cluster, endpoint: Endpoint, failure: string | null) => void
  readonly random?: Random
  /** These are shared by the hosts of one upstream. Default: its own. */
  readonly retryBudget?: RetryBudget
  readonly paced?: PacingCounts
}

export class Cluster {
  readonly name: string
  /** Slots for connections and the bounded queue for them. */
  readonly connections: Bulkhead
  readonly budget: RetryBudget
  /** What pacing did to requests. */
  readonly paced: PacingCounts
  /** Of discovery by header: the clusters of the hosts that requests name. Null: its endpoints are its own. */
  readonly hosts: HostClusters | null
  #denials = 0
  #pacer: Pacer | null = null
  #options: ClusterOptions
  #balancing: Balancing
  readonly #parts: ClusterParts
  readonly #random: Random
  #discovery: Discovery
  #discoveryKey: string
  readonly #byKey = new Map<string, Endpoint>()
  #groups: readonly PriorityGroup[] = []
  /** As discovery found them last, the denied ones among them. */
  #addresses: readonly Address[] = []
  /** Addresses that are left out, by key. */
  #denied: ReadonlyMap<string, DialRefusal> = new Map()
  readonly #health: Health
  readonly #departures: Departures
  readonly #turns: Turns = { at: 0 }
  readonly #holds = new Holds(() => this.#discovery.refresh())
  #isClosed = false
  #halt: Halt = 'none'
  #switches = 0
  /** What a person wants of the circuits of endpoints that are still to come. */
  #forced: 'open' | 'closed' | 'auto' = 'auto'

  constructor(options: ClusterOptions, parts: ClusterParts) {
    this.name = options.config.name
    this.#options = options
    this.#balancing = balancingOptions(options)
    this.#parts = parts
    this.#random = parts.random ?? Math.random
    this.connections = new Bulkhead(bulkheadOptions(options))
    this.budget = parts.retryBudget ?? new RetryBudget(budgetOptions(options))
    this.paced = parts.paced ?? { delayed: 0, refused: 0 }
    this.#pacer = this.#pacerOf(options)
    this.hosts =
      options.config.discovery.kind === 'fromHeader'
        ? new HostClusters(
            options,
            (own) => new Cluster(own, { ...parts, retryBudget: this.budget, paced: this.paced }),
          )
        : null
    this.#health = new Health(healthOptions(options), {
      random: this.#random,
      onHealth: (endpoint, failure) => {
        if (failure === null) {
          endpoint.wellAgain()
          this.#startSlowly(endpoint, now())
        } else endpoint.failed('health_check', failure)
        parts.onHealth?.(this, endpoint, failure)
      },
      onFailedCheck: ({ host }) => this.#discovery.refresh(host),
    })
    this.#departures = new Departures(options.config.drainDeadlineMs ?? null)
    this.#discoveryKey = canonicalJson(withoutEndpoints(options.config.discovery))
    this.#discovery = parts.discover(options.config.discovery)
  }

  /** Begins to look for endpoints. */
  start(): void {
    const discovery = this.#discovery
    const isCurrent = () => discovery === this.#discovery && !this.#isClosed
    discovery.start(
      (addresses) => {
        if (isCurrent()) this.#replace(addresses)
      },
      (failure) => {
        if (isCurrent()) this.#parts.onDiscovery?.(this, failure)
      },
      (halt) => {
        if (isCurrent()) this.#setHalt(halt)
      },
    )
  }

  get config(): ClusterConfig {
    return this.#options.config
  }

  get tls(): UpstreamTls | null {
    return this.#options.tls
  }

  get login(): RedisLogin | null {
    return this.#options.login ?? null
  }

  /** Keeps requests to what the upstream says it takes; null: they need not. */
  get pacer(): Pacer | null {
    return this.#pacer
  }

  /** Something else than a failed dial speaks against the endpoints that are known: discovery looks again soon. */
  lookAgain(): void {
    this.#discovery.refresh()
  }

  /** What is under way must wait at its next boundary: its server may be about to be replaced. */
  get isHalted(): boolean {
    return this.#halt === 'all'
  }

  /** A server that closes a connection is followed by another one, or by itself. */
  get isFollowed(): boolean {
    return this.#options.config.discovery.kind === 'sentinel'
  }

  /** Whoever watches the endpoint says that it does not answer: what is under way there will not end by itself. */
  isDown({ host, port }: Endpoint): boolean {
    return this.#discovery.isDown?.(host, port) ?? false
  }

  /** Times that another server became the master. */
  get switches(): number {
    return this.#switches
  }

  #setHalt(halt: Halt): void {
    const wasHalted = this.isHalted
    this.#halt = halt
    if (wasHalted !== this.isHalted) {
      for (const { pool } of this.#byKey.values()) pool?.halt?.(this.isHalted)
    }
    if (this.isReady) this.#holds.end(true)
  }

  /** When what DNS said of it was last confirmed, in monotonic milliseconds; null without DNS, or while it said nothing. */
  get lookedUpAt(): Millis | null {
    return this.#discovery.lookedUpAt ?? null
  }

  /** What must not be dialled. */
  get guard(): DialGuard {
    return this.#options.guard ?? NO_GUARD
  }

  /** Why an address that discovery found is left out; null while all may be dialled. */
  get denied(): DialRefusal | null {
    return this.#denied.values().next().value ?? null
  }

  /** Every endpoint in use, in the order of discovery. */
  get endpoints(): Iterable<Endpoint> {
    return this.hosts === null ? this.#byKey.values() : this.hosts.endpoints
  }

  /** Times that the guard kept something from being dialled: addresses found, and attempts that had no other. */
  get denials(): number {
    return this.hosts === null ? this.#denials : this.hosts.denials
  }

  /** Connections in use, attempts that wait for one and those that were refused. */
  get usage(): { readonly used: number; readonly pending: number; readonly overflow: number } {
    return this.hosts === null ? this.connections : this.hosts.usage
  }

  /** Nobody uses it now; connections may rest in its pools. */
  get isIdle(): boolean {
    if (this.connections.pending > 0 || !this.#holds.isEmpty) return false
    for (const { active } of this.#byKey.values()) if (active > 0) return false
    return true
  }

  /**
   * False until discovery found the first endpoints, be they denied, and while nothing may begin on those that are known: then an
   * attempt waits (`whenReady`) instead of failing.
   */
  get isReady(): boolean {
    return (this.#groups.length > 0 || this.#denied.size > 0) && this.#halt === 'none'
  }

  /** The reason code of an attempt while there is no endpoint. */
  get whyUnready(): 'dns_failed' | 'no_healthy_endpoint' {
    const { kind } = this.#options.config.discovery
    return kind === 'service' || kind === 'sentinel' ? 'no_healthy_endpoint' : 'dns_failed'
  }

  /** Why endpoints are missing, for a person: the newest look-up failed, or one must not be dialled. Null when none is. */
  get discoveryFailure(): string | null {
    return this.#discovery.failure ?? this.denied?.detail ?? null
  }

  /**
   * The endpoint for an attempt that begins now, or why there is none. Changes nothing: call `begin` of it in the same turn.
   * @param tried the endpoints of earlier attempts of the same request, avoided while another one is available
   * @param hash of what config.loadBalancing.hashOn names, a number in [0, 1)
   */
  pick(now: Millis, tried: readonly Endpoint[] = NONE, hash: number = NO_HASH): Endpoint | PickRefusal {
    if (this.#groups.length === 0) return this.#refusal()
    return pickEndpoint(this.#groups, now, tried, this.#random, this.#balancing, hash) ?? this.#whyNone(now)
  }

  /**
   * Another address of the host of an endpoint, which may be quicker to accept a connection: one of the other family, if there is
   * one. Null when there is none that could be taken in its place.
   */
  rivalOf(endpoint: Endpoint, now: Millis): Endpoint | null {
    const { host, ip, port, priority } = endpoint
    if (host === ip) return null
    let rival: Endpoint | null = null
    for (const other of this.#byKey.values()) {
      if (other === endpoint || other.host !== host || other.port !== port || other.priority !== priority) continue
      if (!other.isAvailable(now) || !other.isWell(now) || other.isAvoided(now)) continue
      if (other.ip.includes(':') !== ip.includes(':')) return other
      rival ??= other
    }
    return rival
  }

  #whyNone(now: Millis): PickRefusal {
    for (const endpoint of this.#byKey.values()) if (endpoint.isWell(now)) return 'circuit_open'
    return this.#balancing.panicThreshold === 0 ? 'no_healthy_endpoint' : 'circuit_open'
  }

  #refusal(): PickRefusal {
    if (this.#denied.size === 0) return this.whyUnready
    this.#denials++
    return 'egress_denied'
  }

  /** Milliseconds until the first of the breakers lets a probe through; 0 when one does now. */
  retryAfterMs(now: Millis): Millis {
    let soonest = Number.POSITIVE_INFINITY
    for (const endpoint of this.#byKey.values()) {
      soonest = Math.min(soonest, endpoint.breaker === null ? 0 : endpoint.breaker.retryAfterMs(now))
    }
    return soonest === Number.POSITIVE_INFINITY ? 0 : soonest
  }

  /**
   * Holds an attempt that came before the endpoints did (the application may start before its upstream exists in DNS).
   * Calls `done` once: true as soon as there are endpoints, false after `timeoutMs` or when the cluster closes.
   * @returns gives up waiting; `done` is then never called
   */
  whenReady(timeoutMs: Millis, done: (ready: boolean) => void): () => void {
    if (this.isReady || this.#isClosed) {
      done(this.isReady)
      return () => {}
    }
    return this.#holds.add(timeoutMs, done)
  }

  /**
   * An endpoint could not be connected to (TCP or TLS): others are preferred for a while, and discovery looks again soon, since
   * it may have moved. Call it for each failed dial, beside `settle`.
   * @param isSilent nobody answered in any way
   */
  dialFailed(endpoint: Endpoint, now: Millis, isSilent = false): void {
    endpoint.dialFailed(now)
    endpoint.heard(isSilent)
    this.#discovery.refresh(endpoint.host)
  }

  /**
   * Holds the circuits of all endpoints, also of those that discovery finds later, or of one of them open or closed until `auto`.
   * @param endpoint its name (`ip:port`); null: all
   * @returns the number of circuits that were set
   */
  forceCircuits(to: 'open' | 'closed' | 'auto', endpoint: string | null): number {
    if (this.hosts !== null) return this.hosts.forceCircuits(to, endpoint)
    if (endpoint === null) this.#forced = to
    let count = 0
    for (const each of this.#byKey.values()) {
      if (endpoint !== null && each.name !== endpoint) continue
      each.forceCircuit(to, this.#breakerOptions())
      count++
    }
    return count
  }

  /**
   * Takes over a changed configuration. An endpoint that is still named keeps its breaker, pool and counts. When the
   * discovery part changed, attempts wait for the first set of the new one: the old addresses are not where they want to go.
   */
  update(options: ClusterOptions): void {
    const guarded = this.guard.key
    this.#options = options
    this.#balancing = balancingOptions(options)
    this.connections.reconfigure(bulkheadOptions(options))
    this.#shed()
    this.budget.reconfigure(budgetOptions(options))
    this.#pacer = this.#pacerOf(options)
    this.hosts?.update(options)
    this.#departures.setDeadline(options.config.drainDeadlineMs ?? null)
    for (const endpoint of this.#byKey.values()) {
      endpoint.configureBreaker(this.#breakerOptions())
      this.#configureOutlier(endpoint)
    }
    this.#group()
    this.#health.update(healthOptions(options), this.#byKey.values())
    // The endpoints of a Service come by its feed; only another Service is another place.
    const key = canonicalJson(withoutEndpoints(options.config.discovery))
    if (key === this.#discoveryKey) {
      if (guarded !== this.guard.key) this.#replace(this.#addresses)
      return
    }
    this.#discoveryKey = key
    this.#discovery.stop()
    this.#discovery = this.#parts.discover(options.config.discovery)
    this.#groups = []
    this.#addresses = []
    this.#denied = new Map()
    this.#setHalt('none')
    this.start()
  }

  /** Closes what rests beyond a limit that was lowered; what is busy beyond it ends with its request. */
  #shed(): void {
    const { connections } = this
    for (const { pool } of this.#byKey.values()) {
      while (connections.used > connections.max && pool?.evict?.() === true) {}
    }
  }

  /** Stops looking, ends every hold and lets the pools run dry. Idempotent. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.hosts?.close()
    this.#discovery.stop()
    this.#health.close()
    this.#holds.end(false)
    for (const [key, endpoint] of this.#byKey) this.#departures.leave(key, endpoint)
  }

  /** Ends everything now. Idempotent. */
  destroy(): void {
    this.hosts?.destroy()
    this.close()
    for (const endpoint of this.#byKey.values()) endpoint.pool?.destroy()
  }

  #replace(addresses: readonly Address[]): void {
    const isEmpty = addresses.length === 0
    if (isEmpty && this.#options.config.discovery.kind !== 'service') return
    this.#countSwitch(addresses)
    this.#addresses = addresses
    this.#deny(addresses)
    const left = new Map(this.#byKey)
    const isFirst = left.size === 0
    this.#byKey.clear()
    for (const address of addresses) {
      const key = addressKey(address)
      if (this.#byKey.has(key) || this.#denied.has(key)) continue
      let endpoint = left.get(key)
      if (endpoint === undefined) {
        endpoint = new Endpoint(address, this.#breakerOptions(), this.#turns)
        if (this.#forced !== 'auto') endpoint.forceCircuit(this.#forced, this.#breakerOptions())
        // Those of the first set are all as cold.
        if (!isFirst) this.#startSlowly(endpoint, now())
        this.#departures.takeBack(key, endpoint)
      }
      endpoint.weight = address.weight
      endpoint.priority = address.priority
      this.#configureOutlier(endpoint)
      left.delete(key)
      this.#byKey.set(key, endpoint)
    }
    this.#group()
    this.#health.setEndpoints(this.#byKey.values())
    for (const [key, endpoint] of left) this.#departures.leave(key, endpoint)
    if (!isEmpty && this.#halt === 'none') this.#holds.end(true)
    this.#parts.onEndpoints?.(this)
  }

  #group(): void {
    const { config, zone = null } = this.#options
    const own = config.loadBalancing?.zonePreference === 'SameZone' ? zone : null
    for (const address of this.#addresses) {
      const endpoint = this.#byKey.get(addressKey(address))
      if (endpoint === undefined) continue
      endpoint.zone = address.zone
      endpoint.isNear = own !== null && (address.forZones?.includes(own) ?? address.zone === own)
    }
    const { kind } = config.discovery
    this.#groups = groupByPriority(this.#byKey.values(), kind === 'service' || kind === 'dns')
  }

  #countSwitch([to]: readonly Address[]): void {
    const { discovery } = this.#options.config
    const [from] = this.#addresses
    if (discovery.kind !== 'sentinel' || discovery.role !== 'Master' || from === undefined || to === undefined) return
    this.#switches++
    this.#parts.onSwitch?.(this, addressName(from.ip, from.port), addressName(to.ip, to.port))
  }

  #startSlowly(endpoint: Endpoint, at: Millis): void {
    const ms = this.#options.config.loadBalancing?.slowStartMs
    if (ms !== undefined) endpoint.startSlowly(at, ms)
  }

  /** Finds out which addresses must not be dialled, and tells of those that are new among them. */
  #deny(addresses: readonly Address[]): void {
    const before = this.#denied
    const denied = new Map<string, DialRefusal>()
    for (const address of addresses) {
      const refusal = this.guard.refusal(address.host, address.ip, address.port)
      if (refusal !== null) denied.set(addressKey(address), refusal)
    }
    this.#denied = denied
    for (const [key, refusal] of denied) {
      if (before.get(key)?.detail === refusal.detail) continue
      this.#denials++
      this.#parts.onDenied?.(this, refusal)
    }
  }

  #configureOutlier(endpoint: Endpoint): void {
    if (this.#options.config.outlierDetection === undefined) {
      endpoint.onOutcome = null
      endpoint.outlier.reset()
    } else endpoint.onOutcome = this.#onOutcome
  }

  readonly #onOutcome = (endpoint: Endpoint, isFailure: boolean, now: Millis): void => {
    const config = this.#options.config.outlierDetection
    if (config === undefined || endpoint.retired) return
    if (!hearOutcome(endpoint.outlier, isFailure, config, now, () => this.#others(endpoint, now))) return
    this.#startSlowly(endpoint, endpoint.outlier.ejectedUntil)
    const ms = Math.round(endpoint.outlier.ejectedUntil - now)
    const why = `${config.consecutiveFailures} attempts in a row failed, it gets none for ${ms} ms`
    this.#parts.onHealth?.(this, endpoint, why)
  }

  /** One that was there keeps what it has learned. */
  #pacerOf({ config: { pacing } }: ClusterOptions): Pacer | null {
    if (pacing === undefined) return null
    if (this.#pacer === null) return new Pacer(pacing, this.paced)
    this.#pacer.reconfigure(pacing)
    return this.#pacer
  }

  #others(endpoint: Endpoint, now: Millis) {
    const others = [...this.#byKey.values()].filter((each) => each !== endpoint)
    return {
      count: others.length,
      ejected: others.filter(({ outlier }) => outlier.isEjected(now)).length,
      up: others.filter((each) => each.isWell(now) && each.isAvailable(now)).length,
    }
  }

  #breakerOptions() {
    const onCircuit = this.#parts.onCircuit
    return {
      config: this.#options.config.circuitBreaker,
      probeTimeoutMs: this.#options.probeTimeoutMs,
      onCircuit:
        onCircuit === undefined
          ? undefined
          : (endpoint: Endpoint, state: CircuitState) => onCircuit(this, endpoint, state),
      random: this.#random,
    }
  }
}

function balancingOptions({ config: { loadBalancing, discovery } }: ClusterOptions): Balancing {
  return {
    policy: loadBalancing?.policy ?? 'LeastRequest',
    panicThreshold: loadBalancing?.panicThreshold ?? null,
    isStrict: discovery.kind === 'srv',
  }
}

function healthOptions({ config, tls, guard, prober }: ClusterOptions): HealthOptions {
  return {
    prober: prober ?? null,
    config: config.healthCheck ?? null,
    tls,
    guard: guard ?? NO_GUARD,
    proxyProtocol: config.proxyProtocol ?? null,
  }
}

function bulkheadOptions(options: ClusterOptions) {
  const { maxConnections, maxPendingRequests } = options.config.limits
  return { max: maxConnections, maxPending: maxPendingRequests, first: options.queue }
}

function budgetOptions(options: ClusterOptions) {
  return {
    // Without a budget of its own, only the number in flight bounds the retries.
    ratio: options.budget?.ratio ?? 1,
    minPerSecond: options.budget?.minPerSecond ?? Number.POSITIVE_INFINITY,
    maxConcurrent: options.config.limits.maxConcurrentRetries,
  }
}
