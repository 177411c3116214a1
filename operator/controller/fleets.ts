/** How many sidecars an Ambassador is told to have, where its limits are shared: more of them at once, fewer only when it lasts. */
import type { Clock } from '../kube/clock.ts'
import type { World } from './world.ts'

/**
 * A step of a rollout takes a pod away and brings another. Told of each, every sidecar would be written to twice a pod; told late of
 * one that is gone, the others send a little less than they may.
 */
export const SHRINK_MS = 30_000

export interface FleetSize {
  readonly sidecars: number
  /** Look again after so many milliseconds: then it may be fewer. Null: nothing is pending. */
  readonly againMs: number | null
}

/** Since when there have been fewer than what is published, per Ambassador; an operator that starts begins to wait anew. */
export class Fleets {
  readonly #clock: Clock
  readonly #fewerSince = new Map<string, number>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** What to publish: of the sidecars that run, and of what is published now. */
  sizeOf(key: string, { pods, configMap }: Pick<World, 'pods' | 'configMap'>): FleetSize {
    const running = Math.max(1, pods.filter(({ isRunning }) => isRunning).length)
    const published = configMap.kind === 'ours' ? configMap.sidecars : null
    if (published === null || running >= published) {
      this.#fewerSince.delete(key)
      return { sidecars: running, againMs: null }
    }
    const since = this.#fewerSince.get(key) ?? this.#clock.now()
    this.#fewerSince.set(key, since)
    const againMs = since + SHRINK_MS - this.#clock.now()
    return againMs > 0 ? { sidecars: published, againMs } : { sidecars: running, againMs: null }
  }

  forget(key: string): void {
    this.#fewerSince.delete(key)
  }
}
