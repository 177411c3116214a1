/** A socket that reads into one buffer shared by all sockets and says after each write whether the memory is free again. */
import { keepScratch, lend, SHARED_READ_BUFFER, takeBack } from './buffers.ts'
import { refreshClock } from './clock.ts'
import {
  ALREADY_READING,
  beginConnect,
  type ConnectionHandle,
  close,
  type Destination,
  END_OF_STREAM,
  type HandleOwner,
  ioError,
  type Name,
  newPipe,
  newTcp,
  own,
  type StreamHandle,
  shutDown,
  writeTo,
} from './handles.ts'
import type { Accepted } from './listen.ts'

/** What a socket tells its owner. The owner may be replaced at any time by assigning `handler`. */
export interface SocketHandler {
  /**
   * Bytes [0, length) of `chunk` arrived. They are gone after the call: the next read of any socket overwrites them, unless
   * readInto() gave this socket memory of its own. On a TLS socket it is called on after pause() for the records of the read under
   * way, 16 KiB altogether but any number of them, so a receiver must be able to keep that much.
   */
  onData(chunk: Buffer, length: number): void
  /** The peer will send no more (FIN, or close_notify); our direction is still open until end() or destroy(). */
  onEnd(): void
  /** Everything written was taken by the kernel: memory that write() kept is free, and more may be written. */
  onDrain(): void
  /** Last call, exactly once. `error` is null after an orderly end or destroy(). */
  onClose(error: Error | null): void
}

/** Of a connection that is not there yet. */
export interface ConnectHandler extends SocketHandler {
  /** It is: it may be written to. Nothing is read before start(). */
  onConnect(socket: RawSocket): void
}

/** Sees what goes through a socket, whoever owns it, and changes nothing. The bytes are good for the call alone. */
export interface SocketTap {
  onRead(chunk: Buffer, length: number): void
  onWrite(data: Buffer): void
}

/** The handler of a socket that nobody owns: drops what comes. */
export const NO_HANDLER: SocketHandler = { onData() {}, onEnd() {}, onDrain() {}, onClose() {} }

/** Leaves a socket to itself: what still comes is dropped, what was written goes out, and the end of the peer closes it. */
export function dropRest(socket: RawSocket): void {
  socket.handler = { ...NO_HANDLER, onEnd: () => socket.destroy() }
  socket.resume()
}

/** Where a connection is in its life: `taken` when another socket, TLS on top of it, has its handle. */
type State = 'connecting' | 'open' | 'taken' | 'closing' | 'closed'

/**
 * A TCP connection or a Unix socket, or TLS on one of them (tls-socket.ts). Writing goes straight to the handle (one write call, no
 * tick, no copy); what the kernel does not take at once is kept by libuv and reported by onDrain.
 */
export class RawSocket implements HandleOwner {
  handler: SocketHandler
  /** Bytes received and sent so far. */
  bytesRead = 0
  bytesWritten = 0
  /** Bytes written that the kernel has not taken; 0 means that onDrain has been or need not be called. */
  backlog = 0
  /** The peer has sent FIN. */
  ended = false
  /** It did so on a TLS connection without ending TLS (close_notify): what came may not be all that it sent. Said before onEnd. */
  isCut = false
  destroyed = false
  /** Null: nobody looks on. */
  tap: SocketTap | null = null
  /** Called when it is closed, whoever owns it by then; null: nobody asks. */
  afterClose: (() => void) | null = null

  /** What the kernel knows. */
  protected readonly connection: ConnectionHandle
  /** What is read and written: the connection itself, or TLS on it. */
  readonly #handle: StreamHandle
  #state: State
  #isReading = false
  #paused = false
  #endWanted = false
  #endSent = false
  #isEndDone = false
  readonly #shared: Buffer
  /** In use, which keeps it from the collector; and from the next read on. */
  #readBuffer: Buffer
  #nextReadBuffer: Buffer
  #error: Error | null = null
  #writeError: Error | null = null
  /** TLS takes one write at a time; the others wait here. */
  #queue: Buffer[] | null = null
  /** Memory to be given back when everything is written. */
  #lent: Buffer[] | null = null
  /** Writes that libuv holds, and their lengths: of the oldest, and of the others in their order. */
  #inFlight = 0
  #oldestBytes = 0
  #otherBytes: number[] | null = null

