/** Why a pod is not injected, why one is refused, and what to do: one list for answers, metrics, the CLI and the documentation. */

/** Admitted unchanged. Reason -> when. */
export const SKIPS = {
  NotAnnotated: 'the object has no annotation ambassador.dev/inject',
  OptedOut: 'ambassador.dev/inject is "false"',
  MirrorPod: 'a static pod; its copy in the API server cannot be changed',
  NoContainers: 'the pod has no container; the API server refuses it in its own words',
  ExcludedNamespace: 'a namespace that the operator never touches',
  NotCreated: 'an operation other than the creation of a pod, or a subresource',
  HasController: 'the object belongs to a controller that was asked itself',
  NotOurKind: 'a kind without a pod template',
} as const satisfies Record<string, string>

/** Refused. Reason -> what a person does. */
export const DENIALS = {
  InvalidAnnotation: 'correct ambassador.dev/inject: names of Ambassadors of the namespace, separated by commas',
  TooManyAmbassadors: 'name at most 16 Ambassadors',
  InvalidSetting: 'correct the annotation that the message names',
  AmbassadorNotFound: 'create the Ambassador or correct the annotation; controllers try again by themselves',
  AmbassadorNotAccepted: 'correct the Ambassador; `kubectl describe amb` tells why it is not accepted',
  AmbassadorDeleting: 'the Ambassador is being deleted; create it again or take it out of the annotation',
  ConfigNotReady: 'the operator has not published the configuration yet; controllers try again by themselves',
  LookupFailed: 'the operator cannot ask the API server; controllers try again by themselves',
  PortConflict: 'give one of the two another port',
  SocketConflict: 'give one of the two another path',
  HostnameConflict: 'take the name out of spec.listen.hostnames or of the pod',
  HostNetwork: 'a pod in the network of its node cannot have a sidecar on 127.0.0.1',
  Windows: 'Windows pods are not supported',
  NameConflict: 'rename the container; the name "ambassador" is the sidecar\'s',
  VolumeConflict: 'rename the volume; the prefix "ambassador-" is the sidecar\'s',
  InternalError: 'report the message, it is a fault of the operator',
} as const satisfies Record<string, string>

export type SkipReason = keyof typeof SKIPS
export type DenialReason = keyof typeof DENIALS

export interface Skip {
  readonly kind: 'skip'
  readonly reason: SkipReason
}

export interface Denial {
  readonly kind: 'denial'
  readonly reason: DenialReason
  /** Subject, value, remedy; what the person reads behind "admission webhook ... denied the request". */
  readonly message: string
}

export function skip(reason: SkipReason): Skip {
  return { kind: 'skip', reason }
}

export function deny(reason: DenialReason, message: string): Denial {
  return { kind: 'denial', reason, message }
}
