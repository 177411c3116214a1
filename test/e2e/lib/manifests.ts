/** The objects that the end-to-end tests apply: an upstream, an application, an Ambassador, a load. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { APP_IMAGE, NODE_IMAGE } from './world.ts'

/**
 * Without a request of CPU a container gets a thousandth of what the rest of a busy machine gets, and an upstream that does not
 * answer for ten seconds fails requests whatever stands in front of it.
 */
export const RESOURCES = { requests: { cpu: '20m' } }

const scripts = join(import.meta.dirname, '../scripts')

/** Every setting that Pod Security `restricted` asks for, so that the same pods run in any namespace. */
export const RESTRICTED = {
  runAsNonRoot: true,
  runAsUser: 65532,
  allowPrivilegeEscalation: false,
  capabilities: { drop: ['ALL'] },
  seccompProfile: { type: 'RuntimeDefault' },
}

export const scriptsConfigMap = {
  apiVersion: 'v1',
  kind: 'ConfigMap',
  metadata: { name: 'scripts' },
  data: {
    'upstream.mjs': readFileSync(join(scripts, 'upstream.mjs'), 'utf8'),
    'load.mjs': readFileSync(join(scripts, 'load.mjs'), 'utf8'),
    'burst.mjs': readFileSync(join(scripts, 'burst.mjs'), 'utf8'),
    'endless.mjs': readFileSync(join(scripts, 'endless.mjs'), 'utf8'),
    'slow-readers.mjs': readFileSync(join(scripts, 'slow-readers.mjs'), 'utf8'),
  },
}

/** A container that runs one of test/e2e/scripts, of a pod with `scriptsVolume`. */
export function node(name: string, script: string, env: Record<string, string>, extra: object = {}): object {
  return {
    name,
    image: NODE_IMAGE,
    imagePullPolicy: 'IfNotPresent',
    command: ['node', `/scripts/${script}`],
    env: Object.entries(env).map(([key, value]) => ({ name: key, value })),
    resources: RESOURCES,
    securityContext: RESTRICTED,
    volumeMounts: [{ name: 'scripts', mountPath: '/scripts' }],
    ...extra,
  }
}

export const scriptsVolume = { name: 'scripts', configMap: { name: 'scripts' } }

/** A Deployment and Service `name` on port 8080 whose behaviour is ordered at port 8090 (scripts/upstream.mjs). */
export function upstream(
  name: string,
  options: { env?: Record<string, string>; tlsSecret?: string; replicas?: number; minReadySeconds?: number } = {},
): object[] {
  const tls = options.tlsSecret === undefined ? [] : [{ name: 'tls', secret: { secretName: options.tlsSecret } }]
  const container = node('upstream', 'upstream.mjs', {
    ...options.env,
    ...(options.tlsSecret === undefined ? {} : { TLS_DIR: '/tls' }),
  }) as { volumeMounts: object[]; readinessProbe?: object }
  if (options.tlsSecret !== undefined) container.volumeMounts.push({ name: 'tls', mountPath: '/tls' })
  container.readinessProbe = { tcpSocket: { port: 8090 }, periodSeconds: 1 }
  return [
    scriptsConfigMap,
    {
      apiVersion: 'apps/v1',
      kind: 'Deployment',
      metadata: { name },
      spec: {
        replicas: options.replicas ?? 1,
        minReadySeconds: options.minReadySeconds ?? 0,
        strategy: { rollingUpdate: { maxSurge: 1, maxUnavailable: 0 } },
        selector: { matchLabels: { app: name } },
        template: {
          metadata: { labels: { app: name } },
          spec: { terminationGracePeriodSeconds: 1, containers: [container], volumes: [scriptsVolume, ...tls] },
        },
      },
    },
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name },
      spec: {
        selector: { app: name },
        ports: [
          { name: 'serve', port: 8080 },
          { name: 'order', port: 8090 },
        ],
      },
    },
  ]
}

/** A container `app` that sleeps and has wget. It ends at once on SIGTERM. */
export function appContainer(
  command: readonly string[] = ['sh', '-c', 'trap "exit 0" TERM; while :; do sleep 3600 & wait; done'],
): object {
  return {
    name: 'app',
    image: APP_IMAGE,
    imagePullPolicy: 'IfNotPresent',
    command,
    resources: RESOURCES,
    securityContext: RESTRICTED,
  }
}

export function podTemplate(
  app: string,
  inject: string | null,
  spec: object = {},
  annotations: Record<string, string> = {},
): object {
  return {
    metadata: {
      labels: { app },
      annotations: { ...(inject === null ? {} : { 'ambassador.dev/inject': inject }), ...annotations },
    },
    spec: { terminationGracePeriodSeconds: 5, containers: [appContainer()], ...spec },
  }
}

export function deployment(name: string, template: object, spec: object = {}, metadata: object = {}): object {
  return {
    apiVersion: 'apps/v1',
    kind: 'Deployment',
    metadata: { name, ...metadata },
    spec: { selector: { matchLabels: { app: name } }, template, ...spec },
  }
}

/** A Deployment whose application calls `url` at a steady rate and reports on stdout (scripts/load.mjs). */
export function load(
  name: string,
  inject: string,
  options: {
    url: string
    rate?: number
    lingerMs?: number
    replicas?: number
    graceSeconds?: number
    /** Annotations beside that which names the Ambassadors. */
    annotations?: Record<string, string>
    /** The one node for it. */
    nodeName?: string
  },
): object[] {
  const container = node('app', 'load.mjs', {
    URL: options.url,
    RATE: String(options.rate ?? 100),
    LINGER_MS: String(options.lingerMs ?? 0),
  })
  return [
    scriptsConfigMap,
    deployment(
      name,
      podTemplate(
        name,
        inject,
        {
          terminationGracePeriodSeconds: options.graceSeconds ?? 20,
          containers: [container],
          volumes: [scriptsVolume],
          ...(options.nodeName === undefined ? {} : { nodeSelector: { 'kubernetes.io/hostname': options.nodeName } }),
        },
        options.annotations,
      ),
      { replicas: options.replicas ?? 1 },
    ),
  ]
}

export function ambassador(name: string, spec: object): object {
  return { apiVersion: 'ambassador.dev/v1alpha1', kind: 'Ambassador', metadata: { name }, spec }
}

/** Long enough for a busy machine on which an upstream gets no CPU for seconds. */
export const PATIENT = { request: '60s' }

/** An HTTP Ambassador in front of one Service of the same namespace. */
export function httpTo(service: string, port: number, extra: { upstream?: object; spec?: object } = {}): object {
  return {
    protocol: 'HTTP',
    listen: { port },
    upstreams: [{ name: 'live', endpoints: [{ host: service, port: 8080 }], ...extra.upstream }],
    timeouts: PATIENT,
    ...extra.spec,
  }
}
