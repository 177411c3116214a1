/** The two writes of a reconcile: the ConfigMap and the status. */
import { GROUP, KIND, PLURAL, VERSION } from '../../common/names.ts'
import type { Ambassador, AmbassadorStatus } from '../api/ambassador.ts'
import { apply } from '../kube/apply.ts'
import type { KubeClient } from '../kube/client.ts'
import { type Clock, systemClock } from '../kube/clock.ts'
import { ApiError } from '../kube/errors.ts'
import type { KubeObject } from '../kube/objects.ts'
import type { Decision } from './decide.ts'

/** Answers that another try with the same content would get again. */
const FINAL = new Set([400, 403, 413, 422])

/**
 * Writes the ConfigMap of a decision. Returns why the API server did not take it, or null when it did.
 * One that does not exist yet is written without force: should somebody else have made it in this moment, theirs stays.
 * @throws {ApiError} for what another try may mend, a conflict among it
 */
export async function publish(
  client: KubeClient,
  { object, uid }: NonNullable<Decision['configMap']>,
  signal?: AbortSignal,
): Promise<{ readonly written: KubeObject } | { readonly failure: string }> {
  const { namespace, name } = object.metadata
  try {
    const written = await apply(client, {
      path: `/api/v1/namespaces/${namespace}/configmaps/${name}`,
      object: uid === undefined ? object : { ...object, metadata: { ...object.metadata, uid } },
      onConflict: uid === undefined ? 'yield' : 'take',
      signal,
    })
    return { written }
  } catch (error) {
    if (error instanceof ApiError && FINAL.has(error.status) && !isTerminating(error)) return { failure: error.message }
    throw error
  }
}

/** Whether the namespace is being deleted: then nothing can be written and nothing needs to be. */
export function isTerminating(error: unknown): boolean {
  return (
    error instanceof ApiError && error.details?.causes?.some((each) => each.reason === 'NamespaceTerminating') === true
  )
}

export interface StatusWriterOptions {
  readonly client: KubeClient
  readonly clock?: Clock
  /** Told the API server's answer. */
  readonly observe?: (object: KubeObject) => void
}

/** One Ambassador's status is written at most once in this time. */
const MIN_INTERVAL_MS = 1000

/** Writes status by server-side apply, each object at most once a second. */
export class StatusWriter {
  readonly #options: StatusWriterOptions
  readonly #clock: Clock
  readonly #writtenAt = new Map<string, number>()

  constructor(options: StatusWriterOptions) {
    this.#options = options
    this.#clock = options.clock ?? systemClock
  }

  /** Milliseconds until this object may be written again; 0: now. */
  delay(key: string): number {
    const at = this.#writtenAt.get(key)
    if (at === undefined) return 0
    return Math.max(0, at + MIN_INTERVAL_MS - this.#clock.now())
  }

  /** @throws {ApiError} */
  async write(key: string, { metadata }: Ambassador, status: AmbassadorStatus, signal?: AbortSignal): Promise<void> {
    this.#writtenAt.set(key, this.#clock.now())
    const { name, namespace, uid } = metadata
    const answer = await apply(this.#options.client, {
      path: `/apis/${GROUP}/${VERSION}/namespaces/${namespace}/${PLURAL}/${name}/status`,
      // The uid: an Ambassador that was deleted and made again must not get the status of the old one.
      object: { apiVersion: `${GROUP}/${VERSION}`, kind: KIND, metadata: { name, namespace, uid }, status },
      onConflict: 'take',
      signal,
    })
    this.#options.observe?.(answer)
  }

  forget(key: string): void {
    this.#writtenAt.delete(key)
  }
}

/** A rolling Service must not rewrite a ConfigMap with each of its pods: at least this long between two of its changes. */
const PACE_MS = { min: 1_000, perPod: 10, max: 5_000 }

/** When the ConfigMap of each Ambassador was published last, to keep changes of endpoints apart. */
export class Pace {
  readonly #clock: Clock
  readonly #publishedAt = new Map<string, number>()

  constructor(clock: Clock) {
    this.#clock = clock
  }

  /** Milliseconds until new endpoints may be published; 0: now. More sidecars that must be touched, longer. */
  delay(key: string, pods: number): number {
    const at = this.#publishedAt.get(key)
    if (at === undefined) return 0
    const gapMs = Math.min(PACE_MS.max, Math.max(PACE_MS.min, pods * PACE_MS.perPod))
    return Math.max(0, at + gapMs - this.#clock.now())
  }

  mark(key: string): void {
    this.#publishedAt.set(key, this.#clock.now())
  }

  forget(key: string): void {
    this.#publishedAt.delete(key)
  }
}
