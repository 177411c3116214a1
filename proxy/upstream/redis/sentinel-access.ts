/** The contract of discovery by Sentinel with whoever reads its config: how Sentinels and servers are talked to. */
import type { ProxyProtocol } from '../../../common/proxy-config.ts'
import type { HeaderCredential } from '../../policy/credential.ts'
import type { DialGuard } from '../../policy/dial-guard.ts'
import type { UpstreamTls } from '../../tls/upstream-tls.ts'

export interface SentinelAccess {
  /** Of the Sentinels; null: plain text. */
  readonly tls: UpstreamTls | null
  /** Of the Sentinels: its `line` is the AUTH command; null: they are not logged in to. */
  readonly credential: HeaderCredential | null
  /** What must not be dialled by the config in force. */
  readonly guard: DialGuard
  /** The servers themselves, as the config in force says. */
  readonly servers: {
    readonly tls: UpstreamTls | null
    readonly credential: HeaderCredential | null
    readonly proxyProtocol: ProxyProtocol | null
    /** For a connection with its login. */
    readonly timeoutMs: number
  }
}

/** Tells it from what other kinds of discovery are given. */
export function isSentinelAccess(source: object): source is SentinelAccess {
  return 'servers' in source
}
