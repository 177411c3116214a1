/** Routes of a spec become the proxy's, with what they override written out. */
import { durationMs } from '../../common/duration.ts'
import type { HeaderChangesConfig, RouteConfig, TimeoutsConfig, ValueMatchConfig } from '../../common/proxy-config.ts'
import { percentRatio } from '../../common/quantity.ts'
import type { DefaultedSpec } from '../api/ambassador.ts'
import { rateLimitOf, retry, retryOf, timeouts } from './policies.ts'

type Route = NonNullable<DefaultedSpec['routes']>[number]
type ValueMatch = NonNullable<Route['match']['headers']>[number]

/** The routes, in order. */
export function routes(spec: DefaultedSpec): RouteConfig[] {
  const all = timeouts(spec)
  const budget = retry(spec)?.budget ?? { ratio: 0, minPerSecond: 0 }
  return (spec.routes ?? []).map((route) => ({
    match: {
      methods: route.match.methods ?? null,
      path: pathMatch(route.match.path),
      headers: (route.match.headers ?? []).map((each) => ({ ...valueMatch(each), name: each.name.toLowerCase() })),
      query: (route.match.query ?? []).map(valueMatch),
      cookies: (route.match.cookies ?? []).map(valueMatch),
    },
    to: route.to.map(({ upstream, weight }) => ({ cluster: upstream, weight })),
    stickyOn: stickyOn(route.stickyOn),
    rewritePrefix: route.rewrite?.prefix ?? null,
    requestHeaders: headerChanges(route.requestHeaders),
    responseHeaders: headerChanges(route.responseHeaders),
    timeouts: route.timeouts ? routeTimeouts(route.timeouts, all) : null,
    retry: route.retry ? retryOf(route.retry, budget) : null,
    rateLimit: route.rateLimit ? rateLimitOf(route.rateLimit) : null,
    ...(route.mirror && { mirror: { cluster: route.mirror.upstream, ratio: percentRatio(route.mirror.percent)! } }),
  }))
}

function pathMatch(path: Route['match']['path']): RouteConfig['match']['path'] {
  if (path?.exact !== undefined) return { kind: 'exact', value: path.exact }
  if (path?.prefix !== undefined) return { kind: 'prefix', value: path.prefix }
  return path?.regex === undefined ? null : { kind: 'regex', value: path.regex }
}

function valueMatch({ name, in: values, prefix, regex, present }: ValueMatch): ValueMatchConfig {
  if (values !== undefined) return { name, kind: 'in', values }
  if (prefix !== undefined) return { name, kind: 'prefix', value: prefix }
  if (regex !== undefined) return { name, kind: 'regex', value: regex }
  return { name, kind: 'present', present: present ?? true }
}

function stickyOn(given: Route['stickyOn']): RouteConfig['stickyOn'] {
  if (given?.header !== undefined) return { kind: 'header', name: given.header.toLowerCase() }
  return given?.cookie === undefined ? null : { kind: 'cookie', name: given.cookie }
}

function headerChanges(given: Route['requestHeaders']): HeaderChangesConfig {
  const { set = [], add = [], remove = [] } = given ?? {}
  return { set, add, remove }
}

/** What a route leaves out is the Ambassador's. */
function routeTimeouts(
  { request, idle }: NonNullable<Route['timeouts']>,
  all: TimeoutsConfig,
): RouteConfig['timeouts'] {
  return {
    requestMs: request === undefined ? all.requestMs : durationMs(request)! || null,
    idleMs: idle === undefined ? all.idleMs : durationMs(idle)! || null,
  }
}
