/** What a Redis driver serves by: one config in force, compiled. */
import type { AccessLogConfig, TimeoutsConfig } from '../../../common/proxy-config.ts'
import type { HeaderCredential } from '../../policy/credential.ts'
import type { RateLimit } from '../../policy/rate-limit.ts'
import type { Cluster } from '../../upstream/cluster.ts'

/** Never changed: a changed config is a new snapshot. */
export interface RedisSnapshot {
  readonly cluster: Cluster
  /** Its `line` is the AUTH command; null: the application logs in itself. */
  readonly credential: HeaderCredential | null
  readonly timeouts: TimeoutsConfig
  /** Of connections; null: none. */
  readonly rateLimit: RateLimit | null
  readonly accessLog: AccessLogConfig
}
