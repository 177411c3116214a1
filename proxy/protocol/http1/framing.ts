/** Where a body ends (RFC 9112 section 6), and which of its bytes are not passed on: chunk extensions and, for HTTP/1.0, all framing. */
import { type Fault, HeadParser } from './parser.ts'
import { CR, Field, HEX, HTAB, isWord, LF, nameBytes, QUOTED, SP, TOKEN } from './tables.ts'

/** Faults of framing, by name. A message with one of them is refused and its connection closed: what follows cannot be trusted. */
const FramingFault = {
  lengthAndCoding: { status: 400, text: 'the message has both Content-Length and Transfer-Encoding' },
  contentLength: { status: 400, text: 'Content-Length is not one number of decimal digits up to 2^53-1' },
  repeatedLength: { status: 400, text: 'the message has more than one Content-Length' },
  transferEncoding: { status: 400, text: "Transfer-Encoding is not 'chunked', once" },
  codingOnOld: { status: 400, text: 'an HTTP/1.0 message has Transfer-Encoding' },
  chunkSize: { status: 400, text: 'a chunk size is not a hexadecimal number up to 2^53-1 followed by CR LF' },
  chunkExtension: { status: 400, text: 'a chunk extension is not well-formed' },
  chunkExtensionTooLong: { status: 400, text: 'the chunk extensions of a message are longer than 1 KiB' },
  chunkEnd: { status: 400, text: 'the data of a chunk is not followed by CR LF' },
  trailerTooLong: { status: 431, text: 'the trailer section is longer than 8 KiB or has more than 64 fields' },
  trailerField: { status: 400, text: 'the trailer section has Content-Length or Transfer-Encoding' },
} as const satisfies Record<string, Fault>

/** How a body is delimited. */
export const BodyKind = { none: 0, length: 1, chunked: 2, untilClose: 3 } as const
export type BodyKind = (typeof BodyKind)[keyof typeof BodyKind]

const CHUNKED = nameBytes('chunked')

/**
 * Reads Content-Length and Transfer-Encoding of a head, for both directions.
 * @returns the length when there is one, CHUNKED_BODY, or NO_FRAMING; `framingFault` when the head is to be refused
 */
export function bodyLength(head: HeadParser): number {
  const bits = head.seen & FRAMING_FIELDS
  if (bits === 0) return NO_FRAMING
  if (bits === FRAMING_FIELDS) return refuse(FramingFault.lengthAndCoding)
  if (bits === 1 << Field.contentLength) {
    if ((head.repeated & bits) !== 0) return refuse(FramingFault.repeatedLength)
    const index = head.first[Field.contentLength]!
    return decimal(head.bytes, head.valueStart(index), head.valueEnd(index))
  }
  if (head.minorVersion === 0) return refuse(FramingFault.codingOnOld)
  const index = head.first[Field.transferEncoding]!
  if ((head.repeated & bits) !== 0 || !isWord(head.bytes, head.valueStart(index), head.valueEnd(index), CHUNKED)) {
    return refuse(FramingFault.transferEncoding)
  }
  // White space behind a value is no part of it, yet a tab there is known to hide the coding from some servers.
  for (let i = head.valueEnd(index); i < head.lineEnd(index); i++) {
    if (head.bytes[i] === HTAB) return refuse(FramingFault.transferEncoding)
  }
  return CHUNKED_BODY
}

export const NO_FRAMING = -1
export const CHUNKED_BODY = -2
const REFUSED = -3
const FRAMING_FIELDS = (1 << Field.contentLength) | (1 << Field.transferEncoding)

/** The fault of the last bodyLength() that returned less than CHUNKED_BODY; null otherwise. */
export let framingFault: Fault | null = null

function refuse(fault: Fault): number {
  framingFault = fault
  return REFUSED
}

function decimal(bytes: Buffer, start: number, end: number): number {
  let value = 0
  for (let i = start; i < end; i++) {
    const digit = bytes[i]! - 0x30
    if (digit < 0 || digit > 9) return refuse(FramingFault.contentLength)
    value = value * 10 + digit
    // 2^53 and everything above is not exact any more: another hop may see another number.
    if (value > Number.MAX_SAFE_INTEGER) return refuse(FramingFault.contentLength)
  }
  return end === start ? refuse(FramingFault.contentLength) : value
}

// States of a chunked body, in the order in which they come.
const SIZE_START = 0
const SIZE = 1
const EXTENSION_NAME = 2
const EXTENSION_NAME_REST = 3
const EXTENSION_VALUE = 4
const EXTENSION_TOKEN = 5
const EXTENSION_QUOTED = 6
const EXTENSION_ESCAPED = 7
const EXTENSION_END = 8
const SIZE_LF = 9
const DATA = 10
const DATA_CR = 11
const DATA_LF = 12
const TRAILER_START = 13
const TRAILER = 14
const LAST_LF = 15

