/** What can go wrong between us and an API server, as one type with a stable reason. */
import type { KubeStatus } from './objects.ts'

/**
 * A request that did not succeed. `status` is the HTTP status, or 0 when there was no answer; `reason` is the API
 * server's own word (NotFound, Conflict, Forbidden, ...), or `Unreachable`, `Timeout`, `Aborted`, `Malformed` when the
 * answer is missing or is not one.
 */
export class ApiError extends Error {
  override readonly name = 'ApiError'
  readonly status: number
  readonly reason: string
  /** How long the server asked to wait (Retry-After or details.retryAfterSeconds); 0: it did not ask. */
  readonly retryAfterMs: number
  readonly details: KubeStatus['details']

  constructor(
    message: string,
    options: {
      readonly status: number
      readonly reason: string
      readonly retryAfterMs?: number
      readonly details?: KubeStatus['details']
      readonly cause?: unknown
    },
  ) {
    super(message, options.cause === undefined ? undefined : { cause: options.cause })
    this.status = options.status
    this.reason = options.reason
    this.retryAfterMs = options.retryAfterMs ?? 0
    this.details = options.details
  }

  /** For `code` in log lines. */
  get code(): string {
    return this.reason
  }
}

/** Whether this is the API server's answer with that status. */
export function hasStatus(error: unknown, status: number): error is ApiError {
  return error instanceof ApiError && error.status === status
}

/** Whether the caller itself ended the request. */
export function isAborted(error: unknown): boolean {
  return error instanceof ApiError && error.reason === 'Aborted'
}

/** How long an error asks to wait before the next try, in milliseconds; 0 when it does not say. */
export function retryAfterMs(error: unknown): number {
  return error instanceof ApiError ? error.retryAfterMs : 0
}
