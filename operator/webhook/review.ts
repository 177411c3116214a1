/** AdmissionReview in, answer out: always a verdict for a well-formed review, whatever goes wrong inside. */
import type { Log } from '../../common/log.ts'
import { Annotation } from '../../common/names.ts'
import type { Clock } from '../kube/clock.ts'
import { requestOf } from './inject-annotation.ts'
import { asObject, asString, contains, type Json, type JsonObject } from './json.ts'
import type { Found, Lookup } from './lookup.ts'
import type { Nodes } from './native.ts'
import { diff, type PatchOperation } from './patch.ts'
import { type InjectionPlan, plan } from './plan.ts'
import { applyPlan } from './pod.ts'
import { type Denial, type DenialReason, deny, type Skip, type SkipReason, skip } from './reasons.ts'
import { type InjectorSettings, SYSTEM_NAMESPACES } from './settings.ts'
import { misplacedAnnotations, unknownAnnotations } from './settings-annotations.ts'
import { findInjection } from './status.ts'
import { uninjectPod } from './uninject.ts'
import { copyAnnotation, hasController, templateOf, WORKLOAD_KINDS } from './workload.ts'

const REVIEW_API = { apiVersion: 'admission.k8s.io/v1', kind: 'AdmissionReview' } as const

/** What we read of `request`. The namespace of the object itself is not looked at: the request has the last word. */
export interface AdmissionRequest {
  readonly uid: string
  readonly kind: string
  readonly namespace: string
  readonly operation: string
  readonly subResource: string
  readonly dryRun: boolean
  readonly object: JsonObject | undefined
}

/** What happened, as the metric tells it. */
export type Result = 'injected' | 'removed' | 'copied' | 'unchanged' | 'skipped' | 'denied' | 'error'

export interface Verdict {
  readonly result: Result
  readonly reason: SkipReason | DenialReason | ''
  readonly allowed: boolean
  readonly message: string
  readonly patch: readonly PatchOperation[]
  readonly warnings: readonly string[]
}

/** API servers cut longer warnings. */
const LONGEST_WARNING = 256
/** Characters of all warnings together: API servers drop what is beyond. */
const MOST_WARNED = 4096

/**
 * Reads the body of a request.
 * @returns a sentence when it is not a review that we can answer
 */
export function parseReview(body: Json): AdmissionRequest | string {
  const review = asObject(body)
  if (review === undefined) return 'the body is not an AdmissionReview but another JSON value'
  const { apiVersion, kind } = review
  if (apiVersion !== REVIEW_API.apiVersion || kind !== REVIEW_API.kind) {
    return `the body is ${JSON.stringify(kind ?? null)} of ${JSON.stringify(apiVersion ?? null)}; this webhook answers ${REVIEW_API.kind} of ${REVIEW_API.apiVersion}, set admissionReviewVersions to [v1]`
  }
  const request = asObject(review['request'])
  const uid = asString(request?.['uid'])
  if (request === undefined || uid === undefined || uid === '') return 'the AdmissionReview has no request with a uid'
  return {
    uid,
    kind: asString(asObject(request['kind'])?.['kind']) ?? '',
    namespace: asString(request['namespace']) ?? '',
    operation: asString(request['operation']) ?? '',
    subResource: asString(request['subResource']) ?? '',
    dryRun: request['dryRun'] === true,
    object: asObject(request['object']),
  }
}

/** The AdmissionReview to send back. */
export function answer(uid: string, verdict: Verdict): JsonObject {
  const patch = verdict.patch.length === 0 ? undefined : Buffer.from(JSON.stringify(verdict.patch)).toString('base64')
  return {
    ...REVIEW_API,
    response: {
      uid,
      allowed: verdict.allowed,
      ...(verdict.allowed ? {} : { status: refusal(verdict) }),
      ...(patch === undefined ? {} : { patch, patchType: 'JSONPatch' }),
      ...(verdict.warnings.length === 0 ? {} : { warnings: toldOf(verdict.warnings) }),
    },
  }
}

