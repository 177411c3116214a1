/** From a Kubernetes Service and its EndpointSlices to the endpoints of an upstream: pure. */
import type { ServiceDiscoveryConfig } from '../../common/proxy-config.ts'
import type { AmbassadorSpec } from '../api/ambassador.ts'

/** A port of a Service, as an Ambassador names it. */
export interface ServiceRef {
  readonly namespace: string
  readonly name: string
  readonly port: number | string
}

export type ServiceEndpoint = ServiceDiscoveryConfig['endpoints'][number]

/** What is kept of a Service. */
export interface ServiceState {
  readonly namespace: string
  readonly name: string
  /** Of type ExternalName; empty: of another type. */
  readonly externalName: string
  readonly ports: readonly { readonly name: string; readonly port: number }[]
  /** `IPv4` or `IPv6`, the one that is used first. */
  readonly families: readonly string[]
  /** Namespaces whose Ambassadors may name it, besides its own; `*`: every one. */
  readonly allowFrom: readonly string[]
}

/** What is kept of an EndpointSlice. */
export interface SliceState {
  readonly namespace: string
  readonly service: string
  /** `IPv4` or `IPv6`. */
  readonly family: string
  /** Null: every port. */
  readonly ports: readonly { readonly name: string; readonly port: number | null }[] | null
  readonly endpoints: readonly SliceEndpoint[]
}

export interface SliceEndpoint {
  readonly ip: string
  /** It gets traffic. Never while the pod is being deleted. */
  readonly isReady: boolean
  /** Its probe passes, whether or not the pod is being deleted. */
  readonly isServing: boolean
  /** Empty: not known. */
  readonly zone: string
  /** Zones that Kubernetes means it for (hints of topology or of trafficDistribution); null: it says nothing. */
  readonly forZones: readonly string[] | null
}

/** Why a Service gives no endpoints, or not those that it should. */
export interface ServiceProblem {
  readonly kind: 'Unknown' | 'Missing' | 'PortMissing' | 'NotPermitted' | 'NoEndpoints'
  /** Names the Service, what is wrong and the remedy. */
  readonly message: string
}

export type ResolvedService =
  | {
      readonly kind: 'endpoints'
      readonly endpoints: readonly ServiceEndpoint[]
      readonly problem: ServiceProblem | null
    }
  /** Type ExternalName, or a stand-in outside a cluster: found by DNS. */
  | { readonly kind: 'name'; readonly hostname: string; readonly port: number }

/** Never throws; the same reference in one world always gives the same. */
export type ServiceLookup = (ref: ServiceRef) => ResolvedService

/** Outside a cluster. */
export const NO_SERVICES: ServiceLookup = () => ({ kind: 'endpoints', endpoints: [], problem: null })

/** Most endpoints of one Service that a config carries; they must fit into a ConfigMap. */
export const MAX_SERVICE_ENDPOINTS = 1000

/** The reference of an upstream. */
export function serviceRef(
  {
    name,
    namespace,
    port,
  }: { readonly name: string; readonly namespace?: string | undefined; readonly port: number | string },
  ownNamespace: string,
): ServiceRef {
  return { namespace: namespace ?? ownNamespace, name, port }
}

/** Every Service that a spec names, each once, with the upstream that names it first. Total: what is missing is passed over. */
export function serviceRefs(
  spec: AmbassadorSpec,
  ownNamespace: string,
): { readonly ref: ServiceRef; readonly field: string }[] {
  const found = new Map<string, { ref: ServiceRef; field: string }>()
  const upstreams: readonly (AmbassadorSpec['upstreams'][number] | null)[] = Array.isArray(spec?.upstreams)
    ? spec.upstreams
    : []
  upstreams.forEach((upstream, index) => {
    const { name, namespace, port } = upstream?.service ?? {}
    const isNamed = typeof name === 'string' && (typeof port === 'number' || typeof port === 'string')
    if (!isNamed || (namespace !== undefined && namespace !== null && typeof namespace !== 'string')) return
    const ref = serviceRef({ name, namespace: namespace ?? undefined, port }, ownNamespace)
    const key = serviceKey(ref)
    if (!found.has(key)) found.set(key, { ref, field: `spec.upstreams[${index}].service` })
  })
  return [...found.values()]
}

/** What makes two references the same. */
export function serviceKey({
  namespace,
  name,
  port,
}: {
  readonly namespace: string
  readonly name: string
  readonly port: number | string
}): string {
  return `${namespace}/${name}:${port}`
}

export interface ServiceWorld {
  /** Of the Ambassador that asks. */
  readonly asker: string
  readonly service: ServiceState | undefined
  readonly slices: readonly SliceState[]
  /** What was published for this reference before. */
  readonly lastGood: readonly ServiceEndpoint[]
}

/**
 * The endpoints of a Service. Those that are ready; else those that end but still serve; else those that were used before and are
 * still listed, since a probe that fails everywhere at once says more of the probe than of the pods; else none, because an address
 * that Kubernetes has taken away may belong to another pod already. Of a Service that is gone or has lost the port the last good
 * ones stay, with a problem.
 */
