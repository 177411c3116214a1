/** Carries bytes between two sockets until both directions have ended: half-closes and resets go through, nothing is kept but one read. */
import { giveChunk } from '../../runtime/buffers.ts'
import { now } from '../../runtime/clock.ts'
import { passOn } from '../../runtime/pass-on.ts'
import type { RawSocket, SocketHandler } from '../../runtime/raw-socket.ts'
import { CoarseTimer, TICK_MS, type TimerOwner } from '../../runtime/timers.ts'

/** Which of the two sockets something happened to: the application's or the upstream's. */
export type SideName = 'client' | 'upstream'

/** What ended a relay. */
export type RelayEnd =
  /** Both directions ended in order; `by` was the first to say that it would send no more. */
  | { readonly kind: 'closed'; readonly by: SideName }
  /** The connection of `by` broke; the other one was reset. */
  | { readonly kind: 'broken'; readonly by: SideName; readonly error: Error | null }
  /** No byte moved for the idle time. */
  | { readonly kind: 'idle' }
  /** destroy() was called. */
  | { readonly kind: 'destroyed' }

/** Whose connection it is. */
export interface RelayOwner {
  /** Asked once in a tick in which bytes moved, so that a changed configuration counts; null: never. */
  readonly idleMs: number | null
  /** Asked when the upstream sends no more: what the client is told before its connection ends; null: nothing. */
  farewell(): Buffer | null
  /** Called once, when the upstream's socket is closed. The client's may still be busy with its last bytes. */
  onUpstreamClosed(): void
  /** Called once, when both sockets are closed. */
  onRelayEnd(end: RelayEnd): void
}

/** How often a socket that is not read is asked whether its peer has reset it. */
const PROBE_MS = 1_000
/** To write nothing fails on a connection that was reset, and sends nothing on any other. */
const NOTHING = Buffer.alloc(0)

/** A client that was told that its connection ends has this long to end it too. */
const FAREWELL_MS = 5_000

export class Relay implements TimerOwner {
  readonly #owner: RelayOwner
  readonly #client: Side
  readonly #upstream: Side
  /** For both of what follows. */
  readonly #timer: CoarseTimer
  /** When the idle time is over; Infinity: never. */
  #idleAt = Number.POSITIVE_INFINITY
  /** When the sockets that are not read are asked; Infinity: both are read. */
  #probeAt = Number.POSITIVE_INFINITY
  #firstToEnd: SideName | null = null
  #end: RelayEnd | null = null
  #open = 2
  /** When the idle time was last counted anew. */
  #touchedAt = Number.NEGATIVE_INFINITY
  #hasSaidFarewell = false

  constructor(owner: RelayOwner, client: RawSocket, upstream: RawSocket) {
    this.#owner = owner
    this.#timer = new CoarseTimer(this)
    this.#client = new Side(this, client, 'client')
    this.#upstream = new Side(this, upstream, 'upstream')
    this.#client.peer = this.#upstream
    this.#upstream.peer = this.#client
  }

  /**
   * Begins; the relay is the owner of both sockets from here on.
   * @param early what the client sent before the upstream was there; null: nothing
   * @param clientEnded the client has already said that it sends no more
   */
  start(early: Buffer | null, clientEnded: boolean): void {
    const client = this.#client.socket
    const upstream = this.#upstream.socket
    client.handler = this.#client
    upstream.handler = this.#upstream
    this.touch()
    const isTaken = early === null || upstream.write(early)
    if (clientEnded) this.#client.onEnd()
    else if (isTaken) client.resume()
    else {
      client.pause()
      this.watch()
    }
  }

  /** Ends both connections at once, as a failure that both peers see. Idempotent. */
  destroy(): void {
    this.#end ??= { kind: 'destroyed' }
    this.#client.socket.reset()
    this.#upstream.socket.reset()
  }

  /** A byte moved. */
  touch(): void {
    const time = now()
    // Of the many messages of a busy connection one in a tick does; the deadline is later by as much.
    if (time >= this.#touchedAt + TICK_MS && this.#end === null) this.#renew(time)
  }

  #renew(time: number): void {
    this.#touchedAt = time
    const { idleMs } = this.#owner
    this.#idleAt = idleMs === null ? Number.POSITIVE_INFINITY : time + idleMs + TICK_MS
    this.#arm()
  }

