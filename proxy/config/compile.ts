/** Makes of a ProxyConfig what requests are served by: clusters, credentials, contexts and limits; what did not change is kept. */
import { canonicalJson } from '../../common/config-hash.ts'
import type { LoadFailure, RefReport } from '../../common/configz.ts'
import type { ClusterConfig, DiscoveryConfig, ProxyConfig } from '../../common/proxy-config.ts'
import { HttpCells } from '../observe/cells.ts'
import type { HeaderCredential } from '../policy/credential.ts'
import { RateLimit } from '../policy/rate-limit.ts'
import { now } from '../runtime/clock.ts'
import type { FileTls, TlsContexts } from '../tls/contexts.ts'
import { Cluster, type ClusterOptions, type ClusterParts } from '../upstream/cluster.ts'
import type { Discovery } from '../upstream/discovery/discovery.ts'
import { Credential } from './credentials.ts'
import type { RefDirs } from './refs.ts'

/** What every Ambassador of the process shares. */
export interface CompileParts {
  readonly dirs: RefDirs
  readonly tls: TlsContexts
  readonly discover: (config: DiscoveryConfig) => Discovery
  readonly onCircuit?: ClusterParts['onCircuit']
  readonly onDiscovery?: ClusterParts['onDiscovery']
}

/** One upstream, ready for use. */
export interface CompiledCluster {
  readonly cluster: Cluster
  /** Null: nothing is added to requests. */
  readonly credential: HeaderCredential | null
  /** What HTTP counts for it. */
  readonly cells: HttpCells
}

/**
 * What a driver serves by. Never changed: a changed config is a new snapshot, and each request or connection reads the newest one
 * when it begins. Clusters and limits live longer than a snapshot.
 */
export interface Snapshot {
  readonly config: ProxyConfig
  /** All traffic goes to the first one. */
  readonly clusters: readonly CompiledCluster[]
  readonly rateLimit: RateLimit | null
}

/** One upstream of a config. */
interface Part {
  readonly config: ClusterConfig
  readonly tls: FileTls | null
  readonly credential: Credential | null
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
        credential: credential(cluster, old),
        cells: old?.cells ?? new HttpCells(),
        cluster: null,
      }
      refs.push(...this.#refsOf(part))
      return part
    })
    return { config, refs, problem: problemOf(refs), parts }
  }

  /** Puts a candidate in force. A cluster of the same name over the same TLS is kept, with its endpoints, breakers and pools. */
  commit(candidate: Candidate): Snapshot {
    const { config } = candidate
    const before = this.#inForce
    const isSameProtocol = this.#protocol === config.protocol
    this.#protocol = config.protocol
    this.#inForce = candidate.parts.map((part) => {
      const old = before.find((each) => each.config.name === part.config.name)
      const options = clusterOptions(config, part)
      if (isSameProtocol && old?.cluster && old.tls === part.tls) {
        old.cluster.update(options)
        return { ...part, cluster: old.cluster }
      }
      const { discover, onCircuit, onDiscovery } = this.#parts
      const cluster = new Cluster(options, { discover, onCircuit, onDiscovery })
      cluster.start()
      return { ...part, cluster }
    })
    this.#release(before, this.#inForce)
    if (config.rateLimit === null) this.#rateLimit = null
    else if (this.#rateLimit === null) this.#rateLimit = new RateLimit(config.rateLimit)
    else this.#rateLimit.reconfigure(config.rateLimit, now())
    return {
      config,
      clusters: this.#inForce.map(({ cluster, credential: own, cells }) => {
        return { cluster: cluster as Cluster, credential: own, cells }
      }),
      rateLimit: this.#rateLimit,
    }
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
      ({ tls, credential: own }) => (tls === null || tls.context !== null) && (own === null || own.line !== null),
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

  #refsOf(part: Part): RefReport[] {
    const reports = [...(part.tls?.refs ?? []), ...(part.credential?.refresh(this.#parts.dirs) ?? [])]
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

  /** Ends what `from` has and `kept` has not. */
  #release(from: readonly Part[], kept: readonly Part[]): void {
    for (const part of from) {
      if (part.tls !== null && !kept.some((each) => each.tls === part.tls)) this.#parts.tls.close(part.tls)
      if (part.cluster !== null && !kept.some((each) => each.cluster === part.cluster)) part.cluster.close()
    }
  }
}

function credential(config: ClusterConfig, old: Part | undefined): Credential | null {
  if (config.auth === null) return null
  const isSame = old?.credential && canonicalJson(old.config.auth) === canonicalJson(config.auth)
  return isSame ? old.credential : new Credential(config.auth)
}

function clusterOptions(config: ProxyConfig, part: Part): ClusterOptions {
  const perTryMs = config.retry?.perTryTimeoutMs ?? config.timeouts.requestMs ?? PROBE_MS
  return {
    config: part.config,
    tls: part.tls,
    budget: config.retry?.budget ?? null,
    probeTimeoutMs: config.timeouts.connectMs + (config.protocol === 'HTTP' ? perTryMs : 0),
    queue: config.protocol === 'HTTP' ? 'Newest' : 'Oldest',
  }
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
