/** Reads along with both directions of a connection, in any pieces: where each command and each reply ends, and what it is. It keeps no data. */
import { BROKEN, type Command, findCommand, isGathered, MAX_NAME, OTHER } from './commands.ts'
import { splitInline } from './inline.ts'

/** The largest bulk string: eight times what a server takes unless `proto-max-bulk-len` says more. A longer one is garbage. */
const MAX_BULK = 4 * 1024 ** 3
/** Arguments of a command, and elements of an aggregate. */
const MAX_COUNT = 2 ** 31 - 1
/** As in the server: a longer inline command is refused. */
const MAX_INLINE = 64 * 1024
/** A command whose arguments are looked at and that is longer than this is passed on as it is. */
const MAX_GATHER = 16 * 1024
const MAX_GATHERED_ARGS = 32

const CR = 0x0d
const LF = 0x0a
const DOLLAR = 0x24
const STAR = 0x2a
const MINUS = 0x2d

/** Told of each command, in order, as soon as its name is known. */
export interface CommandSink {
  /** `args` counts the name. */
  onCommand(command: Command, args: number): void
}

/** Why run() returned. */
export type CommandStop =
  /** Everything was read; what is behind the returned offset begins a command whose name is not complete, and must be given again with more behind it. */
  | 'end'
  /** A command that has to be looked at begins at the returned offset: `args`, and `next` is behind it. */
  | 'gathered'
  /** A command begins at the returned offset, and isStopWanted is set. */
  | 'boundary'
  /** What begins at the returned offset is not Redis; `failure` says why. */
  | 'bad'

const Phase = {
  start: 0,
  dollar: 1,
  length: 2,
  lengthLf: 3,
  bulk: 4,
  bulkCr: 5,
  bulkLf: 6,
} as const

/** The direction from the application. */
export class CommandParser {
  stop: CommandStop = 'end'
  failure = ''
  /** The next command is not begun: run() returns before it. */
  isStopWanted = false
  command: Command = OTHER
  args: readonly Buffer[] = []
  next = 0
  #phase: number = Phase.start
  /** Arguments of the command that have not begun. */
  #left = 0
  /** Of the bulk string: its length, then what is left of it. */
  #value = 0
  #digits = 0

  /** Everything that was read is whole commands. */
  get isAtBoundary(): boolean {
    return this.#phase === Phase.start
  }

