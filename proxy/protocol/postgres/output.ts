/** Composes what goes to one socket out of many pieces, so that an event ends in one write. */
import { giveChunk, takeChunk } from '../../runtime/buffers.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'

export class Output {
  raw: RawSocket
  #memory: Buffer | null = null
  #length = 0

  constructor(raw: RawSocket) {
    this.raw = raw
  }

  /** Adds bytes [from, to) of `bytes`, which are the caller's again at once. */
  put(bytes: Buffer, from = 0, to: number = bytes.length): void {
    let at = from
    while (at < to) {
      let memory = this.#memory
      if (memory === null) {
        memory = takeChunk()
        this.#memory = memory
      }
      const count = Math.min(to - at, memory.length - this.#length)
      bytes.copy(memory, this.#length, at, at + count)
      this.#length += count
      at += count
      if (this.#length === memory.length) this.flush()
    }
  }

  /** Adds a type and a length. */
  putHead(code: number, length: number): void {
    let memory = this.#memory
    if (memory === null || memory.length - this.#length < 5) {
      this.flush()
      memory = takeChunk()
      this.#memory = memory
    }
    const at = this.#length
    memory[at] = code
    memory[at + 1] = length >>> 24
    memory[at + 2] = length >>> 16
    memory[at + 3] = length >>> 8
    memory[at + 4] = length
    this.#length = at + 5
  }

  /** Writes what was added. What the kernel does not take is kept by the socket, whose `backlog` says so. */
  flush(): void {
    const memory = this.#memory
    if (memory === null) return
    this.#memory = null
    const length = this.#length
    this.#length = 0
    if (length === 0 || this.raw.lend(memory.subarray(0, length), memory)) giveChunk(memory)
  }
}
