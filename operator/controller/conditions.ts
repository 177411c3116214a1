/** From facts to conditions: one pure function per question, each a list of cases in the order in which they count. */

import type { RefReport } from '../../common/configz.ts'
import { CONTAINER_NAME } from '../../common/names.ts'
import { configMapName } from '../../common/object-names.ts'
import type { ConditionStatus, ConditionType, ReasonOf } from '../api/conditions.ts'
import { acceptance } from '../render/render.ts'
import type { Answered, Facts, RefId } from './facts.ts'
import { count, pods, reference, sentences, them } from './words.ts'
import type { PodState, World } from './world.ts'

/** The answer to one question, before it has a time. */
export interface Verdict<T extends ConditionType> {
  readonly type: T
  readonly status: ConditionStatus
  readonly reason: ReasonOf<T>
  readonly message: string
}
type AnyVerdict = { [T in ConditionType]: Verdict<T> }[ConditionType]

/** A pod that is younger may still be starting and does not take Ready away from the others. */
export const STARTING_MS = 60_000

/** All conditions, in the order of CONDITION_TYPES. */
export function conditionsFor(facts: Facts): AnyVerdict[] {
  const others = [accepted(facts), resolvedRefs(facts), programmed(facts), injected(facts), upToDate(facts)]
  return [...others, ready(facts, others)]
}

function verdictOf<T extends ConditionType>(type: T) {
  return (status: ConditionStatus, reason: ReasonOf<T>, message: string): Verdict<T> => ({
    type,
    status,
    reason,
    message,
  })
}

function accepted(facts: Facts): Verdict<'Accepted'> {
  const is = verdictOf('Accepted')
  const { status, reason, message } = acceptance(facts.rendered.problems)
  if (status === 'True' && facts.isTaken) return is('False', 'NameTaken', taken(facts))
  return is(status, reason, message)
}

function taken({ world }: Facts): string {
  const name = configMapName(world.ambassador.metadata.name)
  return `ConfigMap '${name}' exists and is not of this Ambassador, so it is left alone: rename or delete it, or give the Ambassador another name`
}

function resolvedRefs(facts: Facts): Verdict<'ResolvedRefs'> {
  const is = verdictOf('ResolvedRefs')
  const { references, answered, silent, world } = facts
  const services = serviceVerdict(world)
  if (services !== null) return is(...services)
  if (references.length === 0 && world.services.length > 0) {
    return is(
      'True',
      'Resolved',
      `${count(world.services.length, 'Service')} found, and no Secret or ConfigMap is named`,
    )
  }
  if (references.length === 0) return is('True', 'NoReferences', 'the spec refers to no Secret and no ConfigMap')
  const said = whatSidecarsSay(facts)
  const checked = world.checkedRefs
  const missing = references.filter((id) => said.get(idOf(id))?.has('Missing') || isCheckedMissing(facts, id))
  const invalid = references.filter((id) => said.get(idOf(id))?.has('Invalid') && !missing.includes(id))
  if (missing.length + invalid.length > 0) {
    const all = [...missing.map((id) => absence(facts, id)), ...invalid.map((id) => invalidity(facts, id))]
    return is('False', missing.length > 0 ? 'ReferenceMissing' : 'ReferenceInvalid', sentences(all))
  }
  const unmounted = references.filter((id) => said.get(idOf(id))?.has('NotMounted'))
  if (unmounted.length > 0) {
    const names = unmounted.map(
      (id) => `${reference(id)} is not mounted in ${pods(podsThatSay(facts, id, 'NotMounted'))}`,
    )
    const all = new Set(unmounted.flatMap((id) => podsThatSay(facts, id, 'NotMounted')))
    return is('Unknown', 'NotMounted', `${sentences(names)}: restart ${them([...all])}`)
  }
  const isFound = (id: RefId): boolean =>
    said.get(idOf(id))?.has('Found') === true ||
    checked?.some((each) => sameRef(each, id) && each.state === 'Found') === true
  const isEverywhere = answered.every(({ state }) =>
    references.every((id) => state?.refs.some((each) => isRef(each.ref, id) && each.state === 'Found')),
  )
  if (silent.length > 0 && checked === null) return is('Unknown', 'Unreachable', unreachable(facts))
  if (references.every(isFound) && (isEverywhere || checked !== null)) {
    const who = answered.length > 0 ? count(answered.length, 'sidecar') : 'the operator'
    return is('True', 'Resolved', `${who} found ${count(references.length, 'reference')}`)
  }
  if (answered.length > 0)
    return is('Unknown', 'NotChecked', 'the sidecars have not looked yet: they are loading this generation')
  return is(
    'Unknown',
    'NotChecked',
    'no sidecar runs that could have looked: start a pod, or add the namespace to operator.secretChecks of the chart',
  )
}

