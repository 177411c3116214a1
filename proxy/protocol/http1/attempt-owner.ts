/** What an attempt needs of the exchange that it is part of, and how it tells of its end. */
import type { Reason } from '../../../common/reasons.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import type { PickRefusal } from '../../upstream/cluster.ts'
import type { Endpoint } from '../../upstream/endpoint.ts'
import type { UpstreamConnection } from '../../upstream/http-pool.ts'
import type { Attempt } from './attempt.ts'
import type { ResponseFacts } from './headers.ts'
import type { OutgoingRequest } from './outgoing.ts'
import type { HeadParser } from './parser.ts'
import type { HttpTarget } from './snapshot.ts'

/** How an attempt failed before there was an answer, in the words of retry.on; null: in a way that is never tried again. */
export type Condition = 'ConnectFailure' | 'Reset' | 'Timeout' | null

/** The exchange that an attempt is part of. After each call the attempt does nothing more with the event that led to it. */
export interface AttemptOwner {
  readonly request: OutgoingRequest
  readonly target: HttpTarget
  /** The client's connection. */
  readonly clientSocket: RawSocket
  readonly isHead: boolean
  /** The client speaks HTTP/1.0. */
  readonly isOld: boolean
  readonly isUpgrade: boolean
  /** It does no harm when the upstream gets the request twice. */
  readonly isIdempotent: boolean
  /** The client waits for a 100 before it sends its body. */
  expectsContinue: boolean
  /** It got one from us. */
  hasContinued: boolean
  readonly deadlineAt: number
  /** Endpoints of earlier attempts. */
  readonly tried: readonly Endpoint[]
  /** Of what ConsistentHash looks at. */
  readonly hash: number
  attempts: number
  queueMs: number
  connectMs: number
  tlsMs: number
  /** Nobody knows any more where the request goes: look for a connection from the begin. */
  onLookAgain(time: number): void
  /** The whole request was sent, and is to be sent a second time when no answer begins within this time. */
  onAsked(time: number, hedgeMs: number): void
  /** There is nobody to ask. */
  onNoEndpoint(refusal: PickRefusal, time: number): void
  onQueueFull(): void
  onWaitedTooLong(ms: number): void
  /** The attempt has ended without an answer. */
  onFailed(attempt: Attempt, reason: Reason, detail: string, condition: Condition, proxyError?: string): void
  /** The attempt has ended because the connection was closed, or may be, before the request came: nobody failed. */
  onStale(attempt: Attempt): void
  /** The client sends nothing while its body is waited for. */
  onIdleClient(): void
  /** The whole head of the final answer is there. False: it is not passed on. */
  onAnswer(attempt: Attempt, head: HeadParser, time: number): boolean
  closesClient(facts: ResponseFacts): boolean
  onSwitched(attempt: Attempt, connection: UpstreamConnection, rest: Buffer): void
  /** The answer has been written to the client. */
  onAnswered(): void
  /** The answer cannot be completed; the attempt has ended. */
  onBroken(reason: Reason, detail: string): void
}
