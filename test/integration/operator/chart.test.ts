import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { connect } from 'node:tls'
import { createClient, type KubeClient } from '../../../operator/kube/client.ts'
import { ApiError } from '../../../operator/kube/errors.ts'
import { CA_SECRET } from '../../../operator/webhook/certs.ts'
import { serviceNames } from '../../../operator/webhook/server.ts'
import { connectTo } from '../../cluster/client.ts'
import { eventually, type Json, type Kubectl } from '../../e2e/lib/kubectl.ts'
import { ambassador, appContainer } from '../../e2e/lib/manifests.ts'
import { CHART, INSTALL_VALUES, loadImages, RELEASE, SYSTEM, type World, world } from '../../e2e/lib/world.ts'

const NAME = 'e2e-chart'
/** webhook.test.ts runs beside this file, and its namespaces have a webhook of their own. */
const VALUES = [...INSTALL_VALUES, '--set', 'operator.excludedNamespaces={test-webhook,test-webhook-behind}']
const DEPLOYMENT = `${RELEASE}-operator`
const ACCOUNT = `system:serviceaccount:${SYSTEM}:${DEPLOYMENT}`

const decode = (base64: string): string => Buffer.from(base64, 'base64').toString()

/** Whether an API server that has this bundle would believe what is served at this port of 127.0.0.1. */
const isTrusted = (port: number, bundle: string): Promise<boolean> =>
  new Promise((resolve, reject) => {
    const [servername] = serviceNames(SYSTEM)
    const socket = connect(
      { port, host: '127.0.0.1', servername, ca: decode(bundle), rejectUnauthorized: false },
      () => {
        resolve(socket.authorized)
        socket.destroy()
      },
    )
    socket.once('error', reject)
  })