/** kubectl prints the reason in front of the message: `Error from server (AmbassadorNotFound): admission webhook ...`. */
function refusal({ reason, message }: Verdict): JsonObject {
  return { code: reason === 'InternalError' ? 500 : 403, message, reason, status: 'Failure' }
}

/** The warnings that reach a person. */
function toldOf(warnings: readonly string[]): string[] {
  const told: string[] = []
  let left = MOST_WARNED
  for (const text of warnings) {
    const short = cut(text)
    if ((left -= short.length) < 0) break
    told.push(short)
  }
  return told
}

function cut(text: string): string {
  return text.length > LONGEST_WARNING ? `${text.slice(0, LONGEST_WARNING - 1)}…` : text
}

export interface ReviewerOptions {
  readonly lookup: Lookup
  readonly nodes: Nodes
  readonly settings: InjectorSettings
  readonly clock: Clock
  readonly log: Log
}

/** Answers reviews. Holds nothing between two of them. */
export class Reviewer {
  readonly #options: ReviewerOptions

  constructor(options: ReviewerOptions) {
    this.#options = options
  }

  /** A pod that is created. `deadline`: of the clock, when an answer must be there. */
  pod(request: AdmissionRequest, deadline: number): Promise<Verdict> {
    return this.#guarded(request, () => this.#pod(request, deadline))
  }

  /** A workload that is created or changed. */
  workload(request: AdmissionRequest, deadline: number): Promise<Verdict> {
    return this.#guarded(request, () => this.#workload(request, deadline))
  }

