/** What an HTTP driver serves by: one config in force, compiled so that a request only looks things up. */
import type { AccessLogConfig, RetryConfig, TimeoutsConfig } from '../../../common/proxy-config.ts'
import type { HttpCells } from '../../observe/cells.ts'
import type { HeaderCredential } from '../../policy/credential.ts'
import type { RateLimit } from '../../policy/rate-limit.ts'
import type { Cluster } from '../../upstream/cluster.ts'
import { nameBytes } from './tables.ts'

/** Where requests go. */
export interface HttpUpstream {
  readonly cluster: Cluster
  /** Null: nothing is added to requests. */
  readonly credential: HeaderCredential | null
  /** The credential's field name as bytes in lower case. */
  readonly credentialName: Uint8Array | null
  /** Kept over changes of the config. */
  readonly cells: HttpCells
}

/** When a request is sent again. */
export interface RetryPlan {
  readonly config: RetryConfig
  /** 1 for each status that is tried again. */
  readonly statuses: Uint8Array
  readonly onConnectFailure: boolean
  readonly onReset: boolean
  readonly onTimeout: boolean
}

/** Never changed: a changed config is a new snapshot, which each request reads when it begins. */
export interface HttpSnapshot {
  readonly upstream: HttpUpstream
  readonly retry: RetryPlan | null
  readonly timeouts: TimeoutsConfig
  /** Of requests; null: none. */
  readonly rateLimit: RateLimit | null
  readonly accessLog: AccessLogConfig
}

/** Makes an upstream of its parts. */
export function httpUpstream(cluster: Cluster, credential: HeaderCredential | null, cells: HttpCells): HttpUpstream {
  return { cluster, credential, credentialName: credential === null ? null : nameBytes(credential.name), cells }
}

/** Compiles the retry block; null when nothing is ever tried again. */
export function retryPlan(config: RetryConfig | null): RetryPlan | null {
  if (config === null || config.maxRetries === 0) return null
  const statuses = new Uint8Array(1000)
  for (const status of config.statuses) statuses[status] = 1
  return {
    config,
    statuses,
    onConnectFailure: config.on.includes('ConnectFailure'),
    onReset: config.on.includes('Reset'),
    onTimeout: config.on.includes('Timeout'),
  }
}
