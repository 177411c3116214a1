/** Upstreams that move while an application calls localhost: a Service whose pods are rolled, a pair that needs each other, a list that another program writes. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { eventually, type Json } from './lib/kubectl.ts'
import {
  ambassador,
  deployment,
  load,
  node,
  PATIENT,
  podTemplate,
  RESOURCES,
  RESTRICTED,
  scriptsConfigMap,
  scriptsVolume,
  upstream,
} from './lib/manifests.ts'
import { burst, reports } from './lib/reports.ts'
import { NODE_IMAGE, type World, world } from './lib/world.ts'

/** Another program: it has the rights that a person gave it, and writes a list of endpoints by the API. */
const registry: object[] = [
  { apiVersion: 'v1', kind: 'ServiceAccount', metadata: { name: 'registry' } },
  {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'Role',
    metadata: { name: 'registry' },
    rules: [{ apiGroups: [''], resources: ['configmaps'], resourceNames: ['orders-endpoints'], verbs: ['patch'] }],
  },
  {
    apiVersion: 'rbac.authorization.k8s.io/v1',
    kind: 'RoleBinding',
    metadata: { name: 'registry' },
    roleRef: { apiGroup: 'rbac.authorization.k8s.io', kind: 'Role', name: 'registry' },
    subjects: [{ kind: 'ServiceAccount', name: 'registry' }],
  },
  deployment('registry', {
    metadata: { labels: { app: 'registry' } },
    spec: {
      serviceAccountName: 'registry',
      terminationGracePeriodSeconds: 1,
      containers: [
        {
          name: 'app',
          image: NODE_IMAGE,
          imagePullPolicy: 'IfNotPresent',
          command: ['node', '-e', 'process.on("SIGTERM", () => process.exit()); setInterval(() => {}, 60_000)'],
          env: [{ name: 'NODE_EXTRA_CA_CERTS', value: '/var/run/secrets/kubernetes.io/serviceaccount/ca.crt' }],
          resources: RESOURCES,
          securityContext: RESTRICTED,
        },
      ],
    },
  }),
]

const WRITE = `
const { readFileSync } = require('node:fs')
const at = '/var/run/secrets/kubernetes.io/serviceaccount/'
const [namespace, token] = ['namespace', 'token'].map((name) => readFileSync(at + name, 'utf8'))
fetch('https://kubernetes.default.svc/api/v1/namespaces/' + namespace + '/configmaps/orders-endpoints', {
  method: 'PATCH',
  headers: { authorization: 'Bearer ' + token, 'content-type': 'application/merge-patch+json' },
  body: JSON.stringify({ data: { endpoints: process.argv[1] } }),
}).then(async (answer) => {
  if (!answer.ok) throw new Error(answer.status + ' ' + (await answer.text()))
})`

/** A workload that serves, and calls the other one of its pair through its Ambassador; with the Service by which it is found. */
function half(name: string, spec: object): object[] {
  return [
    scriptsConfigMap,
    {
      apiVersion: 'v1',
      kind: 'Service',
      metadata: { name },
      spec: { clusterIP: 'None', selector: { app: name }, ports: [{ name: 'serve', port: 8080 }] },
    },
    ambassador(`from-${name}`, {
      protocol: 'HTTP',
      listen: { port: 8081 },
      timeouts: { connect: '240s', request: '280s' },
      ...spec,
    }),
    deployment(
      name,
      podTemplate(name, `from-${name}`, {
        containers: [
          node('app', 'load.mjs', { URL: 'http://localhost:8081/', RATE: '20' }),
          node(
            'upstream',
            'upstream.mjs',
            { TEXT: name },
            { readinessProbe: { tcpSocket: { port: 8090 }, periodSeconds: 1 } },
          ),
        ],
        volumes: [scriptsVolume],
      }),
    ),
  ]
}

