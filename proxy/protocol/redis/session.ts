/** One connection of the application: its bytes go to a server and back as they are, while parsers tell where commands and replies end. */
import type { Reason } from '../../../common/reasons.ts'
import { firstBytes, giveChunk, scratchFor, takeChunk } from '../../runtime/buffers.ts'
import { now, refreshClock } from '../../runtime/clock.ts'
import { NO_HANDLER, type RawSocket, type SocketHandler } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import type { DialTimes } from '../../upstream/connector.ts'
import type { Endpoint } from '../../upstream/endpoint.ts'
import { type PoolMember, RedisPool } from '../../upstream/redis-pool.ts'
import type { TcpEnd, TcpRecord } from '../tcp/session.ts'
import { type Acquirer, Acquisition } from './acquire.ts'
import type { RedisCells } from './cells.ts'
import { type Command, commands, Kind } from './commands.ts'
import { CommandParser, type CommandSink, ReplyParser, type ReplySink, Type, wordHash } from './parser.ts'
import { Pending } from './pending.ts'
import { errorReply } from './respond.ts'
import type { RedisSnapshot } from './snapshot.ts'
import { type Effect, effectOf, injectedAuth, injectedHello, replayOf } from './state.ts'

export type RedisEnd = TcpEnd
export interface RedisRecord extends TcpRecord {
  readonly commands: number
}

export interface SessionOwner {
  /** The newest one: read when a connection to the upstream is looked for, and for the idle time. */
  readonly snapshot: RedisSnapshot
  readonly cells: RedisCells
  readonly isDraining: boolean
  onSessionEnd(session: RedisSession, record: RedisRecord): void
  /** The server refused a credential that had been renewed. */
  onRefusedCredential(detail: string): void
}

/** What a command of ours is entered as among those that wait: its reply is not for the application. */
const OURS = 0xffff
/** A direction that brings this much per read gets memory of its own, so that it is passed on without a copy. */
const BULK_BYTES = 32 * 1024
const SMALL_BYTES = 8 * 1024
const NOT_THE_ONE = 'the server is no longer the one to talk to'
/** How long an application may take to read a last reply. */
const LINGER_MS = 1000

const READONLY = wordHash('READONLY')
const LOADING = wordHash('LOADING')
const MASTERDOWN = wordHash('MASTERDOWN')
const RESET = wordHash('RESET')
const MESSAGES = new Set(['message', 'pmessage', 'smessage'].map(wordHash))
const CONFIRMATIONS = new Set(
  ['subscribe', 'psubscribe', 'ssubscribe', 'unsubscribe', 'punsubscribe', 'sunsubscribe'].map(wordHash),
)

// quiet     => seeking    when the application sends something
// seeking   => open       when there is a connection
// open      => quiet      when the endpoint is no longer the one and nothing is under way
// any       => closing    when the last reply is written: until the application has taken it
// any       => ended
type Phase =
  | { readonly kind: 'quiet' }
  | { readonly kind: 'seeking'; readonly search: Acquisition }
  | { readonly kind: 'open'; readonly socket: RawSocket; readonly endpoint: Endpoint; readonly pool: RedisPool }
  | { readonly kind: 'closing' }
  | { readonly kind: 'ended' }

