/** What an HTTP driver serves by: one config in force, compiled so that a request only looks things up. */
import type {
  AccessLogConfig,
  BalancingConfig,
  RetryConfig,
  RouteConfig,
  TimeoutsConfig,
} from '../../../common/proxy-config.ts'
import type { HttpCells } from '../../observe/cells.ts'
import type { HeaderCredential } from '../../policy/credential.ts'
import type { RateLimit } from '../../policy/rate-limit.ts'
import { Router } from '../../routing/router.ts'
import type { Cluster } from '../../upstream/cluster.ts'
import { FieldChanges, fieldChanges } from './field-changes.ts'
import { HeaderHosts } from './from-header.ts'
import { Mirror } from './mirror.ts'
import type { Tracing } from './span.ts'
import { nameBytes } from './tables.ts'

/** Where requests go. */
export interface HttpUpstream {
  readonly cluster: Cluster
  /** Null: nothing is added to requests. */
  readonly credential: HeaderCredential | null
  /** The credential's field name as bytes in lower case. */
  readonly credentialName: Uint8Array | null
  /** What is changed whatever route was taken: fields that a signature brings anew; null: nothing. */
  readonly requestChanges: FieldChanges | null
  /** Kept over changes of the config. */
  readonly cells: HttpCells
  /** Finds the host that a request names; null: the cluster is where it goes. */
  readonly hosts: HeaderHosts | null
  /** What ConsistentHash looks at; null: nothing. */
  readonly hashOn: NonNullable<BalancingConfig['hashOn']> | null
}

/** When a request is sent again. */
export interface RetryPlan {
  readonly config: RetryConfig
  /** 1 for each status that is tried again. */
  readonly statuses: Uint8Array
  readonly onConnectFailure: boolean
  readonly onReset: boolean
  readonly onTimeout: boolean
  /** After this time without an answer a request is sent a second time; null: it is not. */
  readonly hedgeMs: number | null
}

/** Where one request goes, and by which rules. */
export interface HttpTarget {
  readonly upstream: HttpUpstream
  readonly retry: RetryPlan | null
  readonly timeouts: TimeoutsConfig
  /** Of requests; null: none. */
  readonly rateLimit: RateLimit | null
  /** Null: no route was asked or none matched. */
  readonly route: HttpRoute | null
}

/** The part of a route that changes messages. One per upstream of the route. */
export interface HttpRoute {
  /** `routes[0]`, for the log; null: no route, but a field is removed all the same. */
  readonly name: string | null
  readonly requestChanges: FieldChanges | null
  readonly responseChanges: FieldChanges | null
  /** What the path that matched begins with, and what it is replaced by; null: nothing is. */
  readonly rewrite: { readonly from: string; readonly to: string } | null
  /** Where copies of the requests go; null: nowhere. */
  readonly mirror: Mirror | null
}

/**
 * Never changed: a changed config is a new snapshot, which each request reads when it begins. It is itself the target of requests
 * that no route takes, so that without routes there is nothing to look up.
 */
export interface HttpSnapshot extends HttpTarget {
  /** Null: there are no routes. */
  readonly router: Router<HttpTarget> | null
  readonly accessLog: AccessLogConfig
  /** Null: what requests say of their traces is passed on untouched. */
  readonly tracing: Tracing | null
}

/** Makes an upstream of its parts. */
export function httpUpstream(cluster: Cluster, credential: HeaderCredential | null, cells: HttpCells): HttpUpstream {
  const replaced = credential?.signer?.replaces ?? []
  return {
    cluster,
    credential,
    credentialName: credential === null ? null : nameBytes(credential.name),
    requestChanges: replaced.length === 0 ? null : new FieldChanges(replaced, Buffer.alloc(0)),
    cells,
    hosts: cluster.hosts === null ? null : new HeaderHosts(cluster, cluster.hosts),
    hashOn: cluster.config.loadBalancing?.hashOn ?? null,
  }
}

/** Compiles routes over the target of requests that none takes; null when there are none. */
export function httpRouter(
  routes: readonly RouteConfig[],
  base: Omit<HttpTarget, 'route'>,
  upstreamOf: (cluster: string) => HttpUpstream,
  limitOf: (index: number) => RateLimit | null,
): Router<HttpTarget> | null {
  if (routes.length === 0) return null
  return new Router(routes, (cluster, route, index): HttpTarget => {
    const { match, rewritePrefix, requestHeaders, responseHeaders } = route
    const upstream = upstreamOf(cluster)
    const prefix = match.path?.kind === 'prefix' ? match.path.value : null
    return {
      upstream,
      retry: route.retry === null ? base.retry : retryPlan(route.retry),
      timeouts: route.timeouts === null ? base.timeouts : { ...base.timeouts, ...route.timeouts },
      rateLimit: limitOf(index) ?? base.rateLimit,
      route: {
        name: `routes[${index}]`,
        requestChanges: fieldChanges(requestHeaders, upstream.credential),
        responseChanges: fieldChanges(responseHeaders, null),
        rewrite: prefix === null || rewritePrefix === null ? null : { from: prefix, to: rewritePrefix },
        mirror:
          route.mirror === undefined
            ? null
            : new Mirror(upstreamOf(route.mirror.cluster), route.mirror.ratio, base.timeouts.connectMs),
      },
    }
  })
}

/** Compiles the retry block; null when nothing is ever tried again. */
export function retryPlan(config: RetryConfig | null): RetryPlan | null {
  if (config === null || (config.maxRetries === 0 && config.hedgeMs === undefined)) return null
  const statuses = new Uint8Array(1000)
  for (const status of config.statuses) statuses[status] = 1
  return {
    config,
    statuses,
    onConnectFailure: config.on.includes('ConnectFailure'),
    onReset: config.on.includes('Reset'),
    onTimeout: config.on.includes('Timeout'),
    hedgeMs: config.hedgeMs ?? null,
  }
}
