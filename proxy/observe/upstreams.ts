/** What /upstreams of the admin port says: each upstream with its endpoints, breakers and counts, for people and scripts. */
import { now } from '../runtime/clock.ts'
import type { Served } from '../served.ts'
import type { Endpoint } from '../upstream/endpoint.ts'

export interface UpstreamsReport {
  readonly version: string
  readonly pod: string | null
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
  readonly endpoints: readonly EndpointReport[]
}

export interface EndpointReport {
  /** `ip:port`. */
  readonly name: string
  readonly host: string
  readonly weight: number
  readonly priority: number
  /** Attempts in flight. */
  readonly active: number
  readonly attempts: number
  readonly failures: number
  /** closed, half-open, open; null without a breaker. */
  readonly circuit: string | null
  /** healthy, unhealthy (by its checks), ejected (by its attempts). */
  readonly health: string
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
    upstreams: served.compiled.map(({ cluster, tls, credential }) => ({
      name: cluster.name,
      discoveryFailure: cluster.discoveryFailure,
      tlsFailure: tls?.failure ?? null,
      credentialFailure: credential?.failure ?? null,
      connections: {
        used: cluster.connections.used,
        max: cluster.config.limits.maxConnections,
        waiting: cluster.connections.pending,
      },
      endpoints: [...cluster.endpoints].map((endpoint) => ({
        name: endpoint.name,
        host: endpoint.host,
        weight: endpoint.weight,
        priority: endpoint.priority,
        active: endpoint.active,
        attempts: endpoint.attempts,
        failures: endpoint.failures,
        circuit: endpoint.breaker?.state ?? null,
        health: healthOf(endpoint),
      })),
    })),
  }
}

function healthOf({ isHealthy, outlier }: Endpoint): string {
  return !isHealthy ? 'unhealthy' : outlier.isEjected(now()) ? 'ejected' : 'healthy'
}