export class RedisSession implements SocketHandler, CommandSink, ReplySink, Acquirer, PoolMember {
  readonly #owner: SessionOwner
  readonly #client: RawSocket
  readonly #idle: CoarseTimer
  readonly #openedAt = now()
  #phase: Phase = { kind: 'quiet' }
  /** Of the connection to the upstream, and so is what it released with it. */
  #snapshot: RedisSnapshot
  readonly #commands = new CommandParser()
  #replies = new ReplyParser()
  readonly #pending = new Pending()
  /** What the application sent and nobody has read: the beginning of a command, or more while it has to wait. */
  #kept: Buffer | null = null
  #isRateChecked = false
  /** What pending commands change when they succeed, oldest first. */
  #effects: Effect[] | null = null
  /** What a new connection must be told to be like this one, by what it sets. */
  #replays: Map<string, Buffer> | null = null
  /** The AUTH that the connection logged in with. */
  #line: Buffer | null = null
  /** Commands of ours without their replies. */
  #ours = 0
  #isInMulti = false
  #isWatching = false
  #blocking = 0
  #subscriptions = 0
  #confirming = 0
  #isMonitor = false
  /** The bytes of the server are not replies any more. */
  #isOpaque = false
  /** The connection has a state that no other can be given. */
  #isPinned = false
  #isSilent = false
  #skipsNext = false
  #resets = 0
  #isQuitting = false
  #isLeaving = false
  #clientEnded = false
  /** Memory that the two sockets read into; null: what all sockets share. */
  #clientMemory: Buffer | null = null
  #serverMemory: Buffer | null = null
  #count = 0
  #dials = 0
  #endpoint: string | null = null
  #seekingAt = 0
  #queueMs = 0
  /** Ends a wait for the end of a failover that takes too long; null: there was none. */
  #patience: CoarseTimer | null = null
  #times: DialTimes = { connectMs: 0, tlsMs: 0 }
  readonly #server: SocketHandler

