/** How the CLI ends. */

/** Exit codes. */
export const Exit = { ok: 0, problem: 1, usage: 2 } as const

/** The arguments make no sense; the message says why, and the usage of the verb is shown after it. */
export class UsageError extends Error {
  override readonly name = 'UsageError'
}
