/** Access tokens of Google that Cloud SQL and AlloyDB take: of the metadata server, or of a key file where the environment names one. */
import { trustNodeRoots } from '../runtime/roots.ts'
import type { DatabaseTokenSource } from './database-tokens.ts'
import { causeOf } from './gcp-id-token.ts'
import type { Token } from './token-credential.ts'

/** Lets its bearer log in and nothing else. */
const SCOPE = 'https://www.googleapis.com/auth/sqlservice.login'

/** What of the vendor's clients is used. */
interface AccessTokenClient {
  getAccessToken(): Promise<{ readonly token?: string | null }>
  readonly credentials: { readonly expiry_date?: number | null }
}

export class GcpCloudSqlSource implements DatabaseTokenSource {
  readonly isPerServer = false
  readonly isLocal = false

  async fetch(): Promise<Token> {
    try {
      // Loaded here alone: a sidecar that needs no token of Google has none of this in memory.
      trustNodeRoots()
      const { Compute, GoogleAuth } = await import('google-auth-library')
      const auth = new GoogleAuth({ scopes: [SCOPE] })
      // A new client for each token, so that the life of what it gives begins now. Without the vendor's detection of where it
      // runs, which remembers a metadata server that was late once as absent.
      const client = ((await auth._tryGetApplicationCredentialsFromEnvironmentVariable()) ??
        (await auth._tryGetApplicationCredentialsFromWellKnownFile()) ??
        new Compute({ scopes: [SCOPE] })) as AccessTokenClient
      const { token } = await client.getAccessToken()
      const expiresAt = client.credentials.expiry_date
      return { value: token ?? '', lifeMs: expiresAt == null ? null : expiresAt - Date.now() }
    } catch (error) {
      throw new Error(
        `auth.postgres.gcpCloudSqlIam: ${causeOf(error)}, check the service account of the pod (Workload Identity) or GOOGLE_APPLICATION_CREDENTIALS`,
      )
    }
  }
}
