/** One sidecar process whose upstream is a Kubernetes Service: its pods change in the mounted config, and no request fails. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { after, afterEach, before, describe, it } from 'node:test'
import { configHash } from '../../../common/config-hash.ts'
import type { ProxyConfig } from '../../../common/proxy-config.ts'
import { plainConfig } from '../../../proxy/config/plain.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { Volumes } from '../../helpers/volume.ts'

const servers: Server[] = []
let ports: number[] = []
let volumes: Volumes
let proxy: ProxyProcess

before(async () => {
  for (const name of ['a', 'b']) {
    const server = createServer((incoming, answer) => answer.end(`${name} ${incoming.headers.host}`)).listen(
      0,
      '127.0.0.1',
    )
    await once(server, 'listening')
    servers.push(server)
  }
  ports = servers.map((server) => (server.address() as AddressInfo).port)
})
after(() => {
  for (const server of servers) server.close()
})
afterEach(async () => {
  await proxy.end()
  volumes.remove()
})

interface Change {
  readonly generation?: number
  /** Refers to a Secret that is not there: the config cannot be put in force. */
  readonly isBroken?: boolean
  readonly requestMs?: number
}

function config(
  port: number,
  endpoints: readonly number[],
  { generation = 1, isBroken = false, requestMs = 15_000 }: Change = {},
): ProxyConfig {
  const base = plainConfig({ namespace: 'shop', host: 'x', port: 1, listenPort: port, protocol: 'HTTP', tls: null })
  const content = {
    ...base,
    ambassador: { namespace: 'shop', name: 'orders', generation },
    timeouts: { ...base.timeouts, connectMs: 3000, requestMs },
    clusters: base.clusters.map((each) => ({
      ...each,
      auth: isBroken ? ({ kind: 'bearer', token: { kind: 'secret', name: 'none', key: 'none' } } as const) : null,
      discovery: {
        kind: 'service' as const,
        namespace: 'shop',
        name: 'orders',
        port: '80',
        host: 'orders.shop.svc',
        endpoints: endpoints.map((each) => ({ ip: '127.0.0.1', port: each })),
      },
    })),
  }
  return { ...content, hash: configHash(content), endpointsHash: `of ${endpoints.join()}` }
}

async function sidecar(first: ProxyConfig): Promise<void> {
  volumes = new Volumes()
  volumes.config('orders', first)
  proxy = await ProxyProcess.start({
    ...volumes.env('orders'),
    POD_NAMESPACE: 'shop',
  })
  await proxy.ready()
}

const report = async () => JSON.parse((await proxy.get('/configz')).body).ambassadors[0]

async function uses(endpoints: readonly number[]): Promise<void> {
  const startedAt = performance.now()
  while ((await report()).endpointsHash !== `of ${endpoints.join()}`) {
    assert.ok(performance.now() - startedAt < 30_000, 'the endpoints are in use')
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

const get = (port: number) =>
  fetch(`http://127.0.0.1:${port}/`).then(async (answer) => ({
    status: answer.status,
    reason: answer.headers.get('x-ambassador-reason'),
    text: await answer.text(),
  }))

describe('an upstream that is a Service', { timeout: 180_000 }, () => {
  it('moves with its pods under load, without a new config in force and without a failed request', async () => {
    const port = await freePort()
    const [a, b] = ports as [number, number]
    await sidecar(config(port, [a]))
    const before = await report()
    const failures: unknown[] = []
    let sent = 0
    let isOver = false
    const load = (async () => {
      while (!isOver) {
        const answer = await get(port).catch((error: unknown) => ({ status: 0, error }))
        sent++
        if (answer.status !== 200) failures.push(answer)
      }
    })()
    for (const pods of [[a, b], [b], [a, b], [a], [b]]) {
      volumes.config('orders', config(port, pods))
      await uses(pods)
    }
    assert.equal((await get(port)).text, 'b orders.shop.svc:' + b)
    while (sent <= 10) await new Promise((resolve) => setTimeout(resolve, 5))
    isOver = true
    await load
    assert.deepEqual(failures, [])
    assert.ok(sent > 10, `${sent} requests`)
    const { hash, since } = await report()
    assert.deepEqual({ hash, since }, { hash: before.hash, since: before.since })
  })

  it('follows its pods also while a newer config cannot be put in force', async () => {
    const port = await freePort()
    const [a, b] = ports as [number, number]
    await sidecar(config(port, [a]))
    volumes.config('orders', config(port, [b], { generation: 2, isBroken: true }))
    await uses([b])
    const { generation, rejected } = await report()
    assert.deepEqual([generation, rejected?.generation], [1, 2])
    assert.match((await get(port)).text, /^b /)
  })

  it('holds requests while it has no pod, serves them when one comes, and says no_healthy_endpoint when none does', async () => {
    const port = await freePort()
    const [a] = ports as [number, number]
    // A request that is held waits for no longer than this.
    const requestMs = 4000
    await sidecar(config(port, [], { requestMs }))
    const refused = await get(port)
    assert.deepEqual([refused.status, refused.reason], [503, 'no_healthy_endpoint'])
    assert.match(refused.text, /Service 'orders' of namespace 'shop' has no endpoint/)
    const held = get(port)
    volumes.config('orders', config(port, [a], { requestMs }))
    assert.equal((await held).status, 200)
    volumes.config('orders', config(port, [], { requestMs }))
    await uses([])
    const again = get(port)
    volumes.config('orders', config(port, [a], { requestMs }))
    assert.equal((await again).status, 200)
  })
})
