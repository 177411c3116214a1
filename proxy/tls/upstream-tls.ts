/** The contract of upstream TLS: one shared context per file set, replaced when the files change. */
import type { SecureContext } from 'node:tls'

export interface UpstreamTls {
  /** The context of the newest good files; null while there was never a good set (then `failure` says why and nothing is dialled). */
  readonly context: SecureContext | null
  /** Why the newest files could not be used, in words (which file, which certificate, both dates); null when they are in use. */
  readonly failure: string | null
  /** Name for SNI and verification when the config names one; null: the endpoint's host. */
  readonly serverName: string | null
  /** Neither chain nor name is verified, as the config says with a reason. */
  readonly isUnverified: boolean
  /** Session store for resumption, keyed by endpoint and server name. */
  session(key: string): Buffer | undefined
  /** @param context that its connection was verified with: a session of an earlier one would carry the trust of files that are gone */
  keepSession(key: string, session: Buffer, context: SecureContext | null): void
  /**
   * A handshake is over, and both sides agreed on a group for the key exchange.
   * @param context that it was done with
   * @param group as OpenSSL calls it (`X25519`, `prime256v1`, `X25519MLKEM768`); null: none, or not known
   */
  agreed(context: SecureContext | null, group: string | null): void
}
