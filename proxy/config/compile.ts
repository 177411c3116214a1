/** Makes of a ProxyConfig what requests are served by: clusters, credentials, contexts and limits; what did not change is kept. */
import { canonicalJson } from '../../common/config-hash.ts'
import type { LoadFailure, RefReport } from '../../common/configz.ts'
import type {
  ClusterConfig,
  DiscoveryConfig,
  ProxyConfig,
  RateLimitConfig,
  RouteConfig,
  ServiceDiscoveryConfig,
} from '../../common/proxy-config.ts'
import { HttpCells } from '../observe/cells.ts'
import type { HeaderCredential, LoginSource } from '../policy/credential.ts'
import { DialGuard, NO_GUARD } from '../policy/dial-guard.ts'
import { RateLimit } from '../policy/rate-limit.ts'
import { PostgresProber } from '../protocol/postgres/prober.ts'
import { now } from '../runtime/clock.ts'
import type { FileTls, TlsContexts } from '../tls/contexts.ts'
import { Cluster, type ClusterOptions, type ClusterParts } from '../upstream/cluster.ts'
import type { DiscoverySource } from '../upstream/discovery/discover.ts'
import type { Discovery } from '../upstream/discovery/discovery.ts'
import { ServiceFeed } from '../upstream/discovery/service.ts'
import type { RedisRole } from '../upstream/redis/login.ts'
import { RedisProber } from '../upstream/redis/prober.ts'
import { EndpointFile } from './endpoint-file.ts'
import { makeCredential } from './make-credential.ts'
import type { OwnedCredential } from './owned-credential.ts'
import { DatabaseLogin } from './postgres-login.ts'
import type { RefDirs } from './refs.ts'
import { SentinelFiles } from './sentinel-files.ts'

/** What every Ambassador of the process shares. */
export interface CompileParts {
  readonly dirs: RefDirs
  readonly tls: TlsContexts
  /** Zone of this pod. Absent or null: not known. */
  readonly zone?: string | null
  /** `source` is given for the kinds `file`, `service` and `sentinel`. */
  readonly discover: (config: DiscoveryConfig, source: DiscoverySource | null) => Discovery
  /** Told of each fetch of a token for a cluster that failed. */
  readonly onTokenFailure?: (cluster: string, message: string) => void
  readonly onCircuit?: ClusterParts['onCircuit']
  readonly onDenied?: ClusterParts['onDenied']
  readonly onDiscovery?: ClusterParts['onDiscovery']
  readonly onHealth?: ClusterParts['onHealth']
  readonly onSwitch?: ClusterParts['onSwitch']
}

/** One upstream, ready for use. */
export interface CompiledCluster {
  readonly cluster: Cluster
  /** Null: nothing is added to requests. */
  readonly credential: HeaderCredential | null
  /** Null: the proxy does not log in itself. */
  readonly login: LoginSource | null
  /** What HTTP counts for it. */
  readonly cells: HttpCells
}

/**
 * What a driver serves by. Never changed: a changed config is a new snapshot, and each request or connection reads the newest one
 * when it begins. Clusters and limits live longer than a snapshot.
 */
export interface Snapshot {
  readonly config: ProxyConfig
  /** What no route takes goes to the first one. */
  readonly clusters: readonly CompiledCluster[]
  readonly rateLimit: RateLimit | null
  /** One for each route; null: it has none of its own. */
  readonly routeLimits: readonly (RateLimit | null)[]
}

/** One upstream of a config. */
interface Part {
  readonly config: ClusterConfig
  readonly tls: FileTls | null
  readonly credential: OwnedCredential | null
  readonly login: DatabaseLogin | null
  /** The list of endpoints of discovery by file. */
  readonly file: EndpointFile | null
  /** Of discovery by Sentinel. */
  readonly sentinel: SentinelFiles | null
  /** Counters never go back, so they are kept as long as the name is. */
  readonly cells: HttpCells
  /** Null until the config is put in force. */
  readonly cluster: Cluster | null
}

/** A config whose references were read, not yet in force. End it with commit() or discard(). */
export interface Candidate {
  readonly config: ProxyConfig
  readonly refs: readonly RefReport[]
  /** Why it should not replace a config that serves; null when every reference is Found. */
  readonly problem: { readonly reason: LoadFailure; readonly message: string } | null
  readonly parts: readonly Part[]
}

