/** Reads heads that come in one piece or in many: in place when the whole head is in one read, otherwise from memory of its own. */
import { type Fault, HeadParser, LIMITS } from './parser.ts'
import { CR, LF } from './tables.ts'

const FIRST_CAPACITY = 256
/** A longer head in pieces has a parser of its own, which goes on where it stopped; a shorter one is read again from its begin. */
const MAX_READ_AGAIN = 4096

/** Parsers of heads that came in pieces, for the next ones. */
const spareParsers: HeadParser[] = []

/** What the heads of all requests that are not complete may hold together: 256 of the longest, or tens of thousands of usual ones. */
export const MAX_HELD_BYTES = 16 * 1024 * 1024
let heldBytes = 0

/** Bytes that the heads of requests hold which are not complete, for tests. */
export function heldByHeads(): number {
  return heldBytes
}

/** The heads of others that are not complete leave no memory for this one. */
export const NO_MEMORY: Fault = { status: 503, text: 'too many requests whose heads are not complete' }

export type HeadSide = 'request' | 'response'

/**
 * One per connection and direction. read() until it returns something else than 0; then the head is in `head` (its offsets are
 * into `head.bytes`), `next` is where the chunk goes on behind it, and done() must be called before the next head. A head that
 * came in one piece, or is short, is in the parser shared by all readers of its side: it holds until another reader reads.
 */
export class HeadReader {
  head: HeadParser
  /** Offset in the chunk of the last read() behind the head. */
  next = 0
  readonly #side: HeadSide
  /** The part of a head that came in earlier reads; null while none did. */
  #held: Buffer | null = null
  #heldLength = 0

  constructor(side: HeadSide) {
    this.#side = side
    this.head = SHARED[side]
  }

  /** Some of a head has come, and not all of it. */
  get isPartial(): boolean {
    return this.#held !== null
  }

  /** The head that was refused, or that is not complete, begins with this. */
  beginsWith(text: string): boolean {
    const held = this.#held
    const { bytes, start } = this.head
    if (held === null) return bytes.toString('latin1', start, start + text.length) === text
    // Empty lines in front of a request are kept with it.
    let from = 0
    while (from < this.#heldLength && (held[from] === CR || held[from] === LF)) from++
    return held.toString('latin1', from, Math.min(from + text.length, this.#heldLength)) === text
  }

  /** 1: a head is complete; 0: the chunk was used up and more is needed; -1: refused, see `head.fault`. */
  read(chunk: Buffer, start: number, end: number): number {
    if (this.#held !== null) return this.#readHeld(chunk, start, end)
    const shared = SHARED[this.#side]
    this.head = shared
    shared.reset(start)
    const result = this.#parse(shared, chunk, end)
    if (result === 1) this.next = shared.end
    // Empty lines that some clients send behind a body are no head that has to be complete soon.
    else if (result === 0 && !shared.isBlank(end)) return this.#hold(chunk, start, end)
    return result
  }

  /** The head has been dealt with. */
  done(): void {
    if (this.#held === null) return
    this.#count(-this.#held.length)
    this.#held = null
    this.#heldLength = 0
    const shared = SHARED[this.#side]
    if (this.head !== shared && spareParsers.length < 64) spareParsers.push(this.head)
    this.head = shared
  }

  /** Upstreams are few, and their heads bounded by their connections. */
  #count(bytes: number): void {
    if (this.#side === 'request') heldBytes += bytes
  }

  #refuseHead(): -1 {
    this.head.fault = NO_MEMORY
    return -1
  }

  #parse(parser: HeadParser, bytes: Buffer, end: number): number {
    return this.#side === 'request' ? parser.parseRequest(bytes, end) : parser.parseResponse(bytes, end)
  }

  #hold(chunk: Buffer, start: number, end: number): number {
    const length = end - start
    const capacity = Math.max(FIRST_CAPACITY, length)
    if (this.#side === 'request' && heldBytes + capacity > MAX_HELD_BYTES) return this.#refuseHead()
    this.#count(capacity)
    this.#held = Buffer.allocUnsafeSlow(capacity)
    chunk.copy(this.#held, 0, start, end)
    this.#heldLength = length
    return 0
  }

  #readHeld(chunk: Buffer, start: number, end: number): number {
    const before = this.#heldLength
    const length = Math.min(LIMITS.headBytes, before + end - start)
    let held = this.#held as Buffer
    if (length > held.length) {
      const capacity = Math.min(LIMITS.headBytes, Math.max(2 * held.length, length))
      if (this.#side === 'request' && heldBytes + capacity > MAX_HELD_BYTES) return this.#refuseHead()
      this.#count(capacity - held.length)
      const larger = Buffer.allocUnsafeSlow(capacity)
      held.copy(larger, 0, 0, before)
      held = larger
      this.#held = larger
    }
    chunk.copy(held, before, start, start + length - before)
    this.#heldLength = length
    const shared = SHARED[this.#side]
    if (this.head === shared) {
      if (length > MAX_READ_AGAIN) this.head = spareParsers.pop() ?? new HeadParser()
      this.head.reset(0)
    }
    const result = this.#parse(this.head, held, length)
    if (result === 1) this.next = start + this.head.end - before
    return result
  }
}

const SHARED: Record<HeadSide, HeadParser> = { request: new HeadParser(), response: new HeadParser() }
