/** Makes a connection to a server and logs in: another endpoint is tried when one fails, within the connect time-out. */
import type { Reason } from '../../../common/reasons.ts'
import { now, refreshClock } from '../../runtime/clock.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import { type Dial, type DialFailure, type Dialler, type DialTimes, dial } from '../../upstream/connector.ts'
import type { Address } from '../../upstream/discovery/discovery.ts'
import type { Endpoint } from '../../upstream/endpoint.ts'
import { Login } from './login.ts'
import { errorResponse } from './respond.ts'
import type { PostgresSnapshot } from './snapshot.ts'
import { tlsOf } from './start-tls.ts'
import { startupPacket } from './startup.ts'

export interface ConnectFailure {
  readonly reason: Reason
  readonly detail: string
  /** For a client that is about to log in. */
  readonly response: Buffer
  /** Trying again would give the same: the server itself said no, or the configuration is at fault. */
  readonly isFinal: boolean
}

/** When the last one has failed too. */
export interface ConnectFailed extends ConnectFailure {
  /** `ip:port` that was tried last; null: none was dialled. */
  readonly endpoint: string | null
  /** Dials. */
  readonly attempts: number
}

export interface Connected {
  readonly raw: RawSocket
  readonly endpoint: Endpoint
  /** From AuthenticationOk to ReadyForQuery. */
  readonly welcome: Buffer
  /** Process and secret, for a cancel request. */
  readonly key: Buffer | null
}

export interface Connector {
  /** Set the handler of the socket at once, and call leave() of the endpoint when it is closed. */
  onConnected(connected: Connected): void
  onConnectFailed(failure: ConnectFailed): void
}

/** Different endpoints that are tried. Nothing of the application's was sent yet. */
const MAX_DIALS = 3

/** Exactly one method of the connector is called, later than start(), and none after cancel(). */
export class Connecting implements Dialler {
  readonly #snapshot: PostgresSnapshot
  readonly #database: string
  readonly #fixed: ReadonlyMap<string, string>
  readonly #connector: Connector
  readonly #tried: Endpoint[] = []
  #dial: Dial | null = null
  #cancelHold = () => {}
  #token = 0
  #isOver = false
  #isRetrying = false
  #failed: ConnectFailure | null = null

  /** @param fixed startup parameters beside user and database */
  constructor(snapshot: PostgresSnapshot, database: string, fixed: ReadonlyMap<string, string>, connector: Connector) {
    this.#snapshot = snapshot
    this.#database = database
    this.#fixed = fixed
    this.#connector = connector
  }

