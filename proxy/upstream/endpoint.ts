/** One address of a cluster: what is known of it and what happens on it now. It lives as long as discovery keeps naming it. */
import type { BreakerConfig } from '../../common/proxy-config.ts'
import { CircuitBreaker, type CircuitState } from '../policy/circuit-breaker.ts'
import { Outlier } from '../policy/outliers.ts'
import type { Millis, Outcome, Random } from '../policy/policy.ts'
import { hashText } from './consistent-hash.ts'
import type { Address } from './discovery/discovery.ts'

/** What a protocol keeps per endpoint (its idle connections). The cluster only ends it. */
export interface EndpointPool {
  /** The endpoint is no longer used: close what is idle now and what is busy at its next boundary. Idempotent. */
  retire(): void
  /** Close everything now. Idempotent. */
  destroy(): void
  /** Connections that are open or being made. Absent: nobody asks. */
  readonly connections?: number
  /** What is under way waits at its next boundary, until it may go on. Absent: it does not. */
  halt?(isHalted: boolean): void
  /** Close a connection that rests; false: none does. Absent: none ever does here. */
  evict?(): boolean
  /** Close every connection now; their users live on and hear why. Default: destroy(). */
  cut?(why: string): void
}

/** A connection of the application that is bound to one connection to the endpoint and cannot be moved. */
export interface Tenant {
  /** The endpoint has left: a peer that is gone must be noticed soon. */
  onEndpointLeft(): void
  /** Ends it now. @param why for a person */
  evict(why: string): void
}

export interface EndpointBreakerOptions {
  /** Null: the endpoint has no breaker. */
  readonly config: BreakerConfig | null
  readonly probeTimeoutMs: Millis
  readonly onCircuit?: (endpoint: Endpoint, state: CircuitState) => void
  readonly random?: Random
}

/** An IP address and port as people write them, or the path of a Unix socket. */
export function addressName(ip: string, port: number): string {
  if (ip.startsWith('/')) return ip
  return ip.includes(':') ? `[${ip}]:${port}` : `${ip}:${port}`
}

/** What went wrong on an endpoint. */
export interface EndpointError {
  /** A reason code, `answer` for a status of 500 and above, or `health_check`. */
  readonly reason: string
  readonly detail: string
  /** Time of day in milliseconds since 1970. */
  readonly at: number
}

/** What makes two addresses the same endpoint. */
export function addressKey(address: Address): string {
  return `${address.host} ${addressName(address.ip, address.port)}`
}

/**
 * The common clock of the endpoints of a cluster for taking turns: each attempt on an endpoint puts its next turn off by one
 * divided by its weight, so that turns are spread evenly, whatever the weights are. The clock stands at the newest turn taken.
 */
export interface Turns {
  at: number
}

/** Bounds of the time for which an endpoint is avoided after a failed dial; it doubles with each further one. */
const AVOID_MS = 500
const MAX_AVOID_MS = 30_000

/** Of a breaker that only a person opens. */
const NOTHING_COUNTED: BreakerConfig = {
  consecutiveFailures: null,
  failureRate: null,
  openMs: 1,
  maxOpenMs: 1,
  halfOpenRequests: 1,
}

/** How long the others wait for the verdict of the one attempt that tries an avoided endpoint again. */
const TRIAL_MS = 5_000

/** So many dials and checks in a row without any answer mean that nobody is there; one may be lost on its way. */
const SILENCES = 2

/** The share of its weight with which a slow start begins. */
const COLD_SHARE = 0.1

