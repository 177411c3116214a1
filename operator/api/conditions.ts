/** The conditions of an Ambassador: which question each answers, and what each reason means. */

export type ConditionStatus = 'True' | 'False' | 'Unknown'

interface ReasonDoc {
  /** Statuses with which the reason is used. */
  readonly status: ConditionStatus
  /** One paragraph for the reference page: what it means and what to do. */
  readonly text: string
}

interface ConditionDoc {
  /** The question that the condition answers. */
  readonly text: string
  readonly reasons: Readonly<Record<string, ReasonDoc>>
}

/** Every condition with every reason; the reference page is made from it. All are positive: True is what one wishes for. */
export const CONDITIONS = {
  Accepted: {
    text: 'Is the spec one that can be served?',
    reasons: {
      Accepted: { status: 'True', text: 'The spec is valid and was translated for the sidecars.' },
      AcceptedWithWarnings: {
        status: 'True',
        text: 'The spec is valid and is served, but part of it does nothing or may not do what was meant. The message names the field and the remedy.',
      },
      Invalid: {
        status: 'False',
        text: 'The spec breaks a rule. The API server refuses such specs, so this happens only to objects that were stored before the rule existed. Running sidecars keep the last good configuration; the message names the field, the value and the remedy.',
      },
      NameTaken: {
        status: 'False',
        text: 'A ConfigMap of the name that this Ambassador needs exists and is not ours, so it is left alone and nothing is published. The message names it; rename or delete it.',
      },
    },
  },
  ResolvedRefs: {
    text: 'Can the sidecars read and use each Secret and ConfigMap, and find each Service, that the spec names?',
    reasons: {
      Resolved: { status: 'True', text: 'Every sidecar that was asked has read every reference.' },
      NoReferences: { status: 'True', text: 'The spec refers to no Secret, no ConfigMap and no Service.' },
      ReferenceMissing: {
        status: 'False',
        text: 'A Secret or ConfigMap does not exist, or does not hold the key; or a Service does not exist or has no such port, and its last good endpoints stay in use. The message names it. Create it or correct the name; the sidecars read it within a minute, usually within seconds, without a restart.',
      },
      ReferenceInvalid: {
        status: 'False',
        text: 'A value is there and cannot be used: a certificate that does not parse, a private key of another certificate, a line break inside a token. The message names the key and never shows the value.',
      },
      RefNotPermitted: {
        status: 'False',
        text: 'A Service of another namespace does not exist or does not allow this one, which are told alike. Its owner allows it with the annotation `ambassador.dev/allow-from` on the Service.',
      },
      NoEndpoints: {
        status: 'False',
        text: 'A Service exists and none of its pods is ready. Requests and connections wait for one, as long as a connection may take to be made. Look at its pods and its selector.',
      },
      NotMounted: {
        status: 'Unknown',
        text: 'Running pods do not mount the object, because they were injected before the spec named it. They keep their last good configuration; restart them to know.',
      },
      NotChecked: {
        status: 'Unknown',
        text: 'A Service was not looked at yet or may not be read, as the message says; or no pod runs that could have looked, and the operator may not read Secrets. Start a pod, or grant the operator `get` on Secrets of the namespace with the chart value `operator.secretChecks`.',
      },
      Unreachable: {
        status: 'Unknown',
        text: 'A sidecar does not answer the operator, so it is not known what it has read. The message names the pod; look for a NetworkPolicy that keeps the operator from the telemetry port.',
      },
    },
  },
  Programmed: {
    text: 'Does every running sidecar of this Ambassador report that it has loaded this generation?',
    reasons: {
      Programmed: { status: 'True', text: 'Every running sidecar has this generation in force.' },
      NoPods: {
        status: 'True',
        text: 'The configuration is published and no pod runs a sidecar for it; the first one will start with it.',
      },
      Loading: {
        status: 'False',
        text: 'The configuration is published and not every sidecar has loaded it yet. This takes seconds; the message names pods that are late.',
      },
      Rejected: {
        status: 'False',
        text: 'A sidecar cannot put this generation in force and keeps its last good one. The message has the words of the sidecar, such as a port that the application uses itself.',
      },
      Unreachable: {
        status: 'Unknown',
        text: 'A sidecar does not answer the operator. The message names the pod; look for a NetworkPolicy that keeps the operator from the telemetry port.',
      },
      NameTaken: {
        status: 'False',
        text: 'A ConfigMap of the name that this Ambassador needs exists and is not ours, so it is left alone. Rename or delete it.',
      },
      PublishFailed: {
        status: 'False',
        text: 'The API server did not take the ConfigMap. The message has its answer; the operator tries again.',
      },
      Invalid: {
        status: 'False',
        text: 'This generation is not accepted, so there is nothing to load. Running sidecars keep the last good configuration.',
      },
    },
  },
  Injected: {
    text: 'Does every running pod that asks for this Ambassador have a sidecar for it?',
    reasons: {
      Injected: {
        status: 'True',
        text: 'Every running pod that names this Ambassador in its annotation has a sidecar.',
      },
      NoPods: {
        status: 'False',
        text: 'No running pod names this Ambassador. Annotate a workload: `kubectl annotate deployment NAME ambassador.dev/inject=AMBASSADOR`.',
      },
      PodsMissingSidecar: {
        status: 'False',
        text: 'A pod names this Ambassador and runs without a sidecar, because it was created before the annotation or while injection was off. The message and status.missing name them; restart them.',
      },
      RolloutInProgress: {
        status: 'False',
        text: 'The template of a workload names this Ambassador and pods made before that still run, without a sidecar. A rolling update replaces them by itself; a workload that updates on delete waits for a person. The message names the workload.',
      },
    },
  },
  UpToDate: {
    text: 'Do all running pods have what the newest spec and the installed version of Ambassador would give a new pod?',
    reasons: {
      Current: { status: 'True', text: 'Every injected pod runs what a new pod would get.' },
      NoPods: { status: 'True', text: 'No pod runs a sidecar for this Ambassador.' },
      Updating: {
        status: 'False',
        text: 'Sidecars are loading the newest configuration, which takes seconds; or they have refused it, as Programmed says, and run the last good one.',
      },
      RestartRequired: {
        status: 'False',
        text: 'The newest spec needs something that a running pod cannot get, such as a Secret that it does not mount. These pods keep their last good configuration; the message names them. Restart them: `kubectl rollout restart`.',
      },
      SidecarOutdated: {
        status: 'False',
        text: 'Pods run a sidecar of another version than new pods would get. They work; restart them when it suits.',
      },
      Unreachable: {
        status: 'Unknown',
        text: 'A sidecar does not answer the operator, so it is not known what it runs. The message names the pod.',
      },
      Invalid: {
        status: 'False',
        text: 'This generation is not accepted; the pods run the last good configuration.',
      },
    },
  },
  Ready: {
    text: 'Can an application use this dependency now? True when all other conditions are True (UpToDate may be False with SidecarOutdated: such sidecars work), at least one injected pod runs, and every injected sidecar is ready; a pod in its first minute may still be starting. Otherwise the reason is that of the first condition that is False, or else Unknown, in the order of this page.',
    reasons: {
      Ready: { status: 'True', text: 'The dependency can be used in every pod that asks for it.' },
      PodsNotReady: {
        status: 'False',
        text: 'A sidecar is not ready, or no injected pod runs yet. The message names the pod, and the upstream and its last error where that is why.',
      },
    },
  },
} as const satisfies Record<string, ConditionDoc>

