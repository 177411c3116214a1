/** Tokens of Microsoft Entra that Azure Database for PostgreSQL takes, for the workload or managed identity of the pod. */
import { trustNodeRoots } from '../runtime/roots.ts'
import type { DatabaseTokenSource } from './database-tokens.ts'
import type { Token } from './token-credential.ts'

/** The name under which Entra knows the open source databases of Azure. */
const SCOPE = 'https://ossrdbms-aad.database.windows.net/.default'

export class AzureEntraSource implements DatabaseTokenSource {
  readonly isPerServer = false
  readonly isLocal = false

  async fetch(_host: string, _port: number, abortSignal: AbortSignal): Promise<Token> {
    try {
      // Loaded here alone: a sidecar that needs no token of Azure has none of this in memory.
      trustNodeRoots()
      const { DefaultAzureCredential } = await import('@azure/identity')
      // A new one for each token: the vendor's own cache would hand out one whose life is nearly over.
      const { token, expiresOnTimestamp } = await new DefaultAzureCredential().getToken(SCOPE, { abortSignal })
      return { value: token, lifeMs: expiresOnTimestamp - Date.now() }
    } catch (error) {
      throw new Error(
        `auth.postgres.azureEntra: no token was had${nameOf(error)}, bind a workload or managed identity to the pod, or set AZURE_CLIENT_ID`,
      )
    }
  }
}

/** The name of the error alone: the vendor's messages may repeat what was sent or answered. */
function nameOf(error: unknown): string {
  const { name } = error as { readonly name?: unknown }
  return typeof name === 'string' && /^\w{1,60}$/.test(name) ? ` (${name})` : ''
}
