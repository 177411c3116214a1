/** Composes one write from parts of what was read and bytes of our own, in memory that is used again. */
import { CHUNK_BYTES, firstBytes, scratchFor } from '../../runtime/buffers.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import { HEAD_BYTES } from './messages.ts'

/** There is one, as there is one event loop: begin(), then parts, then flush(), with nothing else between. */
class Outgoing {
  #raw: RawSocket | null = null
  #memory: Buffer | null = null
  #at = 0
  /** Parts that lie behind each other are copied as one. */
  #run: Buffer | null = null
  #from = 0
  #to = 0

  /** @param estimate bytes that will probably come */
  begin(raw: RawSocket, estimate: number): void {
    this.#raw = raw
    this.#memory = scratchFor(Math.min(CHUNK_BYTES, estimate))
    this.#at = 0
    this.#run = null
  }

  get isEmpty(): boolean {
    return this.#at === 0 && this.#run === null
  }

  /** `bytes` must stay as they are until flush(). */
  add(bytes: Buffer, from: number, to: number): void {
    if (bytes === this.#run && from === this.#to) {
      this.#to = to
      return
    }
    this.#endRun()
    this.#run = bytes
    this.#from = from
    this.#to = to
  }

  /** Type and length of a message. */
  head(code: number, size: number): void {
    this.#endRun()
    if (this.#memory!.length - this.#at < HEAD_BYTES) this.#write()
    const memory = this.#memory!
    const length = size - 1
    memory[this.#at] = code
    memory[this.#at + 1] = length >>> 24
    memory[this.#at + 2] = length >>> 16
    memory[this.#at + 3] = length >>> 8
    memory[this.#at + 4] = length
    this.#at += HEAD_BYTES
  }

  /** Writes everything. The socket keeps what it cannot send at once; see its backlog. */
  flush(): void {
    this.#endRun()
    this.#write()
    this.#raw = null
    this.#memory = null
  }

  #endRun(): void {
    const run = this.#run
    if (run === null) return
    this.#run = null
    let from = this.#from
    while (from < this.#to) {
      if (this.#at === this.#memory!.length) this.#write()
      const count = Math.min(this.#to - from, this.#memory!.length - this.#at)
      run.copy(this.#memory!, this.#at, from, from + count)
      this.#at += count
      from += count
    }
  }

  #write(): void {
    if (this.#at > 0) this.#raw!.lend(firstBytes(this.#memory!, this.#at), this.#memory!)
    this.#at = 0
    this.#memory = scratchFor(CHUNK_BYTES)
  }
}

export const out: Outgoing = new Outgoing()
