/** Reads the head of a message: start line and fields, in place, byte by byte, into offsets; no string is made. */
import { CR, Field, fieldOf, HTAB, LF, SP, TARGET, TOKEN, VALUE } from './tables.ts'

export interface HeadLimits {
  /** Of the whole head, start line and last empty line included. */
  readonly headBytes: number
  readonly fields: number
  /** Of the request line; a longer one is answered 414. */
  readonly lineBytes: number
  /** Of one field line, without its line end. What the usual servers and clients take for a whole head. */
  readonly fieldBytes: number
}

/** The limits of this proxy, both directions. Default: 64 KiB, 100 fields, 8 KiB, 16 KiB. */
export const LIMITS: HeadLimits = { headBytes: 64 * 1024, fields: 100, lineBytes: 8 * 1024, fieldBytes: 16 * 1024 }

/** Why a message is refused. `status` is the answer to a request; a response that breaks a rule is answered 502 whatever it is. */
export interface Fault {
  readonly status: number
  /** Lower case, subject first; shown to the person who debugs the peer, so it names the rule that is broken. */
  readonly text: string
}

/** Faults of a head, by name; framing.ts and headers.ts add theirs. */
const HeadFault = {
  startLine: { status: 400, text: 'the start line is not well-formed' },
  method: { status: 400, text: 'the method is not a token' },
  tls: { status: 400, text: 'the client speaks TLS, and this port plain HTTP: use http://' },
  target: { status: 400, text: 'the request target has a byte that a URI cannot have' },
  fragment: { status: 400, text: 'the request target has a fragment' },
  lineTooLong: { status: 414, text: 'the request line is longer than 8 KiB' },
  version: { status: 505, text: 'the version is neither HTTP/1.1 nor HTTP/1.0' },
  versionSyntax: { status: 400, text: 'the start line does not end with an HTTP version' },
  statusCode: { status: 400, text: 'the status code is not three digits from 100 on' },
  reasonPhrase: { status: 400, text: 'the reason phrase has a control character' },
  lineEnd: { status: 400, text: 'a line does not end with CR LF' },
  fieldName: { status: 400, text: 'a field name is empty or has a byte that is not allowed, or its line is folded' },
  fieldValue: { status: 400, text: 'a field value has a control character' },
  tooManyFields: { status: 431, text: 'the head has more than 100 fields' },
  fieldTooLong: { status: 431, text: 'a field line is longer than 16 KiB' },
  headTooLong: { status: 431, text: 'the head is longer than 64 KiB' },
} as const satisfies Record<string, Fault>

/** Offsets that one field takes in `offsets`. */
const STRIDE = 4

const EMPTY = Buffer.alloc(0)
const NO_VIEW = new DataView(new ArrayBuffer(0))

/** The high bit of each byte of a word. */
const HIGH_BITS = 0x80808080 | 0

/**
 * A head being read. parse() is given a buffer that begins with the head (at `from`) and has grown since the last call; it goes on
 * at the line where it stopped. All offsets are into that buffer, so they hold only as long as it does.
 */
export class HeadParser {
  bytes: Buffer = EMPTY
  /** Where the start line begins, behind skipped empty lines. */
  start = 0
  /** Behind the last empty line, once parse() was positive. */
  end = 0
  methodEnd = 0
  targetStart = 0
  targetEnd = 0
  /** Of HTTP/1.x. */
  minorVersion = 1
  status = 0
  /** Behind the three digits: the rest of a status line is the reason with the space before it. */
  statusEnd = 0
  count = 0
  /** Set of the known fields that are there, and of those that are there more than once: bits `1 << Field`. */
  seen = 0
  repeated = 0
  /** Why parse() returned -1. */
  fault: Fault | null = null

  /** Per field: begin of name, end of name, begin of value, end of value (both without white space around it). */
  readonly offsets: Int32Array
  /** Per field: which known one it is. */
  readonly known: Uint8Array
  /** Per known field: index of its first occurrence; holds only where `seen` has its bit. */
  readonly first = new Uint8Array(32)