/** What is wrong with the Services that the spec names; null: nothing is. */
function serviceVerdict({ services }: World): Parameters<ReturnType<typeof verdictOf<'ResolvedRefs'>>> | null {
  const problems = services.flatMap(({ field, found }) =>
    found.kind === 'endpoints' && found.problem !== null ? [{ field, ...found.problem }] : [],
  )
  for (const [kinds, status, reason] of SERVICE_REASONS) {
    const chosen = problems.filter(({ kind }) => kinds.includes(kind))
    if (chosen.length > 0)
      return [status, reason, sentences(chosen.map(({ field, message }) => `${field}: ${message}`))]
  }
  return null
}

/** Worst first. */
const SERVICE_REASONS = [
  [['NotPermitted'], 'False', 'RefNotPermitted'],
  [['Missing', 'PortMissing'], 'False', 'ReferenceMissing'],
  [['NoEndpoints'], 'False', 'NoEndpoints'],
  [['Unknown'], 'Unknown', 'NotChecked'],
] as readonly (readonly [readonly string[], ConditionStatus, ReasonOf<'ResolvedRefs'>])[]

function programmed(facts: Facts): Verdict<'Programmed'> {
  const is = verdictOf('Programmed')
  const { generation, world, published, answered, silent, starting, current, rejected, late } = facts
  if (facts.isTaken) return is('False', 'NameTaken', taken(facts))
  if (facts.rendered.config === null) return is('False', 'Invalid', lastGood(facts))
  if (world.publishFailure !== null) {
    return is('False', 'PublishFailed', `the API server did not take the ConfigMap: ${world.publishFailure}`)
  }
  if (world.pods.length === 0) {
    return is('True', 'NoPods', `generation ${generation} is published; no pod runs a sidecar for it`)
  }
  if (rejected.length > 0) {
    return is('False', 'Rejected', `${refusals(facts)}; the last good configuration keeps serving`)
  }
  if (late.length > 0) {
    return is(
      'False',
      'Loading',
      `${pods(names(late))} ${late.length === 1 ? 'has' : 'have'} not loaded generation ${generation} yet`,
    )
  }
  if (silent.length > 0) return is('Unknown', 'Unreachable', unreachable(facts))
  if (answered.length === 0)
    return is(
      'False',
      'Loading',
      `no sidecar runs yet: ${pods(starting.map((pod) => pod.name))} ${starting.length === 1 ? 'is' : 'are'} starting`,
    )
  return is(
    'True',
    'Programmed',
    `${count(current.length, 'sidecar')} ${current.length === 1 ? 'serves' : 'serve'} generation ${generation} (${published?.hash})`,
  )
}

/** What serves while the newest generation does not. */
function lastGood({ generation, published, current }: Facts): string {
  const refused = `generation ${generation} is not accepted`
  if (published === null) return `${refused} and no earlier one was published`
  return `${refused}; ${count(current.length, 'sidecar')} ${current.length === 1 ? 'serves' : 'serve'} generation ${published.generation} (${published.hash})`
}

function injected({ world }: Facts): Verdict<'Injected'> {
  const is = verdictOf('Injected')
  const { missing, rollouts } = world
  const name = world.ambassador.metadata.name
  if (missing.length > 0) {
    const what =
      missing.length === 1
        ? 'asks for this Ambassador and has no sidecar for it'
        : 'ask for this Ambassador and have no sidecar for it'
    return is(
      'False',
      'PodsMissingSidecar',
      `${pods(missing.map((pod) => pod.name))} ${what}: restart ${them(missing)}`,
    )
  }
  if (rollouts.length > 0) {
    const each = rollouts.map(({ workload, pods: old, waitsForDelete }) => {
      const remedy = waitsForDelete ? `: delete ${them(old)}, the workload updates on delete` : ''
      return `${workload} still runs ${pods(old)} from before the annotation${remedy}`
    })
    return is('False', 'RolloutInProgress', sentences(each))
  }
  if (world.pods.length === 0) {
    return is(
      'False',
      'NoPods',
      `no pod names this Ambassador: kubectl annotate deployment NAME ambassador.dev/inject=${name}`,
    )
  }
  return is(
    'True',
    'Injected',
    `${count(world.pods.length, 'pod')} ${world.pods.length === 1 ? 'has' : 'have'} a sidecar`,
  )
}

