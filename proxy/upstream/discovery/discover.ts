/** From the discovery part of a cluster's configuration to the thing that does it. */
import type { DiscoveryConfig } from '../../../common/proxy-config.ts'
import type { Resolver } from '../dns/resolver.ts'
import type { Discovery } from './discovery.ts'
import { DnsDiscovery } from './dns.ts'
import { EndpointsDiscovery } from './endpoints.ts'
import { FileDiscovery, type TargetSource } from './file.ts'
import { SrvDiscovery } from './srv.ts'

/** @param source of the list, for the kind `file`, which cannot do without */
export function discover(config: DiscoveryConfig, resolver: Resolver, source: TargetSource | null = null): Discovery {
  switch (config.kind) {
    case 'endpoints':
      return new EndpointsDiscovery(config, resolver)
    case 'dns':
      return new DnsDiscovery(config, resolver)
    case 'srv':
      return new SrvDiscovery(config, resolver)
    case 'file':
      if (source === null) throw new Error('discovery by file has no source')
      return new FileDiscovery(source, resolver)
    case 'fromHeader':
      // Each request brings its own.
      return { start() {}, refresh() {}, failure: null, stop() {} }
  }
}
