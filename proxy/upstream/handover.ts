/** Who of those who wait gets a connection that became idle. */
import type { Bulkhead, Waiter } from '../policy/bulkhead.ts'
import type { Cluster } from './cluster.ts'
import { NO_HASH } from './consistent-hash.ts'
import type { Endpoint } from './endpoint.ts'
import type { UpstreamConnection } from './http-pool.ts'

/** How many of those who wait are asked whether they want a connection that became idle: with one of three endpoints all but never none does. */
const MOST_ASKED = 16
/** How often the next one may see others go first, before a connection that it has no use for is closed for its sake. */
const MOST_PASSED_OVER = 8
/** What waits for a connection. Its `onSlot` means that it may dial. */
export interface ConnectionWaiter extends Waiter {
  /** How often a connection that became idle was given to one behind it, since it waits. */
  passedOver: number
  /** Whether it goes on at the endpoint of this connection, which became idle while it waited. */
  takes(connection: UpstreamConnection): boolean
  /** It waits no longer: this connection is its own. */
  onIdleConnection(connection: UpstreamConnection): void
}

/**
 * The first of those who wait that goes on at the endpoint of this connection. Null when the first few of them go elsewhere, or the
 * very next one has seen enough of those behind it go first: it gets the slot.
 * @param slots at which all who wait are ConnectionWaiters
 */
export function takerOf(connection: UpstreamConnection, slots: Bulkhead): ConnectionWaiter | null {
  let waiter = slots.next as ConnectionWaiter | null
  for (let asked = 0; waiter !== null && asked < MOST_ASKED; asked++) {
    if (waiter.takes(connection)) return waiter
    if (asked === 0 && ++waiter.passedOver > MOST_PASSED_OVER) return null
    waiter = slots.after(waiter) as ConnectionWaiter | null
  }
  return null
}

/**
 * Whether an attempt that waited goes on at an endpoint because a connection to it became free. Under load that never ends every
 * attempt waits: without this, connections once made would decide for ever who is asked, whatever priority, hash and health say.
 * @param tried endpoints of earlier attempts of the same request
 * @param hash of what ConsistentHash looks at
 */
export function suits(
  cluster: Cluster,
  endpoint: Endpoint,
  time: number,
  tried: readonly Endpoint[],
  hash: number,
): boolean {
  if (!endpoint.isAvailable(time)) return false
  const picked = cluster.pick(time, tried, hash)
  if (picked === endpoint) return true
  if (typeof picked === 'string') return false
  // A hash has one answer.
  if (hash !== NO_HASH && cluster.config.loadBalancing?.policy === 'ConsistentHash') return false
  if (endpoint.priority !== picked.priority || endpoint.isNear !== picked.isNear) return false
  if (tried.includes(endpoint) && !tried.includes(picked)) return false
  if (picked.isWell(time) && !endpoint.isWell(time)) return false
  // Any of its equals will do, but for one that has hardly a connection yet.
  const share = connectionsOf(endpoint) / endpoint.weightAt(time)
  return (connectionsOf(picked) + 1) / picked.weightAt(time) >= share
}

function connectionsOf({ pool }: Endpoint): number {
  return pool?.connections ?? 0
}
