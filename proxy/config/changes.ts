/** What is different between two configs, for a person who reads the log: the names of fields, never their values. */
import { canonicalJson } from '../../common/config-hash.ts'
import type { ProxyConfig } from '../../common/proxy-config.ts'

/** Names that a line has room for. */
const MAX_NAMES = 12

/** Say nothing of what the config does. */
const IDENTITY: ReadonlySet<string> = new Set(['version', 'ambassador', 'hash', 'endpointsHash'])

/**
 * Tells which fields of a config are new, gone or different: `timeouts.requestMs, clusters.live.limits.maxConnections`. Items of a list are
 * called by their `name`, else by their place.
 * @returns one line; empty when nothing is
 */
export function changesText(before: ProxyConfig, after: ProxyConfig): string {
  const names: string[] = []
  collect(withoutIdentity(before), withoutIdentity(after), '', names)
  const more = names.length - MAX_NAMES
  return more > 0 ? `${names.slice(0, MAX_NAMES).join(', ')} and ${more} more` : names.join(', ')
}

function withoutIdentity(config: ProxyConfig): object {
  return Object.fromEntries(Object.entries(config).filter(([key]) => !IDENTITY.has(key)))
}

function collect(before: unknown, after: unknown, path: string, names: string[]): void {
  const from = membersOf(before)
  const to = membersOf(after)
  if (from === null || to === null) {
    if (canonicalJson(before ?? null) !== canonicalJson(after ?? null)) names.push(path)
    return
  }
  const size = names.length
  for (const key of new Set([...from.keys(), ...to.keys()])) {
    collect(from.get(key), to.get(key), path === '' ? key : `${path}.${key}`, names)
  }
  // The same members in another order: of routes and endpoints, that is a change too.
  if (names.length === size && canonicalJson(before) !== canonicalJson(after)) names.push(path)
}

/** The members of an object, or of a list by name or place; null for a value that has none. */
function membersOf(value: unknown): ReadonlyMap<string, unknown> | null {
  if (typeof value !== 'object' || value === null) return null
  if (!Array.isArray(value)) return new Map(Object.entries(value))
  const names = value.map((item) => (item as { readonly name?: unknown } | null)?.name)
  const areNamed = names.every((name) => typeof name === 'string') && new Set(names).size === names.length
  return new Map(value.map((item, index) => [areNamed ? String(names[index]) : String(index), item]))
}
