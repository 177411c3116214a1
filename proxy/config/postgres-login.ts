/** User and password of a database, read from mounted files and read anew when they change. */
import type { RefReport } from '../../common/configz.ts'
import type { AuthConfig } from '../../common/proxy-config.ts'
import type { LoginSource, PostgresLogin } from '../policy/credential.ts'
import { credentialRefs, type RefDirs, readRefText, refText } from './refs.ts'

export type PostgresAuth = Extract<AuthConfig, { kind: 'postgres' }>

/** Keeps the last good password when the files become unusable, so that a slip does not stop traffic. */
export class FileLogin implements LoginSource {
  database: string | null = null
  readonly #auth: PostgresAuth
  #login: PostgresLogin | null = null
  #failure: string | null = 'the credential was not read yet'

  constructor(auth: PostgresAuth) {
    this.#auth = auth
  }

  get login(): PostgresLogin | null {
    return this.#login
  }

  get failure(): string | null {
    return this.#login === null ? this.#failure : null
  }

  /** Reads the file again. Says how the reference was found. */
  refresh(dirs: RefDirs): readonly RefReport[] {
    const { username, password } = this.#auth
    return credentialRefs(this.#auth).map(({ field, ref }): RefReport => {
      const value = readRefText(ref, dirs)
      if (value.state !== 'Found') {
        this.#failure = `${field}: ${value.message}`
        return { ref, state: value.state, message: this.#failure }
      }
      this.#failure = null
      this.#login = { name: refText(password), username, password: value.text }
      return { ref, state: 'Found', message: '' }
    })
  }
}
