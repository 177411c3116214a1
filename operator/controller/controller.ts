/** Which change wakes whom: the writing half of the operator, alive while this replica leads. */
import type { RefReport } from '../../common/configz.ts'
import type { Log } from '../../common/log.ts'
import { GROUP, KIND, VERSION } from '../../common/names.ts'
import type { Ambassador } from '../api/ambassador.ts'
import type { KubeClient } from '../kube/client.ts'
import { type Clock, sleep } from '../kube/clock.ts'
import { EventRecorder } from '../kube/events.ts'
import { splitKey } from '../kube/objects.ts'
import type { Reflector } from '../kube/reflector.ts'
import type { Change } from '../kube/store.ts'
import { WorkQueue } from '../kube/workqueue.ts'
import { configMaps, type StoredConfigMap } from './config-maps.ts'
import { type FetchConfigz, Reports, type Trouble } from './configz.ts'
import { Ender } from './ender.ts'
import type { Published } from './facts.ts'
import { Fleets } from './fleets.ts'
import type { OperatorMetrics } from './metrics.ts'
import { BY_AMBASSADOR, type InjectedPod, injectedPods, type UninjectedPod, uninjectedPods } from './pods.ts'
import { type ReconcileDeps, reconcile } from './reconcile.ts'
import { RefChecker } from './secret-checks.ts'
import { Services } from './services.ts'
import { Toucher, WHILE_MISSING } from './touch.ts'
import { Workloads } from './workloads.ts'
import { Pace, StatusWriter } from './write.ts'

export interface ControllerOptions {
  /** Writes only while this replica leads; see kube/fence.ts. */
  readonly client: KubeClient
  /** Shared with the webhook, and running. */
  readonly ambassadors: Reflector<Ambassador>
  readonly subscribe: (listener: (change: Change<Ambassador>) => void) => () => void
  readonly clock: Clock
  readonly log: Log
  readonly metrics: OperatorMetrics
  /** Name of this process, in Events. */
  readonly instance: string
  /** Image of the sidecars that are injected now; null: versions are not compared. */
  readonly proxyImage: string | null
  /** Namespaces in which Secrets may be read. */
  readonly secretChecks: ReadonlySet<string>
  /** How sidecars are asked. Default: HTTP to their address. */
  readonly fetch?: FetchConfigz
}

/** Changes of pods and reports come in swarms; an Ambassador is looked at this long after the first of them. */
const GATHER_MS = 100

/** A step of a rollout takes one pod away and brings another: this long after the first of them, both are published at once. */
const SETTLE_MS = 200

/** Every Ambassador is looked at once in this time, whether or not anything was seen to change. */
const RESYNC_MS = 600_000

export class Controller {
  readonly #options: ControllerOptions
  readonly #log: Log
  readonly #queue: WorkQueue
  readonly #injected: Reflector<InjectedPod>
  readonly #uninjected: Reflector<UninjectedPod>
  readonly #configMaps: Reflector<StoredConfigMap>
  readonly #workloads: Workloads
  readonly #services: Services
  readonly #reports: Reports
  readonly #toucher: Toucher
  /** Touches pods that wait for somebody else. */
  readonly #patientToucher: Toucher
  readonly #ender: Ender
  readonly #statusWriter: StatusWriter
  readonly #events: EventRecorder
  readonly #deps: ReconcileDeps
  /** What the sidecars of each Ambassador should have in force. */
  readonly #published = new Map<string, Published>()

