/** The contract between a listener and a protocol: a driver owns each accepted connection until it closes. */
import type { Accepted } from '../runtime/listen.ts'

/**
 * Serves the connections of one listener. Built from a compiled listener; a new configuration is given to it with `update` by
 * the protocol's own class, so that connections live on and each request or connection reads the newest snapshot at its start.
 */
export interface Driver {
  /** Takes over an accepted connection, see runtime/raw-socket.ts. */
  serve(accepted: Accepted): void
  /** Connections that are open now, and of those the ones in the middle of work. */
  readonly open: number
  readonly busy: number
  /** Stops at the next boundary: idle connections close at once, busy ones after the work in flight. Resolves when none is left. */
  drain(): Promise<void>
  /** Ends everything now. Idempotent. */
  destroy(): void
}
