/** Says why the certificate of a server is not trusted, and what to do about it. */
import type { X509Certificate } from 'node:crypto'
import type { PeerCertificate } from 'node:tls'
import type { LegacyCertificate } from '../runtime/handles.ts'
import type { UntrustedError } from '../runtime/tls-socket.ts'
import { nameOf, subjectOf, validityProblem } from './pem.ts'

/** What the chain of a server shows. */
interface Chain {
  /** The first certificate that is not valid now; null: there is none. */
  readonly outdated: X509Certificate | null
  /** Who issued the last certificate that the server sent; null when that one signed itself. */
  readonly issuer: string | null
}

function look(certificates: readonly LegacyCertificate[]): Chain {
  const { X509Certificate } = process.getBuiltinModule('node:crypto')
  const chain = certificates.map(({ raw }) => new X509Certificate(raw))
  const outdated = chain.find((certificate) => validityProblem(certificate, Date.now()) !== null) ?? null
  const last = chain.at(-1)
  return { outdated, issuer: last === undefined || last.issuer === last.subject ? null : nameOf(last.issuer) }
}

/** Codes of a chain whose end is not in tls.ca. */
const UNKNOWN_CA: ReadonlySet<string> = new Set([
  'UNABLE_TO_GET_ISSUER_CERT',
  'UNABLE_TO_GET_ISSUER_CERT_LOCALLY',
  'UNABLE_TO_VERIFY_LEAF_SIGNATURE',
  'CERT_SIGNATURE_FAILURE',
  'CERT_UNTRUSTED',
  'DEPTH_ZERO_SELF_SIGNED_CERT',
  'SELF_SIGNED_CERT_IN_CHAIN',
])

/**
 * The rest of a sentence that begins with the endpoint.
 * @param wanted the name that was looked for
 */
export function describeUntrusted(wanted: string, error: UntrustedError): string {
  const { code } = error
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return describeOtherName(wanted, error.cause)
  const { outdated, issuer } = look(error.chain)
  const isOutdated = code.includes('EXPIRED') || code.includes('NOT_YET_VALID')
  if (isOutdated && outdated !== null) {
    const why = validityProblem(outdated, Date.now())
    return `its certificate is not trusted: ${subjectOf(outdated)} ${why} (${code}), renew it`
  }
  // Node adds advice for its own command line behind a semicolon.
  const what = `its certificate is not trusted: ${error.message.split(';')[0]} (${code})`
  if (isOutdated) return what
  if (!UNKNOWN_CA.has(code)) return `${what}; have it issued anew, for servers and by the rules of its CA`
  const known = issuer === null ? '' : `, '${issuer}' that issued it is neither known nor sent along by the server`
  return `${what}${known}; set tls.ca to the CA that issued it`
}

function describeOtherName(wanted: string, cause: unknown): string {
  const { subjectaltname, subject } = (cause as { cert?: PeerCertificate }).cert ?? {}
  const names = subjectaltname ?? (subject?.CN === undefined ? null : `CN=${subject.CN}`)
  if (names === null)
    return `its certificate has no name at all and is not for '${wanted}'; have it issued for that name`
  return `its certificate is for ${names}, not for '${wanted}'; set tls.serverName to a name that it has`
}
