/** Follows what an application is sent, so that it can be told in its own protocol when its server is gone. */
import type { SocketTap } from '../../runtime/raw-socket.ts'
import { Back, Front, HEAD_BYTES } from './messages.ts'
import { errorResponse } from './respond.ts'
import { Splitter, wantHeads } from './splitter.ts'

const HEADS = wantHeads()

export class Watch implements SocketTap {
  readonly #log: SocketTap | null
  readonly #server = new Splitter(HEADS)
  #last = 0
  #isLeaving = false

  /** @param log sees the same */
  constructor(log: SocketTap | null) {
    this.#log = log
  }

  onRead(chunk: Buffer, length: number): void {
    // Terminate has nothing in it and nothing behind it.
    this.#isLeaving = length >= HEAD_BYTES && isTerminate(chunk, length - HEAD_BYTES)
    this.#log?.onRead(chunk, length)
  }

  onWrite(data: Buffer): void {
    const server = this.#server
    server.feed(data, 0, data.length)
    while (server.next()) this.#last = server.code
    this.#log?.onWrite(data)
  }

  /** FATAL, unless the server has said why it ends itself, the application has said goodbye, or a message is half through. */
  farewell(): Buffer | null {
    if (this.#isLeaving || this.#last === Back.error || !this.#server.isBetween || this.#server.isBroken) return null
    return errorResponse(
      'upstream_reset',
      'the server is gone, and what was not committed is lost; connect again, and look whether a COMMIT on its way took effect',
    )
  }
}

function isTerminate(bytes: Buffer, at: number): boolean {
  return bytes[at] === Front.terminate && bytes.readUInt32BE(at + 1) === 4
}
