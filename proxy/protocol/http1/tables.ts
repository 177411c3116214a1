/** Byte tables of HTTP/1.1: which byte may stand where, and the field names that the proxy knows. */

export const HTAB = 0x09
export const LF = 0x0a
export const CR = 0x0d
export const SP = 0x20

// Built by plain loops: each start of a sidecar runs this before it has compiled anything.

/** A table with ones for these characters. */
function among(characters: string): Uint8Array {
  const table = new Uint8Array(256)
  for (let i = 0; i < characters.length; i++) table[characters.charCodeAt(i)] = 1
  return table
}

/** A table with ones from one byte to another, but for some. */
function between(first: number, last: number, without: readonly number[]): Uint8Array {
  const table = new Uint8Array(256).fill(1, first, last + 1)
  for (const byte of without) table[byte] = 0
  return table
}

const DIGITS = '0123456789'
const LETTERS = 'abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ'

/** tchar (RFC 9110 section 5.6.2): methods, field names, connection options. */
export const TOKEN = among(`${DIGITS}${LETTERS}!#$%&'*+-.^_\`|~`)

/**
 * Bytes of a request target: visible ASCII but '#'. Wider than RFC 3986 by `"<>\^`{|}`, which applications send and servers
 * take; narrower than llhttp by the bytes from 0x80 on, which no grammar allows.
 */
export const TARGET = between(SP + 1, 0x7e, [0x23])

/** field-vchar, SP and HTAB (RFC 9110 section 5.5), with obs-text: everything but CTL. */
export const VALUE = between(SP, 0xff, [0x7f])
VALUE[HTAB] = 1

/** Bytes of a Host without port (RFC 3986 section 3.2.2: reg-name), percent-encodings checked apart. */
export const REG_NAME = among(`${DIGITS}${LETTERS}-._~!$&'()*+,;=%`)

/** Bytes inside the brackets of an IP literal. A zone ("%25eth0") is not for the wire (RFC 6874 section 4). */
export const IP_LITERAL = among(`${DIGITS}abcdefABCDEF:.`)

/** Value of a hexadecimal digit; 255 for every other byte. */
export const HEX = new Uint8Array(256).fill(255)
for (let value = 0; value < 16; value++) {
  const digit = '0123456789abcdef'.charCodeAt(value)
  HEX[digit] = value
  if (value > 9) HEX[digit - 32] = value
}

/** Lower case of ASCII letters; other bytes as they are. */
export const LOWER = new Uint8Array(256)
for (let byte = 0; byte < 256; byte++) LOWER[byte] = byte >= 0x41 && byte <= 0x5a ? byte + 32 : byte

/** qdtext and the bytes that may follow a backslash in a quoted-string (RFC 9110 section 5.6.4). */
export const QUOTED = VALUE.slice()
QUOTED[0x22] = 0
QUOTED[0x5c] = 0

/** Fields that the proxy acts upon; 0 is every other one. At most 31, so that a set of them fits into a number. */
export const Field = {
  other: 0,
  host: 1,
  contentLength: 2,
  transferEncoding: 3,
  connection: 4,
  te: 5,
  trailer: 6,
  upgrade: 7,
  expect: 8,
  keepAlive: 9,
  proxyConnection: 10,
  proxyAuthenticate: 11,
  proxyAuthorization: 12,
  http2Settings: 13,
  requestId: 14,
  idempotencyKey: 15,
  retryAfter: 16,
  authorization: 17,
  cookie: 18,
  setCookie: 19,
  contentType: 20,
  contentEncoding: 21,
  contentRange: 22,
  cacheControl: 23,
  traceparent: 24,
  tracestate: 25,
  maxForwards: 26,
} as const

const NAMES: Record<Exclude<keyof typeof Field, 'other'>, string> = {
  host: 'host',
  contentLength: 'content-length',
  transferEncoding: 'transfer-encoding',
  connection: 'connection',
  te: 'te',
  trailer: 'trailer',
  upgrade: 'upgrade',
  expect: 'expect',
  keepAlive: 'keep-alive',
  proxyConnection: 'proxy-connection',
  proxyAuthenticate: 'proxy-authenticate',
  proxyAuthorization: 'proxy-authorization',
  http2Settings: 'http2-settings',
  requestId: 'x-request-id',
  idempotencyKey: 'idempotency-key',
  retryAfter: 'retry-after',
  authorization: 'authorization',
  cookie: 'cookie',
  setCookie: 'set-cookie',
  contentType: 'content-type',
  contentEncoding: 'content-encoding',
  contentRange: 'content-range',
  cacheControl: 'cache-control',
  traceparent: 'traceparent',
  tracestate: 'tracestate',
  maxForwards: 'max-forwards',
}

interface KnownName {
  readonly field: number
  readonly bytes: Uint8Array
  /** First and last letter, compared before the rest: most names fail here. */
  readonly first: number
  readonly last: number
}

/** Candidates by length of name. */
const KNOWN: KnownName[][] = []
for (let length = 0; length < 32; length++) KNOWN.push([])
for (const key of Object.keys(NAMES) as (keyof typeof NAMES)[]) {
  const name = NAMES[key]
  KNOWN[name.length]!.push({
    field: Field[key],
    bytes: Uint8Array.from(Buffer.from(name)),
    first: name.charCodeAt(0),
    last: name.charCodeAt(name.length - 1),
  })
}

/** Which field the name in bytes [start, end) is; Field.other when none that the proxy knows. */
export function fieldOf(bytes: Uint8Array, start: number, end: number): number {
  const length = end - start
  if (length >= KNOWN.length) return 0
  const candidates = KNOWN[length]!
  for (let i = 0; i < candidates.length; i++) {
    const known = candidates[i]!
    if (LOWER[bytes[start]!] !== known.first || LOWER[bytes[end - 1]!] !== known.last) continue
    if (isName(bytes, start, known.bytes)) return known.field
  }
  return 0
}

/** True when the bytes from `start` are `lower` in any case. The caller has compared the length. */
export function isName(bytes: Uint8Array, start: number, lower: Uint8Array): boolean {
  for (let i = 0; i < lower.length; i++) {
    if (LOWER[bytes[start + i]!] !== lower[i]) return false
  }
  return true
}

/** The bytes of a lower-case name, for isName. */
export function nameBytes(lower: string): Uint8Array {
  return Uint8Array.from(Buffer.from(lower, 'latin1'))
}

/** True when bytes [start, end) are `lower` in any case. */
export function isWord(bytes: Uint8Array, start: number, end: number, lower: Uint8Array): boolean {
  return end - start === lower.length && isName(bytes, start, lower)
}
