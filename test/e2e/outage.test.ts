/** What applications see while the API server is restarted and while the operator is down. It runs after the others, which need both. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import { eventually, type Json } from './lib/kubectl.ts'
import { ambassador, deployment, httpTo, load, podTemplate, upstream } from './lib/manifests.ts'
import { reports } from './lib/reports.ts'
import { type World, world } from './lib/world.ts'

describe('while the API server is restarted', {
  skip:
    process.env.TEST_KUBECONFIG !== undefined &&
    'restarts the API server, which is done to no cluster of somebody else',
}, () => {
  let w: World
  before(async () => {
    w = await world('e2e-restart')
    await w.kubectl.apply([
      ...upstream('blue', { env: { TEXT: 'blue' } }),
      ...upstream('green', { env: { TEXT: 'green' } }),
      ambassador('payments', httpTo('blue', 8081)),
      ...load('caller', 'payments', { url: 'http://localhost:8081/', rate: 50 }),
    ])
    await Promise.all(['blue', 'green', 'caller'].map((name) => w.kubectl.rollout(`deployment/${name}`)))
    await w.kubectl.wait('amb/payments', 'Ready')
  })
  after(() => w?.close())

  const operators = async (): Promise<Json[]> => await w.system.pods('app.kubernetes.io/component=operator')
  const processes = async (): Promise<string[]> =>
    (await operators())
      .map(({ metadata, status }) => `${metadata.name} ${status.containerStatuses[0].restartCount}`)
      .sort()
  const report = async (): Promise<Json> => (await reports(w.kubectl, 'caller'))[0]
  const seen = (what: string, enough: (report: Json) => boolean): Promise<true> =>
    eventually(what, async () => enough(await report()) || undefined, { timeoutMs: 120_000 })

  it('applications see no failure, no operator is restarted, pods are admitted and a change is served', async () => {
    await seen('it calls', ({ ok }) => ok > 100)
    const before = await processes()
    assert.equal(before.length, 2)
    // Long enough for every watch and every renewal of the Lease to fail.
    await w.cluster.restartApiServer(() => sleep(3000))
    const wanted = Array.from({ length: 5 }, (_, n) => ({ kind: 'Pod', apiVersion: 'v1', ...bare(`after-${n}`) }))
    const answers = await Promise.all(
      wanted.map((each) => w.kubectl.try(['create', '-f', '-'], { input: JSON.stringify(each) })),
    )
    for (const { code, stderr } of answers) assert.equal(code, 0, stderr)
    for (const { spec } of await w.kubectl.pods('app=after')) assert.equal(spec.initContainers?.[0]?.name, 'ambassador')
    await w.kubectl.apply([ambassador('payments', httpTo('green', 8081))])
    await seen('the change is served', ({ texts }) => texts.green > 50)
    await w.kubectl.wait('amb/payments', 'Programmed')
    await eventually('both replicas are ready', async () =>
      (await operators()).every(({ status }) => status.conditions.some(isReadyCondition)),
    )
    assert.deepEqual(await processes(), before)
    assert.deepEqual((await report()).failures, {})
  })

  const isReadyCondition = ({ type, status }: Json): boolean => type === 'Ready' && status === 'True'
  const bare = (name: string): object => {
    const template = podTemplate('after', 'payments') as Json
    return { ...template, metadata: { ...template.metadata, name } }
  }
})

describe('while the operator is down', () => {
  let w: World
  before(async () => {
    w = await world('e2e-down')
    await w.kubectl.apply([ambassador('payments', httpTo('provider', 8081))])
    await eventually('the ConfigMap is published', () => w.kubectl.get('configmap', 'ambassador-payments'))
  })
  after(async () => {
    await w.system.scale('deployment/ambassador-operator', 2)
    await w.system.rollout('deployment/ambassador-operator')
    await w.close()
  })

  it('annotated pods are refused with our name and come by themselves afterwards; others are not delayed', async () => {
    await w.system.scale('deployment/ambassador-operator', 0)
    await eventually('no operator runs', async () => {
      const pods = await w.system.get('pods', '-l', 'app.kubernetes.io/component=operator')
      return pods.items.length === 0
    })
    await w.kubectl.apply([
      deployment('wants', podTemplate('wants', 'payments')),
      deployment('plain', podTemplate('plain', null)),
    ])
    await w.kubectl.rollout('deployment/plain')
    const message = await eventually('a FailedCreate event', async () => {
      const events = await w.kubectl.get('events')
      return events.items.find((e: Json) => e.reason === 'FailedCreate' && e.involvedObject.name.startsWith('wants'))
        ?.message
    })
    assert.match(message, /ambassador/)
    assert.equal((await w.kubectl.pods('app=wants')).length, 0)
    await w.system.scale('deployment/ambassador-operator', 2)
    await w.system.rollout('deployment/ambassador-operator')
    await eventually(
      'the refused pod runs',
      async () => {
        const [pod] = await w.kubectl.pods('app=wants')
        return (
          pod?.status.containerStatuses?.every((c: Json) => c.ready) &&
          pod.spec.initContainers?.[0]?.name === 'ambassador'
        )
      },
      { timeoutMs: 120_000 },
    )
  })
})
