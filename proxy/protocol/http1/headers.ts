/** What the fields of a head mean for a hop: connection options, hop-by-hop fields, Host and target, and how the body is framed. */
import { BodyKind, bodyLength, CHUNKED_BODY, framingFault, NO_FRAMING, NO_NAMES } from './framing.ts'
import { type Fault, type HeadParser, LIMITS } from './parser.ts'
import { Field, HTAB, IP_LITERAL, isName, isWord, LOWER, nameBytes, REG_NAME, SP, TOKEN } from './tables.ts'

/** Faults of meaning, by name. */
const MeaningFault = {
  connect: { status: 405, text: 'CONNECT is not offered' },
  trace: { status: 405, text: 'TRACE is not offered' },
  targetForm: {
    status: 400,
    text: "the request target is neither a path nor a http URI, and '*' is for OPTIONS alone",
  },
  authority: { status: 400, text: 'the authority of the request target is not well-formed' },
  authorityMismatch: { status: 400, text: 'the authority of the request target is not the one in Host' },
  noHost: { status: 400, text: 'the request has no Host' },
  repeatedHost: { status: 400, text: 'the request has more than one Host' },
  host: { status: 400, text: 'Host is not a host name or address with an optional port' },
  nominated: { status: 400, text: 'Connection names a field that is not for one connection only' },
  interimCoding: { status: 400, text: 'an interim response has Transfer-Encoding' },
  options: { status: 400, text: 'Connection has more than 32 options' },
} as const satisfies Record<string, Fault>

const CLOSE = nameBytes('close')
const KEEP_ALIVE = nameBytes('keep-alive')
const UPGRADE = nameBytes('upgrade')
const TRAILERS = nameBytes('trailers')
const H2C = nameBytes('h2c')
const CONTINUE = nameBytes('100-continue')
const HTTP = nameBytes('http://')
const HTTPS = nameBytes('https://')

/** Dropped in both directions whatever Connection says; Connection, TE, Upgrade and Trailer have rules of their own. */
const HOP_BY_HOP =
  (1 << Field.keepAlive) |
  (1 << Field.proxyConnection) |
  (1 << Field.proxyAuthenticate) |
  (1 << Field.proxyAuthorization) |
  (1 << Field.http2Settings)

/** Without any of these in a head, none of its fields is dropped. */
const MAY_BE_DROPPED =
  HOP_BY_HOP |
  (1 << Field.connection) |
  (1 << Field.te) |
  (1 << Field.upgrade) |
  (1 << Field.expect) |
  (1 << Field.contentLength) |
  (1 << Field.transferEncoding)

/** Fields that belong to the message: to name them in Connection makes a proxy remove them, which is only of use to an attacker. */
const NEVER_NOMINATED =
  (1 << Field.host) |
  (1 << Field.contentLength) |
  (1 << Field.transferEncoding) |
  (1 << Field.authorization) |
  (1 << Field.cookie) |
  (1 << Field.setCookie) |
  (1 << Field.contentType) |
  (1 << Field.contentEncoding) |
  (1 << Field.contentRange) |
  (1 << Field.cacheControl) |
  (1 << Field.expect) |
  (1 << Field.idempotencyKey)

const MAX_OPTIONS = 32

/** What both kinds of head have in common. */
class Facts {
  /** Per field of the head: 1 when it is not passed on. Holds for the fields of the last head only. */
  readonly dropped = new Uint8Array(LIMITS.fields)
  body: BodyKind = BodyKind.none
  /** Of the body, when its kind is `length`. */
  length = 0
  hasClose = false
  hasKeepAlive = false
  /** Connection has the option `upgrade`. */
  hasUpgrade = false
  /** Other options of Connection, in lower case: no field of such a name goes on, in the head or among the trailers. */
  nominated: readonly Uint8Array[] = NO_NAMES
  /** `dropped` may have ones. */
  #isMarked = false

