/** A socket that reads into one buffer shared by all sockets and says after each write whether the memory is free again. */
import { connect as connectTcp, type NetConnectOpts, Socket } from 'node:net'
import type { ConnectionOptions, TLSSocket } from 'node:tls'
import { keepScratch, lend, SHARED_READ_BUFFER, takeBack } from './buffers.ts'
import { refreshClock } from './clock.ts'
import { watchEnd } from './close-notify.ts'
import { canWriteDirectly, type DirectHandle, type WriteOwner, writeDirectly } from './direct-write.ts'

/** What a socket tells its owner. The owner may be replaced at any time by assigning `handler`. */
export interface SocketHandler {
  /**
   * Bytes [0, length) of `chunk` arrived. They are gone after the call: the next read of any socket overwrites them, unless
   * readInto() gave this socket memory of its own. May be called once or twice after pause() on a TLS socket (records that were
   * already decrypted), so a receiver must be able to keep a little.
   */
  onData(chunk: Buffer, length: number): void
  /** The peer will send no more (FIN, or close_notify); our direction is still open until end() or destroy(). */
  onEnd(): void
  /** Everything written was taken by the kernel: memory that write() kept is free, and more may be written. */
  onDrain(): void
  /** Last call, exactly once. `error` is null after an orderly end or destroy(). */
  onClose(error: Error | null): void
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

/** What Node has and its types do not show. raw-socket.test.ts fails when a new Node changes one of these. */
interface Internals {
  _handle: Handle | null
  _server: object | null
  server: object | null
  _write(data: Buffer, encoding: 'buffer', done: (error?: Error | null) => void): void
}

interface Handle extends DirectHandle {
  readonly writeQueueSize: number
  readonly reset?: () => unknown
  readonly useUserBuffer?: (buffer: Buffer) => void
  /** Below TLS: the connection itself. */
  readonly _parent?: Handle
}

/**
 * A TCP or TLS connection. Writing goes past the queue of Node's Writable straight to the handle (one write call, no tick, no
 * copy); what the kernel does not take at once is kept by libuv and reported by onDrain.
 */
export class RawSocket implements WriteOwner {
  handler: SocketHandler
  /** The socket of Node below: addresses, TLS details and events of the connect. Never write to it or end it directly. */
  readonly socket: Socket
  readonly isTls: boolean
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

  #sending = false
  #taken = false
  #endWanted = false
  #endSent = false
  #paused = false
  readonly #shared: Buffer
  #nextReadBuffer: Buffer | undefined
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

