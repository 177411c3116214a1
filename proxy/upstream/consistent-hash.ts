/** The endpoint of a hashed value: the same one as long as it is there, in every sidecar alike, unless it has too much to do. */
import type { Millis } from '../policy/policy.ts'
import type { Endpoint } from './endpoint.ts'

/** In place of a hash: the request has no value to hash. */
export const NO_HASH = -1

/** An endpoint may have this many times its share of what is under way, and this many attempts in any case. */
const LOAD_FACTOR = 1.25
const ALWAYS_ALLOWED = 10

/**
 * Rendezvous hashing: each endpoint draws a number from the value and its own address, and the one that does best by its weight
 * wins. So an endpoint that comes or goes moves no more than its own share, and there is no table to be kept. The one that comes
 * next takes what a loaded one must not (bounded load).
 * @param hash a number in [0, 1) that depends on the value alone
 */
export function hashedEndpoint(
  endpoints: readonly Endpoint[],
  hash: number,
  now: Millis,
  isCandidate: (endpoint: Endpoint) => boolean,
): Endpoint | null {
  const seed = (hash * 2 ** 32) >>> 0
  let active = 1
  let weights = 0
  for (const endpoint of endpoints) {
    if (!isCandidate(endpoint)) continue
    active += endpoint.active
    weights += endpoint.weightAt(now)
  }
  let best: Endpoint | null = null
  let bestScore = Number.NEGATIVE_INFINITY
  let isBestFree = false
  for (const endpoint of endpoints) {
    if (!isCandidate(endpoint)) continue
    const weight = endpoint.weightAt(now)
    const allowed = Math.max(ALWAYS_ALLOWED, Math.ceil((LOAD_FACTOR * active * weight) / weights))
    const isFree = endpoint.active < allowed
    if (isBestFree && !isFree) continue
    // -w / ln(u) is greatest with the probability of w among all weights (Schindelhauer and Schomaker).
    const score = -weight / Math.log((mix(seed, endpoint.hash) + 0.5) / 2 ** 32)
    if (score > bestScore || (isFree && !isBestFree)) {
      best = endpoint
      bestScore = score
      isBestFree = isFree
    }
  }
  return best
}

/** A number of 32 bits that depends on the text alone. */
export function hashText(text: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < text.length; i++) hash = Math.imul(hash ^ text.charCodeAt(i), 0x01000193)
  return finish(hash)
}

function mix(a: number, b: number): number {
  return finish(Math.imul(a, 0x9e3779b1) ^ b)
}

/** The last step of MurmurHash3: each bit of the input changes each of the output with a probability of a half. */
function finish(from: number): number {
  let hash = from
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return (hash ^ (hash >>> 16)) >>> 0
}