  /** Use adopt(), openTcp() or TlsSocket. */
  constructor(
    connection: ConnectionHandle,
    handle: StreamHandle,
    state: 'connecting' | 'open',
    handler: SocketHandler,
    readBuffer: Buffer = SHARED_READ_BUFFER,
  ) {
    this.connection = connection
    this.#handle = handle
    this.#state = state
    this.handler = handler
    this.#shared = readBuffer
    this.#readBuffer = readBuffer
    this.#nextReadBuffer = readBuffer
    connection.owner = this
  }

  get isTls(): boolean {
    return this.#handle !== this.connection
  }

  /** For the handle alone. */
  onConnected(status: number): void {
    // Closed before it was there.
    if (this.#state !== 'connecting') return
    if (status !== 0) {
      this.destroy(ioError('connect', status))
      return
    }
    this.#state = 'open'
    ;(this.handler as ConnectHandler).onConnect(this)
  }

  /** Begins to read, unless somebody has paused it. */
  start(): void {
    if (this.#state !== 'open') return
    own(this.#handle, this, this.#readBuffer)
    if (!this.#paused) this.#read()
    if (this.#endWanted && this.#inFlight === 0) this.#sendEnd()
  }

  #read(): void {
    if (this.ended) return
    const errno = this.#handle.readStart()
    if (errno === 0 || errno === ALREADY_READING) this.#isReading = true
    else this.fail(ioError('read', errno))
  }

  /** For the handle alone. */
  onRead(length: number): Buffer | undefined {
    if (this.#state !== 'open') return undefined
    if (length > 0) {
      const chunk = this.#readBuffer
      refreshClock()
      this.bytesRead += length
      if (this.tap !== null) this.tap.onRead(chunk, length)
      this.handler.onData(chunk, length)
      // One that was destroyed in there may have given its memory away, and TLS goes on with the records that it has.
      const next = this.destroyed ? this.#shared : this.#nextReadBuffer
      if (next === chunk) return undefined
      this.#readBuffer = next
      return next
    }
    if (length === END_OF_STREAM) this.#onEnd()
    else if (length < 0) this.fail(ioError('read', length))
    return undefined
  }

  #onEnd(): void {
    if (this.ended) return
    this.ended = true
    if (this.isTls && !this.#paused) this.isCut = this.#isEndedBelow()
    if (this.#writeError !== null) {
      this.fail(this.#writeError)
      return
    }
    refreshClock()
    this.handler.onEnd()
    if (this.#isEndDone) this.destroy()
  }

  /**
   * TLS tells of its own end (close_notify) and of a FIN below it, which anybody on the way may send, as the same. But behind a FIN the
   * connection is read no more, and behind a close_notify it still is.
   */
  #isEndedBelow(): boolean {
    const { connection } = this
    if (connection.readStart() !== 0) return false
    connection.readStop()
    return true
  }

  /** Of `backlog`, what the kernel has not taken at this moment: it shrinks while a slow peer reads, long before onDrain. */
  get unsent(): number {
    return this.backlog === 0 || this.#isGone ? 0 : this.#handle.writeQueueSize
  }

  /**
   * The peer is slow: of what was written, some is still here. Not so with TLS whose records the kernel has taken, though each counts
   * in `backlog` until the end of the turn: to stop reading for that would be to stop at each write.
   */
  get isSlow(): boolean {
    if (this.backlog === 0) return false
    if (!this.isTls || (this.#queue !== null && this.#queue.length > 0)) return true
    return this.#isGone || this.connection.writeQueueSize > 0
  }

  /** Why nothing can be written any more: the peer reset the connection, and what it sent before may still be read. Null: it can. */
  get writeError(): Error | null {
    return this.#writeError
  }

  /** A failure to write means that the peer broke the connection. On a Unix socket it may have closed in order, and what it sent counts. */
  get knowsReset(): boolean {
    return !this.isTls && !this.isUnix
  }

  /** It leads to another process of this host, and has no addresses. */
  get isUnix(): boolean {
    return this.connection.getpeername === undefined
  }

  get isPaused(): boolean {
    return this.#paused
  }

  get #isGone(): boolean {
    return this.#state === 'closing' || this.#state === 'closed'
  }

  /** The other end, asked from the kernel; null on a Unix socket, and once it is closed. */
  get remote(): Name | null {
    const name: Partial<Name> = {}
    return this.#isGone || this.connection.getpeername?.(name) !== 0 ? null : (name as Name)
  }

  /** This end, as `remote`. */
  get local(): Name | null {
    const name: Partial<Name> = {}
    return this.#isGone || this.connection.getsockname?.(name) !== 0 ? null : (name as Name)
  }

  /**
   * Has the kernel send at once what is written, and ask a silent peer whether it is there: after `idleMs`, then each second, ten times.
   * Nothing on a Unix socket.
   */
  tune(idleMs: number): void {
    if (this.#isGone) return
    this.connection.setNoDelay?.(true)
    this.keepAlive(idleMs)
  }

  /** The second half of tune(). */
  keepAlive(idleMs: number): void {
    if (!this.#isGone) this.connection.setKeepAlive?.(true, idleMs / 1000)
  }

  /** Asks a Unix socket without TLS, whose kernel tells by itself: true when nobody holds the other end any more. */
  isAbandoned(): boolean {
    if (this.#isGone || this.#writeError !== null) return true
    // A write under way hears of it by itself, and one of no bytes behind it would be counted as one of ours when it ends.
    if (this.#inFlight > 0 || this.isTls) return false
    return writeTo(this.#handle, NOTHING, this) instanceof Error
  }

  /**
   * Sends `data` after everything written before.
   * @returns true when the memory may be used again at once; false when the socket keeps it until onDrain. Also true, with the
   * data dropped, once the connection cannot be written to any more: the owner hears onEnd or onClose.
   */
  write(data: Buffer): boolean {
    if (this.destroyed || this.#endWanted || this.#writeError !== null) return true
    // Node would read in there, and a write in the onData that follows would end the process.
    if (data.length === 0 && this.isTls) return true
    this.bytesWritten += data.length
    if (this.tap !== null) this.tap.onWrite(data)
    if (this.#inFlight > 0 && this.isTls) {
      this.#queue ??= []
      this.#queue.push(data)
      this.backlog += data.length
      return false
    }
    return this.#send(data)
  }

  /**
   * As write(), of memory from buffers.ts that `data` is a part of: the socket gives the memory back when it is done with it, so
   * the caller must not touch it again when this returns false.
   */
  lend(data: Buffer, memory: Buffer): boolean {
    if (this.write(data)) return true
    keepScratch(memory)
    lend()
    this.#lent ??= []
    this.#lent.push(memory)
    return false
  }

  #giveBack(): void {
    if (this.#lent === null) return
    for (const memory of this.#lent) takeBack(memory)
    this.#lent = null
  }

  #send(data: Buffer): boolean {
    const said = writeTo(this.#handle, data, this)
    if (said === true) return true
    if (said !== false) {
      this.#writeError ??= said
      this.#onWriteError()
      return true
    }
    if (this.#inFlight++ === 0) this.#oldestBytes = data.length
    else {
      this.#otherBytes ??= []
      this.#otherBytes.push(data.length)
    }
    this.backlog += data.length
    // OpenSSL has encrypted (copied) the data by now, whatever becomes of the record.
    return this.isTls
  }

  /** For the handle alone: the oldest write under way has ended. */
  onWritten(status: number, detail: string | undefined): void {
    if (status < 0) this.#writeError ??= ioError('write', status, detail)
    this.#inFlight--
    if (this.destroyed) return
    if (this.#writeError !== null) {
      this.#onWriteError()
      return
    }
    this.backlog -= this.#oldestBytes
    this.#oldestBytes = this.#inFlight > 0 ? (this.#otherBytes?.shift() ?? 0) : 0
    while (this.#queue !== null && this.#queue.length > 0 && this.#inFlight === 0) {
      const next = this.#queue.shift() as Buffer
      this.backlog -= next.length
      this.#send(next)
      // It has told of that, and there is nothing to go on with.
      if (this.#writeError !== null) return
    }
    if (this.#inFlight > 0) return
    this.#giveBack()
    if (this.#endWanted) this.#sendEnd()
    refreshClock()
    this.handler.onDrain()
  }

  /**
   * The peer reset the connection, yet its last words may still be in our receive buffer (an answer sent before it refused the
   * rest of an upload). So the read side is read to its end, which a reset connection reaches at once, and only then closed.
   */
  #onWriteError(): void {
    this.#queue = null
    this.backlog = 0
    if (this.ended && this.#writeError !== null) this.fail(this.#writeError)
    else if (this.#paused) this.resume()
  }

  /** No onData until resume(); see onData for TLS. */
  pause(): void {
    if (this.#paused || this.destroyed) return
    this.#paused = true
    if (!this.#isReading) return
    this.#isReading = false
    this.#handle.readStop()
  }

  resume(): void {
    if (!this.#paused || this.destroyed) return
    this.#paused = false
    if (this.#state === 'open') this.#read()
  }

  /**
   * From the read after the next onData on, bytes go into `buffer` instead of the shared one; null goes back. With memory of its
   * own a body is passed on without a copy: write(chunk) in onData and, when that returns false, pause() until onDrain. A TLS
   * source (see onData) must then also readInto() another buffer before it returns. Call it inside onData.
   */
  readInto(buffer: Buffer | null): void {
    this.#nextReadBuffer = buffer ?? this.#shared
  }

  /** Sends FIN (close_notify before it on TLS) after everything written; reading goes on. */
  end(): void {
    if (this.#endWanted || this.destroyed) return
    this.#endWanted = true
    if (this.#inFlight === 0 && this.#state === 'open') this.#sendEnd()
  }

  #sendEnd(): void {
    if (this.#endSent) return
    this.#endSent = true
    // Everything is with the kernel and the peer has said that it sends no more: closing says the same, and is one step in place of two.
    if (this.ended && !this.isTls) {
      this.destroy()
      return
    }
    const said = shutDown(this.#handle, this)
    if (said === true) this.onShutdown()
    else if (said !== false) this.fail(said)
  }

  /** For the handle alone: what end() asked for is done. */
  onShutdown(): void {
    this.#isEndDone = true
    if (this.ended) this.destroy()
  }

  /** Closes both directions now; data not yet sent is lost. */
  destroy(error?: Error): void {
    if (this.destroyed) return
    this.#error ??= error ?? null
    this.#close(false)
  }

  /** The connection cannot go on: `error` is what the owner hears. */
  protected fail(error: Error): void {
    this.destroy(error)
  }

  /**
   * Closes with RST, so that the peer cannot take what it has for complete. A TLS connection is cut without close_notify, which says
   * the same; a Unix socket knows no RST.
   */
  reset(): void {
    if (this.destroyed) return
    // In the turn in which it sends a FIN, behind everything written, libuv refuses to reset a socket, and Node then loses the descriptor.
    const isEnding = this.#endSent && !this.#isEndDone
    this.#close(this.#state === 'open' && !this.isTls && !isEnding)
  }

  #close(isReset: boolean): void {
    this.destroyed = true
    this.#state = 'closing'
    close(this.connection, isReset)
  }

  /** Gives the connection to another socket, which reads it from now on; this one hears and does nothing more. */
  protected static release(socket: RawSocket): ConnectionHandle {
    if (socket.#isReading) socket.#handle.readStop()
    socket.#state = 'taken'
    socket.destroyed = true
    socket.handler = NO_HANDLER
    return socket.connection
  }

  /** For the handle alone. */
  onClosed(): void {
    this.#state = 'closed'
    this.backlog = 0
    this.#queue = null
    this.#giveBack()
    refreshClock()
    const { handler } = this
    this.handler = NO_HANDLER
    handler.onClose(this.#error)
    this.afterClose?.()
  }
}

const NOTHING = Buffer.alloc(0)

/** Takes a connection that was accepted, and reads it into the shared buffer, or a part of it, from now on. */
export function adopt(accepted: Accepted, handler: SocketHandler, readBuffer?: Buffer): RawSocket {
  const connection = accepted as ConnectionHandle
  const raw = new RawSocket(connection, connection, 'open', handler, readBuffer)
  raw.start()
  return raw
}

/** Begins to connect. The owner hears of the end by onConnect or onClose, both of them later. */
export function openTcp(to: Destination, handler: ConnectHandler, readBuffer?: Buffer): RawSocket {
  const connection = 'path' in to ? newPipe() : newTcp()
  const raw = new RawSocket(connection, connection, 'connecting', handler, readBuffer)
  const errno = beginConnect(connection, to)
  if (errno !== 0) raw.destroy(ioError('connect', errno))
  return raw
}
