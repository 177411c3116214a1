/** Which route an HTTP request takes and which upstream of it: first match wins, weights and stickiness decide between upstreams. */
import { withoutLargeCounts } from '../../common/pattern-counts.ts'
import type { RouteConfig, ValueMatchConfig } from '../../common/proxy-config.ts'

/** What a route may look at. Values are made only when a route asks for them. */
export interface RequestView {
  method(): string
  /** As received: origin-form, nothing decoded or normalized. */
  target(): string
  /** All values of the field joined with `, ` (RFC 9110 section 5.3), or null. `name` in lower case. */
  header(name: string): string | null
}

/** One upstream of a route, as the caller needs it. */
export interface RouteTarget<T> {
  readonly value: T
  readonly weight: number
}

/** Makes what pick() gives for a cluster of a route. */
export type Resolve<T> = (cluster: string, route: RouteConfig, index: number) => T

export class Route<T> {
  readonly config: RouteConfig
  readonly #targets: readonly RouteTarget<T>[]
  readonly #total: number
  readonly #path: RegExp | null
  /** Without the slash at its end. */
  readonly #prefix: string
  readonly #headers: readonly CompiledMatch[]
  readonly #query: readonly CompiledMatch[]
  readonly #cookies: readonly CompiledMatch[]

  /** @throws {SyntaxError} when a pattern does not compile; the operator refuses such a pattern before */
  constructor(config: RouteConfig, index: number, resolve: Resolve<T>) {
    this.config = config
    this.#targets = config.to.map(({ cluster, weight }) => ({ value: resolve(cluster, config, index), weight }))
    this.#total = this.#targets.reduce((sum, { weight }) => sum + weight, 0)
    const { path, headers, query, cookies } = config.match
    this.#path = path?.kind === 'regex' ? fullPattern(path.value) : null
    this.#prefix = path?.kind === 'prefix' ? withoutSlash(path.value) : ''
    this.#headers = headers.map(compileMatch)
    this.#query = query.map(compileMatch)
    this.#cookies = cookies.map(compileMatch)
  }

