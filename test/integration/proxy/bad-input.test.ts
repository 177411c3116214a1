/** Inputs that only the sidecar can find bad, and the sentence that its log, /configz and the application get. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import type { Ambassador, AmbassadorSpec } from '../../../operator/api/ambassador.ts'
import { render } from '../../../operator/render/render.ts'
import { ProxyApp } from '../../../proxy/app.ts'
import { mountedSource } from '../../../proxy/config/load.ts'
import { driverMaker } from '../../../proxy/drivers.ts'
import { ProxyLog } from '../../../proxy/observe/log.ts'
import { discover } from '../../../proxy/upstream/discovery/discover.ts'
import { Resolver } from '../../../proxy/upstream/dns/resolver.ts'
import { DnsServer } from '../../helpers/dns-server.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { HttpTestClient } from '../../helpers/http-client.ts'
import { type LeafOptions, Pki } from '../../helpers/pki.ts'
import { freePort } from '../../helpers/ports.ts'
import { Volumes } from '../../helpers/volume.ts'

const dir = mkdtempSync(join(tmpdir(), 'ambassador-bad-'))
after(() => rmSync(dir, { recursive: true }))
const pki = new Pki()
after(() => pki.remove())
const authority = pki.authority()
const ends = endsOfEach()

type Upstream = AmbassadorSpec['upstreams'][number]

/** A sidecar with this upstream, and a nameserver that knows no name until it is told one. */
async function world(upstream: Omit<Upstream, 'name'>, prepare: (volumes: Volumes) => void = () => {}) {
  const dns = await DnsServer.start()
  ends.push(() => dns.close())
  const resolvConf = join(dir, 'resolv.conf')
  writeFileSync(resolvConf, 'nameserver 127.0.0.1\n')
  const resolver = new Resolver({ resolvConf, hosts: '/nonexistent', port: dns.port })
  const volumes = new Volumes()
  ends.push(() => volumes.remove())
  prepare(volumes)
  const port = await freePort()
  const spec = {
    protocol: 'HTTP',
    listen: { port },
    timeouts: { connect: '300ms', request: '500ms' },
    upstreams: [{ name: 'live', ...upstream }],
  }
  const metadata = { name: 'orders', namespace: 'shop' }
  const { config, problems } = render({ ambassador: { metadata, spec } as unknown as Ambassador })
  assert.ok(config !== null, JSON.stringify(problems))
  volumes.config('orders', config)
  const lines: Record<string, unknown>[] = []
  let wake = () => {}
  const write = (line: string) => {
    lines.push(JSON.parse(line))
    wake()
  }
  const app = new ProxyApp({
    sources: [mountedSource(volumes.configDir, 'shop', 'orders')],
    dirs: volumes.dirs,
    telemetryPort: 0,
    adminPort: 0,
    readiness: 'UpstreamHealthy',
    sidecarMode: 'Native',
    drainMs: 1000,
    podName: null,
    log: new ProxyLog({ level: 'debug', write }),
    discover: (each, source) => discover(each, resolver, source),
    makeDriver: driverMaker(() => {}),
    onQuit: () => {},
    watch: { debounceMs: 5, pollMs: 600_000 },
  })
  ends.push(() => app.stop('Native'))
  await app.start()
  return {
    app,
    dns,
    /** The first line of the log with this message. */
    logged: async (message: string) => {
      for (;;) {
        const line = lines.find(({ msg }) => msg === message)
        if (line !== undefined) return line
        await new Promise<void>((resolve) => (wake = resolve))
      }
    },
    ask: async () => {
      const client = new HttpTestClient({ port })
      ends.push(() => client.socket.destroy())
      return await client.get().response()
    },
  }
}

const NOT_LOOKED_UP = 'endpoints cannot be looked up, those that are known stay'

