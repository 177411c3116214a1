/** Passes bytes on from one socket to another: nothing is kept but one read, and bulk data goes through without a copy. */
import { firstBytes, giveChunk, scratchFor, takeChunk } from './buffers.ts'
import type { RawSocket } from './raw-socket.ts'

/** A direction that brings this much per read gets memory of its own to read into. */
const BULK_BYTES = 32 * 1024
/** One that gets smaller reads than this gives it back. */
const SMALL_BYTES = 8 * 1024

/**
 * Passes bytes [from, to) on, from within onData of the socket that read them, and has that one pause while the other does not take
 * them: resume it in onDrain of the other.
 * @param own memory that `source` reads into; null: the one that all sockets share
 * @param mayOwn whether bulk data may get memory now
 * @returns memory that `source` reads into from now on
 */
export function passOn(
  own: Buffer | null,
  source: RawSocket,
  sink: RawSocket,
  chunk: Buffer,
  from: number,
  to: number,
  mayOwn = true,
): Buffer | null {
  const length = to - from
  if (chunk === own) {
    // The kernel took a part: the rest stays where it is until the sink has it.
    if (!sink.lend(chunk.subarray(from, to), chunk)) source.pause()
    else if (length >= SMALL_BYTES) return own
    else giveChunk(chunk)
    source.readInto(null)
    return null
  }
  if (sink.backlog > 0) {
    // A TLS record that was already decrypted when reading was paused, or more while the last write is under way.
    if (!sink.write(Buffer.from(chunk.subarray(from, to)))) source.pause()
    return own
  }
  const memory = scratchFor(length)
  chunk.copy(memory, 0, from, to)
  if (!sink.lend(firstBytes(memory, length), memory)) source.pause()
  else if (length >= BULK_BYTES && own === null && mayOwn) {
    const made = takeChunk()
    source.readInto(made)
    return made
  }
  return own
}
