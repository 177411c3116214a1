import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Registry } from 'prom-client'
import { registerGauges } from '../../../operator/controller/metrics.ts'
import { startHealth } from '../../../operator/health.ts'

describe('health port', { timeout: 10_000 }, () => {
  it('is alive at once, ready when nothing is missing, and says what is', async () => {
    let missing = ['the cache of nodes is not synced', 'stopping']
    const health = await startHealth({ port: 0, host: '127.0.0.1', registry: new Registry(), notReady: () => missing })
    const get = async (path: string, method = 'GET') => {
      const response = await fetch(`http://127.0.0.1:${health.port}${path}`, { method })
      return `${response.status} ${(await response.text()).trim()}`
    }
    assert.equal(await get('/livez'), '200 ok')
    assert.equal(await get('/readyz?verbose'), '503 the cache of nodes is not synced\nstopping')
    missing = []
    assert.equal(await get('/readyz'), '200 ok')
    assert.equal(await get('/other'), '404 use /livez, /readyz or /metrics')
    assert.equal(await get('/readyz', 'POST'), '405 use GET')
    await health.close()
  })

  it('shows pods and conditions of each Ambassador on the leader alone, so that they can be summed', async () => {
    const registry = new Registry()
    let leads = true
    registerGauges(registry, {
      isLeading: () => leads,
      staleness: () => [['ambassadors', 12]],
      queues: () => [['reconcile', 3]],
      ambassadors: () => [
        {
          apiVersion: '',
          kind: '',
          metadata: { name: 'payments', namespace: 'shop' },
          spec: { protocol: 'TCP', listen: { port: 1 }, upstreams: [] },
          status: {
            pods: { injected: 12, ready: 11, current: 10, missing: 1 },
            conditions: [
              { type: 'Ready', status: 'Unknown', reason: 'Unreachable', message: '', lastTransitionTime: '' },
            ],
          },
        },
      ],
    })
    const leading = await registry.metrics()
    for (const line of [
      'ambassador_leader 1',
      'ambassador_watch_staleness_seconds{resource="ambassadors"} 12',
      'ambassador_workqueue_depth{queue="reconcile"} 3',
      'ambassador_pods{ns="shop",ambassador="payments",state="current"} 10',
      'ambassador_condition{ns="shop",ambassador="payments",type="Ready"} -1',
    ]) {
      assert.ok(leading.split('\n').includes(line), `${line} is not in\n${leading}`)
    }
    leads = false
    assert.doesNotMatch(await registry.metrics(), /ambassador_pods\{/)
  })
})
