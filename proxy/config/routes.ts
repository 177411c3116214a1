/** Checks the routes of a config that somebody wrote, so that putting it in force cannot fail. */
import type { ProxyConfig, RouteConfig } from '../../common/proxy-config.ts'
import { fieldChanges } from '../protocol/http1/field-changes.ts'
import { Router } from '../routing/router.ts'

/** @throws {Error} that names the route, what is wrong and the remedy */
export function checkRoutes({ clusters, routes }: ProxyConfig): void {
  const names = new Set(clusters.map(({ name }) => name))
  routes.forEach((route, index) => {
    try {
      checkRoute(route, names)
    } catch (error) {
      throw new Error(`config: routes.${index}: ${(error as Error).message}`)
    }
  })
}

function checkRoute(route: RouteConfig, names: ReadonlySet<string>): void {
  const { rewritePrefix, mirror } = route
  const known = (cluster: string) => {
    if (!names.has(cluster)) throw new Error(`cluster '${cluster}' does not exist, use one of ${[...names].join(', ')}`)
  }
  new Router([route], known)
  if (mirror !== undefined) known(mirror.cluster)
  fieldChanges(route.requestHeaders, null)
  fieldChanges(route.responseHeaders, null)
  // What is not visible ASCII could end the request line.
  if (rewritePrefix !== null && !/^\/[!-"$->@-~]*$/.test(rewritePrefix)) {
    throw new Error('rewritePrefix is not a path, begin it with / and use visible ASCII without ? and #')
  }
}
