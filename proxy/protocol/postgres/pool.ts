/** Connections to the server of one database that clients share: those that are free, and how one is had. */
import type { Bulkhead, Waiter } from '../../policy/bulkhead.ts'
import { now } from '../../runtime/clock.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import type { Endpoint, EndpointPool } from '../../upstream/endpoint.ts'
import { catalogueSql, FINGERPRINT, MAX_CATALOGUE_BYTES, readCatalogue } from './catalogue.ts'
import { type ConnectFailed, Connecting } from './connecting.ts'
import { Lexicon } from './lexicon.ts'
import { Transaction } from './messages.ts'
import { askSql, Parameters } from './parameters.ts'
import { Profiles } from './profiles.ts'
import { fieldOf, stateOf } from './respond.ts'
import { Rows } from './rows.ts'
import { Server, type ServerOwner, type ServerUser } from './server.ts'
import type { PostgresSnapshot } from './snapshot.ts'
import { Statements } from './statements.ts'

/** Who waits for a connection. */
export interface PoolClient extends Waiter {
  /** What it wants one of. */
  readonly pool: Pool
  /** The connection that is being made for it; null: none is. */
  connecting: Connecting | null
  onServer(server: Server): void
  onNoServer(failure: ConnectFailed | 'queue full'): void
}

export interface PoolOwner {
  readonly snapshot: PostgresSnapshot
  /** Closes a free connection of any pool, so that its slot may be used; false: none is free. */
  evict(): boolean
  /** A server cannot be asked what its stored functions do. */
  onUnreadable(detail: string): void
}

/** A server may have another catalogue than PostgreSQL; one that does not show it has what we do not know. */
const NO_PRIVILEGE = '42501'

/** How often free connections are looked at. */
const LOOK_MS = 1000

export class Pool implements ServerOwner {
  readonly statements = new Statements()
  readonly profiles = new Profiles()
  /** What the words of statements may do to a connection. */
  readonly lexicon = new Lexicon()
  readonly #owner: PoolOwner
  readonly #database: string
  readonly #fixed: ReadonlyMap<string, string>
  readonly #slots: Bulkhead
  readonly #cluster: PostgresSnapshot['cluster']
  /** The one that was used last is at the end, and is used next. */
  readonly #free: Server[] = []
  readonly #all = new Set<Server>()
  readonly #timer: CoarseTimer
  #parameters: Parameters | null = null
  /** Nobody begins to use it any more: the configuration has changed. */
  isRetired = false

  /** @param fixed startup parameters that cannot be set later */
  constructor(owner: PoolOwner, database: string, fixed: ReadonlyMap<string, string>) {
    this.#owner = owner
    this.#database = database
    this.#fixed = fixed
    this.#cluster = owner.snapshot.cluster
    this.#slots = this.#cluster.connections
    this.#timer = new CoarseTimer(() => this.#look())
  }

  /** Null until the first connection was made. */
  get known(): Parameters | null {
    return this.#parameters
  }

