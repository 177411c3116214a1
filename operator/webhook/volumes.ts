/** Volumes of the sidecar: each ConfigMap and Secret mounted whole and read-only, never by subPath, so that the kubelet refreshes them. */
import { createHash } from 'node:crypto'
import { Annotation, APPLICATION_ENDED_FILE, Mount, POD_ANNOTATIONS, TOKEN_FILE } from '../../common/names.ts'
import type { AccountToken } from '../render/references.ts'
import type { InjectableAmbassador } from './ambassador.ts'
import type { JsonObject } from './json.ts'

/** Prefix of every volume of ours. */
export const VOLUME_PREFIX = 'ambassador-'
/** Prefix of the volumes in which Ambassadors listen on Unix sockets: see shared-sockets.ts. */
export const SOCKETS_PREFIX = `${VOLUME_PREFIX}sockets-`

/** Readable by any user: the container's user is not known where the namespace assigns it, and the files are in this container alone. */
const READABLE = 0o444
/** A volume's name is a DNS label. */
const MAX_NAME_LENGTH = 63

export interface Volumes {
  readonly volumes: readonly JsonObject[]
  readonly mounts: readonly JsonObject[]
}

/**
 * The ConfigMap of each Ambassador in their order, then Secrets, then ConfigMaps that they refer to, then tokens, each once in
 * order of name; last, for a sidecar that must be told of it, whether the application has ended.
 */
export function volumesFor(ambassadors: readonly InjectableAmbassador[], isToldOfEnd: boolean): Volumes {
  const parts: { volume: JsonObject; mount: JsonObject }[] = []
  for (const { name, config } of ambassadors) {
    // Not optional: a config that is not there would start a sidecar with nothing to do. The ConfigMap exists before a pod is admitted.
    parts.push(part('config', name, Mount.config, { configMap: { defaultMode: READABLE, name: config?.name ?? '' } }))
  }
  // Optional: a Secret that comes later, or never, must not keep the pod from starting; the sidecar reports it.
  for (const name of unique(ambassadors.flatMap((each) => each.secrets))) {
    const secret = { defaultMode: READABLE, optional: true, secretName: name }
    parts.push(part('secret', name, Mount.secrets, { secret }))
  }
  for (const name of unique(ambassadors.flatMap((each) => each.configMaps))) {
    const configMap = { defaultMode: READABLE, name, optional: true }
    parts.push(part('configmap', name, Mount.configMaps, { configMap }))
  }
  for (const { name, audience, expirationSeconds } of tokensOf(ambassadors)) {
    const source = { serviceAccountToken: { audience, expirationSeconds, path: TOKEN_FILE } }
    parts.push(part('token', name, Mount.tokens, { projected: { defaultMode: READABLE, sources: [source] } }))
  }
  if (isToldOfEnd) parts.push(podPart())
  const mounts = parts.map((each) => each.mount)
  return { volumes: parts.map((each) => each.volume), mounts: [...mounts, ...insteadOfToken(mounts[0])] }
}

/** Annotations of the pod as files, which its kubelet writes as soon as the pod object changes. */
function podPart(): { volume: JsonObject; mount: JsonObject } {
  const name = `${VOLUME_PREFIX}pod`
  const fieldRef = { apiVersion: 'v1', fieldPath: `metadata.annotations['${Annotation.applicationEnded}']` }
  const items = [{ fieldRef, path: APPLICATION_ENDED_FILE }]
  return {
    volume: { downwardAPI: { defaultMode: READABLE, items }, name },
    mount: { mountPath: `${Mount.pod}/${POD_ANNOTATIONS}`, name, readOnly: true },
  }
}

/** Where the API server mounts the token of the pod's service account, in every container that has nothing there. */
const TOKEN_PATH = '/var/run/secrets/kubernetes.io/serviceaccount'

/**
 * The sidecar has no use for the token, and what faces the network should not hold it. The plugin that mounts it runs again after
 * us and passes over a container with a mount at this path, so the config, which is no secret, stands there a second time.
 */
function insteadOfToken(config: JsonObject | undefined): JsonObject[] {
  return config === undefined ? [] : [{ ...config, mountPath: TOKEN_PATH }]
}

function part(kind: string, name: string, directory: string, source: JsonObject) {
  const volume = volumeName(kind, name)
  return {
    volume: { name: volume, ...source },
    mount: { mountPath: `${directory}/${name}`, name: volume, readOnly: true },
  }
}

/** A DNS label for any object's name. What had to be changed ends in a hash, so that `a.b` and `a-b` stay two volumes. */
function volumeName(kind: string, name: string): string {
  const plain = `${VOLUME_PREFIX}${kind}-${name}`
  if (plain.length <= MAX_NAME_LENGTH && !name.includes('.')) return plain
  const hash = createHash('sha256').update(name).digest('hex').slice(0, 10)
  const start = plain.replaceAll('.', '-').slice(0, MAX_NAME_LENGTH - hash.length - 1)
  return `${start.replace(/-+$/, '')}-${hash}`
}

/** Each token once, in order of name: Ambassadors of one audience share it. */
function tokensOf(ambassadors: readonly InjectableAmbassador[]): AccountToken[] {
  const byName = new Map(ambassadors.flatMap((each) => each.tokens).map((token) => [token.name, token]))
  return [...byName.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
}

function unique(names: readonly string[]): string[] {
  return [...new Set(names)].sort()
}
