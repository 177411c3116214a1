/** Writes lines to a file descriptor without ever holding up the data path: bounded memory, and lines are dropped before requests wait. */
import { write, writeSync } from 'node:fs'

/** A write of at most this much to a pipe is not mixed with the lines of other writers (PIPE_BUF). */
const PIECE_BYTES = 4096
/** Lines that wait for a slow reader. */
const MAX_WAITING_BYTES = 1 << 20

export class LineWriter {
  readonly #fd: number
  #waiting: Buffer[] = []
  #waitingBytes = 0
  #piece = Buffer.allocUnsafeSlow(PIECE_BYTES)
  #length = 0
  #isWriting = false
  #isScheduled = false
  /** Lines that were dropped because the reader does not keep up. */
  dropped = 0

  /** @param fd default: standard output */
  constructor(fd = 1) {
    this.#fd = fd
  }

  /** Takes one line with its line break. It is written soon; never before the call returns. */
  write(line: string): void {
    const bytes = Buffer.byteLength(line)
    if (this.#length + bytes > PIECE_BYTES) this.#cutPiece()
    if (this.#waitingBytes + bytes > MAX_WAITING_BYTES) {
      this.dropped++
      return
    }
    if (bytes > PIECE_BYTES) this.#enqueue(Buffer.from(line))
    else this.#length += this.#piece.write(line, this.#length)
    if (this.#isScheduled) return
    this.#isScheduled = true
    setImmediate(this.#onImmediate)
  }

  /** Writes what waits, at the end of the process: blocks until the reader has it or refuses. */
  flush(): void {
    this.#cutPiece()
    for (const piece of this.#waiting.splice(this.#isWriting ? 1 : 0)) {
      try {
        writeSync(this.#fd, piece)
      } catch {
        // Nobody reads any more, and there is nowhere else to say so.
        return
      }
    }
  }

  readonly #onImmediate = (): void => {
    this.#isScheduled = false
    this.#cutPiece()
    this.#writeNext()
  }

  #cutPiece(): void {
    if (this.#length === 0) return
    this.#enqueue(this.#piece.subarray(0, this.#length))
    this.#piece = Buffer.allocUnsafeSlow(PIECE_BYTES)
    this.#length = 0
  }

  #enqueue(piece: Buffer): void {
    this.#waiting.push(piece)
    this.#waitingBytes += piece.length
  }

  /** One write at a time, by the thread pool: a pipe that nobody empties holds up a thread and not the event loop. */
  #writeNext(): void {
    const piece = this.#waiting[0]
    if (this.#isWriting || piece === undefined) return
    this.#isWriting = true
    write(this.#fd, piece, (error, written) => {
      this.#isWriting = false
      if (error !== null && error.code === 'EAGAIN') {
        setTimeout(this.#onImmediate, 10).unref()
        return
      }
      this.#waitingBytes -= piece.length
      this.#waiting.shift()
      if (error === null && written < piece.length) {
        const rest = piece.subarray(written)
        this.#waiting.unshift(rest)
        this.#waitingBytes += rest.length
      }
      this.#writeNext()
    })
  }
}
