/** Memory for bytes on their way out: one buffer that is written from again and again, and spare ones for writes that take time. */

/** Of the scratch buffer, and of the memory that a bulk body is read into. */
export const CHUNK_BYTES = 64 * 1024

/** With many transfers under way, each gets less: what matters then is memory, not calls per megabyte. */
const SMALL_CHUNK_BYTES = 16 * 1024
const MANY = 128

const MAX_SPARE = 8
const spare: Buffer[] = []
let lent = 0

/** Memory for one direction of a transfer. Give it back when no socket reads into it and none writes from it. */
export function takeChunk(): Buffer {
  lent++
  return lent > MANY ? Buffer.allocUnsafeSlow(SMALL_CHUNK_BYTES) : (spare.pop() ?? Buffer.allocUnsafeSlow(CHUNK_BYTES))
}

/** The counterpart of takeChunk(). */
export function giveChunk(chunk: Buffer): void {
  lent--
  if (chunk.length === CHUNK_BYTES && spare.length < MAX_SPARE) spare.push(chunk)
}

/** The counterpart of takeChunk() for memory that a socket may still use: it is left to the collector. */
export function dropChunk(): void {
  lent--
}

let scratch = Buffer.allocUnsafeSlow(CHUNK_BYTES)

/**
 * Memory of at least `bytes` to compose one write in. It is the same each time, so write it before anybody else can ask; when
 * the socket keeps it (write() returned false), say keepScratch().
 */
export function scratchFor(bytes: number): Buffer {
  return bytes <= CHUNK_BYTES ? scratch : Buffer.allocUnsafeSlow(bytes)
}

/** A socket holds on to `buffer`: the next write is composed elsewhere. */
export function keepScratch(buffer: Buffer): void {
  if (buffer === scratch) scratch = Buffer.allocUnsafeSlow(CHUNK_BYTES)
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
