/** Says why the certificate of a server is not trusted, and what to do about it. */
import type { X509Certificate } from 'node:crypto'
import type { PeerCertificate, TLSSocket } from 'node:tls'
import { nameOf, subjectOf, validityProblem } from './pem.ts'

/** What the chain of a server shows, which cannot be asked for once its connection is closed. */
export interface Chain {
  /** The first certificate that is not valid now; null: there is none. */
  readonly outdated: X509Certificate | null
  /** Who issued the last certificate that the server sent; null when that one signed itself. */
  readonly issuer: string | null
}

/** What Node has and its types do not show; connector tests fail when a new Node changes it. */
interface Verified {
  readonly _handle: { verifyError?(): Error | null | undefined } | null
}

/** Of a chain that OpenSSL does not trust; null when it does. To be asked at the event `secure`, before Node closes such a connection. */
export function untrustedChain(socket: TLSSocket): Chain | null {
  if (!(socket as unknown as Verified)._handle?.verifyError?.()) return null
  const seen = new Set<string>()
  let outdated: X509Certificate | null = null
  let last: X509Certificate | null = null
  let certificate = socket.getPeerX509Certificate()
  while (certificate !== undefined && !seen.has(certificate.fingerprint256)) {
    if (outdated === null && validityProblem(certificate, Date.now()) !== null) outdated = certificate
    seen.add(certificate.fingerprint256)
    last = certificate
    certificate = certificate.issuerCertificate
  }
  return { outdated, issuer: last === null || last.issuer === last.subject ? null : nameOf(last.issuer) }
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
export function describeUntrusted(wanted: string, error: Error, chain: Chain | null): string {
  const code = (error as NodeJS.ErrnoException).code ?? 'unknown'
  if (code === 'ERR_TLS_CERT_ALTNAME_INVALID') return describeOtherName(wanted, error)
  const isOutdated = code.includes('EXPIRED') || code.includes('NOT_YET_VALID')
  if (isOutdated && chain?.outdated) {
    const why = validityProblem(chain.outdated, Date.now())
    return `its certificate is not trusted: ${subjectOf(chain.outdated)} ${why} (${code}), renew it`
  }
  // Node adds advice for its own command line behind a semicolon.
  const what = `its certificate is not trusted: ${error.message.split(';')[0]} (${code})`
  if (isOutdated) return what
  if (!UNKNOWN_CA.has(code)) return `${what}; have it issued anew, for servers and by the rules of its CA`
  const issuer = chain?.issuer ?? null
  const known = issuer === null ? '' : `, '${issuer}' that issued it is neither known nor sent along by the server`
  return `${what}${known}; set tls.ca to the CA that issued it`
}

function describeOtherName(wanted: string, error: Error): string {
  const { subjectaltname, subject } = (error as Error & { cert?: PeerCertificate }).cert ?? {}
  const names = subjectaltname ?? (subject?.CN === undefined ? null : `CN=${subject.CN}`)
  if (names === null)
    return `its certificate has no name at all and is not for '${wanted}'; have it issued for that name`
  return `its certificate is for ${names}, not for '${wanted}'; set tls.serverName to a name that it has`
}
