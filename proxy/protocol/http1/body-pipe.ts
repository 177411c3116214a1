/** Passes the bytes of a body from one socket to the other: without a copy when there are many, and no faster than they are taken. */
import { firstBytes, giveChunk, scratchFor, takeChunk } from '../../runtime/buffers.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import type { BodyReader } from './framing.ts'
import { CHUNK_OVERHEAD, endLine, writeChunkSize } from './serializer.ts'

/** A read of this much is the sign of a bulk body, which gets memory of its own to be read into. */
export const BULK_BYTES = 16 * 1024

/** One direction of one exchange. When the sink does not take everything, the source is paused; its owner resumes it on drain. */
export class BodyPipe {
  /** What the source reads into; null: the memory that all sockets share. */
  #own: Buffer | null = null

  /** Passes on what `body` kept of bytes [start, end) of a read. Call it inside onData of the source. */
  forward(body: BodyReader, source: RawSocket, sink: RawSocket, chunk: Buffer, start: number, end: number): void {
    if (chunk === this.#own && body.isVerbatim) {
      if (end === start || sink.lend(chunk.subarray(start, end), chunk)) return
      // The kernel took a part; the rest stays where it is until the sink has it.
      this.#own = null
      source.readInto(null)
      source.pause()
      return
    }
    const bytes = body.keptBytes(start, end)
    if (bytes > 0) {
      const out = scratchFor(bytes)
      body.copyKept(chunk, start, end, out, 0)
      if (!sink.lend(firstBytes(out, bytes), out)) source.pause()
    }
    if (end - start >= BULK_BYTES) this.expectBulk(source, body)
  }

  /** Passes on bytes [start, end) of a read as one chunk of a chunked body. */
  encode(source: RawSocket, sink: RawSocket, chunk: Buffer, start: number, end: number): void {
    const out = scratchFor(end - start + CHUNK_OVERHEAD)
    let at = writeChunkSize(end - start, out, 0)
    at += chunk.copy(out, at, start, end)
    at = endLine(out, at)
    if (!sink.lend(firstBytes(out, at), out)) source.pause()
  }

  /** The source gets memory of its own from the next read on, unless the body is nearly over or nobody takes it. Call it inside onData. */
  expectBulk(source: RawSocket, body: BodyReader): void {
    if (this.#own !== null || body.isDone || source.isPaused) return
    this.#own = takeChunk()
    source.readInto(this.#own)
  }

  /** The body is over, and its last byte came in the read that is being handled. */
  end(source: RawSocket): void {
    if (this.#own === null) return
    source.readInto(null)
    giveChunk(this.#own)
    this.#own = null
  }

  /** The body is given up at any other time: the source may still read into the memory once, so nobody else gets it. */
  abandon(source: RawSocket | null): void {
    if (this.#own === null) return
    source?.readInto(null)
    this.#own = null
  }
}
