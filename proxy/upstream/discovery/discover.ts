/** From the discovery part of a cluster's configuration to the thing that does it. */
import type { DiscoveryConfig } from '../../../common/proxy-config.ts'
import type { Resolver } from '../dns/resolver.ts'
import { isSentinelAccess, type SentinelAccess } from '../redis/sentinel-access.ts'
import type { Discovery } from './discovery.ts'
import { DnsDiscovery } from './dns.ts'
import { EndpointsDiscovery } from './endpoints.ts'
import { FileDiscovery, type TargetSource } from './file.ts'
import { SentinelDiscovery } from './sentinel.ts'
import { ServiceDiscovery, ServiceFeed } from './service.ts'
import { SrvDiscovery } from './srv.ts'
import { UnixDiscovery } from './unix.ts'

/** What comes from elsewhere: the list of the kind `file`, the endpoints of the kind `service`, the files of the kind `sentinel`. */
export type DiscoverySource = TargetSource | ServiceFeed | SentinelAccess

/** @param source for the kinds `file`, `service` and `sentinel`, which cannot do without */
export function discover(
  config: DiscoveryConfig,
  resolver: Resolver,
  source: DiscoverySource | null = null,
): Discovery {
  switch (config.kind) {
    case 'endpoints':
      return new EndpointsDiscovery(config, resolver)
    case 'dns':
      return new DnsDiscovery(config, resolver)
    case 'srv':
      return new SrvDiscovery(config, resolver)
    case 'service':
      if (!(source instanceof ServiceFeed)) throw new Error('discovery of a Service has no feed')
      return new ServiceDiscovery(config, source)
    case 'file':
      if (source === null || source instanceof ServiceFeed || isSentinelAccess(source))
        throw new Error('discovery by file has no source')
      return new FileDiscovery(source, resolver)
    case 'sentinel':
      if (source === null || !isSentinelAccess(source)) throw new Error('discovery by Sentinel has no access')
      return new SentinelDiscovery(config, resolver, source)
    case 'unix':
      return new UnixDiscovery(config)
    case 'fromHeader':
      // Each request brings its own.
      return { start() {}, refresh() {}, failure: null, stop() {} }
  }
}
