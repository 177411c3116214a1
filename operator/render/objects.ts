/** What is written to the cluster for an Ambassador: its ConfigMap. */
import { CONFIG_KEY, FIELD_MANAGER, GROUP, KIND, Label, VERSION } from '../../common/names.ts'
import { ambassadorLabel, configMapName } from '../../common/object-names.ts'
import { canonicalJson, type ProxyConfig } from '../../common/proxy-config.ts'
import type { Ambassador } from '../api/ambassador.ts'

export interface ConfigMap {
  readonly apiVersion: 'v1'
  readonly kind: 'ConfigMap'
  readonly metadata: {
    readonly name: string
    readonly namespace?: string
    readonly labels: Readonly<Record<string, string>>
    readonly ownerReferences?: readonly {
      readonly apiVersion: string
      readonly kind: string
      readonly name: string
      readonly uid: string
      readonly controller: true
      readonly blockOwnerDeletion: false
    }[]
  }
  readonly data: Readonly<Record<string, string>>
}

/**
 * The ConfigMap of an Ambassador, complete, for a server-side apply. It is owned by the Ambassador, so that the garbage
 * collector removes it, and has no owner when the Ambassador has no uid (outside a cluster).
 */
export function configMapOf({ metadata }: Pick<Ambassador, 'metadata'>, config: ProxyConfig): ConfigMap {
  const { name, namespace, uid } = metadata
  return {
    apiVersion: 'v1',
    kind: 'ConfigMap',
    metadata: {
      name: configMapName(name),
      ...(namespace && { namespace }),
      labels: { [Label.ambassador]: ambassadorLabel(name), [Label.managedBy]: FIELD_MANAGER },
      ...(uid && {
        ownerReferences: [
          { apiVersion: `${GROUP}/${VERSION}`, kind: KIND, name, uid, controller: true, blockOwnerDeletion: false },
        ],
      }),
    },
    data: { [CONFIG_KEY]: `${canonicalJson(config)}\n` },
  }
}
