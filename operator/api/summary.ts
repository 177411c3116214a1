/** Texts of status.summary, which the columns of `kubectl get amb` show. Total: stored specs may be of any age. */
import type { AmbassadorSpec } from './ambassador.ts'

/** Where the traffic goes: the first endpoint, and how many more there are, such as `db.example.com:5432 +1`. */
export function upstreamSummary(spec: AmbassadorSpec): string {
  // The first upstream gets what no route takes; a column has no room for more.
  const [first] = Array.isArray(spec?.upstreams) ? spec.upstreams : []
  const endpoints = Array.isArray(first?.endpoints) ? first.endpoints : []
  if (first?.file) {
    const { name, key } = first.file.configMapKeyRef ?? {}
    return cut(`configmap/${name}`, `:${key}`)
  }
  if (first?.fromHeader) return cut(`header ${first.fromHeader.name}`, '')
  if (first?.unix) return cut(`unix:${first.unix.path}`, '')
  if (first?.srv) return cut(String(first.srv.name), '')
  if (first?.sentinel) {
    const { masterName, role } = first.sentinel
    return cut(`sentinel/${masterName}`, role === 'Replica' ? ' (replicas)' : '')
  }
  if (first?.service) {
    const { name, namespace, port } = first.service
    return cut(`service/${namespace ? `${namespace}/` : ''}${name}`, `:${port}`)
  }
  const { host, port } = first?.dns ? { host: first.dns.hostname, port: first.dns.port } : (endpoints[0] ?? {})
  if (host === undefined) return ''
  const name = host.includes(':') ? `[${host}]` : host
  const more = endpoints.length > 1 ? ` +${endpoints.length - 1}` : ''
  return cut(name, `:${port}${more}`)
}

function cut(name: string, tail: string): string {
  return `${name.length + tail.length > 256 ? `${name.slice(0, 255 - tail.length)}…` : name}${tail}`
}

/** Ready and injected pods, such as `3/4`. */
export function podsSummary(ready: number, injected: number): string {
  return `${ready}/${injected}`
}

/** Versions of the sidecars: the tags of their images, each once, in order; the whole image where it has none. */
export function versionSummary(images: Iterable<string>): string {
  const tags = [...images].map((image) => /:([^/:@]+)(@.*)?$/.exec(image)?.[1] ?? image)
  const text = [...new Set(tags)].sort().join(',')
  return text.length > 128 ? `${text.slice(0, 127)}…` : text
}