  /** Reads bytes [from, end). Returns how far they may be passed on. */
  run(chunk: Buffer, from: number, end: number, sink: CommandSink): number {
    let at = from
    while (at < end) {
      switch (this.#phase) {
        case Phase.start: {
          if (this.isStopWanted) {
            this.stop = 'boundary'
            return at
          }
          const next =
            chunk[at] === STAR ? this.#readHead(chunk, at, end, sink) : this.#readInline(chunk, at, end, sink)
          if (next <= at) return at
          at = next
          break
        }
        case Phase.dollar:
          if (chunk[at] !== DOLLAR) return this.#bad(at, `has ${shown(chunk[at]!)} where an argument begins with '$'`)
          at++
          this.#phase = Phase.length
          this.#value = 0
          this.#digits = 0
          break
        case Phase.length: {
          const byte = chunk[at++]!
          if (byte >= 0x30 && byte <= 0x39) {
            this.#value = this.#value * 10 + byte - 0x30
            if (++this.#digits > 10 || this.#value > MAX_BULK) return this.#bad(at - 1, 'has an invalid bulk length')
          } else if (byte === CR && this.#digits > 0) this.#phase = Phase.lengthLf
          else return this.#bad(at - 1, 'has an invalid bulk length')
          break
        }
        case Phase.lengthLf:
          if (chunk[at] !== LF) return this.#bad(at, 'has a length without its line break')
          at++
          this.#phase = Phase.bulk
          break
        case Phase.bulk: {
          const bytes = Math.min(this.#value, end - at)
          at += bytes
          this.#value -= bytes
          if (this.#value === 0) this.#phase = Phase.bulkCr
          break
        }
        case Phase.bulkCr:
          if (chunk[at] !== CR) return this.#bad(at, 'has an argument that is longer than its length')
          at++
          this.#phase = Phase.bulkLf
          break
        default:
          if (chunk[at] !== LF) return this.#bad(at, 'has an argument that is longer than its length')
          at++
          this.#phase = this.#left-- > 0 ? Phase.dollar : Phase.start
          if (this.#phase === Phase.start) this.#left = 0
      }
    }
    // A length of 0 needs no byte to be complete.
    if (this.#phase === Phase.bulk && this.#value === 0) this.#phase = Phase.bulkCr
    this.stop = 'end'
    return at
  }

  /** Reads `*2\r\n$3\r\nGET`. Returns the offset behind it; `start` when it is incomplete or run() has to stop, as `stop` says. */
  #readHead(chunk: Buffer, start: number, end: number, sink: CommandSink): number {
    this.stop = 'end'
    const count = readNumber(chunk, start + 1, end)
    if (count < 0) return count === INCOMPLETE ? start : this.#bad(start, 'has an invalid multibulk length')
    let at = numberEnd
    if (numberIsNegative || count === 0) {
      // The server takes it for nothing and does not answer.
      return at
    }
    if (count > MAX_COUNT) return this.#bad(start, 'has an invalid multibulk length')
    if (at >= end) return start
    if (chunk[at] !== DOLLAR) return this.#bad(start, `has ${shown(chunk[at]!)} where an argument begins with '$'`)
    const length = readNumber(chunk, at + 1, end)
    if (length === INCOMPLETE) return start
    if (length < 0 || numberIsNegative || length > MAX_BULK) return this.#bad(start, 'has an invalid bulk length')
    at = numberEnd
    let command = OTHER
    if (length <= MAX_NAME) {
      if (at + length > end) return start
      command = findCommand(chunk, at, at + length)
      if (isGathered(command.kind)) {
        const isWhole = this.#gather(chunk, start, end, count)
        if (isWhole === null) return start
        if (isWhole) {
          this.command = command
          this.stop = 'gathered'
          return start
        }
      }
      at += length
      this.#value = 0
      this.#phase = Phase.bulkCr
    } else {
      this.#value = length
      this.#phase = Phase.bulk
    }
    this.#left = count - 1
    sink.onCommand(command, count)
    return at
  }

  /** Collects the arguments of the command at `start`. Null: they are not all there; false: they are too many or too long, or garbage. */
  #gather(chunk: Buffer, start: number, end: number, count: number): boolean | null {
    if (count > MAX_GATHERED_ARGS) return false
    const incomplete = end - start > MAX_GATHER ? false : null
    const args: Buffer[] = []
    readNumber(chunk, start + 1, end)
    let at = numberEnd
    for (let i = 0; i < count; i++) {
      if (at >= end) return incomplete
      if (chunk[at] !== DOLLAR) return false
      const length = readNumber(chunk, at + 1, end)
      if (length === INCOMPLETE) return incomplete
      if (length < 0 || numberIsNegative || length > MAX_GATHER) return false
      at = numberEnd
      if (at + length + 2 > end) return incomplete
      args.push(chunk.subarray(at, at + length))
      at += length + 2
      if (chunk[at - 2] !== CR || chunk[at - 1] !== LF) return false
    }
    this.args = args
    this.next = at
    return true
  }

  /** Reads a line as a person types it. */
  #readInline(chunk: Buffer, start: number, end: number, sink: CommandSink): number {
    const first = chunk[start]!
    if ((first < 0x20 && first !== CR && first !== LF && first !== 0x09) || first >= 0x7f) {
      return this.#bad(
        start,
        `begins with ${shown(first)}, as no command does${first === 0x16 ? '; it may be TLS' : ''}`,
      )
    }
    this.stop = 'end'
    const found = chunk.indexOf(LF, start)
    if (found < 0 || found >= end) {
      return end - start > MAX_INLINE ? this.#bad(start, 'has an inline command that is too long') : start
    }
    const next = found + 1
    const words = splitInline(chunk.toString('latin1', start, found))
    if (words === null) {
      // The server says what is wrong with its quotes, and closes.
      sink.onCommand(BROKEN, 1)
      return next
    }
    if (words.length === 0) return next
    const name = words[0]!
    const command = findCommand(name, 0, name.length)
    if (isGathered(command.kind)) {
      this.command = command
      this.args = words
      this.next = next
      this.stop = 'gathered'
      return start
    }
    sink.onCommand(command, words.length)
    return next
  }

  #bad(at: number, failure: string): number {
    this.stop = 'bad'
    this.failure = failure
    return at
  }
}

const INCOMPLETE = -1
const INVALID = -2
let numberEnd = 0
let numberIsNegative = false

/** Reads digits and their line break at `at`: the amount, with numberEnd and numberIsNegative; INCOMPLETE or INVALID. */
function readNumber(chunk: Buffer, start: number, end: number): number {
  let at = start
  numberIsNegative = at < end && chunk[at] === MINUS
  if (numberIsNegative) at++
  const first = at
  let value = 0
  for (;;) {
    if (at >= end) return INCOMPLETE
    const byte = chunk[at]!
    if (byte === CR) break
    if (byte < 0x30 || byte > 0x39 || at - first > 10) return INVALID
    value = value * 10 + byte - 0x30
    at++
  }
  if (at === first) return INVALID
  if (at + 1 >= end) return INCOMPLETE
  if (chunk[at + 1] !== LF) return INVALID
  numberEnd = at + 2
  return value
}

function shown(byte: number): string {
  const hex = byte.toString(16).padStart(2, '0')
  return byte > 0x20 && byte < 0x7f ? `'${String.fromCharCode(byte)}'` : `byte 0x${hex}`
}

/** A hash of a short word, as replies begin with one. */
export function wordHash(word: string): number {
  let hash = 0
  for (let i = 0; i < word.length; i++) hash = (Math.imul(hash, 31) + word.charCodeAt(i)) | 0
  return hash
}

/** Told of each reply that is complete. */
export interface ReplySink {
  /**
   * @param type its first byte
   * @param word hash of the first word of a line (`OK`, `READONLY`), or of the first element of a push; 0: none
   * @param integer the last integer in it; -1: none
   */
  onReply(type: number, word: number, integer: number): void
}

export const Type = {
  simple: 0x2b,
  error: 0x2d,
  integer: 0x3a,
  bulk: 0x24,
  array: 0x2a,
  map: 0x25,
  push: 0x3e,
  attribute: 0x7c,
} as const

const IS_LINE = 1
const IS_BULK = 2
const IS_LIST = 3
const IS_PAIRS = 4
const IS_INTEGER = 5
/** What a first byte announces; 0: nothing that Redis knows. */
const SHAPES = new Uint8Array(256)
for (const byte of Buffer.from('+-_#,(')) SHAPES[byte] = IS_LINE
for (const byte of Buffer.from('$=!')) SHAPES[byte] = IS_BULK
for (const byte of Buffer.from('*~>')) SHAPES[byte] = IS_LIST
for (const byte of Buffer.from('%|')) SHAPES[byte] = IS_PAIRS
SHAPES[Type.integer] = IS_INTEGER

const Read = { type: 0, line: 1, lineLf: 2, number: 3, numberLf: 4, bulk: 5, bulkCr: 6, bulkLf: 7 } as const

/** The direction from the server. */
export class ReplyParser {
  /** What is wrong; null while everything was RESP. Nothing is read any more then. */
  failure: string | null = null
  /** run() returns behind each reply. */
  isOneWanted = false
  /** Arrays tell their first element too, as pushes do. */
  isWordWanted = false
  #phase: number = Read.type
  /** Elements that the reply still has; 0: between two replies. */
  #left = 0
  #top = 0
  #shape = 0
  #type = 0
  #value = 0
  #digits = 0
  #isNegative = false
  #word = 0
  #isWordOpen = false
  /** What is read now is the reply itself, not an element of it. */
  #isOutermost = false
  /** The element to come is the first one of an array or push. */
  #isFirst = false
  #integer = -1

