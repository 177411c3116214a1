/** Starts the webhook: certificate, HTTPS server, reviews. Every replica serves, whoever leads. */
import { createServer, type Server } from 'node:https'
import type { AddressInfo } from 'node:net'
import type { Registry } from 'prom-client'
import type { Log } from '../../common/log.ts'
import type { KubeClient } from '../kube/client.ts'
import type { Clock } from '../kube/clock.ts'
import { createApp, setTimeouts } from './app.ts'
import type { Lifetimes } from './authorities.ts'
import { Certs } from './certs.ts'
import { type AmbassadorSource, Lookup } from './lookup.ts'
import { registerExpiry, WebhookMetrics } from './metrics.ts'
import type { Nodes } from './native.ts'
import { Reviewer } from './review.ts'
import type { InjectorSettings } from './settings.ts'

/** The Service in front of the replicas. */
export const SERVICE = 'ambassador-operator'

/** Connections at once; more are not accepted. An API server opens one per review that it waits for. */
const MAX_CONNECTIONS = 4096
/** Answers that are not out by then are cut when the process ends. */
const CLOSE_AFTER_MS = 10_000

export interface WebhookOptions {
  readonly client: KubeClient
  readonly clock: Clock
  readonly log: Log
  readonly registry: Registry
  /** The operator's own. */
  readonly namespace: string
  /** 0: a free one. */
  readonly port: number
  /** Address to listen on. Default: all. */
  readonly host?: string
  readonly source: AmbassadorSource
  readonly nodes: Nodes
  readonly settings: InjectorSettings
  /** Names and addresses in the certificate. Default: those of the Service. */
  readonly names?: readonly string[]
  /** Name of the MutatingWebhookConfiguration. Default: the chart's. */
  readonly configuration?: string
  /** Name of the CA's Secret. Default: CA_SECRET. */
  readonly secret?: string
  readonly lifetimes?: Partial<Lifetimes>
}

export interface Webhook {
  readonly port: number
  /** A certificate is served and API servers can know its CA. Caches are the caller's affair. */
  isReady(): boolean
  /** For whoever sees the Secret or the webhook configuration change; they are looked at every few seconds anyway. */
  checkCertificates(): Promise<void>
  /** From now on each answer closes its connection: API servers come back to another replica. */
  drain(): void
  /** Stops accepting, lets answers go out, then ends. Idempotent. */
  close(): Promise<void>
}

/** Resolves when the port is bound with a certificate. @throws when the port cannot be bound */
export async function startWebhook(options: WebhookOptions): Promise<Webhook> {
  const { client, clock, log, namespace } = options
  const certs = new Certs({
    client,
    clock,
    log,
    namespace,
    names: options.names ?? serviceNames(namespace),
    ...(options.secret === undefined ? {} : { secret: options.secret }),
    ...(options.configuration === undefined ? {} : { configuration: options.configuration }),
    ...(options.lifetimes === undefined ? {} : { lifetimes: options.lifetimes }),
  })
  let isDraining = false
  const reviewer = new Reviewer({
    lookup: new Lookup(options.source, clock),
    nodes: options.nodes,
    settings: options.settings,
    clock,
    log,
  })
  const metrics = new WebhookMetrics(options.registry)
  registerExpiry(options.registry, certs)
  const app = createApp({ reviewer, metrics, clock, isDraining: () => isDraining })

  await certs.start()
  const server = createServer({ ...secureContext(certs), minVersion: 'TLSv1.2' }, app)
  setTimeouts(server)
  server.maxConnections = MAX_CONNECTIONS
  // Connections that are open keep their certificate; the next handshake sees the new one.
  certs.onRenew(() => server.setSecureContext({ ...secureContext(certs), minVersion: 'TLSv1.2' }))
  server.on('tlsClientError', (err) => log.debug({ err }, 'handshake failed'))
  try {
    await listen(server, options.port, options.host)
  } catch (error) {
    certs.close()
    throw error
  }
  let closed: Promise<void> | undefined
  return {
    port: (server.address() as AddressInfo).port,
    isReady: () => certs.isTrusted,
    checkCertificates: () => certs.check(),
    drain() {
      isDraining = true
    },
    close() {
      isDraining = true
      certs.close()
      closed ??= stop(server, clock)
      return closed
    },
  }
}

/** Under which names API servers call a Service; the first is the one that they verify. */
export function serviceNames(namespace: string): string[] {
  return ['svc', 'svc.cluster.local'].map((end) => `${SERVICE}.${namespace}.${end}`)
}

function secureContext(certs: Certs): { cert: string; key: string } {
  const pair = certs.current
  return { cert: pair?.certificate ?? '', key: pair?.privateKey ?? '' }
}

function listen(server: Server, port: number, host: string | undefined): Promise<void> {
  return new Promise((resolve, reject) => {
    server.once('error', reject)
    server.listen({ port, ...(host === undefined ? {} : { host }) }, () => {
      server.off('error', reject)
      resolve()
    })
  })
}

function stop(server: Server, clock: Clock): Promise<void> {
  return new Promise((resolve) => {
    const timer = clock.after(CLOSE_AFTER_MS, () => server.closeAllConnections())
    server.close(() => {
      timer.cancel()
      resolve()
    })
    server.closeIdleConnections()
  })
}
