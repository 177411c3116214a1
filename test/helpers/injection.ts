/** Pods, Ambassadors and settings for tests of the webhook, each changed as a test needs. */
import type { InjectableAmbassador } from '../../operator/webhook/ambassador.ts'
import { requestOf } from '../../operator/webhook/inject-annotation.ts'
import type { Json, JsonObject } from '../../operator/webhook/json.ts'
import type { NodeInfo, Nodes } from '../../operator/webhook/native.ts'
import { type InjectionPlan, plan } from '../../operator/webhook/plan.ts'
import { applyPlan } from '../../operator/webhook/pod.ts'
import type { Denial, Skip } from '../../operator/webhook/reasons.ts'
import { DEFAULT_SETTINGS, type InjectorSettings } from '../../operator/webhook/settings.ts'
import { uninjectPod } from '../../operator/webhook/uninject.ts'

export const SETTINGS: InjectorSettings = { ...DEFAULT_SETTINGS, image: 'registry.example.com/ambassador-proxy:1.2.3' }

/** A published, accepted Ambassador on port 8081. */
export function ambassador(name: string, changes: Partial<InjectableAmbassador> = {}): InjectableAmbassador {
  return {
    name,
    port: 8081,
    hostnames: [],
    env: [],
    secrets: [],
    configMaps: [],
    tokens: [],
    sockets: [],
    listenSocket: null,
    config: { name: `ambassador-${name}`, hash: '0123456789abcdef' },
    refusal: null,
    isDeleting: false,
    ...changes,
  }
}

/** A pod with one container "app" and these annotations. */
export function pod(annotations: Record<string, Json>, spec: JsonObject = {}): JsonObject {
  return {
    apiVersion: 'v1',
    kind: 'Pod',
    metadata: { name: 'checkout-1', namespace: 'shop', annotations },
    spec: { containers: [{ name: 'app', image: 'app:1' }], ...spec },
  }
}

/** A pod that asks for Ambassadors. */
export function asking(names: string, spec: JsonObject = {}, annotations: Record<string, Json> = {}): JsonObject {
  return pod({ 'ambassador.dev/inject': names, ...annotations }, spec)
}

export function nodes(...list: (Partial<NodeInfo> & { kubeletVersion: string })[]): Nodes {
  const complete = list.map((node, i) => ({ name: `node-${i}`, labels: {}, taints: [], ...node }))
  return { list: () => complete }
}

export interface World {
  readonly ambassadors?: readonly InjectableAmbassador[]
  readonly settings?: Partial<InjectorSettings>
  readonly nodes?: Nodes
}

/** What plan() says of a pod as it comes, by way of its annotation. */
export function planFor(object: JsonObject, world: World = {}): InjectionPlan | Skip | Denial {
  const bare = uninjectPod(object)
  const asked = requestOf(bare)
  if (asked.kind !== 'request') return asked
  const known = new Map((world.ambassadors ?? [ambassador('payments')]).map((each) => [each.name, each]))
  return plan({
    pod: bare,
    namespace: 'shop',
    names: asked.names,
    find: (name) => known.get(name),
    known: () => [...known.keys()],
    settings: { ...SETTINGS, ...world.settings },
    nodes: world.nodes ?? nodes(),
  })
}

/** The injected pod. @throws {Error} when it is refused or skipped */
export function injected(object: JsonObject, world: World = {}): JsonObject {
  const planned = planFor(object, world)
  if (planned.kind !== 'plan') throw new Error(`not injected: ${JSON.stringify(planned)}`)
  return applyPlan(object, planned)
}

/** The words of a refusal. @throws {Error} when there is none */
export function refusalOf(object: JsonObject, world: World = {}): { reason: string; message: string } {
  const planned = planFor(object, world)
  if (planned.kind !== 'denial') throw new Error(`not refused: ${JSON.stringify(planned).slice(0, 300)}`)
  return { reason: planned.reason, message: planned.message }
}

/** The sidecar of an injected pod. */
export function sidecarOf(object: JsonObject): JsonObject {
  const spec = object['spec'] as { initContainers?: JsonObject[]; containers: JsonObject[] }
  const found = [...(spec.initContainers ?? []), ...spec.containers].filter((each) => each['name'] === 'ambassador')
  if (found.length !== 1) throw new Error(`${found.length} sidecars`)
  return found[0] as JsonObject
}
