/** Which API server, and as whom: a pod's service account, or a kubeconfig by way of the Kubernetes client library. */
import { readFileSync } from 'node:fs'
import type { Agent } from 'node:http'
import { type Clock, systemClock } from './clock.ts'

/** What a request needs beside its path. A new object only when something changed, so that connections can be kept per identity. */
export interface Identity {
  readonly headers: Readonly<Record<string, string>>
  readonly tls: {
    readonly ca?: string | Buffer
    readonly cert?: string | Buffer
    readonly key?: string | Buffer
    readonly servername?: string
    readonly rejectUnauthorized?: boolean
  }
  /** Through a proxy that a kubeconfig names; otherwise the client makes its own agents. */
  readonly agent?: Agent
}

export interface Connection {
  readonly server: URL
  /** The namespace of the pod or of the kubeconfig's context. */
  readonly namespace: string
  /** Current credentials. `fresh`: the API server refused the last ones, read them again. */
  identity(fresh?: boolean): Promise<Identity>
}

const SERVICE_ACCOUNT = '/var/run/secrets/kubernetes.io/serviceaccount'

/** Credentials are read again after this time: a projected token is renewed by the kubelet long before it expires. */
const REREAD_MS = 30_000

export interface ConnectionOptions {
  /** Path of a kubeconfig. Default: the service account when in a pod, otherwise KUBECONFIG or ~/.kube/config. */
  readonly kubeconfig?: string
  /** Context of the kubeconfig. Default: its current one. */
  readonly context?: string
  /** Environment to read KUBERNETES_SERVICE_HOST and _PORT from. */
  readonly env?: Readonly<Record<string, string | undefined>>
  /** Directory of the service account's token, ca.crt and namespace. */
  readonly serviceAccountDir?: string
  readonly clock?: Clock
}

/**
 * Finds the API server.
 * @throws {Error} when neither a service account nor a usable kubeconfig is there
 */
export async function connect(options: ConnectionOptions = {}): Promise<Connection> {
  const env = options.env ?? process.env
  if (options.kubeconfig === undefined && env['KUBERNETES_SERVICE_HOST']) return inCluster(options, env)
  return fromKubeconfig(options)
}

/**
 * The service account by three files and two variables. The client library would read the same, but costs 66 MB of
 * memory to load (docs/adr/0003-own-kubernetes-client.md), half of what the operator may use.
 */
function inCluster(options: ConnectionOptions, env: Readonly<Record<string, string | undefined>>): Connection {
  const clock = options.clock ?? systemClock
  const directory = options.serviceAccountDir ?? SERVICE_ACCOUNT
  const host = env['KUBERNETES_SERVICE_HOST'] ?? ''
  const port = env['KUBERNETES_SERVICE_PORT_HTTPS'] ?? env['KUBERNETES_SERVICE_PORT'] ?? '443'
  const read = (file: string): string => readFileSync(`${directory}/${file}`, 'utf8').trim()
  const load = (): Identity => ({ headers: { authorization: `Bearer ${read('token')}` }, tls: { ca: read('ca.crt') } })
  let current = load()
  let readAt = clock.now()
  return {
    server: new URL(`https://${host.includes(':') ? `[${host}]` : host}:${port}`),
    namespace: read('namespace'),
    async identity(fresh = false) {
      if (!fresh && clock.now() - readAt < REREAD_MS) return current
      readAt = clock.now()
      try {
        const next = load()
        if (next.headers['authorization'] !== current.headers['authorization'] || next.tls.ca !== current.tls.ca)
          current = next
      } catch {
        // The kubelet swaps the directory; for the moment between two links the old token is as good as any.
      }
      return current
    },
  }
}

async function fromKubeconfig(options: ConnectionOptions): Promise<Connection> {
  const clock = options.clock ?? systemClock
  const { KubeConfig } = await import('@kubernetes/client-node')
  const config = new KubeConfig()
  if (options.kubeconfig === undefined) config.loadFromDefault()
  else config.loadFromFile(options.kubeconfig)
  if (options.context !== undefined) config.setCurrentContext(options.context)
  const cluster = config.getCurrentCluster()
  if (cluster === null) {
    throw new Error(
      `kubeconfig '${options.kubeconfig ?? 'default'}': context '${config.getCurrentContext()}' names no cluster, set KUBECONFIG or pass a context that exists`,
    )
  }
  const load = async (): Promise<Identity> => {
    const request: Parameters<typeof config.applyToHTTPSOptions>[0] & {
      headers?: Record<string, string>
      /** `user:password`; among the options of an HTTPS request only. */
      auth?: string | null
    } = {}
    await config.applyToHTTPSOptions(request)
    const headers: Record<string, string> = {}
    for (const [name, value] of Object.entries(request.headers ?? {})) headers[name.toLowerCase()] = String(value)
    if (request.auth) headers['authorization'] = `Basic ${Buffer.from(request.auth).toString('base64')}`
    const { ca, cert, key, servername, rejectUnauthorized } = request as Identity['tls']
    return {
      headers,
      tls: { ca, cert, key, servername, rejectUnauthorized },
      ...(cluster.proxyUrl === undefined ? {} : { agent: request.agent as Agent }),
    }
  }
  let current = await load()
  let readAt = clock.now()
  return {
    server: new URL(cluster.server),
    namespace: config.getContextObject(config.getCurrentContext())?.namespace ?? 'default',
    async identity(fresh = false) {
      if (fresh || clock.now() - readAt >= REREAD_MS) {
        readAt = clock.now()
        const next = await load()
        if (fingerprint(next) !== fingerprint(current)) current = next
      }
      return current
    },
  }
}

function fingerprint(identity: Identity): string {
  const { ca, cert, key, servername } = identity.tls
  return JSON.stringify([identity.headers, String(ca), String(cert), String(key), servername])
}
