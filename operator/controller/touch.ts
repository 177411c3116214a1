/**
 * Touches injected pods, so that their kubelets look at what the pods mount: a kubelet looks when the pod object changes, and otherwise
 * every minute or so. After a publish at once, and again until the sidecar has it; more slowly while a sidecar waits for a Secret or a
 * ConfigMap that somebody else has to make or to mend.
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
  /** Hash of what was published for a pod that lacks something, or undefined when it lacks nothing or a touch cannot help. */
  readonly lacking: (pod: InjectedPod) => string | undefined
  /** Told after each touch. */
  readonly onTouch?: (key: string) => void
  /** Default AFTER_PUBLISH. */
  readonly pace?: TouchPace
  readonly clock?: Clock
  readonly random?: () => number
  readonly log?: Log
}

/** When a pod is touched for what it lacks. */
export interface TouchPace {
  /** Of the queue. */
  readonly name: string
  /** Before the first touch. */
  readonly firstMs: number
  /** From one touch to the next, after `count` of them, when the pod has lacked it for `forMs`. */
  readonly againMs: (count: number, forMs: number, random?: () => number) => number
  /** Over all pods. */
  readonly rate: Rate
}

/** A kubelet may have read the ConfigMap just before its own watch told it of the new one. */
const AFTER_PUBLISH: TouchPace = {
  name: 'touch',
  firstMs: 0,
  againMs: (count, _, random) => backoffMs(count, { initialMs: 800, maxMs: 60_000, random }),
  rate: { perSecond: 20, burst: 40 },
}

/**
 * Nobody tells the operator of a Secret: it may not read them. So whoever has waited for one waits at most a quarter of that time
 * longer, within these bounds; the upper one is about how often a kubelet looks by itself. The rate is its own, so that a thousand
 * pods that wait keep no publish from anybody.
 */
export const WHILE_MISSING: TouchPace = {
  name: 'touch-missing',
  firstMs: 5_000,
  againMs: (_, forMs) => Math.min(60_000, Math.max(5_000, forMs / 4)),
  rate: { perSecond: 5, burst: 10 },
}

interface Touched {
  readonly hash: string
  readonly since: number
  count: number
  /** Not before this time, by the clock. */
  notBefore: number
}

export class Toucher {
  readonly #options: ToucherOptions
  readonly #pace: TouchPace
  readonly #clock: Clock
  readonly #queue: WorkQueue
  readonly #touched = new Map<string, Touched>()

  constructor(options: ToucherOptions) {
    this.#options = options
    this.#pace = options.pace ?? AFTER_PUBLISH
    this.#clock = options.clock ?? systemClock
    this.#queue = new WorkQueue({
      name: this.#pace.name,
      clock: this.#clock,
      log: options.log ?? silentLog,
      concurrency: 8,
      rate: this.#pace.rate,
      work: (key, signal) => this.#touch(key, signal),
    })
  }

  get depth(): number {
    return this.#queue.depth
  }

  /** Touches this pod when it is time, if it needs it and was not touched for the same reason a moment ago. Cheap when it does not. */
  consider(key: string): void {
    const touched = this.#lackOf(key)
    if (touched !== undefined) this.#queue.addAfter(key, touched.notBefore - this.#clock.now())
  }

  forget(key: string): void {
    this.#touched.delete(key)
  }

  async stop(): Promise<void> {
    await this.#queue.shutdown()
  }

  /** What is known of the touches for what this pod lacks now; undefined: it lacks nothing. */
  #lackOf(key: string): Touched | undefined {
    const pod = this.#options.pod(key)
    const hash = pod === undefined ? undefined : this.#options.lacking(pod)
    if (hash === undefined) {
      this.#touched.delete(key)
      return undefined
    }
    const known = this.#touched.get(key)
    if (known?.hash === hash) return known
    const since = this.#clock.now()
    const touched = { hash, since, count: 0, notBefore: since + this.#pace.firstMs }
    this.#touched.set(key, touched)
    return touched
  }

  async #touch(key: string, signal: AbortSignal): Promise<number | undefined> {
    const touched = this.#lackOf(key)
    const pod = this.#options.pod(key)
    if (touched === undefined || pod === undefined) return undefined
    const { hash, since } = touched
    const now = this.#clock.now()
    // It lacks something else by now, for which it is not time yet.
    if (touched.count === 0 && now < touched.notBefore) return touched.notBefore - now
    touched.count++
    const waitMs = this.#pace.againMs(touched.count, now - since, this.#options.random)
    touched.notBefore = now + waitMs
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
