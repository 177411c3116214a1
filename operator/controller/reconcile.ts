/** The whole operator on one screen: gather, decide, apply. */
import { GROUP, KIND, VERSION } from '../../common/names.ts'
import { hasStatus } from '../kube/errors.ts'
import type { EventSink } from '../kube/events.ts'
import type { KubeObject } from '../kube/objects.ts'
import { type Rendered, render } from '../render/render.ts'
import { NO_SERVICES, type ServiceLookup, serviceKey } from '../render/services.ts'
import { decide } from './decide.ts'
import type { Published } from './facts.ts'
import type { Fleets } from './fleets.ts'
import { gather, type Sources } from './gather.ts'
import type { World } from './world.ts'
import { isTerminating, type Pace, publish, type StatusWriter } from './write.ts'

export interface ReconcileDeps extends Sources {
  readonly pace: Pace
  readonly fleets: Fleets
  readonly statusWriter: StatusWriter
  readonly events: EventSink
  /** Told what sidecars should have in force; null: nothing. */
  readonly onPublished: (key: string, published: Published | null) => void
  /** Told the API server's answer to the write of a ConfigMap. */
  readonly onConfigMap: (object: KubeObject) => void
}

/**
 * Brings one Ambassador in order, from all that is known of it and never from what happened. Returns when to look again, in
 * milliseconds; undefined: a change will tell.
 * @throws {ApiError} for the queue, which tries again
 */
export async function reconcile(key: string, deps: ReconcileDeps, signal?: AbortSignal): Promise<number | undefined> {
  const world = await gather(key, deps, signal)
  if (world === undefined) {
    deps.statusWriter.forget(key)
    deps.pace.forget(key)
    deps.fleets.forget(key)
    deps.services.want(key, [])
    deps.onPublished(key, null)
    return undefined
  }
  const fleet = deps.fleets.sizeOf(key, world)
  const rendered = render({ ambassador: world.ambassador, services: lookupOf(world), sidecars: fleet.sidecars })
  let decision = decide(world, rendered)
  const { name, namespace = '', uid = '' } = world.ambassador.metadata
  const regarding = { apiVersion: `${GROUP}/${VERSION}`, kind: KIND, namespace, name, uid }
  try {
    const waitMs =
      decision.configMap !== null && isOfEndpoints(world, rendered) ? deps.pace.delay(key, world.pods.length) : 0
    if (waitMs > 0) return waitMs
    if (decision.configMap !== null) {
      deps.pace.mark(key)
      const result = await publish(deps.client, decision.configMap, signal)
      if ('written' in result) {
        deps.onConfigMap(result.written)
        for (const event of decision.configMap.events) deps.events.record(regarding, event)
      } else decision = decide({ ...world, publishFailure: result.failure }, rendered)
    }
    deps.onPublished(key, decision.published)
    const delayMs = deps.statusWriter.delay(key)
    if (decision.status !== null && delayMs > 0) return delayMs
    if (decision.status !== null) {
      await deps.statusWriter.write(key, world.ambassador, decision.status, signal)
      for (const event of decision.events) deps.events.record(regarding, event)
    }
  } catch (error) {
    // Deleted meanwhile, with its namespace or alone: the watch will tell.
    if (isTerminating(error) || hasStatus(error, 404)) return undefined
    throw error
  }
  return soonest(decision.againMs, rendered.config?.fleet === undefined ? null : fleet.againMs)
}

function soonest(...waits: readonly (number | null)[]): number | undefined {
  const given = waits.filter((each) => each !== null)
  return given.length === 0 ? undefined : Math.min(...given)
}

/** Whether nothing but pods changed, of Services or of the fleet, since the last time that something was published. */
function isOfEndpoints({ configMap }: World, { config }: Rendered): boolean {
  const isSame = configMap.kind === 'ours' && configMap.hash === config?.hash
  return isSame && configMap.generation === config?.ambassador.generation
}

/** What rendering asks of the Services in a world. */
export function lookupOf({ ambassador, services }: World): ServiceLookup {
  const found = new Map(services.map(({ ref, found }) => [serviceKey(ref), found]))
  return services.length === 0 || ambassador.metadata.namespace === undefined
    ? NO_SERVICES
    : (ref) => found.get(serviceKey(ref)) ?? NO_SERVICES(ref)
}
