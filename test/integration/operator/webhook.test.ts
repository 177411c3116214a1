import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect as connectTls } from 'node:tls'
import { load, loadAll } from 'js-yaml'
import { Registry } from 'prom-client'
import { silentLog } from '../../../common/log.ts'
import { createClient, type KubeClient } from '../../../operator/kube/client.ts'
import { systemClock } from '../../../operator/kube/clock.ts'
import { ApiError } from '../../../operator/kube/errors.ts'
import { startWebhook, type Webhook } from '../../../operator/webhook/server.ts'
import { connectTo } from '../../cluster/client.ts'
import { type Cluster, clusterForTests } from '../../cluster/cluster.ts'
import { eventually, execute, type Json, Kubectl } from '../../e2e/lib/kubectl.ts'
import { ambassador, nodes, SETTINGS } from '../../helpers/injection.ts'

// The webhook runs in this process, and a real API server calls it as the chart's own configuration says, narrowed to the
// namespaces of this test. Pods are only looked at, so every image is one that does nothing.

const NAMESPACE = 'test-webhook'
/** Where the policy looks and the webhook does not: as if another webhook had added the annotation after ours. */
const BEHIND = 'test-webhook-behind'
const NAME = 'ambassador-injector-test'
const IMAGE = 'localhost/pause:1'
const INJECT = 'ambassador.dev/inject'
const CONTEXT = {
  allowPrivilegeEscalation: false,
  capabilities: { drop: ['ALL'] },
  runAsNonRoot: true,
  runAsUser: 1000,
  seccompProfile: { type: 'RuntimeDefault' },
}
const APP = { name: 'app', image: IMAGE, imagePullPolicy: 'IfNotPresent', securityContext: CONTEXT }
const KNOWN = [
  ambassador('payments', { secrets: ['token'] }),
  ambassador('cache', { port: 6379, hostnames: ['redis'] }),
  ambassador('notes', { port: 8400, listenSocket: '/run/notes/notes.sock' }),
]

const template = (app: string, annotations: Record<string, string> = {}, spec: object = {}): Json => ({
  metadata: { labels: { app }, annotations },
  spec: { terminationGracePeriodSeconds: 0, containers: [APP], ...spec },
})
const pod = (name: string, inject: string | null, spec: object = {}): object => {
  const made = template(name, inject === null ? undefined : { [INJECT]: inject }, spec)
  return { apiVersion: 'v1', kind: 'Pod', ...made, metadata: { ...made.metadata, name } }
}
const workload = (kind: string, name: string, own: string | null, inTemplate: string | null): object => {
  const annotations: Record<string, string> = inTemplate === null ? {} : { [INJECT]: inTemplate }
  const isBatch = kind === 'Job' || kind === 'CronJob'
  const made = template(name, annotations, isBatch ? { restartPolicy: 'Never' } : {})
  const spec: Record<string, object> = {
    Job: { template: made },
    CronJob: { schedule: '0 0 1 1 *', jobTemplate: { spec: { template: made } } },
    StatefulSet: { serviceName: name, selector: { matchLabels: { app: name } }, template: made },
  }
  return {
    apiVersion: isBatch ? 'batch/v1' : 'apps/v1',
    kind,
    metadata: { name, annotations: own === null ? {} : { [INJECT]: own } },
    spec: spec[kind] ?? { selector: { matchLabels: { app: name } }, template: made },
  }
}

let cluster: Cluster
let kubectl: Kubectl
let client: KubeClient
let webhook: Webhook
let registry: Registry
let configuration: Json