  matches(view: RequestView): boolean {
    const { methods, path } = this.config.match
    if (methods !== null && !methods.includes(view.method())) return false
    if (path !== null && !this.#matchesPath(pathOf(view.target()))) return false
    for (const match of this.#headers) {
      if (!holds(match, view.header(match.name))) return false
    }
    if (this.#query.length > 0) {
      const query = parametersOf(view.target())
      for (const match of this.#query) {
        if (!holds(match, query.get(match.name))) return false
      }
    }
    if (this.#cookies.length > 0) {
      const cookies = view.header('cookie')
      for (const match of this.#cookies) {
        if (!holds(match, cookieOf(cookies, match.name))) return false
      }
    }
    return true
  }

  /** The upstream of a request. With stickiness, the same value always gets the same one while the weights stay as they are. */
  pick(view: RequestView, random: () => number): T {
    if (this.#targets.length === 1) return (this.#targets[0] as RouteTarget<T>).value
    const { stickyOn } = this.config
    let share = -1
    if (stickyOn !== null) {
      const value =
        stickyOn.kind === 'header' ? view.header(stickyOn.name) : cookieOf(view.header('cookie'), stickyOn.name)
      if (value !== null && value !== '') share = hashShare(value)
    }
    if (share < 0) share = random()
    let rest = share * this.#total
    for (const { value, weight } of this.#targets) {
      rest -= weight
      if (rest < 0) return value
    }
    return (this.#targets.findLast(({ weight }) => weight > 0) ?? (this.#targets[0] as RouteTarget<T>)).value
  }

  #matchesPath(path: string): boolean {
    const wanted = this.config.match.path
    if (wanted === null) return true
    if (wanted.kind === 'exact') return path === wanted.value
    if (wanted.kind === 'regex') return (this.#path as RegExp).test(path)
    // A prefix ends at a segment: /api matches /api and /api/v1, not /apis, and so does /api/ (as in Gateway API, PathPrefix).
    const prefix = this.#prefix
    return path.startsWith(prefix) && (path.length === prefix.length || path[prefix.length] === '/')
  }
}

/** The routes of one Ambassador in order. */
export class Router<T> {
  readonly #routes: readonly Route<T>[]

  /** @throws {SyntaxError} when a pattern does not compile */
  constructor(routes: readonly RouteConfig[], resolve: Resolve<T>) {
    this.#routes = routes.map((route, index) => new Route(route, index, resolve))
  }

  /** The first route that matches, or null: then the request goes to the first upstream. */
  route(view: RequestView): Route<T> | null {
    for (const route of this.#routes) {
      if (route.matches(view)) return route
    }
    return null
  }
}

/** A target that begins with the prefix `from`, with `to` in its place; slashes at the seam are neither doubled nor lost. */
export function rewritten(target: string, { from, to }: { readonly from: string; readonly to: string }): string {
  // Of `/` as of others the slash is at the seam, but not where the path has two: one of them is its own.
  const rest = target.slice(from === '/' && target[1] !== '/' ? 1 : withoutSlash(from).length)
  const base = to.endsWith('/') && rest.startsWith('/') ? to.slice(0, -1) : to
  const isSeam = rest === '' || rest.startsWith('/') || rest.startsWith('?') || base.endsWith('/')
  const path = isSeam ? base + rest : `${base}/${rest}`
  // Two slashes at the begin are the name of a host to some servers (RFC 3986 section 4.2).
  return path.startsWith('/') ? path.replace(/^\/\/+/, '/') : `/${path}`
}

function withoutSlash(prefix: string): string {
  return prefix.endsWith('/') ? prefix.slice(0, -1) : prefix
}

interface CompiledMatch {
  readonly name: string
  readonly config: ValueMatchConfig
  readonly pattern: RegExp | null
}

function compileMatch(config: ValueMatchConfig): CompiledMatch {
  return { name: config.name, config, pattern: config.kind === 'regex' ? fullPattern(config.value) : null }
}

function holds({ config, pattern }: CompiledMatch, value: string | null): boolean {
  switch (config.kind) {
    case 'present':
      return (value !== null) === config.present
    case 'in':
      return value !== null && config.values.includes(value)
    case 'prefix':
      return value?.startsWith(config.value) ?? false
    case 'regex':
      return value !== null && (pattern as RegExp).test(value)
  }
}

let isLinear = false

/**
 * A pattern that must match the whole value. V8's engine backtracks, so a pattern such as `(a+)+b` could take the event loop for
 * minutes; by these flags V8 hands a pattern that backtracks too much over to its linear engine, which knows all that the schema
 * lets through but large counts: those are written out.
 */
function fullPattern(source: string): RegExp {
  if (!isLinear) {
    const { setFlagsFromString } = process.getBuiltinModule('node:v8')
    setFlagsFromString('--enable-experimental-regexp-engine-on-excessive-backtracks')
    // Not after 50,000 of them, which is half a second for a long value.
    setFlagsFromString('--regexp-backtracks-before-fallback=1000')
  }
  isLinear = true
  // V8 keeps what it compiled by source and flags: in two groups it is not what a check of the pattern compiled before the flags were set.
  return new RegExp(`^(?:(?:${withoutLargeCounts(source)}))$`, 's')
}

function pathOf(target: string): string {
  const query = target.indexOf('?')
  return query < 0 ? target : target.slice(0, query)
}

/** The parameters of the query; URLSearchParams would take a second `?` at its begin for no part of a name. */
function parametersOf(target: string): URLSearchParams {
  const query = target.indexOf('?')
  return new URLSearchParams(query < 0 ? '' : `&${target.slice(query + 1)}`)
}

/** RFC 6265 section 5.4: pairs separated by `; `. The first of a name counts. */
export function cookieOf(header: string | null, name: string): string | null {
  if (header === null) return null
  for (const pair of header.split(';')) {
    const equals = pair.indexOf('=')
    if (equals >= 0 && pair.slice(0, equals).trim() === name) return pair.slice(equals + 1).trim()
  }
  return null
}

/** What of a request decides, as a number in [0, 1); -1 when it has no such value. */
export function hashOf(on: { readonly kind: 'header' | 'cookie' | 'query'; readonly name: string }, view: RequestView) {
  const value =
    on.kind === 'header'
      ? view.header(on.name)
      : on.kind === 'cookie'
        ? cookieOf(view.header('cookie'), on.name)
        : parametersOf(view.target()).get(on.name)
  return value === null || value === '' ? -1 : hashShare(value)
}

/** A number in [0, 1) that depends on the value alone: FNV-1a with a final mix, so that short ids spread evenly. */
export function hashShare(value: string): number {
  let hash = 0x811c9dc5
  for (let i = 0; i < value.length; i++) {
    hash = Math.imul(hash ^ value.charCodeAt(i), 0x01000193)
  }
  hash = Math.imul(hash ^ (hash >>> 16), 0x85ebca6b)
  hash = Math.imul(hash ^ (hash >>> 13), 0xc2b2ae35)
  return ((hash ^ (hash >>> 16)) >>> 0) / 2 ** 32
}