/** A hung probe is one that takes longer than any attempt may. */
const PROBE_MS = 15_000

/** The compiled form of one Ambassador, from its first config to its end. */
export class Compiler {
  readonly #parts: CompileParts
  #inForce: readonly Part[] = []
  #protocol: ProxyConfig['protocol'] | null = null
  #rateLimit: RateLimit | null = null
  /** Sidecars that share the limits of the fleet. */
  #sidecars = 1
  /** Of the config in force. */
  #guard = NO_GUARD
  /** By what their routes match. */
  #routeLimits: ReadonlyMap<string, RateLimit> = new Map()
  readonly #files = new WeakMap<DiscoveryConfig, EndpointFile | SentinelFiles>()
  /** By Service and port. */
  #feeds = new Map<string, ServiceFeed>()

  constructor(parts: CompileParts) {
    this.#parts = parts
  }

  /** Reads everything that a config refers to, without changing what is in force. */
  prepare(config: ProxyConfig): Candidate {
    const refs: RefReport[] = []
    const parts = config.clusters.map((cluster) => {
      const old = this.#inForce.find((part) => part.config.name === cluster.name)
      const part: Part = {
        config: cluster,
        tls: this.#tls(cluster, old),
        credential: this.#credential(cluster, old),
        login: this.#login(cluster, old),
        file: endpointFile(cluster, old),
        sentinel: this.#sentinel(cluster, old),
        cells: old?.cells ?? new HttpCells(),
        cluster: null,
      }
      refs.push(...this.#refsOf(part))
      return part
    })
    return { config, refs, problem: problemOf(refs), parts }
  }

  /**
   * Takes over the endpoints of Services and the size of the fleet from the newest config, whether or not it can be put in force:
   * pods come and go while a person still looks for a Secret that is missing.
   */
  takeEndpoints(config: ProxyConfig): void {
    this.#sidecars = config.fleet?.sidecars ?? this.#sidecars
    for (const limit of [this.#rateLimit, ...this.#routeLimits.values()]) limit?.shareAmong(this.#sidecars, now())
    for (const service of servicesOf(config)) this.#feeds.get(feedKey(service))?.set(service)
  }

  /** Sidecars that share the limits of the fleet, as the newest config says. */
  get sidecars(): number {
    return this.#sidecars
  }

  /** Puts a candidate in force. A cluster of the same name over the same TLS is kept, with its endpoints, breakers and pools. */
  commit(candidate: Candidate): Snapshot {
    const { config } = candidate
    const before = this.#inForce
    const guard = guardOf(config)
    this.#guard = guard
    for (const { config: each, file, sentinel, tls, credential } of candidate.parts) {
      const source = file ?? sentinel
      if (source !== null) this.#files.set(each.discovery, source)
      if (sentinel === null) continue
      const { connectMs: timeoutMs } = config.timeouts
      sentinel.guard = guard
      sentinel.servers = { tls, credential, proxyProtocol: each.proxyProtocol ?? null, timeoutMs }
    }
    this.#feed(config)
    const isSameProtocol = this.#protocol === config.protocol
    this.#protocol = config.protocol
    this.#inForce = candidate.parts.map((part) => {
      const old = before.find((each) => each.config.name === part.config.name)
      const options = clusterOptions(config, part, guard, this.#parts.zone ?? null)
      const isSameKind = (old?.cluster?.hosts === null) === (part.config.discovery.kind !== 'fromHeader')
      if (isSameProtocol && old?.cluster && old.tls === part.tls && isSameKind) {
        old.cluster.update(options)
        return { ...part, cluster: old.cluster }
      }
      const { onCircuit, onDenied, onDiscovery, onHealth, onSwitch } = this.#parts
      const cluster = new Cluster(options, {
        discover: (each) => this.#discover(each),
        onCircuit,
        onDenied,
        onDiscovery,
        onHealth,
        onSwitch,
      })
      cluster.start()
      return { ...part, cluster }
    })
    for (const { credential } of this.#inForce) credential?.start?.()
    this.#release(before, this.#inForce)
    this.#rateLimit = limitOf(config.rateLimit, this.#rateLimit, this.#sidecars)
    return {
      config,
      clusters: this.#inForce.map(({ cluster, credential: own, login, cells }) => {
        return { cluster: cluster as Cluster, credential: own, login, cells }
      }),
      rateLimit: this.#rateLimit,
      routeLimits: this.#limitRoutes(config.routes),
    }
  }

  /** A route that matches what one matched before keeps its bucket, wherever it stands now. */
  #limitRoutes(routes: readonly RouteConfig[]): (RateLimit | null)[] {
    const kept = new Map<string, RateLimit>()
    const limits = routes.map(({ match, rateLimit }) => {
      let key = canonicalJson(match)
      while (kept.has(key)) key += '+'
      const limit = limitOf(rateLimit, this.#routeLimits.get(key) ?? null, this.#sidecars)
      if (limit !== null) kept.set(key, limit)
      return limit
    })
    this.#routeLimits = kept
    return limits
  }

  /** Drops a candidate that was not put in force. */
  discard(candidate: Candidate): void {
    this.#release(candidate.parts, this.#inForce)
  }

  /**
   * Reads the files of the config in force again (call `TlsContexts.reload()` before) and says how each was found. What became
   * unusable stays in use as it was last good.
   */
  refresh(): readonly RefReport[] {
    return this.#inForce.flatMap((part) => this.#refsOf(part))
  }

  /** Everything that the config in force refers to was usable at least once, so that it serves. */
  get isServing(): boolean {
    return this.#inForce.every(
      ({ tls, credential: own, login, file, sentinel }) =>
        (sentinel?.tls == null || sentinel.tls.context !== null) &&
        (sentinel?.credential == null || sentinel.credential.line !== null) &&
        (tls === null || tls.context !== null) &&
        (login === null || login.login !== null) &&
        (own === null || own.line !== null) &&
        (file === null || file.targets !== null),
    )
  }

