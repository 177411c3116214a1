/** Equal configs are equal bytes, and their content hash. Apart from proxy-config.ts so that the proxy carries no schema library. */
import type { DiscoveryConfig, ProxyConfig } from './proxy-config.ts'

/** JSON with the keys of every object in order, so that equal configs are equal bytes. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, v: unknown) =>
    v !== null && typeof v === 'object' && !Array.isArray(v)
      ? Object.fromEntries(Object.entries(v).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
      : v,
  )
}

/**
 * The content hash of a config: 16 hex digits of SHA-256 over everything but `hash`, the generation, the endpoints of Services and
 * the size of the fleet, so a change of metadata alone is no change, nor are pods that come and go.
 */
export function configHash(config: Omit<ProxyConfig, 'hash'>): string {
  const { namespace, name: ambassador } = config.ambassador
  const clusters = config.clusters.map((each) => ({ ...each, discovery: withoutEndpoints(each.discovery) }))
  return digest({
    ...config,
    clusters,
    hash: undefined,
    endpointsHash: undefined,
    fleet: undefined,
    ambassador: { namespace, name: ambassador },
  })
}

/** Hash of what changes with pods: the endpoints of every Service in a config and the size of the fleet; undefined without either. */
export function endpointsHash({ clusters, fleet }: Pick<ProxyConfig, 'clusters' | 'fleet'>): string | undefined {
  const services = clusters.map(({ discovery }) => discovery).filter(({ kind }) => kind === 'service')
  if (fleet !== undefined) return digest({ services, fleet })
  return services.length === 0 ? undefined : digest(services)
}

/** What a person wrote of where endpoints come from. */
export function withoutEndpoints(discovery: DiscoveryConfig): DiscoveryConfig {
  return discovery.kind === 'service' ? { ...discovery, endpoints: [] } : discovery
}

function digest(value: unknown): string {
  // Loaded here because a sidecar, which is told its hash, has no other use for OpenSSL: a megabyte.
  const { createHash } = process.getBuiltinModule('node:crypto')
  return createHash('sha256').update(canonicalJson(value)).digest('hex').slice(0, 16)
}
