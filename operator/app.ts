/** The operator as a whole: started in order, stopped in order. main.ts and tests make one from settings. */
import { randomBytes } from 'node:crypto'
import { collectDefaultMetrics, Registry } from 'prom-client'
import type { Log } from '../common/log.ts'
import { FIELD_MANAGER, PRODUCT_VERSION } from '../common/names.ts'
import { Caches } from './caches.ts'
import type { FetchConfigz } from './controller/configz.ts'
import { Controller } from './controller/controller.ts'
import { OperatorMetrics, registerGauges } from './controller/metrics.ts'
import { startHealth } from './health.ts'
import { createClient, type KubeClient } from './kube/client.ts'
import { type Clock, sleep, systemClock } from './kube/clock.ts'
import type { Connection } from './kube/connection.ts'
import { fenced } from './kube/fence.ts'
import { IDENTITY_SEPARATOR, isHolderGone } from './kube/holder.ts'
import { LeaderElector } from './kube/leader.ts'
import { keepReplicas } from './kube/replicas.ts'
import type { Settings } from './settings.ts'
import { startWebhook, type Webhook } from './webhook/server.ts'

export interface OperatorOptions {
  readonly settings: Settings
  readonly connection: Connection
  readonly log: Log
  readonly clock?: Clock
  /** Name of the Lease, and of the Deployment that is scaled. Default: ambassador-operator. */
  readonly name?: string
  /** False: no webhook, for tests of the rest. Default true. */
  readonly webhook?: boolean | Partial<Parameters<typeof startWebhook>[0]>
  /** Address of the HTTP port. Default: all. */
  readonly host?: string
  /** How sidecars are asked. Default: HTTP to their address. */
  readonly fetch?: FetchConfigz
}

export interface Operator {
  readonly httpPort: number
  readonly webhookPort: number | undefined
  readonly isLeading: boolean
  readonly metrics: OperatorMetrics
  readonly registry: Registry
  /** What keeps it from being ready; empty: nothing. */
  notReady(): readonly string[]
  /** Not ready from now on; gives the lease back, serves on for the delay, then stops everything. Idempotent. */
  stop(delayMs?: number): Promise<void>
}

