/** Every kind of workload that can be annotated gets one sidecar, and its application calls localhost. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { eventually, type Json } from './lib/kubectl.ts'
import { ambassador, appContainer, deployment, httpTo, podTemplate, RESTRICTED, upstream } from './lib/manifests.ts'
import { APP_IMAGE, type World, world } from './lib/world.ts'

const CALL = ['wget', '-qO-', '-T', '10', 'http://localhost:8081/v1/charges']

/** Where the sidecar stands in a pod; fails when there is not exactly one. */
function sidecarOf(pod: Json): Json {
  const all = [...(pod.spec.initContainers ?? []), ...pod.spec.containers].filter((c: Json) => c.name === 'ambassador')
  assert.equal(all.length, 1, `pod ${pod.metadata.name} has ${all.length} containers named ambassador`)
  return all[0]
}

describe('on a real cluster', () => {
  let w: World

  before(async () => {
    w = await world('e2e-workloads')
    await w.kubectl.apply([
      ...upstream('provider'),
      ambassador('payments', httpTo('provider', 8081)),
      ambassador('orders', httpTo('provider', 8082)),
    ])
    await w.kubectl.rollout('deployment/provider')
  })
  after(() => w.close())

  const selector = (name: string) => ({ selector: { matchLabels: { app: name } } })
  const kinds: { kind: string; object: (name: string) => object; target: (name: string) => string }[] = [
    { kind: 'Deployment', object: (n) => deployment(n, podTemplate(n, 'payments')), target: (n) => `deployment/${n}` },
    {
      kind: 'StatefulSet',
      object: (n) => ({
        apiVersion: 'apps/v1',
        kind: 'StatefulSet',
        metadata: { name: n },
        spec: { ...selector(n), serviceName: n, template: podTemplate(n, 'payments') },
      }),
      target: (n) => `statefulset/${n}`,
    },
    {
      kind: 'DaemonSet',
      object: (n) => ({
        apiVersion: 'apps/v1',
        kind: 'DaemonSet',
        metadata: { name: n },
        spec: { ...selector(n), template: podTemplate(n, 'payments') },
      }),
      target: (n) => `daemonset/${n}`,
    },
    {
      kind: 'ReplicaSet',
      object: (n) => ({
        apiVersion: 'apps/v1',
        kind: 'ReplicaSet',
        metadata: { name: n },
        spec: { ...selector(n), replicas: 1, template: podTemplate(n, 'payments') },
      }),
      target: (n) => `replicaset/${n}`,
    },
    {
      kind: 'Pod',
      object: (n) => ({ apiVersion: 'v1', kind: 'Pod', ...withName(podTemplate(n, 'payments'), n) }),
      target: (n) => `pod/${n}`,
    },
  ]
  function withName(template: Json, name: string): object {
    return { ...template, metadata: { ...template.metadata, name } }
  }

  for (const { kind, object, target } of kinds) {
    it(`a ${kind} with the annotation in its pods is injected and calls`, async () => {
      const name = `in-${kind.toLowerCase()}`
      await w.kubectl.apply([object(name)])
      const pod = await eventually(`${kind} pod ready`, async () => {
        const [found] = await w.kubectl.pods(`app=${name}`)
        return found?.status.containerStatuses?.every((c: Json) => c.ready) ? found : undefined
      })
      assert.equal(sidecarOf(pod).restartPolicy, 'Always')
      assert.equal(pod.spec.initContainers[0].name, 'ambassador')
      const answer = await w.kubectl.exec(target(name), CALL)
      assert.equal(answer.code, 0, answer.stderr)
      assert.equal(JSON.parse(answer.stdout).path, '/v1/charges')
    })
  }

  const jobSpec = (name: string) => ({
    backoffLimit: 0,
    template: podTemplate(name, 'payments', {
      restartPolicy: 'Never',
      containers: [appContainer(['wget', '-qO-', '-T', '10', 'http://localhost:8081/v1/job'])],
    }),
  })

  it('a Job calls and is Complete within 10 seconds of the end of its container', async () => {
    const name = (job: string) => ({ apiVersion: 'batch/v1', kind: 'Job', metadata: { name: job } })
    // One without a sidecar tells how late this machine is by itself.
    const plain = podTemplate('plain-job', null, { restartPolicy: 'Never', containers: [appContainer(['true'])] })
    await w.kubectl.apply([
      { ...name('in-job'), spec: jobSpec('in-job') },
      { ...name('plain-job'), spec: { backoffLimit: 0, template: plain } },
    ])
    /** Seconds from the end of the container to the end of the Job, and its pod. */
    const ending = async (of: string): Promise<{ readonly seconds: number; readonly pod: Json }> => {
      const job = await eventually(`${of} complete`, async () => {
        const found = await w.kubectl.get('job', of)
        assert.equal(found.status.failed, undefined, 'the job failed')
        return found.status.completionTime !== undefined && found
      })
      const [pod] = (await w.kubectl.get('pods', '-l', `app=${of}`)).items
      const ended = pod.status.containerStatuses[0].state.terminated
      assert.equal(ended.exitCode, 0)
      return { seconds: (Date.parse(job.status.completionTime) - Date.parse(ended.finishedAt)) / 1000, pod }
    }
    const [{ seconds, pod }, without] = await Promise.all([ending('in-job'), ending('plain-job')])
    assert.equal(sidecarOf(pod).restartPolicy, 'Always')
    const told = `complete ${seconds} s after the end of its container, without a sidecar ${without.seconds} s`
    console.log(`    job ${told}`)
    assert.ok(seconds <= 10 + without.seconds, told)
  })

  it('a CronJob makes Jobs that call and complete', async () => {
    await w.kubectl.apply([
      {
        apiVersion: 'batch/v1',
        kind: 'CronJob',
        metadata: { name: 'in-cron', annotations: { 'ambassador.dev/inject': 'payments' } },
        spec: {
          schedule: '0 0 1 1 *',
          jobTemplate: {
            spec: {
              ...jobSpec('in-cron'),
              template: { ...jobSpec('in-cron').template, metadata: { labels: { app: 'in-cron' } } },
            },
          },
        },
      },
    ])
    const cron = await w.kubectl.get('cronjob', 'in-cron')
    assert.equal(cron.spec.jobTemplate.spec.template.metadata.annotations['ambassador.dev/inject'], 'payments')
    await w.kubectl.run(['create', 'job', 'in-cron-now', '--from=cronjob/in-cron'])
    await w.kubectl.wait('job/in-cron-now', 'Complete')
    const list = await w.kubectl.get('pods', '-l', 'app=in-cron')
    sidecarOf(list.items[0])
  })

  it('one sidecar serves two Ambassadors', async () => {
    await w.kubectl.apply([deployment('two', podTemplate('two', 'payments,orders'))])
    await w.kubectl.rollout('deployment/two')
    for (const port of [8081, 8082]) {
      const answer = await w.kubectl.exec('deploy/two', ['wget', '-qO-', '-T', '10', `http://localhost:${port}/`])
      assert.equal(answer.code, 0, answer.stderr)
    }
    const [pod] = await w.kubectl.pods('app=two')
    sidecarOf(pod)
  })

  it("an injected pod's YAML applied again under a new name gives one sidecar", async () => {
    const pod = await w.kubectl.get('pod', 'in-pod')
    const copy = { ...pod, metadata: { ...pod.metadata, name: 'in-pod-again' }, status: undefined }
    for (const key of ['uid', 'resourceVersion', 'creationTimestamp', 'managedFields', 'ownerReferences'])
      delete copy.metadata[key]
    delete copy.spec.nodeName
    await w.kubectl.run(['create', '-f', '-'], { input: JSON.stringify(copy) })
    const again = await w.kubectl.get('pod', 'in-pod-again')
    sidecarOf(again)
    await w.kubectl.wait('pod/in-pod-again', 'Ready')
    const answer = await w.kubectl.exec('pod/in-pod-again', CALL)
    assert.equal(answer.code, 0, answer.stderr)
  })

  it('a server-side dry run shows the sidecar and leaves nothing behind', async () => {
    const before = await w.kubectl.get('events')
    const out = await w.kubectl.run(['apply', '--dry-run=server', '-o', 'json', '-f', '-'], {
      input: JSON.stringify({ apiVersion: 'v1', kind: 'Pod', ...withName(podTemplate('dry', 'payments'), 'dry') }),
    })
    sidecarOf(JSON.parse(out))
    assert.notEqual((await w.kubectl.try(['get', 'pod', 'dry'])).code, 0)
    const after = await w.kubectl.get('events')
    const about = (list: Json) => list.items.filter((e: Json) => e.involvedObject.name === 'dry').length
    assert.equal(about(after), about(before))
  })

  it('an annotation on the Deployment itself reaches its pods, and leaves them with it', async () => {
    await w.kubectl.apply([deployment('late', podTemplate('late', null))])
    await w.kubectl.rollout('deployment/late')
    await w.kubectl.run(['annotate', 'deployment', 'late', 'ambassador.dev/inject=payments'])
    await w.kubectl.rollout('deployment/late')
    const injected = await eventually('only injected pods', async () => {
      const pods = await w.kubectl.pods('app=late')
      return pods.length === 1 && pods[0].metadata.annotations?.['ambassador.dev/inject'] === 'payments'
        ? pods
        : undefined
    })
    sidecarOf(injected[0])
    await w.kubectl.run(['annotate', 'deployment', 'late', 'ambassador.dev/inject-'])
    await w.kubectl.rollout('deployment/late')
    await eventually('no injected pods', async () => {
      const pods = await w.kubectl.pods('app=late')
      return pods.length === 1 && (pods[0].spec.initContainers ?? []).length === 0
    })
  })

  it('an application that stands first in line after the sidecar: init containers can call too', async () => {
    await w.kubectl.apply([
      deployment(
        'init',
        podTemplate('init', 'payments', {
          initContainers: [
            {
              name: 'migrate',
              image: APP_IMAGE,
              imagePullPolicy: 'IfNotPresent',
              command: CALL,
              securityContext: RESTRICTED,
            },
          ],
        }),
      ),
    ])
    await w.kubectl.rollout('deployment/init')
  })
})

describe('in a namespace that enforces Pod Security restricted', () => {
  let w: World
  before(async () => {
    w = await world('e2e-restricted', { labels: { 'pod-security.kubernetes.io/enforce': 'restricted' } })
  })
  after(() => w.close())

  it('an injected pod is admitted and calls', async () => {
    await w.kubectl.apply([
      ...upstream('provider'),
      ambassador('payments', httpTo('provider', 8081)),
      deployment('app', podTemplate('app', 'payments')),
    ])
    await w.kubectl.rollout('deployment/provider')
    await w.kubectl.rollout('deployment/app')
    const answer = await w.kubectl.exec('deploy/app', CALL)
    assert.equal(answer.code, 0, answer.stderr)
  })
})
