/** Reads heads that come in one piece or in many: in place when the whole head is in one read, otherwise from memory of its own. */
import { HeadParser, LIMITS } from './parser.ts'

const FIRST_CAPACITY = 2048

/** Parsers of heads that came in pieces, for the next ones. */
const spareParsers: HeadParser[] = []

export type HeadSide = 'request' | 'response'

/**
 * One per connection and direction. read() until it returns something else than 0; then the head is in `head` (its offsets are
 * into `head.bytes`), `next` is where the chunk goes on behind it, and done() must be called before the next head. A head that
 * came in one piece is in the parser shared by all readers of its side: it holds until another reader reads.
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

  /** 1: a head is complete; 0: the chunk was used up and more is needed; -1: refused, see `head.fault`. */
  read(chunk: Buffer, start: number, end: number): number {
    if (this.#held !== null) return this.#readHeld(chunk, start, end)
    const shared = SHARED[this.#side]
    this.head = shared
    shared.reset(start)
    const result = this.#parse(shared, chunk, end)
    if (result === 1) this.next = shared.end
    // Empty lines that some clients send behind a body are no head that has to be complete soon.
    else if (result === 0 && !shared.isBlank(end)) this.#hold(chunk, start, end)
    return result
  }

  /** The head has been dealt with. */
  done(): void {
    if (this.#held === null) return
    this.#held = null
    this.#heldLength = 0
    if (spareParsers.length < 64) spareParsers.push(this.head)
    this.head = SHARED[this.#side]
  }

  #parse(parser: HeadParser, bytes: Buffer, end: number): number {
    return this.#side === 'request' ? parser.parseRequest(bytes, end) : parser.parseResponse(bytes, end)
  }

  #hold(chunk: Buffer, start: number, end: number): void {
    this.head = spareParsers.pop() ?? new HeadParser()
    this.head.reset(0)
    const length = end - start
    this.#held = Buffer.allocUnsafeSlow(Math.max(FIRST_CAPACITY, length))
    chunk.copy(this.#held, 0, start, end)
    this.#heldLength = length
    this.#parse(this.head, this.#held, length)
  }

  #readHeld(chunk: Buffer, start: number, end: number): number {
    const before = this.#heldLength
    const length = Math.min(LIMITS.headBytes, before + end - start)
    let held = this.#held as Buffer
    if (length > held.length) {
      const larger = Buffer.allocUnsafeSlow(Math.min(LIMITS.headBytes, Math.max(2 * held.length, length)))
      held.copy(larger, 0, 0, before)
      held = larger
      this.#held = larger
    }
    chunk.copy(held, before, start, start + length - before)
    this.#heldLength = length
    const result = this.#parse(this.head, held, length)
    if (result === 1) this.next = start + this.head.end - before
    return result
  }
}

const SHARED: Record<HeadSide, HeadParser> = { request: new HeadParser(), response: new HeadParser() }