  readonly #limits: HeadLimits
  /** The bytes of the last parseFields(), and a view of them for words. */
  #viewed: Buffer = EMPTY
  #view: DataView = NO_VIEW
  #from = 0
  #next = 0
  #inFields = false

  constructor(limits: HeadLimits = LIMITS) {
    this.#limits = limits
    // One more than allowed, so that the end of the last field can be asked for as the begin of the next.
    this.offsets = new Int32Array(STRIDE * (limits.fields + 1))
    this.known = new Uint8Array(limits.fields)
  }

  /** Begins a head at `from`. */
  reset(from: number): void {
    this.#from = from
    this.#next = from
    this.#inFields = false
    this.start = from
    this.count = 0
    this.seen = 0
    this.repeated = 0
    this.fault = null
  }

  /** Begins a trailer section at `from`: fields without a start line. */
  resetToFields(from: number): void {
    this.reset(from)
    this.#inFields = true
  }

  /** Reads a request head from the bytes up to `end`. 1: complete; 0: more bytes are needed; -1: refused, see `fault`. */
  parseRequest(bytes: Buffer, end: number): number {
    this.bytes = bytes
    if (!this.#inFields) {
      const result = this.#requestLine(bytes, end)
      if (result !== 1) return result
      this.#inFields = true
    }
    return this.parseFields(bytes, end)
  }

  /** Reads a response head; otherwise as parseRequest. */
  parseResponse(bytes: Buffer, end: number): number {
    this.bytes = bytes
    if (!this.#inFields) {
      const result = this.#statusLine(bytes, end)
      if (result !== 1) return result
      this.#inFields = true
    }
    return this.parseFields(bytes, end)
  }

  nameStart(index: number): number {
    return this.offsets[STRIDE * index]!
  }

  nameEnd(index: number): number {
    return this.offsets[STRIDE * index + 1]!
  }

  valueStart(index: number): number {
    return this.offsets[STRIDE * index + 2]!
  }

  valueEnd(index: number): number {
    return this.offsets[STRIDE * index + 3]!
  }

  /** Behind the CR LF of the field's line; for the index -1 behind the start line. */
  lineEnd(index: number): number {
    return this.offsets[STRIDE * (index + 1)]!
  }

  /** Nothing but empty lines came up to `end`: no head has begun. */
  isBlank(end: number): boolean {
    return this.#next === end && !this.#inFields
  }

  has(field: number): boolean {
    return (this.seen & (1 << field)) !== 0
  }

