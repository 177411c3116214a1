/** The pods of the cluster, as little of them as decisions need: thousands of pods must fit into a few megabytes. */
import { Annotation, CONTAINER_NAME, Env, Label, TELEMETRY_PORT } from '../../common/names.ts'
import type { KubeObject } from '../kube/objects.ts'
import { Reflector, type ReflectorOptions } from '../kube/reflector.ts'
import { askedFor, namesIn } from './annotation.ts'

/** An injected pod that is neither finished nor being deleted. */
export interface InjectedPod {
  readonly namespace: string
  readonly name: string
  readonly uid: string
  /** Ambassadors that its sidecar serves, by the sidecar's own environment: annotations can be edited afterwards. */
  readonly serves: readonly string[]
  /** Ambassadors that its annotation names and its sidecar does not serve. */
  readonly lacks: readonly string[]
  /** Empty until the pod has an address. */
  readonly ip: string
  readonly telemetryPort: number
  readonly phase: string
  readonly isRunning: boolean
  readonly isReady: boolean
  readonly restarts: number
  readonly waiting: string
  readonly image: string
  /** Image that its own annotation asks for; empty: the installation's. */
  readonly ownImage: string
  readonly touched: string
  /** Its sidecar is an ordinary container that was not told yet that every other container has ended for good. */
  readonly isLeftAlone: boolean
  readonly createdAt: number
}

/** An annotated pod without a sidecar. */
export interface UninjectedPod {
  readonly namespace: string
  readonly name: string
  readonly asks: readonly string[]
}

/** Pods that have ended answer no question that we ask. */
const NOT_FINISHED = 'status.phase!=Succeeded,status.phase!=Failed'

const PODS = '/api/v1/pods'

type Common = Pick<ReflectorOptions<never>, 'client' | 'clock' | 'log' | 'onTrouble'>

/** Index values are `namespace/ambassador`, the keys of the controller's queue. */
export const BY_AMBASSADOR = 'ambassador'
/** Of injected pods: the Ambassadors that they ask for and lack. */
export const BY_LACK = 'lack'

/** Watches injected pods. Smaller pages than usual: these are whole pods on the wire, some 10 KB each, and what was read at once stays in the process. */
export function injectedPods(
  options: Common & Pick<ReflectorOptions<InjectedPod>, 'onChange'>,
): Reflector<InjectedPod> {
  return new Reflector<InjectedPod>({
    ...options,
    name: 'pods-injected',
    path: PODS,
    labelSelector: `${Label.injected}=true`,
    fieldSelector: NOT_FINISHED,
    pageSize: 50,
    transform: projectInjected,
    indices: {
      [BY_AMBASSADOR]: (pod) => pod.serves.map((name) => `${pod.namespace}/${name}`),
      [BY_LACK]: (pod) => pod.lacks.map((name) => `${pod.namespace}/${name}`),
    },
  })
}

/**
 * Watches all other pods as metadata and keeps those that ask for an Ambassador. Annotations cannot be selected by, so
 * the API server sends the metadata of every pod; what is not kept is forgotten at once.
 */
export function uninjectedPods(
  options: Common & Pick<ReflectorOptions<UninjectedPod>, 'onChange'>,
): Reflector<UninjectedPod> {
  return new Reflector<UninjectedPod>({
    ...options,
    name: 'pods-uninjected',
    path: PODS,
    labelSelector: `${Label.injected}!=true`,
    fieldSelector: NOT_FINISHED,
    pageSize: 100,
    metadataOnly: true,
    transform: projectUninjected,
    indices: { [BY_AMBASSADOR]: (pod) => pod.asks.map((name) => `${pod.namespace}/${name}`) },
  })
}

