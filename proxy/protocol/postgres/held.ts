/** Bytes of a client that wait for a connection to the server, or for the rest of a message. */
export class Held {
  /** What is held is [0, length) of it; null: nothing is. */
  bytes: Buffer | null = null
  length = 0

  /** Holds bytes [from, to) behind what is held already. They are copied. */
  add(bytes: Buffer, from: number, to: number): void {
    const needed = this.length + to - from
    if (this.bytes === null || this.bytes.length < needed) {
      const grown = Buffer.allocUnsafe(this.bytes === null ? needed : Math.max(needed, 2 * this.length))
      this.bytes?.copy(grown, 0, 0, this.length)
      this.bytes = grown
    }
    bytes.copy(this.bytes, this.length, from, to)
    this.length = needed
  }

  /** Holds bytes [from, to) and nothing else. They may be those that are held. */
  keep(bytes: Buffer, from: number, to: number): void {
    if (from === to) this.clear()
    else if (bytes !== this.bytes || from > 0) {
      this.bytes = Buffer.from(bytes.subarray(from, to))
      this.length = this.bytes.length
    }
  }

  /** What is held, which is then not held any more. */
  take(): Buffer | null {
    const held = this.bytes?.subarray(0, this.length) ?? null
    this.clear()
    return held
  }

  clear(): void {
    this.bytes = null
    this.length = 0
  }
}