  /** A socket is not read any more, for now or for good, and does not tell of a reset then. */
  watch(): void {
    if (this.#probeAt !== Number.POSITIVE_INFINITY) return
    this.#probeAt = now() + PROBE_MS
    this.#arm()
  }

  #arm(): void {
    const at = Math.min(this.#idleAt, this.#probeAt)
    if (at !== Number.POSITIVE_INFINITY) this.#timer.set(at)
    else this.#timer.clear()
  }

  onTimer(): void {
    const time = now()
    if (time >= this.#idleAt) {
      this.#idleAt = Number.POSITIVE_INFINITY
      this.#onIdle()
    }
    if (time >= this.#probeAt) {
      this.#probeAt = Number.POSITIVE_INFINITY
      this.#onProbe()
    }
    if (this.#open > 0) this.#arm()
  }

  #onProbe(): void {
    const client = this.#client.socket
    const upstream = this.#upstream.socket
    // What an upstream sent that is reset now is for a client first, however slowly it reads.
    const isClientUnread = client.isPaused || client.ended
    if (isClientUnread) probe(client)
    if (upstream.ended) probe(upstream)
    if (this.#open > 0 && (isClientUnread || upstream.ended)) this.watch()
  }

  onSideEnd(side: Side): void {
    this.#firstToEnd ??= side.name
    this.touch()
    this.watch()
    if (side.name === 'upstream') this.#sayFarewell()
    side.peer.socket.end()
  }

  /** Whether the client has been told, in words that it understands, that its connection ends. */
  #sayFarewell(): boolean {
    if (this.#hasSaidFarewell) return true
    // A client that sends no more has asked for the end itself.
    if (this.#firstToEnd === 'client') return false
    const words = this.#owner.farewell()
    const client = this.#client.socket
    if (words === null || client.destroyed) return false
    this.#hasSaidFarewell = true
    client.write(words)
    return true
  }

  onSideClosed(side: Side, error: Error | null): void {
    this.#open--
    const peer = side.peer.socket
    const isOrderly = error === null && side.socket.ended && peer.ended
    if (!isOrderly && !peer.destroyed) {
      this.#end ??= { kind: 'broken', by: side.name, error }
      if (side.name === 'upstream' && this.#sayFarewell()) {
        // What was written goes out before the end; a client that does not end then is not waited for.
        peer.end()
        peer.resume()
        this.#idleAt = now() + FAREWELL_MS
        this.#arm()
      } else peer.reset()
    }
    if (side.name === 'upstream') this.#owner.onUpstreamClosed()
    if (this.#open > 0) return
    this.#timer.release()
    this.#owner.onRelayEnd(this.#end ?? { kind: 'closed', by: this.#firstToEnd ?? side.name })
  }

  /** One socket has taken everything. */
  onSideDrained(side: Side): void {
    this.touch()
    side.peer.socket.resume()
  }

  #onIdle(): void {
    this.#end ??= { kind: 'idle' }
    this.#client.socket.destroy()
    this.#upstream.socket.destroy()
  }
}

/** Hears of a failure by onClose, or once what came before it is read. */
function probe(socket: RawSocket): void {
  if (socket.knowsReset && !socket.destroyed && socket.backlog === 0) socket.write(NOTHING)
}

/** One direction: what comes from `socket` goes to the peer's, and reading stops while the peer does not take it. */
class Side implements SocketHandler {
  readonly name: SideName
  readonly socket: RawSocket
  peer!: Side
  readonly #relay: Relay
  /** Memory that this socket reads into; null: the memory that all sockets share. */
  #own: Buffer | null = null

  constructor(relay: Relay, socket: RawSocket, name: SideName) {
    this.#relay = relay
    this.socket = socket
    this.name = name
  }

  onData(chunk: Buffer, length: number): void {
    this.#relay.touch()
    this.#own = passOn(this.#own, this.socket, this.peer.socket, chunk, 0, length)
    if (!this.socket.isPaused) return
    // An application that is gone does not wait until the upstream takes what it sent last.
    const { writeError } = this.socket
    if (writeError !== null && this.name === 'client' && this.socket.knowsReset) this.socket.destroy(writeError)
    else this.#relay.watch()
  }

  onEnd(): void {
    this.#relay.onSideEnd(this)
  }

  onDrain(): void {
    this.#relay.onSideDrained(this)
  }

  onClose(error: Error | null): void {
    if (this.#own !== null) giveChunk(this.#own)
    this.#own = null
    this.#relay.onSideClosed(this, error)
  }
}
