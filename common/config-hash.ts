/** Equal configs are equal bytes, and their content hash. Apart from proxy-config.ts so that the proxy carries no schema library. */
import type { ProxyConfig } from './proxy-config.ts'

/** JSON with the keys of every object in order, so that equal configs are equal bytes. */
export function canonicalJson(value: unknown): string {
  return JSON.stringify(value, (_key, v: unknown) =>
    v !== null && typeof v === 'object' && !Array.isArray(v)
      ? Object.fromEntries(Object.entries(v).sort(([a], [b]) => (a < b ? -1 : a > b ? 1 : 0)))
      : v,
  )
}

/** The content hash of a config: 16 hex digits of SHA-256 over everything but `hash` and the generation, so a change of metadata alone is no change. */
export function configHash(config: Omit<ProxyConfig, 'hash'>): string {
  const { namespace, name: ambassador } = config.ambassador
  // Loaded here because a sidecar, which is told its hash, has no other use for OpenSSL: a megabyte.
  const { createHash } = process.getBuiltinModule('node:crypto')
  const content = { ...config, hash: undefined, ambassador: { namespace, name: ambassador } }
  return createHash('sha256').update(canonicalJson(content)).digest('hex').slice(0, 16)
}
