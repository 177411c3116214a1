/** Reads everything that one reconcile may see, from caches; the API server is asked only where no cache can know. */
import { configMapName } from '../../common/object-names.ts'
import type { Ambassador } from '../api/ambassador.ts'
import type { KubeClient } from '../kube/client.ts'
import type { Clock } from '../kube/clock.ts'
import { hasStatus } from '../kube/errors.ts'
import { type KubeObject, splitKey } from '../kube/objects.ts'
import type { ReadStore } from '../kube/store.ts'
import { references } from '../render/references.ts'
import { serviceRefs } from '../render/services.ts'
import { projectConfigMap, type StoredConfigMap, stateOf } from './config-maps.ts'
import type { Reports } from './configz.ts'
import { BY_AMBASSADOR, BY_LACK, type InjectedPod, type UninjectedPod } from './pods.ts'
import type { RefChecker } from './secret-checks.ts'
import type { Services } from './services.ts'
import type { Workloads } from './workloads.ts'
import type { ConfigMapState, MissingPod, PodState, World } from './world.ts'

export interface Sources {
  readonly client: KubeClient
  readonly clock: Clock
  readonly ambassadors: Pick<ReadStore<Ambassador>, 'get'>
  readonly configMaps: Pick<ReadStore<StoredConfigMap>, 'get'>
  readonly injected: Pick<ReadStore<InjectedPod>, 'byIndex'>
  readonly uninjected: Pick<ReadStore<UninjectedPod>, 'byIndex'>
  readonly reports: Pick<Reports, 'of'>
  readonly workloads: Pick<Workloads, 'rolloutsOf'>
  readonly refChecker: Pick<RefChecker, 'check'>
  readonly services: Pick<Services, 'want' | 'known' | 'resolve'>
  /** Image of the sidecars that are injected now; null: not known. */
  readonly proxyImage: string | null
}

/** Undefined: the Ambassador does not exist any more. @throws {ApiError} */
export async function gather(key: string, sources: Sources, signal?: AbortSignal): Promise<World | undefined> {
  const ambassador = sources.ambassadors.get(key)
  if (ambassador === undefined) return undefined
  const { namespace, name } = splitKey(key)
  const refs = serviceRefs(ambassador.spec, namespace)
  sources.services.want(
    key,
    refs.map(({ ref }) => ref),
  )
  const [configMap, checkedRefs] = await Promise.all([
    configMapState(sources, ambassador, namespace, signal),
    sources.refChecker.check(namespace, references(ambassador.spec), signal),
    sources.services.known(key, signal),
  ])
  // From here on nothing waits, so that pods, reports and workloads are of one moment.
  const { rollouts, unknown } = sources.workloads.rolloutsOf(key)
  const injected = sources.injected.byIndex(BY_AMBASSADOR, key)
  return {
    ambassador,
    configMap,
    services: refs.map(({ ref, field }) => ({
      ref,
      field,
      found: sources.services.resolve(ref, namespace, configMap.kind === 'ours' ? configMap.endpoints : {}),
    })),
    pods: injected.map((pod) => podState(sources, pod, name)).sort(byName),
    missing: missingPods(sources, key),
    rollouts,
    rolloutsUnknown: unknown,
    checkedRefs,
    publishFailure: null,
    now: sources.clock.wall(),
  }
}

/** One that is not in the cache may still be there, without our label: somebody else's, or ours after an edit. */
async function configMapState(
  sources: Sources,
  { metadata }: Ambassador,
  namespace: string,
  signal?: AbortSignal,
): Promise<ConfigMapState> {
  const name = configMapName(metadata.name)
  const cached = sources.configMaps.get(`${namespace}/${name}`)
  if (cached !== undefined) return stateOf(cached, metadata.uid)
  try {
    const path = `/api/v1/namespaces/${namespace}/configmaps/${name}`
    const object = await sources.client.request<KubeObject>({ path, signal })
    return stateOf(projectConfigMap(object), metadata.uid)
  } catch (error) {
    if (hasStatus(error, 404)) return { kind: 'absent' }
    throw error
  }
}

function podState({ reports, proxyImage }: Sources, pod: InjectedPod, ambassador: string): PodState {
  const { name, phase, isRunning, isReady, restarts, waiting, image, ownImage, createdAt } = pod
  const wantedImage = ownImage === '' ? proxyImage : ownImage
  const report = reports.of(`${pod.namespace}/${name}`, pod, ambassador)
  return { name, phase, isRunning, isReady, restarts, waiting, image, wantedImage, createdAt, report }
}

function missingPods({ injected, uninjected }: Sources, key: string): MissingPod[] {
  const never = uninjected.byIndex(BY_AMBASSADOR, key).map(({ name }) => ({
    name,
    reason:
      'it was created before the annotation or while injection was off: delete it, its controller makes a new one',
  }))
  const changed = injected.byIndex(BY_LACK, key).map(({ name, serves }) => ({
    name,
    reason: `its sidecar serves ${serves.join(', ') || 'nothing'}, the annotation was changed afterwards: delete it, its controller makes a new one`,
  }))
  return [...never, ...changed].sort(byName)
}

function byName(a: { readonly name: string }, b: { readonly name: string }): number {
  return a.name < b.name ? -1 : a.name > b.name ? 1 : 0
}
