/** The words of the PostgreSQL protocol, versions 3.0 and 3.2: codes, lengths and small fixed messages. */

/** The first message of a client has no type: its code stands behind its length. The high half of a version is 3. */
export const PROTOCOL_3_0 = 196_608
export const PROTOCOL_3_2 = 196_610
export const CANCEL_REQUEST = 80_877_102
export const SSL_REQUEST = 80_877_103
export const GSSENC_REQUEST = 80_877_104

/** What the client sends, by the letter that the message begins with. */
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
  password: 0x70, // p
  query: 0x51, // Q
  sync: 0x53, // S
  terminate: 0x58, // X
} as const

/** What the server sends. */
export const Back = {
  authentication: 0x52, // R
  backendKeyData: 0x4b, // K
  bindComplete: 0x32, // 2
  closeComplete: 0x33, // 3
  commandComplete: 0x43, // C
  copyData: 0x64, // d
  copyIn: 0x47, // G
  copyBoth: 0x57, // W
  dataRow: 0x44, // D
  emptyQuery: 0x49, // I
  error: 0x45, // E
  negotiateVersion: 0x76, // v
  noData: 0x6e, // n
  notice: 0x4e, // N
  notification: 0x41, // A
  parameterStatus: 0x53, // S
  parseComplete: 0x31, // 1
  portalSuspended: 0x73, // s
  readyForQuery: 0x5a, // Z
  rowDescription: 0x54, // T
} as const

/** Kinds of AuthenticationRequest. */
export const Auth = { ok: 0, cleartext: 3, md5: 5, sasl: 10, saslContinue: 11, saslFinal: 12 } as const

/** Status in ReadyForQuery: outside a transaction, inside one, inside one that has failed. */
export const IDLE = 0x49
export const IN_TRANSACTION = 0x54
export const FAILED_TRANSACTION = 0x45

/** Type and length. The length includes itself and does not include the type. */
export const HEAD_BYTES = 5

/** The longest message that PostgreSQL itself takes: MaxAllocSize. */
export const MAX_MESSAGE_BYTES = 0x3fffffff
/** The longest startup packet that PostgreSQL takes, its length included. */
export const MAX_STARTUP_BYTES = 10_000

const FRONT_CODES = new Uint8Array(256)
for (const code of Object.values(Front)) FRONT_CODES[code] = 1

/** Whether a client may begin a message with this byte. */
export function isFrontCode(code: number): boolean {
  return FRONT_CODES[code] === 1
}

/** A big-endian signed 32-bit integer; faster than Buffer's own, which checks its bounds. */
export function readInt32(bytes: Uint8Array, at: number): number {
  return (bytes[at]! << 24) | (bytes[at + 1]! << 16) | (bytes[at + 2]! << 8) | bytes[at + 3]!
}

/** A message with its type and length. */
export function message(code: number, ...parts: readonly (string | Buffer | number)[]): Buffer {
  const pieces = parts.map((part) => {
    if (typeof part === 'string') return Buffer.from(`${part}\0`)
    if (typeof part !== 'number') return part
    const word = Buffer.allocUnsafe(4)
    word.writeInt32BE(part)
    return word
  })
  const head = Buffer.allocUnsafe(HEAD_BYTES)
  head[0] = code
  head.writeInt32BE(4 + pieces.reduce((sum, piece) => sum + piece.length, 0), 1)
  return Buffer.concat([head, ...pieces])
}

/** The first message of a connection: a length, a code, and what follows. */
export function untyped(code: number, ...parts: readonly Buffer[]): Buffer {
  const head = Buffer.allocUnsafe(8)
  head.writeInt32BE(8 + parts.reduce((sum, part) => sum + part.length, 0))
  head.writeInt32BE(code, 4)
  return Buffer.concat([head, ...parts])
}

export const PARSE_COMPLETE = message(Back.parseComplete)
export const CLOSE_COMPLETE = message(Back.closeComplete)
export const SYNC = message(Front.sync)
export const TERMINATE = message(Front.terminate)
export const AUTHENTICATION_OK = message(Back.authentication, Auth.ok)

/** ReadyForQuery with a status. */
export function readyForQuery(status: number): Buffer {
  return message(Back.readyForQuery, Buffer.from([status]))
}

/** The position behind the NUL of the string that begins at `at`; -1 when there is none before `end`. */
export function endOfString(bytes: Buffer, at: number, end: number): number {
  const nul = bytes.indexOf(0, at)
  return nul < 0 || nul >= end ? -1 : nul + 1
}
