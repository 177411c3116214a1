/** One connection of the application that shares connections to the server: it has one for a transaction, or for longer when it must. */
import type { Reason } from '../../../common/reasons.ts'
import { whyLimited } from '../../policy/rate-limit.ts'
import { now, refreshClock } from '../../runtime/clock.ts'
import { askWhetherGone } from '../../runtime/half-close.ts'
import { dropRest, type RawSocket, type SocketHandler } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import type { TcpEnd } from '../tcp/session.ts'
import { type Acquirer, Acquisition } from './acquire.ts'
import { BatchReader, LARGE_BYTES } from './batch.ts'
import { CLOSES, clean } from './clean.ts'
import { ClientParameters } from './client-parameters.ts'
import { beginAt, isReplicating, knownValues, welcome } from './entry.ts'
import { Held } from './held.ts'
import { READY, Transaction } from './messages.ts'
import type { Values } from './parameters.ts'
import type { Pool } from './pool.ts'
import { type Requester, Requests, settle } from './requests.ts'
import { asError, errorResponse, fieldOf, sqlError, stateOf } from './respond.ts'
import type { Server } from './server.ts'
import type { ClientLogin, PinReason, SessionHost } from './session-host.ts'
import { type Statement, withNamesOf } from './statements.ts'

/** A client that half-closed is looked at again: it may still go away. */
const LOOK_MS = 1000
/** A large message that does not go on for this long ends, if others wait for the connection. */
const STALL_MS = 10_000

// starting  => idle       when it was let in (Transaction), or attached (Session)
// idle      => waiting    when a whole request is there
// waiting   => setup      when it has a connection on which other parameters are set than its own
// waiting   => attached   when it has one
// setup     => attached   when they are set
// attached  => asking     when the server owes nothing and no transaction is open, and words of it are not known
// asking    => attached   when the server has said what they mean
// attached  => idle       when the server owes nothing and no transaction is open, unless it is pinned
// any       => leaving    when it is gone and the server has not ended what it was sent
// any       => ended
type Phase = 'starting' | 'idle' | 'waiting' | 'setup' | 'attached' | 'asking' | 'leaving' | 'ended'

export class PooledSession implements SocketHandler, Acquirer, Requester {
  pool: Pool
  readonly client: RawSocket
  isIn = false
  readonly login: ClientLogin
  /** What the client calls its statements; null until it prepares one. */
  statements: Map<string, Statement> | null = null
  /** It has asked for currval() or lastval(), which must not tell of another client. */
  asksSequences = false

  readonly #host: SessionHost
  readonly #isPinnedAtOnce: boolean
  readonly #acquisition: Acquisition
  #phase: Phase = 'starting'
  #server: Server | null = null
  readonly #parameters = new ClientParameters()
  readonly #held = new Held()
  readonly #batch: BatchReader
  #requests: Requests | null = null
  #pin: PinReason | 'mode' | null = null
  readonly #timer: CoarseTimer
  readonly #openedAt = now()
  /** Which parameters the client has reset: they are what it began with, and not what the connection did. */
  #reset: 'none' | 'some' | 'all' = 'none'
  /** What it was told of its parameters before that. */
  #told: Values | null = null
  /** It has other parameters than its connection. */
  #isOwnDue = false
  #hasChangedSchema = false
  #waitedMs = 0
  #clientEnded = false
  #endpoint: string | null = null
  /** Dials for the connection that it has, or that failed. */
  #attempts = 0

  /** Takes over a client whose startup packet was read. */
  constructor(host: SessionHost, client: RawSocket, login: ClientLogin) {
    this.#host = host
    this.client = client
    this.login = login
    this.pool = host.poolFor(login)
    this.#isPinnedAtOnce = host.snapshot.pooling?.mode === 'Session' || isReplicating(login)
    this.#timer = new CoarseTimer(() => this.#onTimer())
    this.#acquisition = new Acquisition(this, host, this.#timer)
    this.#batch = new BatchReader()
    client.handler = this
  }

