/** Where the sidecar listens for the application. */
import type { ProxyConfig } from '../../common/proxy-config.ts'
import type { DefaultedSpec } from '../api/ambassador.ts'

/** The listener of a spec. Host names are the webhook's: they are entries of the pod's /etc/hosts, nothing that the proxy sees. */
export function listener(spec: DefaultedSpec): ProxyConfig['listener'] {
  const { port, unix } = spec.listen
  return { port, ...(unix && { unix: unix.path }) }
}
