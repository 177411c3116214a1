/** W3C Trace Context: where a request stands in a trace, read from its head and written into the next one byte by byte. */
import { fillRandom } from '../runtime/random.ts'

/** Bytes of a traceparent of version 00, the only one that is written (section 3.2). */
export const TRACEPARENT_BYTES = 55
/** Where its parts begin: version, trace id, span id, flags. */
const TRACE_AT = 3
const SPAN_AT = 36
const FLAGS_AT = 53
const TRACE_DIGITS = 32
const SPAN_DIGITS = 16

const DASH = 0x2d
const ZERO = 0x30
const HEX_DIGITS = Buffer.from('0123456789abcdef')

/** Lower-case digits alone: an id in upper case is not well-formed (section 3.2.2.3). */
const LOWER_HEX = Uint8Array.from({ length: 256 }, (_, byte) => (HEX_DIGITS.includes(byte) ? 1 : 0))

const SAMPLED = 1
/** The trace id is random (level 2, section 3.2.3.2): true of the ids of a caller who says so, passed on with them. */
const RANDOM = 2

/** Randomness for many ids at once: a read of the kernel's costs as much as 50 ids. */
const pool = Buffer.allocUnsafeSlow(24 * 256)
let used = pool.length

/** What happened to one try of a request, as far as it is known. */
export interface TracedAttempt {
  readonly endpoint: string
  readonly startedAt: number
  readonly endedAt: number
  /** Of the answer; 0: there was none. */
  readonly status: number
  readonly reason: string | null
}

/** The trace of one request after the other: one object per exchange, so that nothing is allocated for a request. */
export class Trace {
  /** The traceparent that is sent on, with a span id of ours. */
  readonly field = Buffer.allocUnsafeSlow(TRACEPARENT_BYTES)
  /** The request came with a well-formed traceparent. */
  hasParent = false
  /** The span is sent whatever becomes of the request. */
  isSampled = false
  /** Tries that were followed by another one; null: none. */
  attempts: TracedAttempt[] | null = null
  /** The caller's tracestate when it is well-formed; null: none. */
  state: string | null = null
  readonly #parent = Buffer.allocUnsafeSlow(SPAN_DIGITS)