export class Endpoint {
  readonly host: string
  readonly ip: string
  readonly port: number
  /** `ip:port` or the path of a socket, for log lines, metrics and /upstreams. */
  readonly name: string
  /** Of its address, the same in every process. */
  readonly hash: number
  weight: number
  priority: number
  /** Where it is; undefined: not known. */
  zone: string | undefined = undefined
  /** It goes before the others of its priority, because it is in the zone of this pod. */
  isNear = false
  breaker: CircuitBreaker | null = null
  /** Belongs to the protocol that uses the endpoint; null until it puts something there. */
  pool: EndpointPool | null = null
  /** What cannot be moved to another endpoint. */
  tenants = new Set<Tenant>()
  /** The same address before it left discovery and came back, as long as something that began there goes on; null: nothing does. */
  former: Endpoint | null = null
  /** True from the moment that discovery does not name it any more; nothing new begins on it. */
  retired = false
  /** Attempts that began and have not left: the load that the balancer compares. */
  active = 0
  /** Attempts that began, and how many of them failed. */
  attempts = 0
  failures = 0
  /** What went wrong on it last; null: nothing has. */
  lastError: EndpointError | null = null
  /** What its active checks say; true while there are none. */
  isHealthy = true
  /** What its attempts say. */
  readonly outlier = new Outlier()
  /** Told how each attempt ended that says something of the endpoint; null while nobody wants to know. */
  onOutcome: ((endpoint: Endpoint, isFailure: boolean, now: Millis) => void) | null = null
  /** When it is its turn; the earliest is next. See Turns. */
  turnAt = 0
  readonly #turns: Turns
  /** False: it has a breaker only while a person decides on it. */
  #hasOwnBreaker = false
  /** Its slow start: when it ends, and how long it takes. 0: it has its whole weight. */
  #warmAt: Millis = 0
  #warmUpMs: Millis = 0
  #dialFailures = 0
  /** Dials and checks in a row that nobody answered, not even with a refusal. */
  #silences = 0
  /** 0: not avoided. */
  #avoidUntil: Millis = 0
  /** An attempt has begun since it is avoided. */
  #isTried = false

  constructor(address: Address, breaker: EndpointBreakerOptions, turns: Turns = { at: 0 }) {
    this.host = address.host
    this.ip = address.ip
    this.port = address.port
    this.name = addressName(address.ip, address.port)
    this.hash = hashText(addressKey(address))
    this.weight = address.weight
    this.priority = address.priority
    this.#turns = turns
    // Anywhere in its first round: else every sidecar of a fleet would begin with the same endpoint.
    this.turnAt = turns.at + (breaker.random ?? Math.random)() / this.weight
    this.configureBreaker(breaker)
  }

