/** The part of ASN.1 DER (X.690) that a certificate is written in. Builds bytes; reads nothing. */

const TAG = {
  boolean: 0x01,
  integer: 0x02,
  bitString: 0x03,
  octetString: 0x04,
  objectIdentifier: 0x06,
  utf8String: 0x0c,
  utcTime: 0x17,
  generalizedTime: 0x18,
  sequence: 0x30,
  set: 0x31,
} as const

/** Tag, length in the shortest form (X.690 section 10.1), content. */
function tagged(tag: number, content: Uint8Array): Buffer {
  const { length } = content
  if (length < 0x80) return Buffer.concat([Buffer.from([tag, length]), content])
  const bytes: number[] = []
  for (let rest = length; rest > 0; rest = Math.floor(rest / 256)) bytes.unshift(rest % 256)
  return Buffer.concat([Buffer.from([tag, 0x80 | bytes.length, ...bytes]), content])
}

export function sequence(...parts: readonly Uint8Array[]): Buffer {
  return tagged(TAG.sequence, Buffer.concat(parts))
}

/** A SET of one: with more, DER would want them sorted. */
export function setOf(part: Uint8Array): Buffer {
  return tagged(TAG.set, part)
}

/** A whole number that is not negative, given as big-endian bytes. */
export function integer(bytes: Uint8Array): Buffer {
  let start = 0
  while (start < bytes.length - 1 && bytes[start] === 0) start++
  const content = bytes.subarray(start)
  // A first bit of 1 would make it negative.
  const isHigh = ((content[0] ?? 0) & 0x80) !== 0
  return tagged(TAG.integer, isHigh || content.length === 0 ? Buffer.concat([Buffer.from([0]), content]) : content)
}

export function boolean(value: boolean): Buffer {
  return tagged(TAG.boolean, Buffer.from([value ? 0xff : 0x00]))
}

/** `1.2.840.10045.4.3.2` */
export function objectIdentifier(dotted: string): Buffer {
  const [first = 0, second = 0, ...rest] = dotted.split('.').map(Number)
  const bytes: number[] = []
  for (const arc of [first * 40 + second, ...rest]) {
    const groups = [arc & 0x7f]
    for (let high = Math.floor(arc / 128); high > 0; high = Math.floor(high / 128)) groups.unshift(0x80 | (high & 0x7f))
    bytes.push(...groups)
  }
  return tagged(TAG.objectIdentifier, Buffer.from(bytes))
}

export function utf8String(text: string): Buffer {
  return tagged(TAG.utf8String, Buffer.from(text, 'utf8'))
}

export function octetString(content: Uint8Array): Buffer {
  return tagged(TAG.octetString, content)
}

/** `unusedBits`: how many of the last byte do not count. */
export function bitString(content: Uint8Array, unusedBits = 0): Buffer {
  return tagged(TAG.bitString, Buffer.concat([Buffer.from([unusedBits]), content]))
}

/** RFC 5280 section 4.1.2.5: UTCTime through 2049, GeneralizedTime from 2050 on, whole seconds. */
export function time(date: Date): Buffer {
  const text = `${date.toISOString().slice(0, 19).replace(/[-:T]/g, '')}Z`
  return date.getUTCFullYear() < 2050
    ? tagged(TAG.utcTime, Buffer.from(text.slice(2), 'latin1'))
    : tagged(TAG.generalizedTime, Buffer.from(text, 'latin1'))
}

/** EXPLICIT [n]: wraps a whole value. */
export function explicit(n: number, content: Uint8Array): Buffer {
  return tagged(0xa0 | n, content)
}

/** IMPLICIT [n] of a primitive type: replaces its tag. */
export function implicit(n: number, content: Uint8Array): Buffer {
  return tagged(0x80 | n, content)
}
