/** The annotation `ambassador.dev/status`: what was added to a pod, so that it can be taken out exactly, and proof that it is ours. */
import { Annotation, CONTAINER_NAME, Env, Mount } from '../../common/names.ts'
import type { SidecarMode } from './container.ts'
import { LOOPBACK } from './hostnames.ts'
import { annotationsOf } from './inject-annotation.ts'
import { asList, asObject, asString, type Json, type JsonObject, objectsOf, own } from './json.ts'
import { SOCKETS_PREFIX, VOLUME_PREFIX } from './volumes.ts'

/** Lists of a pod in which a sidecar may stand. */
export const LISTS = ['initContainers', 'containers'] as const
export type ContainerList = (typeof LISTS)[number]

/** What is meant for one container. */
interface Placed {
  readonly list: ContainerList
  readonly container: string
}

/** Things that are meant for containers, by list and name of container: a pod may have a hundred thousand before anybody refuses it. */
export function byPlace<T extends Placed>(things: readonly T[]): Map<ContainerList, Map<Json | undefined, T>> {
  const places = new Map<ContainerList, Map<Json | undefined, T>>()
  for (const thing of things) {
    const named = places.get(thing.list) ?? new Map<Json | undefined, T>()
    places.set(thing.list, named.set(thing.container, thing))
  }
  return places
}

export interface InjectionStatus {
  /** Of the product that rendered it. */
  readonly version: string
  readonly image: string
  readonly mode: SidecarMode
  /** In the order of the annotation, each with the hash of the config that was published then. */
  readonly ambassadors: readonly { readonly name: string; readonly configHash: string }[]
  /** Names of what was added beside the container. */
  readonly added: {
    readonly volumes: readonly string[]
    readonly hostnames: readonly string[]
    readonly annotations: readonly string[]
    /** Variables, by the name of the container. Absent: none. */
    readonly env?: Readonly<Record<string, readonly string[]>>
  }
  /** What stood where something was put and is gone by it: collections that were absent or null, a value that was replaced. */
  readonly before: Readonly<Record<string, string>>
  /** Of everything rendered, so that an edit by hand is noticed. */
  readonly hash: string
}

/** A sidecar of ours in a pod. */
export interface Injection {
  readonly status: InjectionStatus
  readonly list: ContainerList
  readonly index: number
  readonly container: JsonObject
  /** Of status.added, what is really there and really ours. */
  readonly volumes: readonly string[]
  readonly hostnames: readonly string[]
}

/** The text of the annotation. */
export function statusText(status: InjectionStatus): string {
  return JSON.stringify(status)
}

/** The status of a pod, or undefined when there is none or it is not one that we could have written. */
function parseStatus(pod: JsonObject): InjectionStatus | undefined {
  const text = asString(own(annotationsOf(pod), Annotation.status))
  if (text === undefined) return undefined
  let value: Json
  try {
    value = JSON.parse(text) as Json
  } catch {
    return undefined
  }
  const status = asObject(value)
  const added = asObject(status?.['added'])
  const before = asObject(status?.['before'])
  if (status === undefined || added === undefined || before === undefined) return undefined
  const { version, image, mode, hash } = status
  const ambassadors = asList(status['ambassadors']).map((each) => asObject(each))
  const isComplete =
    typeof version === 'string' &&
    typeof image === 'string' &&
    (mode === 'Native' || mode === 'Legacy') &&
    typeof hash === 'string' &&
    [added['volumes'], added['hostnames'], added['annotations']].every(isTexts) &&
    Object.values(before).every((text) => typeof text === 'string') &&
    (added['env'] === undefined || Object.values(asObject(added['env']) ?? { bad: null }).every(isTexts)) &&
    ambassadors.every((a) => typeof a?.['name'] === 'string' && typeof a['configHash'] === 'string')
  return isComplete ? (status as unknown as InjectionStatus) : undefined
}

function isTexts(value: Json | undefined): boolean {
  return Array.isArray(value) && value.every((each) => typeof each === 'string')
}

/**
 * Finds our sidecar in a pod. The status alone proves nothing, since anybody can write an annotation: the container must
 * have our name and serve the Ambassadors that the status lists, a volume must be mounted by it alone and where we mount, and a
 * hostname must point to loopback. What does not pass is not ours and is never taken out.
 */
export function findInjection(pod: JsonObject): Injection | undefined {
  const status = parseStatus(pod)
  const spec = asObject(pod['spec'])
  if (status === undefined || spec === undefined) return undefined
  const served = status.ambassadors.map((each) => each.name).join(',')
  for (const list of LISTS) {
    const index = asList(spec[list]).findIndex((each) => isSidecar(asObject(each), served))
    if (index < 0) continue
    const container = asList(spec[list])[index] as JsonObject
    const onLoopback = loopbackNames(spec)
    return {
      status,
      list,
      index,
      container,
      volumes: ourVolumes(spec, container, status.added.volumes),
      hostnames: status.added.hostnames.filter((name) => onLoopback.has(name)),
    }
  }
  return undefined
}

function isSidecar(container: JsonObject | undefined, served: string): boolean {
  if (container?.['name'] !== CONTAINER_NAME) return false
  return objectsOf(container['env']).some((each) => each['name'] === Env.ambassadors && each['value'] === served)
}

const DIRECTORIES = Object.values(Mount).map((directory) => `${directory}/`)

/** Of these volumes, those that the sidecar mounts where we mount, and nobody else. */
function ourVolumes(spec: JsonObject, sidecar: JsonObject, names: readonly string[]): string[] {
  const own = mountsByVolume([sidecar])
  const others = mountsByVolume(LISTS.flatMap((list) => objectsOf(spec[list])).filter((each) => each !== sidecar))
  const directories = new Set<Json | undefined>()
  for (const volume of objectsOf(spec['volumes'])) {
    if (asObject(volume['emptyDir']) !== undefined) directories.add(volume['name'])
  }
  return names.filter((name) => {
    const paths = own.get(name)
    if (paths === undefined || !name.startsWith(VOLUME_PREFIX)) return false
    // A directory of sockets is mounted by the sidecar, and by others in the same place alone.
    if (name.startsWith(SOCKETS_PREFIX)) {
      return directories.has(name) && [...paths, ...(others.get(name) ?? [])].every((path) => path === paths[0])
    }
    return !others.has(name) && paths.some((path) => DIRECTORIES.some((d) => String(path).startsWith(d)))
  })
}

/** Name of volume -> where these containers mount it. */
function mountsByVolume(containers: readonly JsonObject[]): Map<Json | undefined, (Json | undefined)[]> {
  const paths = new Map<Json | undefined, (Json | undefined)[]>()
  for (const { name, mountPath } of containers.flatMap((each) => objectsOf(each['volumeMounts']))) {
    const known = paths.get(name)
    if (known === undefined) paths.set(name, [mountPath])
    else known.push(mountPath)
  }
  return paths
}

function loopbackNames(spec: JsonObject): Set<Json> {
  const lines = objectsOf(spec['hostAliases']).filter((alias) => alias['ip'] === LOOPBACK)
  return new Set(lines.flatMap((alias) => asList(alias['hostnames'])))
}
