/** What a PostgreSQL driver serves by: one config in force, compiled. */
import type { PoolingConfig } from '../../../common/proxy-config.ts'
import type { LoginSource } from '../../policy/credential.ts'
import type { StartTls } from '../../upstream/connector.ts'
import type { TcpSnapshot } from '../tcp/snapshot.ts'
import { SSL_REQUEST, untyped } from './messages.ts'

export interface PostgresSnapshot extends TcpSnapshot {
  /** Whom the proxy logs in as. */
  readonly login: LoginSource
  /** How connections to the server are shared; null: they are not. */
  readonly pooling: PoolingConfig | null
}

const START_TLS: StartTls = {
  question: untyped(SSL_REQUEST),
  yes: 0x53,
  refused: 'does not offer TLS: turn on ssl at the server, or remove tls here',
}

/** How TLS begins. */
export function tlsOf({ cluster }: PostgresSnapshot): {
  readonly startTls: StartTls | null
  readonly alpn: readonly string[] | null
} {
  // PostgreSQL demands the name of its protocol where TLS begins with the first byte, so that nobody can make another server answer.
  if (cluster.config.tls?.negotiation === 'Direct') return { startTls: null, alpn: ['postgresql'] }
  return { startTls: START_TLS, alpn: null }
}
