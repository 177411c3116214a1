/** An API server that tells of thousands of pods, and of what is written to it only what the writer must hear again: for measuring what the operator keeps of them. */
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import type { AmbassadorReport, Configz } from '../../common/configz.ts'
import type { KubeObject } from '../../operator/kube/objects.ts'

export interface LargeClusterOptions {
  readonly pods: number
  readonly ambassadors: number
  /** Pods that change each second. */
  readonly changesPerSecond: number
}

export interface LargeCluster extends AsyncDisposable {
  readonly url: string
  readonly counts: {
    asked: number
    statuses: number
    configMaps: number
    events: number
    touches: number
    podBytes: number
  }
}

/** As much as annotations, managed fields and volumes of an ordinary pod take. */
const PADDING = 'x'.repeat(1000)

export async function largeCluster(options: LargeClusterOptions): Promise<LargeCluster> {
  const { pods, ambassadors, changesPerSecond } = options
  const counts = { asked: 0, statuses: 0, configMaps: 0, events: 0, touches: 0, podBytes: 0 }
  const timers = new Set<NodeJS.Timeout>()
  const watchers = new Map<string, http.ServerResponse>()
  let version = 200_000
  const configs = new Map<string, { hash: string; ambassador: { generation: number } }>()

  // One port for all sidecars of an Ambassador: they have loaded what was published.
  const sidecars = await Promise.all(
    Array.from({ length: ambassadors }, async (_, i) => {
      const sidecar = http.createServer((_request, response) => {
        counts.asked++
        const config = configs.get(`ns-${i % 50}/amb-${i}`)
        response.end(JSON.stringify(reportOf(i, config?.hash ?? null)))
      })
      await new Promise<void>((resolve) => sidecar.listen(0, '127.0.0.1', resolve))
      return { sidecar, port: (sidecar.address() as AddressInfo).port }
    }),
  )

  const podOf = (i: number): KubeObject => injectedPod(i, i % ambassadors, sidecars[i % ambassadors]!.port)
  counts.podBytes = JSON.stringify(podOf(0)).length

  const server = http.createServer(async (request, response) => {
    const url = new URL(request.url ?? '/', 'http://api')
    const chunks: Buffer[] = []
    for await (const chunk of request) chunks.push(chunk as Buffer)
    const path = url.pathname
    const selector = url.searchParams.get('labelSelector') ?? ''
    const isInjected = path === '/api/v1/pods' && selector.endsWith('=true') && !selector.includes('!=')
    if (url.searchParams.get('watch') === 'true') {
      response.writeHead(200)
      response.flushHeaders()
      if (!path.endsWith('/pods')) watchers.set(path.split('/').at(-1) ?? '', response)
      if (isInjected) timers.add(changes(response, changesPerSecond, pods, podOf))
      return
    }
    if (request.method !== 'GET') {
      const body = JSON.parse(Buffer.concat(chunks).toString('utf8')) as KubeObject & { data?: Record<string, string> }
      if (path.endsWith('/status')) {
        counts.statuses++
        const { spec, metadata } = ambassadorOf(Number(body.metadata.name.slice(4)))
        Object.assign(body, { spec, metadata })
      } else if (path.includes('/configmaps/')) {
        counts.configMaps++
        const config = JSON.parse(body.data?.['config.json'] ?? '{}') as {
          hash: string
          ambassador: { namespace: string; name: string; generation: number }
        }
        configs.set(`${config.ambassador.namespace}/${config.ambassador.name}`, config)
      } else if (path.includes('/events')) counts.events++
      else if (path.includes('/pods/')) counts.touches++
      const metadata = {
        ...body.metadata,
        name: body.metadata?.name ?? 'x',
        uid: body.metadata?.uid ?? `u${version}`,
        resourceVersion: String(++version),
        managedFields: OURS,
      }
      const stored = { ...body, metadata }
      response.end(JSON.stringify(stored))
      const collection = path.endsWith('/status') ? 'ambassadors' : path.split('/').at(-2)
      if (request.method === 'PATCH')
        watchers.get(collection ?? '')?.write(`${JSON.stringify({ type: 'MODIFIED', object: stored })}\n`)
      return
    }
    if (/\/(configmaps|leases)\/./.test(path)) {
      response.writeHead(404)
      response.end(JSON.stringify({ kind: 'Status', code: 404, reason: 'NotFound', message: 'not found' }))
      return
    }
    if (path.endsWith('/ambassadors')) return list(response, url, ambassadors, ambassadorOf)
    if (path === '/api/v1/pods')
      return isInjected ? list(response, url, pods, podOf) : list(response, url, pods, otherPod)
    return list(response, url, 0, otherPod)
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  return {
    url: `http://127.0.0.1:${(server.address() as AddressInfo).port}`,
    counts,
    async [Symbol.asyncDispose]() {
      for (const timer of timers) clearInterval(timer)
      for (const each of [server, ...sidecars.map(({ sidecar }) => sidecar)]) {
        each.closeAllConnections()
        await new Promise((resolve) => each.close(resolve))
      }
    },
  }
}

function reportOf(ambassador: number, hash: string | null): Configz {
  const report: AmbassadorReport = {
    namespace: `ns-${ambassador % 50}`,
    name: `amb-${ambassador}`,
    hash,
    generation: 1,
    since: null,
    rejected: null,
    refs: [{ ref: { kind: 'secret', name: 'token', key: 'token' }, state: 'Found', message: '' }],
    lastError: null,
    endpointsHash: null,
    unready: [],
  }
  return { version: '1', pod: null, startedAt: '', ambassadors: [report] }
}

function list(response: http.ServerResponse, url: URL, count: number, make: (i: number) => KubeObject): void {
  const from = Number(url.searchParams.get('continue') ?? 0)
  const to = Math.min(count, from + Number(url.searchParams.get('limit') ?? count))
  const items = Array.from({ length: to - from }, (_, i) => make(from + i))
  response.end(
    JSON.stringify({ metadata: { resourceVersion: '100000', ...(to < count ? { continue: String(to) } : {}) }, items }),
  )
}

function changes(
  response: http.ServerResponse,
  perSecond: number,
  pods: number,
  make: (i: number) => KubeObject,
): NodeJS.Timeout {
  let at = 0
  return setInterval(() => {
    for (let i = 0; i < perSecond / 10; i++) {
      const pod = make(at % pods)
      const metadata = { ...pod.metadata, resourceVersion: String(100_001 + at++) }
      response.write(`${JSON.stringify({ type: 'MODIFIED', object: { ...pod, metadata } })}\n`)
    }
  }, 100)
}

const OURS = [{ manager: 'ambassador-operator', operation: 'Apply' }]
const managedFields = [1, 2, 3, 4].map((i) => ({ manager: `m${i}`, operation: 'Update', fieldsV1: { 'f:x': PADDING } }))

function injectedPod(i: number, ambassador: number, port: number): KubeObject {
  const container = {
    name: 'app',
    image: 'app',
    env: Array.from({ length: 20 }, (_, e) => ({ name: `E${e}`, value: PADDING.slice(0, 100) })),
  }
  const env = [
    { name: 'AMBASSADOR_NAMES', value: `amb-${ambassador}` },
    { name: 'AMBASSADOR_TELEMETRY_PORT', value: String(port) },
  ]
  const status = { ready: true, started: true, restartCount: 0, state: { running: {} } }
  return {
    metadata: {
      name: `checkout-${ambassador}-5d8f7c9b8d-${i}`,
      namespace: `ns-${ambassador % 50}`,
      uid: `00000000-0000-0000-0000-${String(i).padStart(12, '0')}`,
      resourceVersion: String(1000 + i),
      creationTimestamp: '2026-01-01T00:00:00Z',
      labels: { app: 'checkout', 'ambassador.dev/injected': 'true' },
      annotations: { 'ambassador.dev/inject': `amb-${ambassador}`, 'ambassador.dev/status': PADDING },
      managedFields,
    },
    spec: {
      nodeName: `node-${i % 100}`,
      initContainers: [{ name: 'ambassador', image: 'proxy:1', restartPolicy: 'Always', env }],
      containers: [container],
    },
    status: {
      phase: 'Running',
      podIP: '127.0.0.1',
      initContainerStatuses: [{ name: 'ambassador', ...status }],
      containerStatuses: [{ name: 'app', ...status }],
    },
  }
}

function otherPod(i: number): KubeObject {
  return {
    metadata: {
      name: `other-${i}`,
      namespace: 'x',
      uid: `o-${i}`,
      resourceVersion: '1',
      labels: { app: 'x' },
      managedFields,
    },
  }
}

function ambassadorOf(i: number): KubeObject {
  const tls = { tls: {}, auth: { bearer: { secretKeyRef: { name: 'token', key: 'token' } } } }
  return {
    apiVersion: 'ambassador.dev/v1alpha1',
    kind: 'Ambassador',
    metadata: {
      name: `amb-${i}`,
      namespace: `ns-${i % 50}`,
      uid: `amb-${i}`,
      resourceVersion: String(i + 1),
      generation: 1,
      managedFields,
    },
    spec: {
      protocol: 'HTTP',
      listen: { port: 8081 },
      upstreams: [{ name: 'live', endpoints: [{ host: 'api.example.com', port: 443 }], ...tls }],
    },
  }
}
