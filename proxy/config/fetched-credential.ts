/** A credential that is fetched from an issuer which the environment of the pod knows, so that nothing is referred to. */
import type { RefReport } from '../../common/configz.ts'
import { TokenCredential, type TokenSource } from '../auth/token-credential.ts'
import type { RenewedCredential } from '../policy/credential.ts'
import type { OwnedCredential } from './owned-credential.ts'

export class FetchedCredential implements OwnedCredential {
  readonly name = 'authorization'
  readonly #token: TokenCredential
  #isStarted = false

  constructor(source: TokenSource, onFailure: (message: string) => void) {
    this.#token = new TokenCredential({ source, onFailure })
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

  start(): void {
    if (this.#isStarted) return
    this.#isStarted = true
    this.#token.start()
  }

  stop(): void {
    this.#token.stop()
  }

  refresh(): readonly RefReport[] {
    return []
  }
}