  #refuse(fault: Fault): -1 {
    this.fault = fault
    return -1
  }

  #requestLine(bytes: Buffer, end: number): number {
    let i = this.#next
    while (i < end && bytes[i] === CR) {
      if (i + 1 === end) return 0
      // RFC 9112 section 2.2: empty lines before a request line are skipped; some clients send one behind a body.
      if (bytes[i + 1] !== LF) return this.#refuse(HeadFault.lineEnd)
      i += 2
      this.#next = i
    }
    const start = i
    this.start = start
    // A whole line that is too long would otherwise be taken when it comes in one piece.
    const limit = Math.min(end, start + this.#limits.lineBytes)
    while (i < limit && TOKEN[bytes[i]!] === 1) i++
    if (i === limit) return this.#needLine(end, start)
    // 0x16 is the begin of a TLS handshake.
    if (i === start || bytes[i] !== SP) return this.#refuse(bytes[start] === 0x16 ? HeadFault.tls : HeadFault.method)
    this.methodEnd = i
    const target = ++i
    while (i < limit && TARGET[bytes[i]!] === 1) i++
    if (i === limit) return this.#needLine(end, start)
    if (bytes[i] !== SP || i === target) {
      if (bytes[i] === 0x23) return this.#refuse(HeadFault.fragment)
      // A line end here is HTTP/0.9, a space a target that is empty.
      const isLine = bytes[i] === CR || bytes[i] === LF || bytes[i] === SP
      return this.#refuse(isLine ? HeadFault.startLine : HeadFault.target)
    }
    this.targetStart = target
    this.targetEnd = i++
    const behind = this.#version(bytes, i, limit)
    if (behind <= 0) return behind === 0 ? this.#needLine(end, start) : -1
    if (behind === limit) return this.#needLine(end, start)
    if (bytes[behind] !== CR) {
      return this.#refuse(bytes[behind] === LF ? HeadFault.lineEnd : HeadFault.versionSyntax)
    }
    if (behind + 1 === limit) return this.#needLine(end, start)
    if (bytes[behind + 1] !== LF) return this.#refuse(HeadFault.lineEnd)
    this.#next = behind + 2
    return 1
  }

  /** The request line stops at the end of what is there, or at the limit. */
  #needLine(end: number, start: number): number {
    return end - start >= this.#limits.lineBytes ? this.#refuse(HeadFault.lineTooLong) : 0
  }

  /** Reads `HTTP/1.x` at `i`: the offset behind it; 0 when bytes are missing, -1 when refused. */
  #version(bytes: Buffer, i: number, limit: number): number {
    const length = Math.min(limit - i, 8)
    // 0x485454502f312e31 is "HTTP/1.1"; the digits are looked at apart so that the answer can be 505.
    if (length > 0 && bytes[i] !== 0x48) return this.#refuse(HeadFault.versionSyntax)
    if (length > 1 && bytes[i + 1] !== 0x54) return this.#refuse(HeadFault.versionSyntax)
    if (length > 2 && bytes[i + 2] !== 0x54) return this.#refuse(HeadFault.versionSyntax)
    if (length > 3 && bytes[i + 3] !== 0x50) return this.#refuse(HeadFault.versionSyntax)
    if (length > 4 && bytes[i + 4] !== 0x2f) return this.#refuse(HeadFault.versionSyntax)
    if (length > 5 && !isDigit(bytes[i + 5]!)) return this.#refuse(HeadFault.versionSyntax)
    if (length > 6 && bytes[i + 6] !== 0x2e) return this.#refuse(HeadFault.versionSyntax)
    if (length < 8) return 0
    const minor = bytes[i + 7]!
    if (!isDigit(minor)) return this.#refuse(HeadFault.versionSyntax)
    if (bytes[i + 5] !== 0x31 || minor > 0x31) return this.#refuse(HeadFault.version)
    this.minorVersion = minor - 0x30
    return i + 8
  }

  #statusLine(bytes: Buffer, end: number): number {
    const start = this.#next
    this.start = start
    const limit = Math.min(end, start + this.#limits.headBytes)
    let i = this.#version(bytes, start, limit)
    if (i <= 0) return i
    if (i < limit && bytes[i] !== SP) return this.#refuse(HeadFault.startLine)
    if (limit - i < 4) return 0
    const hundreds = bytes[i + 1]!
    const tens = bytes[i + 2]!
    const ones = bytes[i + 3]!
    if (!isDigit(hundreds) || hundreds === 0x30 || !isDigit(tens) || !isDigit(ones)) {
      return this.#refuse(HeadFault.statusCode)
    }
    this.status = (hundreds - 0x30) * 100 + (tens - 0x30) * 10 + ones - 0x30
    i += 4
    this.statusEnd = i
    // The space is required even when the reason is empty; servers that leave it out are many and nothing is ambiguous.
    if (i < limit && bytes[i] !== SP && bytes[i] !== CR) return this.#refuse(HeadFault.statusCode)
    while (i < limit && VALUE[bytes[i]!] === 1) i++
    if (i === limit) return this.#needMore(end)
    if (bytes[i] !== CR) return this.#refuse(bytes[i] === LF ? HeadFault.lineEnd : HeadFault.reasonPhrase)
    if (i + 1 === limit) return this.#needMore(end)
    if (bytes[i + 1] !== LF) return this.#refuse(HeadFault.lineEnd)
    this.#next = i + 2
    return 1
  }

  /** Everything there is fits the grammar so far: wait for more unless the limit is reached. */
  #needMore(end: number): number {
    return end - this.#from >= this.#limits.headBytes ? this.#refuse(HeadFault.headTooLong) : 0
  }

  /** The same within a field line that began at `start`. */
  #needMoreOfField(start: number, end: number): number {
    return end - start > this.#limits.fieldBytes ? this.#refuse(HeadFault.fieldTooLong) : this.#needMore(end)
  }

  /** Reads fields up to the empty line; public for trailer sections (after resetToFields). */
  parseFields(bytes: Buffer, end: number): number {
    this.bytes = bytes
    const { offsets, known } = this
    const { fieldBytes } = this.#limits
    if (bytes !== this.#viewed) {
      this.#viewed = bytes
      this.#view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length)
    }
    const view = this.#view
    const limit = Math.min(end, this.#from + this.#limits.headBytes)
    let count = this.count
    let i = this.#next
    for (;;) {
      const start = i
      offsets[STRIDE * count] = start
      if (i < limit && bytes[i] === CR) {
        if (i + 1 === limit) return this.#needMore(end)
        if (bytes[i + 1] !== LF) return this.#refuse(HeadFault.lineEnd)
        this.end = i + 2
        return 1
      }
      while (i < limit && TOKEN[bytes[i]!] === 1) i++
      if (i === limit) return this.#needMoreOfField(start, end)
      if (bytes[i] !== 0x3a || i === start) {
        return this.#refuse(bytes[i] === LF && i === start ? HeadFault.lineEnd : HeadFault.fieldName)
      }
      const nameEnd = i++
      while (i < limit && (bytes[i] === SP || bytes[i] === HTAB)) i++
      const valueStart = i
      // Four bytes at a time: values are the most of a head.
      for (let last = limit - 4; i <= last; i += 4) {
        const word = view.getInt32(i, true)
        const isCtlOrTab = ((word - 0x20202020) | 0) & ~word & HIGH_BITS
        const flipped = word ^ 0x7f7f7f7f
        const isDel = ((flipped - 0x01010101) | 0) & ~flipped & HIGH_BITS
        if ((isCtlOrTab | isDel) !== 0) break
      }
      while (i < limit && VALUE[bytes[i]!] === 1) i++
      if (i === limit) return this.#needMoreOfField(start, end)
      if (i - start > fieldBytes) return this.#refuse(HeadFault.fieldTooLong)
      if (bytes[i] !== CR) return this.#refuse(bytes[i] === LF ? HeadFault.lineEnd : HeadFault.fieldValue)
      if (i + 1 === limit) return this.#needMore(end)
      if (bytes[i + 1] !== LF) return this.#refuse(HeadFault.lineEnd)
      if (count === this.#limits.fields) return this.#refuse(HeadFault.tooManyFields)
      let valueEnd = i
      while (valueEnd > valueStart && (bytes[valueEnd - 1] === SP || bytes[valueEnd - 1] === HTAB)) valueEnd--
      const at = STRIDE * count
      offsets[at + 1] = nameEnd
      offsets[at + 2] = valueStart
      offsets[at + 3] = valueEnd
      const field = fieldOf(bytes, start, nameEnd)
      known[count] = field
      if (field !== Field.other) {
        const bit = 1 << field
        if ((this.seen & bit) === 0) {
          this.seen |= bit
          this.first[field] = count
        } else this.repeated |= bit
      }
      count++
      i += 2
      this.count = count
      this.#next = i
    }
  }

  /** The value of a field as text, for the paths on which a string may be made. */
  value(index: number): string {
    return this.bytes.toString('latin1', this.valueStart(index), this.valueEnd(index))
  }

  name(index: number): string {
    return this.bytes.toString('latin1', this.nameStart(index), this.nameEnd(index))
  }
}

function isDigit(byte: number): boolean {
  return byte >= 0x30 && byte <= 0x39
}
