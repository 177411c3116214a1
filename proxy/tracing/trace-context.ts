/** W3C Trace Context: the traceparent that came, and the one that goes on with a span of ours in it. */
import { fillRandom } from '../runtime/random.ts'

/** Where a request stands in a trace. Ids are lower-case hex. */
export interface TraceContext {
  readonly traceId: string
  /** Span of the caller; null when the trace begins here. */
  readonly parentId: string | null
  /** Ours. */
  readonly spanId: string
  readonly isSampled: boolean
}

/** Version 00 in full; a higher version is read by its first four fields (Trace Context section 4.3). */
const TRACEPARENT = /^([0-9a-f]{2})-([0-9a-f]{32})-([0-9a-f]{16})-([0-9a-f]{2})(?:-.*)?$/
const ZERO_TRACE = '0'.repeat(32)
const ZERO_SPAN = '0'.repeat(16)

/** Random bytes are taken in bulk: one call into the kernel's generator per request would cost more than the rest of the span. */
const POOL = Buffer.alloc(4096)
let used = POOL.length

function hexId(bytes: number): string {
  for (;;) {
    if (used + bytes > POOL.length) {
      fillRandom(POOL)
      used = 0
    }
    const id = POOL.toString('hex', used, used + bytes)
    used += bytes
    // An id of zeros alone is invalid (sections 3.2.2.3 and 3.2.2.4).
    if (!/^0+$/.test(id)) return id
  }
}

/**
 * Takes up the trace of a request, or begins one.
 * @param traceparent the field as received, or null; a malformed one is ignored, as section 4.3 asks
 * @param isChosen whether this sidecar samples the request; a caller that samples is followed in any case
 */
export function takeUp(traceparent: string | null, isChosen: boolean): TraceContext {
  const match = traceparent === null ? null : TRACEPARENT.exec(traceparent.trim())
  const [version, traceId, parentId, flags] = match?.slice(1) ?? []
  const isValid =
    traceId !== undefined &&
    version !== 'ff' &&
    traceId !== ZERO_TRACE &&
    parentId !== ZERO_SPAN &&
    (version !== '00' || traceparent?.trim().length === 55)
  if (!isValid) return { traceId: hexId(16), parentId: null, spanId: hexId(8), isSampled: isChosen }
  const isCallerSampled = (Number.parseInt(flags as string, 16) & 1) === 1
  return { traceId, parentId: parentId as string, spanId: hexId(8), isSampled: isCallerSampled || isChosen }
}

/** The field to send. */
export function traceparentOf(context: TraceContext): string {
  return `00-${context.traceId}-${context.spanId}-${context.isSampled ? '01' : '00'}`
}
