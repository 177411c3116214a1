/** What discovery by Sentinel is given of a config: TLS and credential of the Sentinels, and how the servers are talked to. */
import type { RefReport } from '../../common/configz.ts'
import type { SentinelDiscoveryConfig } from '../../common/proxy-config.ts'
import { NO_GUARD } from '../policy/dial-guard.ts'
import type { FileTls, TlsContexts } from '../tls/contexts.ts'
import type { SentinelAccess } from '../upstream/redis/sentinel-access.ts'
import { Credential } from './credentials.ts'
import type { OwnedCredential } from './owned-credential.ts'
import type { RefDirs } from './refs.ts'

export class SentinelFiles implements SentinelAccess {
  readonly tls: FileTls | null
  readonly credential: OwnedCredential | null
  /** Both are those of the config in force, once there is one. */
  guard = NO_GUARD
  servers: SentinelAccess['servers'] = { tls: null, credential: null, proxyProtocol: null, timeoutMs: 1 }

  constructor({ tls, auth }: SentinelDiscoveryConfig, contexts: TlsContexts, dirs: RefDirs) {
    this.tls = tls && contexts.open(tls)
    this.credential = auth && new Credential(auth, dirs)
  }

  /** Reads the credential again, and says how every file was found. */
  refresh(): RefReport[] {
    const reports = [...(this.tls?.refs ?? []), ...(this.credential?.refresh() ?? [])]
    return reports.map((report) => ({ ...report, message: report.message && `sentinel.${report.message}` }))
  }
}