const MAX_SIZE_DIGITS = 16
const MAX_EXTENSION_BYTES = 1024
const TRAILER_LIMITS = { headBytes: 8 * 1024, fields: 64, lineBytes: 0, fieldBytes: 8 * 1024 }

export const NO_NAMES: readonly Uint8Array[] = []

/** Reads trailer sections; each is read in one go once it is complete, so one reader serves all. */
let trailerParser: HeadParser | null = null

/**
 * Follows a body through its reads. It tells how far the body reaches into a read and lists the ranges of it that are cut out;
 * everything else is passed on as it stands, so a body in the usual form is passed on without being touched.
 */
export class BodyReader {
  kind: BodyKind = BodyKind.none
  isDone = true
  /** Bytes of content seen so far, without framing. */
  contentBytes = 0
  /** Why scan() returned -1. */
  fault: Fault | null = null
  /** Pairs of offsets into the bytes of the last scan(): [begin, end) is not passed on. */
  cuts = new Int32Array(16)
  cutCount = 0

  /** A '0' that the scan() before had cut out belongs in front of what this one kept. */
  hasZeroBefore = false

  /** Of the body or of the chunk. */
  #remaining = 0
  #state = SIZE_START
  #size = 0
  #digits = 0
  #extensionBytes = 0
  #isZeroHeld = false
  #isDechunked = false
  #nominated = NO_NAMES
  /** The trailer section as far as it came, its last empty line included. */
  #trailer: Buffer | null = null
  #trailerLength = 0

  /**
   * @param dechunk cut out all framing of a chunked body, for a receiver that speaks HTTP/1.0
   * @param nominated names in lower case that Connection named: RFC 9110 section 7.6.1 removes such fields from the trailers, too
   */
  begin(kind: BodyKind, length: number, dechunk: boolean, nominated: readonly Uint8Array[] = NO_NAMES): void {
    this.kind = kind
    this.isDone = kind === BodyKind.none || (kind === BodyKind.length && length === 0)
    this.contentBytes = 0
    this.fault = null
    this.cutCount = 0
    this.#remaining = length
    this.#state = SIZE_START
    this.#digits = 0
    this.#extensionBytes = 0
    this.#isDechunked = dechunk
    this.#nominated = nominated
    this.#trailerLength = 0
    this.#isZeroHeld = false
    this.hasZeroBefore = false
  }

  /** Bytes of content still to come; of a body that does not say so, at least. */
  get remaining(): number {
    return this.#remaining
  }

  /**
   * The trailer section to be sent behind everything else, once `isDone`; null when there is none. It is held back until it is
   * complete and known to be allowed.
   */
  get trailer(): Buffer | null {
    return this.#trailerLength === 0 || this.#isDechunked ? null : this.#trailer!.subarray(0, this.#trailerLength)
  }

  /** Reads bytes [start, end): the offset behind the part that belongs to this body, or -1 (see `fault`). */
  scan(bytes: Buffer, start: number, end: number): number {
    this.cutCount = 0
    this.hasZeroBefore = false
    if (this.kind === BodyKind.chunked) return this.#scanChunks(bytes, start, end)
    if (this.kind === BodyKind.untilClose) {
      this.contentBytes += end - start
      return end
    }
    const taken = Math.min(this.#remaining, end - start)
    this.#remaining -= taken
    this.contentBytes += taken
    if (this.#remaining === 0) this.isDone = true
    return start + taken
  }

  /** True when the bytes that the last scan() went over are passed on just as they are. */
  get isVerbatim(): boolean {
    return this.cutCount === 0 && !this.hasZeroBefore
  }

  /** How many bytes copyKept() writes for the same range. */
  keptBytes(start: number, end: number): number {
    let sum = end - start + (this.hasZeroBefore ? 1 : 0)
    for (let i = 0; i < 2 * this.cutCount; i += 2) sum -= this.cuts[i + 1]! - this.cuts[i]!
    return sum
  }

  /** Copies what the last scan() of bytes [start, end) did not cut out; returns the offset behind it. */
  copyKept(bytes: Buffer, start: number, end: number, target: Buffer, at: number): number {
    const { cuts, cutCount } = this
    let from = start
    let to = at
    if (this.hasZeroBefore) target[to++] = 0x30
    for (let i = 0; i < 2 * cutCount; i += 2) {
      const cut = cuts[i]!
      if (cut > from) to += bytes.copy(target, to, from, cut)
      from = cuts[i + 1]!
    }
    return end > from ? to + bytes.copy(target, to, from, end) : to
  }

  #refuse(fault: Fault): -1 {
    this.fault = fault
    return -1
  }

  #cut(from: number, to: number): void {
    if (from === to) return
    const { cuts, cutCount } = this
    if (cutCount > 0 && cuts[2 * cutCount - 1] === from) {
      cuts[2 * cutCount - 1] = to
      return
    }
    if (2 * cutCount === cuts.length) {
      this.cuts = new Int32Array(2 * cuts.length)
      this.cuts.set(cuts)
    }
    this.cuts[2 * cutCount] = from
    this.cuts[2 * cutCount + 1] = to
    this.cutCount++
  }

