/** How TLS begins with a PostgreSQL server: after a question in plain text, or with the first byte. */
import type { ClusterConfig } from '../../../common/proxy-config.ts'
import type { StartTls } from '../../upstream/connector.ts'
import { SSL_REQUEST, untyped } from './messages.ts'

const START_TLS: StartTls = {
  question: untyped(SSL_REQUEST),
  yes: 0x53,
  refused: 'does not offer TLS: turn on ssl at the server, or remove tls here',
}

export interface TlsBegin {
  readonly startTls: StartTls | null
  readonly alpn: readonly string[] | null
}

/** What a dial needs to know of it. */
export function tlsOf({ tls }: ClusterConfig): TlsBegin {
  // PostgreSQL demands the name of its protocol where TLS begins with the first byte, so that nobody can make another server answer.
  if (tls?.negotiation === 'Direct') return { startTls: null, alpn: ['postgresql'] }
  return { startTls: START_TLS, alpn: null }
}