function upToDate(facts: Facts): Verdict<'UpToDate'> {
  const is = verdictOf('UpToDate')
  const { world, answered, silent, late, rejected, generation } = facts
  if (facts.rendered.config === null) return is('False', 'Invalid', lastGood(facts))
  if (facts.isTaken) return is('False', 'Invalid', `generation ${generation} is not published: ${taken(facts)}`)
  if (world.pods.length === 0) return is('True', 'NoPods', 'no pod runs a sidecar for this Ambassador')
  const stuck = answered.filter((each) => needsRestart(facts, each))
  if (stuck.length > 0) {
    const refs = facts.references.filter((id) =>
      stuck.some(({ state }) => state?.refs.some((r) => isRef(r.ref, id) && r.state === 'NotMounted')),
    )
    const unmounted = [...refs.map((id) => `${id.kind} '${id.name}'`), ...tokensNotMounted(stuck)]
    const what = unmounted.length > 0 ? sentences(unmounted) : 'what the newest generation needs'
    return is(
      'False',
      'RestartRequired',
      `${pods(names(stuck))} ${stuck.length === 1 ? 'does' : 'do'} not mount ${what}: restart ${them(stuck)} with kubectl rollout restart`,
    )
  }
  if (late.length + rejected.length > 0) {
    const behind = [
      ...(late.length > 0
        ? [`${pods(names(late))} ${late.length === 1 ? 'does' : 'do'} not run generation ${generation} yet`]
        : []),
      ...(rejected.length > 0
        ? [`${pods(names(rejected))} cannot run generation ${generation}, see condition Programmed`]
        : []),
    ]
    return is('False', 'Updating', sentences(behind))
  }
  if (silent.length > 0) return is('Unknown', 'Unreachable', unreachable(facts))
  const outdated = world.pods.filter((pod) => pod.wantedImage !== null && pod.image !== pod.wantedImage)
  if (outdated.length > 0) {
    const images = sentences(outdated.map((pod) => `'${pod.image}'`))
    return is(
      'False',
      'SidecarOutdated',
      `${pods(outdated.map((pod) => pod.name))} ${outdated.length === 1 ? 'runs' : 'run'} ${images}, new pods get '${outdated[0]?.wantedImage}': restart ${them(outdated)} when it suits`,
    )
  }
  return is(
    'True',
    'Current',
    `${count(world.pods.length, 'pod')} ${world.pods.length === 1 ? 'runs' : 'run'} what a new one would get`,
  )
}

/** Tokens of the service account are no objects that a spec refers to; the sidecar alone knows of them. */
function tokensNotMounted(stuck: readonly Answered[]): string[] {
  return stuck.flatMap(({ state }) =>
    (state?.refs ?? []).flatMap(({ ref, state: found }) =>
      ref.kind === 'token' && found === 'NotMounted' ? [`a token for audience '${ref.audience}'`] : [],
    ),
  )
}

function needsRestart({ rejected, references }: Facts, answered: Answered): boolean {
  if (rejected.some((each) => each.pod === answered.pod && each.state.rejected?.reason === 'NotMounted')) return true
  return (
    answered.state?.refs.some((each) => each.state === 'NotMounted' && references.some((id) => isRef(each.ref, id))) ===
    true
  )
}

function ready(facts: Facts, others: readonly AnyVerdict[]): Verdict<'Ready'> {
  const is = verdictOf('Ready')
  // Sidecars of an older version work; an upgrade of the operator must not make everything unready.
  const counting = others.filter((each) => each.reason !== 'SidecarOutdated')
  const first = counting.find((each) => each.status === 'False') ?? counting.find((each) => each.status === 'Unknown')
  if (first !== undefined) return is(first.status, first.reason, first.message)
  const { world } = facts
  const broken = world.pods.filter((pod) => !pod.isReady && !isStarting(pod, world.now))
  if (broken.length > 0) return is('False', 'PodsNotReady', sentences(broken.map(notReady)))
  if (!world.pods.some((pod) => pod.isReady && pod.phase === 'Running')) {
    return is(
      'False',
      'PodsNotReady',
      `no pod runs as a whole yet: see kubectl describe for ${pods(world.pods.map((pod) => pod.name))}`,
    )
  }
  const able = world.pods.filter((pod) => pod.isReady).length
  const rest =
    able === world.pods.length
      ? ''
      : `, ${world.pods.length - able} more ${world.pods.length - able === 1 ? 'is' : 'are'} starting`
  return is('True', 'Ready', `${count(able, 'pod')} can use it${rest}`)
}

