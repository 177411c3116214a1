/** Workloads whose template names an Ambassador, and whether pods from before that still run: until then a Ready would be too early. */
import { type Log, silentLog } from '../../common/log.ts'
import { Annotation, Label } from '../../common/names.ts'
import type { KubeClient } from '../kube/client.ts'
import { type Clock, systemClock } from '../kube/clock.ts'
import type { KubeList, KubeObject } from '../kube/objects.ts'
import { Reflector, type ReflectorOptions } from '../kube/reflector.ts'
import { WorkQueue } from '../kube/workqueue.ts'
import { askedFor, namesIn } from './annotation.ts'
import type { Rollout } from './world.ts'

const KINDS: Record<
  'deployments' | 'statefulsets' | 'daemonsets' | 'replicasets',
  { readonly kind: string; readonly labelSelector?: string }
> = {
  deployments: { kind: 'Deployment' },
  statefulsets: { kind: 'StatefulSet' },
  daemonsets: { kind: 'DaemonSet' },
  // Those of a Deployment carry this label, ten for each; the API server leaves them out.
  replicasets: { kind: 'ReplicaSet', labelSelector: '!pod-template-hash' },
}
type Plural = keyof typeof KINDS

/** Kinds whose pods stay as they are until somebody deletes them. */
const NEVER_ROLLS = 'ReplicaSet'

/** A workload whose pod template carries the annotation. */
export interface AnnotatedWorkload {
  readonly kind: string
  readonly namespace: string
  readonly name: string
  readonly uid: string
  readonly asks: readonly string[]
  /** As a label selector. */
  readonly selector: string
  readonly waitsForDelete: boolean
  /** Changes with every step of a rollout. */
  readonly progress: string
}

interface Workload {
  readonly spec?: {
    readonly template?: { readonly metadata?: { readonly annotations?: Readonly<Record<string, string>> } }
    readonly selector?: Selector
    readonly updateStrategy?: { readonly type?: string }
  }
  readonly status?: Readonly<Record<string, unknown>>
}

interface Selector {
  readonly matchLabels?: Readonly<Record<string, string>>
  readonly matchExpressions?: readonly {
    readonly key: string
    readonly operator: string
    readonly values?: readonly string[]
  }[]
}

/** How long until pods are looked for again while some are left; a step of the rollout comes first anyway. */
const AGAIN_MS = { initialMs: 1000, maxMs: 5000 }

export interface WorkloadsOptions {
  readonly client: KubeClient
  readonly clock?: Clock
  readonly log?: Log
  readonly onTrouble?: (reason: string) => void
  /** Told the key (`namespace/ambassador`) for which something changed. */
  readonly wake: (key: string) => void
}

/** Pods without a sidecar, per Ambassador. */
type Verdict = ReadonlyMap<string, readonly string[]>

/**
 * Watches Deployments, StatefulSets, DaemonSets and bare ReplicaSets. A workload that names an Ambassador is looked into once: are there pods of
 * its selector, not being deleted, that do not carry the sidecar? While there are, it is looked into again; once there are none it
 * is settled until its annotation changes, because the webhook lets no new pod through without a sidecar.
 */
export class Workloads {
  readonly #options: WorkloadsOptions
  readonly #reflectors: Reflector<AnnotatedWorkload>[]
  readonly #queue: WorkQueue
  /** By `kind/namespace/name`. */
  readonly #workloads = new Map<string, AnnotatedWorkload>()
  readonly #byAmbassador = new Map<string, Set<string>>()
  readonly #verdicts = new Map<string, Verdict>()

