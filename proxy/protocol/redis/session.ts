/** One connection of the application: its bytes go to a server and back as they are, while parsers tell where commands and replies end. */
import type { Reason } from '../../../common/reasons.ts'
import { whyLimited } from '../../policy/rate-limit.ts'
import { now, refreshClock } from '../../runtime/clock.ts'
import { passOn } from '../../runtime/pass-on.ts'
import { NO_HANDLER, type RawSocket, type SocketHandler } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import type { DialTimes } from '../../upstream/connector.ts'
import type { Endpoint } from '../../upstream/endpoint.ts'
import { type PoolMember, RedisPool } from '../../upstream/redis-pool.ts'
import type { TcpEnd, TcpRecord } from '../tcp/session.ts'
import { type Acquirer, Acquisition } from './acquire.ts'
import type { RedisCells } from './cells.ts'
import { Conversation, type ConversationHost } from './conversation.ts'
import { errorReply } from './respond.ts'
import type { RedisSnapshot } from './snapshot.ts'

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

const NOT_THE_ONE = 'the server is no longer the one to talk to'
/** For a last reply of a server that was replaced because it does not answer. */
const DOWN_MS = 50
/** How long an application may take to read a last reply. */
const LINGER_MS = 1000

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

export class RedisSession implements SocketHandler, ConversationHost, Acquirer, PoolMember {
  readonly #owner: SessionOwner
  readonly #client: RawSocket
  readonly #idle: CoarseTimer
  readonly #openedAt = now()
  #phase: Phase = { kind: 'quiet' }
  /** Of the connection to the upstream, and so is what it released with it. */
  #snapshot: RedisSnapshot
  readonly #conversation: Conversation
  /** What the application sent and nobody has read: the beginning of a command, or more while it has to wait. */
  #kept: Buffer | null = null
  #isRateChecked = false
  /** The AUTH that the connection logged in with. */
  #line: Buffer | null = null
  #isLeaving = false
  #clientEnded = false
  /** The end of the application was passed on. */
  #isEndSent = false
  /** What is wrong with a command, told when those before it are answered; null: nothing. */
  #refusal: string | null = null
  /** The next command must wait for the replies to those before it. */
  #isWaitingForReplies = false
  /** The server has not confirmed what makes the connection like the one before, or the login after RESET. */
  #isReplaying = false
  /** Memory that the two sockets read into; null: what all sockets share. */
  #clientMemory: Buffer | null = null
  #serverMemory: Buffer | null = null
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
    this.#conversation = new Conversation(owner.cells, this)
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
    return this.#phase.kind === 'seeking' || this.#conversation.isBusy || this.#kept !== null
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
    if (this.#phase.kind === 'closing' || this.#phase.kind === 'ended' || this.#refusal !== null) return
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
    const conversation = this.#conversation
    const parser = conversation.commands
    let sent = 0
    let at = 0
    for (;;) {
      at = parser.run(chunk, at, length, conversation)
      if (parser.stop !== 'gathered') break
      if (conversation.isUnclear(parser.command, parser.args)) {
        this.#isWaitingForReplies = true
        break
      }
      this.#toServer(chunk, sent, at)
      const own = conversation.onGathered(parser.command, parser.args, this.#snapshot.credential?.line ?? null)
      if (own === null) this.#toServer(chunk, at, parser.next)
      else phase.socket.write(own)
      at = parser.next
      sent = at
    }
    this.#toServer(chunk, sent, at)
    if (parser.stop === 'bad') this.#refuse(`the application's command ${parser.failure}`)
    else if (at < length) {
      this.#keep(chunk, at, length)
      if (parser.stop === 'boundary' || this.#isWaitingForReplies) this.#client.pause()
      this.#waitForEnd()
    }
  }

  /** Behind the replies to the commands before it: an error that comes earlier would be taken for one of them. */
  #refuse(detail: string): void {
    if (!this.#conversation.isAsking || this.#conversation.isHalfAsked) {
      this.#fail('bad_request', detail)
      return
    }
    this.#refusal = detail
    this.#client.pause()
  }

  #keep(chunk: Buffer, from: number, to: number): void {
    this.#kept = Buffer.from(chunk.subarray(from, to))
  }

  /** Goes on with what was kept. */
  #goOn(): void {
    const kept = this.#kept
    this.#kept = null
    if (kept !== null) this.#take(kept, kept.length)
    if (this.#phase.kind === 'open' && this.#phase.socket.backlog === 0) this.#readOn()
  }

  /** Reads from the application, unless its next command has to wait. */
  #readOn(): void {
    if (this.#conversation.commands.isStopWanted || this.#isWaitingForReplies || this.#refusal !== null) return
    this.#client.resume()
  }