  constructor(options: ControllerOptions) {
    this.#options = options
    const { client, clock, log, metrics } = options
    this.#log = log
    const watched = (name: string) => ({
      client,
      clock,
      log,
      onTrouble: (reason: string) => metrics.watchErrors.inc({ resource: name, reason }),
    })
    this.#queue = new WorkQueue({
      name: 'reconcile',
      clock,
      log,
      concurrency: 8,
      rate: { perSecond: 200, burst: 500 },
      work: (key, signal) => this.#reconcile(key, signal),
      observe: (result, durationMs) => {
        metrics.reconciles.inc({ result })
        metrics.reconcileDuration.observe(durationMs / 1000)
      },
    })
    this.#injected = injectedPods({ ...watched('pods-injected'), onChange: (change) => this.#injectedChanged(change) })
    this.#uninjected = uninjectedPods({
      ...watched('pods-uninjected'),
      onChange: (change) => this.#uninjectedChanged(change),
    })
    this.#configMaps = configMaps({ ...watched('configmaps'), onChange: (change) => this.#configMapChanged(change) })
    this.#workloads = new Workloads({ ...watched('workloads'), wake: (key) => this.#queue.addAfter(key, GATHER_MS) })
    this.#services = new Services({ ...watched('services'), wake: (key) => this.#queue.addAfter(key, SETTLE_MS) })
    const pod = (key: string): InjectedPod | undefined => this.#injected.store.get(key)
    this.#reports = new Reports({
      clock,
      log,
      pod,
      podCount: () => this.#injected.store.size,
      isSettled: (each) => this.#isSettled(each),
      onReport: (each) => this.#reported(each),
      onTrouble: (trouble) => this.#troubled(trouble),
      ...(options.fetch === undefined ? {} : { fetch: options.fetch }),
    })
    const onTouch = (key: string): void => {
      metrics.touches.inc()
      this.#reports.hurry(key, 150)
    }
    this.#toucher = new Toucher({
      client,
      clock,
      log,
      pod,
      onTouch,
      lacking: (each) => this.#lagging(each),
    })
    this.#patientToucher = new Toucher({
      client,
      clock,
      log,
      pod,
      onTouch,
      lacking: (each) => this.#waiting(each),
      pace: WHILE_MISSING,
    })
    this.#ender = new Ender({ client, clock, log, pod })
    this.#statusWriter = new StatusWriter({
      client,
      clock,
      observe: (object) => {
        metrics.statusWrites.inc()
        options.ambassadors.observe(object)
      },
    })
    this.#events = new EventRecorder({
      client,
      clock,
      log,
      instance: options.instance,
      observe: (result) => metrics.events.inc({ result }),
    })
    this.#deps = {
      client,
      clock,
      ambassadors: options.ambassadors.store,
      configMaps: this.#configMaps.store,
      injected: this.#injected.store,
      uninjected: this.#uninjected.store,
      reports: this.#reports,
      workloads: this.#workloads,
      services: this.#services,
      pace: new Pace(clock),
      fleets: new Fleets(clock),
      refChecker: new RefChecker({ client, clock, log, namespaces: options.secretChecks }),
      proxyImage: options.proxyImage,
      statusWriter: this.#statusWriter,
      events: this.#events,
      onPublished: (key, published) => this.#setPublished(key, published),
      onConfigMap: (object) => {
        metrics.publishes.inc()
        this.#configMaps.observe(object)
      },
    }
  }

  get reflectors(): readonly Pick<Reflector<unknown>, 'name' | 'stalenessSeconds' | 'isSynced'>[] {
    return [this.#injected, this.#uninjected, this.#configMaps, ...this.#workloads.reflectors]
  }

  /** Depths of all queues by name. */
  queues(): readonly (readonly [string, number])[] {
    return [
      ['reconcile', this.#queue.depth],
      ['configz', this.#reports.depth],
      ['touch', this.#toucher.depth],
      ['touch-missing', this.#patientToucher.depth],
      ['end', this.#ender.depth],
      ['workloads', this.#workloads.depth],
    ]
  }

  /** Works until the signal aborts, and returns when nothing of it runs any more. */
  async run(signal: AbortSignal): Promise<void> {
    const reflectors = [this.#injected, this.#uninjected, this.#configMaps]
    for (const reflector of reflectors) reflector.start()
    this.#workloads.start()
    const unsubscribe = this.#options.subscribe(({ key }) => {
      // Before the first complete look everything would seem absent: pods, ConfigMaps, workloads.
      if (this.#isSynced) this.#queue.add(key)
    })
    try {
      await this.#synced(signal)
      if (!signal.aborted) {
        this.#log.info({ count: this.#options.ambassadors.store.size }, 'controller synced')
        await this.#resync(signal)
      }
    } finally {
      unsubscribe()
      await this.#queue.shutdown()
      await Promise.all([
        this.#reports.stop(),
        this.#toucher.stop(),
        this.#patientToucher.stop(),
        this.#ender.stop(),
        this.#workloads.stop(),
        this.#services.stop(),
        ...reflectors.map((reflector) => reflector.stop()),
      ])
      await this.#events.settled()
    }
  }

  get #isSynced(): boolean {
    return this.#options.ambassadors.isSynced && this.reflectors.every((reflector) => reflector.isSynced)
  }

  async #synced(signal: AbortSignal): Promise<void> {
    const all = [
      this.#options.ambassadors,
      this.#injected,
      this.#uninjected,
      this.#configMaps,
      ...this.#workloads.reflectors,
    ]
    const aborted = new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve(), { once: true }))
    if (!signal.aborted) await Promise.race([Promise.all(all.map((reflector) => reflector.synced())), aborted])
  }

  /** Looks at every Ambassador at once, then again and again, spread over the time. */
  async #resync(signal: AbortSignal): Promise<void> {
    for (const key of this.#options.ambassadors.store.keys()) this.#queue.add(key)
    while (await sleep(this.#options.clock, RESYNC_MS, signal)) {
      let at = 0
      const stepMs = RESYNC_MS / 2 / Math.max(1, this.#options.ambassadors.store.size)
      for (const key of this.#options.ambassadors.store.keys()) this.#queue.addAfter(key, (at += stepMs))
    }
  }

  async #reconcile(key: string, signal: AbortSignal): Promise<number | undefined> {
    return reconcile(key, this.#deps, signal)
  }

  #setPublished(key: string, published: Published | null): void {
    if (published === null) {
      this.#published.delete(key)
      return
    }
    const before = this.#published.get(key)
    this.#published.set(key, published)
    if (before !== undefined && versionOf(before) === versionOf(published)) return
    for (const pod of this.#injected.store.byIndex(BY_AMBASSADOR, key)) this.#considerTouch(keyOfPod(pod))
  }

  #considerTouch(key: string): void {
    this.#toucher.consider(key)
    this.#patientToucher.consider(key)
  }

  /** The hash that this pod should load and has not; undefined when it is fine, not known, or when a touch cannot help. */
  #lagging(pod: InjectedPod): string | undefined {
    const key = keyOfPod(pod)
    for (const name of pod.serves) {
      const published = this.#published.get(`${pod.namespace}/${name}`)
      if (published === undefined) continue
      const report = this.#reports.of(key, pod, name)
      const version = versionOf(published)
      // A sidecar that does not answer gets one touch, in case it listens to its kubelet all the same.
      if (report.kind === 'silent' && !pod.touched.startsWith(version)) return version
      if (report.kind !== 'answered') continue
      const state = report.ambassador
      const hasRead = state?.hash === published.hash || state?.rejected?.hash === published.hash
      // Endpoints are taken over even from a config that cannot be put in force; null: the sidecar is too old to know of them.
      const isBehind = state != null && state.endpointsHash !== null && state.endpointsHash !== published.endpointsHash
      if (hasRead && !isBehind) continue
      return version
    }
    return undefined
  }

  /** The hash that was published for this pod when its sidecar waits for a Secret or a ConfigMap that is missing or cannot be used. */
  #waiting(pod: InjectedPod): string | undefined {
    const key = keyOfPod(pod)
    for (const name of pod.serves) {
      const published = this.#published.get(`${pod.namespace}/${name}`)
      const report = this.#reports.of(key, pod, name)
      if (published === undefined || report.kind !== 'answered') continue
      if (report.ambassador?.refs.some(isMendable)) return versionOf(published)
    }
    return undefined
  }

  /** Whether its sidecar has everything in force and has read everything; otherwise it is asked again soon. */
  #isSettled(pod: InjectedPod): boolean {
    const key = keyOfPod(pod)
    return pod.serves.every((name) => {
      const published = this.#published.get(`${pod.namespace}/${name}`)
      const report = this.#reports.of(key, pod, name)
      if (published === undefined || report.kind !== 'answered') return true
      const { ambassador: state } = report
      if (state?.endpointsHash !== published.endpointsHash) return false
      return state?.hash === published.hash && state.refs.every((ref) => ref.state === 'Found')
    })
  }

  #injectedChanged({ key, before, after }: Change<InjectedPod>): void {
    const isFirst = !this.#injected.isSynced
    this.#reports.podChanged(key, before, after, isFirst)
    if (after === undefined) {
      this.#toucher.forget(key)
      this.#patientToucher.forget(key)
    }
    this.#ender.consider(key)
    if (isFirst || !this.#isSynced) return
    for (const name of new Set([...namesOf(before), ...namesOf(after)])) {
      this.#queue.addAfter(`${splitKey(key).namespace}/${name}`, GATHER_MS)
    }
  }

  #uninjectedChanged({ key, before, after }: Change<UninjectedPod>): void {
    if (!this.#isSynced) return
    for (const name of new Set([...(before?.asks ?? []), ...(after?.asks ?? [])])) {
      this.#queue.addAfter(`${splitKey(key).namespace}/${name}`, GATHER_MS)
    }
  }

  #configMapChanged({ key, before, after }: Change<StoredConfigMap>): void {
    if (!this.#isSynced) return
    const { namespace } = splitKey(key)
    for (const name of new Set([before?.owner, after?.owner])) if (name) this.#queue.add(`${namespace}/${name}`)
  }

  #reported(pod: InjectedPod): void {
    this.#considerTouch(keyOfPod(pod))
    if (!this.#isSynced) return
    for (const name of pod.serves) this.#queue.addAfter(`${pod.namespace}/${name}`, GATHER_MS)
  }

  #troubled({ namespace, ambassador, reason, message }: Trouble): void {
    const uid = this.#options.ambassadors.store.get(`${namespace}/${ambassador}`)?.metadata.uid
    if (uid === undefined) return
    // Without the pod's name: a hundred pods with one trouble are one Event with a count.
    this.#events.record(
      { apiVersion: `${GROUP}/${VERSION}`, kind: KIND, namespace, name: ambassador, uid },
      { type: 'Warning', reason: 'Trouble', action: 'Serve', message: `a sidecar reports ${reason}: ${message}` },
    )
  }
}

/** Of everything that a sidecar should have read. */
function versionOf({ hash, endpointsHash }: Published): string {
  return endpointsHash === null ? hash : `${hash}-${endpointsHash}`
}

/** Whether it is in what the pod mounts, and a change of that object would mend it. */
function isMendable({ ref, state }: RefReport): boolean {
  return (state === 'Missing' || state === 'Invalid') && (ref.kind === 'secret' || ref.kind === 'configMap')
}

function keyOfPod({ namespace, name }: InjectedPod): string {
  return `${namespace}/${name}`
}

function namesOf(pod: InjectedPod | undefined): readonly string[] {
  return pod === undefined ? [] : [...pod.serves, ...pod.lacks]
}
