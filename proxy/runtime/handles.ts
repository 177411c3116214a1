/** The connections of libuv as Node's own sockets have them: what lies below node:net and node:tls, without the streams above. */

/*
 * A socket of Node is two streams with their events, queues and promises of order. A relay needs none of that, and where connections
 * come and go they are half of what each one costs (docs/adr/0009). Node gives these bindings out through process.binding(), which
 * its documentation deprecates and warns of only when asked to. The image has one version of Node, and handles.test.ts and
 * raw-socket.test.ts fail when another one is made in another way.
 */

/** Whoever owns a handle: the functions below the bindings find it there. */
export interface HandleOwner {
  onConnected(status: number): void
  /** @returns memory to read into from the next read on, or undefined for the same as before */
  onRead(length: number): Buffer | undefined
  onWritten(status: number, detail: string | undefined): void
  onShutdown(): void
  onClosed(): void
}

/** A stream: a TCP connection, a Unix socket, or TLS on one of them. */
export interface StreamHandle {
  owner: HandleOwner
  onread: (this: StreamHandle) => Buffer | undefined
  /** Bytes that were written and that the kernel has not taken. */
  readonly writeQueueSize: number
  /** 0, or a negated errno: also when it reads already. */
  readStart(): number
  readStop(): number
  useUserBuffer(memory: Buffer): void
  /** A number when it is over: 0 or a negated errno. Otherwise what hears of the end. */
  writeBuffer(request: null, data: Buffer): number | PendingWrite
  /** 1 or 0, or a negated errno. 1: it is over. */
  shutdown(request: ShutdownRequest): number
}

/** What the kernel knows: a TCP connection or a Unix socket. */
export interface ConnectionHandle extends StreamHandle {
  close(done: (this: ConnectionHandle) => void): void
  connect(request: ConnectRequest, address: string, port?: number): number
  /** What a Unix socket has not. */
  readonly connect6?: (request: ConnectRequest, address: string, port: number) => number
  readonly getpeername?: (out: Partial<Name>) => number
  readonly getsockname?: (out: Partial<Name>) => number
  readonly setNoDelay?: (isOn: boolean) => number
  readonly setKeepAlive?: (isOn: boolean, seconds: number) => number
  /** Closes with RST. */
  readonly reset?: (done: (this: ConnectionHandle) => void) => number
}

/** TLS on a connection. */
export interface TlsHandle extends StreamHandle {
  onhandshakestart: () => void
  onhandshakedone: (this: TlsHandle) => void
  onnewsession: (this: TlsHandle, id: Buffer, session: Buffer) => void
  onerror: (this: TlsHandle, error: Error) => void
  setVerifyMode(isAsked: boolean, isRequired: boolean): void
  enableSessionCallbacks(): void
  setSession(session: Buffer): void
  setServername(name: string): void
  setALPNProtocols(protocols: Buffer): void
  start(): void
  destroySSL(): void
  verifyError(): Error | null | undefined
  isSessionReused(): boolean
  /** False: none was agreed on. */
  getALPNNegotiatedProtocol(): string | false
  getEphemeralKeyInfo(): { readonly type?: string; readonly name?: string; readonly size?: number } | null
  getPeerCertificate(isDetailed: boolean): LegacyCertificate | undefined
}

/** As node:tls tells certificates of a peer, before it makes URLs readable. */
export interface LegacyCertificate {
  readonly raw: Buffer
  readonly issuerCertificate?: LegacyCertificate
}

/** An end of a connection as the kernel names it. */
export interface Name {
  readonly address: string
  readonly port: number
}

export interface ConnectRequest {
  oncomplete: (status: number, handle: ConnectionHandle) => void
}

interface ShutdownRequest {
  oncomplete: (this: ShutdownRequest) => void
  owner: HandleOwner
}

/** A write that libuv finishes. */
interface PendingWrite {
  oncomplete: (this: PendingWrite, status: number) => void
  /** The status of one that ended before anybody could listen; null: it has not. */
  readonly writeStatus: number | null
  /** What Node knows of the reason beside the number. */
  readonly error?: string
  owner: HandleOwner
  /** Keeps the memory from the collector. */
  data: Buffer
}

/** A socket that listens. */
export interface ServerHandle {
  onconnection: (error: number, connection: ConnectionHandle) => void
  /** Of TCP; a Unix socket has a path in place of the address. */
  bind(address: string, port?: number): number
  readonly bind6?: (address: string, port: number, flags: number) => number
  listen(backlog: number): number
  close(): void
  readonly setNoDelay?: (isOn: boolean) => number
  readonly getsockname?: (out: Partial<Name>) => number
}

type Make<T> = new (kind: number) => T

interface Binding {
  readonly TCP: Make<ConnectionHandle & ServerHandle>
  readonly TCPConnectWrap: new () => ConnectRequest
  readonly Pipe: Make<ConnectionHandle & ServerHandle>
  readonly PipeConnectWrap: new () => ConnectRequest
  readonly ShutdownWrap: new () => ShutdownRequest
  readonly streamBaseState: Int32Array
  readonly kReadBytesOrError: number
  readonly kLastWriteErr: number
  readonly wrap: (connection: ConnectionHandle, context: unknown, isServer: boolean, isWriting: boolean) => TlsHandle
}

/**
 * Since this release a handle makes the object of a write itself; before it, a call without one ends the process. What a later major
 * version does is not known.
 */
const MAJOR = 26
const FIRST_MINOR = 10

