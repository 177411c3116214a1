/** What is known of an exchange: what its request is, and how it went so far; for attempts, log, spans and metrics. */
import type { Reason } from '../../../common/reasons.ts'
import type { Trace } from '../../tracing/trace-context.ts'
import { NO_HASH } from '../../upstream/consistent-hash.ts'
import type { RequestFacts } from './headers.ts'
import type { HeadParser } from './parser.ts'
import type { HttpSnapshot, HttpTarget } from './snapshot.ts'
import { Field } from './tables.ts'

export class ExchangeFacts {
  snapshot!: HttpSnapshot
  /** Where it goes: what a route says, or the snapshot itself. */
  target!: HttpTarget
  /** What the client was answered with; 0: it left first. */
  status = 0
  /** Why it failed, or why the answer is the proxy's own; null when it is the upstream's. */
  reason: Reason | null = null
  detail = ''
  attempts = 0
  startedAt = 0
  endedAt = 0
  /** Times for the access log, in milliseconds: of waiting for a connection, and of the last attempt. */
  queueMs = 0
  connectMs = 0
  tlsMs = 0
  /** From the begin to the first byte of the final answer; -1 when there was none. */
  ttfbMs = -1
  isHead = false
  isOld = false
  isIdempotent = false
  isUpgrade = false
  expectsContinue = false
  hasContinued = false
  deadlineAt = Number.POSITIVE_INFINITY
  /** Where it stands in a trace; null: nobody sends spans. */
  trace: Trace | null = null
  /** Of what ConsistentHash looks at; NO_HASH: nothing. */
  hash = NO_HASH

  /** Another request begins. */
  protected take(
    snapshot: HttpSnapshot,
    target: HttpTarget,
    head: HeadParser,
    facts: RequestFacts,
    time: number,
  ): void {
    this.snapshot = snapshot
    this.target = target
    this.isHead = facts.isHead
    this.isOld = facts.isOld
    this.isIdempotent = facts.isIdempotent || head.has(Field.idempotencyKey) || target.retry?.config.methods === 'All'
    this.isUpgrade = facts.isUpgrade
    this.expectsContinue = facts.expectsContinue
    this.hasContinued = false
    this.status = 0
    this.reason = null
    this.detail = ''
    this.attempts = 0
    this.startedAt = time
    this.queueMs = 0
    this.connectMs = 0
    this.tlsMs = 0
    this.ttfbMs = -1
    this.deadlineAt = Number.POSITIVE_INFINITY
  }
}
