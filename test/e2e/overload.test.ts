/** A sidecar whose memory is limited by a real control group, before clients that want more of it than there is. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { eventually, type Json } from './lib/kubectl.ts'
import { ambassador, deployment, httpTo, node, podTemplate, scriptsConfigMap, scriptsVolume } from './lib/manifests.ts'
import { type World, world } from './lib/world.ts'

const IDLE = ['node', '-e', 'process.on("SIGTERM", () => process.exit()); setInterval(() => {}, 60_000)']
const LIMIT_BYTES = 64 * 1024 * 1024
const ENOUGH = 100

describe('a sidecar with 64Mi of memory, on a real cluster', () => {
  let w: World
  before(async () => {
    w = await world('e2e-overload')
    const limits = { maxConnections: 10_000, maxPendingRequests: 10_000 }
    await w.kubectl.apply([
      scriptsConfigMap,
      {
        apiVersion: 'v1',
        kind: 'Service',
        metadata: { name: 'endless' },
        spec: { selector: { app: 'endless' }, ports: [{ port: 8080 }] },
      },
      deployment(
        'endless',
        podTemplate('endless', null, {
          terminationGracePeriodSeconds: 1,
          containers: [
            node('app', 'endless.mjs', {}, { readinessProbe: { tcpSocket: { port: 8080 }, periodSeconds: 1 } }),
          ],
          volumes: [scriptsVolume],
        }),
      ),
      ambassador('endless', httpTo('endless', 8081, { upstream: { limits } })),
      deployment(
        'app',
        podTemplate(
          'app',
          'endless',
          { containers: [node('app', '', {}, { command: IDLE })], volumes: [scriptsVolume] },
          { 'ambassador.dev/proxy-memory-limit': '64Mi' },
        ),
      ),
    ])
    await Promise.all(['endless', 'app'].map((name) => w.kubectl.rollout(`deployment/${name}`)))
    await eventually('it is reached', async () => (await ask()).status === 200)
  })
  after(() => w?.close())

  const ask = async (): Promise<Json> => {
    const script = `fetch('http://localhost:8081/').then(async (r) => console.log(JSON.stringify({ status: r.status, text: await r.text() })))`
    return JSON.parse((await w.kubectl.exec('deploy/app', ['node', '-e', script])).stdout)
  }

  it('refuses requests before the kernel kills it, says why, and serves again when they are gone', async () => {
    const command = ['node', '/scripts/slow-readers.mjs', '8081', `${ENOUGH}`, '4000']
    const { code, stdout, stderr } = await w.kubectl.exec('deploy/app', command)
    assert.equal(code, 0, stderr)
    const seen = JSON.parse(stdout)
    assert.ok(seen.refused >= ENOUGH, stdout)
    assert.ok(seen.answered > 100, stdout)
    assert.match(seen.detail, new RegExp(`of the memory limit of ${LIMIT_BYTES} bytes are used`))
    assert.ok(seen.isTold, `ambassador_overloaded of memory is not 1: ${stdout}`)
    await eventually('it serves again', async () => (await ask()).text === 'ok')
    const [pod] = await w.kubectl.pods('app=app')
    const [sidecar] = pod.status.initContainerStatuses
    assert.deepEqual([sidecar.name, sidecar.restartCount, sidecar.lastState], ['ambassador', 0, {}])
    const log = await w.kubectl.run(['logs', pod.metadata.name, '-c', 'ambassador'])
    assert.match(log, /"reason":"overloaded","detail":"[^"]*memory limit[^"]*","msg":"new requests are refused"/)
    assert.match(log, /"msg":"requests are taken again"/)
    console.log(
      `    ${seen.answered} clients that read nothing were served, ${seen.refused} of ${seen.clients} refused`,
    )
  })
})