  /**
   * Takes up the trace of a request, or begins one. The caller decides whether its trace is sampled, so that a trace is whole or
   * not there at all; of the traces that begin here, `ratio` are.
   * @param start of the value of traceparent; -1 when there is not exactly one such field (section 3.2: then it is ignored)
   */
  begin(bytes: Buffer, start: number, end: number, ratio: number): void {
    const { field } = this
    this.attempts = null
    this.state = null
    if (used === pool.length) {
      fillRandom(pool)
      used = 0
    }
    this.hasParent = start >= 0 && isTraceparent(bytes, start, end)
    if (this.hasParent) {
      bytes.copy(field, 0, start, start + TRACEPARENT_BYTES)
      bytes.copy(this.#parent, 0, start + SPAN_AT, start + SPAN_AT + SPAN_DIGITS)
      const flags = Number.parseInt(bytes.toString('latin1', start + FLAGS_AT, start + TRACEPARENT_BYTES), 16)
      this.isSampled = (flags & SAMPLED) !== 0
      field[FLAGS_AT + 1] = HEX_DIGITS[flags & (SAMPLED | RANDOM)]!
    } else {
      writeId(field, TRACE_AT, TRACE_DIGITS, used)
      this.isSampled = pool.readUInt32LE(used) < ratio * 2 ** 32
      field[TRACE_AT - 1] = DASH
      field[SPAN_AT - 1] = DASH
      field[FLAGS_AT - 1] = DASH
      field[FLAGS_AT + 1] = ZERO + (this.isSampled ? SAMPLED : 0)
    }
    // Whatever the version of the caller: what it may have said beyond 00 is not passed on (section 4.3).
    field[0] = ZERO
    field[1] = ZERO
    field[FLAGS_AT] = ZERO
    writeId(field, SPAN_AT, SPAN_DIGITS, used + 16)
    used += 24
  }

  /** Takes the list of a tracestate field; one that is not well-formed goes on as it came, and is not in the span (section 3.3.1). */
  takeState(bytes: Buffer, start: number, end: number): void {
    if (end - start > MAX_STATE_BYTES) return
    const text = bytes.toString('latin1', start, end)
    if (isTracestate(text)) this.state = text
  }

  get traceId(): string {
    return this.field.toString('latin1', TRACE_AT, TRACE_AT + TRACE_DIGITS)
  }

  /** Ours. */
  get spanId(): string {
    return this.field.toString('latin1', SPAN_AT, SPAN_AT + SPAN_DIGITS)
  }

  /** Of the caller; null: the trace begins here. */
  get parentId(): string | null {
    return this.hasParent ? this.#parent.toString('latin1', 0, SPAN_DIGITS) : null
  }
}

/** Writes random bytes from `from` of the pool as digits; never zeros alone, which mean that there is no id. */
function writeId(target: Buffer, at: number, digits: number, from: number): void {
  let isZero = true
  for (let i = 0; i < digits; i += 2) {
    const byte = pool[from + (i >> 1)]!
    if (byte !== 0) isZero = false
    target[at + i] = HEX_DIGITS[byte >> 4]!
    target[at + i + 1] = HEX_DIGITS[byte & 15]!
  }
  if (isZero) target[at + digits - 1] = ZERO + 1
}

/**
 * Whether a value is a traceparent: version 00 to the byte; a later version by its first four fields, with nothing or a dash behind
 * them (section 4.3). Version ff and ids of zeros are not.
 */
function isTraceparent(bytes: Buffer, start: number, end: number): boolean {
  const length = end - start
  if (length < TRACEPARENT_BYTES) return false
  if (!isHex(bytes, start, 2) || (bytes[start] === 0x66 && bytes[start + 1] === 0x66)) return false
  const isFirst = bytes[start] === ZERO && bytes[start + 1] === ZERO
  if (length > TRACEPARENT_BYTES && (isFirst || bytes[start + TRACEPARENT_BYTES] !== DASH)) return false
  if (bytes[start + TRACE_AT - 1] !== DASH || bytes[start + SPAN_AT - 1] !== DASH) return false
  if (bytes[start + FLAGS_AT - 1] !== DASH || !isHex(bytes, start + FLAGS_AT, 2)) return false
  if (!isHex(bytes, start + TRACE_AT, TRACE_DIGITS) || isZeros(bytes, start + TRACE_AT, TRACE_DIGITS)) return false
  return isHex(bytes, start + SPAN_AT, SPAN_DIGITS) && !isZeros(bytes, start + SPAN_AT, SPAN_DIGITS)
}

function isHex(bytes: Buffer, at: number, digits: number): boolean {
  for (let i = at; i < at + digits; i++) if (LOWER_HEX[bytes[i]!] !== 1) return false
  return true
}

function isZeros(bytes: Buffer, at: number, digits: number): boolean {
  for (let i = at; i < at + digits; i++) if (bytes[i] !== ZERO) return false
  return true
}

/** Longer lists exist; nobody has to carry them (section 3.3.1.5). */
const MAX_STATE_BYTES = 2048
const MAX_STATE_MEMBERS = 32
/** `key=value`: a key of one or two parts, a value of visible ASCII without comma and equals sign (section 3.3.1.3). */
const STATE_MEMBER =
  /^(?:[a-z][a-z0-9_*/-]{0,255}|[a-z0-9][a-z0-9_*/-]{0,240}@[a-z][a-z0-9_*/-]{0,13})=[\x20-\x2b\x2d-\x3c\x3e-\x7e]{0,255}[\x21-\x2b\x2d-\x3c\x3e-\x7e]$/

function isTracestate(text: string): boolean {
  const keys = new Set<string>()
  let count = 0
  for (const part of text.split(',')) {
    const member = part.replace(/^[ \t]+|[ \t]+$/g, '')
    // Empty members are allowed and mean nothing.
    if (member === '') continue
    if (++count > MAX_STATE_MEMBERS || !STATE_MEMBER.test(member)) return false
    const key = member.slice(0, member.indexOf('='))
    if (keys.has(key)) return false
    keys.add(key)
  }
  return count > 0
}