  #updateStop(): void {
    const { commands, isResetting } = this.#conversation
    const was = commands.isStopWanted
    commands.isStopWanted = this.#isStopping || isResetting
    if (was && !commands.isStopWanted) this.#goOn()
  }

  /** The server is to get no more commands. */
  get #isStopping(): boolean {
    return (this.#isLeaving && !this.#isStaying) || this.#snapshot.cluster.isHalted || this.#isReplaying
  }

  /**
   * What is under way on a server that has left, and is still a good one, may go on: a transaction to its end, and what has none
   * for as long as `drainDeadline` says, if it is given.
   */
  get #isStaying(): boolean {
    const { cluster } = this.#snapshot
    if (cluster.isFollowed) return false
    const { isInMulti, isTied, isBlocking } = this.#conversation
    return isInMulti || (cluster.config.drainDeadlineMs != null && (isTied || isBlocking))
  }

  /**
   * A command that came while a failover was under way is held for as long as a connection may take, and so is a last reply waited for,
   * unless the server is known not to answer.
   */
  #waitForEnd(): void {
    const phase = this.#phase
    const { cluster, timeouts } = this.#snapshot
    const isHeld = cluster.isHalted && this.#kept !== null
    const isLast = this.#isLeaving && cluster.isFollowed
    if (!isHeld && !isLast) return
    const isDown = isLast && phase.kind === 'open' && cluster.isDown(phase.endpoint)
    const until = now() + (isDown ? Math.min(DOWN_MS, timeouts.connectMs) : timeouts.connectMs)
    this.#patience ??= new CoarseTimer(() => this.#onImpatience())
    if (until < this.#patience.at) this.#patience.set(until)
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
    const mayOwn = !this.#conversation.commands.isAtBoundary
    this.#clientMemory = passOn(this.#clientMemory, this.#client, socket, chunk, from, to, mayOwn)
  }

  onEnd(): void {
    this.#clientEnded = true
    this.#atClientEnd()
  }

  /** The application sends no more: ends when everything that it asked is answered, as a server does. */
  #atClientEnd(): void {
    const phase = this.#phase
    if (!this.#clientEnded || phase.kind === 'closing' || phase.kind === 'ended') return
    const conversation = this.#conversation
    if (phase.kind !== 'open') {
      if (this.#kept === null) this.#finish('client_closed', null)
      return
    }
    if (this.#kept !== null && (conversation.commands.isStopWanted || this.#isWaitingForReplies)) return
    if (conversation.isServersToEnd) {
      // It ends a wait: an element that is popped for an application that has left would be lost.
      if (!this.#isEndSent) phase.socket.end()
      this.#isEndSent = true
    } else if (conversation.isAnswered || conversation.isHalfAsked) this.#finish('client_closed', null)
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
        this.#fail('rate_limited', whyLimited(-waitMs))
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
    this.#isLeaving = endpoint.retired
    this.#isReplaying = false
    for (const { command, isVital } of this.#conversation.begin()) {
      this.#send(command, isVital)
      this.#isReplaying ||= isVital
    }
    this.#conversation.commands.isStopWanted = this.#isStopping
    this.#touch()
    if (!this.#isReplaying) {
      this.#goOn()
      this.#client.resume()
    }
    this.#atBoundary()
  }

  onNoConnection(reason: Reason, detail: string, reply: string | null): void {
    if (reason === 'auth_unavailable' && reply !== null) this.#owner.onRefusedCredential(detail)
    this.#fail(reason, detail, reply)
  }

  /** Sends a command of ours. */
  #send(command: Buffer, isVital: boolean): void {
    if (this.#phase.kind !== 'open') return
    this.#conversation.expectOurs(isVital)
    this.#phase.socket.write(command)
  }

  onEndpointHalted(): void {
    this.#updateStop()
    if (this.#snapshot.cluster.isHalted) this.#waitForEnd()
    else this.#patience?.clear()
    this.#atClientEnd()
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
    if (!this.#conversation.isPlain) return
    this.#line = line
    this.#send(line, false)
  }

  /** Called whenever something has ended: does what had to wait for that. */
  #atBoundary(): void {
    const { kind } = this.#phase
    if (kind === 'closing' || kind === 'ended' || kind === 'seeking') return
    const conversation = this.#conversation
    if (!conversation.isAnswered) {
      // A wait without an end, on a server that is not the one any more.
      if (this.#isLeaving && conversation.isBlocking && !this.#isStaying) this.#fail('upstream_reset', NOT_THE_ONE)
      else if (this.#refusal !== null && conversation.isHalfAsked) this.#fail('bad_request', this.#refusal)
      else this.#atClientEnd()
      return
    }
    if (this.#refusal !== null) this.#fail('bad_request', this.#refusal)
    else if (this.#clientEnded) this.#atClientEnd()
    else if (this.#owner.isDraining && !conversation.isInMulti && this.#kept === null)
      this.#finish('draining', 'the sidecar is shutting down')
    else if (this.#isLeaving && kind === 'open' && conversation.commands.isAtBoundary) {
      if (conversation.canMove) this.#move()
      else if (!this.#isStaying)
        this.#fail('upstream_reset', `${NOT_THE_ONE}, and what is under way on the connection cannot be moved`)
    } else this.renew()
  }

  // open => quiet
  #move(): void {
    this.#leaveServer()
    this.#phase = { kind: 'quiet' }
    this.#isLeaving = false
    this.#conversation.commands.isStopWanted = false
    this.#patience?.clear()
    if (this.#kept !== null) this.#seek()
    else this.#client.resume()
  }

  #leaveServer(): void {
    if (this.#phase.kind !== 'open') return
    const { socket, endpoint, pool } = this.#phase
    socket.handler = NO_HANDLER
    // What nobody confirms may still be on its way.
    if (this.#conversation.isUnheard) socket.end()
    else socket.destroy()
    pool.leave(this)
    endpoint.leave()
    this.#snapshot.cluster.connections.release()
    this.#isReplaying = false
    this.#clientMemory = null
    this.#serverMemory = null
    this.#client.readInto(null)
  }

  // From the server.

  #onReplies(chunk: Buffer, length: number): void {
    this.#touch()
    const conversation = this.#conversation
    if (conversation.isOpaque) {
      this.#toClient(chunk, 0, length)
      return
    }
    const { replies } = conversation
    let sent = 0
    let at = 0
    while (conversation.isOneByOne && at < length) {
      if (conversation.turnsOpaque(chunk[at]!)) {
        this.#toClient(chunk, sent, length)
        return
      }
      const isOurs = conversation.isNextOurs(chunk[at]!)
      if (isOurs) this.#toClient(chunk, sent, at)
      replies.isOneWanted = true
      at = replies.run(chunk, at, length, conversation)
      replies.isOneWanted = false
      if (isOurs) sent = at
      if (replies.failure !== null) break
    }
    if (replies.failure === null) at = replies.run(chunk, at, length, conversation)
    if (replies.failure !== null) {
      if (at === 0 || replies.isAtBoundary) this.#toClient(chunk, sent, at)
      this.#fail('upstream_reset', `the upstream does not speak Redis, it ${replies.failure}`)
      return
    }
    this.#toClient(chunk, sent, length)
    if (this.#isReplaying && conversation.ours === 0) {
      this.#isReplaying = false
      this.#updateStop()
    } else if (this.#isLeaving) this.#updateStop()
    if (this.#isWaitingForReplies && conversation.isAnswered) {
      this.#isWaitingForReplies = false
      this.#goOn()
    }
    if (!conversation.isWaiting || this.#clientEnded || this.#refusal !== null) this.#atBoundary()
  }

  #toClient(chunk: Buffer, from: number, to: number): void {
    if (from >= to || this.#phase.kind !== 'open') return
    const { socket } = this.#phase
    const mayOwn = this.#conversation.ours === 0
    this.#serverMemory = passOn(this.#serverMemory, socket, this.#client, chunk, from, to, mayOwn)
  }

  onResetting(): void {
    this.#updateStop()
  }

  onReset(): void {
    if (this.#line !== null) {
      this.#send(this.#line, true)
      this.#isReplaying = true
    }
    this.#updateStop()
  }

  onLoggingIn(): void {
    this.#isReplaying = true
    this.#updateStop()
  }

  onResetRefused(): void {
    this.#updateStop()
  }

  onOursRefused(isVital: boolean): void {
    const name = `endpoint ${this.#endpoint}`
    if (isVital)
      this.#fail('upstream_reset', `${name} refused the login or the database that the connection had before`)
    else this.#owner.onRefusedCredential(`${name} refused a credential that was renewed, or a state that was moved`)
  }

  onNotTheOne(): void {
    this.#snapshot.cluster.lookAgain()
  }

  #onServerDrained(): void {
    this.#touch()
    this.#readOn()
  }

  #onServerGone(error: Error | null): void {
    if (this.#phase.kind !== 'open') return
    const { endpoint } = this.#phase
    const { cluster } = this.#snapshot
    const code = (error as NodeJS.ErrnoException | null)?.code
    if (cluster.isFollowed) cluster.lookAgain()
    if (this.#isEndSent) this.#finish('client_closed', null)
    else if ((endpoint.retired || cluster.isFollowed) && this.#conversation.canMove) this.#move()
    else if (this.#conversation.isQuitting || (code === undefined && !this.#conversation.isWaiting))
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
    const { isAsking, isOpaque, replies } = this.#conversation
    const waits = isAsking || this.#kept !== null || reason === 'bad_request'
    const isWhole = replies.isAtBoundary || replies.failure !== null
    if (waits && isWhole && !isOpaque) this.#client.write(errorReply(reason, detail, reply))
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
      commands: this.#conversation.count,
      queueMs: this.#queueMs,
      connectMs: this.#times.connectMs,
      tlsMs: this.#times.tlsMs,
      durationMs: at - this.#openedAt,
    })
  }
}
