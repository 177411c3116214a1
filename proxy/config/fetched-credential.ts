/** A credential that is fetched from an issuer: what every kind of them has in common, and all of one that needs no file. */
import type { RefReport } from '../../common/configz.ts'
import type { TokenCredential } from '../auth/token-credential.ts'
import type { RenewedCredential } from '../policy/credential.ts'
import type { OwnedCredential } from './owned-credential.ts'

export class FetchedCredential implements OwnedCredential {
  readonly name = 'authorization'
  readonly #token: TokenCredential
  #isStarted = false

  constructor(token: TokenCredential) {
    this.#token = token
  }

  get line(): Buffer | null {
    return this.#token.line
  }

  get failure(): string | null {
    return this.#token.failure
  }

  get expiresAt(): number | null {
    return this.#token.expiresAt
  }

  get renewed(): RenewedCredential {
    return this.#token
  }

  /** Begins to fetch. Idempotent. */
  start(): void {
    if (this.#isStarted) return
    this.#isStarted = true
    this.#token.start()
  }

  /** Fetches no more. Idempotent. */
  stop(): void {
    this.#token.stop()
  }

  /** Says how each reference was found; the next fetch reads them again. */
  refresh(): readonly RefReport[] {
    return []
  }
}
