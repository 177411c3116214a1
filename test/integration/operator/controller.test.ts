import assert from 'node:assert/strict'
import { rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { dump, loadAll } from 'js-yaml'
import { silentLog } from '../../../common/log.ts'
import { crd } from '../../../operator/api/crd.ts'
import { type Operator, startOperator } from '../../../operator/app.ts'
import { createClient, type KubeClient } from '../../../operator/kube/client.ts'
import type { Connection } from '../../../operator/kube/connection.ts'
import type { KubeObject } from '../../../operator/kube/objects.ts'
import { readSettings } from '../../../operator/settings.ts'
import { connectTo } from '../../cluster/client.ts'
import { type Cluster, clusterForTests } from '../../cluster/cluster.ts'
import { eventually, execute, type Json, Kubectl } from '../../e2e/lib/kubectl.ts'
import { type FakeSidecar, fakeSidecar } from '../../helpers/fake-sidecar.ts'

// The operator runs in this process, as the service account and with exactly the rights of the chart, against a real API
// server. Sidecars are HTTP servers of this process behind pod objects on a node that has no kubelet.

const NAMESPACE = 'test-controller'
/** A namespace in which the operator may not read Secrets. */
const OTHER = 'test-controller-other'
const NODE = 'test-controller-node'
const RIGHTS = 'ambassador-operator-test'

let cluster: Cluster
let kubectl: Kubectl
let client: KubeClient
let operator: Operator
let connection: Connection
let ownsDefinition = false

const settings = (podName: string) =>
  readSettings({
    POD_NAME: podName,
    POD_NAMESPACE: NAMESPACE,
    AMBASSADOR_HTTP_PORT: '0',
    AMBASSADOR_PROXY_IMAGE: 'ambassador-proxy:test',
    AMBASSADOR_SECRET_CHECKS: NAMESPACE,
    AMBASSADOR_SHUTDOWN_DELAY_SECONDS: '0',
  })

const start = (podName: string): Promise<Operator> =>
  startOperator({ settings: settings(podName), connection, log: silentLog, webhook: false, host: '127.0.0.1' })

/** The RBAC of the chart, under names of our own where they are of the whole cluster. */
async function rights(): Promise<object[]> {
  const args = ['template', 'ambassador', 'charts/ambassador', '--namespace', NAMESPACE, '--kube-version', '1.34.0']
  const { stdout, stderr, code } = await execute(cluster.binaries.helm, [
    ...args,
    ...['--set', `operator.secretChecks={${NAMESPACE}}`],
    ...['--show-only', 'templates/rbac.yaml', '--show-only', 'templates/serviceaccount.yaml'],
  ])
  assert.equal(code, 0, stderr)
  const objects = (loadAll(stdout) as Json[]).filter((object) => object)
  for (const object of objects) {
    if (!String(object.kind).startsWith('Cluster')) continue
    object.metadata.name = RIGHTS
    if (object.roleRef !== undefined) object.roleRef.name = RIGHTS
  }
  return objects
}

/** Our own requests with the token of the operator's service account. */
async function asServiceAccount(): Promise<Connection> {
  const path = `/api/v1/namespaces/${NAMESPACE}/serviceaccounts/ambassador-operator/token`
  const { status } = await client.request<{ status: { token: string } }>({ method: 'POST', path, body: { spec: {} } })
  const admin = await connectTo(cluster.kubeconfig)
  const { ca } = (await admin.identity()).tls
  const identity = { headers: { authorization: `Bearer ${status.token}` }, tls: { ca } }
  return { server: admin.server, namespace: NAMESPACE, identity: async () => identity }
}

const manifest = (name: string, spec: object = {}, namespace = NAMESPACE): object => ({
  apiVersion: 'ambassador.dev/v1alpha1',
  kind: 'Ambassador',
  metadata: { name, namespace },
  spec: {
    protocol: 'HTTP',
    listen: { port: 8081 },
    upstreams: [{ name: 'live', endpoints: [{ host: 'api.example.com', port: 80 }] }],
    ...spec,
  },
})
const secret = (name: string, stringData: object): object => ({
  apiVersion: 'v1',
  kind: 'Secret',
  metadata: { name },
  stringData,
})
const withToken = (secret: string): object => ({
  upstreams: [
    {
      name: 'live',
      endpoints: [{ host: 'api.example.com', port: 443 }],
      tls: {},
      auth: { bearer: { secretKeyRef: { name: secret, key: 'token' } } },
    },
  ],
})

// What is asked again and again is not asked by kubectl: a start of it costs more than what is tested.
const amb = (name: string, namespace = NAMESPACE): Promise<Json> =>
  client.request({ path: `/apis/ambassador.dev/v1alpha1/namespaces/${namespace}/ambassadors/${name}` })
const configMap = (name: string): Promise<Json> =>
  client.request({ path: `/api/v1/namespaces/${NAMESPACE}/configmaps/ambassador-${name}` })

/** `True Programmed` of a condition, when it is about the newest generation. */
function said({ metadata, status }: Json, type: string): string | undefined {
  const condition = status?.conditions?.find((each: Json) => each.type === type)
  return condition?.observedGeneration === metadata.generation ? `${condition.status} ${condition.reason}` : undefined
}

/** Waits until conditions are so; returns the object, and how long it took. */
async function becomes(
  name: string,
  expected: Readonly<Record<string, string>>,
  options: { timeoutMs?: number; namespace?: string } = {},
): Promise<Json> {
  let last: Json
  return eventually(
    `${name} ${JSON.stringify(expected)}`,
    async () => {
      last = await amb(name, options.namespace)
      return Object.entries(expected).every(([type, value]) => said(last, type) === value) && last
    },
    {
      timeoutMs: options.timeoutMs ?? 60_000,
      everyMs: 100,
      seen: () =>
        last?.status?.conditions?.map(
          (each: Json) =>
            `${each.type}=${each.status} ${each.reason} (${each.observedGeneration}/${last.metadata.generation}): ${each.message}`,
        ),
    },
  )
}

function message({ status }: Json, type: string): string {
  return status.conditions.find((each: Json) => each.type === type).message
}

/** Reasons of the Events on an Ambassador. */
async function reasons(name: string): Promise<string[]> {
  const path = `/apis/events.k8s.io/v1/namespaces/${NAMESPACE}/events`
  const list = await client.request<Json>({ path, query: { fieldSelector: `regarding.name=${name}` } })
  return list.items.map((each: Json) => each.reason)
}

const sidecar = (name: string, serves: readonly string[], more: object = {}): Promise<FakeSidecar> =>
  fakeSidecar({ client, namespace: NAMESPACE, name, serves, node: NODE, ...more })

/** `kubectl wait` refuses a definition whose conditions are still null, as they are just after it is made. */
async function established(): Promise<void> {
  await eventually('definition established', async () => {
    const definition = await kubectl.get('crd', 'ambassadors.ambassador.dev')
    const conditions: { type: string; status: string }[] = definition.status?.conditions ?? []
    return conditions.some(({ type, status }) => type === 'Established' && status === 'True')
  })
}

before(async () => {
  cluster = await clusterForTests()
  kubectl = new Kubectl(cluster.binaries.kubectl, cluster.kubeconfig, NAMESPACE)
  client = createClient(await connectTo(cluster.kubeconfig))
  // Of a run that was killed: no kubelet would confirm their end.
  await kubectl.try(['delete', 'pods', '--all', '--grace-period=0', '--force'])
  for (const namespace of [NAMESPACE, OTHER]) await kubectl.freshNamespace(namespace)
  if (!(await kubectl.exists('crd/ambassadors.ambassador.dev'))) {
    ownsDefinition = true
    await kubectl.run(['create', '-f', '-'], { input: dump(crd(), { noRefs: true }) })
  }
  await established()
  await kubectl.apply([
    {
      apiVersion: 'v1',
      kind: 'Node',
      metadata: { name: NODE },
      spec: { taints: [{ key: 'test', effect: 'NoSchedule' }] },
    },
  ])
  await kubectl.apply(await rights())
  connection = await asServiceAccount()
  operator = await start('op-a')
  await eventually('ready', async () => operator.notReady().length === 0)
})

after(async () => {
  await operator?.stop()
  await kubectl.run(['delete', 'amb', '--all', '--wait=true']).catch(() => {})
  // No kubelet would confirm their end: a test that failed in its middle must not hang here.
  await kubectl.run(['delete', 'pods', '--all', '--grace-period=0', '--force'])
  await Promise.all([NAMESPACE, OTHER].map((namespace) => kubectl.delete(`namespace/${namespace}`)))
  await kubectl.run(['delete', 'clusterrole,clusterrolebinding', RIGHTS, '--ignore-not-found'])
  await kubectl.delete(`node/${NODE}`)
  if (ownsDefinition) await kubectl.delete('crd/ambassadors.ambassador.dev')
  client?.close()
})

describe('the controller on a real API server', { timeout: 900_000 }, () => {
  it('has no right on Secrets but where the chart grants it', async () => {
    const account = `system:serviceaccount:${NAMESPACE}:ambassador-operator`
    const can = async (verb: string, namespace: string): Promise<string> =>
      (await kubectl.in(namespace).try(['auth', 'can-i', verb, 'secrets/any', '--as', account])).stdout.trim()
    assert.deepEqual(
      [await can('get', NAMESPACE), await can('list', NAMESPACE), await can('get', OTHER)],
      ['yes', 'no', 'no'],
    )
  })

  // Each with Ambassadors of its own, and most of their time is waiting.
  describe('of many Ambassadors at a time', { concurrency: true }, () => {
    describe('an upstream that is a Service', () => {
      const upstreams = (service: object) => ({ upstreams: [{ name: 'live', service }] })
      const ports = [{ name: 'http', port: 80, targetPort: 8080 }]
      // Without a selector, so that the slices are ours to write.
      const service = (namespace: string, name: string, annotations = {}): object => ({
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name, namespace, annotations },
        spec: { ports },
      })
      const slice = (namespace: string, name: string, ...ips: string[]): object => ({
        apiVersion: 'discovery.k8s.io/v1',
        kind: 'EndpointSlice',
        metadata: { name: `${name}-1`, namespace, labels: { 'kubernetes.io/service-name': name } },
        addressType: 'IPv4',
        ports: [{ name: 'http', port: 8080, protocol: 'TCP' }],
        endpoints: ips.map((ip) => ({ addresses: [ip], conditions: { ready: true }, zone: 'a' })),
      })
      const discovery = async (name: string): Promise<Json> =>
        JSON.parse((await configMap(name)).data['config.json']).clusters[0].discovery
      /** Waits until these are the published endpoints. */
      const publishes = (name: string, ...ips: string[]): Promise<Json> =>
        eventually(
          `endpoints of ${name}`,
          async () => {
            const { endpoints } = await discovery(name)
            return JSON.stringify(endpoints.map(({ ip }: Json) => ip)) === JSON.stringify(ips) && { endpoints }
          },
          { timeoutMs: 10_000 },
        )

      it('has its endpoints in the ConfigMap, follows them under one hash, and keeps them when the Service goes', async () => {
        await kubectl.apply([manifest('of-service', upstreams({ name: 'orders', port: 80 }))])
        const missing = await becomes('of-service', {
          ResolvedRefs: 'False ReferenceMissing',
          Programmed: 'True NoPods',
        })
        assert.match(
          message(missing, 'ResolvedRefs'),
          /Service 'orders' of namespace 'test-controller' does not exist: create it/,
        )
        assert.deepEqual((await discovery('of-service')).endpoints, [])

        await kubectl.apply([service(NAMESPACE, 'orders')])
        await becomes('of-service', { ResolvedRefs: 'False NoEndpoints' })
        await kubectl.apply([slice(NAMESPACE, 'orders', '10.9.0.1')])
        const { status } = await becomes('of-service', { ResolvedRefs: 'True Resolved' })
        assert.deepEqual((await discovery('of-service')).endpoints, [{ ip: '10.9.0.1', port: 8080, zone: 'a' }])

        await kubectl.apply([slice(NAMESPACE, 'orders', '10.9.0.2', '10.9.0.3')])
        await publishes('of-service', '10.9.0.2', '10.9.0.3')
        const later = await becomes('of-service', { ResolvedRefs: 'True Resolved' })
        assert.equal(later.status.config.hash, status.config.hash)
        assert.ok(!(await reasons('of-service')).includes('Restored'))

        await kubectl.delete('service/orders')
        await becomes('of-service', { ResolvedRefs: 'False ReferenceMissing' })
        await publishes('of-service', '10.9.0.2', '10.9.0.3')
      })

      it('of another namespace is used only while it allows it', async () => {
        await kubectl.in(OTHER).apply([service(OTHER, 'billing'), slice(OTHER, 'billing', '10.9.1.1')])
        await kubectl.apply([manifest('of-other', upstreams({ name: 'billing', namespace: OTHER, port: 'http' }))])
        await becomes('of-other', { ResolvedRefs: 'False RefNotPermitted' })
        assert.deepEqual((await discovery('of-other')).endpoints, [])
        await kubectl.in(OTHER).apply([service(OTHER, 'billing', { 'ambassador.dev/allow-from': NAMESPACE })])
        await becomes('of-other', { ResolvedRefs: 'True Resolved' })
        await publishes('of-other', '10.9.1.1')
        await kubectl.in(OTHER).apply([service(OTHER, 'billing', { 'ambassador.dev/allow-from': 'somebody' })])
        await becomes('of-other', { ResolvedRefs: 'False RefNotPermitted' })
        await publishes('of-other')
      })
    })

    describe('the ConfigMap', { concurrency: 3 }, () => {
      it('is published at once, owned by the Ambassador, and status tells of it', async (t) => {
        await client.request({
          method: 'POST',
          path: `/apis/ambassador.dev/v1alpha1/namespaces/${NAMESPACE}/ambassadors`,
          body: manifest('fresh'),
        })
        const before = performance.now()
        const path = `/api/v1/namespaces/${NAMESPACE}/configmaps/ambassador-fresh`
        const map = await eventually('ConfigMap', () => client.request<Json>({ path }), {
          everyMs: 20,
          timeoutMs: 5000,
        })
        t.diagnostic(`after ${Math.round(performance.now() - before)} ms`)
        const object = await becomes('fresh', {
          Accepted: 'True Accepted',
          Programmed: 'True NoPods',
          Injected: 'False NoPods',
          Ready: 'False NoPods',
        })
        const [owner] = map.metadata.ownerReferences
        assert.deepEqual(
          [owner.kind, owner.name, owner.uid, owner.controller, owner.blockOwnerDeletion],
          ['Ambassador', 'fresh', object.metadata.uid, true, false],
        )
        assert.equal(map.metadata.labels['ambassador.dev/ambassador'], 'fresh')
        const config = JSON.parse(map.data['config.json'])
        assert.deepEqual(object.status.config, { hash: config.hash, configMapName: 'ambassador-fresh', generation: 1 })
        assert.deepEqual(config.ambassador, { namespace: NAMESPACE, name: 'fresh', generation: 1 })
        await eventually('event', async () => (await reasons('fresh')).includes('Published'))
      })

      const DATA = '/data/config.json'
      for (const [name, title, patch] of [
        ['data', 'its data are edited', [{ op: 'replace', path: DATA, value: '{}' }]],
        ['no-data', 'its data are taken away', [{ op: 'remove', path: '/data' }]],
        ['labels', 'its labels are taken away', [{ op: 'remove', path: '/metadata/labels' }]],
        ['owner', 'its owner is taken away', [{ op: 'remove', path: '/metadata/ownerReferences' }]],
      ] as const) {
        it(`is restored within 5 s when ${title}`, async () => {
          await kubectl.apply([manifest(name)])
          await becomes(name, { Programmed: 'True NoPods' })
          const good = await configMap(name)
          await kubectl.run(['patch', 'configmap', `ambassador-${name}`, '--type=json', '-p', JSON.stringify(patch)])
          await eventually(
            'restored',
            async () => {
              const { metadata, data } = await configMap(name)
              return (
                data?.['config.json'] === good.data['config.json'] &&
                metadata.labels?.['ambassador.dev/ambassador'] === name &&
                metadata.ownerReferences?.[0]?.uid === good.metadata.ownerReferences[0].uid
              )
            },
            { timeoutMs: 5000, everyMs: 100 },
          )
          await eventually('event', async () => (await reasons(name)).includes('Restored'))
        })
      }

      it('is made again within 5 s when it is deleted', async () => {
        await kubectl.apply([manifest('deleted')])
        await becomes('deleted', { Programmed: 'True NoPods' })
        const { metadata } = await configMap('deleted')
        await kubectl.delete('configmap/ambassador-deleted')
        await eventually('made again', async () => (await configMap('deleted')).metadata.uid !== metadata.uid, {
          timeoutMs: 5000,
        })
      })

      it('is never written to when it is not ours; the Ambassador says so, and takes the name when it is free', async () => {
        const theirs = {
          apiVersion: 'v1',
          kind: 'ConfigMap',
          metadata: { name: 'ambassador-taken', namespace: NAMESPACE },
          data: { mine: 'yes' },
        }
        await kubectl.apply([theirs])
        const { metadata } = await configMap('taken')
        await kubectl.apply([manifest('taken')])
        const object = await becomes('taken', {
          Accepted: 'False NameTaken',
          Programmed: 'False NameTaken',
          Ready: 'False NameTaken',
        })
        assert.match(
          message(object, 'Accepted'),
          /^ConfigMap 'ambassador-taken' exists and is not of this Ambassador, .*: rename or delete it/,
        )
        assert.equal(object.status.config, undefined)
        await eventually('event', async () => (await reasons('taken')).includes('NameTaken'))
        assert.equal((await configMap('taken')).metadata.resourceVersion, metadata.resourceVersion)
        await kubectl.delete('configmap/ambassador-taken')
        await becomes('taken', { Accepted: 'True Accepted', Programmed: 'True NoPods' })
      })

      it('goes over to an Ambassador that is deleted and made again at once', async () => {
        await kubectl.apply([manifest('again')])
        const first = await becomes('again', { Programmed: 'True NoPods' })
        await kubectl.delete('amb/again')
        await kubectl.apply([manifest('again', { listen: { port: 9091 } })])
        const second = await becomes('again', { Programmed: 'True NoPods' })
        assert.notEqual(second.metadata.uid, first.metadata.uid)
        // The garbage collector may still take the old one away; what counts is what stays.
        const since = performance.now()
        await eventually('the new owner for three seconds', async () => {
          const { metadata, data } = await configMap('again')
          assert.deepEqual(
            metadata.ownerReferences.map((each: Json) => each.uid),
            [second.metadata.uid],
          )
          assert.equal(JSON.parse(data['config.json']).listener.port, 9091)
          return performance.now() - since > 3000
        })
      })

      it('goes with the Ambassador', async () => {
        await kubectl.apply([manifest('gone')])
        await becomes('gone', { Programmed: 'True NoPods' })
        await kubectl.delete('amb/gone')
        await kubectl.gone('configmap/ambassador-gone', 120_000)
      })
    })

    // Most of their time is waiting for what the operator does every few seconds.
    describe('status', { concurrency: 3 }, () => {
      it('follows pods and their sidecars: starting, loading, programmed, another generation, unreachable', async () => {
        await kubectl.apply([manifest('live')])
        await becomes('live', { Programmed: 'True NoPods' })
        await using a = await sidecar('live-a', ['live'])
        await becomes('live', { Injected: 'True Injected', Programmed: 'False Loading', Ready: 'False Loading' })
        await a.load('live')
        await a.status({})
        let object = await becomes('live', {
          Programmed: 'True Programmed',
          UpToDate: 'True Current',
          Ready: 'True Ready',
        })
        assert.deepEqual(object.status.pods, { injected: 1, ready: 1, current: 1, missing: 0 })
        assert.deepEqual(object.status.versions, [
          { image: 'ambassador-proxy:test', configHash: object.status.config.hash, pods: 1 },
        ])
        assert.match(await kubectl.run(['get', 'amb', 'live', '--no-headers']), /1\/1/)

        await kubectl.apply([manifest('live', { listen: { port: 8082 } })])
        object = await becomes('live', {
          Programmed: 'False Loading',
          UpToDate: 'False Updating',
          Ready: 'False Loading',
        })
        assert.match(message(object, 'Programmed'), /pod 'live-a' has not loaded generation 2 yet/)
        await eventually('touched', async () => (await a.touched())?.startsWith(object.status.config.hash))
        await a.load('live')
        await becomes('live', { Programmed: 'True Programmed', Ready: 'True Ready' })

        await a.silence()
        await a.status({ ready: false })
        object = await becomes('live', { Programmed: 'Unknown Unreachable', Ready: 'Unknown Unreachable' })
        assert.match(message(object, 'Programmed'), /^pod 'live-a' does not answer the operator \(.*ECONNREFUSED/)
        assert.deepEqual(object.status.pods, { injected: 1, ready: 0, current: 0, missing: 0 })
        await eventually('event', async () => (await reasons('live')).includes('Unreachable'))
      })

      it('touches a pod again and again until its sidecar has loaded, and then leaves it alone', async () => {
        await kubectl.apply([manifest('touch')])
        await becomes('touch', { Programmed: 'True NoPods' })
        await using a = await sidecar('touch-a', ['touch'])
        await a.load('touch')
        await a.status({})
        await becomes('touch', { Programmed: 'True Programmed' })
        assert.equal(await a.touched(), undefined)
        await kubectl.apply([manifest('touch', { listen: { port: 8082 } })])
        const values = new Set<string | undefined>()
        await eventually('three touches', async () => values.add(await a.touched()).size >= 4, { everyMs: 100 })
        await a.load('touch')
        await becomes('touch', { Programmed: 'True Programmed' })
        const last = await a.touched()
        await new Promise((resolve) => setTimeout(resolve, 5000))
        assert.equal(await a.touched(), last)
      })

      it('tells pods that need a restart from those that do not, and which Secret is missing', async () => {
        const ref = { kind: 'secret', name: 'token', key: 'token' } as const
        await kubectl.apply([manifest('refs', {}, NAMESPACE)])
        await becomes('refs', { ResolvedRefs: 'True NoReferences', Programmed: 'True NoPods' })
        await using old = await sidecar('refs-old', ['refs'])
        await using fresh = await sidecar('refs-new', ['refs'])
        for (const each of [old, fresh]) {
          await each.load('refs')
          await each.status({})
        }
        await becomes('refs', { Ready: 'True Ready' })
        await kubectl.apply([secret('token', { token: 'secret' })])
        await kubectl.apply([manifest('refs', withToken('token'))])
        const { status } = await becomes('refs', { Programmed: 'False Loading' })
        old.report('refs', {
          refs: [{ ref, state: 'NotMounted', message: 'not mounted' }],
          rejected: {
            hash: status.config.hash,
            generation: 2,
            reason: 'NotMounted',
            message: "Secret 'token' is not mounted, restart the pod",
            at: '',
          },
        })
        await fresh.load('refs')
        fresh.report('refs', { refs: [{ ref, state: 'Found', message: '' }] })
        const object = await becomes('refs', {
          UpToDate: 'False RestartRequired',
          Programmed: 'False Rejected',
          Ready: 'False Rejected',
        })
        assert.match(message(object, 'UpToDate'), /^pod 'refs-old' does not mount Secret 'token': restart/)
        // The one that is refused makes the conditions, whichever of the two is asked first.
        await eventually('the other one is counted', async () => (await amb('refs')).status.pods.current === 1)
        await eventually('event', async () => (await reasons('refs')).includes('RestartRequired'))
        await old[Symbol.asyncDispose]()
        await becomes('refs', { UpToDate: 'True Current', ResolvedRefs: 'True Resolved', Ready: 'True Ready' })
        fresh.report('refs', { refs: [{ ref, state: 'Missing', message: 'no file' }] })
        await fresh.status({ ready: false })
        await becomes('refs', { ResolvedRefs: 'False ReferenceMissing' })
        // Its kubelet is made to look, and looks again when the Secret may be there at last.
        const values = new Set([await fresh.touched()])
        await eventually('two touches', async () => values.add(await fresh.touched()).size >= 3)
        const unready = ["upstream 'live': the token cannot be read"]
        fresh.report('refs', { refs: [{ ref, state: 'Found', message: '' }], unready })
        const { metadata } = await becomes('refs', { ResolvedRefs: 'True Resolved', Ready: 'False PodsNotReady' })
        assert.match(
          message(await amb(metadata.name), 'Ready'),
          /^the sidecar of pod 'refs-new' is not ready: upstream 'live': the token cannot be read: see kubectl logs/,
        )
      })

      it('says before the first pod that a Secret is missing, where the operator may look, and that it was not checked elsewhere', async () => {
        await kubectl.apply([manifest('early', withToken('early-token'))])
        await kubectl.in(OTHER).apply([manifest('early', withToken('early-token'), OTHER)])
        const object = await becomes('early', { ResolvedRefs: 'False ReferenceMissing' })
        assert.equal(message(object, 'ResolvedRefs'), "Secret 'early-token' does not exist: create it with key 'token'")
        await becomes('early', { ResolvedRefs: 'Unknown NotChecked' }, { namespace: OTHER })
        await kubectl.apply([secret('early-token', { other: 'secret' })])
        await eventually(
          'key',
          async () => message(await amb('early'), 'ResolvedRefs') === "Secret 'early-token' has no key 'token': add it",
          { timeoutMs: 120_000 },
        )
        await kubectl.run(['patch', 'secret', 'early-token', '-p', '{"stringData":{"token":"secret"}}'])
        await becomes('early', { ResolvedRefs: 'True Resolved' }, { timeoutMs: 120_000 })
      })

      it('counts and names pods that ask for it and have no sidecar, within 5 s', async () => {
        await kubectl.apply([manifest('missing')])
        await becomes('missing', { Programmed: 'True NoPods' })
        const pod = (name: string, inject: string): object => ({
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name, namespace: NAMESPACE, annotations: { 'ambassador.dev/inject': inject } },
          spec: { nodeName: NODE, containers: [{ name: 'app', image: 'app' }] },
        })
        await kubectl.apply([pod('bare', 'other,missing'), pod('opted-out', 'false')])
        const object = await becomes(
          'missing',
          { Injected: 'False PodsMissingSidecar', Ready: 'False PodsMissingSidecar' },
          { timeoutMs: 5000 },
        )
        assert.equal(object.status.pods.missing, 1)
        assert.deepEqual(
          object.status.missing.map((each: Json) => each.pod),
          ['bare'],
        )
        assert.match(object.status.missing[0].reason, /created before the annotation .*: delete it/)
        await using partial = await sidecar('partial', ['another'], { inject: 'another,missing' })
        await eventually('two', async () => (await amb('missing')).status.pods.missing === 2)
        assert.match(
          (await amb('missing')).status.missing[1].reason,
          /its sidecar serves another, the annotation was changed/,
        )
        await partial[Symbol.asyncDispose]()
        for (const name of ['bare', 'opted-out']) await kubectl.delete(`pod/${name}`, 0)
        await becomes('missing', { Injected: 'False NoPods' })
      })

      it('is not Ready while a workload that was annotated still runs pods from before', async () => {
        await kubectl.apply([manifest('rollout')])
        await using fresh = await sidecar('rollout-new', ['rollout'], { labels: { app: 'checkout' } })
        await eventually('published', () => configMap('rollout'))
        await fresh.load('rollout')
        await fresh.status({})
        await becomes('rollout', { Ready: 'True Ready' })
        const template = (annotations: object): object => ({
          metadata: { labels: { app: 'checkout' }, annotations },
          spec: { containers: [{ name: 'app', image: 'app' }] },
        })
        const pod = {
          apiVersion: 'v1',
          kind: 'Pod',
          metadata: { name: 'checkout-old', namespace: NAMESPACE, labels: { app: 'checkout' } },
          spec: { nodeName: NODE, containers: [{ name: 'app', image: 'app' }] },
        }
        const deployment = (annotations: object): object => ({
          apiVersion: 'apps/v1',
          kind: 'Deployment',
          metadata: { name: 'checkout', namespace: NAMESPACE },
          spec: {
            replicas: 0,
            paused: true,
            selector: { matchLabels: { app: 'checkout' } },
            template: template(annotations),
          },
        })
        await kubectl.apply([pod, deployment({})])
        await kubectl.apply([deployment({ 'ambassador.dev/inject': 'rollout' })])
        const object = await becomes('rollout', {
          Injected: 'False RolloutInProgress',
          Ready: 'False RolloutInProgress',
        })
        assert.equal(
          message(object, 'Injected'),
          "Deployment 'checkout' still runs pod 'checkout-old' from before the annotation",
        )
        await kubectl.delete('pod/checkout-old', 0)
        await becomes('rollout', { Injected: 'True Injected', Ready: 'True Ready' })
        await kubectl.delete('deployment/checkout')
      })

      it('is not Ready while a ReplicaSet of nobody keeps pods from before its annotation', async () => {
        await kubectl.apply([manifest('bare-set')])
        await using fresh = await sidecar('bare-set-new', ['bare-set'])
        await eventually('published', () => configMap('bare-set'))
        await fresh.load('bare-set')
        await fresh.status({})
        await becomes('bare-set', { Ready: 'True Ready' })
        const labels = { app: 'stock' }
        const spec = { nodeName: NODE, containers: [{ name: 'app', image: 'app' }] }
        const set = (annotations: object, replicas: number): object => ({
          apiVersion: 'apps/v1',
          kind: 'ReplicaSet',
          metadata: { name: 'stock', namespace: NAMESPACE },
          spec: { replicas, selector: { matchLabels: labels }, template: { metadata: { labels, annotations }, spec } },
        })
        const metadata = { name: 'stock-old', namespace: NAMESPACE, labels }
        await kubectl.apply([{ apiVersion: 'v1', kind: 'Pod', metadata, spec }, set({}, 1)])
        await kubectl.apply([set({ 'ambassador.dev/inject': 'bare-set' }, 1)])
        const object = await becomes('bare-set', {
          Injected: 'False RolloutInProgress',
          Ready: 'False RolloutInProgress',
        })
        assert.equal(
          message(object, 'Injected'),
          "ReplicaSet 'stock' still runs pod 'stock-old' from before the annotation: delete it, the workload updates on delete",
        )
        await kubectl.apply([set({ 'ambassador.dev/inject': 'bare-set' }, 0)])
        await becomes('bare-set', { Injected: 'True Injected', Ready: 'True Ready' })
        await kubectl.delete('replicaset/stock')
        await kubectl.delete('pod/stock-old', 0)
      })
    })
  })

  describe('status, for once alone,', () => {
    it('of a stored spec that is invalid says why, and the last good configuration stays', async () => {
      await kubectl.apply([manifest('invalid')])
      await using a = await sidecar('invalid-a', ['invalid'])
      const good = await eventually('published', () => configMap('invalid'))
      await a.load('invalid')
      await a.status({})
      await becomes('invalid', { Ready: 'True Ready' })
      // As an object looks that was stored before a rule existed: the definition forgets its rules for a moment.
      const saved = await kubectl.get('crd', 'ambassadors.ambassador.dev')
      const schema = '/spec/versions/0/schema/openAPIV3Schema/properties/spec'
      const anything = { type: 'object', 'x-kubernetes-preserve-unknown-fields': true }
      const patch = async (value: object): Promise<void> => {
        // The schema is too long for an argument.
        const file = join(tmpdir(), `ambassador-patch-${process.pid}.json`)
        writeFileSync(file, JSON.stringify([{ op: 'replace', path: schema, value }]))
        await kubectl.run(['patch', 'crd', 'ambassadors.ambassador.dev', '--type=json', '--patch-file', file])
        rmSync(file)
      }
      await patch(anything)
      try {
        const invalid = manifest('invalid', {
          upstreams: [{ name: 'live', endpoints: [{ host: 'api.example.com', port: 70000 }] }],
        })
        await eventually(
          'stored',
          async () => (await kubectl.try(['apply', '-f', '-'], { input: JSON.stringify(invalid) })).code === 0,
        )
      } finally {
        await patch(saved.spec.versions[0].schema.openAPIV3Schema.properties.spec)
      }
      const object = await becomes('invalid', {
        Accepted: 'False Invalid',
        Programmed: 'False Invalid',
        Ready: 'False Invalid',
      })
      assert.equal(
        message(object, 'Accepted'),
        'spec.upstreams[0].endpoints[0].port: 70000 is out of range, use 1 to 65535',
      )
      assert.match(message(object, 'Programmed'), /^generation 2 is not accepted; 1 sidecar serves generation 1/)
      assert.equal((await configMap('invalid')).data['config.json'], good.data['config.json'])
      assert.equal(object.status.config.generation, 1)
      await eventually('event', async () => (await reasons('invalid')).includes('Invalid'))
      await eventually(
        'valid again',
        async () =>
          (await kubectl.try(['apply', '-f', '-'], { input: JSON.stringify(manifest('invalid')) })).code === 0,
      )
      await becomes('invalid', { Accepted: 'True Accepted', Ready: 'True Ready' })
    })

    it('is written at most once a second, however often pods change', async () => {
      await kubectl.apply([manifest('swarm')])
      await becomes('swarm', { Programmed: 'True NoPods' })
      const metric = async (): Promise<number> => (await operator.metrics.statusWrites.get()).values[0]?.value ?? 0
      const before = await metric()
      const started = performance.now()
      await using stack = new AsyncDisposableStack()
      for (let i = 0; i < 15; i++) stack.use(await sidecar(`swarm-${i}`, ['swarm']))
      await eventually('counted', async () => (await amb('swarm')).status.pods.injected === 15)
      const seconds = (performance.now() - started) / 1000
      const writes = (await metric()) - before
      assert.ok(writes <= seconds + 2, `${writes} writes in ${seconds} s`)
    })
  })

  describe('two replicas', () => {
    it('hand over at once when the leader stops, and only one of them ever writes', async () => {
      const second = await start('op-b')
      await eventually('ready', async () => second.notReady().length === 0)
      assert.deepEqual([operator.isLeading, second.isLeading], [true, false])
      assert.match(await second.registry.metrics(), /^ambassador_leader 0$/m)
      const started = performance.now()
      await operator.stop()
      await eventually('second leads', async () => second.isLeading, { everyMs: 50 })
      // One that had to wait for the end of the Lease would lead after 15 s.
      const tookMs = performance.now() - started
      assert.ok(tookMs < 10_000, `${Math.round(tookMs)} ms`)
      await kubectl.apply([manifest('handover')])
      await becomes('handover', { Programmed: 'True NoPods' })
      // What the first one wrote is right, so the second one writes nothing again.
      assert.equal((await second.metrics.publishes.get()).values[0]?.value, 1)
      const lease = await client.request<KubeObject & { spec: { holderIdentity: string } }>({
        path: `/apis/coordination.k8s.io/v1/namespaces/${NAMESPACE}/leases/ambassador-operator`,
      })
      assert.match(lease.spec.holderIdentity, /^op-b_/)
      operator = second
    })

    it('survive the loss of everything that is watched: the definition deleted and made again', {
      skip: false,
    }, async (t) => {
      if (!ownsDefinition) return t.skip('the definition of this cluster is not ours to delete')
      await kubectl.delete('crd/ambassadors.ambassador.dev')
      await new Promise((resolve) => setTimeout(resolve, 2000))
      assert.deepEqual(operator.notReady(), [])
      await kubectl.run(['create', '-f', '-'], { input: dump(crd(), { noRefs: true }) })
      await established()
      await kubectl.apply([manifest('reborn')])
      await becomes('reborn', { Programmed: 'True NoPods' }, { timeoutMs: 120_000 })
    })
  })
})
