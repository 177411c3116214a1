/** Makes request ids: UUIDs of version 7 (RFC 9562 section 5.7), written as text into a head without a string in between. */
import { fillRandom } from '../../runtime/random.ts'

const HEX_DIGITS = Buffer.from('0123456789abcdef')
const BYTES_PER_ID = 10

/** Randomness for many ids at once: a call to the generator costs as much as 50 ids. */
const random = Buffer.allocUnsafeSlow(BYTES_PER_ID * 512)
let used = random.length

/** The time part changes once a millisecond, so its digits are kept. */
let stampMs = -1
const stamp = Buffer.alloc(12)

/** Writes 36 bytes at `at`. `wallMs`: milliseconds since 1970. */
export function writeRequestId(target: Buffer, at: number, wallMs: number = Date.now()): void {
  if (wallMs !== stampMs) setStamp(wallMs)
  if (used === random.length) {
    fillRandom(random)
    used = 0
  }
  for (let i = 0; i < 8; i++) target[at + i] = stamp[i]!
  target[at + 8] = 0x2d
  for (let i = 8; i < 12; i++) target[at + 1 + i] = stamp[i]!
  target[at + 13] = 0x2d
  // Four bits of version and twelve random ones.
  target[at + 14] = 0x37
  target[at + 15] = HEX_DIGITS[random[used]! & 15]!
  hexByte(target, at + 16, random[used + 1]!)
  target[at + 18] = 0x2d
  // Two bits of variant and 62 random ones.
  hexByte(target, at + 19, (random[used + 2]! & 0x3f) | 0x80)
  hexByte(target, at + 21, random[used + 3]!)
  target[at + 23] = 0x2d
  for (let i = 0; i < 6; i++) hexByte(target, at + 24 + 2 * i, random[used + 4 + i]!)
  used += BYTES_PER_ID
}

/** One as text. */
export function newRequestId(): string {
  const id = Buffer.allocUnsafe(36)
  writeRequestId(id, 0)
  return id.toString('latin1')
}

function hexByte(target: Buffer, at: number, byte: number): void {
  target[at] = HEX_DIGITS[byte >> 4]!
  target[at + 1] = HEX_DIGITS[byte & 15]!
}

function setStamp(wallMs: number): void {
  stampMs = wallMs
  let rest = wallMs
  for (let i = 11; i >= 0; i--) {
    stamp[i] = HEX_DIGITS[rest % 16]!
    rest = Math.floor(rest / 16)
  }
}
