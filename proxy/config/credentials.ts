/** The credential of an upstream as a header line, made from mounted files and made anew when they change. */
import type { RefReport } from '../../common/configz.ts'
import type { AuthConfig } from '../../common/proxy-config.ts'
import { jwtExpiry } from '../auth/jwt.ts'
import type { RenewedCredential } from '../policy/credential.ts'
import { encodeCommand } from '../upstream/redis/resp.ts'
import type { OwnedCredential } from './owned-credential.ts'
import { credentialRefs, type RefDirs, readRefText, refText } from './refs.ts'

export type FileAuth = Exclude<AuthConfig, { kind: 'oauth2ClientCredentials' | 'awsSigV4' | 'gcpIdToken' | 'postgres' }>

/** However often the upstream refuses a credential, its files are looked at no more than this often. */
const REREAD_INTERVAL_MS = 100

/** Reads the files of a credential; keeps the last good line when they become unusable, so that a slip does not stop traffic. */
export class Credential implements OwnedCredential, RenewedCredential {
  readonly name: string
  #line: Buffer | null = null
  #failure: string | null = 'the credential was not read yet'
  #expiresAt: number | null = null
  readonly #auth: FileAuth
  readonly #dirs: RefDirs
  #rereadAt = Number.NEGATIVE_INFINITY

  constructor(auth: FileAuth, dirs: RefDirs) {
    this.#auth = auth
    this.#dirs = dirs
    this.name = auth.kind === 'header' ? auth.name.toLowerCase() : 'authorization'
  }

  get line(): Buffer | null {
    // What a person put into a Secret is sent whatever it says of itself; the kubelet's tokens have an end that is meant.
    return this.#auth.kind === 'serviceAccountToken' && this.#isExpired ? null : this.#line
  }

  get failure(): string | null {
    if (this.#line === null) return this.#failure
    if (this.line !== null || this.#auth.kind !== 'serviceAccountToken') return null
    return `auth.serviceAccountToken: ${refText(this.#auth.token)} has expired and the kubelet wrote no new one, see the events of the pod`
  }

  get expiresAt(): number | null {
    return this.#expiresAt
  }

  get #isExpired(): boolean {
    return this.#expiresAt !== null && Date.now() >= this.#expiresAt
  }

  get renewed(): RenewedCredential {
    return this
  }

  /** Files are read in one go, so nothing is ever under way. */
  whenSettled(done: () => void): void {
    done()
  }

  /** Looks at the files at once: the upstream may know of a rotation before the kubelet's change was noticed. */
  refused(line: Buffer): boolean {
    const time = performance.now()
    if (line === this.#line && time - this.#rereadAt >= REREAD_INTERVAL_MS) {
      this.#rereadAt = time
      this.refresh()
    }
    return false
  }

  /** Reads the files again. Returns how each reference was found, in the order of credentialRefs(). */
  refresh(): readonly RefReport[] {
    const values: string[] = []
    const reports = credentialRefs(this.#auth).map(({ field, ref }): RefReport => {
      const value = readRefText(ref, this.#dirs)
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
    if (failed === undefined) this.#take(values)
    return reports
  }

  #take(values: readonly string[]): void {
    const line = this.#lineOf(values)
    if (this.#line === null || !line.equals(this.#line)) this.#line = line
    const { kind } = this.#auth
    this.#expiresAt = kind === 'bearer' || kind === 'serviceAccountToken' ? jwtExpiry(values[0] ?? '') : null
  }

  #lineOf(values: readonly string[]): Buffer {
    const auth = this.#auth
    if (auth.kind !== 'redis') return Buffer.from(`${this.#header(auth, values)}\r\n`)
    const [password = ''] = values
    return encodeCommand(auth.username === null ? ['AUTH', password] : ['AUTH', auth.username, password])
  }

  #header(auth: Exclude<FileAuth, { kind: 'redis' }>, values: readonly string[]): string {
    switch (auth.kind) {
      case 'bearer':
      case 'serviceAccountToken':
        return `Authorization: Bearer ${values[0]}`
      case 'basic':
        return `Authorization: Basic ${Buffer.from(values.join(':')).toString('base64')}`
      case 'header':
        return `${auth.name}: ${values[0]}`
    }
  }
}