  /** Names of statements go through as they are: nobody shares the connection. */
  get isRaw(): boolean {
    return this.#isPinnedAtOnce
  }

  get isPinned(): boolean {
    return this.#pin !== null
  }

  get values(): Values | null {
    return this.#parameters.values
  }

  get maxStatements(): number {
    return this.#host.snapshot.pooling?.maxPreparedStatements ?? 200
  }

  get isBusy(): boolean {
    return this.#phase !== 'idle' && !(this.#phase === 'attached' && this.#server?.isFree === true)
  }

  get bytesIn(): number {
    return this.client.bytesRead
  }

  get bytesOut(): number {
    return this.client.bytesWritten
  }

  get isOver(): boolean {
    return this.#phase === 'ended'
  }

  // --- the login ----------------------------------------------------------------------------------------------------------------

  /** @param rest what came behind the startup packet */
  start(rest: Buffer): void {
    if (rest.length > 0) this.#held.add(rest, 0, rest.length)
    const waitMs = this.#host.snapshot.rateLimit?.admit(this.#openedAt) ?? 0
    if (waitMs < 0) {
      const detail = whyLimited(-waitMs)
      this.#end('rate_limited', detail, errorResponse('rate_limited', detail))
    } else if (waitMs > 0) this.#timer.set(this.#openedAt + waitMs)
    else this.#letIn()
  }