  /** Reads Connection and marks what is for this hop alone. */
  protected hop(head: HeadParser): Fault | null {
    this.hasClose = false
    this.hasKeepAlive = false
    this.hasUpgrade = false
    this.nominated = NO_NAMES
    const { count, known } = head
    const { dropped } = this
    if (this.#isMarked) dropped.fill(0)
    // Most heads have nothing that could be dropped: then the table stays as it is, all zeros.
    this.#isMarked = (head.seen & MAY_BE_DROPPED) !== 0
    if (!this.#isMarked) return null
    if ((head.seen & HOP_BY_HOP) !== 0) {
      for (let i = 0; i < count; i++) if (((1 << known[i]!) & HOP_BY_HOP) !== 0) dropped[i] = 1
    }
    if (!head.has(Field.connection)) return null
    let options = 0
    for (let i = 0; i < count; i++) {
      if (known[i] !== Field.connection) continue
      dropped[i] = 1
      const { bytes } = head
      const end = head.valueEnd(i)
      let at = head.valueStart(i)
      while (at < end) {
        const start = at
        while (at < end && TOKEN[bytes[at]!] === 1) at++
        const optionEnd = at
        while (at < end && (bytes[at] === SP || bytes[at] === HTAB)) at++
        const isToken = at === end || bytes[at] === 0x2c
        // What is no token cannot be the name of a field.
        while (at < end && bytes[at] !== 0x2c) at++
        at++
        while (at < end && (bytes[at] === SP || bytes[at] === HTAB)) at++
        if (!isToken || optionEnd === start) continue
        if (++options > MAX_OPTIONS) return MeaningFault.options
        if (!this.#option(head, start, optionEnd)) return MeaningFault.nominated
      }
    }
    return null
  }

  /** One option of Connection; false when it names a field that it may not. */
  #option(head: HeadParser, start: number, end: number): boolean {
    const { bytes, count, known, offsets } = head
    if (isWord(bytes, start, end, KEEP_ALIVE)) {
      this.hasKeepAlive = true
      return true
    }
    if (isWord(bytes, start, end, CLOSE)) {
      this.hasClose = true
      return true
    }
    if (isWord(bytes, start, end, UPGRADE)) {
      this.hasUpgrade = true
      return true
    }
    for (let i = 0; i < count; i++) {
      const nameStart = offsets[4 * i]!
      if (offsets[4 * i + 1]! - nameStart !== end - start || !sameName(bytes, nameStart, start, end - start)) continue
      if (known[i] !== 0 && ((1 << known[i]!) & NEVER_NOMINATED) !== 0) return false
      this.dropped[i] = 1
    }
    this.nominated = [...this.nominated, lowerCase(bytes, start, end)]
    return true
  }
}

/** Methods whose repetition changes nothing more (RFC 9110 section 9.2.2), by name. TRACE is not offered. */
const IDEMPOTENT = ['GET', 'HEAD', 'PUT', 'DELETE', 'OPTIONS'].map((method) => Buffer.from(method))
const HEAD_METHOD = Buffer.from('HEAD')
const OPTIONS_METHOD = Buffer.from('OPTIONS')
const CONNECT_METHOD = Buffer.from('CONNECT')
const TRACE_METHOD = Buffer.from('TRACE')

/** What a request head means. One object is used for one head after the other. */
export class RequestFacts extends Facts {
  isHead = false
  isIdempotent = false
  /** The connection may serve another request after this one, as far as the client is concerned. */
  isPersistent = true
  /** The client speaks HTTP/1.0. */
  isOld = false
  /** The client waits for a 100 before it sends its body. */
  expectsContinue = false
  /** The client asks for another protocol that may be passed on. */
  isUpgrade = false
  /** The client asks for trailers (TE: trailers), which is said anew to the next hop. */
  wantsTrailers = false
  /** Of OPTIONS: how often it may be passed on (RFC 9110 section 7.6.2); -1: not said. */
  maxForwards = -1
  /** The target as it is sent on is `prefix` and the bytes [pathStart, targetEnd) of the head: '/' or '*' for a URI without a path. */
  pathStart = 0
  targetPrefix = 0

  /** Reads a complete head. Returns what is wrong with it, or null. */
  examine(head: HeadParser): Fault | null {
    const { bytes, start, methodEnd } = head
    this.isOld = head.minorVersion === 0
    this.#method(bytes, start, methodEnd)
    const methodFault = this.#methodFault(bytes, start, methodEnd)
    if (methodFault !== null) return methodFault
    const hostFault = this.#host(head)
    if (hostFault !== null) return hostFault
    const targetFault = this.#target(head)
    if (targetFault !== null) return targetFault
    const length = bodyLength(head)
    if (length < CHUNKED_BODY) return framingFault
    this.body = length >= 0 ? BodyKind.length : length === NO_FRAMING ? BodyKind.none : BodyKind.chunked
    this.length = Math.max(0, length)
    const hopFault = this.hop(head)
    if (hopFault !== null) return hopFault
    this.isPersistent = this.isOld ? this.hasKeepAlive && !this.hasClose : !this.hasClose
    this.expectsContinue = false
    this.isUpgrade = false
    this.wantsTrailers = false
    this.maxForwards = -1
    if ((head.seen & RARE) !== 0) this.#rare(head)
    return null
  }

  #method(bytes: Buffer, start: number, end: number): void {
    this.isHead = equals(bytes, start, end, HEAD_METHOD)
    this.isIdempotent = false
    for (let i = 0; i < IDEMPOTENT.length; i++) {
      if (equals(bytes, start, end, IDEMPOTENT[i]!)) {
        this.isIdempotent = true
        return
      }
    }
  }

  #methodFault(bytes: Buffer, start: number, end: number): Fault | null {
    if (equals(bytes, start, end, CONNECT_METHOD)) return MeaningFault.connect
    return equals(bytes, start, end, TRACE_METHOD) ? MeaningFault.trace : null
  }