/** Starts everything. Resolves when the ports are bound; readiness comes when the caches are synced. @throws when a port cannot be bound */
export async function startOperator(options: OperatorOptions): Promise<Operator> {
  const { settings, connection, log, clock = systemClock, name = FIELD_MANAGER } = options
  const namespace = settings.namespace ?? connection.namespace
  const registry = new Registry()
  const metrics = new OperatorMetrics(registry)
  collectDefaultMetrics({ register: registry })
  const client = createClient(connection, {
    userAgent: `${FIELD_MANAGER}/${PRODUCT_VERSION}`,
    clock,
    observe: (method, status, durationMs) => {
      metrics.apiRequests.inc({ method, code: String(status) })
      metrics.apiDuration.observe({ method }, durationMs / 1000)
    },
  })
  const caches = new Caches({
    client,
    clock,
    log,
    onTrouble: (resource, reason) => metrics.watchErrors.inc({ resource, reason }),
  })

  let controller: Controller | undefined
  /**
   * Each replica sets the number of replicas once, before it is ready, so that whoever waits for the rollout waits for all.
   * Not the leader alone: after a new installation the lease of the old one may still run, and nobody leads.
   */
  let isScaling = settings.replicas !== undefined
  const instance = settings.podName
  const elector: LeaderElector = new LeaderElector(
    {
      client,
      clock,
      log,
      namespace,
      name,
      identity: `${instance}${IDENTITY_SEPARATOR}${randomBytes(4).toString('hex')}`,
      isGone: (identity, signal) => isHolderGone({ client, namespace, ownPod: instance }, identity, signal),
    },
    async (signal) => {
      const writer = fenced(client, { mayWrite: () => elector.isLeading, signal })
      controller = new Controller({
        client: writer,
        ambassadors: caches.ambassadors,
        subscribe: (listener) => caches.subscribe(listener),
        clock,
        log,
        metrics,
        instance,
        proxyImage: settings.injector.image,
        secretChecks: new Set(settings.secretChecks),
        ...(options.fetch === undefined ? {} : { fetch: options.fetch }),
      })
      try {
        await controller.run(signal)
      } finally {
        controller = undefined
      }
    },
  )
  registerGauges(registry, {
    isLeading: () => elector.isLeading,
    staleness: () =>
      [...caches.reflectors, ...(controller?.reflectors ?? [])].map((each) => [each.name, each.stalenessSeconds()]),
    queues: () => controller?.queues() ?? [],
    ambassadors: () => caches.ambassadors.store.values(),
  })

  let webhook: Webhook | undefined
  let isStopping = false
  const notReady = (): string[] => {
    const missing = caches.reflectors
      .filter((each) => !each.isSynced)
      .map((each) => `the cache of ${each.name} is not synced`)
    if (options.webhook !== false && webhook?.isReady() !== true)
      missing.push('the certificate of the webhook is not served and known yet')
    if (!elector.hasTried) missing.push('the lease was not looked at yet')
    if (isScaling) missing.push('the number of replicas is not set yet')
    if (isStopping) missing.push('stopping')
    return missing
  }

  caches.start()
  const health = await startHealth({
    port: settings.httpPort,
    registry,
    notReady,
    ...(options.host === undefined ? {} : { host: options.host }),
  })
  try {
    if (options.webhook !== false)
      webhook = await startWebhook(webhookOptions(options, { client, registry, namespace, caches, clock }))
  } catch (error) {
    await Promise.all([caches.stop(), health.close()])
    client.close()
    throw error
  }
  elector.start()
  if (settings.replicas !== undefined)
    void scale(client, log, { namespace, deployment: name, replicas: settings.replicas }).then(() => {
      isScaling = false
    })
  log.info({ port: health.port, ns: namespace }, 'operator started')

  const stop = async (delayMs: number): Promise<void> => {
    isStopping = true
    webhook?.drain()
    // The lease goes at once, another replica can lead; reviews are answered until every API server has heard that we are gone.
    await Promise.all([elector.stop(), sleep(clock, delayMs)])
    await webhook?.close()
    await Promise.all([caches.stop(), health.close()])
    client.close()
    log.info({}, 'operator stopped')
  }
  let stopped: Promise<void> | undefined
  return {
    httpPort: health.port,
    webhookPort: webhook?.port,
    metrics,
    registry,
    get isLeading() {
      return elector.isLeading
    },
    notReady,
    stop: (delayMs = settings.shutdownDelayMs) => (stopped ??= stop(delayMs)),
  }
}

interface Parts {
  readonly client: KubeClient
  readonly registry: Registry
  readonly namespace: string
  readonly caches: Caches
  readonly clock: Clock
}

function webhookOptions(
  { settings, log, webhook }: OperatorOptions,
  { client, registry, namespace, caches, clock }: Parts,
): Parameters<typeof startWebhook>[0] {
  return {
    client,
    clock,
    log,
    registry,
    namespace,
    port: settings.webhookPort,
    source: caches.source,
    nodes: caches.nodeList,
    settings: {
      ...settings.injector,
      excludedNamespaces: [...new Set([...settings.injector.excludedNamespaces, namespace])],
    },
    ...(typeof webhook === 'object' ? webhook : {}),
  }
}

/** A number that cannot be set is no reason to stop: not every installation has a Deployment of ours. */
async function scale(client: KubeClient, log: Log, target: Parameters<typeof keepReplicas>[1]): Promise<void> {
  try {
    await keepReplicas(client, target)
  } catch (error) {
    log.warn({ ns: target.namespace, resource: 'deployments', err: error }, 'could not set the number of replicas')
  }
}
