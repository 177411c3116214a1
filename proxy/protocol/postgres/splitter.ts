/** Finds the messages in a stream of bytes, wherever it is split; gathers of each kind as much as its owner must see at once. */
import { HEAD_BYTES, MAX_MESSAGE_BYTES } from './messages.ts'

/** How many bytes of a message, its head included, must be seen at once, by its type. */
export type Wanted = Uint32Array

/** A table in which every kind of message streams; set entries for those that must be seen. */
export function wantHeads(): Wanted {
  return new Uint32Array(256).fill(HEAD_BYTES)
}

/**
 * Cuts what feed() was given into pieces of messages. The first piece of a message has at least the wanted bytes of it (or all,
 * when it is shorter) in one buffer; what is longer follows in more pieces, as it comes. Bytes are copied only when the wanted part
 * of a message comes in several reads. Nothing is allocated per message.
 *
 *     splitter.feed(chunk, 0, length)
 *     while (splitter.next()) use(splitter.bytes, splitter.from, splitter.to)
 */
export class Splitter {
  /** The piece: bytes [from, to) of `bytes`, which is the chunk that was fed or memory of the splitter's, good until the next feed(). */
  bytes: Buffer
  from = 0
  to = 0
  /** Of the message that the piece belongs to: the letter, and its length with the head. */
  code = 0
  size = 0
  /** The piece begins with the head of the message; it is the end of it. */
  isFirst = false
  isLast = false
  /** A length that cannot be: nothing behind it can be read, and next() finds no more. */
  isBroken = false

  readonly #wanted: Wanted
  #chunk: Buffer
  #at = 0
  #end = 0
  /** Bytes of the message that are still to come. */
  #left = 0
  /** The begin of a message of which too little has come yet. */
  #held: Buffer | null = null
  #heldBytes = 0

  constructor(wanted: Wanted) {
    this.#wanted = wanted
    this.#chunk = NOTHING
    this.bytes = NOTHING
  }

  /** The next byte begins a message: nothing is held, and none is half through. */
  get isBetween(): boolean {
    return this.#left === 0 && this.#heldBytes === 0
  }

  /** In the middle of a message of which a piece was given out. */
  get isInside(): boolean {
    return this.#left > 0
  }

  /** Bytes held until more of the message comes. */
  get held(): number {
    return this.#heldBytes
  }

  /** Gives what is held away, as if it had never been fed; null: nothing is held. */
  takeHeld(): Buffer | null {
    const held = this.#heldBytes === 0 ? null : this.#held!.subarray(0, this.#heldBytes)
    this.#held = null
    this.#heldBytes = 0
    return held
  }

  /** The bytes are read by next() until it returns false; only then may more be fed. */
  feed(chunk: Buffer, from: number, to: number): void {
    this.#chunk = chunk
    this.#at = from
    this.#end = to
  }

  /** Where in the chunk the next message begins that next() has not looked at. */
  get at(): number {
    return this.#at
  }

  /** The next piece. */
  next(): boolean {
    if (this.#at === this.#end || this.isBroken) return this.#done()
    if (this.#left > 0) return this.#follow()
    if (this.#heldBytes > 0) return this.#gather()
    const have = this.#end - this.#at
    if (have < HEAD_BYTES) return this.#hold(HEAD_BYTES)
    const chunk = this.#chunk
    const at = this.#at
    if (!this.#readHead(chunk, at)) return this.#done()
    const size = this.size
    if (have < size) {
      const wanted = Math.min(size, this.#wanted[this.code]!)
      if (have < wanted) return this.#hold(wanted)
    }
    const take = Math.min(have, size)
    this.bytes = chunk
    this.from = at
    this.to = at + take
    this.isFirst = true
    this.isLast = take === size
    this.#left = size - take
    this.#at = at + take
    return true
  }

  #readHead(bytes: Buffer, at: number): boolean {
    const length = (bytes[at + 1]! << 24) | (bytes[at + 2]! << 16) | (bytes[at + 3]! << 8) | bytes[at + 4]!
    if (length < 4 || length > MAX_MESSAGE_BYTES) {
      this.isBroken = true
      return false
    }
    this.code = bytes[at]!
    this.size = length + 1
    return true
  }

  #follow(): boolean {
    const take = Math.min(this.#left, this.#end - this.#at)
    this.bytes = this.#chunk
    this.from = this.#at
    this.to = this.#at + take
    this.#at += take
    this.#left -= take
    this.isFirst = false
    this.isLast = this.#left === 0
    return true
  }

  /** Keeps what is left of the chunk, the begin of a message of which `wanted` bytes must be seen. */
  #hold(wanted: number): boolean {
    this.#heldBytes = 0
    this.#keep(this.#end - this.#at, wanted)
    return this.#done()
  }

  /** Adds to what is held until it is enough. */
  #gather(): boolean {
    if (this.#heldBytes < HEAD_BYTES) {
      this.#keep(Math.min(HEAD_BYTES - this.#heldBytes, this.#end - this.#at), HEAD_BYTES)
      if (this.#heldBytes < HEAD_BYTES) return this.#done()
    }
    const held = this.#held!
    if (!this.#readHead(held, 0)) return this.#done()
    const wanted = Math.min(this.size, this.#wanted[this.code]!)
    if (this.#heldBytes < wanted) this.#keep(Math.min(wanted - this.#heldBytes, this.#end - this.#at), wanted)
    if (this.#heldBytes < wanted) return this.#done()
    this.bytes = this.#held!
    this.from = 0
    this.to = this.#heldBytes
    this.isFirst = true
    this.isLast = this.to === this.size
    this.#left = this.size - this.to
    // The memory is the piece's now.
    this.#held = null
    this.#heldBytes = 0
    return true
  }

  /** Copies `count` bytes of the chunk. Memory grows with what comes, not with what a length promises. */
  #keep(count: number, wanted: number): void {
    const needed = this.#heldBytes + count
    if (this.#held === null || this.#held.length < needed) {
      const grown = Buffer.allocUnsafe(Math.max(needed, Math.min(wanted, 2 * needed)))
      this.#held?.copy(grown, 0, 0, this.#heldBytes)
      this.#held = grown
    }
    this.#chunk.copy(this.#held, this.#heldBytes, this.#at, this.#at + count)
    this.#heldBytes = needed
    this.#at += count
  }

  #done(): false {
    this.#chunk = NOTHING
    this.#at = 0
    this.#end = 0
    return false
  }
}

const NOTHING = Buffer.alloc(0)