  /** RFC 9112 section 3.2: exactly one Host in HTTP/1.1, at most one in HTTP/1.0. */
  #host(head: HeadParser): Fault | null {
    const bit = 1 << Field.host
    if ((head.seen & bit) === 0) return this.isOld ? null : MeaningFault.noHost
    if ((head.repeated & bit) !== 0) return MeaningFault.repeatedHost
    const index = head.first[Field.host]!
    return isAuthority(head.bytes, head.valueStart(index), head.valueEnd(index)) ? null : MeaningFault.host
  }

  /** RFC 9112 section 3.2: the forms of a target, of which only a path goes to the upstream. */
  #target(head: HeadParser): Fault | null {
    const { bytes, targetStart, targetEnd } = head
    this.targetPrefix = 0
    this.pathStart = targetStart
    const first = bytes[targetStart]
    if (first === 0x2f) return null
    const isOptions = equals(bytes, head.start, head.methodEnd, OPTIONS_METHOD)
    if (first === 0x2a && targetEnd === targetStart + 1) return isOptions ? null : MeaningFault.targetForm
    const isHttps = startsWith(bytes, targetStart, targetEnd, HTTPS)
    if (!isHttps && !startsWith(bytes, targetStart, targetEnd, HTTP)) return MeaningFault.targetForm
    const authority = targetStart + (isHttps ? HTTPS : HTTP).length
    let end = authority
    while (end < targetEnd && bytes[end] !== 0x2f && bytes[end] !== 0x3f) end++
    if (!isAuthority(bytes, authority, end)) return MeaningFault.authority
    if (head.has(Field.host)) {
      const host = head.first[Field.host]!
      const port = isHttps ? HTTPS_PORT : HTTP_PORT
      const length = withoutPort(bytes, authority, end, port) - authority
      const hostStart = head.valueStart(host)
      const hostLength = withoutPort(bytes, hostStart, head.valueEnd(host), port) - hostStart
      if (length !== hostLength || !sameName(bytes, authority, hostStart, length)) return MeaningFault.authorityMismatch
    }
    this.pathStart = end
    // `http://host?query` has the path '/'; OPTIONS with no path and no query means the server as a whole (section 3.2.4).
    if (end === targetEnd) this.targetPrefix = isOptions ? 0x2a : 0x2f
    else if (bytes[end] === 0x3f) this.targetPrefix = 0x2f
    return null
  }

  /** Expect, Upgrade, TE, Max-Forwards: what few requests have. */
  #rare(head: HeadParser): void {
    const { bytes, known, count } = head
    const { dropped } = this
    let offersH2c = false
    for (let i = 0; i < count; i++) {
      const start = head.valueStart(i)
      const end = head.valueEnd(i)
      if (known[i] === Field.expect) {
        // RFC 9110 section 10.1.1: ignored from an HTTP/1.0 client, which would not understand the answer.
        if (this.isOld) dropped[i] = 1
        else if (isWord(bytes, start, end, CONTINUE)) this.expectsContinue = this.body !== BodyKind.none
      } else if (known[i] === Field.te) {
        dropped[i] = 1
        // Many clients leave out the connection option that goes with it (RFC 9110 section 10.1.4); what is asked for is plain.
        this.wantsTrailers ||= listHas(bytes, start, end, TRAILERS)
      } else if (known[i] === Field.upgrade) {
        dropped[i] = 1
        offersH2c ||= listHas(bytes, start, end, H2C)
        this.isUpgrade = this.hasUpgrade && !this.isOld
      } else if (known[i] === Field.maxForwards && equals(bytes, head.start, head.methodEnd, OPTIONS_METHOD)) {
        const times = smallNumber(bytes, start, end)
        // One that is said twice goes no further than the smaller number.
        if (times >= 0 && (this.maxForwards < 0 || times < this.maxForwards)) this.maxForwards = times
      }
    }
    // An upstream that took h2c would leave everything that this proxy checks behind.
    if (offersH2c) this.isUpgrade = false
    if (!this.isUpgrade) return
    for (let i = 0; i < count; i++) if (known[i] === Field.upgrade) dropped[i] = 0
  }
}