  /** Of the config in force. */
  get clusters(): readonly (Omit<Part, 'cluster'> & { readonly cluster: Cluster })[] {
    return this.#inForce as readonly (Part & { readonly cluster: Cluster })[]
  }

  /** Lets every cluster run dry. Idempotent. */
  close(): void {
    this.#release(this.#inForce, [])
    this.#inForce = []
  }

  #discover(config: DiscoveryConfig): Discovery {
    const source = config.kind === 'service' ? this.#feeds.get(feedKey(config)) : this.#files.get(config)
    return this.#parts.discover(config, source ?? null)
  }

  /** One feed for each Service of the config, those that were there with their endpoints. */
  #feed(config: ProxyConfig): void {
    const feeds = new Map<string, ServiceFeed>()
    for (const service of servicesOf(config)) {
      const key = feedKey(service)
      const feed = feeds.get(key) ?? this.#feeds.get(key) ?? new ServiceFeed()
      feeds.set(key, feed)
    }
    this.#feeds = feeds
    this.takeEndpoints(config)
  }

  #refsOf(part: Part): RefReport[] {
    const { dirs } = this.#parts
    const reports = [
      ...(part.file === null ? [] : [part.file.refresh(dirs)]),
      ...(part.tls?.refs ?? []),
      ...(part.sentinel?.refresh() ?? []),
      ...(part.credential?.refresh() ?? []),
      ...(part.login?.refresh(dirs) ?? []),
    ]
    return reports.map((report) => ({
      ...report,
      message: report.message && `upstream '${part.config.name}': ${report.message}`,
    }))
  }

  #tls(config: ClusterConfig, old: Part | undefined): FileTls | null {
    if (config.tls === null) return null
    const isSame = old?.tls && canonicalJson(old.config.tls) === canonicalJson(config.tls)
    return isSame ? old.tls : this.#parts.tls.open(config.tls)
  }

  #sentinel({ discovery }: ClusterConfig, old: Part | undefined): SentinelFiles | null {
    if (discovery.kind !== 'sentinel') return null
    const isSame = old?.sentinel && canonicalJson(old.config.discovery) === canonicalJson(discovery)
    return isSame ? old.sentinel : new SentinelFiles(discovery, this.#parts.tls, this.#parts.dirs)
  }

  #login({ name, auth }: ClusterConfig, old: Part | undefined): DatabaseLogin | null {
    if (auth?.kind !== 'postgres') return null
    if (old?.login && canonicalJson(old.config.auth) === canonicalJson(auth)) return old.login
    return new DatabaseLogin(auth, (message) => this.#parts.onTokenFailure?.(name, message))
  }

  #credential({ name, auth }: ClusterConfig, old: Part | undefined): Part['credential'] {
    if (auth === null || auth.kind === 'postgres') return null
    if (old?.credential && canonicalJson(old.config.auth) === canonicalJson(auth)) return old.credential
    const { dirs, tls, onTokenFailure } = this.#parts
    const guard = () => this.#guard
    return makeCredential(auth, { dirs, tls, guard, onFailure: (message) => onTokenFailure?.(name, message) })
  }

  /** Ends what `from` has and `kept` has not. */
  #release(from: readonly Part[], kept: readonly Part[]): void {
    for (const part of from) {
      if (part.tls !== null && !kept.some((each) => each.tls === part.tls)) this.#parts.tls.close(part.tls)
      const { sentinel } = part
      if (sentinel?.tls != null && !kept.some((each) => each.sentinel === sentinel)) this.#parts.tls.close(sentinel.tls)
      if (!kept.some((each) => each.credential === part.credential)) part.credential?.stop?.()
      if (part.cluster !== null && !kept.some((each) => each.cluster === part.cluster)) part.cluster.close()
    }
  }
}

