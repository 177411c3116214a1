/** The credential of an upstream as a header line, made from mounted files and made anew when they change. */
import type { RefReport } from '../../common/configz.ts'
import type { AuthConfig } from '../../common/proxy-config.ts'
import type { HeaderCredential } from '../policy/credential.ts'
import { credentialRefs, type RefDirs, readRefText, refText } from './refs.ts'

/** Reads the files of a credential; keeps the last good line when they become unusable, so that a slip does not stop traffic. */
export type FileAuth = Exclude<AuthConfig, { kind: 'oauth2ClientCredentials' | 'postgres' }>

export class Credential implements HeaderCredential {
  readonly name: string
  #line: Buffer | null = null
  #failure: string | null = 'the credential was not read yet'
  readonly #auth: FileAuth

  constructor(auth: FileAuth) {
    this.#auth = auth
    this.name = auth.kind === 'header' ? auth.name.toLowerCase() : 'authorization'
  }

  get line(): Buffer | null {
    return this.#line
  }

  get failure(): string | null {
    return this.#line === null ? this.#failure : null
  }

  /** Reads the files again. Returns how each reference was found, in the order of credentialRefs(). */
  refresh(dirs: RefDirs): readonly RefReport[] {
    const values: string[] = []
    const reports = credentialRefs(this.#auth).map(({ field, ref }): RefReport => {
      const value = readRefText(ref, dirs)
      if (value.state !== 'Found') return { ref, state: value.state, message: `${field}: ${value.message}` }
      // RFC 7617 section 2: the first colon ends the user name.
      if (this.#auth.kind === 'basic' && ref === this.#auth.username && value.text.includes(':')) {
        return { ref, state: 'Invalid', message: `${field}: ${refText(ref)} has a colon, a user name has none` }
      }
      values.push(value.text)
      return { ref, state: 'Found', message: '' }
    })
    const failed = reports.find((report) => report.state !== 'Found')
    this.#failure = failed?.message ?? null
    if (failed === undefined) {
      const line = Buffer.from(`${this.#header(values)}\r\n`)
      if (this.#line === null || !line.equals(this.#line)) this.#line = line
    }
    return reports
  }

  #header(values: readonly string[]): string {
    switch (this.#auth.kind) {
      case 'bearer':
        return `Authorization: Bearer ${values[0]}`
      case 'basic':
        return `Authorization: Basic ${Buffer.from(values.join(':')).toString('base64')}`
      case 'header':
        return `${this.#auth.name}: ${values[0]}`
    }
  }
}