  start(): void {
    const { cluster, timeouts } = this.#snapshot
    cluster.budget.deposit(now())
    if (this.#snapshot.login.login === null) {
      const detail = this.#snapshot.login.failure ?? 'the credential is not available'
      setImmediate(() => {
        if (!this.#isOver) this.#fail('auth_unavailable', detail, true)
      })
      return
    }
    if (cluster.isReady) {
      // Whoever asks must hear of it after it has asked.
      setImmediate(() => this.#next())
      return
    }
    this.#cancelHold = cluster.whenReady(timeouts.connectMs, (ready) => {
      if (this.#isOver) return
      refreshClock()
      if (ready) this.#next()
      else this.#fail(cluster.whyUnready, cluster.discoveryFailure ?? `upstream '${cluster.name}' has no endpoint yet`)
    })
  }

  cancel(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#cancelHold()
    if (this.#dial === null) return
    this.#dial.cancel()
    const endpoint = this.#tried.at(-1)!
    endpoint.settle(this.#token, 'abandoned', now())
    endpoint.leave()
    this.#endRetry(false)
  }

  #next(): void {
    if (this.#isOver) return
    const { cluster, timeouts } = this.#snapshot
    const failed = this.#failed
    const picked = cluster.pick(refreshClock(), this.#tried)
    if (typeof picked === 'string') {
      if (failed !== null) this.#over(failed)
      else this.#fail(picked, this.#whyNone(picked), picked === 'egress_denied' || picked === 'circuit_open')
      return
    }
    if (failed !== null) {
      if (this.#tried.includes(picked) || !cluster.budget.tryRetry(now())) {
        this.#over(failed)
        return
      }
      this.#isRetrying = true
    }
    if (cluster.tls !== null && cluster.tls.context === null) {
      this.#fail('tls_verify_failed', `TLS cannot be set up: ${cluster.tls.failure}`, true)
      return
    }
    this.#token = picked.begin(now())
    this.#tried.push(picked)
    const target = {
      address: picked,
      guard: cluster.guard,
      rival: cluster.rivalOf(picked, now()),
      tls: cluster.tls,
      proxyProtocol: cluster.config.proxyProtocol ?? null,
      timeoutMs: timeouts.connectMs,
      ...tlsOf(cluster.config),
    }
    this.#dial = dial(target, this)
  }

  #whyNone(reason: Reason): string {
    const { cluster } = this.#snapshot
    if (reason === 'egress_denied') return cluster.denied?.detail ?? ''
    if (reason === 'circuit_open') {
      const ms = Math.ceil(cluster.retryAfterMs(now()))
      return `the circuit breakers of upstream '${cluster.name}' are open, the next attempt may come in ${ms} ms`
    }
    if (cluster.isReady) return `no endpoint of upstream '${cluster.name}' is healthy by its checks`
    return cluster.discoveryFailure ?? `upstream '${cluster.name}' has no endpoint yet`
  }

  onDialFailed({ reason, detail, isSilent = false }: DialFailure): void {
    // For want of something on this side: the endpoint was not asked.
    const outcome = reason === 'overloaded' ? 'abandoned' : 'failure'
    this.#failedAt(outcome, { reason, detail, response: errorResponse(reason, detail), isFinal: false }, isSilent)
  }

  onDialled(raw: RawSocket, _times: DialTimes, address: Address): void {
    let endpoint = this.#tried.at(-1)!
    if (address !== endpoint) {
      // Another address of the host accepted first; the one that was chosen is avoided for a while.
      endpoint.settle(this.#token, 'abandoned', now())
      endpoint.leave()
      endpoint.dialFailed(now())
      endpoint = address as Endpoint
      this.#token = endpoint.beginConnected(now())
      this.#tried.push(endpoint)
    }
    const { cluster, login, timeouts } = this.#snapshot
    const credential = login.login
    if (credential === null) {
      raw.destroy()
      const detail = login.failure ?? 'the credential is not available'
      const response = errorResponse('auth_unavailable', detail)
      this.#failedAt('abandoned', { reason: 'auth_unavailable', detail, response, isFinal: true })
      return
    }
    this.#dial = new Login({
      upstream: raw,
      address: endpoint,
      startup: startupPacket({
        ...Object.fromEntries(this.#fixed),
        user: credential.username,
        database: this.#database,
      }),
      credential,
      timeoutMs: timeouts.connectMs,
      role: cluster.config.role ?? 'Any',
      onWelcome: (welcome, key) => {
        if (this.#isOver) return
        this.#isOver = true
        endpoint.settle(this.#token, 'success', now())
        this.#endRetry(true)
        login.database = this.#database
        this.#connector.onConnected({ raw, endpoint, welcome, key })
      },
      onFailure: ({ reason, detail, sqlstate, isSilent = false }, response, isFinal) => {
        const isOver = isFinal && !PASSING.has(sqlstate ?? '')
        this.#failedAt(isFinal ? 'success' : 'failure', { reason, detail, response, isFinal: isOver }, isSilent)
      },
    })
  }

  #failedAt(outcome: 'success' | 'failure' | 'abandoned', failure: ConnectFailure, isSilent = false): void {
    if (this.#isOver) return
    const endpoint = this.#tried.at(-1)!
    this.#dial = null
    // One that is alive and not the one that is wanted has not failed: its breaker must not keep it out when it is.
    endpoint.settle(this.#token, failure.reason === 'no_healthy_endpoint' ? 'abandoned' : outcome, now())
    endpoint.leave()
    this.#endRetry(outcome === 'success')
    if (outcome === 'failure') {
      endpoint.failed(failure.reason, failure.detail)
      this.#snapshot.cluster.dialFailed(endpoint, now(), isSilent)
    }
    this.#failed = failure
    if (outcome === 'failure' && this.#tried.length < MAX_DIALS) this.#next()
    else this.#over(failure)
  }

  #fail(reason: Reason, detail: string, isFinal = false): void {
    this.#over({ reason, detail, response: errorResponse(reason, detail), isFinal })
  }

  #over(failure: ConnectFailure): void {
    this.#isOver = true
    this.#connector.onConnectFailed({
      ...failure,
      endpoint: this.#tried.at(-1)?.name ?? null,
      attempts: this.#tried.length,
    })
  }

  #endRetry(succeeded: boolean): void {
    if (this.#isRetrying) this.#snapshot.cluster.budget.endRetry(succeeded)
    this.#isRetrying = false
  }
}

/** What a server says while it starts, stops or is full: it may be different in a moment. */
const PASSING: ReadonlySet<string> = new Set(['57P01', '57P02', '57P03', '53300'])