/** The limit that was there with its new settings, or a new one. */
function limitOf(config: RateLimitConfig | null, old: RateLimit | null, sidecars: number): RateLimit | null {
  if (config === null || old === null) return config && new RateLimit(config, sidecars)
  old.reconfigure(config, now(), sidecars)
  return old
}

function endpointFile({ discovery }: ClusterConfig, old: Part | undefined): EndpointFile | null {
  if (discovery.kind !== 'file') return null
  const isSame = old?.file && canonicalJson(old.config.discovery) === canonicalJson(discovery)
  return isSame ? old.file : new EndpointFile(discovery.ref)
}

function servicesOf({ clusters }: ProxyConfig): ServiceDiscoveryConfig[] {
  return clusters.map(({ discovery }) => discovery).filter((each) => each.kind === 'service')
}

function feedKey({ namespace, name, port }: ServiceDiscoveryConfig): string {
  return `${namespace}/${name}:${port}`
}

/** @throws {Error} for an entry that is no host; who reads the config has seen to it that there is none */
function guardOf({ listener, egress }: ProxyConfig, keepsOffLink = false): DialGuard {
  return new DialGuard({ ownPort: listener.port, allow: egress?.allow ?? null, keepsOffLink })
}

function clusterOptions(config: ProxyConfig, part: Part, guard: DialGuard, zone: string | null): ClusterOptions {
  // The longest that any route lets an attempt take.
  const perTryMs = Math.max(
    ...[null, ...config.routes].map((route) => {
      const retry = route?.retry ?? config.retry
      const timeouts = route?.timeouts ?? config.timeouts
      return retry?.perTryTimeoutMs ?? timeouts.requestMs ?? PROBE_MS
    }),
  )
  return {
    config: part.config,
    tls: part.tls,
    zone,
    guard: part.config.discovery.kind === 'fromHeader' ? guardOf(config, true) : guard,
    budget: config.retry?.budget ?? null,
    probeTimeoutMs: config.timeouts.connectMs + (config.protocol === 'HTTP' ? perTryMs : 0),
    queue: config.protocol === 'HTTP' ? 'Newest' : 'Oldest',
    ...(part.config.healthCheck?.probe.kind === 'redis' && {
      prober: new RedisProber(part.credential, part.config.healthCheck.probe.role, guard),
    }),
    ...(config.protocol === 'Redis' && { login: { credential: part.credential, role: redisRole(part.config) } }),
    ...(part.login !== null && { prober: new PostgresProber(part.login, part.config) }),
  }
}

function redisRole({ discovery }: ClusterConfig): RedisRole {
  return discovery.kind === 'sentinel' ? discovery.role : null
}

/** Worst first: what only a restart can mend, what a person must create, what a person must correct. */
const REASONS = [
  ['NotMounted', 'NotMounted'],
  ['Missing', 'MissingRef'],
  ['Invalid', 'InvalidRef'],
] as const

function problemOf(refs: readonly RefReport[]): Candidate['problem'] {
  for (const [state, reason] of REASONS) {
    const found = refs.filter((ref) => ref.state === state)
    if (found.length > 0) return { reason, message: [...new Set(found.map((ref) => ref.message))].join('; ') }
  }
  return null
}
