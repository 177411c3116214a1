/** The status of an Ambassador, from facts: conditions, counts, and the texts of the columns. */
import { isDeepStrictEqual } from 'node:util'
import { configMapName } from '../../common/object-names.ts'
import type { AmbassadorStatus } from '../api/ambassador.ts'
import { setCondition } from '../api/conditions.ts'
import { podsSummary, upstreamSummary, versionSummary } from '../api/summary.ts'
import { conditionsFor } from './conditions.ts'
import type { Facts } from './facts.ts'

/** Entries that status lists at most, of versions and of missing pods. */
const LISTED = 10

/** The whole status. What the facts do not change stays as it was, so that it is equal to the one before when nothing happened. */
export function statusFor(facts: Facts): AmbassadorStatus {
  const { world, generation, published, current } = facts
  const { metadata, spec, status } = world.ambassador
  const now = new Date(world.now)
  let conditions = status?.conditions ?? []
  for (const verdict of conditionsFor(facts)) {
    conditions = setCondition(conditions, { ...verdict, observedGeneration: generation }, now)
  }
  const ready = world.pods.filter((pod) => pod.isReady).length
  const missing = [...world.missing].sort((a, b) => (a.name < b.name ? -1 : 1)).slice(0, LISTED)
  const next: AmbassadorStatus = {
    observedGeneration: generation,
    conditions,
    ...(published === null
      ? {}
      : {
          config: {
            hash: published.hash,
            configMapName: configMapName(metadata.name),
            generation: published.generation,
          },
        }),
    pods: { injected: world.pods.length, ready, current: current.length, missing: world.missing.length },
    versions: versions(facts),
    missing: missing.map(({ name, reason }) => ({ pod: name, reason })),
    summary: {
      pods: podsSummary(ready, world.pods.length),
      upstream: upstreamSummary(spec),
      version: versionSummary(world.pods.map((pod) => pod.image)),
    },
  }
  return next
}

/** Which image and config run how often, most pods first. */
function versions({ world }: Facts): NonNullable<AmbassadorStatus['versions']> {
  const counts = new Map<string, { image: string; configHash: string; pods: number }>()
  for (const { image, report } of world.pods) {
    const configHash = report.kind === 'answered' ? (report.ambassador?.hash ?? '') : ''
    const key = `${image}\0${configHash}`
    const known = counts.get(key)
    if (known === undefined) counts.set(key, { image, configHash, pods: 1 })
    else known.pods++
  }
  const order = (each: { image: string; configHash: string }): string => `${each.image}\0${each.configHash}`
  return [...counts.values()].sort((a, b) => b.pods - a.pods || (order(a) < order(b) ? -1 : 1)).slice(0, LISTED)
}

/** Whether two statuses say the same. */
export function sameStatus(a: AmbassadorStatus | undefined, b: AmbassadorStatus): boolean {
  return a !== undefined && isDeepStrictEqual(a, b)
}
