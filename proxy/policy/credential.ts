/** The contract of a credential: a header line that is ready to be copied into each request. */

export interface HeaderCredential {
  /** Field name in lower case; what the application sends under this name is replaced. */
  readonly name: string
  /** `Authorization: Bearer ...\r\n` as bytes; null while unavailable: then requests are refused with auth_unavailable. */
  readonly line: Buffer | null
  /** Why it is unavailable: names the Secret and key and the remedy, never the value; null when available. */
  readonly failure: string | null
}