  /** Its weight, or a part of it while it starts slowly. */
  weightAt(now: Millis): number {
    if (this.#warmAt === 0) return this.weight
    if (now >= this.#warmAt) {
      this.#warmAt = 0
      return this.weight
    }
    return this.weight * Math.max(COLD_SHARE, 1 - (this.#warmAt - now) / this.#warmUpMs)
  }

  /** From `at` on it starts slowly: it has its whole weight `ms` later. */
  startSlowly(at: Millis, ms: Millis): void {
    this.#warmAt = at + ms
    this.#warmUpMs = ms
  }

  /** True when `begin` would admit an attempt now. */
  isAvailable(now: Millis): boolean {
    return this.breaker === null || this.breaker.wouldAdmit(now)
  }

  /** False while its checks or its attempts speak against it: chosen only when no endpoint is well. Never a reason to refuse. */
  isWell(now: Millis): boolean {
    return this.isHealthy && !this.outlier.isEjected(now)
  }

  /** True while a failed dial speaks against it: chosen only when no other endpoint is left. Never a reason to refuse. */
  isAvoided(now: Millis): boolean {
    return now < this.#avoidUntil
  }

  /**
   * Begins an attempt: a token (0 or more) for `settle`; -1 when the breaker refuses, which it does not right after the
   * cluster picked this endpoint. An attempt is ended by `settle` and `leave`, each exactly once, in either order.
   */
  begin(now: Millis): number {
    const token = this.breaker === null ? 0 : this.breaker.tryAcquire(now)
    if (token >= 0) {
      this.active++
      this.attempts++
      const turns = this.#turns
      if (this.turnAt > turns.at) turns.at = this.turnAt
      this.turnAt = turns.at + 1 / this.weightAt(now)
      if (this.#avoidUntil !== 0) {
        this.#avoidUntil = now + TRIAL_MS
        this.#isTried = true
      }
    }
    return token
  }

  /** As begin(), with a connection that is there already: a breaker that has opened meanwhile (-1) does not hear of it. */
  beginConnected(now: Millis): number {
    const token = this.begin(now)
    if (token < 0) {
      this.active++
      this.attempts++
    }
    return token
  }

  /**
   * Says how the attempt went, as soon as it is known (HTTP: the head of the answer, or its end; TCP: connected or not).
   * @param tookMs from the end of the request to the head of the answer; 0 when nobody knows
   */
  settle(token: number, outcome: Outcome, now: Millis, tookMs: Millis = 0): void {
    if (outcome === 'failure') this.failures++
    else if (outcome === 'success') this.answered()
    this.breaker?.settle(token, outcome, now, tookMs)
    if (this.onOutcome !== null && outcome !== 'abandoned') this.onOutcome(this, outcome === 'failure', now)
  }

  /**
   * Whether an answer is to be settled at its end: one that is cut short is a failure. A probe of the breaker is settled by its head,
   * for others wait for that, and an answer may have no end.
   */
  get judgesWholeAnswers(): boolean {
    return this.breaker === null ? this.onOutcome !== null : this.breaker.state === 'closed'
  }

  /** It is there and answers, whatever becomes of the rest of the answer. */
  answered(): void {
    this.#avoidUntil = 0
    this.#dialFailures = 0
    this.#silences = 0
  }

  /** Remembers what went wrong, for whoever looks at /upstreams. */
  failed(reason: string, detail: string): void {
    this.lastError = { reason, detail, at: Date.now() }
  }

  /** The attempt puts no load on the endpoint any more (HTTP: the body is over; TCP: the connection is). */
  leave(): void {
    this.active--
  }

  /** Its checks found it well again, so it can be connected to. */
  wellAgain(): void {
    this.#avoidUntil = 0
    this.#dialFailures = 0
  }

  /** Its machine is gone or cut off, as far as anybody can tell. */
  get isSilent(): boolean {
    return this.#silences >= SILENCES
  }

  /** A dial or check ended. @param isSilent nobody answered it in any way */
  heard(isSilent: boolean): void {
    this.#silences = isSilent ? this.#silences + 1 : 0
  }

  /** It could not be connected to; see Cluster.dialFailed. */
  dialFailed(now: Millis): void {
    // Dials that were under way together are one failure, however many they were.
    if (now < this.#avoidUntil && !this.#isTried) return
    this.#isTried = false
    this.#avoidUntil = now + Math.min(MAX_AVOID_MS, AVOID_MS * 2 ** this.#dialFailures)
    this.#dialFailures++
  }

  /** Takes over a changed breaker configuration; a breaker that stays keeps its state. */
  configureBreaker(options: EndpointBreakerOptions): void {
    const { config, probeTimeoutMs, onCircuit, random } = options
    this.#hasOwnBreaker = config !== null
    if (config === null) {
      if (this.breaker?.isForced !== true) this.breaker = null
    } else if (this.breaker !== null) this.breaker.reconfigure(config, probeTimeoutMs)
    else
      this.breaker = new CircuitBreaker({
        config,
        probeTimeoutMs,
        onChange: onCircuit === undefined ? undefined : (state) => onCircuit(this, state),
        random,
      })
  }

  /** Holds the circuit open or closed, whether a breaker is configured or not, until `auto`. */
  forceCircuit(to: 'open' | 'closed' | 'auto', options: EndpointBreakerOptions): void {
    if (to === 'auto') {
      this.breaker?.force(to)
      if (!this.#hasOwnBreaker) this.breaker = null
      return
    }
    if (this.breaker === null) {
      this.configureBreaker({ ...options, config: NOTHING_COUNTED })
      this.#hasOwnBreaker = false
    }
    this.breaker?.force(to)
  }

  /** Discovery does not name it any more. */
  retire(): void {
    this.retired = true
    this.pool?.retire()
    for (const tenant of this.tenants) tenant.onEndpointLeft()
  }

  /** Ends everything that still goes on there. @param why for a person */
  cut(why: string): void {
    for (let each: Endpoint | null = this; each !== null; each = each.former) {
      const { pool } = each
      if (pool?.cut !== undefined) pool.cut(why)
      else pool?.destroy()
    }
    for (const tenant of [...this.tenants]) tenant.evict(why)
  }
}
