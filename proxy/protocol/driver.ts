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
  /** Pieces of work that may come to hold more memory than they do now. A protocol without it says nothing about that. */
  readonly growing?: number
  /**
   * Ends up to `count` pieces of work whose peers do not take what is held for them, the newest first, so that the process does not
   * run out of memory; returns how many. A protocol without it ends none.
   */
  endSome?(count: number, detail: string): number
  /** Stops at the next boundary: idle connections close at once, busy ones after the work in flight. Resolves when none is left. */
  drain(): Promise<void>
  /** Ends everything now. Idempotent. */
  destroy(): void
}