  get parameters(): Parameters {
    if (this.#parameters === null) throw new Error('no connection was made yet')
    return this.#parameters
  }

  get free(): number {
    return this.#free.length
  }

  get size(): number {
    return this.#all.size
  }

  /** A free connection for a user. Null: the client waits, and hears of it by onServer() or onNoServer(), later. */
  take(client: PoolClient, user: ServerUser): Server | null {
    const server = this.#pop(user)
    if (server !== null) return server
    const slots = this.#slots
    if (slots.tryAcquire() || (this.#owner.evict() && slots.tryAcquire())) this.connect(client)
    else if (!slots.wait(client)) setImmediate(() => client.onNoServer('queue full'))
    return null
  }

  /** The client does not wait any more. */
  cancel(client: PoolClient): void {
    this.#slots.cancel(client)
    if (client.connecting === null) return
    client.connecting.cancel()
    client.connecting = null
    this.#slots.release()
  }

  /** With a slot of the upstream that is the client's: makes a connection for it. */
  connect(client: PoolClient): void {
    const { snapshot } = this.#owner
    const connecting = new Connecting(snapshot, this.#database, this.#fixed, {
      onConnected: ({ raw, endpoint, welcome, key }) => {
        client.connecting = null
        this.#parameters ??= new Parameters(welcome)
        const own = new Parameters(welcome)
        const server = new Server(this, raw, endpoint, key, own.asked)
        this.#greet(server, own)
        this.#all.add(server)
        poolOf(endpoint).add(server)
        this.#refresh(server)
        client.onServer(server)
      },
      onConnectFailed: (failure) => {
        client.connecting = null
        this.#slots.release()
        client.onNoServer(failure)
      },
    })
    client.connecting = connecting
    connecting.start()
  }

  /** Another server may begin with other values. */
  #greet(server: Server, own: Parameters): void {
    const { parameters } = this
    own.names.forEach((name, at) => {
      if (!own.isAsked(name) && !parameters.isAsked(name))
        server.values = parameters.with(server.values, name, own.initial.list[at]!)
    })
    server.initial = server.values
  }

  #pop(client: ServerUser): Server | null {
    for (;;) {
      const server = this.#next(client)
      if (server === undefined) return null
      if (this.#isGood(server)) return server
      server.close()
    }
  }

  /** The one that was used last, but rather one that need not be reset. */
  #next(client: ServerUser): Server | undefined {
    const free = this.#free
    for (let at = free.length - 1; at >= 0; at--) {
      const { isDoubtful, lastUser } = free[at]!
      if (isDoubtful && lastUser !== client) continue
      return at === free.length - 1 ? free.pop() : free.splice(at, 1)[0]
    }
    return free.pop()
  }

  /**
   * Asks the server about words of its user's statements, behind what it was sent.
   * @returns false: too much was asked, so nobody will know
   */
  ask(server: Server): boolean {
    if (!this.lexicon.mayAsk(now())) return false
    this.#inquire(server, [...server.open.keys()])
    return true
  }

