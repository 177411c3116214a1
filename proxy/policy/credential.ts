/** The contract of a credential: a header line that is ready to be copied into each request. */

export interface HeaderCredential {
  /** Field name in lower case; what the application sends under this name is replaced. */
  readonly name: string
  /** `Authorization: Bearer ...\r\n` as bytes; null while unavailable: then requests are refused with auth_unavailable. */
  readonly line: Buffer | null
  /** Why it is unavailable: names the Secret and key and the remedy, never the value; null when available. */
  readonly failure: string | null
  /** When what is in use expires, in milliseconds since 1970; null or absent: it does not, or does not say. */
  readonly expiresAt?: number | null
  /** How another one is had when this one is missing or refused; absent: it is there or not. */
  readonly renewed?: RenewedCredential
}

/** What a database lets us in by. */
export interface PostgresLogin {
  /** Where the password comes from, as a person calls it: `Secret 'orders-db', key 'password'`. */
  readonly name: string
  readonly username: string
  readonly password: string
}

/** A login that is read from files. */
export interface LoginSource {
  /** Null while unavailable; then nothing is dialled. */
  readonly login: PostgresLogin | null
  /** Why it is unavailable; null when it is available. */
  readonly failure: string | null
}

export interface RenewedCredential {
  /** Calls back as soon as the fetch that is under way has ended, at once when none is. */
  whenSettled(done: () => void): void
  /**
   * The upstream refused `line` with 401. True: another one is being fetched. False: `line` of the credential is what there is, be
   * it another one than was refused.
   */
  refused(line: Buffer): boolean
}
