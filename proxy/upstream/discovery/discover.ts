/** From the discovery part of a cluster's configuration to the thing that does it. */
import type { DiscoveryConfig } from '../../../common/proxy-config.ts'
import type { Resolver } from '../dns/resolver.ts'
import type { Discovery } from './discovery.ts'
import { DnsDiscovery } from './dns.ts'
import { EndpointsDiscovery } from './endpoints.ts'
import { SrvDiscovery } from './srv.ts'

export function discover(config: DiscoveryConfig, resolver: Resolver): Discovery {
  switch (config.kind) {
    case 'endpoints':
      return new EndpointsDiscovery(config, resolver)
    case 'dns':
      return new DnsDiscovery(config, resolver)
    case 'srv':
      return new SrvDiscovery(config, resolver)
  }
}
