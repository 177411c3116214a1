/** Sidecars that know their zone: where their requests go, as a Service, a list in the spec and a file say what is where. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer, type Server } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { configHash } from '../../../common/config-hash.ts'
import type { ServiceDiscoveryConfig } from '../../../common/proxy-config.ts'
import { plainConfig } from '../../../proxy/config/plain.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { Volumes } from '../../helpers/volume.ts'

const dir = mkdtempSync(join(tmpdir(), 'amb-zones-'))
after(() => rmSync(dir, { recursive: true }))
const ends = endsOfEach()

/** Three servers that say their names. */
const servers: Server[] = []
let ports: number[] = []
before(async () => {
  for (const name of ['a', 'b', 'c']) {
    const server = createServer((_, answer) => answer.end(name))
    await new Promise<void>((resolve) => server.listen(0, '127.0.0.1', resolve))
    servers.push(server)
  }
  ports = servers.map((server) => (server.address() as AddressInfo).port)
})
after(() => {
  for (const server of servers) server.closeAllConnections()
  for (const server of servers) server.close()
})

async function started(env: Readonly<Record<string, string>>, args?: readonly string[]): Promise<ProxyProcess> {
  const proxy = await ProxyProcess.start(env, args)
  ends.push(() => proxy.end())
  return proxy.ready()
}

/** Who answered `count` requests, each name once. */
async function answers(port: number, count = 30): Promise<string> {
  const names = new Set<string>()
  for (let i = 0; i < count; i++) names.add(await (await fetch(`http://127.0.0.1:${port}/`)).text())
  return [...names].sort().join('')
}

describe('loadBalancing.zonePreference', () => {
  const volumes = new Volumes()
  after(() => volumes.remove())

  const publish = (port: number, endpoints: ServiceDiscoveryConfig['endpoints'], generation = 1) => {
    const base = plainConfig({ namespace: 'shop', host: 'x', port: 1, listenPort: port, protocol: 'HTTP', tls: null })
    const discovery = {
      kind: 'service',
      namespace: 'shop',
      name: 'orders',
      port: '80',
      host: 'orders',
      endpoints,
    } as const
    const content = {
      ...base,
      ambassador: { namespace: 'shop', name: 'orders', generation },
      clusters: base.clusters.map((each) => ({
        ...each,
        discovery,
        loadBalancing: { policy: 'LeastRequest' as const, zonePreference: 'SameZone' as const },
      })),
    }
    volumes.config('orders', { ...content, hash: configHash(content), endpointsHash: JSON.stringify(endpoints) })
  }
  const sidecar = (zone: string) =>
    started({
      ...volumes.env('orders'),
      AMBASSADOR_ZONE: zone,
    })

  it('keeps to the pods of its zone as they come and go, and to those that Kubernetes means for it', async () => {
    const port = await freePort()
    const [a, b, c] = ports as [number, number, number]
    const ip = '127.0.0.1'
    publish(port, [
      { ip, port: a, zone: 'west' },
      { ip, port: b, zone: 'east' },
      { ip, port: c },
    ])
    const proxy = await sidecar('west')
    assert.equal(await answers(port), 'a')
    const report = async () => JSON.parse((await proxy.admin('GET', '/upstreams')).body)
    const { zone, ambassadors } = await report()
    assert.deepEqual(
      [zone, ambassadors[0].upstreams[0].endpoints.map((each: { zone: unknown }) => each.zone)],
      ['west', ['west', 'east', null]],
    )
    const moved = async (endpoints: ServiceDiscoveryConfig['endpoints']) => {
      publish(port, endpoints)
      const hash = JSON.stringify(endpoints)
      while (JSON.parse((await proxy.get('/configz')).body).ambassadors[0].endpointsHash !== hash)
        await new Promise((resolve) => setTimeout(resolve, 5))
    }
    await moved([
      { ip, port: b, zone: 'east' },
      { ip, port: c, zone: 'north' },
    ])
    assert.equal(await answers(port), 'bc')
    await moved([
      { ip, port: a, zone: 'west', forZones: ['east'] },
      { ip, port: b, zone: 'east', forZones: ['west', 'east'] },
      { ip, port: c, zone: 'north' },
    ])
    assert.equal(await answers(port), 'b')
  })

  it('does nothing where the zone is not known', async () => {
    const port = await freePort()
    publish(
      port,
      ports.map((each, i) => ({ ip: '127.0.0.1', port: each, zone: i === 0 ? 'west' : 'east' })),
    )
    await sidecar('')
    assert.equal(await answers(port, 60), 'abc')
  })

  it('goes by the zones of a list and of a file, in ambassador run too, and leaves its zone when nobody is there', async () => {
    const [a, b, c] = ports as [number, number, number]
    const gone = await freePort()
    const [listed, filed, left] = [await freePort(), await freePort(), await freePort()]
    writeFileSync(join(dir, 'endpoints'), `127.0.0.1:${a} zone=east\n127.0.0.1:${b} zone=west weight=2\n`)
    const one = (name: string, port: number, upstream: string) => `apiVersion: ambassador.dev/v1alpha1
kind: Ambassador
metadata: { name: ${name} }
spec:
  protocol: HTTP
  listen: { port: ${port} }
  upstreams: [ { name: live, loadBalancing: { zonePreference: SameZone }, ${upstream} } ]
`
    const at = (port: number, zone: string) => `{ host: 127.0.0.1, port: ${port}, zone: ${zone} }`
    const file = join(dir, 'ambassadors.yaml')
    writeFileSync(
      file,
      [
        one('listed', listed, `endpoints: [ ${at(a, 'east')}, ${at(b, 'east')}, ${at(c, 'west')} ]`),
        one('filed', filed, 'file: { file: endpoints }'),
        one('left', left, `endpoints: [ ${at(gone, 'west')}, ${at(b, 'east')} ]`),
      ].join('---\n'),
    )
    const own = ['--telemetry-port', `${await freePort()}`, '--admin-port', `${await freePort()}`]
    const proxy = await started({ AMBASSADOR_ZONE: 'west' }, ['cli/main.ts', 'run', '-f', file, ...own])
    await proxy.line(({ msg, ambassador }) => msg === 'config in force' && ambassador === 'left')
    assert.deepEqual([await answers(listed), await answers(filed), await answers(left)], ['c', 'b', 'b'])
  })
})
