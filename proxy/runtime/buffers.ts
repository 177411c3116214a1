/** Memory for bytes on their way: what all sockets read into, what heads are composed in, and what is lent to a slow socket until it is done. */

/** Of memory that a bulk transfer reads into, and of what heads are composed in. */
export const CHUNK_BYTES = 64 * 1024

/** With many slow receivers each holds less: what matters then is memory, not calls per megabyte. */
const SMALL_CHUNK_BYTES = 8 * 1024
const MANY = 32

const MAX_SPARE = 8
const spare: Buffer[] = []
let lent = 0

/**
 * Every socket reads into this unless it has memory of its own. One event loop handles one read at a time, so one buffer does for
 * any number of sockets.
 */
export const SHARED_READ_BUFFER: Buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES)

/**
 * The part of it that HTTP reads into: a head with 16 KiB of body comes in one read, and what a slow receiver does not take of
 * the first read of a large body, which has to be kept, is not more than this.
 */
export const SMALL_READ_BUFFER: Buffer = SHARED_READ_BUFFER.subarray(0, 18 * 1024)

/** Memory of its own for one direction of a transfer; end it with giveChunk(), or lend it to a socket that writes from it. */
export function takeChunk(): Buffer {
  return lent > MANY ? Buffer.allocUnsafeSlow(SMALL_CHUNK_BYTES) : (spare.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES))
}

/** The counterpart of takeChunk(): no socket reads into the memory or writes from it any more. */
export function giveChunk(chunk: Buffer): void {
  if (chunk.length === CHUNK_BYTES && spare.length < MAX_SPARE) spare.push(chunk)
}

/** A socket begins to hold memory that it has to write from later. */
export function lend(): void {
  lent++
}

/** The socket is done with it. */
export function takeBack(memory: Buffer): void {
  lent--
  giveChunk(memory)
}

/** Pieces of memory that slow sockets hold now. */
export function lentPieces(): number {
  return lent
}

let scratch: Buffer = Buffer.allocUnsafeSlow(CHUNK_BYTES)

/**
 * Memory of at least `bytes` to compose one write in. It is the same each time, so write it before anybody else can ask;
 * RawSocket.lend() takes care of it when that cannot be done at once.
 */
export function scratchFor(bytes: number): Buffer {
  // A slow socket that holds the scratch buffer holds all of it, so with many of them each gets as much as it needs.
  return bytes <= CHUNK_BYTES && lent <= MANY ? scratch : Buffer.allocUnsafeSlow(bytes)
}

/** A socket holds on to `buffer`: the next write is composed elsewhere. */
export function keepScratch(buffer: Buffer): void {
  if (buffer === scratch) scratch = spare.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES)
}

const VIEWS = 512
let viewsOf: Buffer | null = null
const views: (Buffer | null)[] = new Array(VIEWS).fill(null)

/** The first `length` bytes as a Buffer. Those of the scratch buffer are made once per length, as messages have few lengths. */
export function firstBytes(buffer: Buffer, length: number): Buffer {
  if (buffer !== scratch) return buffer.subarray(0, length)
  if (viewsOf !== scratch) {
    viewsOf = scratch
    views.fill(null)
  }
  const slot = length & (VIEWS - 1)
  const view = views[slot]
  if (view != null && view.length === length) return view
  const made = buffer.subarray(0, length)
  views[slot] = made
  return made
}
