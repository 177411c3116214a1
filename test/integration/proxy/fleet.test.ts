/** One sidecar process with a limit that the whole fleet shares: the size of the fleet changes in the mounted config. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { describe, it } from 'node:test'
import { configHash, endpointsHash } from '../../../common/config-hash.ts'
import type { ProxyConfig } from '../../../common/proxy-config.ts'
import { plainConfig } from '../../../proxy/config/plain.ts'
import { endsOfAll } from '../../helpers/ends.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { Volumes } from '../../helpers/volume.ts'

const ends = endsOfAll()

function config(listenPort: number, port: number, sidecars: number): ProxyConfig {
  const base = plainConfig({ namespace: 'shop', host: '127.0.0.1', port, listenPort, protocol: 'HTTP', tls: null })
  const content: Omit<ProxyConfig, 'hash'> = {
    ...base,
    ambassador: { namespace: 'shop', name: 'orders', generation: 1 },
    rateLimit: { requests: 20, perMs: 3_600_000, burst: 20, onLimit: 'Reject', maxDelayMs: 0, perFleet: true },
    fleet: { sidecars },
  }
  return { ...content, hash: configHash(content), endpointsHash: endpointsHash(content) }
}

describe('a limit of the whole fleet', { timeout: 60_000 }, () => {
  it('is taken a share of, which follows the size of the fleet without a new config in force', async () => {
    const server = createServer((_incoming, answer) => answer.end('ok')).listen(0, '127.0.0.1')
    await once(server, 'listening')
    ends.push(() => server.close())
    const upstream = (server.address() as AddressInfo).port
    const port = await freePort()
    const volumes = new Volumes()
    ends.push(() => volumes.remove())
    volumes.config('orders', config(port, upstream, 4))
    const proxy = await ProxyProcess.start({
      ...volumes.env('orders'),
      POD_NAMESPACE: 'shop',
    })
    ends.push(() => proxy.end())
    await proxy.ready()
    const statuses = async (count: number): Promise<number[]> => {
      const found: number[] = []
      for (let i = 0; i < count; i++) {
        const answer = await fetch(`http://127.0.0.1:${port}/`)
        await answer.arrayBuffer()
        found.push(answer.status)
      }
      return found
    }
    const report = async () => JSON.parse((await proxy.get('/configz')).body).ambassadors[0]
    const before = await report()
    assert.deepEqual(await statuses(6), [200, 200, 200, 200, 200, 429])
    const smaller = config(port, upstream, 2)
    volumes.config('orders', smaller)
    const startedAt = performance.now()
    while ((await report()).endpointsHash !== smaller.endpointsHash) {
      assert.ok(performance.now() - startedAt < 20_000, 'the size is known within 20 s')
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    assert.deepEqual(await statuses(6), [200, 200, 200, 200, 200, 429], 'five of ten were taken before')
    const { hash, since } = await report()
    assert.deepEqual({ hash, since }, { hash: before.hash, since: before.since })
    assert.match((await proxy.get('/metrics')).body, /^ambassador_fleet_sidecars\{ambassador="orders"\} 2$/m)
  })
})
