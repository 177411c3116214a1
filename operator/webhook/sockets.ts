/** Unix sockets of upstreams: the sidecar finds them where a container of the pod mounts the volume that they are in. */
import type { InjectableAmbassador } from './ambassador.ts'
import { asObject, type JsonObject, objectsOf } from './json.ts'
import { directoryOf } from './shared-sockets.ts'

/** Volumes in which a process of the pod or of its node can make a socket. */
const SOURCES = ['emptyDir', 'hostPath', 'csi', 'persistentVolumeClaim', 'ephemeral']

export interface SocketMounts {
  /** Mounts of volumes that the pod has, each once, in order of path. */
  readonly mounts: readonly JsonObject[]
  readonly warnings: readonly string[]
}

/** For each socket, the mount of the pod that is nearest to it, read-only: connecting writes nothing. */
export function socketMounts(spec: JsonObject, ambassadors: readonly InjectableAmbassador[]): SocketMounts {
  const known = mountsOf(spec)
  // A socket of ours is where the sidecar has its directory already.
  const shared = ambassadors.flatMap(({ listenSocket }) => (listenSocket === null ? [] : [directoryOf(listenSocket)]))
  const found = new Map<string, JsonObject>()
  const warnings: string[] = []
  for (const { name, sockets } of ambassadors) {
    for (const path of sockets) {
      if (shared.includes(directoryOf(path))) continue
      const mount = known.find(({ mountPath }) => path.startsWith(`${withoutSlash(String(mountPath))}/`))
      if (mount === undefined) {
        warnings.push(
          `Ambassador "${name}": no container of the pod mounts a volume that the socket '${path}' can be in, so the sidecar will not find it; mount an emptyDir at its directory`,
        )
        continue
      }
      const { mountPath, name: volume, subPath } = mount
      found.set(String(mountPath), {
        mountPath: mountPath ?? '',
        name: volume ?? '',
        readOnly: true,
        ...(subPath === undefined ? {} : { subPath }),
      })
    }
  }
  return { mounts: [...found].sort(([a], [b]) => (a < b ? -1 : 1)).map(([, mount]) => mount), warnings }
}

/** Mounts in which a socket can be, the longest path first. */
function mountsOf(spec: JsonObject): JsonObject[] {
  const usable = new Set(
    objectsOf(spec['volumes'])
      .filter((volume) => SOURCES.some((source) => asObject(volume[source]) !== undefined))
      .map(({ name }) => name),
  )
  return [...objectsOf(spec['initContainers']), ...objectsOf(spec['containers'])]
    .flatMap((container) => objectsOf(container['volumeMounts']))
    .filter(({ name, mountPath, subPathExpr }) => {
      return usable.has(name) && typeof mountPath === 'string' && mountPath.startsWith('/') && subPathExpr === undefined
    })
    .sort((a, b) => String(b['mountPath']).length - String(a['mountPath']).length)
}

function withoutSlash(path: string): string {
  return path.replace(/\/+$/, '')
}
