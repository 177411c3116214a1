/** How long to wait before trying again: exponential with full jitter, or what the upstream asks for in Retry-After. */
import type { Millis, Random } from './policy.ts'

export interface BackoffOptions {
  /** Upper end of the first wait. */
  readonly initialMs: Millis
  /** Upper end of every wait. */
  readonly maxMs: Millis
}

/** The wait before retry number `retry` (1 is the first): uniform between 0 and initial · 2^(retry-1), at most `maxMs`. */
export function backoffMs(retry: number, options: BackoffOptions, random: Random = Math.random): Millis {
  return random() * Math.min(options.maxMs, options.initialMs * 2 ** (retry - 1))
}

/** Longest Retry-After that is waited for. */
export const MAX_RETRY_AFTER_MS = 300_000

/** The wait for a Retry-After of `afterMs`: that, and up to a tenth on top, so that the clients of an upstream do not return together. */
export function retryAfterBackoffMs(afterMs: Millis, random: Random = Math.random): Millis {
  return afterMs * (1 + 0.1 * random())
}

/**
 * Reads the value of a Retry-After field (RFC 9110 section 10.2.3): seconds, or a date of which a past one means 0.
 * @param wallNow the time of day in milliseconds since 1970, for a date
 * @returns milliseconds; null when it is neither form
 */
export function readRetryAfter(value: string, wallNow: number): Millis | null {
  const text = value.trim()
  if (/^\d+$/.test(text)) return Number(text) * 1000
  const date = parseHttpDate(text, wallNow)
  return date === null ? null : Math.max(0, date - wallNow)
}

const MONTHS = ['Jan', 'Feb', 'Mar', 'Apr', 'May', 'Jun', 'Jul', 'Aug', 'Sep', 'Oct', 'Nov', 'Dec']
const IMF = /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun), (\d\d) ([A-Z][a-z]{2}) (\d{4}) (\d\d):(\d\d):(\d\d) GMT$/
const RFC850 = /^(?:Mon|Tues|Wednes|Thurs|Fri|Satur|Sun)day, (\d\d)-([A-Z][a-z]{2})-(\d\d) (\d\d):(\d\d):(\d\d) GMT$/
const ASCTIME = /^(?:Mon|Tue|Wed|Thu|Fri|Sat|Sun) ([A-Z][a-z]{2}) ([ \d]\d) (\d\d):(\d\d):(\d\d) (\d{4})$/

/**
 * Reads an HTTP-date in its three forms (RFC 9110 section 5.6.7), which `Date.parse` does not do strictly.
 * @returns milliseconds since 1970, or null
 */
export function parseHttpDate(text: string, wallNow: number): number | null {
  let match = IMF.exec(text)
  if (match !== null) return utc(match[3], match[2], match[1], match[4], match[5], match[6])
  match = ASCTIME.exec(text)
  if (match !== null) return utc(match[6], match[1], match[2], match[3], match[4], match[5])
  match = RFC850.exec(text)
  if (match === null) return null
  // Two digits of a year: more than 50 years ahead means the century before.
  const thisYear = new Date(wallNow).getUTCFullYear()
  let year = Math.floor(thisYear / 100) * 100 + Number(match[3])
  if (year > thisYear + 50) year -= 100
  return utc(String(year), match[2], match[1], match[4], match[5], match[6])
}

function utc(year = '', month = '', day = '', hour = '', minute = '', second = ''): number | null {
  const m = MONTHS.indexOf(month)
  if (m === -1 || Number(hour) > 23 || Number(minute) > 59 || Number(second) > 60) return null
  const date = new Date(Date.UTC(Number(year), m, Number(day)))
  // 31 Feb would roll over into March.
  if (date.getUTCDate() !== Number(day)) return null
  return date.getTime() + (Number(hour) * 3600 + Number(minute) * 60 + Number(second)) * 1000
}
