/** From the discovery part of a cluster's configuration to the thing that does it. */
import type { DiscoveryConfig } from '../../../common/proxy-config.ts'
import type { Resolver } from '../dns/resolver.ts'
import type { Discovery } from './discovery.ts'
import { DnsDiscovery } from './dns.ts'
import { EndpointsDiscovery } from './endpoints.ts'
import { FileDiscovery, type TargetSource } from './file.ts'
import { ServiceDiscovery, ServiceFeed } from './service.ts'
import { SrvDiscovery } from './srv.ts'
import { UnixDiscovery } from './unix.ts'

/** What is read elsewhere: the list of the kind `file`, the endpoints of the kind `service`. */
export type DiscoverySource = TargetSource | ServiceFeed

/** @param source for the kinds `file` and `service`, which cannot do without */
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
      if (source === null || source instanceof ServiceFeed) throw new Error('discovery by file has no source')
      return new FileDiscovery(source, resolver)
    case 'unix':
      return new UnixDiscovery(config)
    case 'fromHeader':
      // Each request brings its own.
      return { start() {}, refresh() {}, failure: null, stop() {} }
  }
}
