/** uninjectPod(pod): the pod as it was before us, down to whether a list was absent, null or empty. */
import { Annotation, Label } from '../../common/names.ts'
import { LOOPBACK } from './hostnames.ts'
import { asList, asObject, type Json, type JsonObject, objectsOf, own, withKey, withoutKey } from './json.ts'
import { isOffered } from './offered-env.ts'
import { findInjection, type Injection, LISTS } from './status.ts'
import { SOCKETS_PREFIX } from './volumes.ts'

/** What a collection was before we put something into it. */
export const BEFORE = { absent: 'absent', null: 'null', empty: 'empty' } as const

/** Annotations that an injection may add beside the status; a status that lists others does not make us take them out. */
const ADDED_ANNOTATIONS: readonly string[] = ['kubectl.kubernetes.io/default-container']

/** Takes our sidecar and all that came with it out of a pod; returns the same object when there is none that is verifiably ours. */
export function uninjectPod(pod: JsonObject): JsonObject {
  const injection = findInjection(pod)
  if (injection === undefined) return pod
  const { before } = injection.status
  const spec = asObject(pod['spec']) ?? {}
  const containers = asList(spec[injection.list]).toSpliced(injection.index, 1)
  let next = settle(spec, injection.list, containers, before[injection.list])
  if (injection.volumes.length > 0) {
    const ours = new Set(injection.volumes)
    const volumes = asList(spec['volumes']).filter((v) => !ours.has(String(asObject(v)?.['name'])))
    next = settle(next, 'volumes', volumes, before['volumes'])
  }
  return {
    ...pod,
    metadata: bareMetadata(asObject(pod['metadata']) ?? {}, injection),
    spec: bareHosts(bareMounts(bareEnv(next, injection), injection), injection),
  }
}

/** Writes a collection back; an empty one becomes what it was. */
function settle(
  parent: JsonObject,
  key: string,
  value: readonly Json[] | JsonObject,
  was: string | undefined,
): JsonObject {
  const isEmpty = Array.isArray(value) ? value.length === 0 : Object.keys(value).length === 0
  if (isEmpty && was === BEFORE.absent) return withoutKey(parent, key)
  return { ...parent, [key]: isEmpty && was === BEFORE.null ? null : value }
}

function bareMetadata(metadata: JsonObject, { status }: Injection): JsonObject {
  let annotations = withoutKey(asObject(metadata['annotations']) ?? {}, Annotation.status)
  for (const key of status.added.annotations) {
    if (ADDED_ANNOTATIONS.includes(key)) annotations = withoutKey(annotations, key)
  }
  const labels = asObject(metadata['labels'])
  const next = { ...metadata, annotations }
  if (labels === undefined || own(labels, Label.injected) === undefined) return next
  const label = status.before['label']
  const bare = label === undefined ? withoutKey(labels, Label.injected) : withKey(labels, Label.injected, label)
  return settle(next, 'labels', bare, status.before['labels'])
}

/** Takes out of the containers what was offered to them, where it is still as it was offered. */
function bareEnv(spec: JsonObject, { status }: Injection): JsonObject {
  const added = status.added.env ?? {}
  let next = spec
  for (const list of LISTS) {
    if (!objectsOf(next[list]).some((each) => Object.hasOwn(added, String(each['name'])))) continue
    const containers = asList(next[list]).map((each) => {
      const container = asObject(each)
      const name = String(container?.['name'])
      if (container === undefined || !Object.hasOwn(added, name)) return each
      const names = new Set(added[name])
      const env = asList(container['env'])
      const left = env.filter((entry) => !names.has(String(asObject(entry)?.['name'])) || !isOffered(entry))
      return left.length === env.length ? each : settle(container, 'env', left, status.before[`env ${name}`])
    })
    next = { ...next, [list]: containers }
  }
  return next
}

/** Takes out of the containers the mounts of volumes that are taken out of the pod. */
function bareMounts(spec: JsonObject, { status, volumes }: Injection): JsonObject {
  const gone = new Set(volumes.filter((name) => name.startsWith(SOCKETS_PREFIX)))
  if (gone.size === 0) return spec
  let next = spec
  for (const list of LISTS) {
    if (!objectsOf(next[list]).some((each) => objectsOf(each['volumeMounts']).length > 0)) continue
    const containers = asList(next[list]).map((each) => {
      const container = asObject(each)
      const mounts = asList(container?.['volumeMounts'])
      const left = mounts.filter((mount) => !gone.has(String(asObject(mount)?.['name'])))
      if (container === undefined || left.length === mounts.length) return each
      return settle(container, 'volumeMounts', left, status.before[`mounts ${list}/${String(container['name'])}`])
    })
    next = { ...next, [list]: containers }
  }
  return next
}

function bareHosts(spec: JsonObject, { hostnames, status }: Injection): JsonObject {
  if (hostnames.length === 0) return spec
  const aliases = asList(spec['hostAliases'])
  const at = aliases.findIndex((alias) => asObject(alias)?.['ip'] === LOOPBACK)
  const alias = asObject(aliases[at])
  if (alias === undefined) return spec
  const ours = new Set<Json>(hostnames)
  const left = asList(alias['hostnames']).filter((name) => !ours.has(name))
  const was = status.before['loopback']
  if (left.length === 0 && was === undefined) {
    return settle(spec, 'hostAliases', aliases.toSpliced(at, 1), status.before['hostAliases'])
  }
  return { ...spec, hostAliases: aliases.with(at, settle(alias, 'hostnames', left, was)) }
}
