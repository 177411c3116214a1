/** Chooses the endpoint of an attempt: of the priority whose turn it is, by load, in turn, by chance or by a hash, each by weight. */
import type { BalancingPolicy } from '../../common/proxy-config.ts'
import type { Millis, Random } from '../policy/policy.ts'
import { hashedEndpoint, NO_HASH } from './consistent-hash.ts'
import type { Endpoint } from './endpoint.ts'

/** Endpoints of one priority, or those of the zone of this pod among them, or the others. */
export interface PriorityGroup {
  readonly endpoints: readonly Endpoint[]
  /** The same by host: one that has several addresses is up while one of them is. */
  readonly hosts: readonly (readonly Endpoint[])[]
}

/** How a cluster balances. */
export interface Balancing {
  readonly policy: BalancingPolicy
  /** See BalancingConfig; null: when none is well. */
  readonly panicThreshold: number | null
  /** A priority is used only while no endpoint of an earlier one is available, as RFC 2782 demands of SRV. */
  readonly isStrict: boolean
}

export const DEFAULT_BALANCING: Balancing = { policy: 'LeastRequest', panicThreshold: null, isStrict: false }

/**
 * A priority carries all of the traffic as long as this times its share of available hosts is at least 1: it is built with a reserve.
 * What is beyond goes to the next priority.
 */
const OVERPROVISION = 1.4

/**
 * Sorts endpoints into groups, the group that is used first at the front.
 * @param isEachHost they have one name and are not the same host all the same, as the pods of a Service and the records of `dns`
 */
export function groupByPriority(endpoints: Iterable<Endpoint>, isEachHost = false): readonly PriorityGroup[] {
  const groups = new Map<number, Endpoint[]>()
  for (const endpoint of endpoints) {
    const rank = 2 * endpoint.priority + (endpoint.isNear ? 0 : 1)
    const group = groups.get(rank)
    if (group === undefined) groups.set(rank, [endpoint])
    else group.push(endpoint)
  }
  return [...groups]
    .sort(([a], [b]) => a - b)
    .map(([, members]) => ({
      endpoints: members,
      hosts: isEachHost ? byAddress(members) : byHost(members),
    }))
}

function byHost(endpoints: readonly Endpoint[]): readonly (readonly Endpoint[])[] {
  const hosts = new Map<string, Endpoint[]>()
  for (const endpoint of endpoints) {
    const key = `${endpoint.host} ${endpoint.port}`
    const host = hosts.get(key)
    if (host === undefined) hosts.set(key, [endpoint])
    else host.push(endpoint)
  }
  return [...hosts.values()]
}

/**
 * One host for each address. Of a name with both families, one of each is a host: as many are up as have a way to them by either
 * family, and a machine without IPv6 sees no half of them down.
 */
function byAddress(endpoints: readonly Endpoint[]): readonly (readonly Endpoint[])[] {
  const isSix = ({ ip }: Endpoint) => ip.includes(':')
  const six = endpoints.filter(isSix)
  const four = endpoints.filter((each) => !isSix(each))
  return Array.from({ length: Math.max(six.length, four.length) }, (_, i) => [
    ...four.slice(i, i + 1),
    ...six.slice(i, i + 1),
  ])
}

/**
 * What is asked of an endpoint, besides that its breaker admits an attempt: that it is well and was not in vain dialled lately; that
 * it is well (its checks pass, and it is not ejected); nothing, when none is well: to try one is better than to fail for certain.
 */
const DIALLED = 0
const WELL = 1
const ANY = 2
type Demand = typeof DIALLED | typeof WELL | typeof ANY

/** The list of tried endpoints of a first attempt. */
export const NONE: readonly Endpoint[] = []

/**
 * The endpoint for the next attempt; null when none is available.
 * One that could not be dialled lately, and after that one that was tried already for the same request, is chosen only when no
 * other is left, also not in a later group: the failed dial or attempt is the best sign that the earlier group is down. When none
 * is well by its checks, all of them are tried all the same, unless the panic threshold says otherwise.
 * @param hash of what ConsistentHash looks at, see consistent-hash.ts
 */
export function pickEndpoint(
  groups: readonly PriorityGroup[],
  now: Millis,
  tried: readonly Endpoint[],
  random: Random,
  balancing: Balancing = DEFAULT_BALANCING,
  hash: number = NO_HASH,
): Endpoint | null {
  const { policy, panicThreshold, isStrict } = balancing
  const only = groups.length === 1 && groups[0]!.endpoints.length === 1 ? groups[0]!.endpoints[0]! : null
  // There is no choice: what was tried, dialled in vain or hashed makes no difference.
  if (only !== null) return only.isAvailable(now) && (panicThreshold !== 0 || only.isWell(now)) ? only : null
  if (tried.length === 0 && ((groups.length > 1 && !isStrict) || (panicThreshold !== null && panicThreshold > 0))) {
    const share = shareOut(groups, now, random, policy === 'ConsistentHash' ? hash : NO_HASH, panicThreshold ?? 0)
    const group = share === null ? undefined : groups[share.index]
    if (group !== undefined) {
      const picked = pickIn(group, now, NONE, share?.isPanic === true ? ANY : DIALLED, random, policy, hash)
      if (picked !== null) return picked
    }
  }
  return (
    pickFrom(groups, now, tried, DIALLED, random, policy, hash) ??
    pickFrom(groups, now, tried, WELL, random, policy, hash) ??
    (tried.length === 0 ? null : pickFrom(groups, now, NONE, WELL, random, policy, hash)) ??
    (panicThreshold === 0 ? null : pickFrom(groups, now, tried, ANY, random, policy, hash)) ??
    (panicThreshold === 0 || tried.length === 0 ? null : pickFrom(groups, now, NONE, ANY, random, policy, hash))
  )
}

