/**
 * Touches injected pods after a publish, so that their kubelets read the ConfigMap at once: a kubelet looks at a pod's volumes
 * when the pod object changes, and otherwise every minute or so. Touched again until the sidecar has the newest config.
 */
import { type Log, silentLog } from '../../common/log.ts'
import { Annotation } from '../../common/names.ts'
import { mergePatch } from '../kube/apply.ts'
import { backoffMs } from '../kube/backoff.ts'
import type { KubeClient } from '../kube/client.ts'
import { type Clock, systemClock } from '../kube/clock.ts'
import { hasStatus } from '../kube/errors.ts'
import type { Rate } from '../kube/token-bucket.ts'
import { WorkQueue } from '../kube/workqueue.ts'
import type { InjectedPod } from './pods.ts'

export interface ToucherOptions {
  readonly client: KubeClient
  readonly pod: (key: string) => InjectedPod | undefined
  /** Hash that a pod should load and has not, or undefined when it is fine or a touch cannot help. */
  readonly lagging: (pod: InjectedPod) => string | undefined
  /** Told after each touch. */
  readonly onTouch?: (key: string) => void
  /** Default 20 a second, burst 40. */
  readonly rate?: Rate
  readonly clock?: Clock
  readonly random?: () => number
  readonly log?: Log
}

/** Between touches of one pod for one hash: its kubelet may have read the ConfigMap just before its own watch told it of the new one. */
const AGAIN = { initialMs: 800, maxMs: 60_000 }

interface Touched {
  readonly hash: string
  count: number
  /** Not before this time, by the clock. */
  notBefore: number
}

export class Toucher {
  readonly #options: ToucherOptions
  readonly #clock: Clock
  readonly #queue: WorkQueue
  readonly #touched = new Map<string, Touched>()

  constructor(options: ToucherOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
    this.#queue = new WorkQueue({
      name: 'touch',
      clock: this.#clock,
      log: options.log ?? silentLog,
      concurrency: 8,
      rate: options.rate ?? { perSecond: 20, burst: 40 },
      work: (key, signal) => this.#touch(key, signal),
    })
  }

  get depth(): number {
    return this.#queue.depth
  }

  /** Touches this pod if it needs it and was not touched for the same reason a moment ago. Cheap when it does not. */
  consider(key: string): void {
    const pod = this.#options.pod(key)
    const hash = pod === undefined ? undefined : this.#options.lagging(pod)
    if (hash === undefined) {
      this.#touched.delete(key)
      return
    }
    const touched = this.#touched.get(key)
    if (touched?.hash === hash && this.#clock.now() < touched.notBefore) return
    this.#queue.add(key)
  }

  forget(key: string): void {
    this.#touched.delete(key)
  }

  async stop(): Promise<void> {
    await this.#queue.shutdown()
  }

  async #touch(key: string, signal: AbortSignal): Promise<number | undefined> {
    const pod = this.#options.pod(key)
    const hash = pod === undefined ? undefined : this.#options.lagging(pod)
    if (pod === undefined || hash === undefined) {
      this.#touched.delete(key)
      return undefined
    }
    let touched = this.#touched.get(key)
    if (touched?.hash !== hash) this.#touched.set(key, (touched = { hash, count: 0, notBefore: 0 }))
    touched.count++
    const waitMs = backoffMs(touched.count, { ...AGAIN, random: this.#options.random })
    touched.notBefore = this.#clock.now() + waitMs
    // A value that is there already would be no change, and no change wakes no kubelet. The predecessor may have written `hash.n` too.
    const first = touched.count === 1 && !pod.touched.startsWith(hash)
    const value = first ? hash : `${hash}.${this.#clock.wall().toString(36)}`
    try {
      await mergePatch(this.#options.client, {
        path: `/api/v1/namespaces/${pod.namespace}/pods/${pod.name}`,
        patch: { metadata: { annotations: { [Annotation.touched]: value } } },
        metadataOnly: true,
        signal,
      })
    } catch (error) {
      if (!hasStatus(error, 404)) throw error
      this.#touched.delete(key)
      return undefined
    }
    this.#options.onTouch?.(key)
    return waitMs
  }
}
