/** A pod whose sidecar is a small HTTP server in this process: a pod object on a node without a kubelet, with our address in its status. */
import http from 'node:http'
import type { AddressInfo } from 'node:net'
import type { AmbassadorReport, Configz } from '../../common/configz.ts'
import type { KubeClient } from '../../operator/kube/client.ts'

export interface FakeSidecarOptions {
  readonly client: KubeClient
  readonly namespace: string
  readonly name: string
  /** Ambassadors that it serves. */
  readonly serves: readonly string[]
  /** Default: the same as the Ambassadors that it serves. */
  readonly inject?: string
  readonly labels?: Readonly<Record<string, string>>
  readonly node: string
  readonly image?: string
}

export interface FakeSidecar extends AsyncDisposable {
  readonly name: string
  /** What it says at /configz from now on. */
  report(ambassador: string, report: Partial<AmbassadorReport>): void
  /** Says that it has this in force, as a sidecar does that has read its ConfigMap. */
  load(ambassador: string): Promise<void>
  /** Tells the API server what a kubelet would: the sidecar runs, is ready (or not), was restarted so often. */
  status(status: { readonly phase?: string; readonly ready?: boolean; readonly restarts?: number }): Promise<void>
  /** Value of the annotation by which the operator touches pods. */
  touched(): Promise<string | undefined>
  /** Does not answer any more. */
  silence(): Promise<void>
}

export async function fakeSidecar(options: FakeSidecarOptions): Promise<FakeSidecar> {
  const { client, namespace, name, serves } = options
  const reports = new Map<string, AmbassadorReport>()
  const server = http.createServer((request, response) => {
    if (request.url !== '/configz') return response.writeHead(404).end()
    const body: Configz = {
      version: '0.1.0',
      pod: name,
      startedAt: new Date().toISOString(),
      ambassadors: [...reports.values()],
    }
    response.setHeader('content-type', 'application/json')
    return response.end(JSON.stringify(body))
  })
  await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
  const { port } = server.address() as AddressInfo
  const path = `/api/v1/namespaces/${namespace}/pods`
  await client.request({
    method: 'POST',
    path,
    body: {
      apiVersion: 'v1',
      kind: 'Pod',
      metadata: {
        name,
        labels: { ...options.labels, 'ambassador.dev/injected': 'true' },
        annotations: { 'ambassador.dev/inject': options.inject ?? serves.join(',') },
      },
      spec: {
        nodeName: options.node,
        initContainers: [
          {
            name: 'ambassador',
            image: options.image ?? 'ambassador-proxy:test',
            restartPolicy: 'Always',
            env: [
              { name: 'AMBASSADOR_NAMES', value: serves.join(',') },
              { name: 'AMBASSADOR_TELEMETRY_PORT', value: String(port) },
            ],
          },
        ],
        containers: [{ name: 'app', image: 'app' }],
      },
    },
  })
  const say = (ambassador: string, report: Partial<AmbassadorReport>): void => {
    const known = reports.get(ambassador)
    reports.set(ambassador, {
      namespace,
      name: ambassador,
      hash: null,
      generation: null,
      since: new Date().toISOString(),
      rejected: null,
      refs: [],
      lastError: null,
      endpointsHash: null,
      unready: [],
      ...known,
      ...report,
    })
  }
  return {
    name,
    report: say,
    async load(ambassador) {
      interface Map {
        readonly data: { readonly 'config.json': string }
      }
      const { data } = await client.request<Map>({
        path: `/api/v1/namespaces/${namespace}/configmaps/ambassador-${ambassador}`,
      })
      const config = JSON.parse(data['config.json']) as { hash: string; ambassador: { generation: number } }
      say(ambassador, { hash: config.hash, generation: config.ambassador.generation, rejected: null })
    },
    async status({ phase = 'Running', ready = true, restarts = 0 }) {
      const now = new Date().toISOString()
      const container = (each: string) => ({
        name: each,
        image: each,
        imageID: each,
        ready,
        started: true,
        restartCount: restarts,
        state: { running: { startedAt: now } },
      })
      await client.request({
        method: 'PATCH',
        path: `${path}/${name}/status`,
        contentType: 'application/merge-patch+json',
        body: {
          status: {
            phase,
            podIP: '127.0.0.1',
            podIPs: [{ ip: '127.0.0.1' }],
            initContainerStatuses: [container('ambassador')],
            containerStatuses: [container('app')],
          },
        },
      })
    },
    async touched() {
      const { metadata } = await client.request<{ metadata: { annotations?: Record<string, string> } }>({
        path: `${path}/${name}`,
      })
      return metadata.annotations?.['ambassador.dev/touched']
    },
    async silence() {
      server.closeAllConnections()
      await new Promise((resolve) => server.close(resolve))
    },
    async [Symbol.asyncDispose]() {
      server.closeAllConnections()
      server.close()
      await client
        .request({ method: 'DELETE', path: `${path}/${name}`, query: { gracePeriodSeconds: 0 } })
        .catch(() => {})
    },
  }
}
