/** The ConfigMaps that we wrote: told apart from everybody else's, and compared with what they should be. */
import { createHash } from 'node:crypto'
import { CONFIG_KEY, FIELD_MANAGER, GROUP, KIND, Label } from '../../common/names.ts'
import { canonicalJson, discovery } from '../../common/proxy-config.ts'
import type { KubeObject } from '../kube/objects.ts'
import { Reflector, type ReflectorOptions } from '../kube/reflector.ts'
import { type ServiceEndpoint, serviceKey } from '../render/services.ts'
import type { ConfigMapState } from './world.ts'

/** What is kept of a ConfigMap with our label. */
export interface StoredConfigMap {
  readonly uid: string
  readonly ownerUid: string
  /** Name of the Ambassador that owns it, for waking its key. */
  readonly owner: string
  readonly isApplied: boolean
  readonly digest: string
  readonly hash: string | null
  readonly generation: number | null
  readonly endpointsHash: string | null
  readonly sidecars: number | null
  /** Of each Service in it, by serviceKey(): what stays in use when the Service is gone. */
  readonly endpoints: Readonly<Record<string, readonly ServiceEndpoint[]>>
}

/** Watches the ConfigMaps that carry our label. */
export function configMaps(
  options: Pick<ReflectorOptions<StoredConfigMap>, 'client' | 'clock' | 'log' | 'onTrouble' | 'onChange'>,
): Reflector<StoredConfigMap> {
  return new Reflector<StoredConfigMap>({
    ...options,
    name: 'configmaps',
    path: '/api/v1/configmaps',
    labelSelector: Label.ambassador,
    transform: projectConfigMap,
  })
}

export function projectConfigMap(object: KubeObject): StoredConfigMap {
  const { metadata } = object
  const owner = metadata.ownerReferences?.find((each) => each.kind === KIND && each.apiVersion.startsWith(`${GROUP}/`))
  return {
    uid: metadata.uid,
    owner: owner?.name ?? '',
    ownerUid: owner?.uid ?? '',
    isApplied:
      metadata.managedFields?.some((each) => each.manager === FIELD_MANAGER && each.operation === 'Apply') ?? false,
    digest: digestOf(object as Comparable),
    ...identity((object as Comparable).data?.[CONFIG_KEY]),
  }
}

/**
 * Whose it is. Ours: an Ambassador of this uid owns it, or we applied it once, for an older Ambassador of the name or before
 * somebody took the owner away. What has neither was made by somebody else and is never written to.
 */
export function stateOf(stored: StoredConfigMap | undefined, ambassadorUid: string | undefined): ConfigMapState {
  if (stored === undefined) return { kind: 'absent' }
  if (stored.ownerUid !== ambassadorUid && !stored.isApplied) return { kind: 'foreign' }
  const { uid, digest, hash, generation, endpointsHash, sidecars, endpoints } = stored
  return { kind: 'ours', uid, digest, hash, generation, endpointsHash, sidecars, endpoints }
}

interface Comparable {
  readonly metadata: {
    readonly labels?: Readonly<Record<string, string>>
    readonly ownerReferences?: readonly { readonly uid: string; readonly kind: string }[]
  }
  readonly data?: Readonly<Record<string, string>>
}

/** Equal for two ConfigMaps that agree in everything that we write; what others add is theirs. */
export function digestOf({ metadata, data }: Comparable): string {
  const parts = [
    metadata.labels?.[Label.ambassador],
    metadata.labels?.[Label.managedBy],
    (metadata.ownerReferences ?? []).filter((each) => each.kind === KIND).map((each) => each.uid),
    data?.[CONFIG_KEY],
  ]
  return createHash('sha256').update(canonicalJson(parts)).digest('hex').slice(0, 32)
}

type Identity = Pick<StoredConfigMap, 'hash' | 'generation' | 'endpointsHash' | 'sidecars' | 'endpoints'>

/** What an operator that just started knows of what was published. Total: anybody may have edited it. */
function identity(text: string | undefined): Identity {
  try {
    const config = JSON.parse(text ?? '') as {
      hash?: unknown
      endpointsHash?: unknown
      ambassador?: { generation?: unknown }
      fleet?: { sidecars?: unknown }
      clusters?: unknown
    }
    const { hash, endpointsHash, ambassador, fleet, clusters } = config
    return {
      hash: typeof hash === 'string' ? hash : null,
      generation: typeof ambassador?.generation === 'number' ? ambassador.generation : null,
      endpointsHash: typeof endpointsHash === 'string' ? endpointsHash : null,
      sidecars: typeof fleet?.sidecars === 'number' ? fleet.sidecars : null,
      endpoints: typeof endpointsHash === 'string' ? endpointsOf(clusters) : NO_ENDPOINTS,
    }
  } catch {
    return { hash: null, generation: null, endpointsHash: null, sidecars: null, endpoints: NO_ENDPOINTS }
  }
}

const NO_ENDPOINTS: StoredConfigMap['endpoints'] = {}

function endpointsOf(clusters: unknown): StoredConfigMap['endpoints'] {
  const found: Record<string, readonly ServiceEndpoint[]> = {}
  for (const cluster of Array.isArray(clusters) ? clusters : []) {
    const place = discovery.safeParse((cluster as { discovery?: unknown } | null)?.discovery)
    if (place.success && place.data.kind === 'service') found[serviceKey(place.data)] = place.data.endpoints
  }
  return found
}
