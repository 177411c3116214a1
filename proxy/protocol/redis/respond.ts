/** Makes a reply of Redis of what went wrong; nothing else writes `-ERR ambassador:`. */
import type { Reason } from '../../../common/reasons.ts'

const MAX_DETAIL = 400

/**
 * The error reply for a reason.
 * @param own the server's own error when it refused the credential: a client knows its first word
 */
export function errorReply(reason: Reason, detail: string, own: string | null = null): Buffer {
  const text = `${reason} ${detail}`.slice(0, MAX_DETAIL)
  const line = own === null ? `ERR ambassador: ${text}` : `${own.slice(0, MAX_DETAIL)} (ambassador: ${text})`
  return Buffer.from(`-${line.replaceAll(/[\r\n]/g, ' ')}\r\n`)
}
