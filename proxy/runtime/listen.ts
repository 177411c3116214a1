/** Sockets that listen: on an address or a path, without the server of Node above. */
import { type ConnectionHandle, ioError, type Name, newPipeServer, newTcpServer, type ServerHandle } from './handles.ts'

/** A connection that was accepted and is read by nobody yet; adopt() of raw-socket.ts takes it, close() drops it. */
export type Accepted = Pick<ConnectionHandle, 'close'>

export interface ListenOptions {
  /** 0: a free one. */
  readonly port: number
  /** An IP address. */
  readonly host: string
  readonly ipv6Only: boolean
  /** Connections that wait in the kernel to be accepted. Default 511, as Node has it. */
  readonly backlog?: number
}

/** Called when a connection could not be accepted (no file descriptors left); the next one may be. */
type OnError = (error: Error) => void

/** UV_TCP_IPV6ONLY */
const IPV6_ONLY = 1
const DEFAULT_BACKLOG = 511

/** What is accepted and closed at once. */
export function drop(accepted: Accepted): void {
  accepted.close(() => {})
}

export class ListeningSocket {
  readonly #handle: ServerHandle
  #isClosed = false

  constructor(handle: ServerHandle, onAccepted: (accepted: Accepted) => void, onError: OnError) {
    this.#handle = handle
    handle.onconnection = (errno, accepted) => {
      if (errno !== 0) onError(ioError('accept', errno))
      else if (this.#isClosed) drop(accepted)
      else onAccepted(accepted)
    }
  }

  /** As the kernel has it; null: it listens on a path, or no more. */
  get name(): Name | null {
    const name: Partial<Name> = {}
    return this.#isClosed || this.#handle.getsockname?.(name) !== 0 ? null : (name as Name)
  }

  /** Accepts no more, and frees the address at once. Connections that were accepted live on. Idempotent. */
  close(): void {
    if (this.#isClosed) return
    this.#isClosed = true
    this.#handle.close()
  }
}

/** Codes of a kernel without IPv6, or with it turned off. */
const NO_IPV6: ReadonlySet<string> = new Set(['EADDRNOTAVAIL', 'EAFNOSUPPORT', 'EINVAL'])

/** Whether an address of IPv6 could not be bound because there is no IPv6. */
export function isWithoutIpv6(error: unknown): boolean {
  return NO_IPV6.has((error as NodeJS.ErrnoException).code ?? '')
}

/** @throws the error of the kernel, with its `code` */
export function listenAt(
  { port, host, ipv6Only, backlog = DEFAULT_BACKLOG }: ListenOptions,
  onAccepted: (accepted: Accepted) => void,
  onError: OnError,
): ListeningSocket {
  const handle = newTcpServer()
  const bind = (): number =>
    handle.bind6 !== undefined && host.includes(':')
      ? handle.bind6(host, port, ipv6Only ? IPV6_ONLY : 0)
      : handle.bind(host, port)
  const listening = new ListeningSocket(handle, onAccepted, onError)
  begin(handle, `${host}:${port}`, bind, backlog)
  // The connections that it accepts have it from here, which saves a call for each of them.
  handle.setNoDelay?.(true)
  return listening
}

/** Of a file that is made here: everybody may read and write, nobody may execute. */
const OPEN_TO_ALL = 0o111

/** As listenAt(), on a Unix socket that every user may connect to. The file is removed when it closes. */
export function listenAtPath(
  path: string,
  backlog: number,
  onAccepted: (accepted: Accepted) => void,
  onError: OnError,
): ListeningSocket {
  const handle = newPipeServer()
  const listening = new ListeningSocket(handle, onAccepted, onError)
  // A chmod behind it would leave a moment in which others are refused. Nothing else happens before it is set back.
  const umask = process.umask(OPEN_TO_ALL)
  try {
    begin(handle, path, () => handle.bind(path), backlog)
  } finally {
    process.umask(umask)
  }
  return listening
}

function begin(handle: ServerHandle, where: string, bind: () => number, backlog: number): void {
  const errno = bind() || handle.listen(backlog)
  if (errno === 0) return
  handle.close()
  throw ioError('listen', errno, `${process.getBuiltinModule('node:util').getSystemErrorMessage(errno)} ${where}`)
}