/** The chart's objects, calling this process, for the namespaces of this test alone. */
const chartObjects = async (port: number): Promise<Json[]> => {
  const args = ['template', 'ambassador', 'charts/ambassador', '--kube-version', '1.34.0']
  const { stdout, stderr, code } = await execute(cluster.binaries.helm, [
    ...args,
    ...['--show-only', 'templates/webhook.yaml', '--show-only', 'templates/policy.yaml'],
  ])
  assert.equal(code, 0, stderr)
  const only = (...values: string[]) => ({
    matchExpressions: [{ key: 'kubernetes.io/metadata.name', operator: 'In', values }],
  })
  const objects = (loadAll(stdout) as Json[]).filter((object) => object !== null && object !== undefined)
  for (const object of objects) {
    object.metadata = { name: NAME }
    for (const each of object.webhooks ?? []) {
      each.namespaceSelector = only(NAMESPACE)
      each.clientConfig = { url: `https://${cluster.hostAddress}:${port}${each.clientConfig.service.path}` }
    }
    if (object.spec?.matchConstraints) object.spec.matchConstraints.namespaceSelector = only(NAMESPACE, BEHIND)
    if (object.spec?.policyName) object.spec.policyName = NAME
  }
  return objects
}

const start = async (port: number): Promise<void> => {
  registry = new Registry()
  webhook = await startWebhook({
    client,
    clock: systemClock,
    log: silentLog,
    registry,
    namespace: NAMESPACE,
    port,
    names: [cluster.hostAddress ?? ''],
    configuration: NAME,
    source: {
      cached: (namespace, name) => (namespace === NAMESPACE ? KNOWN.find((each) => each.name === name) : undefined),
      fetch: async () => undefined,
      names: () => KNOWN.map((each) => each.name),
    },
    nodes: nodes({ kubeletVersion: 'v1.34.4' }),
    settings: { ...SETTINGS, image: IMAGE },
    // Long enough for an API server of a busy machine to hear of a CA before it signs.
    lifetimes: { checkMs: 500, settleMs: 4000 },
  })
}

const cleanUp = async (): Promise<void> => {
  const kinds = ['mutatingwebhookconfiguration', 'validatingadmissionpolicy', 'validatingadmissionpolicybinding']
  for (const kind of kinds) await kubectl.run(['delete', kind, NAME, '--ignore-not-found'])
  await Promise.all([NAMESPACE, BEHIND].map((namespace) => kubectl.delete(`namespace/${namespace}`)))
}

const sidecars = (object: Json): Json[] =>
  [...(object.spec.initContainers ?? []), ...object.spec.containers].filter((each: Json) => each.name === 'ambassador')
const assertInjected = (object: Json): void => {
  assert.equal(sidecars(object).length, 1)
  assert.equal(object.spec.initContainers[0].name, 'ambassador')
  assert.equal(object.spec.initContainers[0].restartPolicy, 'Always')
  assert.equal(object.metadata.labels['ambassador.dev/injected'], 'true')
}
const reviews = async (match = ''): Promise<number> => {
  const lines = (await registry.metrics()).split('\n').filter((l) => l.startsWith('ambassador_webhook_reviews_total{'))
  return lines.filter((line) => line.includes(match)).reduce((sum, line) => sum + Number(line.split(' ').at(-1)), 0)
}
/** Asks for a pod that is not kept: what the API server says when it is refused. */
const refusal = async (body: object, namespace = NAMESPACE): Promise<string | undefined> => {
  const path = `/api/v1/namespaces/${namespace}/pods`
  try {
    await client.request({ method: 'POST', path, query: { dryRun: 'All' }, body, timeoutMs: 60_000 })
    return undefined
  } catch (error) {
    if (error instanceof ApiError) return error.message
    throw error
  }
}
const onePod = (app: string, is: (object: Json) => boolean = () => true): Promise<Json> =>
  eventually(`a pod of ${app}`, async () => (await kubectl.pods(`app=${app}`)).find(is), { everyMs: 100 })

const decode = (base64: string): string => Buffer.from(base64, 'base64').toString()
/** The newest CA, in PEM. */
const authority = async (): Promise<string> =>
  decode((await kubectl.get('secret', 'ambassador-operator-ca')).data['ca.crt'])
/** Whether a new connection is served a certificate of this CA. */
const isServed = (ca: string): Promise<boolean> =>
  new Promise((resolve) => {
    const host = cluster.hostAddress ?? ''
    const socket = connectTls({ host, port: webhook.port, ca, rejectUnauthorized: false }, () => {
      resolve(socket.authorized)
      socket.destroy()
    })
    socket.once('error', () => resolve(false))
  })