  /** Use adopt(), openTcp() or openTls(). `make` is given the options that every socket of this kind needs. */
  constructor(
    make: (shared: SharedOptions) => Socket,
    isTls: boolean,
    handler: SocketHandler,
    readBuffer: Buffer = SHARED_READ_BUFFER,
  ) {
    this.handler = handler
    this.#shared = readBuffer
    this.#nextReadBuffer = readBuffer
    this.isTls = isTls
    const socket = make({
      allowHalfOpen: true,
      onread: {
        // Asked at the start and after each onData for a buffer to go on with; undefined keeps the one in use.
        buffer: () => {
          const next = this.#nextReadBuffer
          this.#nextReadBuffer = undefined
          return next as Buffer
        },
        callback: (length, chunk) => {
          this.#receive(chunk as Buffer, length)
          return true
        },
      },
    })
    this.socket = socket
    if (isTls) {
      watchEnd(
        socket,
        () => this.#paused,
        () => {
          this.isCut = true
        },
      )
    }
    socket.on('end', () => this.#onEnd())
    socket.on('error', (error) => {
      this.#error ??= error
      // After its handshake a TLSSocket tells of an alert or a damaged record and then of an end, as if the peer were done.
      if (isTls && !socket.connecting) socket.destroy()
    })
    socket.on('close', () => this.#onClose())
  }

  #receive(chunk: Buffer, length: number): void {
    refreshClock()
    this.bytesRead += length
    if (this.tap !== null) this.tap.onRead(chunk, length)
    this.handler.onData(chunk, length)
  }

  /** Of `backlog`, what the kernel has not taken at this moment: it shrinks while a slow peer reads, long before onDrain. */
  get unsent(): number {
    return this.backlog === 0 ? 0 : ((this.socket as unknown as Internals)._handle?.writeQueueSize ?? 0)
  }

  /**
   * The peer is slow: of what was written, some is still here. Not so with TLS whose records the kernel has taken, though each counts
   * in `backlog` until the end of the turn: to stop reading for that would be to stop at each write.
   */
  get isSlow(): boolean {
    if (this.backlog === 0) return false
    if (!this.isTls || (this.#queue !== null && this.#queue.length > 0)) return true
    return ((this.socket as unknown as Internals)._handle?._parent?.writeQueueSize ?? 1) > 0
  }

  /** Why nothing can be written any more: the peer reset the connection, and what it sent before may still be read. Null: it can. */
  get writeError(): Error | null {
    return this.#writeError
  }

  /** A failure to write means that the peer broke the connection. On a Unix socket it may have closed in order, and what it sent counts. */
  get knowsReset(): boolean {
    return !this.isTls && (this.socket as unknown as Internals)._handle?.reset !== undefined
  }

  get isPaused(): boolean {
    return this.#paused
  }

  /**
   * Sends `data` after everything written before.
   * @returns true when the memory may be used again at once; false when the socket keeps it until onDrain. Also true, with the
   * data dropped, once the connection cannot be written to any more: the owner hears onEnd or onClose.
   */
  write(data: Buffer): boolean {
    if (this.destroyed || this.#endWanted || this.#writeError !== null) return true
    this.bytesWritten += data.length
    if (this.tap !== null) this.tap.onWrite(data)
    if (this.isTls && this.#inFlight > 0) {
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
    if (this.#isTaken(data)) return true
    if (this.#inFlight++ === 0) this.#oldestBytes = data.length
    else {
      this.#otherBytes ??= []
      this.#otherBytes.push(data.length)
    }
    this.backlog += data.length
    // OpenSSL has encrypted (copied) the data by now, whatever becomes of the record.
    return this.isTls
  }

  /** Writes. True: it is over by now, for good or ill; false: it is under way. */
  #isTaken(data: Buffer): boolean {
    const handle = (this.socket as unknown as Internals)._handle
    if (this.isTls || !canWriteDirectly || handle === null || this.socket.connecting) return this.#isTakenByNode(data)
    const said = writeDirectly(handle, data, this)
    if (typeof said === 'boolean') return said
    this.#writeError ??= said
    this.#onWriteError()
    return true
  }

  /** The same by Node's own way, which TLS needs for what it says of errors. */
  #isTakenByNode(data: Buffer): boolean {
    this.#sending = true
    this.#taken = false
    ;(this.socket as unknown as Internals)._write(data, 'buffer', this.#onWritten)
    this.#sending = false
    return this.#taken
  }

  readonly #onWritten = (error?: Error | null): void => {
    if (!this.#sending) {
      this.onWriteEnd(error ?? null)
      return
    }
    this.#taken = true
    if (!error) return
    this.#writeError ??= error
    this.#onWriteError()
  }

  /** For the write below alone. */
  onWriteEnd(error: Error | null): void {
    if (error !== null) this.#writeError ??= error
    this.backlog -= this.#oldestBytes
    this.#oldestBytes = --this.#inFlight > 0 ? (this.#otherBytes?.shift() ?? 0) : 0
    if (this.destroyed) return
    if (this.#writeError !== null) {
      this.#queue = null
      this.backlog = 0
      this.#onWriteError()
      return
    }
    while (this.#queue !== null && this.#queue.length > 0 && this.#inFlight === 0) {
      const next = this.#queue.shift() as Buffer
      this.backlog -= next.length
      this.#send(next)
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
    if (this.ended) this.socket.destroy(this.#writeError ?? undefined)
    else if (this.#paused) this.resume()
  }

  /** No onData until resume(); see onData for TLS. */
  pause(): void {
    if (this.#paused || this.destroyed) return
    this.#paused = true
    this.socket.pause()
  }

  resume(): void {
    if (!this.#paused || this.destroyed) return
    this.#paused = false
    this.socket.resume()
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
    if (this.#inFlight === 0) this.#sendEnd()
  }

  #sendEnd(): void {
    if (this.#endSent) return
    this.#endSent = true
    // Everything is with the kernel and the peer has said that it sends no more: closing says the same, and is one step in place of two.
    if (this.ended && !this.isTls) this.destroy()
    else this.socket.end()
  }

  /** Closes both directions now; data not yet sent is lost. */
  destroy(error?: Error): void {
    if (this.destroyed) return
    this.destroyed = true
    this.socket.destroy(error)
  }

  /**
   * Closes with RST, so that the peer cannot take what it has for complete. A TLS connection is cut without close_notify, which says
   * the same; a Unix socket knows no RST.
   */
  reset(): void {
    if (this.destroyed) return
    this.destroyed = true
    const { _handle } = this.socket as unknown as Internals
    // In the turn in which it sends a FIN, behind everything written, libuv refuses to reset a socket. Node then loses the descriptor,
    // and waits for it without end where the process ends by itself.
    const isEnding = this.#endSent && !this.socket.writableFinished
    if (this.isTls || isEnding || (_handle !== null && _handle.reset === undefined)) this.socket.destroy()
    else this.socket.resetAndDestroy()
  }

  #onEnd(): void {
    if (this.ended) return
    this.ended = true
    if (this.#writeError !== null) {
      this.socket.destroy(this.#writeError)
      return
    }
    refreshClock()
    this.handler.onEnd()
  }

  #onClose(): void {
    this.destroyed = true
    this.backlog = 0
    this.#queue = null
    this.#giveBack()
    refreshClock()
    const handler = this.handler
    this.handler = NO_HANDLER
    handler.onClose(this.#error)
  }
}

interface SharedOptions {
  readonly allowHalfOpen: true
  readonly onread: { buffer: () => Buffer; callback: (length: number, chunk: Uint8Array) => boolean }
}

/** Options for the net.Server whose sockets are given to adopt(). */
export const LISTEN_OPTIONS = { allowHalfOpen: true, pauseOnConnect: true, noDelay: true, keepAlive: true } as const

/**
 * Takes the handle out of a socket that a server with LISTEN_OPTIONS accepted, and reads it into the shared buffer, or a part of
 * it. The accepted socket itself is left empty; the server goes on counting the connection through the new one.
 */
export function adopt(accepted: Socket, handler: SocketHandler, readBuffer?: Buffer): RawSocket {
  const from = accepted as unknown as Internals
  const handle = from._handle
  const server = from._server
  from._handle = null
  from._server = null
  from.server = null
  const raw = new RawSocket((shared) => new Socket({ ...shared, handle } as never), false, handler, readBuffer)
  const to = raw.socket as unknown as Internals
  to.server = server
  to._server = server
  return raw
}

/** Begins to connect; listen for 'connect' on `.socket`. */
export function openTcp(options: NetConnectOpts, handler: SocketHandler, readBuffer?: Buffer): RawSocket {
  return new RawSocket((shared) => connectTcp({ ...options, ...shared } as NetConnectOpts), false, handler, readBuffer)
}

/** Begins to connect and to shake hands; listen for 'connect', 'secureConnect' and 'session' on `.socket` (a TLSSocket). */
export function openTls(
  options: ConnectionOptions,
  handler: SocketHandler,
  readBuffer?: Buffer,
): RawSocket & { readonly socket: TLSSocket } {
  // Loaded here: 3 MB and 25 ms that a sidecar without TLS never needs.
  const { connect } = process.getBuiltinModule('node:tls')
  const make = (shared: SharedOptions): Socket => connect({ ...options, ...shared } as ConnectionOptions)
  return new RawSocket(make, true, handler, readBuffer) as RawSocket & { readonly socket: TLSSocket }
}

/** Begins TLS on a connection of Node's that is open already. */
export function upgradeTls(
  plain: Socket,
  options: ConnectionOptions,
  handler: SocketHandler,
): RawSocket & { readonly socket: TLSSocket } {
  const { connect } = process.getBuiltinModule('node:tls')
  const make = ({ onread }: SharedOptions): Socket => {
    const socket = connect({ ...options, socket: plain })
    // Otherwise what arrives comes in memory of its own, which is dearer.
    if (!readWith(socket, onread)) socket.on('data', (chunk: Buffer) => onread.callback(chunk.length, chunk))
    return socket
  }
  return new RawSocket(make, true, handler) as RawSocket & { readonly socket: TLSSocket }
}

/**
 * Has a socket that does not read yet read as if it were made with the option `onread`, which tls.connect() ignores where it is
 * given a socket. False: this version of Node is made in another way.
 */
function readWith(socket: Socket, { buffer, callback }: SharedOptions['onread']): boolean {
  const symbols = Object.getOwnPropertySymbols(socket)
  const [first, generator, told] = ['kBuffer', 'kBufferGen', 'kBufferCb'].map((name) =>
    symbols.find(({ description }) => description === name),
  )
  const handle = (socket as unknown as Internals)._handle
  if (first === undefined || generator === undefined || told === undefined || !handle?.useUserBuffer) return false
  const memory = buffer()
  Object.assign(socket, { [first]: memory, [generator]: buffer, [told]: callback })
  handle.useUserBuffer(memory)
  return true
}