describe('the sidecar says of', () => {
  for (const [title, upstream, detail] of [
    [
      'a host that does not resolve',
      { endpoints: [{ host: 'db.nowhere.example', port: 80, weight: 1, priority: 0 }] },
      "name 'db.nowhere.example' does not exist in DNS, check the host of the upstream",
    ],
    [
      'a dns.hostname that does not resolve',
      { dns: { hostname: 'db.nowhere.example', port: 80 } },
      "name 'db.nowhere.example' does not exist in DNS, check the host of the upstream",
    ],
    [
      'SRV records that do not exist',
      { srv: { name: '_db._tcp.nowhere.example' } },
      "SRV name '_db._tcp.nowhere.example' does not exist in DNS, check srv.name",
    ],
  ] as const) {
    it(`${title} in its log, to the application, in /readyz and in /configz`, async () => {
      const { app, logged, ask } = await world(upstream as unknown as Upstream)
      const line = await logged(NOT_LOOKED_UP)
      assert.deepEqual(
        [line['level'], line['ns'], line['ambassador'], line['cluster'], line['detail']],
        ['warn', 'shop', 'orders', 'live', detail],
      )
      const answer = await ask()
      assert.deepEqual([answer.status, answer.field('x-ambassador-reason')], [502, 'dns_failed'])
      assert.equal(JSON.parse(answer.body).detail, detail)
      assert.deepEqual(app.unready(), [`ambassador 'orders': upstream 'live': ${detail}`])
      assert.deepEqual(app.unready({ isStartup: true }), [])
      assert.deepEqual(
        [app.configz().ambassadors[0]?.lastError?.reason, app.configz().ambassadors[0]?.lastError?.message],
        ['dns_failed', detail],
      )
    })
  }

  it('SRV records that are there and name nobody', async () => {
    const { dns, logged } = await world({ srv: { name: '_none._tcp.example' } } as unknown as Upstream, () => {})
    dns.services('_none._tcp.example', [], 1)
    assert.match(String((await logged(NOT_LOOKED_UP))['detail']), /'_none\._tcp\.example'/)
  })

  const dates = (from: string, to: string): LeafOptions => ({
    names: ['shop.example'],
    notBefore: new Date(from),
    notAfter: new Date(to),
  })
  for (const [title, options, why] of [
    [
      'an expired client certificate',
      dates('2020-01-01', '2021-02-03'),
      'has expired (valid from 2020-01-01T00:00:00Z to 2021-02-03T00:00:00Z)',
    ],
    [
      'a client certificate that is not yet valid',
      dates('2040-01-01', '2041-02-03'),
      'is not yet valid (valid from 2040-01-01T00:00:00Z to 2041-02-03T00:00:00Z)',
    ],
  ] as const) {
    it(`${title} both dates, from the start, and dials nobody`, async () => {
      const leaf = authority.issue(options)
      const endpoints = [{ host: '127.0.0.1', port: await freePort(), weight: 1, priority: 0 }]
      const { app, logged, ask } = await world(
        { endpoints, tls: { clientCertificate: { secretName: 'pair' } } } as unknown as Upstream,
        (volumes) => volumes.secret('pair', { 'tls.crt': leaf.cert, 'tls.key': leaf.key }),
      )
      const detail = `tls.clientCertificate: Secret 'pair', key 'tls.crt': CN=shop.example ${why}, renew it`
      const line = await logged('config in force, but what it refers to is not usable')
      assert.deepEqual([line['level'], line['detail']], ['warn', `upstream 'live': ${detail}`])
      const [ref] = app.configz().ambassadors[0]?.refs.filter(({ state }) => state === 'Invalid') ?? []
      assert.equal(ref?.message, `upstream 'live': ${detail}`)
      assert.deepEqual(app.unready(), [`ambassador 'orders': upstream 'live': ${detail}`])
      const answer = await ask()
      assert.deepEqual([answer.status, answer.field('x-ambassador-reason')], [502, 'tls_verify_failed'])
      assert.match(JSON.parse(answer.body).detail, new RegExp(why.replace(/[()]/g, '\\$&')))
    })
  }
})
