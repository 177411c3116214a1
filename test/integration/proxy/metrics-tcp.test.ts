/** What the metrics of TCP tell after real traffic, and of an upstream whose certificate nobody verifies. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import type { Ambassador } from '../../../operator/api/ambassador.ts'
import { render } from '../../../operator/render/render.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { echo, TestClient, tcpServer } from '../../helpers/tcp.ts'
import { Volumes } from '../../helpers/volume.ts'

describe('the metrics of TCP', () => {
  const ends: (() => unknown)[] = []
  const REASON = 'self-signed until May'
  let proxy: ProxyProcess
  let port = 0
  before(async () => {
    const server = await tcpServer(echo)
    ends.push(() => server.close())
    const volumes = new Volumes()
    ends.push(() => volumes.remove())
    port = await freePort()
    for (const [name, listen, tls] of [
      ['plain', port, undefined],
      ['verified', await freePort(), {}],
      ['unverified', await freePort(), { insecureSkipVerify: { reason: REASON } }],
    ] as const) {
      const upstreams = [{ name: 'live', endpoints: [{ host: '127.0.0.1', port: server.port }], ...(tls && { tls }) }]
      const spec = { protocol: 'TCP', listen: { port: listen }, upstreams }
      const { config, problems } = render({ ambassador: { metadata: { name }, spec } as unknown as Ambassador })
      assert.ok(config !== null, JSON.stringify(problems))
      volumes.config(name, config)
    }
    proxy = await ProxyProcess.start({
      ...volumes.env('plain,verified,unverified'),
    })
    ends.push(() => proxy.end())
    await proxy.ready()
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })
  const metric = async (pattern: RegExp): Promise<string | undefined> =>
    pattern.exec((await proxy.get('/metrics')).body)?.[1]

  it('count the bytes of a connection in each direction, when it has ended', async () => {
    const client = new TestClient({ port })
    client.write('x'.repeat(100_000))
    await client.read(100_000)
    client.end('bye')
    await client.ended()
    const bytes = (direction: string) =>
      metric(
        new RegExp(`^ambassador_tcp_bytes_total\\{ambassador="plain"[^}]*direction="${direction}"\\} (\\d+)$`, 'm'),
      )
    while ((await bytes('in')) !== '100003') await new Promise((resolve) => setTimeout(resolve, 10))
    assert.equal(await bytes('out'), '100003')
  })

  it('show an upstream that nobody verifies, and the log says why', async () => {
    const unverified = (name: string) =>
      metric(new RegExp(`^ambassador_tls_unverified\\{ambassador="${name}"[^}]*\\} (\\d+)$`, 'm'))
    assert.deepEqual(
      [await unverified('plain'), await unverified('verified'), await unverified('unverified')],
      [undefined, '0', '1'],
    )
    const isTold = ({ msg }: Record<string, unknown>) => msg === 'the certificate of the upstream is not verified'
    await proxy.line(isTold)
    const lines = proxy.log.filter(isTold)
    assert.deepEqual(
      lines.map(({ ambassador, detail, level }) => ({ ambassador, detail, level })),
      [{ ambassador: 'unverified', detail: REASON, level: 'warn' }],
    )
  })
})