const RARE = (1 << Field.expect) | (1 << Field.te) | (1 << Field.upgrade) | (1 << Field.maxForwards)

/** A number of up to nine digits; -1 when it is none. */
function smallNumber(bytes: Buffer, start: number, end: number): number {
  if (end === start || end - start > 9) return -1
  let value = 0
  for (let i = start; i < end; i++) {
    const digit = bytes[i]! - 0x30
    if (digit < 0 || digit > 9) return -1
    value = value * 10 + digit
  }
  return value
}

/** What a response head means, given the request that it answers. */
export class ResponseFacts extends Facts {
  /** The upstream keeps the connection open after this response. */
  isPersistent = true
  /** Seconds of `Keep-Alive: timeout=N`; -1 when it does not say. */
  keepAliveSeconds = -1

  /** Reads a complete head. Returns what is wrong with it, or null. */
  examine(head: HeadParser, isAnswerToHead: boolean): Fault | null {
    const { status } = head
    const length = bodyLength(head)
    if (length < CHUNKED_BODY) return framingFault
    // RFC 9112 section 6.1; a parser that believes it waits for chunks where the final response comes.
    if (status < 200 && length === CHUNKED_BODY) return MeaningFault.interimCoding
    const hopFault = this.hop(head)
    if (hopFault !== null) return hopFault
    this.length = Math.max(0, length)
    const hasNoBody = status < 200 || status === 204 || status === 304
    if (hasNoBody || isAnswerToHead) this.body = BodyKind.none
    else this.body = length >= 0 ? BodyKind.length : length === CHUNKED_BODY ? BodyKind.chunked : BodyKind.untilClose
    this.isPersistent = head.minorVersion === 0 ? this.hasKeepAlive && !this.hasClose : !this.hasClose
    if (this.body === BodyKind.untilClose) this.isPersistent = false
    this.keepAliveSeconds = head.has(Field.keepAlive) ? keepAliveSeconds(head) : -1
    if ((head.seen & (hasNoBody ? RARE_WITHOUT_BODY : RARE_IN_RESPONSE)) !== 0) this.#rare(head, hasNoBody)
    return null
  }

  #rare(head: HeadParser, hasNoBody: boolean): void {
    const { status, known, count } = head
    for (let i = 0; i < count; i++) {
      const field = known[i]
      if (field === Field.te) this.dropped[i] = 1
      // RFC 9110 section 15.5.22: a 426 has to say what to upgrade to.
      else if (field === Field.upgrade) this.dropped[i] = status === 101 || status === 426 ? 0 : 1
      // RFC 9110 section 8.6: no Content-Length in 1xx and 204; in 304 and in answers to HEAD it describes what is not sent.
      else if (field === Field.contentLength) this.dropped[i] = hasNoBody && status !== 304 ? 1 : 0
      else if (field === Field.transferEncoding) this.dropped[i] = hasNoBody ? 1 : 0
    }
  }
}

const RARE_IN_RESPONSE = (1 << Field.te) | (1 << Field.upgrade)
const RARE_WITHOUT_BODY = RARE_IN_RESPONSE | (1 << Field.contentLength) | (1 << Field.transferEncoding)