  constructor(options: WorkloadsOptions) {
    this.#options = options
    const { client, clock = systemClock, log = silentLog, onTrouble } = options
    this.#queue = new WorkQueue({
      name: 'workloads',
      clock,
      log,
      rate: { perSecond: 20, burst: 50 },
      work: (key, signal) => this.#look(key, signal),
    })
    this.#reflectors = (Object.keys(KINDS) as Plural[]).map(
      (plural) =>
        new Reflector<AnnotatedWorkload>({
          name: plural,
          client,
          clock,
          log,
          onTrouble,
          path: `/apis/apps/v1/${plural}`,
          labelSelector: KINDS[plural].labelSelector,
          transform: (object) => projectWorkload(KINDS[plural].kind, object),
          onChange: ({ key, before, after }) => this.#changed(`${KINDS[plural].kind}/${key}`, before, after),
        } satisfies ReflectorOptions<AnnotatedWorkload>),
    )
  }

  get reflectors(): readonly Reflector<AnnotatedWorkload>[] {
    return this.#reflectors
  }

  get depth(): number {
    return this.#queue.depth
  }

  start(): void {
    for (const reflector of this.#reflectors) reflector.start()
  }

  async stop(): Promise<void> {
    await Promise.all([...this.#reflectors.map((reflector) => reflector.stop()), this.#queue.shutdown()])
  }

  /** What is known for one Ambassador. `unknown`: a workload that names it was not looked into yet. */
  rolloutsOf(key: string): { readonly rollouts: readonly Rollout[]; readonly unknown: boolean } {
    const rollouts: Rollout[] = []
    let unknown = false
    const ambassador = key.slice(key.indexOf('/') + 1)
    for (const id of this.#byAmbassador.get(key) ?? []) {
      const workload = this.#workloads.get(id)!
      const pods = this.#verdicts.get(id)?.get(ambassador)
      if (pods === undefined) unknown = true
      else if (pods.length > 0) {
        rollouts.push({
          workload: `${workload.kind} '${workload.name}'`,
          pods,
          waitsForDelete: workload.waitsForDelete,
        })
      }
    }
    return { rollouts, unknown }
  }

  #changed(id: string, before: AnnotatedWorkload | undefined, after: AnnotatedWorkload | undefined): void {
    const isSame =
      before !== undefined &&
      after !== undefined &&
      before.uid === after.uid &&
      before.asks.join() === after.asks.join()
    if (!isSame) {
      this.#verdicts.delete(id)
      if (before !== undefined) this.#file(id, before, false)
      if (after !== undefined) this.#file(id, after, true)
    }
    if (after === undefined) this.#workloads.delete(id)
    else this.#workloads.set(id, after)
    if (after !== undefined && !this.#isSettled(id, after)) this.#queue.add(id)
    if (!isSame) this.#wake(before, after)
  }

  #file(id: string, { namespace, asks }: AnnotatedWorkload, isIn: boolean): void {
    for (const name of asks) {
      const key = `${namespace}/${name}`
      const ids = this.#byAmbassador.get(key) ?? new Set()
      if (isIn) ids.add(id)
      else ids.delete(id)
      if (ids.size > 0) this.#byAmbassador.set(key, ids)
      else this.#byAmbassador.delete(key)
    }
  }

  #isSettled(id: string, { asks }: AnnotatedWorkload): boolean {
    const verdict = this.#verdicts.get(id)
    return verdict !== undefined && asks.every((name) => verdict.get(name)?.length === 0)
  }

  #wake(...workloads: (AnnotatedWorkload | undefined)[]): void {
    for (const workload of workloads) {
      for (const name of workload?.asks ?? []) this.#options.wake(`${workload!.namespace}/${name}`)
    }
  }

  readonly #rounds = new Map<string, number>()

  async #look(id: string, signal: AbortSignal): Promise<number | undefined> {
    const workload = this.#workloads.get(id)
    if (workload === undefined || this.#isSettled(id, workload)) {
      this.#rounds.delete(id)
      return undefined
    }
    const verdict = await podsWithout(this.#options.client, workload, signal)
    // The workload may have changed while we asked; then it is in the queue again and this answer is to another question.
    if (this.#workloads.get(id)?.asks.join() !== workload.asks.join()) return undefined
    const before = this.#verdicts.get(id)
    this.#verdicts.set(id, verdict)
    if (!sameVerdict(before, verdict)) this.#wake(workload)
    if (this.#isSettled(id, workload)) {
      this.#rounds.delete(id)
      return undefined
    }
    const round = this.#rounds.get(id) ?? 0
    this.#rounds.set(id, round + 1)
    return Math.min(AGAIN_MS.maxMs, AGAIN_MS.initialMs * 1.5 ** round)
  }
}

/** Lists a workload's pods as metadata. At most so many names are kept of those without a sidecar. */
async function podsWithout(client: KubeClient, workload: AnnotatedWorkload, signal: AbortSignal): Promise<Verdict> {
  const without = new Map<string, string[]>(workload.asks.map((name) => [name, []]))
  let token: string | undefined
  do {
    const list: KubeList = await client.request<KubeList>({
      path: `/api/v1/namespaces/${workload.namespace}/pods`,
      query: {
        labelSelector: workload.selector,
        fieldSelector: 'status.phase!=Succeeded,status.phase!=Failed',
        limit: 500,
        continue: token,
      },
      accept: 'application/json;as=PartialObjectMetadataList;g=meta.k8s.io;v=v1',
      signal,
    })
    for (const { metadata } of list.items ?? []) {
      if (metadata.deletionTimestamp !== undefined) continue
      const has =
        metadata.labels?.[Label.injected] === 'true' ? namesIn(metadata.annotations?.[Annotation.inject] ?? '') : []
      for (const [name, pods] of without) if (!has.includes(name)) pods.push(metadata.name)
    }
    token = list.metadata.continue || undefined
  } while (token !== undefined)
  return without
}

function sameVerdict(a: Verdict | undefined, b: Verdict): boolean {
  return a !== undefined && a.size === b.size && [...a].every(([name, pods]) => b.get(name)?.join() === pods.join())
}

export function projectWorkload(kind: string, object: KubeObject): AnnotatedWorkload | undefined {
  const { metadata } = object
  const { spec = {}, status = {} } = object as Workload
  const asks = askedFor(spec.template?.metadata?.annotations)
  if (asks.length === 0 || metadata.deletionTimestamp !== undefined) return undefined
  const numbers = [
    'observedGeneration',
    'replicas',
    'updatedReplicas',
    'availableReplicas',
    'readyReplicas',
    'updatedNumberScheduled',
    'numberAvailable',
  ]
  return {
    kind,
    namespace: metadata.namespace ?? '',
    name: metadata.name,
    uid: metadata.uid,
    asks,
    selector: selectorText(spec.selector ?? {}),
    waitsForDelete: kind === NEVER_ROLLS || spec.updateStrategy?.type === 'OnDelete',
    progress: numbers.map((name) => String(status[name] ?? '')).join('/'),
  }
}

/** A LabelSelector in the words of a query. */
export function selectorText({ matchLabels = {}, matchExpressions = [] }: Selector): string {
  const parts = Object.entries(matchLabels).map(([key, value]) => `${key}=${value}`)
  for (const { key, operator, values = [] } of matchExpressions) {
    if (operator === 'Exists') parts.push(key)
    else if (operator === 'DoesNotExist') parts.push(`!${key}`)
    else parts.push(`${key} ${operator === 'In' ? 'in' : 'notin'} (${values.join(',')})`)
  }
  return parts.join(',')
}
