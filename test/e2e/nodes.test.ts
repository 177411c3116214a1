/** What applications and the API server see while a node is drained. It runs after the others, because everything of the node has to move. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { clusterForTests } from '../cluster/cluster.ts'
import { eventually, type Json } from './lib/kubectl.ts'
import { ambassador, load, PATIENT, upstream } from './lib/manifests.ts'
import { lastReport, reports } from './lib/reports.ts'
import { loadImages, SYSTEM, type World, world } from './lib/world.ts'

const skip = process.env.TEST_KUBECONFIG !== undefined && 'drains a node, which is done to no cluster of somebody else'
const OPERATOR = 'app.kubernetes.io/component=operator'

describe('a node that is drained', { skip }, () => {
  let w: World
  let drained: string
  let kept: string
  before(async () => {
    const cluster = await clusterForTests({ nodes: 2 })
    await loadImages(cluster)
    w = await world('e2e-nodes')
    const nodes: string[] = (await w.kubectl.get('nodes')).items.map(({ metadata }: Json) => metadata.name)
    assert.equal(nodes.length, 2)
    drained = (await w.system.pods(OPERATOR))[0].spec.nodeName
    kept = nodes.find((name) => name !== drained)!
    await w.kubectl.run(['cordon', kept])
    const url = 'http://localhost:8081/'
    await w.kubectl.apply([
      ...upstream('orders', { replicas: 2, minReadySeconds: 3 }),
      {
        apiVersion: 'policy/v1',
        kind: 'PodDisruptionBudget',
        metadata: { name: 'orders' },
        spec: { maxUnavailable: 1, selector: { matchLabels: { app: 'orders' } } },
      },
      ambassador('orders', {
        protocol: 'HTTP',
        listen: { port: 8081 },
        upstreams: [{ name: 'orders', service: { name: 'orders', port: 'serve' } }],
        timeouts: { ...PATIENT, connect: '2s' },
      }),
      ...load('goes', 'orders', { url, rate: 50, lingerMs: 4000, graceSeconds: 30 }),
      ...load('stays', 'orders', { url, rate: 50, nodeName: kept }),
    ])
    await Promise.all(['orders', 'goes'].map((name) => w.kubectl.rollout(`deployment/${name}`)))
    await w.kubectl.run(['uncordon', kept])
    await w.kubectl.rollout('deployment/stays')
  })
  after(async () => {
    await w?.kubectl.try(['uncordon', drained])
    await w?.close()
  })

  const nodesOf = async (selector: string, kubectl = w.kubectl): Promise<string[]> => [
    ...new Set((await kubectl.pods(selector)).map(({ spec }) => spec.nodeName)),
  ]

  it('loses no request of the applications that move and of those that stay, and refuses no pod', async () => {
    for (const app of ['goes', 'stays'])
      await eventually(`${app} calls`, async () => (await reports(w.kubectl, app))[0]?.ok > 100)
    assert.deepEqual([await nodesOf('app=orders'), await nodesOf('app=goes')], [[drained], [drained]])
    const [pod] = await w.kubectl.pods('app=goes')
    const before = performance.now()
    const last = await lastReport(w.kubectl, pod.metadata.name, () =>
      w.kubectl.run(['drain', drained, '--ignore-daemonsets', '--delete-emptydir-data', '--force', '--timeout=240s'], {
        timeoutMs: 250_000,
      }),
    )
    assert.deepEqual(last.failures, {})
    console.log(`    drained after ${Math.round((performance.now() - before) / 1000)} s`)
    await Promise.all(['orders', 'goes'].map((name) => w.kubectl.rollout(`deployment/${name}`)))
    for (const app of ['orders', 'goes']) assert.deepEqual(await nodesOf(`app=${app}`), [kept])
    await eventually('the pod that moved calls', async () => (await reports(w.kubectl, 'goes'))[0]?.ok > 50)
    const { ok } = (await reports(w.kubectl, 'stays'))[0]
    const stays = await eventually('the pod that stayed goes on', async () => {
      const [found] = await reports(w.kubectl, 'stays')
      return found.ok > ok + 50 && found
    })
    assert.deepEqual(stays.failures, {})
    const events = await w.kubectl.get('events')
    const refused = events.items.filter(({ reason }: Json) => reason === 'FailedCreate')
    assert.deepEqual(
      refused.map(({ message }: Json) => message),
      [],
    )
  })

  it('leaves an operator with both replicas on the other node, one of which leads', async () => {
    await w.system.rollout('deployment/ambassador-operator')
    assert.deepEqual(await nodesOf(OPERATOR, w.kubectl.in(SYSTEM)), [kept])
    await eventually('one of them leads', async () => {
      const { holderIdentity } = (await w.system.get('lease', 'ambassador-operator')).spec
      return (await w.system.pods(OPERATOR)).some(({ metadata }) => holderIdentity.startsWith(`${metadata.name}_`))
    })
    await w.kubectl.wait('amb/orders', 'Ready')
  })
})