  #scanChunks(bytes: Buffer, start: number, end: number): number {
    const dechunk = this.#isDechunked
    let state = this.#state
    let i = start
    while (i < end) {
      if (state === DATA) {
        const taken = Math.min(this.#remaining, end - i)
        this.#remaining -= taken
        this.contentBytes += taken
        i += taken
        if (this.#remaining === 0) state = DATA_CR
        continue
      }
      const byte = bytes[i]!
      switch (state) {
        case SIZE_START:
        case SIZE: {
          const digit = HEX[byte]!
          if (digit !== 255) {
            if (++this.#digits > MAX_SIZE_DIGITS) return this.#refuse(FramingFault.chunkSize)
            this.#size = state === SIZE_START ? digit : this.#size * 16 + digit
            if (this.#size > Number.MAX_SAFE_INTEGER) return this.#refuse(FramingFault.chunkSize)
            // A zero goes unless it is the whole number, which is not known at the end of a read.
            this.#isZeroHeld = this.#size === 0 && i + 1 === end
            const isLeadingZero = this.#size === 0 && (i + 1 === end || HEX[bytes[i + 1]!] !== 255)
            if (dechunk || isLeadingZero) this.#cut(i, i + 1)
            state = SIZE
          } else if (this.#isZeroHeld) {
            // Only the first byte of a read comes here: the last one of the read before was the number.
            this.#isZeroHeld = false
            this.hasZeroBefore = !dechunk
            continue
          } else if (state === SIZE_START) {
            return this.#refuse(FramingFault.chunkSize)
          } else if (byte === CR) {
            state = SIZE_LF
            if (dechunk) this.#cut(i, i + 1)
          } else if (byte === 0x3b) {
            if (!this.#extend(i)) return -1
            state = EXTENSION_NAME
          } else return this.#refuse(FramingFault.chunkSize)
          i++
          break
        }
        case EXTENSION_NAME:
        case EXTENSION_NAME_REST:
        case EXTENSION_VALUE:
        case EXTENSION_TOKEN:
        case EXTENSION_QUOTED:
        case EXTENSION_ESCAPED:
        case EXTENSION_END:
          if (byte === CR && isExtensionOver(state)) {
            if (dechunk) this.#cut(i, i + 1)
            state = SIZE_LF
          } else {
            state = afterExtensionByte(state, byte)
            if (state === -1) return this.#refuse(FramingFault.chunkExtension)
            if (!this.#extend(i)) return -1
          }
          i++
          break
        case SIZE_LF:
          if (byte !== LF) return this.#refuse(FramingFault.chunkSize)
          if (dechunk) this.#cut(i, i + 1)
          this.#remaining = this.#size
          this.#digits = 0
          state = this.#size === 0 ? TRAILER_START : DATA
          i++
          break
        case DATA_CR:
        case DATA_LF:
          if (byte !== (state === DATA_CR ? CR : LF)) return this.#refuse(FramingFault.chunkEnd)
          if (dechunk) this.#cut(i, i + 1)
          state = state === DATA_CR ? DATA_LF : SIZE_START
          i++
          break
        case TRAILER_START:
          if (byte === CR) {
            state = LAST_LF
            if (dechunk) this.#cut(i, i + 1)
            i++
          } else state = TRAILER
          break
        case LAST_LF:
          if (byte !== LF) return this.#refuse(FramingFault.chunkEnd)
          if (dechunk) this.#cut(i, i + 1)
          this.isDone = true
          return i + 1
        default: {
          const behind = this.#scanTrailer(bytes, i, end)
          if (behind === -1) return -1
          this.#cut(i, behind)
          i = behind
          if (this.isDone) return i
        }
      }
    }
    this.#state = state
    return i
  }

  /** Cuts one byte of an extension; false when there are too many. */
  #extend(i: number): boolean {
    this.#cut(i, i + 1)
    if (++this.#extensionBytes <= MAX_EXTENSION_BYTES) return true
    this.fault = FramingFault.chunkExtensionTooLong
    return false
  }

  /** Collects the trailer section and reads it as a whole each time, for it is short and rarely split. */
  #scanTrailer(bytes: Buffer, start: number, end: number): number {
    this.#trailer ??= Buffer.allocUnsafeSlow(TRAILER_LIMITS.headBytes)
    trailerParser ??= new HeadParser(TRAILER_LIMITS)
    const before = this.#trailerLength
    const room = this.#trailer.length - before
    const taken = Math.min(room, end - start)
    bytes.copy(this.#trailer, before, start, start + taken)
    trailerParser.resetToFields(0)
    const result = trailerParser.parseFields(this.#trailer, before + taken)
    if (result === 0) {
      if (taken < end - start || taken === room) return this.#refuse(FramingFault.trailerTooLong)
      this.#trailerLength = before + taken
      return end
    }
    if (result === -1) {
      const isTooLong = trailerParser.fault?.status === 431
      return this.#refuse(isTooLong ? FramingFault.trailerTooLong : (trailerParser.fault as Fault))
    }
    if ((trailerParser.seen & FRAMING_FIELDS) !== 0) return this.#refuse(FramingFault.trailerField)
    const { end: trailerEnd } = trailerParser
    this.#trailerLength = withoutForbidden(trailerParser, this.#nominated)
    this.isDone = true
    return start + trailerEnd - before
  }
}

/** Moves the fields that may be in a trailer section together; returns the length of what is left, its empty line included. */
function withoutForbidden(trailer: HeadParser, nominated: readonly Uint8Array[]): number {
  const { bytes, count } = trailer
  let at = 0
  for (let i = 0; i < count; i++) {
    const start = trailer.nameStart(i)
    const nameEnd = trailer.nameEnd(i)
    if (isOneOf(NOT_IN_TRAILERS, bytes, start, nameEnd) || isOneOf(nominated, bytes, start, nameEnd)) continue
    const lineEnd = trailer.lineEnd(i)
    bytes.copyWithin(at, start, lineEnd)
    at += lineEnd - start
  }
  bytes[at++] = CR
  bytes[at++] = LF
  return at
}

function isOneOf(names: readonly Uint8Array[], bytes: Buffer, start: number, end: number): boolean {
  for (let i = 0; i < names.length; i++) if (isWord(bytes, start, end, names[i]!)) return true
  return false
}

/**
 * What RFC 9110 section 6.5.1 keeps out of trailers, by the list of RFC 7230 section 4.1.2: routing, controls and conditions of a
 * request, authentication, control data of a response, how content is read, and everything that concerns one connection only. It is
 * dropped; framing there is an attack and refused.
 */
const NOT_IN_TRAILERS = [
  'host',
  'max-forwards',
  'cache-control',
  'pragma',
  'expect',
  'range',
  'if-match',
  'if-none-match',
  'if-modified-since',
  'if-unmodified-since',
  'if-range',
  'authorization',
  'www-authenticate',
  'proxy-authenticate',
  'proxy-authorization',
  'cookie',
  'set-cookie',
  'age',
  'date',
  'expires',
  'location',
  'retry-after',
  'vary',
  'warning',
  'content-type',
  'content-encoding',
  'content-range',
  'trailer',
  'te',
  'connection',
  'keep-alive',
  'proxy-connection',
  'upgrade',
  'http2-settings',
].map(nameBytes)

function isExtensionOver(state: number): boolean {
  return state === EXTENSION_NAME_REST || state === EXTENSION_TOKEN || state === EXTENSION_END
}

/**
 * The state behind one more byte of `;name=value;name="quoted"` (RFC 9112 section 7.1.1), or -1. The white space that the
 * grammar calls bad is not taken: llhttp refuses it, and it has been used to smuggle.
 */
function afterExtensionByte(state: number, byte: number): number {
  switch (state) {
    case EXTENSION_NAME:
      return TOKEN[byte] === 1 ? EXTENSION_NAME_REST : -1
    case EXTENSION_NAME_REST:
      if (byte === 0x3d) return EXTENSION_VALUE
      if (byte === 0x3b) return EXTENSION_NAME
      return TOKEN[byte] === 1 ? EXTENSION_NAME_REST : -1
    case EXTENSION_VALUE:
      if (byte === 0x22) return EXTENSION_QUOTED
      return TOKEN[byte] === 1 ? EXTENSION_TOKEN : -1
    case EXTENSION_TOKEN:
      if (byte === 0x3b) return EXTENSION_NAME
      return TOKEN[byte] === 1 ? EXTENSION_TOKEN : -1
    case EXTENSION_QUOTED:
      if (byte === 0x22) return EXTENSION_END
      if (byte === 0x5c) return EXTENSION_ESCAPED
      return QUOTED[byte] === 1 ? EXTENSION_QUOTED : -1
    case EXTENSION_ESCAPED:
      return byte === SP || byte === HTAB || (byte > SP && byte !== 0x7f) ? EXTENSION_QUOTED : -1
    default:
      return byte === 0x3b ? EXTENSION_NAME : -1
  }
}
