/**
 * Ends pods that would never end: where sidecars are ordinary containers, the pod of a Job goes on after its own container is done.
 * The pod is annotated, its kubelet writes that into a file of the sidecar within a second, and the sidecar stops with code 0.
 */
import { type Log, silentLog } from '../../common/log.ts'
import { Annotation } from '../../common/names.ts'
import { mergePatch } from '../kube/apply.ts'
import type { KubeClient } from '../kube/client.ts'
import { type Clock, systemClock } from '../kube/clock.ts'
import { hasStatus } from '../kube/errors.ts'
import { splitKey } from '../kube/objects.ts'
import { WorkQueue } from '../kube/workqueue.ts'
import type { InjectedPod } from './pods.ts'

export interface EnderOptions {
  readonly client: KubeClient
  readonly pod: (key: string) => InjectedPod | undefined
  readonly clock?: Clock
  readonly log?: Log
}

export class Ender {
  readonly #options: EnderOptions
  readonly #queue: WorkQueue

  constructor(options: EnderOptions) {
    this.#options = options
    this.#queue = new WorkQueue({
      name: 'end',
      clock: options.clock ?? systemClock,
      log: options.log ?? silentLog,
      concurrency: 4,
      rate: { perSecond: 20, burst: 40 },
      work: (key, signal) => this.#end(key, signal),
    })
  }

  get depth(): number {
    return this.#queue.depth
  }

  /** Has the sidecar of this pod end if nothing else of it runs. Cheap when something does. */
  consider(key: string): void {
    if (this.#options.pod(key)?.isLeftAlone === true) this.#queue.add(key)
  }

  async stop(): Promise<void> {
    await this.#queue.shutdown()
  }

  async #end(key: string, signal: AbortSignal): Promise<undefined> {
    if (this.#options.pod(key)?.isLeftAlone !== true) return undefined
    const { namespace, name } = splitKey(key)
    const at = new Date((this.#options.clock ?? systemClock).wall()).toISOString()
    try {
      await mergePatch(this.#options.client, {
        path: `/api/v1/namespaces/${namespace}/pods/${name}`,
        patch: { metadata: { annotations: { [Annotation.applicationEnded]: at } } },
        metadataOnly: true,
        signal,
      })
    } catch (error) {
      if (!hasStatus(error, 404)) throw error
    }
    return undefined
  }
}
