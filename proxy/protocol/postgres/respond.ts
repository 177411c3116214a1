/** The one place that makes of a reason code the ErrorResponse that the application gets. */
import { REASONS, type Reason } from '../../../common/reasons.ts'
import { Back, HEAD_BYTES, message } from './messages.ts'

/** SQLSTATE of each reason that can end a connection. */
const SQLSTATE: Readonly<Partial<Record<Reason, string>>> = {
  dns_failed: '08001',
  connect_refused: '08001',
  connect_timeout: '08001',
  tls_verify_failed: '08001',
  auth_unavailable: '28000',
  circuit_open: '57P03',
  no_healthy_endpoint: '57P03',
  queue_full: '53300',
  overloaded: '53000',
  rate_limited: '53400',
  upstream_reset: '08006',
  draining: '57P01',
  bad_request: '08P01',
}

/** Where the words of a reason are those of HTTP. */
const TEXT: Readonly<Partial<Record<Reason, string>>> = {
  bad_request: 'the application does not speak the protocol of PostgreSQL',
}

/** FATAL ends the connection, ERROR the transaction. */
export type Severity = 'FATAL' | 'ERROR'

/** With the code, what happened and the reason code as a hint. */
export function errorResponse(reason: Reason, detail: string, severity: Severity = 'FATAL'): Buffer {
  const text = `${TEXT[reason] ?? REASONS[reason].text}: ${detail}`
  return problem(Back.error, severity, SQLSTATE[reason] ?? '08000', text, `ambassador: ${reason}`)
}

/** An error that has no reason code: what a server would say. */
export function sqlError(severity: Severity, state: string, text: string): Buffer {
  return problem(Back.error, severity, state, text, null)
}

/** Something that the application may show to a person. */
export function notice(text: string, hint: string): Buffer {
  return problem(Back.notice, 'NOTICE', '00000', text, hint)
}

function problem(code: number, severity: string, state: string, text: string, hint: string | null): Buffer {
  return message(
    code,
    `S${severity}`,
    `V${severity}`,
    `C${state}`,
    `M${text}`.replaceAll('\0', ' '),
    ...(hint === null ? [] : [`H${hint}`]),
    Buffer.from([0]),
  )
}

/** An ErrorResponse that fails a request and not the connection, whatever it was made for. */
export function asError(response: Buffer): Buffer {
  const fields = response.toString('latin1', HEAD_BYTES).split('\0')
  const told = fields.map((field) => (/^[SV]/.test(field) ? `${field[0]}ERROR` : field))
  return message(Back.error, Buffer.from(told.join('\0'), 'latin1'))
}

/** The SQLSTATE of an ErrorResponse; empty: it has none. */
export function stateOf(response: Buffer): string {
  return fieldOf(response, 'C')
}

/** A field of an ErrorResponse, by its letter. */
export function fieldOf(response: Buffer, letter: string): string {
  const fields = response.toString('utf8', HEAD_BYTES).split('\0')
  return fields.find((field) => field.startsWith(letter))?.slice(1) ?? ''
}

/** What an application gets that does not know the password of the proxy. `name`: where the right one is. */
export function wrongPassword(user: string, name: string): Buffer {
  const about = `password authentication failed for user "${user}"`.replaceAll('\0', ' ')
  const hint = `ambassador: bad_request: the application logs in with the password of auth.postgres.clientPassword (${name}), as any user`
  return message(Back.error, 'SFATAL', 'VFATAL', 'C28P01', `M${about}`, `H${hint}`, Buffer.from([0]))
}

/** An ErrorResponse of the server with one more hint; its own is kept. */
export function withHint(fields: Buffer, hint: string): Buffer {
  const end = fields.lastIndexOf(0)
  const before = end < 0 ? fields : fields.subarray(0, end)
  const own = before
    .toString('latin1')
    .split('\0')
    .find((field) => field.startsWith('H'))
  const kept = own === undefined ? before : Buffer.from(before.toString('latin1').replace(`${own}\0`, ''), 'latin1')
  const text = own === undefined ? hint : `${Buffer.from(own.slice(1), 'latin1').toString()} ${hint}`
  return message(Back.error, kept, `H${text}`, Buffer.from([0]))
}