  constructor(owner: SessionOwner, makeClient: (handler: SocketHandler) => RawSocket) {
    this.#owner = owner
    this.#snapshot = owner.snapshot
    this.#idle = new CoarseTimer(() => this.#onIdle())
    this.#server = {
      onData: (chunk, length) => this.#onReplies(chunk, length),
      onEnd: () => this.#onServerGone(null),
      onDrain: () => this.#onServerDrained(),
      onClose: (error) => this.#onServerGone(error),
    }
    this.#client = makeClient(this)
    this.#touch()
  }

  get bytesIn(): number {
    return this.#client.bytesRead
  }

  get bytesOut(): number {
    return this.#client.bytesWritten
  }

  /** It waits for something: a reply, the end of a transaction, a connection. */
  get isBusy(): boolean {
    return this.#phase.kind === 'seeking' || this.#pending.count > 0 || this.#isInMulti || this.#kept !== null
  }

  destroy(): void {
    if (this.#phase.kind !== 'ended') this.#fail('draining', 'the sidecar is shutting down')
    this.#client.destroy()
  }

  /** Ends at the next boundary: now, when nothing is under way. */
  drain(): void {
    this.#atBoundary()
  }

  // From the application.

  onData(chunk: Buffer, length: number): void {
    if (this.#phase.kind === 'closing' || this.#phase.kind === 'ended') return
    this.#touch()
    if (this.#kept === null) this.#take(chunk, length)
    else {
      const joined = Buffer.allocUnsafe(this.#kept.length + length)
      this.#kept.copy(joined)
      chunk.copy(joined, this.#kept.length, 0, length)
      this.#kept = null
      this.#take(joined, joined.length)
    }
  }

  #take(chunk: Buffer, length: number): void {
    const phase = this.#phase
    if (phase.kind !== 'open') {
      this.#keep(chunk, 0, length)
      this.#client.pause()
      if (phase.kind === 'quiet') this.#seek()
      return
    }
    const parser = this.#commands
    let sent = 0
    let at = 0
    for (;;) {
      at = parser.run(chunk, at, length, this)
      if (parser.stop !== 'gathered') break
      this.#toServer(chunk, sent, at)
      const own = this.#onGathered(parser.command, parser.args)
      if (own === null) this.#toServer(chunk, at, parser.next)
      else phase.socket.write(own)
      at = parser.next
      sent = at
    }
    this.#toServer(chunk, sent, at)
    if (parser.stop === 'bad') this.#fail('bad_request', `the application's command ${parser.failure}`)
    else if (at < length) {
      this.#keep(chunk, at, length)
      if (parser.stop === 'boundary') this.#client.pause()
      this.#waitForEnd()
    }
  }

  #keep(chunk: Buffer, from: number, to: number): void {
    this.#kept = Buffer.from(chunk.subarray(from, to))
  }

  /** Goes on with what was kept. */
  #goOn(): void {
    const kept = this.#kept
    this.#kept = null
    if (kept !== null) this.#take(kept, kept.length)
    if (this.#phase.kind === 'open' && this.#phase.socket.backlog === 0 && !this.#commands.isStopWanted)
      this.#client.resume()
  }

  #updateStop(): void {
    const was = this.#commands.isStopWanted
    this.#commands.isStopWanted = this.#isStopping || this.#resets > 0
    if (was && !this.#commands.isStopWanted) this.#goOn()
  }

  /** The server is to get no more commands. */
  get #isStopping(): boolean {
    return this.#isLeaving || this.#snapshot.cluster.isHalted
  }

  /** A command that came while a failover was under way is held for as long as a connection may take, and so is a last reply waited for. */
  #waitForEnd(): void {
    const isHeld = this.#snapshot.cluster.isHalted && this.#kept !== null
    if (!isHeld && !(this.#isLeaving && this.#snapshot.cluster.isFollowed)) return
    this.#patience ??= new CoarseTimer(() => this.#onImpatience())
    if (this.#patience.at === Number.POSITIVE_INFINITY) this.#patience.set(now() + this.#snapshot.timeouts.connectMs)
  }

  #onImpatience(): void {
    if (this.#phase.kind !== 'open') return
    const { cluster, timeouts } = this.#snapshot
    if (this.#isLeaving) this.#fail('upstream_reset', `${NOT_THE_ONE}, and does not answer any more`)
    else if (cluster.isHalted && this.#kept !== null) {
      const why = cluster.discoveryFailure ?? 'the new master is not known yet'
      this.#fail('no_healthy_endpoint', `a failover has taken more than ${timeouts.connectMs} ms: ${why}`)
    }
  }

  #toServer(chunk: Buffer, from: number, to: number): void {
    if (from === to || this.#phase.kind !== 'open') return
    const { socket } = this.#phase
    if (chunk === this.#clientMemory) {
      if (socket.lend(chunk.subarray(from, to), chunk)) {
        if (to - from >= SMALL_BYTES) return
        giveChunk(chunk)
      } else this.#client.pause()
      // The server's socket has the memory until it has sent all of it.
      this.#clientMemory = null
      this.#client.readInto(null)
      return
    }
    const out = scratchFor(to - from)
    chunk.copy(out, 0, from, to)
    if (!socket.lend(firstBytes(out, to - from), out)) this.#client.pause()
    else if (to - from >= BULK_BYTES && this.#clientMemory === null && !this.#commands.isAtBoundary) {
      this.#clientMemory = takeChunk()
      this.#client.readInto(this.#clientMemory)
    }
  }

  onCommand(command: Command, args: number): void {
    this.#count++
    this.#owner.cells.onCommand(command.index)
    if (this.#isSilent) return
    if (this.#skipsNext) {
      this.#skipsNext = false
      return
    }
    if (command.kind === Kind.plain) {
      this.#pending.push(command.index, now(), 0)
      return
    }
    this.#onSpecial(command, args)
  }

  #onSpecial(command: Command, args: number): void {
    this.#pending.push(command.index, now(), args - 1)
    switch (command.kind) {
      // With arguments that the server refuses, nothing begins and nothing ends; neither does EXEC outside of MULTI.
      case Kind.multi:
        if (args === 1) this.#isInMulti = true
        break
      case Kind.exec:
        if (args !== 1 || !this.#isInMulti) break
        this.#isInMulti = false
        this.#isWatching = false
        break
      case Kind.watch:
        if (args > 1) this.#isWatching = true
        break
      case Kind.unwatch:
        if (args === 1 && !this.#isInMulti) this.#isWatching = false
        break
      case Kind.blocking:
        this.#blocking++
        break
      case Kind.subscribe:
      case Kind.unsubscribe:
        this.#confirming++
        this.#replies.isWordWanted = true
        break
      case Kind.quit:
        this.#isQuitting = true
        break
      case Kind.replication:
        this.#isOpaque = true
        break
    }
  }

  /** A command whose arguments matter. Returns what is sent in its place; null: it is sent as it is. */
  #onGathered(command: Command, args: readonly Buffer[]): Buffer | null {
    const { credential } = this.#snapshot
    const line = credential?.line ?? null
    if (command.kind === Kind.client && this.#onClientReply(args)) return null
    const wasSilent = this.#isSilent || this.#skipsNext
    this.onCommand(command, args.length)
    if (command.kind === Kind.reset) {
      this.#resets++
      if (line !== null || wasSilent) this.#updateStop()
      return null
    }
    if (this.#isInMulti || wasSilent) {
      this.#isPinned = true
      return command.kind === Kind.auth && line !== null ? injectedAuth(line, args) : null
    }
    this.#effects ??= []
    this.#effects.push(effectOf(command.kind, args, line !== null))
    if (line === null) return null
    if (command.kind === Kind.auth) return injectedAuth(line, args)
    return command.kind === Kind.hello ? injectedHello(line, args) : null
  }

  /** CLIENT REPLY decides which commands get a reply. True when it gets none itself. */
  #onClientReply(args: readonly Buffer[]): boolean {
    if (args.length !== 3 || args[1]!.toString('latin1').toLowerCase() !== 'reply' || this.#isInMulti) return false
    const mode = args[2]!.toString('latin1').toLowerCase()
    if (mode === 'on') this.#isSilent = false
    if (mode !== 'off' && mode !== 'skip') return false
    this.#count++
    this.#owner.cells.onCommand(commands().find(({ name }) => name === 'client')?.index ?? 0)
    if (mode === 'off') this.#isSilent = true
    else this.#skipsNext = !this.#isSilent
    return true
  }

  onEnd(): void {
    this.#clientEnded = true
    // An element that is popped for an application that has left would be lost.
    if (this.#pending.count === 0 || this.#blocking > 0 || this.#isMonitor || this.#phase.kind !== 'open')
      this.#finish('client_closed', null)
  }

  /** The application has taken everything. */
  onDrain(): void {
    if (this.#phase.kind === 'open') this.#phase.socket.resume()
  }

  onClose(error: Error | null): void {
    if (this.#phase.kind === 'ended') return
    const code = (error as NodeJS.ErrnoException | null)?.code
    if (this.#phase.kind === 'closing' || code === undefined) this.#finish('client_closed', null)
    else this.#finish('client_gone', `the application broke the connection (${code})`)
  }

  // The connection to the upstream.

  #seek(): void {
    const snapshot = this.#owner.snapshot
    this.#snapshot = snapshot
    const time = now()
    if (!this.#isRateChecked && snapshot.rateLimit !== null) {
      const waitMs = snapshot.rateLimit.admit(time)
      if (waitMs < 0) {
        this.#fail(
          'rate_limited',
          `the rate limit is reached, the next connection may come in ${Math.ceil(-waitMs)} ms`,
        )
        return
      }
    }
    this.#isRateChecked = true
    this.#seekingAt = time
    const search = new Acquisition(snapshot, this)
    this.#phase = { kind: 'seeking', search }
    search.start()
  }

  onConnection(socket: RawSocket, endpoint: Endpoint, times: DialTimes): void {
    const { cluster, credential } = this.#snapshot
    const pool = RedisPool.of(cluster, endpoint)
    pool.join(this)
    socket.handler = this.#server
    this.#phase = { kind: 'open', socket, endpoint, pool }
    this.#times = times
    this.#dials++
    this.#endpoint = endpoint.name
    this.#queueMs += now() - this.#seekingAt
    this.#line = credential?.line ?? null
    this.#replies = new ReplyParser()
    this.#isLeaving = endpoint.retired
    if (this.#replays !== null) for (const command of replayOf(this.#replays)) this.#send(command)
    this.#commands.isStopWanted = this.#isStopping
    this.#touch()
    this.#goOn()
    this.#client.resume()
    this.#atBoundary()
  }

  onNoConnection(reason: Reason, detail: string, reply: string | null): void {
    if (reason === 'auth_unavailable' && reply !== null) this.#owner.onRefusedCredential(detail)
    this.#fail(reason, detail, reply)
  }

  /** Sends a command of ours. */
  #send(command: Buffer): void {
    if (this.#phase.kind !== 'open') return
    this.#pending.push(OURS, now(), 0)
    this.#ours++
    this.#phase.socket.write(command)
  }

  onEndpointHalted(): void {
    this.#updateStop()
    if (this.#snapshot.cluster.isHalted) this.#waitForEnd()
    else this.#patience?.clear()
  }

  onEndpointCut(why: string): void {
    this.#fail('upstream_reset', why)
  }

  onEndpointRetired(): void {
    this.#isLeaving = true
    this.#updateStop()
    this.#waitForEnd()
    this.#atBoundary()
  }

  /** The credential may have been renewed: logs in again between two commands, as soon as that can be done unseen. */
  renew(): void {
    const { credential } = this.#snapshot
    const line = credential?.line ?? null
    if (line === null || line === this.#line || this.#phase.kind !== 'open') return
    const isPlain =
      !this.#isInMulti && !this.#isSilent && !this.#skipsNext && this.#subscriptions === 0 && this.#confirming === 0
    if (!isPlain || this.#isMonitor || this.#isOpaque || this.#blocking > 0 || !this.#commands.isAtBoundary) return
    if (this.#pending.count > 0) return
    this.#line = line
    this.#send(line)
  }

  #canMove(): boolean {
    return (
      this.#pending.count === 0 &&
      this.#commands.isAtBoundary &&
      this.#replies.isAtBoundary &&
      !this.#isInMulti &&
      !this.#isWatching &&
      this.#subscriptions === 0 &&
      !this.#isMonitor &&
      !this.#isOpaque &&
      !this.#isPinned &&
      !this.#isSilent &&
      !this.#skipsNext &&
      !this.#isQuitting
    )
  }

  /** Called whenever something has ended: does what had to wait for that. */
  #atBoundary(): void {
    const { kind } = this.#phase
    if (kind === 'closing' || kind === 'ended' || kind === 'seeking') return
    if (this.#pending.count > 0 || !this.#replies.isAtBoundary) {
      // A wait without an end, on a server that is not the one any more.
      if (this.#isLeaving && this.#blocking > 0) this.#fail('upstream_reset', NOT_THE_ONE)
      return
    }
    if (this.#clientEnded) this.#finish('client_closed', null)
    else if (this.#owner.isDraining && !this.#isInMulti && this.#kept === null)
      this.#finish('draining', 'the sidecar is shutting down')
    else if (this.#isLeaving && kind === 'open' && this.#commands.isAtBoundary) {
      if (this.#canMove()) this.#move()
      else this.#fail('upstream_reset', `${NOT_THE_ONE}, and what is under way on the connection cannot be moved`)
    } else this.renew()
  }

  // open => quiet
  #move(): void {
    this.#leaveServer()
    this.#phase = { kind: 'quiet' }
    this.#isLeaving = false
    this.#commands.isStopWanted = false
    this.#patience?.clear()
    if (this.#kept !== null) this.#seek()
    else this.#client.resume()
  }

  #leaveServer(): void {
    if (this.#phase.kind !== 'open') return
    const { socket, endpoint, pool } = this.#phase
    socket.handler = NO_HANDLER
    socket.destroy()
    pool.leave(this)
    endpoint.leave()
    this.#snapshot.cluster.connections.release()
    this.#clientMemory = null
    this.#serverMemory = null
    this.#client.readInto(null)
  }

  // From the server.

  #onReplies(chunk: Buffer, length: number): void {
    this.#touch()
    if (this.#isOpaque) {
      this.#toClient(chunk, 0, length)
      return
    }
    const replies = this.#replies
    let sent = 0
    let at = 0
    while (this.#ours > 0 && at < length) {
      const isOurs = this.#isNextOurs(chunk[at]!)
      if (isOurs) this.#toClient(chunk, sent, at)
      replies.isOneWanted = true
      at = replies.run(chunk, at, length, this)
      replies.isOneWanted = false
      if (isOurs) sent = at
      if (replies.failure !== null) break
    }
    if (replies.failure === null) at = replies.run(chunk, at, length, this)
    if (replies.failure !== null) {
      if (at === 0 || replies.isAtBoundary) this.#toClient(chunk, sent, at)
      this.#fail('upstream_reset', `the upstream does not speak Redis, it ${replies.failure}`)
      return
    }
    this.#toClient(chunk, sent, length)
    if (this.#pending.count === 0) this.#atBoundary()
  }

  /** Whether what comes next answers a command of ours; a reply of ours that began goes on being one. */
  #isNextOurs(byte: number): boolean {
    if (this.#pending.count === 0 || this.#pending.command !== OURS) return false
    return !this.#replies.isAtBoundary || byte !== Type.push
  }

  #toClient(chunk: Buffer, from: number, to: number): void {
    if (from >= to || this.#phase.kind !== 'open') return
    const { socket } = this.#phase
    if (chunk === this.#serverMemory) {
      if (this.#client.lend(chunk.subarray(from, to), chunk)) {
        if (to - from >= SMALL_BYTES) return
        giveChunk(chunk)
      } else socket.pause()
      this.#serverMemory = null
      socket.readInto(null)
      return
    }
    const out = scratchFor(to - from)
    chunk.copy(out, 0, from, to)
    if (!this.#client.lend(firstBytes(out, to - from), out)) socket.pause()
    else if (to - from >= BULK_BYTES && this.#serverMemory === null && this.#ours === 0) {
      this.#serverMemory = takeChunk()
      socket.readInto(this.#serverMemory)
    }
  }

  onReply(type: number, word: number, integer: number): void {
    if (this.#isMonitor) {
      if (type === Type.simple && word === RESET) this.#onReset()
      return
    }
    const pending = this.#pending
    if (type === Type.push || this.#confirming > 0 || this.#subscriptions > 0) {
      if (this.#onPush(type, word, integer)) return
    }
    if (pending.count === 0) return
    const index = pending.command
    if (index === OURS) {
      pending.shift()
      this.#ours--
      if (type === Type.error) this.#onOursRefused()
      return
    }
    this.#owner.cells.onReply(index, now() - pending.time)
    pending.shift()
    if (type === Type.error) this.#onError(word)
    const { kind } = commands()[index]!
    if (kind !== Kind.plain) this.#onSpecialReply(kind, type)
  }

  /** What channels send, and what confirms a subscription. True when it answers no other command. */
  #onPush(type: number, word: number, integer: number): boolean {
    const pending = this.#pending
    const isHead = pending.count > 0 && pending.command !== OURS && this.#isSubscription(pending.command)
    if (type === Type.push || type === Type.array) {
      if (CONFIRMATIONS.has(word)) {
        if (integer >= 0) this.#subscriptions = integer
        if (!isHead) return true
        const left = pending.extra - 1
        // Without names, one comes for each channel there was: the last one is seen by what follows it.
        if (left <= 0 && (left === 0 || integer === 0)) this.#endSubscription()
        else pending.extra = left < 0 ? -2 : left
        return true
      }
      if (type === Type.push || MESSAGES.has(word)) return true
    }
    if (isHead && pending.extra < 0) this.#endSubscription()
    return false
  }

  #isSubscription(index: number): boolean {
    const { kind } = commands()[index]!
    return kind === Kind.subscribe || kind === Kind.unsubscribe
  }

  #endSubscription(): void {
    this.#owner.cells.onReply(this.#pending.command, now() - this.#pending.time)
    this.#pending.shift()
    this.#confirming--
  }

  #onSpecialReply(kind: Kind, type: number): void {
    switch (kind) {
      case Kind.blocking:
        this.#blocking--
        break
      case Kind.subscribe:
      case Kind.unsubscribe:
        // Refused: nothing else answers it in band.
        this.#confirming--
        break
      case Kind.monitor:
        this.#isMonitor = type !== Type.error
        break
      case Kind.reset:
        this.#onReset()
        break
      case Kind.auth:
      case Kind.hello:
      case Kind.select:
      case Kind.client: {
        const effect = this.#effects?.shift()
        if (effect == null || type === Type.error) break
        if (effect.pins) this.#isPinned = true
        for (const [key, command] of effect.replays) {
          this.#replays ??= new Map()
          if (command === null) this.#replays.delete(key)
          else this.#replays.set(key, command)
        }
        break
      }
    }
  }

  /** RESET took everything back, the login too. */
  #onReset(): void {
    this.#isInMulti = false
    this.#isWatching = false
    this.#isMonitor = false
    this.#isPinned = false
    this.#isSilent = false
    this.#skipsNext = false
    this.#subscriptions = 0
    this.#replays = null
    this.#resets = Math.max(0, this.#resets - 1)
    if (this.#line !== null) this.#send(this.#line)
    this.#updateStop()
  }

  #onOursRefused(): void {
    this.#owner.onRefusedCredential(
      `endpoint ${this.#endpoint} refused a credential that was renewed, or a state that was moved`,
    )
  }

  /** The server says itself that it is not the one to talk to. */
  #onError(word: number): void {
    if (word === READONLY || word === LOADING || word === MASTERDOWN) this.#snapshot.cluster.lookAgain()
  }

  #onServerDrained(): void {
    this.#touch()
    if (!this.#commands.isStopWanted) this.#client.resume()
  }

  #onServerGone(error: Error | null): void {
    if (this.#phase.kind !== 'open') return
    const { endpoint } = this.#phase
    const { cluster } = this.#snapshot
    const code = (error as NodeJS.ErrnoException | null)?.code
    if (cluster.isFollowed) cluster.lookAgain()
    if ((endpoint.retired || cluster.isFollowed) && this.#canMove()) this.#move()
    else if (this.#isQuitting || (code === undefined && this.#pending.count === 0))
      this.#finish('upstream_closed', null)
    else
      this.#fail(
        'upstream_reset',
        `endpoint ${endpoint.name} closed the connection${code === undefined ? '' : ` (${code})`}`,
      )
  }

  // The end.

  #touch(): void {
    const { idleMs } = this.#owner.snapshot.timeouts
    if (idleMs !== null) this.#idle.set(now() + idleMs)
    else if (this.#idle.at !== Number.POSITIVE_INFINITY) this.#idle.clear()
  }

  #onIdle(): void {
    const { kind } = this.#phase
    if (kind === 'closing') this.#client.destroy()
    // Whoever waits for a connection hears within timeouts.connect why there is none.
    else if (kind === 'seeking') this.#touch()
    else this.#finish('idle_timeout', null)
  }

  /** Ends with an error for whoever waits for a reply; with a reset when half of one was sent already. */
  #fail(reason: Reason, detail: string, reply: string | null = null): void {
    const { kind } = this.#phase
    if (kind === 'ended' || kind === 'closing') return
    const waits = this.#pending.count > this.#ours || this.#kept !== null || reason === 'bad_request'
    const isWhole = this.#replies.isAtBoundary || this.#replies.failure !== null
    if (waits && isWhole && !this.#isOpaque) this.#client.write(errorReply(reason, detail, reply))
    this.#finish(reason, detail, isWhole)
  }

  #finish(end: TcpEnd, detail: string | null, isWhole = true): void {
    const phase = this.#phase
    if (phase.kind === 'ended') return
    this.#patience?.release()
    if (phase.kind !== 'closing') this.#record(end, detail)
    if (phase.kind === 'seeking') phase.search.cancel()
    this.#leaveServer()
    this.#kept = null
    if (this.#client.destroyed || !isWhole) {
      this.#phase = { kind: 'ended' }
      this.#idle.release()
      this.#client.reset()
      return
    }
    this.#phase = { kind: 'closing' }
    this.#client.end()
    if (this.#client.ended && this.#client.backlog === 0) {
      this.#phase = { kind: 'ended' }
      this.#idle.release()
      return
    }
    // Bytes that nobody has read would turn the end into a reset, and the last reply with it.
    this.#client.resume()
    this.#idle.set(now() + LINGER_MS)
  }

  #record(end: TcpEnd, detail: string | null): void {
    const at = refreshClock()
    this.#owner.onSessionEnd(this, {
      end,
      detail,
      upstream: this.#snapshot.cluster.name,
      endpoint: this.#endpoint,
      attempts: this.#dials,
      bytesIn: this.#client.bytesRead,
      bytesOut: this.#client.bytesWritten,
      commands: this.#count,
      queueMs: this.#queueMs,
      connectMs: this.#times.connectMs,
      tlsMs: this.#times.tlsMs,
      durationMs: at - this.#openedAt,
    })
  }
}
