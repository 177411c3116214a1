/** What the world amounts to for one Ambassador, worked out once for all conditions. */

import { type Reference, references } from '../render/references.ts'
import type { Rendered } from '../render/render.ts'
import type { PodState, SidecarState, World } from './world.ts'

/** A running sidecar that answered, with what it says. */
export interface Answered {
  readonly pod: PodState
  /** Null: it does not know this Ambassador. */
  readonly state: SidecarState | null
}

/** What is, or is being, published. */
export interface Published {
  readonly hash: string
  /** Of the endpoints of Services and the size of the fleet; null: it says nothing of them. */
  readonly endpointsHash: string | null
  readonly generation: number
}

export interface Facts {
  readonly world: World
  readonly rendered: Rendered
  readonly generation: number
  /** The ConfigMap of our name belongs to somebody else. */
  readonly isTaken: boolean
  /** In the ConfigMap after this reconcile; null when there is none. */
  readonly published: Published | null
  /** Whether `published` is this generation's. */
  readonly isPublished: boolean
  readonly answered: readonly Answered[]
  readonly silent: readonly { readonly pod: PodState; readonly message: string }[]
  /** Sidecars that do not run yet, or were just seen to start. */
  readonly starting: readonly PodState[]
  /** Sidecars that have `published` in force. */
  readonly current: readonly Answered[]
  /** Sidecars that have seen `published` and could not put it in force. */
  readonly rejected: readonly (Answered & { readonly state: SidecarState })[]
  /** Answered, neither current nor rejected. */
  readonly late: readonly Answered[]
  /** `Secret/name/key` and `ConfigMap/name/key` of everything that the spec refers to. */
  readonly references: readonly RefId[]
}

export interface RefId {
  readonly kind: 'Secret' | 'ConfigMap'
  readonly name: string
  readonly key: string
}

export function factsOf(world: World, rendered: Rendered): Facts {
  const generation = world.ambassador.metadata.generation ?? 0
  const isTaken = world.configMap.kind === 'foreign'
  const published = publishedOf(world, rendered)
  const answered: Answered[] = []
  const silent: { pod: PodState; message: string }[] = []
  const starting: PodState[] = []
  for (const pod of world.pods) {
    if (pod.report.kind === 'answered') answered.push({ pod, state: pod.report.ambassador })
    else if (pod.report.kind === 'silent') silent.push({ pod, message: pod.report.message })
    else starting.push(pod)
  }
  // The hash is of what is served, without the generation: a spec that says the same in other words is in force as soon as
  // it is published, whether or not the sidecar has read its new number yet.
  const hash = published?.hash
  const isCurrent = ({ state }: Answered): boolean => hash !== undefined && state?.hash === hash
  const isRejected = (each: Answered): each is Answered & { state: SidecarState } => {
    const rejected = each.state?.rejected
    if (isCurrent(each) || rejected === null || rejected === undefined) return false
    return rejected.hash === hash || rejected.hash === null
  }
  return {
    world,
    rendered,
    generation,
    isTaken,
    published,
    isPublished: published !== null && rendered.config !== null && published.hash === rendered.config.hash && !isTaken,
    answered,
    silent,
    starting,
    current: answered.filter(isCurrent),
    rejected: answered.filter(isRejected),
    late: answered.filter((each) => !isCurrent(each) && !isRejected(each)),
    references: idsOf(world),
  }
}

function publishedOf({ configMap, publishFailure }: World, { config }: Rendered): Published | null {
  if (configMap.kind === 'foreign') return null
  if (config !== null && publishFailure === null) {
    const { hash, endpointsHash = null, ambassador } = config
    return { hash, endpointsHash, generation: ambassador.generation }
  }
  if (configMap.kind === 'absent' || configMap.hash === null) return null
  const { hash, endpointsHash, generation } = configMap
  return { hash, endpointsHash, generation: generation ?? 0 }
}

function idsOf({ ambassador }: World): RefId[] {
  const { secrets, configMaps } = references(ambassador.spec)
  const flat = (kind: RefId['kind'], each: readonly Reference[]): RefId[] =>
    each.flatMap(({ name, keys }) => keys.map((key) => ({ kind, name, key })))
  return [...flat('Secret', secrets), ...flat('ConfigMap', configMaps)]
}
