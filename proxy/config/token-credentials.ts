/** A credential that is fetched from an issuer, with the secrets and TLS files that fetching needs. */
import type { RefReport } from '../../common/configz.ts'
import type { AuthConfig } from '../../common/proxy-config.ts'
import { OAuth2Source } from '../auth/oauth2.ts'
import { TokenCredential } from '../auth/token-credential.ts'
import type { FileTls, TlsContexts } from '../tls/contexts.ts'
import { FetchedCredential } from './fetched-credential.ts'
import type { CredentialParts } from './owned-credential.ts'
import { credentialRefs, type RefDirs, readRefText } from './refs.ts'

type OAuth2Auth = Extract<AuthConfig, { kind: 'oauth2ClientCredentials' }>

/** What the token URL is trusted by when the config does not say. */
const SYSTEM_ROOTS = { serverName: null, ca: null, clientCertificate: null, minVersion: 'TLSv1.2' } as const

export class OAuth2Credential extends FetchedCredential {
  readonly #auth: OAuth2Auth
  readonly #dirs: RefDirs
  readonly #contexts: TlsContexts
  readonly #tls: FileTls | null

  constructor(auth: OAuth2Auth, { dirs, tls: contexts, guard, onFailure }: CredentialParts) {
    const tokenUrl = new URL(auth.tokenUrl)
    const tls = tokenUrl.protocol === 'https:' ? contexts.open(auth.tls ?? SYSTEM_ROOTS) : null
    const source = new OAuth2Source({
      tokenUrl,
      guard,
      clientId: auth.clientId,
      clientSecret: () => {
        const value = readRefText(auth.clientSecret, dirs)
        if (value.state !== 'Found') throw new Error(`auth.oauth2ClientCredentials.clientSecret: ${value.message}`)
        return value.text
      },
      scopes: auth.scopes,
      audience: auth.audience,
      context: () => {
        // Without its own files the token URL is not asked at all: other roots might trust somebody else.
        if (tls !== null && tls.context === null) throw new Error(`auth.oauth2ClientCredentials.tls: ${tls.failure}`)
        return tls?.context ?? null
      },
    })
    super(new TokenCredential({ source, onFailure }))
    this.#auth = auth
    this.#dirs = dirs
    this.#contexts = contexts
    this.#tls = tls
  }

  override stop(): void {
    super.stop()
    if (this.#tls !== null) this.#contexts.close(this.#tls)
  }

  override refresh(): readonly RefReport[] {
    const own = credentialRefs(this.#auth).map(({ field, ref }): RefReport => {
      const value = readRefText(ref, this.#dirs)
      if (value.state === 'Found') return { ref, state: 'Found', message: '' }
      return { ref, state: value.state, message: `${field}: ${value.message}` }
    })
    return [...own, ...(this.#tls?.refs ?? [])]
  }
}
