/** The attempts to get one connection to an upstream: which endpoint is next, and what each is told of how it went. */
import type { Outcome } from '../policy/policy.ts'
import { now } from '../runtime/clock.ts'
import { NONE } from './balancer.ts'
import type { Cluster, PickRefusal } from './cluster.ts'
import type { DialFailure } from './connector.ts'
import type { Address } from './discovery/discovery.ts'
import type { Endpoint } from './endpoint.ts'

/** Attempts in a round. Nothing of the application's was sent before one succeeds, so another endpoint is always safe to try. */
const MAX_ATTEMPTS = 3

/** next(), then begin() with what it found, then end(); one attempt at a time. */
export class DialAttempts {
  readonly #cluster: Cluster
  /** In this round. A new list for each: one that grows has room for many more, and most connections try one. */
  #tried = NONE
  #last: Endpoint | null = null
  #count = 0
  #token = -1
  #isRetrying = false

  constructor(cluster: Cluster) {
    this.#cluster = cluster
  }

  /** The endpoint that was tried last; null: none was. */
  get last(): Endpoint | null {
    return this.#last
  }

  /** Of all rounds. */
  get count(): number {
    return this.#count
  }

  /** None was tried in this round. */
  get isFirst(): boolean {
    return this.#tried.length === 0
  }

  /** Another one may follow in this round. */
  get isLeft(): boolean {
    return this.#tried.length < MAX_ATTEMPTS
  }

  /**
   * The endpoint of the next attempt, or why there is none.
   * @param failed how the last attempt failed: said again when no other endpoint or no retry is left; null: it is the first one
   * @param isRetry it is paid for by the retry budget. Default: unless it is the first one
   */
  next<F extends DialFailure>(failed: F | null, isRetry = failed !== null): Endpoint | F | DialFailure {
    const cluster = this.#cluster
    const time = now()
    const picked = cluster.pick(time, this.#tried)
    if (typeof picked === 'string') return failed ?? { reason: picked, detail: whyNoEndpoint(cluster, picked, time) }
    if (cluster.tls !== null && cluster.tls.context === null) {
      // Not the fault of the endpoint: its breaker must not hear of it.
      return { reason: 'tls_verify_failed', detail: `TLS cannot be set up: ${cluster.tls.failure}` }
    }
    if (failed !== null && isRetry) {
      if (this.#tried.includes(picked) || !cluster.budget.tryRetry(time)) return failed
      this.#isRetrying = true
    }
    return picked
  }

  begin(endpoint: Endpoint): void {
    this.#token = endpoint.begin(now())
    this.#add(endpoint)
  }

  #add(endpoint: Endpoint): void {
    this.#tried = this.#tried.length === 0 ? [endpoint] : [...this.#tried, endpoint]
    this.#last = endpoint
    this.#count++
  }

  /** Another address of the host accepted first; the one that was chosen is avoided for a while. */
  moveTo(address: Address): Endpoint {
    const endpoint = address as Endpoint
    const chosen = this.#last
    if (chosen === endpoint) return endpoint
    const time = now()
    chosen?.settle(this.#token, 'abandoned', time)
    chosen?.leave()
    chosen?.dialFailed(time)
    this.#token = endpoint.beginConnected(time)
    this.#add(endpoint)
    return endpoint
  }

  /** There is a connection: whoever has it calls leave() of the endpoint when it is closed. */
  succeed(): void {
    this.#last?.settle(this.#token, 'success', now())
    this.#endRetry(true)
  }

  /** There is none. @param outcome `success`: the endpoint itself said no, and a good one would too */
  end(outcome: Outcome): void {
    this.#last?.settle(this.#token, outcome, now())
    this.#last?.leave()
    this.#endRetry(outcome === 'success')
  }

  /** What went wrong is the fault of the endpoint: others are preferred for a while, and discovery looks again. */
  blame(failure: DialFailure): void {
    if (this.#last === null) return
    this.#last.failed(failure.reason, failure.detail)
    this.#cluster.dialFailed(this.#last, now(), failure.isSilent)
  }

  /** A new round begins, in which every endpoint may be tried again. */
  forget(): void {
    this.#tried = NONE
  }

  #endRetry(succeeded: boolean): void {
    if (this.#isRetrying) this.#cluster.budget.endRetry(succeeded)
    this.#isRetrying = false
  }
}

/** Why no endpoint can be picked, for a person. */
function whyNoEndpoint(cluster: Cluster, reason: PickRefusal, time: number): string {
  if (reason === 'egress_denied') return cluster.denied?.detail ?? ''
  if (reason === 'circuit_open') {
    const ms = Math.ceil(cluster.retryAfterMs(time))
    return `the circuit breakers of upstream '${cluster.name}' are open, the next attempt may come in ${ms} ms`
  }
  if (cluster.isReady) return `no endpoint of upstream '${cluster.name}' is healthy by its checks`
  return whyUnready(cluster)
}

/** Why its endpoints are not known yet, for a person. */
export function whyUnready({ name, discoveryFailure }: Cluster): string {
  return discoveryFailure ?? `upstream '${name}' has no endpoint yet`
}

/** Nobody else may wait for a connection, for a person. */
export function whyQueueFull({ name, connections: { max, pending } }: Cluster): string {
  return `upstream '${name}' has ${max} connections and ${pending} wait`
}

/** A wait for a connection was in vain, for a person. */
export function whyNoneFree({ name, connections: { max } }: Cluster, waitedMs: number): string {
  return `none of the ${max} connections of upstream '${name}' became free in ${waitedMs} ms`
}
