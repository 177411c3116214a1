/** How pods end: with their application first or at the same time, and Jobs where sidecars are ordinary containers. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { eventually, type Json } from './lib/kubectl.ts'
import { ambassador, appContainer, httpTo, load, podTemplate, upstream } from './lib/manifests.ts'
import { lastReport, reports } from './lib/reports.ts'
import { type World, world } from './lib/world.ts'

const LEGACY = { 'ambassador.dev/native-sidecar': 'false' }

/** With which code each container of a pod has ended. */
const endings = (pod: Json): Record<string, number> =>
  Object.fromEntries(pod.status.containerStatuses.map((each: Json) => [each.name, each.state.terminated?.exitCode]))

describe('pods that end, on a real cluster', { concurrency: true }, () => {
  let w: World
  const modes = [
    { name: 'native', list: 'initContainers', annotations: { 'ambassador.dev/native-sidecar': 'true' } },
    { name: 'legacy', list: 'containers', annotations: LEGACY },
  ]
  const caller = { url: 'http://localhost:8081/', rate: 50, lingerMs: 6000, graceSeconds: 30 }
  before(async () => {
    w = await world('e2e-lifecycle')
    await w.kubectl.apply([
      ...upstream('provider'),
      ambassador('payments', httpTo('provider', 8081)),
      ...modes.flatMap(({ name, annotations }) => load(name, 'payments', { ...caller, annotations })),
    ])
    await Promise.all(['provider', 'native', 'legacy'].map((name) => w.kubectl.rollout(`deployment/${name}`)))
  })
  after(() => w?.close())

  for (const { name, list } of modes) {
    it(`an application that goes on calling after SIGTERM sees no failed request, with a ${name} sidecar`, async () => {
      await eventually('it calls', async () => (await reports(w.kubectl, name))[0]?.ok > 100)
      const [pod] = await w.kubectl.pods(`app=${name}`)
      assert.equal(pod.spec[list][0].name, 'ambassador')
      const before = (await reports(w.kubectl, name))[0]
      const remove = () => w.kubectl.remove(`pod/${pod.metadata.name}`)
      const last = await lastReport(w.kubectl, pod.metadata.name, remove)
      assert.deepEqual(last.failures, {})
      assert.ok(last.ok > before.ok + 50, `${last.ok - before.ok} requests after it was told to end`)
      // The sidecar has let go as well, long before the grace period is over.
      await w.kubectl.gone(`pod/${pod.metadata.name}`)
      console.log(`    ${name}: ${last.ok} requests, 0 failed`)
    })
  }

  it('a Job with an ordinary container as sidecar is complete soon after its command has ended', async () => {
    const script = 'until wget -qO- -T 10 http://localhost:8081/job; do sleep 0.2; done'
    const pod = { restartPolicy: 'Never', containers: [appContainer(['sh', '-c', script])] }
    const spec = { backoffLimit: 0, template: podTemplate('plain-job', 'payments', pod, LEGACY) }
    await w.kubectl.apply([{ apiVersion: 'batch/v1', kind: 'Job', metadata: { name: 'plain-job' }, spec }])
    await w.kubectl.wait('job/plain-job', 'Complete')
    const { items } = await w.kubectl.get('pods', '-l', 'app=plain-job')
    assert.deepEqual(endings(items[0]), { ambassador: 0, app: 0 })
    const { succeeded, failed } = (await w.kubectl.get('job', 'plain-job')).status
    assert.deepEqual([succeeded, failed], [1, undefined])
  })

  it('a Job with an ordinary container as sidecar is complete when its last command has told the sidecar', async () => {
    const script =
      'until wget -qO- -T 10 http://localhost:8081/job; do sleep 0.2; done; wget -qO- --post-data= http://127.0.0.1:14991/quitquitquit'
    const pod = { restartPolicy: 'Never', containers: [appContainer(['sh', '-c', script])] }
    const spec = { backoffLimit: 0, template: podTemplate('old-job', 'payments', pod, LEGACY) }
    await w.kubectl.apply([{ apiVersion: 'batch/v1', kind: 'Job', metadata: { name: 'old-job' }, spec }])
    await w.kubectl.wait('job/old-job', 'Complete')
    const { items } = await w.kubectl.get('pods', '-l', 'app=old-job')
    assert.deepEqual(endings(items[0]), { ambassador: 0, app: 0 })
  })
})