  /** Everything that was read is whole replies. */
  get isAtBoundary(): boolean {
    return this.#left === 0 && this.#phase === Read.type
  }

  /** Reads bytes [from, end). Returns how far it came: `end`, unless a failure or isOneWanted made it stop. */
  run(chunk: Buffer, from: number, end: number, sink: ReplySink): number {
    let at = from
    while (at < end) {
      switch (this.#phase) {
        case Read.type: {
          const byte = chunk[at]!
          this.#shape = SHAPES[byte]!
          if (this.#shape === 0) {
            this.failure = `answered with ${shown(byte)} where a reply of Redis begins`
            return at
          }
          at++
          this.#type = byte
          this.#isOutermost = this.#left === 0
          if (this.#isOutermost) {
            this.#left = 1
            this.#top = byte
            this.#word = 0
            this.#integer = -1
            this.#isFirst = false
            this.#isWordOpen = this.#shape === IS_LINE
          } else this.#isWordOpen = this.#isFirst && this.#shape === IS_BULK
          this.#isFirst = false
          if (this.#shape === IS_LINE) {
            this.#phase = Read.line
          } else {
            this.#phase = Read.number
            this.#value = 0
            this.#digits = 0
            this.#isNegative = false
          }
          break
        }
        case Read.line: {
          if (this.#isWordOpen) {
            let byte = chunk[at]!
            while (byte !== CR && byte !== 0x20) {
              this.#word = (Math.imul(this.#word, 31) + byte) | 0
              if (++at === end) return at
              byte = chunk[at]!
            }
            this.#isWordOpen = false
          }
          const found = chunk[at] === CR ? at : chunk.indexOf(CR, at)
          if (found < 0 || found >= end) return end
          at = found + 1
          this.#phase = Read.lineLf
          break
        }
        case Read.number: {
          const byte = chunk[at++]!
          if (byte >= 0x30 && byte <= 0x39) {
            this.#value = this.#value * 10 + byte - 0x30
            this.#digits++
          } else if (byte === MINUS && this.#digits === 0 && !this.#isNegative) this.#isNegative = true
          else if (byte === 0x2b && this.#digits === 0 && this.#shape === IS_INTEGER) break
          else if (byte === CR && this.#digits > 0) this.#phase = Read.numberLf
          else this.#digits = 99
          if (this.#digits > (this.#shape === IS_INTEGER ? 20 : 10)) {
            this.failure = 'answered with a length that is not a number'
            return at - 1
          }
          break
        }
        case Read.numberLf: {
          if (chunk[at] !== LF) return this.#broken(at)
          at++
          const failure = this.#onNumber()
          if (failure !== null) {
            this.failure = failure
            return at
          }
          if (this.isAtBoundary && this.#isOver(sink)) return at
          break
        }
        case Read.bulk: {
          const bytes = Math.min(this.#value, end - at)
          if (this.#isWordOpen) {
            for (let i = 0; i < bytes; i++) this.#word = (Math.imul(this.#word, 31) + chunk[at + i]!) | 0
          }
          at += bytes
          this.#value -= bytes
          if (this.#value === 0) this.#phase = Read.bulkCr
          break
        }
        case Read.bulkCr:
          if (chunk[at] !== CR) return this.#broken(at)
          at++
          this.#phase = Read.bulkLf
          break
        default:
          if (chunk[at] !== LF) return this.#broken(at)
          at++
          this.#phase = Read.type
          this.#left--
          if (this.#left === 0 && this.#isOver(sink)) return at
      }
    }
    if (this.#phase === Read.bulk && this.#value === 0) this.#phase = Read.bulkCr
    return at
  }

  #broken(at: number): number {
    this.failure = 'answered with a reply whose line break is not where its length says'
    return at
  }

  /** Null when the number may stand there. */
  #onNumber(): string | null {
    const value = this.#value
    if (this.#shape === IS_INTEGER) {
      this.#integer = this.#isNegative ? -1 : value
      this.#end()
      return null
    }
    if (this.#isNegative) {
      // RESP2 writes null as -1.
      if (value !== 1 || this.#shape === IS_PAIRS) return 'answered with a negative length'
      this.#end()
      return null
    }
    if (this.#shape === IS_BULK) {
      if (value > MAX_BULK) return `answered with a bulk string of ${value} bytes`
      if (value > MAX_NAME) this.#isWordOpen = false
      this.#phase = value === 0 ? Read.bulkCr : Read.bulk
      return null
    }
    if (value > MAX_COUNT) return `answered with an aggregate of ${value} elements`
    this.#isFirst =
      this.#isOutermost && value > 0 && (this.#top === Type.push || (this.isWordWanted && this.#top === Type.array))
    this.#left += this.#shape === IS_PAIRS ? 2 * value : value
    // What an attribute says belongs to the reply that follows it.
    if (this.#type === Type.attribute) this.#left++
    this.#end()
    return null
  }

  #end(): void {
    this.#phase = Read.type
    this.#left--
  }

  #isOver(sink: ReplySink): boolean {
    sink.onReply(this.#top, this.#word, this.#integer)
    return this.isOneWanted
  }
}