export function resolveService(ref: ServiceRef, { asker, service, slices, lastGood }: ServiceWorld): ResolvedService {
  const isForeign = ref.namespace !== asker
  const isAllowed = !isForeign || service?.allowFrom.some((each) => each === '*' || each === asker) === true
  const kept = (kind: ServiceProblem['kind'], message: string, endpoints = lastGood): ResolvedService => ({
    kind: 'endpoints',
    endpoints,
    problem: { kind, message },
  })
  // The same words whether or not it exists: who may not use a Service may not learn of it either.
  if (!isAllowed) {
    const remedy = `create it, and have its owner annotate it with ambassador.dev/allow-from=${asker}`
    return kept('NotPermitted', `${nameOf(ref)} does not exist or does not allow namespace '${asker}': ${remedy}`, [])
  }
  if (service === undefined) return kept('Missing', `${nameOf(ref)} does not exist: create it or correct the name`)
  const port = portOf(ref, service)
  if (port === null)
    return kept('PortMissing', `${nameOf(ref)} has no port ${shown(ref.port)}: use ${portsOf(service)}`)
  if (service.externalName !== '') return { kind: 'name', hostname: service.externalName, port: port.port }
  const endpoints = endpointsOf(service, slices, port, lastGood)
  if (endpoints.length > 0) return { kind: 'endpoints', endpoints, problem: null }
  const message = `${nameOf(ref)} has no ready endpoint for port ${shown(ref.port)}: look at its pods and its selector`
  return kept('NoEndpoints', message, [])
}

/** The port of the Service; null when it has no such one. A Service without any ports (headless) has every number. */
function portOf(
  { port }: ServiceRef,
  { ports, externalName }: ServiceState,
): { readonly name: string | null; readonly port: number } | null {
  const found = ports.find((each) => (typeof port === 'number' ? each.port === port : each.name === port))
  if (found !== undefined) return found
  const isOpen = ports.length === 0 || externalName !== ''
  return isOpen && typeof port === 'number' ? { name: null, port } : null
}

function endpointsOf(
  service: ServiceState,
  slices: readonly SliceState[],
  port: { readonly name: string | null; readonly port: number },
  lastGood: readonly ServiceEndpoint[],
): readonly ServiceEndpoint[] {
  // A pod of two families is listed twice, once for each; it is one pod, so one family is used: the first that has somebody.
  const families = [...new Set([...service.families, 'IPv4', 'IPv6'])]
  const byFamily = families.map((family) =>
    listed(
      slices.filter((slice) => slice.family === family),
      port,
    ),
  )
  const choose = (isChosen: (each: Listed) => boolean): readonly ServiceEndpoint[] => {
    for (const all of byFamily) {
      const chosen = all.filter(isChosen)
      if (chosen.length > 0) return bounded(chosen.map(({ endpoint }) => endpoint))
    }
    return []
  }
  const before = new Set(lastGood.map(({ ip, port: number }) => `${ip} ${number}`))
  const ready = choose(({ isReady }) => isReady)
  if (ready.length > 0) return ready
  const ending = choose(({ isServing }) => isServing)
  return ending.length > 0 ? ending : choose(({ endpoint }) => before.has(`${endpoint.ip} ${endpoint.port}`))
}

interface Listed {
  readonly endpoint: ServiceEndpoint
  readonly isReady: boolean
  readonly isServing: boolean
}

/** Every address of the port, each once, in order, so that the same pods give the same bytes. */
function listed(
  slices: readonly SliceState[],
  port: { readonly name: string | null; readonly port: number },
): Listed[] {
  const found = new Map<string, Listed>()
  for (const slice of slices) {
    const number = slicePort(slice, port)
    if (number === null) continue
    for (const { ip, isReady, isServing, zone, forZones } of slice.endpoints) {
      const key = `${ip} ${number}`
      const other = found.get(key)
      // A pod that moves from one slice to another is in both for a moment.
      if (other?.isReady || (other?.isServing && !isReady)) continue
      // A hint that says what the zone says already is left out: most do.
      const isHinted = forZones !== null && (forZones.length !== 1 || forZones[0] !== zone)
      const endpoint = { ip, port: number, ...(zone !== '' && { zone }), ...(isHinted && { forZones: [...forZones] }) }
      found.set(key, { endpoint, isReady, isServing })
    }
  }
  return [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, each]) => each)
}

/** Number of the port on the pods of a slice; null: they do not have it. */
function slicePort(
  { ports }: SliceState,
  port: { readonly name: string | null; readonly port: number },
): number | null {
  if (port.name === null || ports === null) return port.port
  const found = ports.find((each) => each.name === port.name)
  return found === undefined ? null : (found.port ?? port.port)
}

/** At most so many, and always the same ones: spread over the whole list, so that no node or zone is left out by its address. */
function bounded(endpoints: readonly ServiceEndpoint[]): readonly ServiceEndpoint[] {
  if (endpoints.length <= MAX_SERVICE_ENDPOINTS) return endpoints
  const step = endpoints.length / MAX_SERVICE_ENDPOINTS
  return Array.from({ length: MAX_SERVICE_ENDPOINTS }, (_, index) => endpoints[Math.floor(index * step)]!)
}

function nameOf({ namespace, name }: ServiceRef): string {
  return `Service '${name}' of namespace '${namespace}'`
}

function shown(port: number | string): string {
  return typeof port === 'number' ? String(port) : `'${port}'`
}

function portsOf({ ports }: ServiceState): string {
  if (ports.length === 0) return 'a number'
  const names = ports.slice(0, 10).map(({ name, port }) => (name === '' ? String(port) : `${port} (${name})`))
  return names.join(' or ') + (ports.length > names.length ? ', ...' : '')
}
