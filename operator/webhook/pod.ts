/** applyPlan(pod, plan): the pod with its sidecar. Pure, shares every part that it does not touch, and the same again when applied again. */
import { Annotation, Label } from '../../common/names.ts'
import { LOOPBACK } from './hostnames.ts'
import { asList, asObject, asString, contains, type Json, type JsonObject, objectsOf, own, withKey } from './json.ts'
import type { InjectionPlan } from './plan.ts'
import { withSharedMounts } from './shared-sockets.ts'
import { byPlace, findInjection, type Injection, type InjectionStatus, statusText } from './status.ts'
import { BEFORE, uninjectPod } from './uninject.ts'

/** Value of the label on every injected pod. */
const INJECTED = 'true'
/** Where a sidecar of each mode stands. */
const LIST_OF = { Native: 'initContainers', Legacy: 'containers' } as const

/** Puts the sidecar of a plan into a pod, in place of one of ours that is there. The plan must have been made for the pod without it: see plan(). */
export function applyPlan(pod: JsonObject, plan: InjectionPlan): JsonObject {
  const previous = findInjection(pod)
  const bare = uninjectPod(pod)
  const spec = asObject(pod['spec']) ?? {}
  const bareSpec = withSharedMounts(withOffers(asObject(bare['spec']) ?? {}, plan), plan.shared)
  const list = LIST_OF[plan.status.mode]
  return {
    ...bare,
    metadata: metadataWith(asObject(bare['metadata']) ?? {}, plan, {
      ...plan.status,
      before: beforeOf(bare, previous, plan),
    }),
    spec: {
      ...bareSpec,
      [list]: containersWith(asList(bareSpec[list]), list, previous, plan),
      ...(plan.volumes.length === 0 ? {} : { volumes: volumesWith(spec, previous, plan) }),
      ...(plan.hostnames.length === 0 ? {} : { hostAliases: hostAliasesWith(spec, previous, plan) }),
    },
  }
}

/** What uninject could not know from the injected pod alone. Of a pod that was injected before, what was before that: others may have filled a list since. */
function beforeOf(bare: JsonObject, previous: Injection | undefined, plan: InjectionPlan): Record<string, string> {
  const metadata = asObject(bare['metadata']) ?? {}
  const spec = asObject(bare['spec']) ?? {}
  const before: Record<string, string> = {}
  const note = (key: string, value: string | undefined): void => {
    const noted = previous?.status.before[key] ?? value
    if (noted !== undefined) before[key] = noted
  }
  note('labels', emptiness(metadata, 'labels'))
  note('label', asString(own(asObject(metadata['labels']), Label.injected)))
  note(LIST_OF[plan.status.mode], emptiness(spec, LIST_OF[plan.status.mode]))
  for (const [list, offers] of byPlace(plan.offers)) {
    for (const each of objectsOf(spec[list])) {
      if (offers.has(each['name'])) note(`env ${each['name']}`, emptiness(each, 'env'))
    }
  }
  for (const [list, shared] of byPlace(plan.shared)) {
    for (const each of objectsOf(spec[list])) {
      if (shared.has(each['name'])) note(`mounts ${list}/${each['name']}`, emptiness(each, 'volumeMounts'))
    }
  }
  if (plan.volumes.length > 0) note('volumes', emptiness(spec, 'volumes'))
  if (plan.hostnames.length > 0) {
    const loopback = objectsOf(spec['hostAliases']).find((alias) => alias['ip'] === LOOPBACK)
    const hasNames = asList(loopback?.['hostnames']).length > 0
    note('hostAliases', loopback === undefined ? emptiness(spec, 'hostAliases') : undefined)
    note(
      'loopback',
      loopback === undefined || hasNames ? undefined : (emptiness(loopback, 'hostnames') ?? BEFORE.empty),
    )
  }
  return before
}

/** Variables go first, so that those of the container can refer to them: `$(PGHOST)`. */
function withOffers(spec: JsonObject, { offers }: InjectionPlan): JsonObject {
  let next = spec
  for (const [list, byContainer] of byPlace(offers)) {
    const containers = asList(next[list]).map((each) => {
      const own = asObject(each)
      const offer = byContainer.get(own?.['name'])
      if (own === undefined || offer === undefined) return each
      return { ...own, env: [...offer.variables.map(({ name, value }) => ({ name, value })), ...asList(own['env'])] }
    })
    next = { ...next, [list]: containers }
  }
  return next
}

/** Whether a collection is not there or null; undefined for one that is there. */
function emptiness(parent: JsonObject, key: string): string | undefined {
  const value = own(parent, key)
  if (value === undefined) return BEFORE.absent
  return value === null ? BEFORE.null : undefined
}

function metadataWith(metadata: JsonObject, plan: InjectionPlan, status: InjectionStatus): JsonObject {
  // In the copy of a pod that has ended it would end the sidecar at its start.
  const { [Annotation.applicationEnded]: _, ...own } = asObject(metadata['annotations']) ?? {}
  let annotations: JsonObject = own
  for (const [key, value] of Object.entries({ ...plan.annotations, [Annotation.status]: statusText(status) })) {
    annotations = withKey(annotations, key, value)
  }
  return { ...metadata, annotations, labels: withKey(asObject(metadata['labels']) ?? {}, Label.injected, INJECTED) }
}

/**
 * First in its list. A sidecar of ours that is there keeps its place, since another injector may have had a reason to go in
 * front, and stays as it is when it has all that we render, since another may have added to it.
 */
function containersWith(
  bare: readonly Json[],
  list: string,
  previous: Injection | undefined,
  plan: InjectionPlan,
): readonly Json[] {
  const isSame = previous !== undefined && contains(previous.container, plan.container)
  return bare.toSpliced(previous?.list === list ? previous.index : 0, 0, isSame ? previous.container : plan.container)
}

/** Ours at the end; those that are there keep their place. */
function volumesWith(spec: JsonObject, previous: Injection | undefined, plan: InjectionPlan): readonly Json[] {
  const missing = new Map(plan.volumes.map((volume) => [volume['name'], volume]))
  const ours = new Set(previous?.volumes)
  const volumes: Json[] = []
  for (const volume of asList(spec['volumes'])) {
    const name = asObject(volume)?.['name']
    const wanted = missing.get(name as string)
    const isOurs = typeof name === 'string' && ours.has(name)
    if (!isOurs) volumes.push(volume)
    else if (wanted !== undefined) volumes.push(contains(volume, wanted) ? volume : wanted)
    missing.delete(name as string)
  }
  return [...volumes, ...missing.values()]
}

/** One line of the hosts file for all names: hostAliases are keyed by address. */
function hostAliasesWith(spec: JsonObject, previous: Injection | undefined, plan: InjectionPlan): readonly Json[] {
  const aliases = asList(spec['hostAliases'])
  const at = aliases.findIndex((alias) => asObject(alias)?.['ip'] === LOOPBACK)
  const alias = asObject(aliases[at])
  if (alias === undefined) return [...aliases, { hostnames: plan.hostnames, ip: LOOPBACK }]
  const there = asList(alias['hostnames']) as readonly string[]
  const ours = new Set(previous?.hostnames)
  const wanted = new Set(plan.hostnames)
  const kept = there.filter((name) => !ours.has(name) || wanted.has(name))
  const present = new Set(kept)
  const hostnames = [...kept, ...plan.hostnames.filter((name) => !present.has(name))]
  return aliases.with(at, { ...alias, hostnames })
}