  #inquire(server: Server, words: readonly number[]): void {
    const { lexicon } = this
    const question = lexicon.ask(now())
    const print = new Rows(MAX_CATALOGUE_BYTES)
    const all = new Rows(MAX_CATALOGUE_BYTES)
    server.isAsked = true
    let printFailure: Buffer | null = null
    const over = (lastFailure: Buffer | null): void => {
      const failure = printFailure ?? lastFailure
      server.isAsked = false
      const state = failure === null ? '' : stateOf(failure)
      if ((state.startsWith('42') && state !== NO_PRIVILEGE) || state === '0A000') {
        lexicon.giveUp()
        this.#owner.onUnreadable(`${state} ${fieldOf(failure!, 'M')}`)
      }
      const fingerprint = print.list[0]?.[0] ?? null
      if (failure === null && fingerprint !== null && !all.isCut) {
        lexicon.learn(question, fingerprint, question.isAll ? readCatalogue(all.list) : null, words)
      }
      server.asker?.onAnswered()
    }
    if (!question.isAll) {
      server.run(FINGERPRINT, over, print)
      return
    }
    const printed = (failure: Buffer | null): void => {
      printFailure = failure
    }
    server.run(FINGERPRINT, printed, print)
    server.run(catalogueSql(this.parameters.serverVersion >= 14), over, all)
  }

  /**
   * Asks the server for the parameters that it does not report, behind what it was sent; `asker` hears of it. They stay unsettled when it
   * does not say.
   */
  askValues(server: Server): void {
    const rows = new Rows(MAX_CATALOGUE_BYTES)
    const over = (failure: Buffer | null): void => {
      const isKnown = failure === null && !rows.isCut
      if (isKnown) {
        server.values = this.parameters.withAnswer(server.values, server.asked, rows.list)
        server.isUnsettled = false
      }
      server.asker?.onSettled(isKnown)
    }
    server.run(askSql(server.asked), over, rows)
  }

  /** Asks whether what is known is true still, when it is time for that. Only those who share by transaction have to know. */
  #refresh(server: Server): void {
    const { pooling } = this.#owner.snapshot
    if (pooling?.mode === 'Transaction' && !server.isAsked && this.lexicon.isDue(now())) {
      this.#inquire(server, [])
    }
  }

  #isGood(server: Server): boolean {
    const { raw, endpoint, bornAt } = server
    if (server.isDoomed || raw.destroyed || raw.ended || this.isRetired || endpoint.retired) return false
    if (!endpoint.isHealthy && [...this.#cluster.endpoints].some(({ isHealthy }) => isHealthy)) return false
    const { maxLifetimeMs = null } = this.#owner.snapshot.pooling ?? {}
    return maxLifetimeMs === null || now() - bornAt < maxLifetimeMs
  }

  /** A client is done with a connection that owes nothing: the next one gets it. */
  give(server: Server): void {
    server.user = null
    server.asker = null
    if (server.open.size > 0 || server.isUnsettled) {
      server.isDoubtful = true
      server.open.clear()
    }
    if (server.raw.isPaused) server.raw.resume()
    const isTooMany = this.#slots.used > this.#slots.max
    if (isTooMany || !this.#isGood(server) || server.status !== Transaction.idle) {
      server.close()
      return
    }
    this.#refresh(server)
    const next = this.#slots.shift() as PoolClient | null
    if (next === null) {
      server.idleSince = now()
      this.#free.push(server)
      if (this.#timer.at === Number.POSITIVE_INFINITY) this.#timer.set(now() + LOOK_MS)
    } else if (next.pool === this) next.onServer(server)
    else {
      // One that wants another database gets the slot.
      this.#all.delete(server)
      poolOf(server.endpoint).delete(server)
      server.close()
      next.onSlot()
    }
  }

  /** Closes a free connection; false: none is free. */
  evict(): boolean {
    const server = this.#free.shift()
    if (server === undefined) return false
    this.#forget(server)
    server.close()
    return true
  }

  #look(): void {
    const { idleTimeoutMs = null } = this.#owner.snapshot.pooling ?? {}
    const time = now()
    for (const server of [...this.#free]) {
      const isUnused = idleTimeoutMs !== null && time - server.idleSince >= idleTimeoutMs
      if (!isUnused && this.#isGood(server)) {
        // What a client has left behind may be a lock that others wait for.
        if (!server.isDoubtful || server.lastUser === null || time - server.idleSince < LOOK_MS) continue
        // Whoever comes next finds a connection that is not its own any more.
        server.lastUser = null
        server.reset(null)
        continue
      }
      this.#free.splice(this.#free.indexOf(server), 1)
      server.close()
    }
    if (this.#free.length > 0) this.#timer.set(time + LOOK_MS)
  }

  onServerClosed(server: Server): void {
    this.#forget(server)
    const at = this.#free.indexOf(server)
    if (at >= 0) this.#free.splice(at, 1)
  }

  #forget(server: Server): void {
    if (!this.#all.delete(server)) return
    poolOf(server.endpoint).delete(server)
    this.#slots.release()
  }

  /** Free connections are closed now, the others when they are given back. */
  retire(): void {
    this.isRetired = true
    this.#timer.release()
    for (const server of this.#free.splice(0)) server.close()
  }

  destroy(): void {
    this.retire()
    for (const server of [...this.#all]) server.destroy()
  }
}

/** What discovery and health tell the connections of an endpoint. */
class EndpointServers implements EndpointPool {
  readonly #servers = new Set<Server>()

  add(server: Server): void {
    this.#servers.add(server)
  }

  delete(server: Server): void {
    this.#servers.delete(server)
  }

  /** The endpoint is no longer the one to use: what is free closes now, the others when they are given back. */
  retire(): void {
    for (const server of [...this.#servers]) {
      if (server.user === null && server.isFree) server.close()
      else server.isDoomed = true
    }
  }

  destroy(): void {
    for (const server of [...this.#servers]) server.destroy()
  }

  cut(why: string): void {
    for (const server of [...this.#servers]) server.cut(why)
  }
}

function poolOf(endpoint: Endpoint): EndpointServers {
  if (endpoint.pool instanceof EndpointServers) return endpoint.pool
  const made = new EndpointServers()
  endpoint.pool = made
  return made
}