// They share nothing but the namespace, and wait for pods most of the time.
describe('upstreams that move, on a real cluster', { concurrency: true }, () => {
  let w: World
  before(async () => {
    w = await world('e2e-migration')
    await w.kubectl.apply([
      ...registry,
      ...upstream('orders', { env: { TEXT: 'one' }, replicas: 3, minReadySeconds: 3 }),
      ...upstream('blue', { env: { TEXT: 'blue' } }),
      ...upstream('green', { env: { TEXT: 'green' } }),
      { apiVersion: 'v1', kind: 'ConfigMap', metadata: { name: 'orders-endpoints' }, data: { endpoints: 'blue:8080' } },
      ambassador('by-service', {
        protocol: 'HTTP',
        listen: { port: 8081 },
        upstreams: [{ name: 'orders', service: { name: 'orders', port: 'serve' } }],
        // Within a cluster: the address of a pod that is gone may answer nothing at all.
        timeouts: { ...PATIENT, connect: '2s' },
      }),
      ambassador('by-list', {
        protocol: 'HTTP',
        listen: { port: 8081 },
        timeouts: PATIENT,
        upstreams: [{ name: 'orders', file: { configMapKeyRef: { name: 'orders-endpoints', key: 'endpoints' } } }],
      }),
      ...load('by-service', 'by-service', { url: 'http://localhost:8081/', rate: 50 }),
      ...load('by-list', 'by-list', { url: 'http://localhost:8081/', rate: 50 }),
    ])
    const names = ['orders', 'blue', 'green', 'registry', 'by-service', 'by-list']
    await Promise.all(names.map((name) => w.kubectl.rollout(`deployment/${name}`)))
  })
  after(() => w?.close())

  const report = async (app: string): Promise<Json> => (await reports(w.kubectl, app))[0]
  const resolvedRefs = async (): Promise<Json> => {
    const { status } = await w.kubectl.get('amb', 'by-list')
    return status?.conditions?.find(({ type }: Json) => type === 'ResolvedRefs')
  }

  it("a Service's pods are rolled under load, and no request fails", async () => {
    await eventually('the old pods answer', async () => (await report('by-service'))?.texts.one > 50)
    const before = await w.kubectl.pods('app=orders')
    await w.kubectl.run(['set', 'env', 'deployment/orders', 'TEXT=two'])
    await w.kubectl.rollout('deployment/orders')
    await eventually('the old pods are gone', async () => {
      const { items } = await w.kubectl.get('pods', '-l', 'app=orders')
      return !items.some(({ metadata }: Json) => before.some((old) => old.metadata.uid === metadata.uid))
    })
    const { texts: then } = await report('by-service')
    const now = await eventually('the new pods answer alone', async () => {
      const seen = await report('by-service')
      return seen.texts.two > (then.two ?? 0) + 100 && seen
    })
    assert.equal(now.texts.one, then.one)
    assert.deepEqual(now.failures, {})
    console.log(`    ${now.ok} requests, 0 failed, while all three pods were replaced`)
  })

  /** The program writes. */
  const write = async (endpoints: string): Promise<void> => {
    const { code, stderr } = await w.kubectl.exec('deploy/registry', ['node', '-e', WRITE, endpoints])
    assert.equal(code, 0, stderr)
  }
  /** Waits for what follows from a write. Kubelets look at a pod's volumes every minute or so, and when the pod changes. */
  const follows = <T>(what: string, ask: () => Promise<T | undefined | false>): Promise<T> =>
    eventually(
      what,
      async () => {
        const [pod] = await w.kubectl.pods('app=by-list')
        await w.kubectl.annotate(`pod/${pod.metadata.name}`, { 'example.com/wrote': `${Date.now()}` })
        return await ask()
      },
      { timeoutMs: 120_000, everyMs: 1000 },
    )

  it('a list that another program rewrites moves the traffic, and a mistake in it does not', async () => {
    await eventually('blue answers', async () => (await report('by-list'))?.texts.blue > 50)
    await write('# moved\ngreen:8080 weight=3\n')
    await follows('green answers', async () => (await report('by-list')).texts.green > 50)
    const { blue } = (await report('by-list')).texts
    await write('green:8080\nblue:99999\n')
    const refused = await follows('the mistake is told', async () => {
      const found = await resolvedRefs()
      return found?.status === 'False' && found
    })
    assert.match(refused.message, /'orders-endpoints', key 'endpoints', line 2, column 1: port '99999' is out of range/)
    const { green } = (await report('by-list')).texts
    const now = await eventually('green goes on', async () => {
      const seen = await report('by-list')
      return seen.texts.green > green + 50 && seen
    })
    assert.equal(now.texts.blue, blue)
    assert.deepEqual(now.failures, {})
    await write('green:8080\n')
    await follows('the list is right again', async () => (await resolvedRefs())?.status === 'True')
  })

  const service = (name: string) => ({ service: { name, port: 'serve' } })
  const dns = (hostname: string) => ({ dns: { hostname, port: 8080 } })
  const srv = (name: string) => ({ srv: { name: `_serve._tcp.${name}.${w.kubectl.namespace}.svc.cluster.local` } })
  const pairs = [
    { title: 'the one whose upstream is a Service', first: 'a-left', by: service, second: 'a-right', back: dns },
    { title: 'the one whose upstream is a DNS name', first: 'b-right', by: dns, second: 'b-left', back: srv },
  ]
  for (const { title, first, by, second, back } of pairs) {
    it(`of two workloads that need each other, ${title} may start first`, async () => {
      const other = (name: string) => (name === first ? second : first)
      const objects = (name: string): object[] =>
        half(name, { upstreams: [{ name: 'other', ...(name === first ? by : back)(other(name)) }] })
      await w.kubectl.apply(objects(first))
      await w.kubectl.rollout(`deployment/${first}`)
      // Sent while there is nobody to answer it.
      const held = burst(w.kubectl, `deploy/${first}`, 'http://localhost:8081/', { count: 1 })
      await w.kubectl.apply(objects(second))
      await w.kubectl.rollout(`deployment/${second}`)
      const answer = await held
      assert.deepEqual([answer.failures, answer.texts], [{}, { [second]: 1 }])
      for (const name of [first, second]) {
        const seen = await eventually(`${name} reaches the other one`, async () => {
          const [found] = await reports(w.kubectl, name)
          return found?.texts[other(name)] > 20 && found
        })
        assert.deepEqual(seen.failures, {})
      }
    })
  }
})
