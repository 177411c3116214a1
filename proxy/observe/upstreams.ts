/** What /upstreams of the admin port says: each upstream with its endpoints, breakers and counts, for people and scripts. */
import { REASONS, type Reason } from '../../common/reasons.ts'
import { now } from '../runtime/clock.ts'
import type { Served } from '../served.ts'
import type { Endpoint } from '../upstream/endpoint.ts'
import { DURATION_BUCKETS_MS, type HttpCells } from './cells.ts'

export interface UpstreamsReport {
  readonly version: string
  readonly pod: string | null
  /** Of the pod; null: not known. */
  readonly zone: string | null
  readonly startedAt: string
  readonly isDraining: boolean
  readonly logLevel: string
  readonly ambassadors: readonly AmbassadorUpstreams[]
}

export interface AmbassadorUpstreams {
  readonly namespace: string
  readonly name: string
  readonly protocol: string | null
  /** Addresses and port that the application uses. */
  readonly listening: readonly string[]
  readonly hash: string | null
  readonly generation: number | null
  readonly since: string | null
  /** Why the newest config is not in force, or null. */
  readonly rejected: string | null
  readonly lastError: { readonly reason: string; readonly message: string; readonly at: string } | null
  /** Connections of the application. */
  readonly connections: { readonly open: number; readonly busy: number }
  /** Answers (HTTP) or connections (TCP) so far, by status. */
  readonly answers: Readonly<Record<string, number>>
  readonly rateLimited: number
  readonly upstreams: readonly UpstreamReport[]
}

export interface UpstreamReport {
  readonly name: string
  /** Why the newest look-up of endpoints failed, or null. */
  readonly discoveryFailure: string | null
  /** Why TLS cannot be set up with the newest files, or null. */
  readonly tlsFailure: string | null
  /** Why the credential is not available, or null. */
  readonly credentialFailure: string | null
  /** Connections in use, their bound, and requests that wait for one. */
  readonly connections: { readonly used: number; readonly max: number; readonly waiting: number }
  /** Of its requests since the start; null for another protocol. */
  readonly http: HttpReport | null
  readonly endpoints: readonly EndpointReport[]
}

export interface HttpReport {
  /** Requests that ended, those under way, and those that failed: by a reason code, or with 500 and above. */
  readonly requests: number
  readonly active: number
  readonly failures: number
  /** By reason code, those that occurred. */
  readonly reasons: Readonly<Record<string, number>>
  /** How many requests took at most so long (and longer than the bound before); one more count than bounds, for the longest. */
  readonly durations: { readonly boundsMs: readonly number[]; readonly counts: readonly number[] }
}

export interface EndpointReport {
  /** `ip:port`. */
  readonly name: string
  readonly host: string
  /** Where it is; null: not known. */
  readonly zone: string | null
  readonly weight: number
  readonly priority: number
  /** Attempts in flight. */
  readonly active: number
  readonly attempts: number
  readonly failures: number
  /** closed, half-open, open; null without a breaker. */
  readonly circuit: string | null
  /** A person holds it so; see PUT /circuit. */
  readonly isCircuitForced: boolean
  /** healthy, unhealthy (by its checks), ejected (by its attempts). */
  readonly health: string
  /** What went wrong on it last, by a reason code, `answer` (a status of 500 and above) or `health_check`; null: nothing has. */
  readonly lastError: { readonly reason: string; readonly message: string; readonly at: string } | null
}

/** Makes the report of the moment. */
export function upstreamsReport(
  served: readonly Served[],
  process: Omit<UpstreamsReport, 'ambassadors'>,
): UpstreamsReport {
  return { ...process, ambassadors: served.map(ambassadorReport) }
}

function ambassadorReport(served: Served): AmbassadorUpstreams {
  const { namespace, name, hash, generation, since, rejected, lastError } = served.report()
  return {
    namespace,
    name,
    protocol: served.config?.protocol ?? null,
    listening: served.listening,
    hash,
    generation,
    since,
    rejected: rejected === null ? null : `${rejected.reason}: ${rejected.message}`,
    lastError,
    connections: served.connections,
    answers: served.answers,
    rateLimited: served.rateLimits.reduce((sum, { limited }) => sum + limited, 0),
    upstreams: served.compiled.map(({ cluster, tls, credential, cells }) => ({
      name: cluster.name,
      discoveryFailure: cluster.discoveryFailure,
      tlsFailure: tls?.failure ?? null,
      credentialFailure: credential?.failure ?? null,
      connections: {
        used: cluster.usage.used,
        max: cluster.config.limits.maxConnections,
        waiting: cluster.usage.pending,
      },
      http: served.config?.protocol === 'HTTP' ? httpReport(cells) : null,
      endpoints: [...cluster.endpoints].map((endpoint) => ({
        name: endpoint.name,
        host: endpoint.host,
        zone: endpoint.zone ?? null,
        weight: endpoint.weight,
        priority: endpoint.priority,
        active: endpoint.active,
        attempts: endpoint.attempts,
        failures: endpoint.failures,
        circuit: endpoint.breaker?.state ?? null,
        isCircuitForced: endpoint.breaker?.isForced ?? false,
        health: healthOf(endpoint),
        lastError: lastErrorOf(endpoint),
      })),
    })),
  }
}

function lastErrorOf({ lastError }: Endpoint): EndpointReport['lastError'] {
  if (lastError === null) return null
  return { reason: lastError.reason, message: lastError.detail, at: new Date(lastError.at).toISOString() }
}

function healthOf({ isHealthy, outlier }: Endpoint): string {
  return !isHealthy ? 'unhealthy' : outlier.isEjected(now()) ? 'ejected' : 'healthy'
}

function httpReport(cells: HttpCells): HttpReport {
  const counts = new Array<number>(DURATION_BUCKETS_MS.length + 1).fill(0)
  let requests = 0
  let upstreamErrors = 0
  for (const [status, cell] of cells.statuses) {
    requests += cell.count
    if (status !== 'overflow' && status >= 500) upstreamErrors += cell.count
    cell.buckets.forEach((count, index) => {
      counts[index] = (counts[index] ?? 0) + count
    })
  }
  const reasons: Record<string, number> = {}
  let failures = upstreamErrors
  for (const [reason, count] of Object.entries(cells.reasons) as [Reason, number][]) {
    if (count === 0) continue
    reasons[reason] = count
    // Those that were answered with 500 and above are counted by that already.
    if (REASONS[reason].status < 500) failures += count
  }
  return {
    requests,
    active: cells.active,
    failures,
    reasons,
    durations: { boundsMs: [...DURATION_BUCKETS_MS], counts },
  }
}
