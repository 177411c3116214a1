/** Reads PEM files of certificates and keys, and says in words which part of which file is wrong. */
import type { KeyObject, X509Certificate } from 'node:crypto'
import { whatElse } from './not-pem.ts'

/** Either what was read or what is wrong with it, as the rest of a sentence that begins with the name of the file. */
export type Parsed<T> = { readonly ok: true; readonly value: T } | { readonly ok: false; readonly problem: string }

/** What was read, and the same written anew: OpenSSL silently passes over blocks that do not begin at the begin of a line. */
export interface Certificates {
  /** In the order of the file; at least one. */
  readonly all: readonly X509Certificate[]
  readonly pem: Buffer
}

export interface PrivateKey {
  readonly key: KeyObject
  readonly pem: Buffer
}

/**
 * Anywhere: behind a byte order mark, indented as in a YAML file, behind the last line of a file without a line break that another one
 * was appended to.
 */
const BEGIN = /-----BEGIN ([A-Z0-9 ]{1,64})-----/g
/** RFC 7468 section 5.1; the second is what OpenSSL writes for a certificate with trust settings. */
const CERTIFICATE_LABELS = ['CERTIFICATE', 'X509 CERTIFICATE', 'TRUSTED CERTIFICATE']
const LINE_LENGTH = 64

/** Every certificate of a PEM file, in its order; at least one. Blocks of another kind and text between the blocks are passed over. */
export function parseCertificates(bytes: Buffer): Parsed<Certificates> {
  const text = bytes.toString('latin1')
  const begins = [...text.matchAll(BEGIN)]
  const blocks = begins.filter((begin) => CERTIFICATE_LABELS.includes(labelOf(begin)))
  if (blocks.length === 0) return { ok: false, problem: whyNoCertificate(bytes, begins.map(labelOf)) }
  const { X509Certificate } = process.getBuiltinModule('node:crypto')
  const all: X509Certificate[] = []
  let pem = ''
  for (const [index, begin] of blocks.entries()) {
    const which = blocks.length === 1 ? 'its certificate' : `certificate ${index + 1} of ${blocks.length}`
    const line = text.slice(0, begin.index).split(/\r\n|\n|\r/).length
    const body = bodyOf(text, begin)
    if (body === null) return { ok: false, problem: `${which} (line ${line}) has no END line, copy it whole` }
    if (/^\s*\\n/.test(body)) {
      return {
        ok: false,
        problem: `${which} (line ${line}) has the letters \\n where lines end, put line breaks there`,
      }
    }
    try {
      const der = decodeBody(body)
      all.push(new X509Certificate(der))
      pem += block(labelOf(begin), der)
    } catch {
      return { ok: false, problem: `${which} (line ${line}) does not parse, replace it or remove it` }
    }
  }
  return { ok: true, value: { all, pem: Buffer.from(pem) } }
}

/** The first private key of a PEM file, which must not be encrypted. */
export function parsePrivateKey(bytes: Buffer): Parsed<PrivateKey> {
  const text = bytes.toString('latin1')
  const begins = [...text.matchAll(BEGIN)]
  const begin = begins.find((each) => labelOf(each).endsWith('PRIVATE KEY'))
  if (begin === undefined) {
    const problem = whatElse(bytes, 'private key', begins.map(labelOf))
    return { ok: false, problem: problem ?? 'has no private key, put one there in PEM form' }
  }
  const label = labelOf(begin)
  if (label === 'OPENSSH PRIVATE KEY') {
    return { ok: false, problem: 'has a private key in the form of OpenSSH, convert it to PKCS#8 in PEM form' }
  }
  const body = bodyOf(text, begin)
  if (label === 'ENCRYPTED PRIVATE KEY' || /Proc-Type: 4,ENCRYPTED/.test(body ?? '')) {
    return { ok: false, problem: 'has an encrypted private key, store it without a passphrase' }
  }
  if (body === null) return { ok: false, problem: 'has a private key without its END line, copy it whole' }
  if (/^\s*\\n/.test(body)) {
    return { ok: false, problem: 'has a private key with the letters \\n where lines end, put line breaks there' }
  }
  try {
    const pem = block(label, decodeBody(body))
    const key = process.getBuiltinModule('node:crypto').createPrivateKey(pem)
    return { ok: true, value: { key, pem: Buffer.from(pem) } }
  } catch {
    return { ok: false, problem: 'has a private key that does not parse, replace it' }
  }
}

function labelOf(begin: RegExpExecArray): string {
  return begin[1] ?? ''
}

/** What stands between the BEGIN and the END line; null: another block begins before that ends, or nothing follows. */
function bodyOf(text: string, begin: RegExpExecArray): string | null {
  const from = begin.index + begin[0].length
  const end = text.indexOf(`-----END ${labelOf(begin)}-----`, from)
  const next = text.indexOf('-----BEGIN ', from)
  return end === -1 || (next !== -1 && next < end) ? null : text.slice(from, end)
}

function block(label: string, der: Buffer): string {
  const base64 = der.toString('base64')
  const lines = base64.match(new RegExp(`.{1,${LINE_LENGTH}}`, 'g')) ?? []
  return `-----BEGIN ${label}-----\n${lines.join('\n')}\n-----END ${label}-----\n`
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
  return nameOf(certificate.subject ?? '') || 'without a subject'
}

/** A name of X.500 as Node has it, on one line. */
export function nameOf(lines: string): string {
  return lines.replaceAll('\n', ', ')
}

/** A system file of roots is full of comments, and lines of any length are found in the wild. */
function decodeBody(body: string): Buffer {
  const base64 = body.replace(/\s+/g, '')
  if (!/^[A-Za-z0-9+/]+=*$/.test(base64)) throw new Error('not base64')
  return Buffer.from(base64, 'base64')
}

function whyNoCertificate(bytes: Buffer, labels: readonly string[]): string {
  if (labels.some((label) => label.endsWith('PRIVATE KEY'))) {
    return 'has a private key and no certificate, put the certificate there'
  }
  return whatElse(bytes, 'certificate', labels) ?? 'has no certificate, put one there in PEM form'
}

function isoSeconds(date: Date): string {
  return date.toISOString().replace('.000Z', 'Z')
}
