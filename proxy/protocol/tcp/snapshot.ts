/** What a TCP driver serves by: one config in force, compiled. */
import type { AccessLogConfig, TimeoutsConfig } from '../../../common/proxy-config.ts'
import type { RateLimit } from '../../policy/rate-limit.ts'
import type { Cluster } from '../../upstream/cluster.ts'

/** Never changed: a changed config is a new snapshot, which connections read when they begin. */
export interface TcpSnapshot {
  readonly cluster: Cluster
  readonly timeouts: TimeoutsConfig
  /** Of connections; null: none. */
  readonly rateLimit: RateLimit | null
  readonly accessLog: AccessLogConfig
}