describe('the webhook and a real API server', {
  skip: process.env['TEST_KUBECONFIG'] ? 'a given cluster cannot call this process' : false,
}, () => {
  before(async () => {
    cluster = await clusterForTests()
    kubectl = new Kubectl(cluster.binaries.kubectl, cluster.kubeconfig, NAMESPACE)
    client = createClient(await connectTo(cluster.kubeconfig))
    await cleanUp()
    await kubectl.freshNamespace(NAMESPACE, { 'pod-security.kubernetes.io/enforce': 'restricted' })
    await kubectl.freshNamespace(BEHIND)
    await start(0)
    assert.equal(webhook.isReady(), false)
    const objects = await chartObjects(webhook.port)
    configuration = objects.find((object) => object.kind === 'MutatingWebhookConfiguration')
    for (const object of objects) {
      await kubectl.run(['apply', '--server-side', '--field-manager=helm', '-f', '-'], {
        input: JSON.stringify(object),
      })
    }
    await eventually('a trusted CA', async () => webhook.isReady(), { everyMs: 50 })
    // An API server takes a moment to see the configuration; nothing tells when.
    await eventually('the webhook is called', async () => {
      await refusal(pod('first', 'payments'))
      return (await reviews()) > 0
    })
    await eventually('the policy is in force', async () =>
      (await refusal(pod('first', 'payments'), BEHIND))?.includes('ambassador.dev/inject'),
    )
  })

  after(async () => {
    await cleanUp()
    await webhook?.close()
    client?.close()
  })

  it('is not called for pods and workloads that did not ask', async () => {
    const calls = await reviews()
    const plain = ['a', 'b', 'c'].map((name) => pod(`plain-${name}`, null))
    await kubectl.apply([...plain, workload('Deployment', 'plain', null, null), pod('plain-off', 'false')])
    await onePod('plain')
    await kubectl.run(['label', 'deployment', 'plain', 'touched=yes'])
    await kubectl.run(['annotate', 'pod', 'plain-a', `${INJECT}=payments`])
    await kubectl.run(['scale', 'deployment', 'plain', '--replicas=2'])
    await eventually('two pods', async () => (await kubectl.pods('app=plain')).length === 2)
    await kubectl.run(['delete', 'deployment', 'plain', '--cascade=foreground'])
    assert.equal(await reviews(), calls)
  })

  for (const kind of ['Deployment', 'StatefulSet', 'DaemonSet', 'ReplicaSet', 'Job']) {
    it(`injects the pods of a ${kind} whose template asks`, async () => {
      const name = `in-${kind.toLowerCase()}`
      await kubectl.apply([workload(kind, name, null, 'payments')])
      assertInjected(await onePod(name))
    })

    it(`injects the pods of a ${kind} that asks itself`, async () => {
      const name = `by-${kind.toLowerCase()}`
      await kubectl.apply([workload(kind, name, 'cache', null)])
      const object = await onePod(name)
      assertInjected(object)
      assert.deepEqual(object.spec.hostAliases, [{ ip: '127.0.0.1', hostnames: ['redis'] }])
    })
  }

  it('injects a bare pod, and the pods of a CronJob that asks itself', async () => {
    await kubectl.apply([pod('bare', 'payments,cache'), workload('CronJob', 'cron', 'payments', null)])
    assertInjected(await kubectl.get('pod', 'bare'))
    await kubectl.run(['create', 'job', 'from-cron', '--from=cronjob/cron'])
    assertInjected(await onePod('cron'))
  })

  it('follows kubectl annotate, and its removal', async () => {
    // The images do nothing, so no pod gets ready and no rolling update would end.
    const late = workload('Deployment', 'late', null, null) as Json
    await kubectl.apply([{ ...late, spec: { ...late.spec, strategy: { type: 'Recreate' } } }])
    await onePod('late')
    await kubectl.run(['annotate', 'deployment', 'late', `${INJECT}=payments`])
    const annotated = await kubectl.get('deployment', 'late')
    assert.deepEqual(annotated.spec.template.metadata.annotations, {
      [INJECT]: 'payments',
      'ambassador.dev/copied-from-workload': 'payments',
    })
    assertInjected(await onePod('late', (object) => object.metadata.annotations?.[INJECT] === 'payments'))
    await kubectl.run(['annotate', 'deployment', 'late', `${INJECT}-`])
    assert.equal((await kubectl.get('deployment', 'late')).spec.template.metadata.annotations, undefined)
    let seen: unknown
    await eventually(
      'only pods without a sidecar',
      async () => {
        const pods = await kubectl.pods('app=late')
        seen = pods.map((each) => [each.metadata.name, sidecars(each).length, each.metadata.deletionTimestamp])
        return pods.length === 1 && sidecars(pods[0]).length === 0
      },
      { seen: () => seen },
    )
  })

  it('does not lose the copy when the same manifest is applied again, by either kind of apply', async () => {
    const object = workload('Deployment', 'again', 'payments', null)
    for (const args of [['apply'], ['apply', '--server-side', '--force-conflicts']]) {
      for (let i = 0; i < 2; i++) await kubectl.run([...args, '-f', '-'], { input: JSON.stringify(object) })
      assert.equal((await kubectl.get('deployment', 'again')).spec.template.metadata.annotations[INJECT], 'payments')
    }
    const { generation } = (await kubectl.get('deployment', 'again')).metadata
    await kubectl.run(['apply', '--server-side', '--force-conflicts', '-f', '-'], { input: JSON.stringify(object) })
    assert.equal((await kubectl.get('deployment', 'again')).metadata.generation, generation)
  })

  it('tells a typing error at kubectl annotate and at kubectl apply', async () => {
    const text =
      'ambassador.dev/inject: Ambassador "paymnts" does not exist in namespace "test-webhook" (did you mean "payments"?); create it or correct the annotation'
    await kubectl.apply([workload('Deployment', 'typo', null, null)])
    const annotated = await kubectl.try(['annotate', 'deployment', 'typo', `${INJECT}=paymnts`])
    assert.equal(annotated.code, 0)
    assert.ok(annotated.stderr.includes(`Warning: pods of this Deployment will be refused: ${text}`), annotated.stderr)
    const applied = await kubectl.try(['apply', '-f', '-'], {
      input: JSON.stringify(workload('Deployment', 'typo-in-template', null, 'paymnts')),
    })
    assert.equal(applied.code, 0)
    assert.ok(applied.stderr.includes(`Warning: pods of this Deployment will be refused: ${text}`), applied.stderr)
    await eventually('the same in the events of the ReplicaSet', async () => {
      const events = await kubectl.get('events', '--field-selector=reason=FailedCreate')
      return events.items.some((event: Json) =>
        event.message.includes(`admission webhook "pods.ambassador.dev" denied the request: ${text}`),
      )
    })
  })

  it('says of a Job that exists what to do', async () => {
    await kubectl.apply([workload('Job', 'existing', null, null)])
    const { code, stderr } = await kubectl.try(['annotate', 'job', 'existing', `${INJECT}=payments`])
    assert.equal(code, 0)
    assert.match(stderr, /Warning: .* delete the Job and create it again with the annotation/)
  })

  it('refuses in words that reach the terminal', async () => {
    const refused = async (object: object): Promise<string> => {
      const { code, stderr } = await kubectl.try(['create', '-f', '-'], { input: JSON.stringify(object) })
      assert.equal(code, 1)
      return stderr.trim()
    }
    const says = (reason: string, text: string) =>
      `Error from server (${reason}): error when creating "STDIN": admission webhook "pods.ambassador.dev" denied the request: ambassador.dev/inject: ${text}`
    const ports = [{ containerPort: 8081 }]
    assert.equal(
      await refused(pod('x', 'payments', { containers: [{ ...APP, ports }] })),
      says(
        'PortConflict',
        'Ambassador "payments" listens on port 8081, which container "app" uses; change spec.listen.port, for example to 8082, or the container\'s port',
      ),
    )
    assert.equal(
      await refused(pod('x', 'payments,payments')),
      says('InvalidAnnotation', 'Ambassador "payments" is named twice; remove one of the two'),
    )
    assert.equal(
      await refused(pod('x', 'payments', { containers: [{ ...APP, name: 'ambassador' }] })),
      says(
        'NameConflict',
        'the pod has a container of its own named "ambassador", which is the name of the sidecar; rename it',
      ),
    )
  })

  it('leaves nothing behind on a dry run', async () => {
    const before = (await kubectl.get('events,secrets,configmaps,pods')).items.length
    const out = await kubectl.run(['create', '--dry-run=server', '-o', 'json', '-f', '-'], {
      input: JSON.stringify(pod('dry', 'payments')),
    })
    assertInjected(JSON.parse(out))
    assert.equal((await kubectl.get('events', '--field-selector=involvedObject.name=dry')).items.length, 0)
    const after = (await kubectl.get('events,secrets,configmaps,pods')).items.map((each: Json) => each.metadata.name)
    assert.ok(!after.includes('dry'), `${before} objects before`)
    assert.ok((await reviews('dry_run="true"')) > 0)
  })

  it('finds nothing to change in a pod as the API server has stored it', async () => {
    const stored = await kubectl.get('pod', 'bare')
    const {
      name: _,
      uid: __,
      resourceVersion: ___,
      creationTimestamp: ____,
      managedFields: _____,
      ...metadata
    } = stored.metadata
    const { nodeName: ______, ...spec } = stored.spec
    const unchanged = await reviews('result="unchanged"')
    await kubectl.run(['create', '-f', '-'], {
      input: JSON.stringify({ apiVersion: 'v1', kind: 'Pod', metadata: { ...metadata, name: 'bare-again' }, spec }),
    })
    const again = await kubectl.get('pod', 'bare-again')
    assertInjected(again)
    assert.deepEqual(again.spec.volumes.length, stored.spec.volumes.length)
    assert.ok((await reviews('result="unchanged"')) > unchanged)
  })

  it('shares the directory of a socket with the application, and finds nothing to change in it as it is stored', async () => {
    await kubectl.run(['create', '-f', '-'], { input: JSON.stringify(pod('by-path', 'notes')) })
    const { metadata, spec } = await kubectl.get('pod', 'by-path')
    assertInjected({ metadata, spec })
    const directory = spec.volumes.find((volume: Json) => volume.name.startsWith('ambassador-sockets-'))
    assert.deepEqual(directory.emptyDir, {})
    for (const container of [spec.initContainers[0], spec.containers[0]]) {
      const mounts = container.volumeMounts.filter((mount: Json) => mount.mountPath === '/run/notes')
      assert.deepEqual(mounts, [{ mountPath: '/run/notes', name: directory.name }])
    }
    const unchanged = await reviews('result="unchanged"')
    const { annotations, labels } = metadata
    const { nodeName: _, ...bare } = spec
    await kubectl.run(['create', '-f', '-'], {
      input: JSON.stringify({
        apiVersion: 'v1',
        kind: 'Pod',
        metadata: { name: 'by-path-again', annotations, labels },
        spec: bare,
      }),
    })
    assert.ok((await reviews('result="unchanged"')) > unchanged)
  })

  it('keeps one sidecar in a pod that kubectl debug copies', async () => {
    await kubectl.run(['debug', 'bare', '--copy-to=bare-debug', '--set-image=app=localhost/pause:1'])
    assertInjected(await kubectl.get('pod', 'bare-debug'))
  })

  it('takes the sidecar out of a copy that opts out', async () => {
    const stored = await kubectl.get('pod', 'bare')
    const annotations = { ...stored.metadata.annotations, [INJECT]: 'false' }
    const { nodeName: _, ...spec } = stored.spec
    await kubectl.run(['create', '-f', '-'], {
      input: JSON.stringify({ apiVersion: 'v1', kind: 'Pod', metadata: { name: 'bare-off', annotations }, spec }),
    })
    const off = await kubectl.get('pod', 'bare-off')
    assert.equal(sidecars(off).length, 0)
    assert.equal(off.metadata.annotations['ambassador.dev/status'], undefined)
    assert.ok(off.spec.volumes.every((volume: Json) => !volume.name.startsWith('ambassador-')))
  })

  it('has a net: a pod that was annotated behind our back is refused by the API server itself', async () => {
    const behind = kubectl.in(BEHIND)
    const none = await behind.try(['create', '-f', '-'], { input: JSON.stringify(pod('x', 'payments')) })
    assert.match(none.stderr, /the pod has no sidecar because the annotation was added after the injector ran/)
    const stripped = pod('x', 'payments', { initContainers: [{ ...APP, name: 'ambassador' }] })
    const lost = await behind.try(['create', '-f', '-'], { input: JSON.stringify(stripped) })
    assert.match(lost.stderr, /another admission webhook removed restartPolicy from the init container "ambassador"/)
    for (const [name, value] of Object.entries({ x: 'false', y: ' false\n' })) {
      const optedOut = await behind.try(['create', '-f', '-'], { input: JSON.stringify(pod(name, value)) })
      assert.equal(optedOut.code, 0, optedOut.stderr)
    }
  })

  it('lets the API server refuse a pod without containers in its own words', async () => {
    const empty = await kubectl.try(['create', '--validate=false', '-f', '-'], {
      input: JSON.stringify(pod('empty', 'payments', { containers: null })),
    })
    assert.match(empty.stderr, /spec\.containers: Required value/)
  })

  it('tells at kubectl apply of a label with the name of the annotation', async () => {
    const object = workload('Deployment', 'labelled', null, null) as Json
    object.spec.template.metadata.labels[INJECT] = 'payments'
    const { code, stderr } = await kubectl.try(['apply', '-f', '-'], { input: JSON.stringify(object) })
    assert.equal(code, 0)
    assert.match(
      stderr,
      /Warning: label "ambassador\.dev\/inject" of spec\.template does nothing, write it as an annotation/,
    )
  })

  it('tells at kubectl apply of an annotation that the Jobs of a CronJob would carry', async () => {
    const object = workload('CronJob', 'misplaced', null, null) as Json
    object.spec.jobTemplate.metadata = { annotations: { [INJECT]: 'payments' } }
    const { code, stderr } = await kubectl.try(['apply', '-f', '-'], { input: JSON.stringify(object) })
    assert.equal(code, 0)
    assert.match(
      stderr,
      /Warning: annotation "ambassador\.dev\/inject" does nothing at spec\.jobTemplate\.metadata, move it to/,
    )
  })

  it('writes the CA as a field manager of its own: who installs the configuration has no conflict and does not remove it', async () => {
    const bundles = async (): Promise<string[]> =>
      (await kubectl.get('mutatingwebhookconfiguration', NAME)).webhooks.map((each: Json) => each.clientConfig.caBundle)
    const before = await bundles()
    assert.equal(new Set(before).size, 1)
    const changed = structuredClone(configuration)
    changed.metadata.labels = { version: 'next' }
    changed.webhooks[0].timeoutSeconds = 4
    await kubectl.run(['apply', '--server-side', '--field-manager=helm', '-f', '-'], { input: JSON.stringify(changed) })
    assert.deepEqual(await bundles(), before)
    const { metadata } = await kubectl.get('mutatingwebhookconfiguration', NAME, '--show-managed-fields')
    const ours = metadata.managedFields.filter((each: Json) => each.manager === 'ambassador-operator')
    assert.deepEqual(
      ours.map((each: Json) => each.operation),
      ['Apply'],
    )
    assert.doesNotMatch(JSON.stringify(ours[0].fieldsV1), /timeoutSeconds|rules|matchConditions/)
  })

  it('repairs a bundle that somebody wrote over or removed', async () => {
    const before = (await kubectl.get('mutatingwebhookconfiguration', NAME)).webhooks[0].clientConfig.caBundle
    const path = '/webhooks/0/clientConfig/caBundle'
    for (const operation of [
      { op: 'replace', path, value: Buffer.from('x').toString('base64') },
      { op: 'remove', path },
    ]) {
      await kubectl.run([
        'patch',
        'mutatingwebhookconfiguration',
        NAME,
        '--type=json',
        '-p',
        JSON.stringify([operation]),
      ])
      await eventually('the bundle is back', async () => {
        const { webhooks } = await kubectl.get('mutatingwebhookconfiguration', NAME)
        return webhooks[0].clientConfig.caBundle === before
      })
    }
  })

  it('down: refuses what asks, with its name, delays nobody else, and what was refused comes by itself when it is back', async () => {
    const { port } = webhook
    await webhook.close()
    const { code, stderr } = await kubectl.try(['create', '-f', '-'], {
      input: JSON.stringify(pod('down', 'payments')),
    })
    assert.equal(code, 1)
    assert.match(stderr, /failed calling webhook "pods\.ambassador\.dev"/)
    assert.match(
      (await kubectl.try(['annotate', 'deployment', 'again', `${INJECT}=cache`, '--overwrite'])).stderr,
      /workloads\.ambassador\.dev/,
    )
    // An API server that asked for this one as well would have refused it.
    await kubectl.apply([pod('up', null)])
    const applied = await kubectl.try(['apply', '-f', '-'], {
      input: JSON.stringify(workload('Deployment', 'waits', null, 'payments')),
    })
    assert.equal(applied.code, 0, 'a template alone is advised, and advice can be missed')
    await start(port)
    assertInjected(await onePod('waits'))
  })

  it('keeps the token of the service account from the sidecar and leaves it to the application', async () => {
    const { spec } = await kubectl.get('pod', 'bare')
    const mounted = (container: Json): string[] =>
      container.volumeMounts
        .filter((mount: Json) => mount.mountPath === '/var/run/secrets/kubernetes.io/serviceaccount')
        .map((mount: Json) => mount.name.replace(/-[a-z0-9]{5}$/, ''))
    assert.deepEqual(mounted(spec.containers[0]), ['kube-api-access'])
    assert.deepEqual(mounted(spec.initContainers[0]), ['ambassador-config-payments'])
  })

  it('has read its own certificate authority from a Secret that nobody else needs', async () => {
    const secret = await kubectl.get('secret', 'ambassador-operator-ca')
    assert.deepEqual(Object.keys(secret.data), ['ca.crt', 'ca.key'])
    assert.ok(load(JSON.stringify(secret)))
  })

  it('refuses no pod while its CA is replaced again and again, and serves what the newest one signed', async () => {
    let isOver = false
    let asked = 0
    const refused: string[] = []
    const asking = (async () => {
      for (; !isOver; asked++) {
        const words = await refusal(pod('asked', 'payments'))
        if (words !== undefined) refused.push(words)
        await sleep(50)
      }
    })()
    try {
      for (let time = 0; time < 3 || asked < 10; time++) {
        const before = await authority()
        const askedBefore = asked
        await kubectl.run(['delete', 'secret', 'ambassador-operator-ca'])
        const made = await eventually('another CA', async () => {
          const now = await authority().catch(() => undefined)
          return now !== before && now
        })
        await eventually('it signed what is served, and is trusted', async () => {
          const { webhooks } = await kubectl.get('mutatingwebhookconfiguration', NAME)
          const bundles = new Set(webhooks.map((each: Json) => decode(each.clientConfig.caBundle)))
          const [bundle] = [...bundles] as string[]
          return bundles.size === 1 && bundle?.includes(made) && (await isServed(made))
        })
        await eventually('pods were asked for meanwhile', async () => asked > askedBefore + 1, { everyMs: 50 })
      }
    } finally {
      isOver = true
      await asking
    }
    assert.deepEqual(refused, [])
  })
})
