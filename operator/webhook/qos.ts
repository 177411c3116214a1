/** Resources of the sidecar: small, and such that the pod keeps its QoS class. */
import { asObject, asString, type JsonObject, objectsOf } from './json.ts'
import { canonical, larger, nanos, smaller } from './quantities.ts'
import type { InjectorSettings } from './settings.ts'
import type { PodSettings } from './settings-annotations.ts'

/** The `resources` of the container, without what the pod has a budget for as a whole unless that was asked for; undefined: none. */
export function resourcesOf(
  spec: JsonObject,
  pod: PodSettings,
  defaults: InjectorSettings['resources'],
): JsonObject | undefined {
  const isAsked = [pod.cpuRequest, pod.cpuLimit, pod.memoryRequest, pod.memoryLimit].some(
    (value) => value !== undefined,
  )
  // A pod-level budget (Kubernetes 1.34) is shared by all containers; requests of ours on top could exceed it and have the pod refused.
  const shared = isAsked ? [] : budgeted(spec)
  if (shared.length === 2) return undefined
  if (shared.length === 0 && isGuaranteed(spec)) {
    const cpu = pod.cpuLimit ?? pod.cpuRequest ?? larger(defaults.guaranteedCpu, defaults.cpuRequest)
    const memory = pod.memoryLimit ?? pod.memoryRequest ?? defaults.memoryLimit ?? defaults.memoryRequest
    const both = { cpu: canonical(cpu), memory: canonical(memory) }
    return { limits: both, requests: both }
  }
  const cpu = range(pod.cpuRequest, pod.cpuLimit, defaults.cpuRequest, defaults.cpuLimit)
  const memory = range(pod.memoryRequest, pod.memoryLimit, defaults.memoryRequest, defaults.memoryLimit)
  const limits = {
    ...(cpu.limit === undefined || shared.includes('cpu') ? {} : { cpu: cpu.limit }),
    ...(memory.limit === undefined || shared.includes('memory') ? {} : { memory: memory.limit }),
  }
  return {
    ...(Object.keys(limits).length === 0 ? {} : { limits }),
    requests: {
      ...(shared.includes('cpu') ? {} : { cpu: cpu.request }),
      ...(shared.includes('memory') ? {} : { memory: memory.request }),
    },
  }
}

/** What the pod has a budget for as a whole. What it does not name, quotas and limit ranges still want of each container. */
function budgeted(spec: JsonObject): string[] {
  const resources = asObject(spec['resources'])
  const parts = [asObject(resources?.['limits']), asObject(resources?.['requests'])]
  return ['cpu', 'memory'].filter((name) => parts.some((part) => (part?.[name] ?? null) !== null))
}

/** An annotation moves the default on the other side out of its way. */
function range(
  request: string | undefined,
  limit: string | undefined,
  defaultRequest: string,
  defaultLimit: string | null,
): { request: string; limit: string | undefined } {
  const most = limit ?? defaultLimit ?? undefined
  const least = request ?? (most === undefined ? defaultRequest : smaller(defaultRequest, most))
  return { request: canonical(least), limit: most === undefined ? undefined : canonical(larger(most, least)) }
}

/** QoS class Guaranteed before us: every container limits CPU and memory, and requests just as much. */
function isGuaranteed(spec: JsonObject): boolean {
  const containers = [...objectsOf(spec['containers']), ...objectsOf(spec['initContainers'])]
  return (
    containers.length > 0 &&
    containers.every((container) => {
      const resources = asObject(container['resources'])
      const limits = asObject(resources?.['limits'])
      const requests = asObject(resources?.['requests'])
      return ['cpu', 'memory'].every((name) => {
        const limit = quantityOf(limits, name)
        const request = quantityOf(requests, name) ?? limit // a missing request is set to the limit
        return limit !== undefined && limit > 0n && request === limit
      })
    })
  )
}

/** A quantity may be written as a number in YAML that did not pass an API server. */
function quantityOf(list: JsonObject | undefined, name: string): bigint | undefined {
  const value = list?.[name]
  return typeof value === 'number' ? nanos(String(value)) : nanos(asString(value) ?? '')
}
