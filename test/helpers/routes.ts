/** Routes of a rendered config, without what a test does not speak of. */
import type { RouteConfig } from '../../common/proxy-config.ts'

/** To cluster `a`, of every request, with nothing changed; `over` says what is otherwise. */
export function routeConfig(
  match: Partial<RouteConfig['match']> = {},
  over: Partial<Omit<RouteConfig, 'match'>> = {},
): RouteConfig {
  return {
    match: { methods: null, path: null, headers: [], query: [], cookies: [], ...match },
    to: [{ cluster: 'a', weight: 1 }],
    stickyOn: null,
    rewritePrefix: null,
    requestHeaders: { set: [], add: [], remove: [] },
    responseHeaders: { set: [], add: [], remove: [] },
    timeouts: null,
    retry: null,
    rateLimit: null,
    ...over,
  }
}
