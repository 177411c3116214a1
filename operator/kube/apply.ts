/** Writes: server-side apply under one field manager, and small merge patches. */
import { FIELD_MANAGER } from '../../common/names.ts'
import type { KubeClient } from './client.ts'
import type { KubeObject } from './objects.ts'

/**
 * What happens to fields that somebody else owns:
 * - take: they become ours (an object that is ours, edited by hand)
 * - yield: nothing is written and the API server answers 409 Conflict (an object that may not be ours)
 */
export type ConflictPolicy = 'take' | 'yield'

export interface ApplyOptions {
  /** Path of the object, or of its status. */
  readonly path: string
  /** apiVersion, kind, metadata.name and the fields that we own. A `metadata.uid` makes it conditional: another object of that name is not touched (409). */
  readonly object: unknown
  readonly onConflict: ConflictPolicy
  readonly signal?: AbortSignal
}

/** Server-side apply. Creates the object when it does not exist (unless a uid is given). @throws {ApiError} */
export function apply(client: KubeClient, options: ApplyOptions): Promise<KubeObject> {
  return client.request<KubeObject>({
    method: 'PATCH',
    path: options.path,
    query: { fieldManager: FIELD_MANAGER, force: options.onConflict === 'take' },
    contentType: 'application/apply-patch+yaml', // JSON is YAML
    body: options.object,
    signal: options.signal,
  })
}

/** Merge patch: null removes. @throws {ApiError} */
export function mergePatch(
  client: KubeClient,
  options: {
    readonly path: string
    readonly patch: unknown
    readonly signal?: AbortSignal
    readonly metadataOnly?: boolean
  },
): Promise<KubeObject> {
  return client.request<KubeObject>({
    method: 'PATCH',
    path: options.path,
    query: { fieldManager: FIELD_MANAGER },
    contentType: 'application/merge-patch+json',
    // The answer of a patch is the whole object, which nobody reads.
    accept: options.metadataOnly === true ? 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1' : undefined,
    body: options.patch,
    signal: options.signal,
  })
}
