/** What a broken TLS connection means, for a person: OpenSSL's code in words, with the remedy. */

/** By the part of Node's code that OpenSSL versions and TLS versions have in common (RFC 8446 section 6.2 names the alerts). */
const MEANINGS: readonly (readonly [part: string, meaning: string])[] = [
  ['ALERT_CERTIFICATE_REQUIRED', 'it wants a client certificate; set tls.clientCertificate'],
  ['ALERT_UNKNOWN_CA', 'it does not trust the client certificate; use one of a CA that it trusts'],
  ['ALERT_CERTIFICATE_EXPIRED', 'it takes the client certificate for expired; renew it'],
  ['ALERT_CERTIFICATE_REVOKED', 'it takes the client certificate for revoked; issue another one'],
  ['ALERT_BAD_CERTIFICATE', 'it does not take the client certificate; use one of a CA that it trusts'],
  [
    'ALERT_UNSUPPORTED_CERTIFICATE',
    'it takes no client certificate of this kind; use one for clients, with a usual key',
  ],
  ['ALERT_CERTIFICATE_UNKNOWN', 'it does not take the client certificate; see its log'],
  ['ALERT_ACCESS_DENIED', 'it does not let this client certificate in; give it the right or use another one'],
  ['ALERT_NO_APPLICATION_PROTOCOL', 'it speaks none of the protocols that were offered (ALPN); correct the port'],
  ['UNRECOGNIZED_NAME', 'it does not know the server name; set tls.serverName to a name that it has'],
  ['ALERT_PROTOCOL_VERSION', 'it speaks no protocol version that is allowed; lower tls.minVersion or update it'],
  ['UNSUPPORTED_PROTOCOL', 'it speaks no protocol version that is allowed; lower tls.minVersion or update it'],
  ['WRONG_VERSION_NUMBER', 'it does not answer in TLS; correct the port or remove tls'],
  ['ALERT_INSUFFICIENT_SECURITY', 'it wants stronger ciphers than we share with it; see its log'],
  ['ALERT_INTERNAL_ERROR', 'something went wrong inside it; see its log'],
  ['HANDSHAKE_FAILURE', 'it shares no cipher with us, or wants a client certificate; see its log'],
  ['DECRYPTION_FAILED_OR_BAD_RECORD_MAC', 'what it sent was changed on its way'],
  ['BAD_RECORD_TYPE', 'it does not keep to TLS; see what listens there'],
  ['UNEXPECTED_MESSAGE', 'it does not keep to TLS; see what listens there'],
  ['DATA_LENGTH_TOO_LONG', 'it does not keep to TLS; see what listens there'],
]

/**
 * The meaning of an error of a TLS connection, as a part of a sentence of which the endpoint is the subject; null when it has no
 * other meaning than its code.
 */
function alertMeaning(error: Error | null): string | null {
  const code = (error as NodeJS.ErrnoException | null)?.code ?? ''
  if (!code.startsWith('ERR_SSL_')) return null
  return MEANINGS.find(([part]) => code.includes(part))?.[1] ?? null
}

/** What broke it: the meaning with the code, or the code alone. One line, unlike the messages of OpenSSL. */
export function breakText(error: Error | null): string | null {
  const code = (error as NodeJS.ErrnoException | null)?.code
  const meaning = alertMeaning(error)
  return meaning === null ? (code ?? null) : `${meaning} (${code})`
}
