/** What a PostgreSQL driver serves by: one config in force, compiled. */
import type { PoolingConfig, QueryLogConfig } from '../../../common/proxy-config.ts'
import type { LoginSource } from '../../policy/credential.ts'
import type { TcpSnapshot } from '../tcp/snapshot.ts'

export interface PostgresSnapshot extends TcpSnapshot {
  /** Whom the proxy logs in as. */
  readonly login: LoginSource
  /** How connections to the server are shared; null: they are not. */
  readonly pooling: PoolingConfig | null
  /** Which statements are told of; null: none. */
  readonly queryLog: QueryLogConfig | null
}
