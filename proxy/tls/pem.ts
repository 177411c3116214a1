/** Reads PEM files of certificates and keys, and says in words which part of which file is wrong. */
import type { KeyObject, X509Certificate } from 'node:crypto'

/** Either what was read or what is wrong with it, as the rest of a sentence that begins with the name of the file. */
export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly problem: string }

const BEGIN = /^-----BEGIN ([A-Z0-9 ]+)-----[ \t]*\r?$/gm
/** RFC 7468 section 5.1; the second is what OpenSSL writes for a certificate with trust settings. */
const CERTIFICATE_LABELS = ['CERTIFICATE', 'X509 CERTIFICATE', 'TRUSTED CERTIFICATE']

/** Every certificate of a PEM file, in its order; at least one. Blocks of another kind and text between the blocks are passed over. */
export function parseCertificates(bytes: Buffer): Parsed<readonly X509Certificate[]> {
  const text = bytes.toString('latin1')
  const begins = [...text.matchAll(BEGIN)]
  const blocks = begins.filter((begin) => CERTIFICATE_LABELS.includes(begin[1] ?? ''))
  if (blocks.length === 0) return { ok: false, problem: whyNoCertificate(bytes, begins[0]?.[1]) }
  const { X509Certificate } = process.getBuiltinModule('node:crypto')
  const certificates: X509Certificate[] = []
  for (const [index, begin] of blocks.entries()) {
    const which = blocks.length === 1 ? 'its certificate' : `certificate ${index + 1} of ${blocks.length}`
    const line = text.slice(0, begin.index).split('\n').length
    const end = text.indexOf(`-----END ${begin[1]}-----`, begin.index)
    const next = begins.find((other) => other.index > begin.index)?.index ?? text.length
    if (end === -1 || end > next) {
      return { ok: false, problem: `${which} (line ${line}) has no END line, copy it whole` }
    }
    try {
      const body = text.slice(begin.index + begin[0].length, end)
      certificates.push(new X509Certificate(decodeBody(body)))
    } catch {
      return { ok: false, problem: `${which} (line ${line}) does not parse, replace it or remove it` }
    }
  }
  return { ok: true, value: certificates }
}

/** The private key of a PEM file, which must not be encrypted. */
export function parsePrivateKey(bytes: Buffer): Parsed<KeyObject> {
  const text = bytes.toString('latin1')
  const label = [...text.matchAll(BEGIN)].map((begin) => begin[1] ?? '').find((name) => name.endsWith('PRIVATE KEY'))
  if (label === undefined) return { ok: false, problem: 'has no private key, put one there in PEM form' }
  if (label === 'ENCRYPTED PRIVATE KEY' || /^Proc-Type: 4,ENCRYPTED/m.test(text)) {
    return { ok: false, problem: 'has an encrypted private key, store it without a passphrase' }
  }
  try {
    return { ok: true, value: process.getBuiltinModule('node:crypto').createPrivateKey(bytes) }
  } catch {
    return { ok: false, problem: 'has a private key that does not parse, replace it' }
  }
}

/** Why a certificate is not valid now, with both dates; null when it is. */
export function validityProblem(certificate: X509Certificate, wallNow: number): string | null {
  const from = certificate.validFromDate
  const to = certificate.validToDate
  const dates = `valid from ${isoSeconds(from)} to ${isoSeconds(to)}`
  if (wallNow < from.getTime()) return `is not yet valid (${dates})`
  if (wallNow > to.getTime()) return `has expired (${dates})`
  return null
}

/** The subject on one line, for a person. */
export function subjectOf(certificate: X509Certificate): string {
  return certificate.subject?.replaceAll('\n', ', ') || 'without a subject'
}

/** A system file of roots is full of comments, and lines of any length are found in the wild. */
function decodeBody(body: string): Buffer {
  const base64 = body.replace(/\s+/g, '')
  if (!/^[A-Za-z0-9+/]+=*$/.test(base64)) throw new Error('not base64')
  return Buffer.from(base64, 'base64')
}

function whyNoCertificate(bytes: Buffer, firstLabel: string | undefined): string {
  if (firstLabel?.endsWith('PRIVATE KEY')) return 'has a private key and no certificate, put the certificate there'
  // SEQUENCE with a length of two bytes: how each DER certificate begins.
  if (bytes[0] === 0x30 && bytes[1] === 0x82) return 'is a certificate in DER form, convert it to PEM'
  return 'has no certificate, put one there in PEM form'
}

function isoSeconds(date: Date): string {
  return date.toISOString().replace('.000Z', 'Z')
}
