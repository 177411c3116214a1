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
  /** Signs each attempt: what `line` then stands for is the keys, and it is never sent. Absent: `line` is sent. */
  readonly signer?: RequestSigner
  /** How another one is had when this one is missing or refused; absent: it is there or not. */
  readonly renewed?: RenewedCredential
}

/** What a database lets us in by. */
export interface PostgresLogin {
  /** Where the password comes from, as a person calls it: `Secret 'orders-db', key 'password'`. */
  readonly name: string
  readonly username: string
  /** Null: a token takes its place. */
  readonly password: string | null
  /** Gives the token for a server, which must not be sent without TLS; null: there is a password. */
  readonly tokens: DatabaseTokens | null
  /** What the application must prove that it knows; null: nothing. */
  readonly client: ClientPassword | null
}

export interface ClientPassword {
  /** Where it comes from, as `name` of a login. */
  readonly name: string
  readonly password: string
}

/** Tokens that databases take for a password. */
export interface DatabaseTokens {
  /** Rejects with a message that names the field, what happened and the remedy; never a secret. */
  tokenFor(host: string, port: number): Promise<string>
}

/** Where the login of an upstream comes from. */
export interface LoginSource {
  /** Null while unavailable; then nothing is dialled. */
  readonly login: PostgresLogin | null
  /** Why it is unavailable; null when it is available. */
  readonly failure: string | null
  /** The database that an application logged in to last, where checks can ask too; null: none did. */
  database: string | null
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

/** A request as a signer sees it: text of one character for each byte. */
export interface SignedParts {
  readonly method: string
  /** Path and query as they are sent. */
  readonly target: string
  readonly fields: readonly (readonly [name: string, value: string])[]
  /** The content without framing; null when it is sent as it comes and nobody has all of it. */
  readonly content: Buffer | null
}

export interface RequestSigner {
  /** Names in lower case of the fields that a signature brings; those of the application are taken out. */
  readonly replaces: readonly string[]
  /** The field by which an application says what its content is signed as. */
  readonly payloadField: string
  /** Content may go unsigned. */
  readonly allowsUnsigned: boolean
  /** What is wrong with what an application says in payloadField, with the remedy; null: nothing. */
  payloadProblem(value: string): string | null
  /** The field by which an upstream says why it refused a request. */
  readonly errorField: string
  /**
   * Whether a refusal says that the keys have expired.
   * @param error the value of errorField; null: there is none
   * @param content the begin of the answer's content, as far as it came with the head
   */
  saysExpired(error: string | null, content: Buffer): boolean
  /** Lines of fields with the signature, ready to be sent. */
  sign(parts: SignedParts): Buffer
  /**
   * An answer that refuses a signature bears this time. True: our clock was wrong by more than the upstream takes, and the next
   * signature is made with its clock.
   */
  learnTime(serverMs: number): boolean
}