export function projectUninjected({ metadata }: KubeObject): UninjectedPod | undefined {
  if (metadata.deletionTimestamp !== undefined) return undefined
  const asks = askedFor(metadata.annotations)
  if (asks.length === 0) return undefined
  // The copy of a static pod in the API server cannot have a sidecar; the webhook is not asked about it either.
  if (metadata.annotations?.['kubernetes.io/config.mirror'] !== undefined) return undefined
  return { namespace: metadata.namespace ?? '', name: metadata.name, asks }
}

interface ContainerStatus {
  readonly name: string
  readonly ready?: boolean
  readonly started?: boolean
  readonly restartCount?: number
  readonly state?: {
    readonly running?: unknown
    readonly waiting?: { readonly reason?: string }
    readonly terminated?: { readonly exitCode?: number }
  }
}
interface Container {
  readonly name: string
  readonly restartPolicy?: string
  readonly image?: string
  readonly env?: readonly { readonly name: string; readonly value?: string }[]
}
interface Pod {
  readonly spec?: {
    readonly containers?: readonly Container[]
    readonly initContainers?: readonly Container[]
    readonly restartPolicy?: string
  }
  readonly status?: {
    readonly phase?: string
    readonly podIP?: string
    readonly containerStatuses?: readonly ContainerStatus[]
    readonly initContainerStatuses?: readonly ContainerStatus[]
  }
}

export function projectInjected(object: KubeObject): InjectedPod | undefined {
  const { metadata } = object
  if (metadata.deletionTimestamp !== undefined) return undefined
  const { spec = {}, status = {} } = object as unknown as Pod
  const isSidecar = ({ name }: { readonly name: string }): boolean => name === CONTAINER_NAME
  const container = spec.initContainers?.find(isSidecar) ?? spec.containers?.find(isSidecar)
  const state = status.initContainerStatuses?.find(isSidecar) ?? status.containerStatuses?.find(isSidecar)
  const env = (name: string): string | undefined => container?.env?.find((each) => each.name === name)?.value
  const serves = namesIn(env(Env.ambassadors) ?? '')
  const asks = askedFor(metadata.annotations)
  const lacks = asks.filter((name) => !serves.includes(name))
  const running = state?.state?.running !== undefined
  return {
    namespace: metadata.namespace ?? '',
    name: metadata.name,
    uid: metadata.uid,
    serves,
    lacks: lacks.length === 0 ? NONE : lacks,
    ip: status.podIP ?? '',
    telemetryPort: Number(env(Env.telemetryPort) ?? metadata.annotations?.[Annotation.telemetryPort]) || TELEMETRY_PORT,
    phase: status.phase ?? 'Pending',
    isRunning: running && state?.started !== false,
    isReady: running && state?.ready === true,
    restarts: state?.restartCount ?? 0,
    waiting: state?.state?.waiting?.reason ?? '',
    image: container?.image ?? '',
    ownImage: metadata.annotations?.[Annotation.proxyImage] ?? '',
    touched: metadata.annotations?.[Annotation.touched] ?? '',
    isLeftAlone:
      metadata.annotations?.[Annotation.applicationEnded] === undefined && isLeftAlone(object as unknown as Pod),
    createdAt: Date.parse(metadata.creationTimestamp ?? '') || 0,
  }
}

/** Whether the sidecar is an ordinary container that runs, and kubelet will start no other container of the pod again. */
function isLeftAlone({ spec = {}, status = {} }: Pod): boolean {
  const { containers = [], restartPolicy = 'Always' } = spec
  const stateOf = (name: string) => status.containerStatuses?.find((each) => each.name === name)?.state
  const others = containers.filter(({ name }) => name !== CONTAINER_NAME)
  if (others.length === 0 || others.length === containers.length) return false
  if (stateOf(CONTAINER_NAME)?.running === undefined) return false
  return others.every(({ name, restartPolicy: own = restartPolicy }) => {
    const terminated = stateOf(name)?.terminated
    if (terminated === undefined || own === 'Always') return false
    return own === 'Never' || terminated.exitCode === 0
  })
}

/** One empty list for the ten thousand pods that lack nothing. */
const NONE: readonly string[] = []
