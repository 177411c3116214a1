/** Chooses the endpoint of an attempt: of the lowest priority that has one available, by load, in turn or by chance, each by weight. */
import type { BalancingPolicy } from '../../common/proxy-config.ts'
import type { Millis, Random } from '../policy/policy.ts'
import type { Endpoint } from './endpoint.ts'

/** Endpoints of one priority. */
export interface PriorityGroup {
  readonly priority: number
  readonly endpoints: readonly Endpoint[]
}

/** Sorts endpoints into groups, the group that is used first at the front. */
export function groupByPriority(endpoints: Iterable<Endpoint>): readonly PriorityGroup[] {
  const groups = new Map<number, Endpoint[]>()
  for (const endpoint of endpoints) {
    const group = groups.get(endpoint.priority)
    if (group === undefined) groups.set(endpoint.priority, [endpoint])
    else group.push(endpoint)
  }
  return [...groups].sort(([a], [b]) => a - b).map(([priority, members]) => ({ priority, endpoints: members }))
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
 * is well by its checks, all of them are tried all the same.
 */
export function pickEndpoint(
  groups: readonly PriorityGroup[],
  now: Millis,
  tried: readonly Endpoint[],
  random: Random,
  policy: BalancingPolicy = 'LeastRequest',
): Endpoint | null {
  return (
    pickFrom(groups, now, tried, DIALLED, random, policy) ??
    pickFrom(groups, now, tried, WELL, random, policy) ??
    (tried.length === 0 ? null : pickFrom(groups, now, NONE, WELL, random, policy)) ??
    pickFrom(groups, now, tried, ANY, random, policy) ??
    (tried.length === 0 ? null : pickFrom(groups, now, NONE, ANY, random, policy))
  )
}

function pickFrom(
  groups: readonly PriorityGroup[],
  now: Millis,
  tried: readonly Endpoint[],
  demand: Demand,
  random: Random,
  policy: BalancingPolicy,
): Endpoint | null {
  for (const { endpoints } of groups) {
    const first =
      policy === 'RoundRobin'
        ? nextInTurn(endpoints, now, tried, demand)
        : draw(endpoints, now, tried, demand, null, random)
    if (first === null) continue
    if (endpoints.length === 1 || policy !== 'LeastRequest') return first
    const second = draw(endpoints, now, tried, demand, first, random)
    return second !== null && isLessLoaded(second, first) ? second : first
  }
  return null
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
    weights += endpoint.weight
    if (chosen === null || random() * weights < endpoint.weight) chosen = endpoint
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
  if (tried.includes(endpoint) || !endpoint.isAvailable(now)) return false
  return demand === ANY || (endpoint.isWell(now) && (demand === WELL || !endpoint.isAvoided(now)))
}

/**
 * Compares load per weight. A lighter endpoint must be the less loaded one even with this attempt on it, otherwise a single
 * attempt in flight on the heavy one would send the next to the light one, whatever the weights say.
 */
function isLessLoaded(second: Endpoint, first: Endpoint): boolean {
  const handicap = Math.max(0, first.weight - second.weight)
  return first.active * second.weight > second.active * first.weight + handicap
}
