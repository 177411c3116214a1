/** A credential with the life that a config gives it. */
import type { RefReport } from '../../common/configz.ts'
import type { HeaderCredential } from '../policy/credential.ts'
import type { DialGuard } from '../policy/dial-guard.ts'
import type { TlsContexts } from '../tls/contexts.ts'
import type { RefDirs } from './refs.ts'

export interface OwnedCredential extends HeaderCredential {
  /** Reads its files again. Returns how each reference was found. */
  refresh(): readonly RefReport[]
  /** Its config is in force: begins to fetch, where anything is fetched. Idempotent. */
  start?(): void
  /** Fetches no more. Idempotent. */
  stop?(): void
}

/** What a credential is made with. */
export interface CredentialParts {
  readonly dirs: RefDirs
  readonly tls: TlsContexts
  /** What must not be dialled by the config in force. */
  readonly guard: () => DialGuard
  /** Told of each fetch that failed. */
  readonly onFailure: (message: string) => void
}