export type ConditionType = keyof typeof CONDITIONS
/** The reasons of one condition; those of Ready include every other condition's. */
export type ReasonOf<T extends ConditionType> = T extends 'Ready'
  ? { [C in ConditionType]: keyof (typeof CONDITIONS)[C]['reasons'] }[ConditionType]
  : keyof (typeof CONDITIONS)[T]['reasons']

/** All types, in the order in which status shows them. */
export const CONDITION_TYPES = Object.keys(CONDITIONS) as ConditionType[]

/** Longest message that the API accepts. */
const MAX_MESSAGE = 4096

export interface Condition {
  readonly type: ConditionType
  readonly status: ConditionStatus
  readonly reason: string
  readonly message: string
  readonly observedGeneration: number
  /** RFC 3339, seconds. */
  readonly lastTransitionTime: string
}

/**
 * Sets one condition in a list, in the order of CONDITION_TYPES, and returns the new list. `lastTransitionTime` is kept while
 * the status stays the same, whatever happens to reason and message, and is `now` otherwise. Conditions of types that are not ours stay, at the end.
 */
export function setCondition<C extends { type: string; status: string; lastTransitionTime?: string }>(
  conditions: readonly C[],
  next: Omit<Condition, 'lastTransitionTime'>,
  now: Date,
): (C | Condition)[] {
  const before = conditions.find((each) => each.type === next.type)
  const since = before?.status === next.status ? before.lastTransitionTime : undefined
  const condition: Condition = {
    ...next,
    message: next.message.length > MAX_MESSAGE ? `${next.message.slice(0, MAX_MESSAGE - 1)}…` : next.message,
    lastTransitionTime: since ?? `${now.toISOString().slice(0, 19)}Z`,
  }
  const place = (type: string) => {
    const index = CONDITION_TYPES.indexOf(type as ConditionType)
    return index < 0 ? CONDITION_TYPES.length : index
  }
  return [...conditions.filter((each) => each.type !== next.type), condition].sort(
    (a, b) => place(a.type) - place(b.type),
  )
}
