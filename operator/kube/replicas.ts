/** The number of the operator's own replicas, which no manifest sets. */
import { FIELD_MANAGER } from '../../common/names.ts'
import { apply } from './apply.ts'
import type { KubeClient } from './client.ts'
import { hasStatus } from './errors.ts'
import type { KubeObject, ManagedField } from './objects.ts'

/** Lost races against other writers of the Deployment (its status changes often in a rollout). */
const MAX_TRIES = 5

/**
 * Scales a Deployment, unless somebody else (a person's `kubectl scale`, an autoscaler) has set its number: then theirs stands.
 * The chart leaves `replicas` out, since Helm 4 would own the field and be in conflict with whoever scales
 * (docs/adr/0004-own-replicas.md).
 * @returns whether the number is ours
 * @throws {ApiError} when the API server does not let us
 */
export async function keepReplicas(
  client: KubeClient,
  target: { readonly namespace: string; readonly deployment: string; readonly replicas: number },
): Promise<boolean> {
  const { namespace, deployment, replicas } = target
  const path = `/apis/apps/v1/namespaces/${namespace}/deployments/${deployment}`
  for (let tries = 1; ; tries++) {
    const { metadata } = await client.request<KubeObject>({ path })
    if (metadata.managedFields?.some((field) => field.manager !== FIELD_MANAGER && setsReplicas(field))) return false
    try {
      await apply(client, {
        path: `${path}/scale`,
        object: {
          apiVersion: 'autoscaling/v1',
          kind: 'Scale',
          // Of what was read: whoever scales meanwhile wins.
          metadata: { name: deployment, namespace, resourceVersion: metadata.resourceVersion },
          spec: { replicas },
        },
        onConflict: 'take', // from "before-first-apply", whom the API server names for a number that nobody has set
      })
      return true
    } catch (error) {
      if (tries === MAX_TRIES || !hasStatus(error, 409)) throw error
    }
  }
}

const setsReplicas = (field: ManagedField & { readonly fieldsV1?: { readonly 'f:spec'?: object } }): boolean =>
  'f:replicas' in (field.fieldsV1?.['f:spec'] ?? {})
