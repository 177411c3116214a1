/** Serves the connections of a PostgreSQL listener: each gets a connection to a server of its own, which the proxy logs in at. */

import type { Reason } from '../../../common/reasons.ts'
import type { ClientPassword } from '../../policy/credential.ts'
import { refreshClock } from '../../runtime/clock.ts'
import type { Accepted } from '../../runtime/listen.ts'
import { adopt, NO_HANDLER, type RawSocket } from '../../runtime/raw-socket.ts'
import { dial } from '../../upstream/connector.ts'
import type { Address } from '../../upstream/discovery/discovery.ts'
import type { Driver } from '../driver.ts'
import { sumOf } from '../ledger.ts'
import { TcpDriver, type TcpTotals } from '../tcp/driver.ts'
import type { Greeter } from '../tcp/session.ts'
import { Login } from './login.ts'
import { CANCEL_REQUEST, untyped } from './messages.ts'
import { Pooling, type PoolingOptions } from './pooling.ts'
import { QueryLog, type QueryRecord } from './query-log.ts'
import { errorResponse } from './respond.ts'
import type { PostgresSnapshot } from './snapshot.ts'
import { tlsOf } from './start-tls.ts'
import { databaseOf, parametersOf, Startup, type StartupOwner, startupFor, textOf } from './startup.ts'
import { Watch } from './watch.ts'

/** Of a connection that is open: where its server can be asked to cancel. */
interface Cancelable {
  readonly address: Address
  readonly snapshot: PostgresSnapshot
}

/**
 * Whether another server, or the same one in a moment, may take a connection that none takes now: the upstream is made for a
 * failover, or a server says that it begins or ends.
 */
function isPatient({ cluster }: PostgresSnapshot, reason: Reason): boolean {
  if (reason === 'no_healthy_endpoint') return true
  return (cluster.config.role ?? 'Any') !== 'Any' && PASSING.includes(reason)
}

/** Reasons of a server that is down, which a failover ends. */
const PASSING: readonly Reason[] = ['connect_refused', 'connect_timeout', 'upstream_reset', 'circuit_open']

export interface PostgresDriverOptions extends PoolingOptions {
  /** Told of each statement that the query log wants, when it has ended. */
  readonly onQuery?: (record: QueryRecord) => void
}

export class PostgresDriver implements Driver, StartupOwner {
  readonly tcp: TcpDriver
  #snapshot: PostgresSnapshot
  readonly #fronts = new Set<Startup>()
  readonly #cancelable = new Map<string, Cancelable>()
  #isDraining = false
  readonly #onQuery: (record: QueryRecord) => void
  readonly #random: () => number
  /** Connections that share those to the server. */
  readonly pooled: Pooling

  constructor(options: PostgresDriverOptions) {
    this.#snapshot = options.snapshot
    this.#onQuery = options.onQuery ?? (() => {})
    this.#random = options.random ?? Math.random
    this.tcp = new TcpDriver(options)
    this.pooled = new Pooling(options)
  }

  /** Of both kinds of connections. */
  get totals(): TcpTotals {
    const { tcp, pooled } = this
    return { ...tcp.totals, ...sumOf(tcp.totals, pooled.totals) }
  }

  /** Connections from now on are served by this one. */
  update(snapshot: PostgresSnapshot): void {
    this.#snapshot = snapshot
    this.tcp.update(snapshot)
    this.pooled.update(snapshot)
  }

  serve(socket: Accepted): void {
    refreshClock()
    this.#fronts.add(new Startup(this, (handler) => adopt(socket, handler)))
  }

  get open(): number {
    return this.#fronts.size + this.tcp.open + this.pooled.open
  }

  get busy(): number {
    return this.tcp.busy + this.pooled.busy
  }