/**
 * Which group an attempt goes to, by the shares of their hosts that are available; null when none has one, or the first has enough.
 * With a hash the same value goes to the same group. `isPanic`: all groups together have too few, and this one fewer than the threshold.
 */
function shareOut(
  groups: readonly PriorityGroup[],
  now: Millis,
  random: Random,
  hash: number,
  panicThreshold: number,
): { readonly index: number; readonly isPanic: boolean } | null {
  // As good as always: then nothing is made for a request.
  const [first] = groups
  if (first !== undefined && OVERPROVISION * availableShare(first, now) >= 1) return null
  const shares = groups.map((group) => availableShare(group, now))
  const total = shares.reduce((sum, share) => sum + Math.min(1, OVERPROVISION * share), 0)
  const isShort = total < 1
  if (total === 0) return null
  // What the groups cannot take together is shared out among them all the same.
  let left = (hash === NO_HASH ? random() : hash) * Math.min(1, total)
  for (let index = 0; index < groups.length; index++) {
    const share = shares[index] ?? 0
    left -= Math.min(1, OVERPROVISION * share)
    if (left < 0) return { index, isPanic: isShort && share < panicThreshold }
  }
  return null
}

function availableShare({ hosts }: PriorityGroup, now: Millis): number {
  let available = 0
  for (let i = 0; i < hosts.length; i++) if (isUp(hosts[i]!, now)) available++
  return available / hosts.length
}

function isUp(host: readonly Endpoint[], now: Millis): boolean {
  for (let i = 0; i < host.length; i++) if (isCandidate(host[i]!, now, NONE, DIALLED)) return true
  return false
}

function pickFrom(
  groups: readonly PriorityGroup[],
  now: Millis,
  tried: readonly Endpoint[],
  demand: Demand,
  random: Random,
  policy: BalancingPolicy,
  hash: number,
): Endpoint | null {
  for (const group of groups) {
    const picked = pickIn(group, now, tried, demand, random, policy, hash)
    if (picked !== null) return picked
  }
  return null
}

function pickIn(
  { endpoints }: PriorityGroup,
  now: Millis,
  tried: readonly Endpoint[],
  demand: Demand,
  random: Random,
  policy: BalancingPolicy,
  hash: number,
): Endpoint | null {
  if (policy === 'ConsistentHash' && hash !== NO_HASH) {
    return hashedEndpoint(endpoints, hash, now, (endpoint) => isCandidate(endpoint, now, tried, demand))
  }
  if (policy === 'RoundRobin') return nextInTurn(endpoints, now, tried, demand)
  const first = draw(endpoints, now, tried, demand, null, random)
  if (first === null || endpoints.length === 1 || policy === 'Random') return first
  const second = draw(endpoints, now, tried, demand, first, random)
  return second !== null && isLessLoaded(second, first, now) ? second : first
}

/** One pass: each candidate replaces the earlier choice with the probability of its weight among those seen so far. */
function draw(
  endpoints: readonly Endpoint[],
  now: Millis,
  tried: readonly Endpoint[],
  demand: Demand,
  except: Endpoint | null,
  random: Random,
): Endpoint | null {
  let chosen: Endpoint | null = null
  let weights = 0
  for (let i = 0; i < endpoints.length; i++) {
    const endpoint = endpoints[i]!
    if (endpoint === except || !isCandidate(endpoint, now, tried, demand)) continue
    const weight = endpoint.weightAt(now)
    weights += weight
    if (chosen === null || random() * weights < weight) chosen = endpoint
  }
  return chosen
}

/** The one whose turn it is: see Turns. An endpoint that comes back has waited longest, and gets no more than its next turn for it. */
function nextInTurn(
  endpoints: readonly Endpoint[],
  now: Millis,
  tried: readonly Endpoint[],
  demand: Demand,
): Endpoint | null {
  let chosen: Endpoint | null = null
  for (let i = 0; i < endpoints.length; i++) {
    const endpoint = endpoints[i]!
    if (!isCandidate(endpoint, now, tried, demand)) continue
    if (chosen === null || endpoint.turnAt < chosen.turnAt) chosen = endpoint
  }
  return chosen
}

function isCandidate(endpoint: Endpoint, now: Millis, tried: readonly Endpoint[], demand: Demand): boolean {
  if ((tried.length > 0 && tried.includes(endpoint)) || !endpoint.isAvailable(now)) return false
  return demand === ANY || (endpoint.isWell(now) && (demand === WELL || !endpoint.isAvoided(now)))
}

/**
 * Compares load per weight. A lighter endpoint must be the less loaded one even with this attempt on it, otherwise a single
 * attempt in flight on the heavy one would send the next to the light one, whatever the weights say.
 */
function isLessLoaded(second: Endpoint, first: Endpoint, now: Millis): boolean {
  const firstWeight = first.weightAt(now)
  const secondWeight = second.weightAt(now)
  const handicap = Math.max(0, firstWeight - secondWeight)
  return first.active * secondWeight > second.active * firstWeight + handicap
}
