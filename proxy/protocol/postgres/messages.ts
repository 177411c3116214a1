/** The words of the PostgreSQL protocol, version 3: codes, lengths and how messages are put together. */

/** The first message of a client has no type: a code stands behind its length. The high half of a version is 3. */
export const CANCEL_REQUEST = 80_877_102
export const SSL_REQUEST = 80_877_103
export const GSSENC_REQUEST = 80_877_104

/** What the server sends, by the letter that the message begins with. */
export const Back = {
  authentication: 0x52, // R
  backendKeyData: 0x4b, // K
  bindComplete: 0x32, // 2
  closeComplete: 0x33, // 3
  commandComplete: 0x43, // C
  copyBoth: 0x57, // W
  copyIn: 0x47, // G
  dataRow: 0x44, // D
  emptyQuery: 0x49, // I
  error: 0x45, // E
  negotiateVersion: 0x76, // v
  noData: 0x6e, // n
  notice: 0x4e, // N
  parameterStatus: 0x53, // S
  parseComplete: 0x31, // 1
  portalSuspended: 0x73, // s
  readyForQuery: 0x5a, // Z
  rowDescription: 0x54, // T
} as const

/** Every answer of a client to an AuthenticationRequest. */
export const PASSWORD = 0x70 // p
export const QUERY = 0x51 // Q

/** What a client sends once it is let in. */
export const Front = {
  bind: 0x42, // B
  close: 0x43, // C
  copyData: 0x64, // d
  copyDone: 0x63, // c
  copyFail: 0x66, // f
  describe: 0x44, // D
  execute: 0x45, // E
  flush: 0x48, // H
  functionCall: 0x46, // F
  parse: 0x50, // P
  query: QUERY,
  sync: 0x53, // S
  terminate: 0x58, // X
} as const

/** Of ReadyForQuery: outside of a transaction; in one; in one that failed. */
export const Transaction = { idle: 0x49, open: 0x54, failed: 0x45 } as const

/** Kinds of AuthenticationRequest. */
export const Auth = { ok: 0, cleartext: 3, md5: 5, sasl: 10, saslContinue: 11, saslFinal: 12 } as const

/** Type and length. The length includes itself and does not include the type. */
export const HEAD_BYTES = 5

/** PostgreSQL itself takes no longer message (PQ_LARGE_MESSAGE_LIMIT). */
export const MAX_MESSAGE_BYTES = 0x40000000

/** The longest startup packet that PostgreSQL takes, its length included. */
export const MAX_STARTUP_BYTES = 10_000

/** A message with its type and length; a string gets the NUL that ends it, a number is 32 bits. */
export function message(code: number, ...parts: readonly (string | Buffer | number)[]): Buffer {
  const pieces = parts.map((part) => {
    if (typeof part === 'string') return Buffer.from(`${part}\0`)
    return typeof part === 'number' ? int32(part) : part
  })
  return Buffer.concat([Buffer.from([code]), int32(4 + bytesOf(pieces)), ...pieces])
}

/** The first message of a connection: a length, a code, and what follows. */
export function untyped(code: number, ...parts: readonly Buffer[]): Buffer {
  return Buffer.concat([int32(8 + bytesOf(parts)), int32(code), ...parts])
}

function bytesOf(parts: readonly Buffer[]): number {
  return parts.reduce((sum, part) => sum + part.length, 0)
}

function int32(value: number): Buffer {
  const word = Buffer.allocUnsafe(4)
  word.writeInt32BE(value)
  return word
}

/** What is wrong with a message of a type that no client sends. */
export function unknownMessage(code: number): string {
  const letter = code > 0x20 && code < 0x7f ? ` ('${String.fromCharCode(code)}')` : ''
  return `a message of type ${code}${letter}, which no client sends: connect with a client of PostgreSQL`
}

/** ReadyForQuery outside of a transaction. */
export const READY: Buffer = message(Back.readyForQuery, Buffer.from([Transaction.idle]))
