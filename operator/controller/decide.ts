/** What to do about a world: pure. Between gather and apply nothing reads, waits or remembers. */
import type { AmbassadorStatus } from '../api/ambassador.ts'
import type { KubeEvent } from '../kube/events.ts'
import { type ConfigMap, configMapOf } from '../render/objects.ts'
import type { Rendered } from '../render/render.ts'
import { isStarting, STARTING_MS } from './conditions.ts'
import { digestOf } from './config-maps.ts'
import { factsOf, type Published } from './facts.ts'
import { happenings } from './happenings.ts'
import { sameStatus, statusFor } from './status.ts'
import type { World } from './world.ts'

export interface Decision {
  /** The ConfigMap to apply; null when it is right already, must not be written, or there is nothing good to write. */
  readonly configMap: {
    readonly object: ConfigMap
    /** Of the one that is there; undefined: there is none. */
    readonly uid: string | undefined
    /** Told when it is written, that is when somebody had touched what was published. */
    readonly events: readonly KubeEvent[]
  } | null
  /** What is in the ConfigMap afterwards: what sidecars should have in force. */
  readonly published: Published | null
  /** The status to write; null when it says that already, or when too little is known yet. */
  readonly status: AmbassadorStatus | null
  /** Told when the status is written. */
  readonly events: readonly KubeEvent[]
  /** Look again after this time at the latest, in milliseconds; null: a change will tell. */
  readonly againMs: number | null
}

/** A ConfigMap of somebody else, and a Secret that is missing: we are told of neither when it changes. */
const UNTOLD_MS = 10_000

/** What the API server refused is offered again after this time. */
const REFUSED_MS = 30_000

export function decide(world: World, rendered: Rendered): Decision {
  const { ambassador, configMap } = world
  if (ambassador.metadata.deletionTimestamp !== undefined) {
    // The garbage collector takes the ConfigMap away; to restore it would be a quarrel.
    return { configMap: null, published: null, status: null, events: [], againMs: null }
  }
  const facts = factsOf(world, rendered)
  const restored = restoration(world, rendered)
  const isUnknown = world.rolloutsUnknown || world.pods.some((pod) => pod.report.kind === 'unasked')
  const next = statusFor(facts)
  const isNew = !isUnknown && !sameStatus(ambassador.status, next)
  const uid = configMap.kind === 'ours' ? configMap.uid : undefined
  return {
    configMap: restored === null ? null : { object: restored, uid, events: restorations(world, rendered) },
    published: facts.published,
    status: isNew ? next : null,
    events: isNew ? happenings(ambassador.status, next) : [],
    againMs: againMs(world),
  }
}

/** The ConfigMap as it should be, when it is not and may be written. */
function restoration({ ambassador, configMap }: World, { config }: Rendered): ConfigMap | null {
  if (config === null || configMap.kind === 'foreign') return null
  const wanted = configMapOf(ambassador, config)
  return configMap.kind === 'ours' && configMap.digest === digestOf(wanted) ? null : wanted
}

/** Somebody changed or deleted what we had published and still want: they should hear that it does not last. */
function restorations({ ambassador, configMap }: World, { config }: Rendered): KubeEvent[] {
  const before = ambassador.status?.config
  const isSame = before?.hash === config?.hash && before?.generation === config?.ambassador.generation
  if (before === undefined || !isSame) return []
  // Pods of a Service or of the fleet came or went.
  if (configMap.kind === 'ours' && configMap.endpointsHash !== (config?.endpointsHash ?? null)) return []
  const what = configMap.kind === 'absent' ? 'was deleted' : 'was edited'
  const message = `ConfigMap '${before.configMapName}' ${what} and is restored: change the Ambassador instead`
  return [{ type: 'Warning', reason: 'Restored', action: 'Publish', message }]
}

function againMs({ configMap, publishFailure, checkedRefs, pods, now }: World): number | null {
  const waits: number[] = []
  if (configMap.kind === 'foreign') waits.push(UNTOLD_MS)
  if (publishFailure !== null) waits.push(REFUSED_MS)
  if (checkedRefs?.some((each) => each.state !== 'Found')) waits.push(UNTOLD_MS)
  for (const pod of pods) if (isStarting(pod, now)) waits.push(Math.max(1000, pod.createdAt + STARTING_MS - now))
  return waits.length === 0 ? null : Math.min(...waits)
}
