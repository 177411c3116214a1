/** The answers that the proxy makes itself; nothing else writes one. */
import { REASONS, type Reason } from '../../../common/reasons.ts'
import { statusText } from './status-text.ts'

/** Why a request is not answered by its upstream. */
export interface Refusal {
  readonly reason: Reason
  /** What happened, with names and figures; no secret. */
  readonly detail: string
  /** Default: the one of the reason. */
  readonly status?: number
  /** RFC 9209 section 2.3; default: the one of the reason. */
  readonly proxyError?: string
  /** When it is worth trying again: becomes Retry-After. */
  readonly retryAfterMs?: number
  /** More field lines. */
  readonly fields?: readonly string[]
}

export interface AnswerShape {
  readonly isHead: boolean
  /** The client speaks HTTP/1.0. */
  readonly isOld: boolean
  readonly closes: boolean
  readonly requestId: string
}

const OFFERED = 'GET, HEAD, POST, PUT, PATCH, DELETE, OPTIONS'

/** The status that a refusal is answered with. */
export function statusOf(refusal: Refusal): number {
  return refusal.status ?? REASONS[refusal.reason].status
}

/** Head and body of the answer: application/problem+json (RFC 9457), Proxy-Status (RFC 9209), the reason code and the request id. */
export function answer(refusal: Refusal, shape: AnswerShape): Buffer {
  const status = statusOf(refusal)
  const { proxyError, text } = REASONS[refusal.reason]
  const title = statusText(status)
  const problem = {
    type: 'about:blank',
    title,
    status,
    detail: refusal.detail === '' ? text : refusal.detail,
    reason: refusal.reason,
    requestId: shape.requestId,
  }
  const body = `${JSON.stringify(problem)}\n`
  const lines = [
    `HTTP/1.1 ${status} ${title}`,
    'Content-Type: application/problem+json',
    `Content-Length: ${Buffer.byteLength(body)}`,
    `Date: ${new Date().toUTCString()}`,
    `Proxy-Status: ambassador; error=${refusal.proxyError ?? proxyError}; details=${structured(problem.detail)}`,
    `X-Ambassador-Reason: ${refusal.reason}`,
    `X-Request-ID: ${shape.requestId}`,
  ]
  if (refusal.retryAfterMs !== undefined) {
    lines.push(`Retry-After: ${Math.max(1, Math.ceil(refusal.retryAfterMs / 1000))}`)
  }
  if (refusal.fields !== undefined) lines.push(...refusal.fields)
  // RFC 9110 section 15.5.6: a 405 names what is offered; the upstream knows what more it refuses.
  if (status === 405) lines.push(`Allow: ${OFFERED}`)
  if (shape.closes) lines.push('Connection: close')
  else if (shape.isOld) lines.push('Connection: keep-alive')
  // A request id goes back byte for byte, the body is UTF-8.
  const head = Buffer.from(`${lines.join('\r\n')}\r\n\r\n`, 'latin1')
  return shape.isHead ? head : Buffer.concat([head, Buffer.from(body)])
}

/** To an OPTIONS that may not be passed on (RFC 9110 section 7.6.2): what is offered here. */
export function optionsAnswer(): Buffer {
  return Buffer.from(
    `HTTP/1.1 200 OK\r\nAllow: ${OFFERED}\r\nContent-Length: 0\r\nDate: ${new Date().toUTCString()}\r\nConnection: close\r\n\r\n`,
  )
}

/** A string of structured fields (RFC 8941 section 3.3.3): visible ASCII, quotes and backslashes escaped. */
function structured(text: string): string {
  return `"${text.replace(/[^\x20-\x7e]/g, '?').replace(/["\\]/g, '\\$&')}"`
}