describe('the chart on a real cluster', { concurrency: false }, () => {
  let w: World
  let kubectl: Kubectl
  let client: KubeClient

  const helm = async (...args: string[]): Promise<string> => {
    const result = await w.helm([...args, '--namespace', SYSTEM])
    assert.equal(result.code, 0, result.stderr)
    return result.stdout
  }
  const upgrade = (...sets: string[]): Promise<string> =>
    helm('upgrade', RELEASE, CHART, '--wait', '--timeout', '240s', ...VALUES, ...sets.flatMap((set) => ['--set', set]))
  const install = (): Promise<string> =>
    helm('install', RELEASE, CHART, '--create-namespace', '--wait', '--timeout', '240s', ...VALUES)
  const deployment = (): Promise<Json> => w.system.get('deployment', DEPLOYMENT)
  const webhooks = async (): Promise<Json[]> =>
    (await w.system.get('mutatingwebhookconfiguration', 'ambassador-injector')).webhooks
  const caBundles = async (): Promise<string[]> => (await webhooks()).map(({ clientConfig }) => clientConfig.caBundle)

  /** Asks the API server for a pod that wants a sidecar, without keeping it: each is one call of the webhook. Why not, or the pod. */
  const askForPod = async (inject = 'sample'): Promise<{ readonly refused: string } | { readonly pod: Json }> => {
    const metadata = { name: 'asked', annotations: { 'ambassador.dev/inject': inject } }
    const body = { apiVersion: 'v1', kind: 'Pod', metadata, spec: { containers: [appContainer()] } }
    const path = `/api/v1/namespaces/${NAME}/pods`
    try {
      return {
        pod: await client.request<Json>({ method: 'POST', path, query: { dryRun: 'All' }, body, timeoutMs: 60_000 }),
      }
    } catch (error) {
      if (error instanceof ApiError) return { refused: error.message }
      throw error
    }
  }

  /** The pod as it is admitted, soon: a Service needs a moment to know its pods. */
  const admitted = (timeoutMs?: number, isWanted: (pod: Json) => boolean = () => true): Promise<Json> =>
    eventually(
      'the pod is admitted',
      async () => {
        const answer = await askForPod()
        return 'pod' in answer && isWanted(answer.pod) && answer.pod
      },
      { timeoutMs },
    )
  const injected = (): Promise<Json> => admitted(undefined, (pod) => pod.spec.initContainers !== undefined)

  const leads = (): Promise<boolean> =>
    eventually('one of the pods leads', async () => {
      const { holderIdentity } = (await w.system.get('lease', DEPLOYMENT)).spec
      const pods = await w.system.pods('app.kubernetes.io/component=operator')
      return pods.some((pod) => holderIdentity.startsWith(`${pod.metadata.name}_`))
    })

  /** Goes on asking while `work` runs; returns how many were asked for, and what those that were refused heard. */
  const askWhile = async (work: () => Promise<unknown>): Promise<{ asked: number; refused: string[] }> => {
    let isOver = false
    let asked = 0
    const refused: string[] = []
    const asking = (async () => {
      while (!isOver) {
        const answer = await askForPod()
        asked++
        if ('refused' in answer) refused.push(answer.refused)
        await sleep(50)
      }
    })()
    try {
      await work()
    } finally {
      isOver = true
      await asking
    }
    return { asked, refused: [...new Set(refused)] }
  }

  let hadDefinition = false
  before(async () => {
    w = await world(NAME, { install: false })
    kubectl = w.kubectl
    client = createClient(await connectTo(w.cluster.kubeconfig))
    hadDefinition = await kubectl.exists('crd/ambassadors.ambassador.dev')
    await loadImages(w.cluster)
    await w.helm(['uninstall', RELEASE, '--namespace', SYSTEM, '--ignore-not-found', '--wait'])
  })
  after(async () => {
    client?.close()
    await w?.close()
    // The tests behind this start operators of their own on the cluster.
    await w?.helm(['uninstall', RELEASE, '--namespace', SYSTEM, '--ignore-not-found', '--wait'])
    // The chart leaves the definition, with the Ambassadors.
    if (!hadDefinition) await kubectl.delete('crd/ambassadors.ambassador.dev')
  })

  it('is installed with two replicas that are ready, one of which leads', async () => {
    await install()
    const { spec, status } = await deployment()
    assert.deepEqual([spec.replicas, status.availableReplicas], [2, 2])
    await leads()
  })

  it('injects a pod, and refuses one that names nothing, in our words', async () => {
    await kubectl.apply([
      ambassador('sample', {
        protocol: 'HTTP',
        listen: { port: 8081 },
        upstreams: [{ name: 'nowhere', endpoints: [{ host: 'nowhere.example.com', port: 80 }] }],
      }),
    ])
    await kubectl.wait('amb/sample', 'Accepted')
    const pod = await injected()
    assert.equal(pod.spec.initContainers[0].name, 'ambassador')
    const answer = await askForPod('missing')
    assert.match('refused' in answer ? answer.refused : '', /pods\.ambassador\.dev.*missing/s)
  })

  it('refuses no pod when the Secret of its CA is deleted: what either replica serves stays trusted', async () => {
    const [before] = await caBundles()
    const pods = await w.system.pods('app.kubernetes.io/component=operator')
    const forwards = await Promise.all(pods.map(({ metadata }) => w.system.portForward(`pod/${metadata.name}`, 9443)))
    try {
      const { asked, refused } = await askWhile(async () => {
        await w.system.remove(`secret/${CA_SECRET}`)
        const bundles = await eventually('there is another bundle', async () => {
          const now = await caBundles()
          return now.every((bundle) => bundle !== before) && now
        })
        assert.equal(new Set(bundles).size, 1)
        for (const { port } of forwards) assert.equal(await isTrusted(port, bundles[0]!), true)
        const { data } = await w.system.get('secret', CA_SECRET)
        assert.ok(decode(bundles[0]!).startsWith(decode(data['ca.crt'])))
      })
      assert.deepEqual(refused, [])
      assert.ok(asked > 0, 'no pod was asked for')
    } finally {
      await Promise.all(forwards.map((each) => each.close()))
    }
  })

  it('gives the operator no right on Secrets of others, unless a namespace is named', async () => {
    const may = async (namespace: string): Promise<boolean> => {
      const { code } = await kubectl.in(namespace).try(['auth', 'can-i', 'get', 'secrets', '--as', ACCOUNT])
      return code === 0
    }
    assert.equal(await may(NAME), false)
    await upgrade(`operator.secretChecks={${NAME}}`)
    assert.deepEqual([await may(NAME), await may('default'), await may('kube-system')], [true, false, false])
  })

  it('is upgraded after a person has scaled it, without a conflict, a lost CA or a refused pod', async () => {
    const before = await caBundles()
    assert.ok(before.every((bundle) => bundle.length > 0))
    await w.system.scale(`deployment/${DEPLOYMENT}`, 3)
    const { asked, refused } = await askWhile(() => upgrade('operator.logLevel=debug'))
    assert.deepEqual(await caBundles(), before)
    assert.equal((await deployment()).spec.replicas, 3)
    assert.ok(asked > 5, `${asked} pods asked for`)
    assert.deepEqual(refused, [])
  })

  it('is rolled back to before the scaling, without a conflict, a lost CA or a refused pod', async () => {
    const before = await caBundles()
    const { refused } = await askWhile(() => helm('rollback', RELEASE, '1', '--wait', '--timeout', '240s'))
    assert.deepEqual(await caBundles(), before)
    const { spec } = await deployment()
    assert.equal(spec.replicas, 3)
    assert.ok(spec.template.spec.containers[0].env.some(({ value }: Json) => value === 'info'))
    assert.deepEqual(refused, [])
  })

  it('lets every pod through once the glass is broken, and an upgrade as documented mends it', async () => {
    await w.system.run(['delete', 'mutatingwebhookconfiguration/ambassador-injector'])
    await w.system.run(['delete', 'validatingadmissionpolicy/ambassador-injected'])
    // API servers hear of it a moment later.
    assert.equal((await admitted()).spec.initContainers, undefined)
    await helm('upgrade', RELEASE, CHART, '--reset-then-reuse-values', '--wait', '--timeout', '240s')
    const pod = await injected()
    assert.equal(pod.spec.initContainers[0].name, 'ambassador')
    await w.system.run(['get', 'validatingadmissionpolicy', 'ambassador-injected'])
  })

  it('blocks no pod when it is uninstalled, and leaves the Ambassadors', async () => {
    const { refused } = await askWhile(() => helm('uninstall', RELEASE, '--wait'))
    assert.deepEqual(
      refused.filter((words) => /failed calling webhook/.test(words)),
      [],
    )
    // Helm deletes the policy last, and API servers hear of it a moment later.
    const pod = await admitted(10_000)
    assert.equal(pod.spec.initContainers, undefined)
    // Tests that run beside this one have objects whose names end so.
    for (const kind of [
      'mutatingwebhookconfigurations',
      'validatingadmissionpolicies',
      'clusterroles',
      'clusterrolebindings',
    ])
      assert.doesNotMatch(await w.system.run(['get', kind, '-o', 'name']), /ambassador(?!.*-test$)/m)
    assert.equal((await kubectl.get('amb', 'sample')).metadata.name, 'sample')
  })

  it('takes the Ambassadors up again when it is installed anew, and one of the new replicas leads', async () => {
    await install()
    await leads()
    const { spec, status } = await deployment()
    assert.deepEqual([spec.replicas, status.availableReplicas], [2, 2])
    assert.equal((await injected()).spec.initContainers[0].name, 'ambassador')
  })
})
