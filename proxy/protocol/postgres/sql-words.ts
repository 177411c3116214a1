/** What the bytes and the words of SQL mean to whoever reads it only for what it leaves behind. */
import { RESTORABLE_PARAMETERS } from './pins.ts'

// Words that mean something. Keywords come first: in double quotes they are names.
export const WORD = {
  none: 0,
  set: 1,
  reset: 2,
  prepare: 3,
  listen: 4,
  load: 5,
  declare: 6,
  create: 7,
  do: 8,
  update: 9,
  deallocate: 10,
  local: 11,
  global: 12,
  transaction: 13,
  constraints: 14,
  session: 15,
  characteristics: 16,
  authorization: 17,
  temp: 18,
  temporary: 19,
  replace: 20,
  into: 21,
  insert: 22,
  merge: 23,
  with: 24,
  hold: 25,
  true: 26,
  begin: 27,
  else: 29,
  loop: 30,
  execute: 31,
  time: 32,
  names: 33,
  schema: 34,
  discard: 35,
  alter: 36,
  drop: 37,
  savepoint: 38,
  release: 39,
  rollback: 40,
  commit: 41,
  start: 42,
  end: 43,
  abort: 44,
  fetch: 45,
  close: 46,
  move: 47,
  notify: 48,
  show: 49,
  unlisten: 50,
  language: 51,
  plpgsql: 52,
  default: 53,
  function: 54,
  procedure: 55,
  routine: 56,
  extension: 57,
  owned: 58,
  role: 64,
  session_authorization: 65,
  pg_temp: 66,
  pg_settings: 67,
  set_config: 68,
  currval: 69,
  lastval: 70,
  pg_advisory_lock: 71,
  pg_advisory_lock_shared: 72,
  pg_try_advisory_lock: 73,
  pg_try_advisory_lock_shared: 74,
  dblink_connect: 75,
  dblink_connect_u: 76,
  pg_replication_origin_session_setup: 77,
  e: 78,
  u: 79,
} as const
/** Statements of these kinds call nothing, and may name something new each time, as savepoints are. */
export const CALLS_NOTHING: Uint8Array = new Uint8Array(256)
for (const name of [
  'savepoint',
  'release',
  'rollback',
  'commit',
  'start',
  'end',
  'abort',
  'fetch',
  'close',
  'move',
  'notify',
  'listen',
  'show',
  'unlisten',
  'deallocate',
] as const) {
  CALLS_NOTHING[WORD[name]] = 1
}
/** An object with a member of this name would be taken for a promise. */
export const THEN = 28
export const FIRST_NAME = 64
export const FIRST_PARAMETER = 128

/** No word that means something is as long. */
export const LONGEST = 40
/** Whether a word of this first letter and length can be one of those: most cannot, and are passed over. */
const candidates = new Uint8Array(256 * LONGEST)
const codes = new Map<number, number>()

/** The hash of a word with one byte more; that of none is 0. */
export function hashed(hash: number, byte: number): number {
  return (Math.imul(hash, 31) + byte) | 0
}

/** Of a name as the server spells it, byte for byte (latin1). */
export function hashOf(word: string): number {
  let hash = 0
  for (let at = 0; at < word.length; at++) hash = hashed(hash, word.charCodeAt(at))
  return hash
}

/** What a word means, by its first letter, its length and its hash: one of WORD, THEN, or a parameter. */
export function codeOf(firstLetter: number, length: number, hash: number): number {
  if (length >= LONGEST || candidates[firstLetter * LONGEST + length] !== 1) return WORD.none
  return codes.get(hash) ?? WORD.none
}

for (const [word, code] of [
  ...Object.entries(WORD),
  ['then', THEN] as const,
  ...RESTORABLE_PARAMETERS.map((name, bit) => [name, FIRST_PARAMETER + bit] as const),
]) {
  if (code === WORD.none) continue
  candidates[word.charCodeAt(0) * LONGEST + word.length] = 1
  codes.set(hashOf(word), code)
}

// What a byte is; 0 is any other.
export const SPACE = 1
export const LETTER = 2
export const DIGIT = 3
export const QUOTE = 4
export const DOUBLE_QUOTE = 5
export const DOLLAR = 6
export const MINUS = 7
export const SLASH = 8
export const SEMICOLON = 9
export const OPEN = 10
export const CLOSE = 11
export const CLASS: Uint8Array = new Uint8Array(256)
/** Capital letters as small ones. */
export const LOWER: Uint8Array = new Uint8Array(256)
for (let byte = 0; byte < 256; byte++) {
  const text = String.fromCharCode(byte)
  LOWER[byte] = byte < 0x80 ? text.toLowerCase().charCodeAt(0) : byte
  if (byte >= 0x80 || /[A-Za-z_]/.test(text)) CLASS[byte] = LETTER
  else if (/[0-9]/.test(text)) CLASS[byte] = DIGIT
  else if (/[ \t\r\n\f\v]/.test(text)) CLASS[byte] = SPACE
}
for (const [text, kind] of [
  ["'", QUOTE],
  ['"', DOUBLE_QUOTE],
  ['$', DOLLAR],
  ['-', MINUS],
  ['/', SLASH],
  [';', SEMICOLON],
  ['(', OPEN],
  [')', CLOSE],
] as const) {
  CLASS[text.charCodeAt(0)] = kind
}
