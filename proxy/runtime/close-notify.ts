/** Tells an end of TLS that the peer has said (close_notify) from a FIN below it, which anybody on the way may send. */
import type { Socket } from 'node:net'

/*
 * Node tells of both as the same end of its stream, and has no way to ask which it was. But behind a FIN the kernel's socket is read
 * no more by then, and behind a close_notify it still is, unless reading is paused: an end that comes while it is can only have come
 * with records that were read before.
 */

/** What Node has and its types do not show. raw-socket.test.ts fails when a new Node changes one of these. */
interface Internals {
  readonly _handle: { readonly _parent?: Reading } | null
  push(chunk: unknown, encoding?: BufferEncoding): boolean
}

/** The handle of the connection below TLS. */
interface Reading {
  /** 0: it did not read before; otherwise a negated errno: it reads already. */
  readStart?(): number
  readStop(): number
}

/** Calls `onCut`, before the end of `socket`, a TLSSocket, is told, when its peer has sent a FIN without having ended TLS. */
export function watchEnd(socket: Socket, isPaused: () => boolean, onCut: () => void): void {
  const internals = socket as unknown as Internals
  const push = internals.push
  internals.push = (chunk, encoding) => {
    if (chunk === null && !isPaused() && isEndedBelow(internals)) onCut()
    return push.call(socket, chunk, encoding)
  }
}

function isEndedBelow({ _handle }: Internals): boolean {
  const below = _handle?._parent
  if (below?.readStart === undefined || below.readStart() !== 0) return false
  below.readStop()
  return true
}
