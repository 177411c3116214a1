/** What the operator tells about an Ambassador. */
import { z } from 'zod'
import { doc } from '../../common/schema-kit.ts'
import { CONDITION_TYPES } from './conditions.ts'

const count = (text: string) => doc(z.int32().min(0), text).optional()
const text = (max: number, description: string) => doc(z.string().max(max), description).optional()

const condition = z.object({
  type: doc(z.string().max(64), `One of ${CONDITION_TYPES.join(', ')}.`),
  status: doc(z.enum(['True', 'False', 'Unknown']), 'Whether it holds.'),
  observedGeneration: doc(z.int().min(0), 'Generation of the Ambassador that this is about.').optional(),
  lastTransitionTime: doc(z.string().max(64).meta({ format: 'date-time' }), 'When status changed last.'),
  reason: doc(z.string().max(128), 'One word that says why; see the list of reasons.'),
  message: doc(z.string().max(4096), 'The same for a person: the field, pod or object, what is wrong and the remedy.'),
})

const versions = z.object({
  image: doc(z.string().max(512), 'Image of the sidecar.'),
  configHash: doc(
    z.string().max(64),
    'Content hash of the configuration in force; empty when none is or it is not known.',
  ),
  pods: doc(z.int32().min(0), 'Pods that run this.'),
})

const missing = z.object({
  pod: doc(z.string().max(253), 'Name of the pod.'),
  reason: doc(z.string().max(1024), 'Why it has no sidecar.'),
})

const list = <T extends z.ZodType>(items: T, max: number, description: string, ...keys: string[]) =>
  doc(
    z
      .array(items)
      .max(max)
      .meta(
        keys.length > 0
          ? { 'x-kubernetes-list-type': 'map', 'x-kubernetes-list-map-keys': keys }
          : { 'x-kubernetes-list-type': 'atomic' },
      ),
    description,
  ).optional()

export const ambassadorStatus = z.object({
  observedGeneration: doc(z.int().min(0), 'Newest generation that the operator has looked at.').optional(),
  conditions: list(condition, 16, 'The state, one question each.', 'type'),
  config: doc(
    z.object({
      hash: text(64, 'Content hash of the newest configuration that was published.'),
      configMapName: text(253, 'ConfigMap that holds it.'),
      generation: doc(z.int().min(0), 'Generation of the Ambassador that it was rendered from.').optional(),
    }),
    'The newest configuration that was published.',
  ).optional(),
  pods: doc(
    z.object({
      injected: count('Running pods that carry a sidecar for this Ambassador.'),
      ready: count('Of those, pods whose sidecar is ready.'),
      current: count('Of those, pods whose sidecar reports the newest configuration.'),
      missing: count('Running pods that ask for this Ambassador and have no sidecar.'),
    }),
    'Counts of pods.',
  ).optional(),
  versions: list(versions, 10, 'What runs, most pods first; at most 10.'),
  missing: list(missing, 10, 'Pods that ask for this Ambassador and have no sidecar; at most 10.'),
  summary: doc(
    z.object({
      pods: text(32, 'Pods as `ready/injected`.'),
      upstream: text(256, 'Where the traffic goes, in short.'),
      version: text(128, 'Version of the sidecars, or several with a comma.'),
    }),
    'Texts for the columns of `kubectl get`.',
  ).optional(),
})

export type AmbassadorStatus = z.infer<typeof ambassadorStatus>