  #letIn(): void {
    const values = this.#isPinnedAtOnce ? null : knownValues(this.pool, this.login)
    if (values !== null) {
      this.#welcome(values)
      return
    }
    this.#acquisition.start()
    this.#acquire()
  }

  #welcome(values: Values): void {
    this.#parameters.begin(values, this.pool.parameters)
    this.isIn = true
    this.client.write(welcome(this.login, this.pool.parameters, values))
    if (this.#server === null) this.#rest()
  }

  // --- getting a connection -----------------------------------------------------------------------------------------------------

  /** True: it is attached already. */
  #acquire(): boolean {
    if (this.isIn) this.#phase = 'waiting'
    if (this.pool.isRetired) {
      this.pool = this.#host.poolFor(this.login)
    }
    const server = this.#acquisition.take()
    return server !== null && this.#attach(server)
  }

  onAcquired(server: Server): void {
    if (this.#attach(server) && this.#phase === 'attached') this.#goOn()
  }

  onTried(endpoint: string | null, attempts: number): void {
    this.#endpoint = endpoint
    this.#attempts = attempts
  }

  /** True: what is held may be sent. False: the connection is being prepared. */
  #attach(server: Server): boolean {
    this.#timer.clear()
    const waitedMs = this.#acquisition.end()
    if (waitedMs > 0) this.#waitedMs += waitedMs
    this.#host.onWaited(waitedMs)
    this.#server = server
    this.#endpoint = server.endpoint.name
    this.#attempts = 1
    const isAnother = server.lastUser !== this
    const isReset = server.isDoubtful && isAnother
    server.user = this
    server.lastUser = this
    if (!this.isIn) {
      if (!beginAt(server, this.pool, this.login, isReset, (failure) => this.#onBegun(server, failure)))
        this.#onLetIn(server)
      return false
    }
    const values = isReset ? server.initial : server.values
    const own = this.#parameters
    own.translate(this.pool.parameters)
    const isSequences = this.asksSequences && isAnother && !isReset
    const sql = values === own.values && !isSequences ? '' : own.restore(values, isSequences)
    if (sql === '' && !isReset) {
      this.#phase = 'attached'
      return true
    }
    this.#phase = 'setup'
    if (isReset) server.reset(sql === '' ? (failure) => this.#onSetup(failure) : null)
    if (sql !== '') server.run(sql, (failure) => this.#onSetup(failure))
    return false
  }

  /** The parameters of the startup packet are set, and the server has said what they are now. */
  #onBegun(server: Server, failure: Buffer | null): void {
    if (this.#phase === 'ended') return
    if (server.isDoubtful || isTimedOut(server, failure)) {
      this.#takeAnother()
      return
    }
    if (failure === null) {
      this.#onLetIn(server)
      return
    }
    const response = sqlError('FATAL', stateOf(failure), fieldOf(failure, 'M'))
    this.#detach()
    this.#end('bad_request', fieldOf(failure, 'M'), response)
  }

  #onLetIn(server: Server): void {
    if (this.#isPinnedAtOnce) {
      this.#pin = isReplicating(this.login) ? 'replication' : 'mode'
      if (this.#pin === 'replication') this.#host.onPinned('replication', false, null)
      this.#phase = 'attached'
      this.#welcome(server.values)
      this.#goOn()
      return
    }
    const { values } = server
    this.#detach()
    this.#welcome(values)
  }

  #onSetup(failure: Buffer | null): void {
    const server = this.#server
    if (this.#phase !== 'setup' || server === null) return
    if (server.isDoubtful || isTimedOut(server, failure)) {
      this.#takeAnother()
      return
    }
    if (failure !== null) {
      const detail = `its parameters cannot be set on another connection: ${fieldOf(failure, 'M')}`
      this.#end('upstream_reset', detail, errorResponse('upstream_reset', detail))
      return
    }
    server.take(this.#parameters.values!)
    this.#parameters.values = server.values
    this.#phase = 'attached'
    this.#goOn()
  }

  /** The connection could not be reset: nobody uses it any more. */
  #takeAnother(): void {
    this.#detach()
    this.#acquisition.start()
    this.onAgain()
  }

  /** Sends what is held, and reads on. */
  #goOn(): void {
    const held = this.#held.take()
    if (held !== null) this.#send(held, 0, held.length)
    if (this.#phase === 'attached' && this.#server?.raw.isSlow !== true) this.client.resume()
    if (this.#clientEnded && this.#phase !== 'ended') this.#lookWhetherGone()
  }

  // --- what the client sends ----------------------------------------------------------------------------------------------------

  onData(chunk: Buffer, length: number): void {
    switch (this.#phase) {
      case 'attached':
        this.#send(chunk, 0, length)
        break
      case 'idle':
        this.#gather(chunk, length)
        break
      case 'starting':
      case 'waiting':
      case 'setup':
      case 'asking':
        this.#held.add(chunk, 0, length)
        this.#pauseWhenLarge()
        break
      default:
        break
    }
  }

  /** Hardly any client sends more before its answer, so reading goes on until it is too much to keep. */
  #pauseWhenLarge(): void {
    if (this.#held.length >= LARGE_BYTES) this.client.pause()
  }

  /** Looks for a request that is whole, so that it is worth a connection to the server. */
  #gather(chunk: Buffer, length: number): void {
    let bytes = chunk
    let end = length
    const held = this.#held
    if (held.bytes !== null) {
      held.add(chunk, 0, length)
      bytes = held.bytes
      end = held.length
    }
    const batch = this.#batch
    const from = batch.read(bytes, 0, end)
    for (let n = 0; n < batch.syncs; n++) this.client.write(READY)
    if (batch.fault !== null) {
      this.#end('bad_request', batch.fault, errorResponse('bad_request', batch.fault))
      return
    }
    if (batch.isTerminated) {
      this.#leave()
      return
    }
    if (!batch.isReady) {
      held.keep(bytes, from, end)
      this.#watchIdle()
      return
    }
    this.#timer.clear()
    this.#acquisition.start()
    if (this.#acquire()) {
      const isHeld = held.bytes !== null
      held.clear()
      this.#send(bytes, from, end)
      if (isHeld && this.client.isPaused && this.#server?.raw.isSlow === false) this.client.resume()
    } else {
      held.keep(bytes, from, end)
      this.#pauseWhenLarge()
    }
  }

  #watchIdle(): void {
    const { idleMs } = this.#host.snapshot.timeouts
    if (idleMs !== null) this.#timer.set(now() + idleMs)
  }

  #send(bytes: Buffer, from: number, to: number): void {
    const server = this.#server!
    this.#requests ??= new Requests(this)
    const requests = this.#requests
    requests.send(server, bytes, from, to)
    if (requests.fault !== null) {
      this.#end('bad_request', requests.fault, errorResponse('bad_request', requests.fault))
      return
    }
    if (requests.isTerminated) {
      this.#leave()
      return
    }
    if (server.raw.isSlow) this.client.pause()
    if (requests.isInside) this.#timer.set(now() + STALL_MS)
    this.#rest()
  }

  /** It is seen that the connection must stay with this client. */
  pin(reason: PinReason, isStored: boolean, statement: Buffer | null): void {
    if (this.#pin !== null && (CLOSES.has(this.#pin) || !CLOSES.has(reason))) return
    this.#pin = reason
    this.#host.onPinned(reason, isStored, statement)
  }

  resetsParameters(): void {
    this.#onReset('some')
  }

  changesSchema(): void {
    this.#hasChangedSchema = true
  }

  /** Written to the client in place of an answer of the server, when nothing of the server's is due before it. */
  answer(bytes: Buffer): void {
    this.client.write(bytes)
  }

  // --- what the server says -----------------------------------------------------------------------------------------------------

  onReady(): Buffer | null {
    if (this.#reset === 'none') return null
    const isAll = this.#reset === 'all'
    const told = this.#told
    this.#reset = 'none'
    this.#told = null
    const { parameters } = this.pool
    this.#isOwnDue = this.#parameters.reset(this.#server!.values, parameters, isAll)
    const own = this.#parameters.values
    if (told === null || own === null) return null
    const changed = parameters.difference(told, own)
    return changed.length > 0 ? changed : null
  }

  onQuiet(): void {
    if (this.#isOwnDue) this.#restoreOwn(this.#server!)
    this.#parameters.settle()
    this.#rest()
  }

  /** Parameters were reset: they are as the client began with them, on this connection too when it goes on with it. */
  #restoreOwn(server: Server): void {
    this.#isOwnDue = false
    if (server.status === Transaction.failed || (server.isFree && this.#pin === null)) return
    server.run(this.#parameters.restore(server.values, false), null)
  }

  onValues(values: Values): boolean {
    this.#parameters.values = values
    if (this.#reset === 'none') return true
    if (!this.#parameters.isAsConnection) return false
    this.#told = values
    return true
  }

  #onReset(which: 'some' | 'all'): void {
    if (this.#reset === 'none') this.#told = this.#parameters.values
    this.#reset = which
  }

  onTag(tag: string): void {
    if (tag === 'DEALLOCATE ALL' || tag === 'DISCARD ALL') this.statements?.clear()
    // The new values are reported behind the tag, before ReadyForQuery.
    if (tag !== 'DEALLOCATE ALL') this.#onReset(tag === 'DISCARD ALL' ? 'all' : 'some')
    if (tag === 'DISCARD ALL' && this.#pin !== null && this.#pin !== 'mode' && !CLOSES.has(this.#pin)) this.#pin = null
  }

  /** A server names statements as it knows them. */
  onError(response: Buffer): Buffer | null {
    return this.statements === null ? null : withNamesOf(this.statements, response)
  }

  onParseFailed(name: string, statement: Statement): void {
    if (this.statements?.get(name) === statement) this.statements.delete(name)
  }

  onCloseFailed(name: string, statement: Statement): void {
    this.statements?.set(name, statement)
  }

  /** A table has changed under a statement. The client has heard of it; what it runs next is prepared anew. */
  onOldPlan(): void {
    if (this.statements === null) return
    for (const [name, statement] of this.statements) {
      if (statement.body !== null) this.statements.set(name, this.pool.statements.renew(statement))
    }
  }

  /** Of a client that sends no more, the COPY would never end. */
  onCopyIn(): void {
    if (this.#phase === 'leaving') this.#drop()
    else if (this.#clientEnded && this.#phase === 'attached') this.#leave()
  }

  onUnsure(): void {
    this.pin('copy', false, null)
  }

  onServerGone(detail: string): void {
    const server = this.#server
    this.#server = null
    if (this.#phase === 'asking') {
      this.#rest()
      return
    }
    if (this.#phase === 'leaving') {
      this.#over('client_gone', null)
      return
    }
    // A server that has said FATAL has told the client itself.
    const response = server?.hasSaidGoodbye === true ? null : errorResponse('upstream_reset', detail)
    this.#end('upstream_reset', detail, response)
  }

  // --- giving it back -----------------------------------------------------------------------------------------------------------

  /** Lets go of the connection where it can be, and goes on with what has come meanwhile. */
  #rest(): void {
    const server = this.#server
    if (server !== null) {
      if (this.#phase === 'leaving') {
        this.#clean()
        return
      }
      if (this.#phase !== 'attached') return
      if (server.owes > 0 || this.#requests?.isInside === true) return
      if (this.#pin !== null || !server.isFree) {
        if (server.isFree) this.#isLeavingNow()
        else if (this.#clientEnded) this.#leave()
        return
      }
      if (server.open.size > 0 && this.#isOpen(server)) return
      if (server.isUnsettled) {
        this.pool.askValues(server)
        this.#ask(server)
        return
      }
      const rest = this.#requests?.takeHeld() ?? null
      if (rest !== null) this.#held.add(rest, 0, rest.length)
      this.#detach()
    }
    this.#phase = 'idle'
    this.#timer.clear()
    if (this.#isLeavingNow()) return
    this.client.resume()
    if (this.#held.bytes === null) {
      this.#watchIdle()
      return
    }
    this.#gather(NOTHING, 0)
  }

  /**
   * Some words of the transaction were not known. The connection stays with the client until they are: it may have to keep it.
   * Returns whether it stays.
   */
  #isOpen(server: Server): boolean {
    const { pool } = this
    if (this.#hasChangedSchema) {
      this.#hasChangedSchema = false
      pool.lexicon.doubt()
    }
    settle(server, this)
    if (this.#pin !== null) return true
    if (server.open.size === 0 || (!server.isAsked && !pool.ask(server))) return false
    this.#ask(server)
    return true
  }

  /** Waits for an answer of the server to a question of ours: until then the connection stays with the client. */
  #ask(server: Server): void {
    const begun = this.#requests?.takeHeld() ?? null
    if (begun !== null) this.#held.add(begun, 0, begun.length)
    server.asker = this
    server.user = null
    this.#phase = 'asking'
    this.#timer.clear()
  }

  onSettled(isKnown: boolean): void {
    const server = this.#server
    if (this.#phase !== 'asking' || server === null) return
    if (isKnown) this.#parameters.hear(server.values, server.asked)
    else this.pin('set', false, null)
    this.onAnswered()
  }

  onAnswered(): void {
    const server = this.#server
    if (this.#phase !== 'asking' || server === null) return
    server.asker = null
    server.user = this
    this.#phase = 'attached'
    this.#rest()
    if (this.#phase === 'attached') this.#goOn()
  }

  /** Ends a client that is between transactions, if it should be. */
  #isLeavingNow(): boolean {
    if (this.#host.isDraining) {
      const detail = 'the sidecar is shutting down'
      this.#end('draining', detail, errorResponse('draining', detail))
      return true
    }
    if (this.#clientEnded && !this.#hasRequest()) {
      this.#leave()
      return true
    }
    return false
  }

  #hasRequest(): boolean {
    const { bytes, length } = this.#held
    if (bytes === null) return false
    this.#batch.read(bytes, 0, length)
    return this.#batch.isReady
  }

  #detach(): void {
    const server = this.#server
    if (server === null) return
    this.#server = null
    if (this.#hasChangedSchema) {
      this.#hasChangedSchema = false
      this.pool.lexicon.doubt()
    }
    if (server.cancels > 0) {
      // A cancel request that is on its way would hit the next client.
      server.user = null
      server.onCancelled = () => this.pool.give(server)
    } else this.pool.give(server)
  }

  /** The client has said goodbye or is gone, and what it sent is worth being ended. */
  #leave(): void {
    if (this.#phase === 'ended') return
    const server = this.#server
    if (server === null) {
      this.client.end()
      this.#acquisition.cancel()
      this.#over('client_closed', null)
      return
    }
    // What it has asked before its goodbye is answered.
    if (server.owes === 0) this.client.end()
    this.#phase = 'leaving'
    this.#timer.clear()
    if (this.#requests?.isInside === true || server.isCopyIn || server.isUnsynced) {
      this.#drop()
    } else if (server.owes === 0) this.#clean()
    else if (this.#pin === 'copy') this.#timer.set(now() + LOOK_MS)
  }

  /** Leaves the connection as the next client must find it, and gives it back. */
  #clean(): void {
    const server = this.#server
    if (server === null) return
    if (server.owes > 0) return
    if ((this.#pin !== null && CLOSES.has(this.#pin)) || server.isCopyIn || server.isUnsynced) {
      this.#drop()
      return
    }
    const isOpen = server.status !== Transaction.idle
    if (!isOpen && this.#pin === null) {
      this.#detach()
      this.#over('client_closed', null)
      return
    }
    clean(server, this.#pin, () => {
      this.#detach()
      this.#over('client_closed', null)
    })
    this.#pin = null
    this.#phase = 'leaving'
  }

  /** Closes the connection to the server: it rolls back. */
  #drop(): void {
    const server = this.#server
    this.#server = null
    server?.destroy()
    this.#over('client_gone', null)
  }

  // --- the end ------------------------------------------------------------------------------------------------------------------

  onEnd(): void {
    this.#clientEnded = true
    if (this.#phase === 'idle') {
      if (!this.#isLeavingNow()) this.#gather(NOTHING, 0)
    } else if (
      this.#phase === 'attached' &&
      this.#server !== null &&
      (this.#server.owes === 0 || this.#server.isCopyIn)
    ) {
      this.#leave()
    } else this.#lookWhetherGone()
  }

  /** The client sends no more: it may wait for its answers, or be gone. */
  #lookWhetherGone(): void {
    askWhetherGone(this.client, (isGone) => {
      refreshClock()
      if (this.#phase === 'ended' || this.#phase === 'leaving') return
      if (isGone) this.onClose()
      else if (this.#phase === 'attached') this.#timer.set(now() + LOOK_MS)
    })
  }

  onDrain(): void {
    this.#server?.raw.resume()
  }

  /** The client is gone without a goodbye: what the server does for it is cancelled. */
  onClose(): void {
    if (this.#phase === 'leaving') this.#server?.raw.resume()
    if (this.#phase === 'ended' || this.#phase === 'leaving') return
    this.client.destroy()
    const server = this.#server
    if (server === null) {
      this.#acquisition.cancel()
      this.#over(this.#phase === 'idle' ? 'client_closed' : 'client_gone', this.#phase === 'idle' ? null : GONE)
      return
    }
    if (
      // What was to be set for it would be seen by the next one.
      this.#phase === 'starting' ||
      this.#phase === 'setup' ||
      server.owes > 0 ||
      this.#requests?.isInside === true ||
      server.isCopyIn ||
      server.isUnsynced
    ) {
      if (server.owes > 0) this.#host.cancelAt(server, () => {})
      this.#drop()
      return
    }
    this.#phase = 'leaving'
    this.#clean()
  }

  /** A cancel request with the key of this client. */
  cancel(done: () => void): void {
    const server = this.#server
    if (server !== null && server.owes > 0 && this.#phase === 'attached') {
      this.#host.cancelAt(server, done)
      return
    }
    if (this.#phase === 'waiting') {
      this.#acquisition.cancel()
      this.#answerHeld(sqlError('ERROR', '57014', 'canceling statement due to user request'))
    }
    done()
  }

  #onTimer(): void {
    const { snapshot } = this.#host
    // Who broke the rules may seem to be owed an answer, which never comes.
    if (this.#phase === 'leaving') this.#drop()
    else if (this.#phase === 'idle') {
      this.#end(
        'idle_timeout',
        null,
        sqlError('FATAL', '57P05', 'the connection was idle for longer than timeouts.idle'),
      )
    } else if (this.#phase === 'attached') {
      if (this.#requests?.isInside === true && snapshot.cluster.connections.pending > 0) {
        const detail = `a message did not go on for ${STALL_MS} ms while others wait for the connection`
        this.#end('bad_request', detail, errorResponse('bad_request', detail))
      } else if (this.#clientEnded) this.#lookWhetherGone()
      else if (this.#requests?.isInside === true) this.#timer.set(now() + STALL_MS)
    } else if (!this.#acquisition.isOn) this.#letIn()
    else this.#acquisition.onTimer()
  }

  onAgain(): void {
    if (this.#acquire() && this.#phase === 'attached') this.#goOn()
  }

  /** There is no connection for what the client asks: the request fails and the client stays, unless it was not let in yet. */
  onNotAcquired(reason: Reason, detail: string, response: Buffer | null): void {
    this.#timer.clear()
    this.#acquisition.end()
    const words = response ?? errorResponse(reason, detail)
    if (!this.isIn) this.#end(reason, detail, words)
    else {
      this.#host.onTrouble(reason, detail)
      this.#answerHeld(asError(words))
    }
  }

  /** Answers every request that is held by an error, as a server does that is asked for the impossible. */
  #answerHeld(error: Buffer): void {
    const held = this.#held.take()
    const batch = this.#batch
    const from = held === null ? 0 : batch.skip(held)
    if (held !== null && held.length - from >= LARGE_BYTES) {
      this.#end('queue_full', null, error)
      return
    }
    for (let n = 0; n < batch.answers; n++) this.client.write(Buffer.concat([error, READY]))
    if (held !== null && from < held.length) this.#held.add(held, from, held.length)
    this.#acquisition.end()
    this.#rest()
  }

  drain(): void {
    if (this.#phase === 'idle' || (this.#phase === 'attached' && this.#server?.isFree === true)) this.#isLeavingNow()
    else if (this.#phase === 'starting') {
      const detail = 'the sidecar is shutting down'
      this.#end('draining', detail, errorResponse('draining', detail))
    }
  }

  destroy(): void {
    const detail = 'the sidecar is shutting down'
    if (this.#phase === 'leaving') this.#drop()
    else this.#end('draining', detail, errorResponse('draining', detail))
  }

  /** Ends the client with a word, and what it was doing with it. */
  #end(end: TcpEnd, detail: string | null, response: Buffer | null): void {
    if (this.#phase === 'ended') return
    const server = this.#server
    this.#server = null
    if (server !== null) {
      server.user = null
      if (server.isFree && this.#pin === null && this.#requests?.isInside !== true && this.#phase === 'attached')
        this.pool.give(server)
      else server.destroy()
    }
    this.#acquisition.cancel()
    const { client } = this
    if (response !== null) client.write(response)
    client.end()
    this.#over(end, detail)
  }

  #over(end: TcpEnd, detail: string | null): void {
    if (this.#phase === 'ended') return
    const { client } = this
    this.#phase = 'ended'
    this.#timer.release()
    this.#held.clear()
    client.end()
    dropRest(client)
    const at = refreshClock()
    this.#host.onSessionEnd(this, {
      end,
      detail,
      upstream: this.#host.snapshot.cluster.name,
      endpoint: this.#endpoint,
      attempts: this.#attempts,
      bytesIn: client.bytesRead,
      bytesOut: client.bytesWritten,
      queueMs: this.#waitedMs,
      connectMs: 0,
      tlsMs: 0,
      durationMs: at - this.#openedAt,
    })
  }
}

/** What is set for a client has run into the statement_timeout of the one before: nobody uses that connection any more. */
function isTimedOut(server: Server, failure: Buffer | null): boolean {
  if (failure === null || stateOf(failure) !== '57014') return false
  server.isDoomed = true
  return true
}

const NOTHING = Buffer.alloc(0)
const GONE = 'the application left before its request was sent to the upstream'
