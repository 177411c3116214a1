/** Makes a connection to a server and logs in: another endpoint is tried when one fails, within the connect time-out. */
import type { Reason } from '../../../common/reasons.ts'
import { now, refreshClock } from '../../runtime/clock.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import { type Dial, type DialFailure, type Dialler, type DialTimes, dial } from '../../upstream/connector.ts'
import { DialAttempts, whyUnready } from '../../upstream/dial-attempts.ts'
import type { Address } from '../../upstream/discovery/discovery.ts'
import { Endpoint } from '../../upstream/endpoint.ts'
import { Login } from './login.ts'
import { errorResponse } from './respond.ts'
import type { PostgresSnapshot } from './snapshot.ts'
import { tlsOf } from './start-tls.ts'
import { bytesOf, startupPacket } from './startup.ts'

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

/** Exactly one method of the connector is called, later than start(), and none after cancel(). */
export class Connecting implements Dialler {
  readonly #snapshot: PostgresSnapshot
  readonly #database: string
  readonly #fixed: ReadonlyMap<string, string>
  readonly #connector: Connector
  readonly #attempts: DialAttempts
  #dial: Dial | null = null
  #cancelHold = () => {}
  #isOver = false
  #failed: ConnectFailure | null = null

  /** @param fixed startup parameters beside user and database */
  constructor(snapshot: PostgresSnapshot, database: string, fixed: ReadonlyMap<string, string>, connector: Connector) {
    this.#snapshot = snapshot
    this.#database = database
    this.#fixed = fixed
    this.#connector = connector
    this.#attempts = new DialAttempts(snapshot.cluster)
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
      else this.#fail(cluster.whyUnready, whyUnready(cluster))
    })
  }

  cancel(): void {
    if (this.#isOver) return
    this.#isOver = true
    this.#cancelHold()
    if (this.#dial === null) return
    this.#dial.cancel()
    this.#attempts.end('abandoned')
  }

  #next(): void {
    if (this.#isOver) return
    const { cluster, timeouts } = this.#snapshot
    refreshClock()
    const picked = this.#attempts.next(this.#failed)
    if (!(picked instanceof Endpoint)) {
      if (picked === this.#failed) this.#over(this.#failed)
      else this.#fail(picked.reason, picked.detail, FINAL.has(picked.reason))
      return
    }
    this.#attempts.begin(picked)
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

  onDialFailed({ reason, detail, isSilent = false }: DialFailure): void {
    // For want of something on this side: the endpoint was not asked.
    const outcome = reason === 'overloaded' ? 'abandoned' : 'failure'
    this.#failedAt(outcome, { reason, detail, response: errorResponse(reason, detail), isFinal: false }, isSilent)
  }

  onDialled(raw: RawSocket, _times: DialTimes, address: Address): void {
    const endpoint = this.#attempts.moveTo(address)
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
        user: bytesOf(credential.username),
        database: this.#database,
      }),
      credential,
      timeoutMs: timeouts.connectMs,
      role: cluster.config.role ?? 'Any',
      onWelcome: (welcome, key) => {
        if (this.#isOver) return
        this.#isOver = true
        this.#attempts.succeed()
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
    this.#dial = null
    // One that is alive and not the one that is wanted has not failed: its breaker must not keep it out when it is.
    this.#attempts.end(failure.reason === 'no_healthy_endpoint' ? 'abandoned' : outcome)
    if (outcome === 'failure') this.#attempts.blame({ ...failure, isSilent })
    this.#failed = failure
    if (outcome === 'failure' && this.#attempts.isLeft) this.#next()
    else this.#over(failure)
  }

  #fail(reason: Reason, detail: string, isFinal = false): void {
    this.#over({ reason, detail, response: errorResponse(reason, detail), isFinal })
  }

  #over(failure: ConnectFailure): void {
    this.#isOver = true
    this.#connector.onConnectFailed({
      ...failure,
      endpoint: this.#attempts.last?.name ?? null,
      attempts: this.#attempts.count,
    })
  }
}

/** Another attempt in a moment would end in the same way. */
const FINAL: ReadonlySet<Reason> = new Set(['egress_denied', 'circuit_open', 'tls_verify_failed'])

/** What a server says while it starts, stops or is full: it may be different in a moment. */
const PASSING: ReadonlySet<string> = new Set(['57P01', '57P02', '57P03', '53300'])
