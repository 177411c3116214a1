/** What the demo takes from examples/payments.yaml, and how it points it at a provider of its own. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import type { Ambassador } from '../../operator/api/ambassador.ts'
import type { JsonObject } from '../../operator/webhook/json.ts'
import { parseDocuments } from '../documents.ts'

export const EXAMPLE = 'examples/payments.yaml'

/** How long the breaker stays open in the demo; the example says half a minute, which nobody wants to watch. */
export const OPEN_MS = 2000

export interface Example {
  readonly ambassador: Ambassador
  /** Of the application. */
  readonly deployment: JsonObject
  readonly token: string
}

/** The Ambassador, the application's Deployment and the token of the example. */
export function readExample(root: string): Example {
  const documents = parseDocuments(readFileSync(join(root, EXAMPLE), 'utf8'), EXAMPLE).map(({ value }) => value)
  const find = (kind: string, name: string) => {
    const found = documents.find((each) => {
      const object = each as { kind?: string; metadata?: { name?: string } }
      return object.kind === kind && object.metadata?.name === name
    })
    if (found === undefined) throw new Error(`${EXAMPLE}: there is no ${kind} '${name}' in it`)
    return found
  }
  const secret = find('Secret', 'payments-token') as { stringData: { token: string } }
  return {
    ambassador: find('Ambassador', 'payments') as Ambassador,
    deployment: find('Deployment', 'checkout') as JsonObject,
    token: secret.stringData.token,
  }
}

export interface ProviderPlace {
  readonly listenPort: number
  readonly host: string
  readonly port: number
  /** Name in its certificate. */
  readonly serverName: string
}

/** The example's Ambassador for a provider with a private CA (ConfigMap provider-ca, key ca.crt); everything else as it is written. */
export function forProvider(
  { ambassador }: Example,
  { listenPort, host, port, serverName }: ProviderPlace,
): Ambassador {
  const [upstream] = ambassador.spec.upstreams
  if (upstream === undefined) throw new Error(`${EXAMPLE}: the Ambassador has no upstream`)
  return {
    ...ambassador,
    spec: {
      ...ambassador.spec,
      listen: { port: listenPort },
      upstreams: [
        {
          ...upstream,
          endpoints: [{ host, port }],
          tls: { serverName, ca: { configMapKeyRef: { name: 'provider-ca', key: 'ca.crt' } } },
          circuitBreaker: { ...upstream.circuitBreaker, openDuration: `${OPEN_MS}ms` },
        },
      ],
    },
  }
}
