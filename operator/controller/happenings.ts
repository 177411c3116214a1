/** Which changes of status a person must hear of as an Event: pure, from the status before and after. */
import type { AmbassadorStatus } from '../api/ambassador.ts'
import type { ConditionType } from '../api/conditions.ts'
import type { KubeEvent } from '../kube/events.ts'

type Condition = NonNullable<AmbassadorStatus['conditions']>[number]

/**
 * What is worth an Event when a condition gets this reason. What comes and goes with every change (Loading, Updating) or with
 * every rollout (NoPods, RolloutInProgress) is seen in status and is no Event.
 */
const TOLD: { readonly [T in ConditionType]?: Readonly<Record<string, KubeEvent['type']>> } = {
  Accepted: { Invalid: 'Warning', NameTaken: 'Warning', AcceptedWithWarnings: 'Warning' },
  ResolvedRefs: {
    ReferenceMissing: 'Warning',
    ReferenceInvalid: 'Warning',
    RefNotPermitted: 'Warning',
    NoEndpoints: 'Warning',
  },
  Programmed: { PublishFailed: 'Warning', Rejected: 'Warning', Unreachable: 'Warning', Programmed: 'Normal' },
  Injected: { PodsMissingSidecar: 'Warning' },
  UpToDate: { RestartRequired: 'Warning' },
}

/** Events for the step from one status to the next. */
export function happenings(before: AmbassadorStatus | undefined, after: AmbassadorStatus): KubeEvent[] {
  const events: KubeEvent[] = []
  const { config } = after
  const isThis = config?.generation === after.observedGeneration // not the last good one beside an invalid generation
  if (config?.hash !== undefined && isThis && config.hash !== before?.config?.hash) {
    const message = `generation ${config.generation} is published in ConfigMap '${config.configMapName}' (${config.hash})`
    events.push({ type: 'Normal', reason: 'Published', action: 'Publish', message })
  }
  for (const condition of after.conditions ?? []) {
    const type = TOLD[condition.type as ConditionType]?.[condition.reason]
    if (type === undefined || !isNews(conditionOf(before, condition.type), condition)) continue
    events.push({ type, reason: condition.reason, action: condition.type, message: condition.message })
  }
  return events
}

/** Another reason, or the same one for another generation: a message that counts pods up or down is none. */
function isNews(before: Condition | undefined, after: Condition): boolean {
  if (before?.reason !== after.reason) return true
  return after.status !== 'True' && before.observedGeneration !== after.observedGeneration
}

function conditionOf(status: AmbassadorStatus | undefined, type: string): Condition | undefined {
  return status?.conditions?.find((each) => each.type === type)
}
