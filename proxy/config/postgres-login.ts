/** User and password of a database: read from mounted files, and read anew when they change, or a token that is fetched. */
import type { RefReport } from '../../common/configz.ts'
import type { AuthConfig } from '../../common/proxy-config.ts'
import { AzureEntraSource } from '../auth/azure-entra.ts'
import { DatabaseTokenCache, type DatabaseTokenSource } from '../auth/database-tokens.ts'
import { GcpCloudSqlSource } from '../auth/gcp-cloud-sql.ts'
import { RdsTokenSource } from '../auth/rds-token.ts'
import type { LoginSource, PostgresLogin } from '../policy/credential.ts'
import { credentialRefs, type RefDirs, readRefText, refText } from './refs.ts'

export type PostgresAuth = Extract<AuthConfig, { kind: 'postgres' }>

/** Keeps the last good password when the files become unusable, so that a slip does not stop traffic. */
export class DatabaseLogin implements LoginSource {
  database: string | null = null
  readonly #auth: PostgresAuth
  readonly #tokens: DatabaseTokenCache | null
  #login: PostgresLogin | null = null
  #failure: string | null = 'the credential was not read yet'

  /** @param onFailure told of each fetch of a token that failed */
  constructor(auth: PostgresAuth, onFailure: (message: string) => void) {
    this.#auth = auth
    this.#tokens = auth.token === undefined ? null : new DatabaseTokenCache(sourceOf(auth), onFailure)
  }

  get login(): PostgresLogin | null {
    return this.#login
  }

  get failure(): string | null {
    return this.#login === null ? this.#failure : null
  }

  get expiresAt(): number | null {
    return this.#tokens?.expiresAt ?? null
  }

  /** Reads the files again. Says how each reference was found. */
  refresh(dirs: RefDirs): readonly RefReport[] {
    const { username, password, token } = this.#auth
    if (password === null) {
      this.#login ??= { name: `auth.postgres.${token?.kind}`, username, password: null, tokens: this.#tokens }
      return []
    }
    return credentialRefs(this.#auth).map(({ field, ref }): RefReport => {
      const value = readRefText(ref, dirs)
      if (value.state !== 'Found') {
        this.#failure = `${field}: ${value.message}`
        return { ref, state: value.state, message: this.#failure }
      }
      this.#failure = null
      this.#login = { name: refText(password), username, password: value.text, tokens: null }
      return { ref, state: 'Found', message: '' }
    })
  }
}

function sourceOf({ username, token }: PostgresAuth): DatabaseTokenSource {
  switch (token?.kind) {
    case 'awsRdsIam':
      return new RdsTokenSource(token.region, username)
    case 'gcpCloudSqlIam':
      return new GcpCloudSqlSource()
    case 'azureEntra':
      return new AzureEntraSource()
    case undefined:
      throw new Error('auth.postgres has a password or a token')
  }
}