/** Pure: why a version of Node cannot run what stands on these handles; null: it can. */
export function unfitNode(version: string): string | null {
  const [major, minor = 0] = version.split('.').map(Number)
  if (major === MAJOR && minor >= FIRST_MINOR) return null
  return `Node ${version} cannot run a sidecar, which reaches below its sockets: use ${MAJOR}.${FIRST_MINOR} or a later ${MAJOR}, as the image and 'npm ci' have it`
}

/** @throws where Node refuses, as it does under --permission and with deprecations that throw */
function binding(name: string): Binding {
  try {
    return (process as unknown as { binding(name: string): Binding }).binding(name)
  } catch (error) {
    throw new Error(
      `Node does not give out what is below its sockets (${(error as Error).message}): start it without --permission and --throw-deprecation`,
      { cause: error },
    )
  }
}

const unfit = unfitNode(process.versions.node)
if (unfit !== null) throw new Error(unfit)

const { TCP, TCPConnectWrap } = binding('tcp_wrap')
const { Pipe, PipeConnectWrap } = binding('pipe_wrap')
const { ShutdownWrap, streamBaseState, kReadBytesOrError, kLastWriteErr } = binding('stream_wrap')

/** Kinds of TCP and Pipe. */
const SOCKET = 0
const SERVER = 1

/** What libuv reports of a peer that sends no more. */
export const END_OF_STREAM = -4095

/** EALREADY, of a connection that is read. */
export const ALREADY_READING = -114

const NOT_CONNECTED = -107

export const newTcp = (): ConnectionHandle => new TCP(SOCKET)
export const newPipe = (): ConnectionHandle => new Pipe(SOCKET)
export const newTcpServer = (): ServerHandle => new TCP(SERVER)
export const newPipeServer = (): ServerHandle => new Pipe(SERVER)

/** Where to connect: an address of either family and a port, or the path of a Unix socket. */
export type Destination = Readonly<Name> | { readonly path: string }

/** Begins to connect a handle of the kind that `to` needs; its owner hears of the end. @returns 0, or a negated errno: it is over */
export function beginConnect(handle: ConnectionHandle, to: Destination): number {
  if ('path' in to) {
    const request = new PipeConnectWrap()
    request.oncomplete = onConnected
    return handle.connect(request, to.path)
  }
  const request = new TCPConnectWrap()
  request.oncomplete = onConnected
  const { address, port } = to
  if (handle.connect6 !== undefined && address.includes(':')) return handle.connect6(request, address, port)
  return handle.connect(request, address, port)
}

function onConnected(status: number, handle: ConnectionHandle): void {
  handle.owner.onConnected(status)
}

/** Has `owner` hear of what `handle` reads into `memory`, once it does. */
export function own(handle: StreamHandle, owner: HandleOwner, memory: Buffer): void {
  handle.owner = owner
  handle.onread = onRead
  handle.useUserBuffer(memory)
}

function onRead(this: StreamHandle): Buffer | undefined {
  return this.owner.onRead(streamBaseState[kReadBytesOrError] as number)
}

/**
 * Writes all of `data` behind what was written before.
 * @returns true when it is with the kernel; false when the owner hears of the end by onWritten, and `data` must stay as it is until
 * then; an error when the connection cannot be written to
 */
export function writeTo(handle: StreamHandle, data: Buffer, owner: HandleOwner): boolean | Error {
  const said = handle.writeBuffer(null, data)
  if (said === 0) return true
  if (typeof said === 'number') return ioError('write', said)
  const failed = streamBaseState[kLastWriteErr] as number
  if (failed !== 0) return ioError('write', failed, said.error)
  const { writeStatus } = said
  if (writeStatus !== null && writeStatus !== undefined) {
    return writeStatus < 0 ? ioError('write', writeStatus, said.error) : true
  }
  said.oncomplete = onWritten
  said.owner = owner
  said.data = data
  return false
}

function onWritten(this: PendingWrite, status: number): void {
  this.owner.onWritten(status, this.error)
}

/** Says to the peer that nothing more comes. @returns true when that is over by now; otherwise the owner hears of it by onShutdown */
export function shutDown(handle: StreamHandle, owner: HandleOwner): boolean | Error {
  const request = new ShutdownWrap()
  request.oncomplete = onShutdown
  request.owner = owner
  const said = handle.shutdown(request)
  if (said === 0) return false
  return said === 1 || said === NOT_CONNECTED ? true : ioError('shutdown', said)
}

function onShutdown(this: ShutdownRequest): void {
  this.owner.onShutdown()
}

/** Closes, or resets; the owner hears of it by onClosed, later. */
export function close(handle: ConnectionHandle, isReset: boolean): void {
  if (isReset && handle.reset !== undefined) handle.reset(onClosed)
  else handle.close(onClosed)
}

function onClosed(this: ConnectionHandle): void {
  this.owner.onClosed()
}

/** Not asked for before the first handshake: a sidecar without TLS does not need it. */
let wrap: Binding['wrap'] | null = null

/** TLS, as a client, on a connection that is open. @param context of node:tls */
export function wrapTls(connection: ConnectionHandle, context: unknown): TlsHandle {
  wrap ??= binding('tls_wrap').wrap
  return wrap(connection, context, false, false)
}

/** What the kernel refused, as node:net tells it. @param errno negated */
export function ioError(syscall: string, errno: number, detail?: string): NodeJS.ErrnoException {
  const code = process.getBuiltinModule('node:util').getSystemErrorName(errno)
  const error = new Error(`${syscall} ${code}${detail === undefined ? '' : ` ${detail}`}`)
  return Object.assign(error, { errno, code, syscall })
}
