/** Gathers the rows that a server answers a question of ours by. */
import { HEAD_BYTES } from './messages.ts'
import type { Splitter } from './splitter.ts'

export class Rows {
  /** Values byte for byte (latin1); null: SQL's null. */
  readonly list: (string | null)[][] = []
  /** There were more bytes than are taken, so that rows are missing. */
  isCut = false
  readonly #maxBytes: number
  #bytes = 0
  #pieces: Buffer[] = []

  constructor(maxBytes: number) {
    this.#maxBytes = maxBytes
  }

  /** Takes a piece of a DataRow. */
  take({ bytes, from, to, isFirst, isLast, size }: Splitter): void {
    if (isFirst) this.#bytes += size
    if (this.#bytes > this.#maxBytes) {
      this.isCut = true
      this.#pieces = []
      return
    }
    this.#pieces.push(Buffer.from(bytes.subarray(from, to)))
    if (!isLast) return
    this.list.push(valuesOf(this.#pieces.length === 1 ? this.#pieces[0]! : Buffer.concat(this.#pieces)))
    this.#pieces = []
  }
}

function valuesOf(message: Buffer): (string | null)[] {
  const values: (string | null)[] = []
  const count = message.readInt16BE(HEAD_BYTES)
  for (let at = HEAD_BYTES + 2; values.length < count; ) {
    const length = message.readInt32BE(at)
    at += 4
    values.push(length < 0 ? null : message.toString('latin1', at, at + length))
    at += Math.max(0, length)
  }
  return values
}