  /** Our own faults become a refusal with our name in it, not a 500 that says nothing. */
  async #guarded(request: AdmissionRequest, review: () => Promise<Verdict>): Promise<Verdict> {
    try {
      return await review()
    } catch (err) {
      this.#options.log.error({ ns: request.namespace, resource: request.kind, err }, 'review failed')
      const text = err instanceof Error ? err.message : String(err)
      return {
        ...refused(deny('InternalError', `${Annotation.inject}: fault of the operator: ${text}`)),
        result: 'error',
      }
    }
  }

  async #pod(request: AdmissionRequest, deadline: number): Promise<Verdict> {
    const { object: pod, operation, subResource, kind, namespace } = request
    if (pod === undefined || operation !== 'CREATE' || subResource !== '') return skipped(skip('NotCreated'))
    if (kind !== 'Pod') return skipped(skip('NotOurKind'))
    if (this.#isExcluded(namespace)) return skipped(skip('ExcludedNamespace'))
    const bare = uninjectPod(pod)
    const asked = requestOf(bare)
    if (asked.kind === 'denial') return refused(asked)
    if (asked.kind === 'skip') {
      // A copy of an injected pod that opted out does not keep the sidecar.
      return asked.reason === 'OptedOut' && bare !== pod ? changed('removed', diff(pod, bare), []) : skipped(asked)
    }
    const found = await this.#find(namespace, asked.names, deadline, true)
    if ('kind' in found) return refused(found)
    const planned = this.#plan(bare, namespace, asked.names, found)
    if (planned.kind === 'denial') return refused(planned)
    if (planned.kind === 'skip') return skipped(planned)
    const patch = diff(pod, applyPlan(pod, planned))
    return changed('injected', patch, [...planned.warnings, ...editedByHand(pod, planned)])
  }

  async #workload(request: AdmissionRequest, deadline: number): Promise<Verdict> {
    const { object: workload, operation, subResource, kind, namespace } = request
    if (workload === undefined || !['CREATE', 'UPDATE'].includes(operation) || subResource !== '') {
      return skipped(skip('NotCreated'))
    }
    if (!WORKLOAD_KINDS.includes(kind)) return skipped(skip('NotOurKind'))
    if (this.#isExcluded(namespace)) return skipped(skip('ExcludedNamespace'))
    if (hasController(workload)) return skipped(skip('HasController'))
    // The kind of the request is always there; that of the object may be missing in hand-made reviews.
    const typed = asString(workload['kind']) === kind ? workload : { ...workload, kind }
    const copied = copyAnnotation(typed)
    const patch = diff(typed, copied.workload)
    if (kind === 'Job' && operation === 'UPDATE' && patch.length > 0) return changed('copied', [], [immutableJob()])
    const warnings = [
      ...copied.warnings,
      ...misplacedAnnotations(typed, kind),
      ...(await this.#advice(copied.workload, kind, namespace, deadline)),
    ]
    if (kind === 'ReplicaSet' && operation === 'UPDATE' && patch.length > 0) {
      warnings.push('a ReplicaSet keeps the pods that it has; delete them to have new ones with the change')
    }
    return changed('copied', patch, warnings)
  }

  /** What a person should hear now, and not from events of pods that are refused later. */
  async #advice(workload: JsonObject, kind: string, namespace: string, deadline: number): Promise<readonly string[]> {
    const template = templateOf(workload)
    if (template === undefined) return []
    const pod = uninjectPod(template)
    const willBeRefused = ({ message }: Denial): string => `pods of this ${kind} will be refused: ${message}`
    const asked = requestOf(pod)
    if (asked.kind === 'skip') return []
    if (asked.kind === 'denial') return [willBeRefused(asked)]
    const found = await this.#find(namespace, asked.names, deadline, false)
    if ('kind' in found) return unknownAnnotations(asObject(asObject(pod['metadata'])?.['annotations']))
    const planned = this.#plan(pod, namespace, asked.names, found)
    if (planned.kind === 'plan') return planned.warnings
    // Being published is a matter of a moment, and pods wait for it.
    return planned.kind === 'skip' || planned.reason === 'ConfigNotReady' ? [] : [willBeRefused(planned)]
  }

  #isExcluded(namespace: string): boolean {
    return (
      (SYSTEM_NAMESPACES as readonly string[]).includes(namespace) ||
      this.#options.settings.excludedNamespaces.includes(namespace)
    )
  }

  /** No promise and no request on the warm path but the one that every async function costs. */
  async #find(
    namespace: string,
    names: readonly string[],
    deadline: number,
    waitForConfig: boolean,
  ): Promise<Found | Denial> {
    const known = this.#options.lookup.known(namespace, names)
    if (known !== undefined) return known
    try {
      return await this.#options.lookup.find(namespace, names, { deadline, waitForConfig })
    } catch (err) {
      this.#options.log.warn({ ns: namespace, ambassador: names.join(','), err }, 'lookup failed')
      const text = `${Annotation.inject}: ${names.map((name) => `"${name}"`).join(', ')} cannot be looked up now, the API server does not answer the operator; try again`
      return deny('LookupFailed', text)
    }
  }

  #plan(pod: JsonObject, namespace: string, names: readonly string[], found: Found): InjectionPlan | Skip | Denial {
    const { settings, nodes, lookup } = this.#options
    return plan({
      pod,
      namespace,
      names,
      find: (name) => found.get(name),
      known: () => lookup.names(namespace),
      settings,
      nodes,
    })
  }
}

/** The same sidecar is wanted as before, and the one that is there is another. */
function editedByHand(pod: JsonObject, planned: InjectionPlan): string[] {
  const previous = findInjection(pod)
  if (previous === undefined || previous.status.hash !== planned.status.hash) return []
  if (contains(previous.container, planned.container)) return []
  return [
    'the sidecar in this pod was changed by hand and is rendered anew; use the annotations ambassador.dev/... instead',
  ]
}

function immutableJob(): string {
  return `${Annotation.inject}: the pod template of a Job cannot change after its creation, so this has no effect; delete the Job and create it again with the annotation`
}

function changed(
  result: 'injected' | 'removed' | 'copied',
  patch: readonly PatchOperation[],
  warnings: readonly string[],
) {
  const isChanged = patch.length > 0
  return {
    result: isChanged ? result : ('unchanged' as const),
    reason: '' as const,
    allowed: true,
    message: '',
    patch,
    warnings,
  }
}

function skipped({ reason }: Skip): Verdict {
  return { result: 'skipped', reason, allowed: true, message: '', patch: [], warnings: [] }
}

function refused({ reason, message }: Denial): Verdict {
  return { result: 'denied', reason, allowed: false, message, patch: [], warnings: [] }
}
