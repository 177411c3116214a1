/** Memory for bytes on their way: what all sockets read into, what heads are composed in, and what is lent to a slow socket until it is done. */

/** Of memory that a bulk transfer reads into, and of what heads are composed in. */
export const CHUNK_BYTES = 64 * 1024

/** Sizes of memory: of a head, of a piece of a bulk body for one of many slow receivers, of an HTTP read with what is written around it. */
const HEAD_BYTES = 2 * 1024
const SMALL_CHUNK_BYTES = 8 * 1024
const READ_BYTES = 20 * 1024
/** With more slow receivers than this each holds less: what matters then is memory, not calls per megabyte. */
const MANY = 32

/** Memory of one size. What comes back is kept for the next one: thrown away, it would pile up until the collector comes. */
interface Size {
  readonly bytes: number
  readonly spare: Buffer[]
  readonly maxSpare: number
  /** What is composed in while slow receivers are many; null: the last one is held. */
  scratch: Buffer | null
}

/** Smallest first. */
const SIZES: readonly Size[] = [
  { bytes: HEAD_BYTES, spare: [], maxSpare: 64, scratch: null },
  { bytes: SMALL_CHUNK_BYTES, spare: [], maxSpare: 64, scratch: null },
  { bytes: READ_BYTES, spare: [], maxSpare: 32, scratch: null },
  { bytes: CHUNK_BYTES, spare: [], maxSpare: 8, scratch: null },
]
const SMALL_CHUNKS = SIZES[1]!
const CHUNKS = SIZES[3]!
let lent = 0

function take(size: Size): Buffer {
  return size.spare.pop() ?? Buffer.allocUnsafeSlow(size.bytes)
}

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
  return take(lent > MANY ? SMALL_CHUNKS : CHUNKS)
}

/** The counterpart of takeChunk(): no socket reads into the memory or writes from it any more. */
export function giveChunk(chunk: Buffer): void {
  for (let i = SIZES.length - 1; i >= 0; i--) {
    const { bytes, spare, maxSpare } = SIZES[i]!
    if (chunk.length !== bytes) continue
    if (spare.length < maxSpare) spare.push(chunk)
    return
  }
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
  if (bytes > CHUNK_BYTES) return Buffer.allocUnsafeSlow(bytes)
  if (lent <= MANY) return scratch
  // A slow socket that holds the scratch buffer holds all of it, so with many of them each gets about as much as it needs.
  let i = 0
  while (SIZES[i]!.bytes < bytes) i++
  const size = SIZES[i]!
  return (size.scratch ??= take(size))
}

/** A socket holds on to `buffer`: the next write is composed elsewhere. */
export function keepScratch(buffer: Buffer): void {
  if (buffer === scratch) scratch = take(CHUNKS)
  else for (const size of SIZES) if (buffer === size.scratch) size.scratch = null
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
