/** Names that mean an Ambassador inside the pod: lines of the pod's hosts file. */
import { Annotation } from '../../common/names.ts'
import type { InjectableAmbassador } from './ambassador.ts'
import { asList, type JsonObject, objectsOf } from './json.ts'
import { type Denial, deny } from './reasons.ts'

/** The address of a sidecar, as the hosts file has it. */
export const LOOPBACK = '127.0.0.1'

export interface Hostnames {
  readonly kind: 'hostnames'
  /** To be added, in the order of the annotation and of each Ambassador. */
  readonly names: readonly string[]
}

/** The names to add to the pod, or the first that cannot be: claimed twice, or mapped elsewhere by the pod itself. */
export function hostnamesOf(spec: JsonObject, ambassadors: readonly InjectableAmbassador[]): Hostnames | Denial {
  const mapped = new Map<string, string>()
  for (const alias of objectsOf(spec['hostAliases'])) {
    for (const name of asList(alias['hostnames'])) {
      // The first line of a hosts file wins; one that is ours already may stand anywhere before another.
      if (typeof name === 'string' && !mapped.has(name.toLowerCase()))
        mapped.set(name.toLowerCase(), String(alias['ip']))
    }
  }
  const owners = new Map<string, string>()
  for (const ambassador of ambassadors) {
    for (const name of ambassador.hostnames) {
      const other = owners.get(name)
      if (other === ambassador.name) continue
      if (other !== undefined) {
        return deny(
          'HostnameConflict',
          `${Annotation.inject}: Ambassadors "${other}" and "${ambassador.name}" both claim the hostname "${name}"; take it out of spec.listen.hostnames of one of them`,
        )
      }
      const address = mapped.get(name)
      if (address !== undefined && address !== LOOPBACK) {
        return deny(
          'HostnameConflict',
          `${Annotation.inject}: Ambassador "${ambassador.name}" claims the hostname "${name}", which the pod's hostAliases map to ${address}; remove one of the two`,
        )
      }
      owners.set(name, ambassador.name)
    }
  }
  return { kind: 'hostnames', names: [...owners.keys()].filter((name) => !mapped.has(name)) }
}