  async drain(): Promise<void> {
    this.#isDraining = true
    for (const front of this.#fronts) front.client.destroy()
    await Promise.all([this.tcp.drain(), this.pooled.drain()])
  }

  destroy(): void {
    for (const front of this.#fronts) front.client.destroy()
    this.tcp.destroy()
    this.pooled.destroy()
  }

  get clientPassword(): ClientPassword | null {
    return this.#snapshot.login.login?.client ?? null
  }

  onRefused(front: Startup, response: Buffer): void {
    this.#refuse(front, response)
  }

  onGone(front: Startup): void {
    this.#fronts.delete(front)
  }

  onGarbage(front: Startup, detail: string): void {
    this.#refuse(front, errorResponse('bad_request', detail))
  }

  onStartup(front: Startup, packet: Buffer, rest: Buffer): void {
    const parameters = parametersOf(packet)
    if (parameters === null) {
      this.onGarbage(front, 'the startup packet is malformed')
      return
    }
    const snapshot = this.#snapshot
    const credential = snapshot.login.login
    if (credential === null || this.#isDraining) {
      const failure = snapshot.login.failure ?? 'the sidecar is shutting down'
      this.#refuse(front, errorResponse(credential === null ? 'auth_unavailable' : 'draining', failure))
      return
    }
    this.#fronts.delete(front)
    const database = databaseOf(parameters, credential.username)
    const log = snapshot.queryLog === null ? null : this.#queryLog(database)
    if (snapshot.pooling !== null) {
      front.client.tap = log
      if (rest.length > 0) log?.onRead(rest, rest.length)
      this.pooled.serve(front.client, packet, parameters, rest)
      return
    }
    const watch = new Watch(log)
    front.client.tap = watch
    if (rest.length > 0) watch.onRead(rest, rest.length)
    const startup = startupFor(packet, parameters, credential.username)
    const greeter: Greeter = {
      ...tlsOf(snapshot.cluster.config),
      refusal: errorResponse,
      isPatient: (reason) => isPatient(snapshot, reason),
      farewell: () => watch.farewell(),
      greet: (upstream, address, timeoutMs, greeted) => {
        return new Login({
          upstream,
          address,
          startup,
          credential,
          timeoutMs,
          role: snapshot.cluster.config.role ?? 'Any',
          onWelcome: (welcome, key) => {
            if (key !== null) this.#remember(key, upstream, address, snapshot)
            snapshot.login.database = database
            greeted.onGreeted(welcome)
          },
          onFailure: (failure, response, isFinal) => greeted.onGreetingFailed(failure, response, isFinal),
        })
      },
    }
    this.tcp.serveGreeted(front.client, rest, greeter)
  }

  #queryLog(database: string): QueryLog {
    const config = () => this.#snapshot.queryLog
    return new QueryLog({ database: textOf(database), config, onQuery: this.#onQuery, random: this.#random })
  }

  /** The keys are those of the server, so a cancel request finds its way to the one connection that it is for. */
  onCancel(front: Startup, key: Buffer): void {
    if (this.pooled.cancel(key, () => front.client.destroy())) return
    const found = this.#cancelable.get(key.toString('hex'))
    if (found === undefined) {
      front.client.destroy()
      return
    }
    const { address, snapshot } = found
    const { cluster, timeouts } = snapshot
    const { guard, tls } = cluster
    const proxyProtocol = cluster.config.proxyProtocol ?? null
    const target = {
      address,
      guard,
      tls,
      proxyProtocol,
      timeoutMs: timeouts.connectMs,
      ...tlsOf(snapshot.cluster.config),
    }
    dial(target, {
      onDialFailed: () => front.client.destroy(),
      onDialled: (upstream) => {
        // The application waits for the end of its connection, and the server ends this one when the signal is sent.
        upstream.handler = { ...NO_HANDLER, onEnd: () => upstream.destroy(), onClose: () => front.client.destroy() }
        upstream.write(untyped(CANCEL_REQUEST, key))
      },
    })
  }

  #remember(key: Buffer, upstream: RawSocket, dialled: Address, snapshot: PostgresSnapshot): void {
    // A Unix socket has no address, and no other address of its host.
    const { address: ip, port } = upstream.remote ?? { address: dialled.ip, port: dialled.port }
    const host = [...snapshot.cluster.endpoints].find((each) => each.ip === ip && each.port === port)?.host ?? ip
    const name = key.toString('hex')
    const entry = { address: { host, ip, port, weight: 1, priority: 0 }, snapshot }
    this.#cancelable.set(name, entry)
    upstream.afterClose = () => {
      if (this.#cancelable.get(name) === entry) this.#cancelable.delete(name)
    }
  }

  #refuse(front: Startup, response: Buffer): void {
    const { client } = front
    client.handler = { ...NO_HANDLER, onEnd: () => client.destroy(), onClose: () => this.#fronts.delete(front) }
    client.write(response)
    client.end()
  }
}
