/** The words in which a request is refused: what stands in its way, and where it helps what a person can do. */
import type { Reason } from '../../../common/reasons.ts'
import type { RateLimit } from '../../policy/rate-limit.ts'
import { overloadDetail } from '../../runtime/overload.ts'
import type { Cluster, PickRefusal } from '../../upstream/cluster.ts'
import type { Refusal } from './respond.ts'

export function overloaded(): Refusal {
  return { reason: 'overloaded', detail: overloadDetail(), retryAfterMs: 1000 }
}

/** The listener has all the connections of the application that it may have. */
export function crowded(max: number): Refusal {
  const detail = `the application has ${max} connections open to this port, and none of them rests`
  return { reason: 'overloaded', detail, retryAfterMs: 1000 }
}

/** The rate limit has no token. @param waitMs until it has one */
export function limited(limit: RateLimit, waitMs: number): Refusal {
  return { reason: 'rate_limited', detail: '', retryAfterMs: waitMs, fields: limit.fieldLines(waitMs) }
}

/** Its upstream asked for less. */
export function paced({ name }: Cluster, waitMs: number): Refusal {
  const detail = `upstream '${name}' said that it takes no more for now`
  return { reason: 'rate_limited', detail, retryAfterMs: waitMs }
}

/** There is nobody to ask. */
export function noEndpoint(cluster: Cluster, refusal: PickRefusal, time: number): Refusal {
  const { name } = cluster
  if (refusal === 'no_healthy_endpoint' && cluster.isReady) {
    return { reason: refusal, detail: `no endpoint of upstream '${name}' is healthy by its checks and attempts` }
  }
  if (refusal === 'egress_denied') return { reason: refusal, ...(cluster.denied ?? { detail: '' }) }
  if (refusal !== 'circuit_open') return { reason: refusal, detail: cluster.discoveryFailure ?? '' }
  const isForced = [...cluster.endpoints].some(({ breaker }) => breaker?.isForced)
  const detail = isForced
    ? `a person holds the circuit of upstream '${name}' open, PUT /circuit of the admin port lets it go`
    : `every endpoint of upstream '${name}' fails`
  return { reason: refusal, detail, retryAfterMs: cluster.retryAfterMs(time) }
}

export function queueFull({ name, config }: Cluster): Refusal {
  const { maxConnections, maxPendingRequests } = config.limits
  const detail = `upstream '${name}' has ${maxConnections} connections in use and ${maxPendingRequests} requests waiting`
  return { reason: 'queue_full', detail, retryAfterMs: 1000 }
}

export function waitedTooLong({ name }: Cluster, ms: number): Refusal {
  const detail = `no connection to upstream '${name}' became free within ${ms} ms`
  return { reason: 'queue_full', detail, retryAfterMs: 1000 }
}

/** @param asked the endpoint that has the request; null: none has. @param earlier what the last attempt failed of, or nothing */
export function overDeadline(requestMs: number | null, asked: string | null, earlier: string): Refusal {
  const where = asked === null ? '' : ` from endpoint ${asked}`
  const last = earlier === '' ? '' : `, the last attempt failed: ${earlier}`
  return { reason: 'deadline', detail: `no answer${where} within ${requestMs} ms${last}` }
}

/** An attempt failed and is not followed by another one: the reason says why not, the detail what it failed of. */
export function notRetried(obstacle: 'body' | 'budget' | 'deadline', reason: Reason, detail: string): Refusal {
  const failure = `the attempt failed with ${reason}: ${detail}`
  if (obstacle === 'body') {
    return { reason: 'body_too_large_to_retry', detail: `the body is too large to be sent again; ${failure}` }
  }
  if (obstacle === 'budget') return { reason: 'budget_exhausted', detail: `the retry budget is used up; ${failure}` }
  return { reason: 'deadline', detail: `no time is left for another attempt; ${failure}` }
}