const TIMEOUT = nameBytes('timeout=')

function keepAliveSeconds(head: HeadParser): number {
  const index = head.first[Field.keepAlive]!
  const { bytes } = head
  const end = head.valueEnd(index)
  for (let i = head.valueStart(index); i + TIMEOUT.length < end; i++) {
    if (!isName(bytes, i, TIMEOUT)) continue
    let seconds = -1
    for (let at = i + TIMEOUT.length; at < end && bytes[at]! >= 0x30 && bytes[at]! <= 0x39; at++) {
      seconds = Math.max(0, seconds) * 10 + bytes[at]! - 0x30
    }
    return Math.min(seconds, 1e6)
  }
  return -1
}

function lowerCase(bytes: Buffer, start: number, end: number): Uint8Array {
  const name = new Uint8Array(end - start)
  for (let i = 0; i < name.length; i++) name[i] = LOWER[bytes[start + i]!]!
  return name
}

function equals(bytes: Buffer, start: number, end: number, word: Buffer): boolean {
  if (end - start !== word.length) return false
  for (let i = 0; i < word.length; i++) if (bytes[start + i] !== word[i]) return false
  return true
}

function startsWith(bytes: Buffer, start: number, end: number, lower: Uint8Array): boolean {
  return end - start >= lower.length && isName(bytes, start, lower)
}

/** True when two ranges of one length are the same word in any case. */
function sameName(bytes: Buffer, one: number, other: number, length: number): boolean {
  for (let i = 0; i < length; i++) if (LOWER[bytes[one + i]!] !== LOWER[bytes[other + i]!]) return false
  return true
}

/** True when a comma-separated list has `word`, alone or with parameters. */
function listHas(bytes: Buffer, start: number, end: number, word: Uint8Array): boolean {
  let at = start
  while (at < end) {
    while (at < end && (bytes[at] === SP || bytes[at] === HTAB || bytes[at] === 0x2c)) at++
    const from = at
    while (at < end && TOKEN[bytes[at]!] === 1) at++
    if (isWord(bytes, from, at, word)) return true
    while (at < end && bytes[at] !== 0x2c) at++
  }
  return false
}

const HTTP_PORT = Buffer.from('80')
const HTTPS_PORT = Buffer.from('443')

/** The end of an authority without a port that is empty or the default one. */
function withoutPort(bytes: Buffer, start: number, end: number, port: Buffer): number {
  let colon = end
  while (colon > start && bytes[colon - 1]! >= 0x30 && bytes[colon - 1]! <= 0x39) colon--
  if (colon === start || bytes[colon - 1] !== 0x3a) return end
  return colon === end || equals(bytes, colon, end, port) ? colon - 1 : end
}

/** `host [":" port]` (RFC 3986 section 3.2.2), not empty and without userinfo. */
function isAuthority(bytes: Buffer, start: number, end: number): boolean {
  let i = start
  if (bytes[i] === 0x5b && i < end) {
    i++
    const literal = i
    let colons = 0
    while (i < end && IP_LITERAL[bytes[i]!] === 1) if (bytes[i++] === 0x3a) colons++
    if (colons < 2 || i - literal > 45 || i >= end || bytes[i] !== 0x5d) return false
    i++
  } else {
    while (i < end && REG_NAME[bytes[i]!] === 1) {
      if (bytes[i] === 0x25 && !isPercentEncoded(bytes, i, end)) return false
      i++
    }
    if (i === start) return false
  }
  if (i === end) return true
  if (bytes[i] !== 0x3a || end - i > 6) return false
  let port = 0
  for (i++; i < end; i++) {
    const digit = bytes[i]! - 0x30
    if (digit < 0 || digit > 9) return false
    port = port * 10 + digit
  }
  return port <= 65535
}

function isPercentEncoded(bytes: Buffer, i: number, end: number): boolean {
  return i + 2 < end && isHexDigit(bytes[i + 1]!) && isHexDigit(bytes[i + 2]!)
}

function isHexDigit(byte: number): boolean {
  const lower = byte | 0x20
  return (byte >= 0x30 && byte <= 0x39) || (lower >= 0x61 && lower <= 0x66)
}
