/** A Unix socket that leads to the same driver as the port, for whoever in the pod may see its file. */
import { lstatSync, statSync, unlinkSync } from 'node:fs'
import { dirname } from 'node:path'
import { type Accepted, drop, type ListeningSocket, listenAtPath } from '../runtime/listen.ts'
import { NO_HANDLER, openTcp } from '../runtime/raw-socket.ts'
import { BACKLOG, BindError } from './listener.ts'

/** The directory of the socket is not there, which in a pod only a restart can mend. */
export class NoDirectoryError extends Error {
  override readonly name = 'NoDirectoryError'
}

export class UnixListener {
  readonly path: string
  #serve: (accepted: Accepted) => void
  readonly #onError: (error: Error) => void
  #socket: ListeningSocket | null = null

  /** As of Listener. */
  constructor(path: string, serve: (accepted: Accepted) => void, onError: (error: Error) => void = () => {}) {
    this.path = path
    this.#serve = serve
    this.#onError = onError
  }

  /**
   * Makes the socket, which every user may connect to: containers of a pod run as different ones, and others do not see its file.
   * What a process left behind that was killed is replaced.
   * @throws {NoDirectoryError} when its directory does not exist
   * @throws {BindError} when somebody listens there, when the file is no socket, or without the right to make it
   */
  async bind(): Promise<void> {
    try {
      this.#bind()
    } catch (error) {
      if ((error as NodeJS.ErrnoException).code !== 'EADDRINUSE') throw this.#bindError(error as NodeJS.ErrnoException)
      await this.#removeStale()
      try {
        this.#bind()
      } catch (again) {
        throw this.#bindError(again as NodeJS.ErrnoException)
      }
    }
  }

  #bind(): void {
    this.#socket = listenAtPath(this.path, BACKLOG, (accepted) => this.#serve(accepted), this.#onError)
  }

  #bindError(error: NodeJS.ErrnoException): Error {
    const directory = dirname(this.path)
    const what = `socket '${this.path}' cannot be made`
    // libuv says EACCES for a directory that is not there.
    if (!statSync(directory, { throwIfNoEntry: false })?.isDirectory()) {
      return new NoDirectoryError(`${what}: there is no directory '${directory}'`)
    }
    if (error.code === 'EACCES') return new BindError(`${what}: this user may not write to '${directory}'`)
    return new BindError(`${what}: ${error.message}`)
  }

  /** @throws {BindError} unless the file is a socket on which nobody listens */
  async #removeStale(): Promise<void> {
    const what = `socket '${this.path}' cannot be made`
    if (lstatSync(this.path, { throwIfNoEntry: false })?.isSocket() === false) {
      throw new BindError(`${what}: a file that is no socket is there, remove it or use another path`)
    }
    const code = await codeOfConnect(this.path)
    if (code === null) throw new BindError(`${what}: another process listens there, give one of the two another path`)
    if (code === 'ENOENT') return
    try {
      if (code !== 'ECONNREFUSED') throw new Error(code)
      unlinkSync(this.path)
    } catch (error) {
      throw new BindError(`${what}: what is there cannot be removed (${(error as Error).message}), use another path`)
    }
  }

  /** As of Listener. */
  handOver(serve: (accepted: Accepted) => void): void {
    this.#serve = serve
  }

  /** Accepts no more and removes the file. Connections that were accepted live on. Idempotent. */
  close(): void {
    this.#socket?.close()
    this.#socket = null
  }
}

export interface SocketContext {
  /** Who in this process listens there already, in words; null when nobody of ours does. */
  readonly owner: string | null
  /** What is not there when a pod starts never comes. */
  readonly isPod: boolean
  readonly onError: (error: Error) => void
}

/** A listener that is bound, and drops what comes until it is handed over; an error when it cannot be had. */
export async function openSocket(
  path: string,
  { owner, isPod, onError }: SocketContext,
): Promise<UnixListener | Error> {
  if (owner !== null) return new BindError(`socket '${path}' is that of ${owner}, give one of the two another path`)
  const listener = new UnixListener(path, drop, onError)
  try {
    await listener.bind()
    return listener
  } catch (error) {
    if (error instanceof BindError) return error
    if (!(error instanceof NoDirectoryError)) throw error
    return isPod
      ? new NoDirectoryError(`${error.message} in this pod, restart it`)
      : new BindError(`${error.message}, make it or use another path`)
  }
}

/** Null when somebody accepts there. */
function codeOfConnect(path: string): Promise<string | null> {
  return new Promise((resolve) => {
    const onClose = (error: Error | null): void => resolve((error as NodeJS.ErrnoException | null)?.code ?? null)
    openTcp({ path }, { ...NO_HANDLER, onConnect: (socket) => socket.destroy(), onClose })
  })
}
