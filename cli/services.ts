/** Stand-ins for Kubernetes Services outside a cluster: `--service orders=localhost:8080`. */
import type { ResolvedService, ServiceLookup, ServiceRef } from '../operator/render/services.ts'
import { UsageError } from './exit.ts'

export const SERVICE_USAGE = `  --service NAME=HOST:PORT   where a Kubernetes Service is that an upstream names; NAME may be NAMESPACE/NAME, and NAME:PORT for
                        one port of it; HOST is a name or an address; may be given several times`

interface StandIn {
  /** Empty: any. */
  readonly namespace: string
  readonly name: string
  /** Empty: any. */
  readonly port: string
  readonly to: { readonly hostname: string; readonly port: number }
}

/**
 * The Services that the arguments stand in for. `missing` is told each that an upstream names and no argument does.
 * @throws {UsageError} for an argument that is none
 */
export function standIns(args: readonly string[], missing: (ref: ServiceRef) => void): ServiceLookup {
  const known = args.map(readStandIn)
  return (ref): ResolvedService => {
    const found = known.find(
      ({ namespace, name, port }) =>
        name === ref.name && ['', ref.namespace].includes(namespace) && ['', String(ref.port)].includes(port),
    )
    if (found) return { kind: 'name', ...found.to }
    missing(ref)
    return { kind: 'endpoints', endpoints: [], problem: null }
  }
}

/** What to say of a Service without a stand-in. */
export function noStandIn({ namespace, name }: ServiceRef): string {
  return `Service '${name}' of namespace '${namespace}' cannot be looked up outside a cluster`
}

function readStandIn(text: string): StandIn {
  const shape = /^(?:([a-z0-9-]+)\/)?([a-z0-9-]+)(?::([a-z0-9-]+))?=(?:\[([0-9a-fA-F:.]+)\]|([^:[\]/]+)):(\d{1,5})$/
  const [, namespace = '', name = '', port = '', address, host = '', digits = ''] = shape.exec(text) ?? []
  const number = Number(digits)
  if (name === '' || number < 1 || number > 65535) {
    throw new UsageError(`--service: '${text}' is not a stand-in, use NAME=HOST:PORT or NAMESPACE/NAME:PORT=HOST:PORT`)
  }
  return { namespace, name, port, to: { hostname: address ?? host, port: number } }
}
