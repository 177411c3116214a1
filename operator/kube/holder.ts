/** Whether the replica that holds a lease still exists: its identity begins with the name of its pod. */
import type { KubeClient } from './client.ts'
import { hasStatus } from './errors.ts'

/** What is between the name of a pod, which has none of these, and the random rest of an identity. */
export const IDENTITY_SEPARATOR = '_'

export interface HolderOptions {
  readonly client: KubeClient
  /** Of the pods and the lease. */
  readonly namespace: string
  /** Name of our own pod. When there is no such pod, replicas are not pods, and nothing is known of any. */
  readonly ownPod: string
}

/**
 * True when the pod of an identity does not exist. Its processes have ended by then: a kubelet removes the object of a pod after
 * the last container. (A pod that was deleted by force may run on; then its next renewal of the lease fails with a conflict.)
 */
export async function isHolderGone(
  { client, namespace, ownPod }: HolderOptions,
  identity: string,
  signal: AbortSignal,
): Promise<boolean> {
  const exists = async (name: string): Promise<boolean> => {
    try {
      await client.request({
        path: `/api/v1/namespaces/${namespace}/pods/${encodeURIComponent(name)}`,
        accept: 'application/json;as=PartialObjectMetadata;g=meta.k8s.io;v=v1',
        signal,
      })
      return true
    } catch (error) {
      if (hasStatus(error, 404)) return false
      throw error
    }
  }
  const at = identity.lastIndexOf(IDENTITY_SEPARATOR)
  if (at <= 0) return false
  return !(await exists(identity.slice(0, at))) && (await exists(ownPod))
}
