/** User and password of a database: read from mounted files, and read anew when they change, or a token that is fetched. */
import type { RefReport } from '../../common/configz.ts'
import type { AuthConfig, DataRef } from '../../common/proxy-config.ts'
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
    const { username, password: passwordRef, clientPassword: clientRef, token } = this.#auth
    const values = new Map<DataRef, string>()
    const reports = credentialRefs(this.#auth).map(({ field, ref }): RefReport => {
      const value = readRefText(ref, dirs)
      if (value.state !== 'Found') return { ref, state: value.state, message: `${field}: ${value.message}` }
      values.set(ref, value.text)
      return { ref, state: 'Found', message: '' }
    })
    const failed = reports.find(({ state }) => state !== 'Found')
    this.#failure = failed?.message ?? null
    if (failed !== undefined) return reports
    const client = clientRef && { name: refText(clientRef), password: values.get(clientRef) ?? '' }
    this.#login = {
      name: passwordRef === null ? `auth.postgres.${token?.kind}` : refText(passwordRef),
      username,
      password: passwordRef === null ? null : (values.get(passwordRef) ?? ''),
      tokens: this.#tokens,
      client: client ?? null,
    }
    return reports
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
