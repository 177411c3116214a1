/** Durations as people write them (`250ms`, `5s`, `1h30m`), in the form that Go and Kubernetes use. */

const number = (digits: number) => `([0-9]{1,${digits}}([.][0-9]{0,9})?|[.][0-9]{1,9})`

/**
 * What a duration looks like, in RE2 and JavaScript alike. The counts of digits are those of MAX_DURATION in each unit, so that
 * a sum can never overflow the 64 bits of nanoseconds that the API server counts in.
 */
export const DURATION_PATTERN = `^[+]?(${number(9)}ms|${number(6)}s|${number(5)}m|${number(3)}h)+$`

/** Longest text of a duration that is read. */
export const DURATION_MAX_LENGTH = 32

/** Longest duration: timers of the runtime end at 24 days, and no wait of a connection is meant to be longer than a week. */
export const MAX_DURATION = '168h'

const WHOLE = new RegExp(DURATION_PATTERN)
const PART = /([0-9]*)(?:[.]([0-9]*))?(ms|s|m|h)/g
const NANOS = { ms: 1_000_000n, s: 1_000_000_000n, m: 60_000_000_000n, h: 3_600_000_000_000n }
const MAX_NANOS = 168n * NANOS.h

/**
 * Milliseconds of a duration from 0 to 168h, rounded up to a whole one (a positive duration is never 0); undefined when the
 * text is not such a duration. What is accepted is what Go's `time.ParseDuration` accepts in these units without a minus sign.
 */
export function durationMs(text: string): number | undefined {
  const nanos = nanosOf(text)
  return nanos === undefined || nanos > MAX_NANOS ? undefined : Number((nanos + 999_999n) / 1_000_000n)
}

/** Whether two texts are durations, of any length, and the first one is the shorter. */
export function isShorter(first: string | undefined, second: string | undefined): boolean {
  if (first === undefined || second === undefined) return false
  const [a, b] = [nanosOf(first), nanosOf(second)]
  return a !== undefined && b !== undefined && a < b
}

function nanosOf(text: string): bigint | undefined {
  if (text.length > DURATION_MAX_LENGTH || !WHOLE.test(text)) return undefined
  let nanos = 0n
  for (const [, whole = '', fraction = '', unit] of text.matchAll(PART)) {
    const size = NANOS[unit as keyof typeof NANOS]
    nanos += BigInt(whole || '0') * size + (BigInt(fraction || '0') * size) / 10n ** BigInt(fraction.length)
  }
  return nanos
}

/** Says what is wrong with a text that is no positive duration, with the remedy. */
export function notADuration(text: string): string {
  return `'${text}' is not a duration: use a number with a unit from 1ms to 168h, such as 250ms, 5s or 1h30m`
}
