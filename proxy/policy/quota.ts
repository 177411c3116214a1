/** Reads what an upstream says of its quota: RateLimit and RateLimit-Policy, and the fields that were in use before them. */
import type { Millis } from './policy.ts'

/** The fields as they came; null: there is none. */
export interface QuotaText {
  /** Of `RateLimit` (draft-ietf-httpapi-ratelimit-headers, of version 10 and of 7). */
  rateLimit: string | null
  /** Of `RateLimit-Policy`. */
  policy: string | null
  /** Of `(X-)RateLimit-Remaining`, `-Limit` and `-Reset`. */
  remaining: string | null
  limit: string | null
  reset: string | null
}

/** What is left of one quota. */
export interface Quota {
  readonly remaining: number
  /** Until it is full again. */
  readonly resetMs: Millis
  /** The whole of it; null: not said. */
  readonly quota: number | null
}

/** A reset of more seconds than this is a time of day in seconds since 1970 (2001 and later), as some services send it. */
const EPOCH_SECONDS = 1e9

/** Every quota of requests in the fields; what is not understood is left out. */
export function quotasOf(text: QuotaText, wallNow: number): readonly Quota[] {
  const { rateLimit, policy } = text
  if (rateLimit === null) {
    const one = quotaOf(digits(text.remaining), digits(text.reset), digits(text.limit), wallNow)
    return one === null ? [] : [one]
  }
  const items = itemsOf(rateLimit)
  // Version 7: one dictionary, limit=100, remaining=50, reset=30.
  const old = new Map(items.map(({ name }) => name.split('=', 2) as [string, string]))
  if (old.has('remaining')) {
    const [remaining, reset, limit] = ['remaining', 'reset', 'limit'].map((name) => digits(old.get(name) ?? null))
    const one = quotaOf(remaining!, reset!, limit!, wallNow)
    return one === null ? [] : [one]
  }
  const policies = new Map(itemsOf(policy ?? '').map((item) => [item.name, item.parameters]))
  return items.flatMap(({ name, parameters }) => {
    const its = policies.get(name)
    // A quota of bytes or of concurrent requests says nothing of how many requests may begin.
    const unit = its?.get('qu')
    if (unit !== undefined && unit !== '"requests"') return []
    const one = quotaOf(
      digits(parameters.get('r') ?? null),
      digits(parameters.get('t') ?? its?.get('w') ?? null),
      digits(its?.get('q') ?? null),
      wallNow,
    )
    return one === null ? [] : [one]
  })
}

function quotaOf(remaining: number, reset: number, limit: number, wallNow: number): Quota | null {
  if (remaining < 0 || reset < 0) return null
  const resetMs = reset > EPOCH_SECONDS ? Math.max(0, reset * 1000 - wallNow) : reset * 1000
  return { remaining, resetMs, quota: limit < 0 ? null : limit }
}

/** A whole number; -1: it is none. A list of limits (`100, 100;w=60`) begins with the one that counts. */
function digits(text: string | null): number {
  return text === null ? -1 : Number(/^\s*(\d{1,15})(?=\s*(?:[,;]|$))/.exec(text)?.[1] ?? -1)
}

const ITEM =
  /\s*("(?:[^"\\]|\\.)*"|[^",;]*)((?:;\s*[a-z*][-a-z0-9_.*]*(?:=(?:"(?:[^"\\]|\\.)*"|:[^:]*:|[^,;]*))?)*)\s*(?:,|$)/gy
const PARAMETER = /;\s*([a-z*][-a-z0-9_.*]*)(?:=("(?:[^"\\]|\\.)*"|:[^:]*:|[^,;]*))?/g
/** Longer ones are not looked at. */
const MAX_TEXT = 1_024

/** The members of a list of structured fields (RFC 9651 section 3.1) with their parameters. */
function itemsOf(text: string): { readonly name: string; readonly parameters: ReadonlyMap<string, string> }[] {
  if (text.length > MAX_TEXT) return []
  const items = []
  ITEM.lastIndex = 0
  for (let match = ITEM.exec(text); match !== null && match[0] !== ''; match = ITEM.exec(text)) {
    const parameters = new Map<string, string>()
    for (const [, name = '', value = ''] of (match[2] ?? '').matchAll(PARAMETER)) parameters.set(name, value.trim())
    items.push({ name: (match[1] ?? '').trim(), parameters })
  }
  return items
}
