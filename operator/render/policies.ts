/** Policies of a spec become the proxy's, with the defaults that depend on the protocol or on another field. */
import { durationMs } from '../../common/duration.ts'
import {
  type AccessLogConfig,
  type RateLimitConfig,
  RETRY_CONDITIONS,
  type RetryConfig,
  type TimeoutsConfig,
  type TracingConfig,
} from '../../common/proxy-config.ts'
import { percentRatio, quantityBytes } from '../../common/quantity.ts'
import type { DefaultedSpec } from '../api/ambassador.ts'
import { retryConditions, retry as retrySchema } from '../api/policies.ts'

const BACKOFF = { initialMs: 25, maxMs: 1000 }
/** timeouts.request of HTTP without one. */
export const REQUEST_MS = 15_000
const HTTP_IDLE_MS = 60_000
const MAX_DELAY_MS = 1000

/** 501 and 505 say that the server cannot, not that it could not just now. */
const NOT_TRANSIENT = [501, 505]

/** The retry policy: for HTTP the default one when the spec has none, for TCP none. */
export function retry(spec: DefaultedSpec): RetryConfig | null {
  if (spec.protocol !== 'HTTP') return null
  const given = spec.retry ?? retrySchema.parse({})
  const { ratio, minPerSecond } = given.budget
  return retryOf(given, { ratio: percentRatio(ratio)!, minPerSecond })
}

/** A retry policy with the budget of the Ambassador. */
export function retryOf(
  given: Omit<NonNullable<DefaultedSpec['retry']>, 'budget'>,
  budget: RetryConfig['budget'],
): RetryConfig {
  const on = retryConditions(given)
  return {
    maxRetries: given.maxRetries,
    on: RETRY_CONDITIONS.filter((condition) => on.includes(condition)),
    statuses: statuses(on),
    perTryTimeoutMs: given.perTryTimeout ? durationMs(given.perTryTimeout)! : null,
    backoff: backoff(given.backoff),
    budget,
    maxBufferedBodyBytes: quantityBytes(given.maxBufferedBody)!,
    methods: given.methods,
    ...(given.hedge && { hedgeMs: durationMs(given.hedge.after)! }),
  }
}

/** The statuses that a list of conditions names, in order and once each. */
function statuses(on: readonly string[]): number[] {
  const found = new Set(on.map(Number).filter(Number.isInteger))
  if (on.includes('5xx')) {
    for (let status = 500; status <= 599; status++) if (!NOT_TRANSIENT.includes(status)) found.add(status)
  }
  return [...found].sort((a, b) => a - b)
}

/** One of the two given, the default of the other gives way to it. */
function backoff({ initial, max }: { initial?: string; max?: string }): RetryConfig['backoff'] {
  const initialMs = initial ? durationMs(initial)! : Math.min(BACKOFF.initialMs, max ? durationMs(max)! : BACKOFF.maxMs)
  return { initialMs, maxMs: max ? durationMs(max)! : Math.max(BACKOFF.maxMs, initialMs) }
}

/** Timeouts; `0s` is null, no limit. */
export function timeouts({ protocol, timeouts: given }: DefaultedSpec): TimeoutsConfig {
  const limit = (text: string | undefined, otherwise: number | null) => (text ? durationMs(text)! || null : otherwise)
  return {
    connectMs: durationMs(given.connect)!,
    requestMs: protocol === 'HTTP' ? limit(given.request, REQUEST_MS) : null,
    idleMs: limit(given.idle, protocol === 'HTTP' ? HTTP_IDLE_MS : null),
  }
}

/** The rate limit, or null. */
export function rateLimit({ rateLimit: given }: DefaultedSpec): RateLimitConfig | null {
  return given ? rateLimitOf(given) : null
}

/** A rate limit with its defaults. */
export function rateLimitOf(given: NonNullable<DefaultedSpec['rateLimit']>): RateLimitConfig {
  const { requests, per, burst, onLimit, maxDelay, perFleet } = given
  return {
    requests,
    perMs: durationMs(per)!,
    burst: burst ?? requests,
    onLimit,
    maxDelayMs: onLimit === 'Delay' ? (maxDelay ? durationMs(maxDelay)! : MAX_DELAY_MS) : 0,
    ...(perFleet && { perFleet }),
  }
}

/** The access log. */
export function accessLog({ accessLog: { mode, sample } }: DefaultedSpec): AccessLogConfig {
  return { mode, sample: sample ? percentRatio(sample)! : 0 }
}

/** Spans; undefined without. */
export function tracing({ tracing: given }: DefaultedSpec): TracingConfig | undefined {
  if (!given) return undefined
  const { otlpEndpoint, sample, slowerThan } = given
  return { endpoint: otlpEndpoint, sample: percentRatio(sample)!, slowMs: durationMs(slowerThan)! }
}
