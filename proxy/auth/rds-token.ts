/** Tokens of IAM for RDS and Aurora: a request to connect, signed with the keys of the role of the pod for one host, port and user. */
import { trustNodeRoots } from '../runtime/roots.ts'
import { keysFailure } from './aws-keys.ts'
import type { DatabaseTokenSource } from './database-tokens.ts'
import type { Token } from './token-credential.ts'

type Keys = () => Promise<{ accessKeyId: string; secretAccessKey: string; sessionToken?: string; expiration?: Date }>

/** What the signature says; AWS takes no longer one. */
const LIFE_MS = 900_000

export class RdsTokenSource implements DatabaseTokenSource {
  readonly isPerServer = true
  readonly isLocal = true
  readonly #region: string
  readonly #username: string
  #keys: Keys | null = null

  constructor(region: string, username: string) {
    this.#region = region
    this.#username = username
  }

  async fetch(host: string, port: number): Promise<Token> {
    try {
      // Loaded here alone: a sidecar that needs no such token has none of this in memory.
      trustNodeRoots()
      const { fromNodeProviderChain } = await import('@aws-sdk/credential-providers')
      const { Signer } = await import('@aws-sdk/rds-signer')
      this.#keys ??= fromNodeProviderChain({ clientConfig: { region: this.#region } })
      const keys = await this.#keys()
      const hostname = host.replace(/\.$/, '')
      const signer = new Signer({ hostname, port, username: this.#username, region: this.#region, credentials: keys })
      // A token is worth nothing when the keys that signed it are over.
      const leftMs = keys.expiration === undefined ? LIFE_MS : keys.expiration.getTime() - Date.now()
      return { value: await signer.getAuthToken(), lifeMs: Math.min(LIFE_MS, leftMs) }
    } catch (error) {
      this.#keys = null
      throw new Error(keysFailure('auth.postgres.awsRdsIam', error))
    }
  }
}
