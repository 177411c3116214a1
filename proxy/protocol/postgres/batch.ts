/** Looks at what a client without a connection to the server has sent: whether it is worth one, and what can be answered without. */
import { Front, HEAD_BYTES, MAX_MESSAGE_BYTES, unknownMessage } from './messages.ts'

/** A message this long is begun before it has come whole. */
export const LARGE_BYTES: number = 64 * 1024

/** What the server answers: then there is something to wait for. */
const ASKS = new Uint8Array(256)
for (const code of [Front.query, Front.sync, Front.flush, Front.functionCall, Front.terminate]) ASKS[code] = 1

/** What a client may send at all. */
const KNOWN = new Uint8Array(256)
for (const code of Object.values(Front)) KNOWN[code] = 1

/** Reads the same bytes again when more have come; what it says is of the last call. */
export class BatchReader {
  /** A request that the server would answer is there as a whole, or a large message has begun. */
  isReady = false
  /** The client has said goodbye, and nothing is before that. */
  isTerminated = false
  /** Syncs with nothing before them: each is answered at once. */
  syncs = 0
  /** What is wrong with the bytes; null: nothing. */
  fault: string | null = null
  /** See skip(). */
  answers = 0
  /** Bytes of a message to drop that are still to come. */
  #dropping = 0

  /** Returns where the first message begins that is to be kept. */
  read(bytes: Buffer, from: number, to: number): number {
    this.isReady = false
    this.isTerminated = false
    this.syncs = 0
    this.fault = null
    const dropped = Math.min(this.#dropping, to - from)
    this.#dropping -= dropped
    let first = from + dropped
    let at = first
    while (at < to) {
      const code = bytes[at]!
      if (KNOWN[code] === 0) {
        this.fault = unknownMessage(code)
        return first
      }
      if (to - at < HEAD_BYTES) break
      const size = bytes.readInt32BE(at + 1) + 1
      if (size < HEAD_BYTES || size > MAX_MESSAGE_BYTES) {
        this.fault = `a message of ${size - 1} bytes, it has 4 to ${MAX_MESSAGE_BYTES}`
        return first
      }
      if (at === first) {
        // What is left of a COPY that failed: a server drops it too.
        if (code === Front.copyData || code === Front.copyDone || code === Front.copyFail) {
          const here = Math.min(size, to - at)
          this.#dropping = size - here
          at += here
          first = at
          continue
        }
        if (code === Front.terminate) {
          this.isTerminated = true
          return first
        }
        if ((code === Front.sync || code === Front.flush) && size === HEAD_BYTES) {
          if (code === Front.sync) this.syncs++
          at += size
          first = at
          continue
        }
      }
      if (at + size > to) break
      if (ASKS[code] === 1) this.isReady = true
      at += size
    }
    if (to - first >= LARGE_BYTES) this.isReady = true
    return first
  }

  /** Passes over the messages that are whole up to the last that asks for an answer; `answers` says how many do. */
  skip(bytes: Buffer): number {
    this.answers = 0
    let behind = 0
    for (let at = 0; bytes.length - at >= HEAD_BYTES; ) {
      const code = bytes[at]!
      at += bytes.readInt32BE(at + 1) + 1
      if (at > bytes.length) break
      if (code !== Front.query && code !== Front.sync && code !== Front.functionCall) continue
      this.answers++
      behind = at
    }
    return behind
  }
}
