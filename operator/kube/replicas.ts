/** The number of the operator's own replicas, which nobody's manifest sets. */
import { apply } from './apply.ts'
import type { KubeClient } from './client.ts'
import { hasStatus } from './errors.ts'

/**
 * Scales a Deployment, unless somebody else (a person's `kubectl scale`, an autoscaler) has set another number: then theirs
 * stands. The chart leaves `replicas` out, since Helm 4 would own the field and be in conflict with whoever scales
 * (docs/adr/0020-replicas.md).
 * @returns whether the Deployment has our number now
 * @throws {ApiError} when the API server cannot be asked
 */
export async function keepReplicas(
  client: KubeClient,
  target: { readonly namespace: string; readonly deployment: string; readonly replicas: number },
): Promise<boolean> {
  const { namespace, deployment, replicas } = target
  try {
    await apply(client, {
      path: `/apis/apps/v1/namespaces/${namespace}/deployments/${deployment}/scale`,
      object: {
        apiVersion: 'autoscaling/v1',
        kind: 'Scale',
        metadata: { name: deployment, namespace },
        spec: { replicas },
      },
      onConflict: 'yield',
    })
    return true
  } catch (error) {
    if (hasStatus(error, 409)) return false
    throw error
  }
}