/** A sidecar that has not been ready yet, in a pod that is young and has not restarted it. */
export function isStarting(pod: PodState, now: number): boolean {
  return !pod.isRunning && pod.restarts === 0 && now - pod.createdAt < STARTING_MS
}

function notReady({ name, waiting, report }: PodState): string {
  const said = report.kind === 'answered' ? (report.ambassador?.unready ?? []) : []
  // The sidecar knows more than its kubelet: which upstream, and what of it.
  if (waiting === '' && said.length > 0)
    return `the sidecar of pod '${name}' is not ready: ${sentences(said)}: see kubectl logs ${name} -c ${CONTAINER_NAME}`
  const why = waiting === '' ? '' : ` (${waiting})`
  return `the sidecar of pod '${name}' is not ready${why}: see kubectl describe pod ${name}`
}

function unreachable({ silent }: Facts): string {
  const why = sentences(silent.map(({ message }) => message))
  return `${pods(silent.map(({ pod }) => pod.name))} ${silent.length === 1 ? 'does' : 'do'} not answer the operator (${why}): let it reach the telemetry port of the sidecar`
}

function refusals({ rejected }: Facts): string {
  const byReason = new Map<string, string[]>()
  for (const { pod, state } of rejected) {
    const said = state.rejected?.message ?? ''
    byReason.set(said, [...(byReason.get(said) ?? []), pod.name])
  }
  return sentences(
    [...byReason].map(([said, names]) => `${pods(names)} ${names.length === 1 ? 'says' : 'say'}: ${said}`),
  )
}

function names(all: readonly Answered[]): string[] {
  return all.map(({ pod }) => pod.name)
}

/** States of each reference of the spec over all sidecars. */
function whatSidecarsSay({ answered, references }: Facts): Map<string, Set<RefReport['state']>> {
  const said = new Map<string, Set<RefReport['state']>>()
  for (const { state } of answered) {
    for (const each of state?.refs ?? []) {
      const id = references.find((one) => isRef(each.ref, one))
      if (id === undefined) continue // of the config in force, which the newest spec does not name any more
      const states = said.get(idOf(id)) ?? new Set()
      said.set(idOf(id), states.add(each.state))
    }
  }
  return said
}

function podsThatSay({ answered }: Facts, id: RefId, state: RefReport['state']): string[] {
  return names(answered.filter((each) => each.state?.refs.some((ref) => isRef(ref.ref, id) && ref.state === state)))
}

function isRef(ref: RefReport['ref'], { kind, name, key }: RefId): boolean {
  const wanted = kind === 'Secret' ? 'secret' : 'configMap'
  return ref.kind === wanted && ref.name === name && ref.key === key
}

function sameRef(a: RefId, b: RefId): boolean {
  return a.kind === b.kind && a.name === b.name && a.key === b.key
}

function idOf({ kind, name, key }: RefId): string {
  return `${kind}/${name}/${key}`
}

function isCheckedMissing({ world }: Facts, id: RefId): boolean {
  return world.checkedRefs?.some((each) => sameRef(each, id) && each.state !== 'Found') === true
}

function absence({ world }: Facts, id: RefId): string {
  const checked = world.checkedRefs?.find((each) => sameRef(each, id))
  if (checked?.state === 'ObjectMissing')
    return `${id.kind} '${id.name}' does not exist: create it with key '${id.key}'`
  if (checked?.state === 'KeyMissing') return `${id.kind} '${id.name}' has no key '${id.key}': add it`
  return `${id.kind} '${id.name}' does not exist or has no key '${id.key}': create it or add the key`
}

/** The words of the sidecar, which name the key and never show the value. */
function invalidity({ answered }: Facts, id: RefId): string {
  const report = answered
    .flatMap(({ state }) => state?.refs ?? [])
    .find((each) => isRef(each.ref, id) && each.state === 'Invalid')
  return `${reference(id)}: ${report?.message || 'cannot be used'}`
}
