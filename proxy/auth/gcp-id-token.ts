/** ID tokens of Google for an audience: of the metadata server, or of a key file where the environment names one. */
import { trustNodeRoots } from '../runtime/roots.ts'
import { jwtExpiry } from './jwt.ts'
import type { Token, TokenSource } from './token-credential.ts'

/** What of the vendor's clients is used; not every kind of credential can give ID tokens. */
interface IdTokenProvider {
  fetchIdToken(audience: string): Promise<string>
}

export class GcpIdTokenSource implements TokenSource {
  readonly #audience: string
  #provider: IdTokenProvider | null = null

  constructor(audience: string) {
    this.#audience = audience
  }

  async fetch(signal: AbortSignal): Promise<Token> {
    const aborted = Promise.withResolvers<never>()
    const onAbort = (): void => aborted.reject(signal.reason)
    signal.addEventListener('abort', onAbort, { once: true })
    try {
      // The vendor's calls cannot be given up; one that ends too late is not waited for, and its token is not used.
      const value = await Promise.race([this.#fetch(), aborted.promise])
      const expiresAt = jwtExpiry(value)
      return { value, lifeMs: expiresAt === null ? null : expiresAt - Date.now() }
    } catch (error) {
      this.#provider = null
      const why = signal.aborted ? String((signal.reason as Error).message) : causeOf(error)
      throw new Error(
        `gcpIdToken for audience '${this.#audience}': ${why}, check the service account of the pod (Workload Identity) or GOOGLE_APPLICATION_CREDENTIALS`,
      )
    } finally {
      signal.removeEventListener('abort', onAbort)
    }
  }

  async #fetch(): Promise<string> {
    // Loaded here alone: a sidecar that needs no token of Google has none of this in memory.
    trustNodeRoots()
    const { Compute, GoogleAuth } = await import('google-auth-library')
    if (this.#provider === null) {
      const auth = new GoogleAuth()
      // Without the vendor's detection of where it runs, which remembers a metadata server that was late once as absent.
      const client =
        (await auth._tryGetApplicationCredentialsFromEnvironmentVariable()) ??
        (await auth._tryGetApplicationCredentialsFromWellKnownFile()) ??
        metadataServer(new Compute())
      if (!('fetchIdToken' in client)) throw new CredentialError('the credentials in the file cannot give ID tokens')
      this.#provider = client
    }
    return this.#provider.fetchIdToken(this.#audience)
  }
}

class CredentialError extends Error {}

/** Its client puts the audience into a URL as it is. */
function metadataServer(compute: IdTokenProvider): IdTokenProvider {
  return { fetchIdToken: (audience) => compute.fetchIdToken(encodeURIComponent(audience)) }
}

/** The status or code alone: the vendor's messages may repeat what was sent or answered. */
export function causeOf(error: unknown): string {
  if (error instanceof CredentialError) return error.message
  const { status, code, response } = error as {
    readonly status?: unknown
    readonly code?: unknown
    readonly response?: { readonly status?: unknown }
  }
  const answered = response?.status ?? status
  if (typeof answered === 'number') return `the issuer answered ${answered}`
  if (typeof code === 'string' && /^[A-Z_]{1,40}$/.test(code)) return `the issuer is not reached (${code})`
  return 'the issuer gave no token'
}
