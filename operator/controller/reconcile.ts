/** The whole operator on one screen: gather, decide, apply. */
import { GROUP, KIND, VERSION } from '../../common/names.ts'
import { hasStatus } from '../kube/errors.ts'
import type { EventSink } from '../kube/events.ts'
import type { KubeObject } from '../kube/objects.ts'
import { render } from '../render/render.ts'
import { decide } from './decide.ts'
import type { Published } from './facts.ts'
import { gather, type Sources } from './gather.ts'
import { isTerminating, publish, type StatusWriter } from './write.ts'

export interface ReconcileDeps extends Sources {
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
    deps.onPublished(key, null)
    return undefined
  }
  const rendered = render(world)
  let decision = decide(world, rendered)
  const { name, namespace = '', uid = '' } = world.ambassador.metadata
  const regarding = { apiVersion: `${GROUP}/${VERSION}`, kind: KIND, namespace, name, uid }
  try {
    if (decision.configMap !== null) {
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
  return decision.againMs ?? undefined
}
