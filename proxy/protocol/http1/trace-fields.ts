/** What a request says of its trace, and what becomes of its tries in the span. */
import type { Reason } from '../../../common/reasons.ts'
import type { Trace } from '../../tracing/trace-context.ts'
import type { Attempt } from './attempt.ts'
import type { HeadParser } from './parser.ts'
import { Field } from './tables.ts'

/** Begins the span of a request. @param sample share of the requests without a trace that are sent, 0 to 1 */
export function beginTrace(trace: Trace, head: HeadParser, sample: number): void {
  const isOne = head.has(Field.traceparent) && (head.repeated & (1 << Field.traceparent)) === 0
  const index = isOne ? head.first[Field.traceparent]! : -1
  trace.begin(head.bytes, isOne ? head.valueStart(index) : -1, isOne ? head.valueEnd(index) : -1, sample)
  if (!trace.hasParent || !head.has(Field.tracestate)) return
  // Several fields are one list (section 3.3.1); nobody sends several, so the span does without.
  if ((head.repeated & (1 << Field.tracestate)) !== 0) return
  const state = head.first[Field.tracestate]!
  trace.takeState(head.bytes, head.valueStart(state), head.valueEnd(state))
}

/** A try is followed by another one. @param status of its answer; 0: there was none */
export function traceAttempt(
  trace: Trace,
  attempt: Attempt,
  time: number,
  status: number,
  reason: Reason | null,
): void {
  const { asked, begunAt } = attempt
  const traced = { endpoint: asked?.name ?? '', startedAt: begunAt, endedAt: time, status, reason }
  if (trace.attempts === null) trace.attempts = [traced]
  else trace.attempts.push(traced)
}
