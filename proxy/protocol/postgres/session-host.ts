/** What a connection of the application needs of whoever has it, and what it said at its begin. */
import type { Reason } from '../../../common/reasons.ts'
import type { TcpRecord } from '../tcp/session.ts'
import type { Pin } from './pins.ts'
import type { Pool } from './pool.ts'
import type { Server } from './server.ts'
import type { PooledSession } from './session.ts'
import type { PostgresSnapshot } from './snapshot.ts'

/** Why a client keeps its connection to the server. */
export type PinReason = Pin | 'large_statement' | 'copy' | 'replication'

export interface SessionHost {
  readonly snapshot: PostgresSnapshot
  readonly isDraining: boolean
  poolFor(login: ClientLogin): Pool
  /**
   * @param isStored by what is stored in the database, and not by the statement itself
   * @param statement that did it, as much of it as is known, good for the call alone; null: there is none
   */
  onPinned(reason: PinReason, isStored: boolean, statement: Buffer | null): void
  onWaited(ms: number): void
  /** A request failed for a reason that a person should see; the connection goes on. */
  onTrouble(reason: Reason, detail: string): void
  /** Asks the server to cancel what it does; `done` is called when it has heard of it. */
  cancelAt(server: Server, done: () => void): void
  onSessionEnd(session: PooledSession, record: TcpRecord): void
}

/** What a client said at its begin. */
export interface ClientLogin {
  readonly database: string
  /** Parameters that the server reports, so that they can be set on any connection; by name, byte for byte as they were given (latin1). */
  readonly settings: ReadonlyMap<string, string>
  /** The others: they are part of what connections are shared by. */
  readonly fixed: ReadonlyMap<string, string>
  /** Goes before everything else: NegotiateProtocolVersion; null: nothing has to be negotiated. */
  readonly negotiation: Buffer | null
  /** Process and secret, for its cancel requests. */
  readonly key: Buffer
}
