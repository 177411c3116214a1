/** Directories in which Ambassadors listen on Unix sockets: a volume of the pod for each, in the sidecar and in every container of the application. */
import { createHash } from 'node:crypto'
import { Annotation } from '../../common/names.ts'
import type { InjectableAmbassador } from './ambassador.ts'
import type { SidecarMode } from './container.ts'
import { asList, asObject, asString, type JsonObject, objectsOf } from './json.ts'
import { type Denial, deny } from './reasons.ts'
import { byPlace, type ContainerList, LISTS } from './status.ts'
import { SOCKETS_PREFIX } from './volumes.ts'

/** What one container of the application gets. */
export interface SharedMount {
  readonly list: ContainerList
  readonly container: string
  readonly mounts: readonly JsonObject[]
}

export interface SharedSockets {
  readonly kind: 'sockets'
  readonly volumes: readonly JsonObject[]
  /** Of the sidecar. */
  readonly mounts: readonly JsonObject[]
  readonly shared: readonly SharedMount[]
}

/** The volumes and mounts for the sockets of these Ambassadors, or the first that cannot be. */
export function sharedSockets(
  spec: JsonObject,
  ambassadors: readonly InjectableAmbassador[],
  mode: SidecarMode,
): SharedSockets | Denial {
  const owners = new Map<string, string>()
  const directories = new Set<string>()
  for (const { name, listenSocket } of ambassadors) {
    if (listenSocket === null) continue
    const other = owners.get(listenSocket)
    if (other !== undefined) {
      return deny(
        'SocketConflict',
        `${Annotation.inject}: Ambassadors "${other}" and "${name}" both listen on the socket "${listenSocket}"; change spec.listen.unix.path of one of them`,
      )
    }
    owners.set(listenSocket, name)
    const directory = directoryOf(listenSocket)
    const clash = mountClash(spec, name, listenSocket, directory)
    if (clash !== undefined) return clash
    directories.add(directory)
  }
  const sorted = [...directories].sort()
  const mounts = sorted.map((directory) => ({ mountPath: directory, name: volumeOf(directory) }))
  return {
    kind: 'sockets',
    volumes: mounts.map(({ name }) => ({ emptyDir: {}, name })),
    mounts,
    shared: mounts.length === 0 ? [] : sharedWith(spec, mounts, mode),
  }
}

/** The directory of a socket. */
export function directoryOf(path: string): string {
  return path.slice(0, path.lastIndexOf('/'))
}

/** A path has letters that the name of a volume may not have. */
function volumeOf(directory: string): string {
  return `${SOCKETS_PREFIX}${createHash('sha256').update(directory).digest('hex').slice(0, 10)}`
}

/** A volume, or a mount of the user's own in the place of ours. */
function mountClash(spec: JsonObject, name: string, path: string, directory: string): Denial | undefined {
  const volume = volumeOf(directory)
  if (objectsOf(spec['volumes']).some((each) => each['name'] === volume)) {
    return deny(
      'VolumeConflict',
      `${Annotation.inject}: the pod has a volume of its own named "${volume}", which the sidecar needs; rename it`,
    )
  }
  for (const container of LISTS.flatMap((list) => objectsOf(spec[list]))) {
    for (const mount of objectsOf(container['volumeMounts'])) {
      const mountPath = (asString(mount['mountPath']) ?? '').replace(/\/+$/, '')
      if (mountPath !== directory && mountPath !== path) continue
      return deny(
        'SocketConflict',
        `${Annotation.inject}: Ambassador "${name}" listens on the socket "${path}", and container "${String(container['name'])}" mounts a volume of its own at "${mountPath}"; change spec.listen.unix.path or that mount`,
      )
    }
  }
  return undefined
}

/** Without native sidecars, an init container ends before the sidecar begins. */
function sharedWith(spec: JsonObject, mounts: readonly JsonObject[], mode: SidecarMode): SharedMount[] {
  const lists = mode === 'Native' ? LISTS : (['containers'] as const)
  return lists.flatMap((list) =>
    objectsOf(spec[list]).map((each) => ({ list, container: asString(each['name']) ?? '', mounts })),
  )
}

/** Puts the mounts in front of a container's own, where other injectors leave them. */
export function withSharedMounts(spec: JsonObject, shared: readonly SharedMount[]): JsonObject {
  let next = spec
  for (const [list, byContainer] of byPlace(shared)) {
    const containers = asList(next[list]).map((each) => {
      const own = asObject(each)
      const mounts = byContainer.get(own?.['name'])?.mounts
      if (own === undefined || mounts === undefined) return each
      return { ...own, volumeMounts: [...mounts, ...asList(own['volumeMounts'])] }
    })
    next = { ...next, [list]: containers }
  }
  return next
}
