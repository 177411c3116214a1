import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { DnsDiscovery } from '../../../proxy/upstream/discovery/dns.ts'
import { SrvDiscovery } from '../../../proxy/upstream/discovery/srv.ts'
import { Resolver } from '../../../proxy/upstream/dns/resolver.ts'
import { DnsServer } from '../../helpers/dns-server.ts'
import { Lateness } from '../../helpers/lateness.ts'
import { closedPort, tcpServer } from '../../helpers/tcp.ts'
import { type TcpProxySetup, tcpProxy } from '../../helpers/tcp-proxy.ts'

const dir = mkdtempSync(join(tmpdir(), 'ambassador-move-'))
after(() => rmSync(dir, { recursive: true }))
const ends: (() => unknown)[] = []
after(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

/** Of this process from now on. */
function lateness(): Lateness {
  const late = new Lateness()
  ends.push(() => late.stop())
  return late
}

const NAME = 'db.example'

/** A proxy to NAME, a nameserver for it, and servers that say their own address on one port. */
async function world(setup: TcpProxySetup = {}) {
  const dns = await DnsServer.start()
  ends.push(() => dns.close())
  const resolvConf = join(dir, 'resolv.conf')
  writeFileSync(resolvConf, 'nameserver 127.0.0.1\n')
  const port = await closedPort()
  const resolver = new Resolver({ resolvConf, hosts: '/nonexistent', port: dns.port })
  const discovery = new DnsDiscovery({ hostname: NAME, port }, resolver)
  const proxy = await tcpProxy({ ...setup, discovery }, ends)
  const start = async (host: string) => {
    const server = await tcpServer((socket) => socket.end(host), port, host)
    ends.push(() => (server.server.listening ? server.close() : undefined))
    return server
  }
  /** One connection of the application: who answered, or the code of its error. */
  const ask = async () => {
    const client = proxy.client().end()
    return (await client.ended()) || (await client.closed()) || 'nothing'
  }
  return { dns, proxy, start, ask }
}

describe('an upstream that moves in its SRV records', () => {
  it('gets every new connection within the TTL and a second, and none of those under load fails', async () => {
    const dns = await DnsServer.start()
    ends.push(() => dns.close())
    const resolvConf = join(dir, 'resolv.conf')
    writeFileSync(resolvConf, 'nameserver 127.0.0.1\n')
    const resolver = new Resolver({ resolvConf, hosts: '/nonexistent', port: dns.port })
    const servers = await Promise.all(
      ['old', 'new'].map(async (word) => {
        const server = await tcpServer((socket) => socket.end(word))
        ends.push(() => server.close())
        return server
      }),
    )
    const [from, to] = servers
    dns.addresses('a.example', ['127.0.0.1'], 1)
    dns.addresses('b.example', ['127.0.0.1'], 1)
    // The standby of a lower priority must never be used.
    dns.services(
      '_db._tcp.example',
      [
        [0, 1, from!.port, 'a.example'],
        [1, 1, await closedPort(), 'b.example'],
      ],
      1,
    )
    const proxy = await tcpProxy({ discovery: new SrvDiscovery({ name: '_db._tcp.example' }, resolver) }, ends)
    const ask = async () => {
      const client = proxy.client().end()
      return (await client.ended()) || (await client.closed()) || 'nothing'
    }
    assert.equal(await ask(), 'old')
    dns.services('_db._tcp.example', [[0, 1, to!.port, 'b.example']], 1)
    const changedAt = performance.now()
    const late = lateness()
    const answers: Record<string, number> = {}
    let lastOld = 0
    const worker = async () => {
      while (performance.now() - changedAt < 3_500) {
        const beganAt = performance.now()
        const answer = await ask()
        answers[answer] = (answers[answer] ?? 0) + 1
        if (answer === 'old') lastOld = Math.max(lastOld, beganAt - changedAt)
        await new Promise((resolve) => setTimeout(resolve, 10))
      }
    }
    await Promise.all(Array.from({ length: 8 }, worker))
    assert.deepEqual(Object.keys(answers).sort(), ['new', 'old'])
    assert.ok((answers['new'] ?? 0) > 0 && (answers['old'] ?? 0) > 0, JSON.stringify(answers))
    // What the machine takes from this process is not the proxy's.
    assert.ok(lastOld < 2_000 + late.lostMs, `the old target was used for ${Math.round(lastOld)} ms`)
  })
})

describe('an upstream that moves in DNS', { concurrency: true, timeout: 120_000 }, () => {
  it('gets every new connection within its TTL and a second, and none fails', async () => {
    const { dns, start, ask } = await world()
    await start('127.0.0.1')
    await start('127.0.0.2')
    dns.addresses(NAME, ['127.0.0.1'], 1)
    assert.equal(await ask(), '127.0.0.1')
    dns.addresses(NAME, ['127.0.0.2'], 1)
    const changedAt = performance.now()
    const late = lateness()
    let last = 0
    let asked = 0
    while (performance.now() - changedAt < 3_000 || asked <= 100) {
      const beganAt = performance.now()
      const answer = await ask()
      asked++
      assert.match(answer, /^127\.0\.0\.[12]$/)
      if (answer === '127.0.0.1') last = beganAt - changedAt
      await new Promise((resolve) => setTimeout(resolve, 5))
    }
    assert.ok(last < 2_000 + late.lostMs, `the old address was used for ${Math.round(last)} ms`)
  })

  it('is found long before its TTL is over when the old address does not accept any more', async () => {
    const { dns, start, ask } = await world()
    const old = await start('127.0.0.1')
    await start('127.0.0.2')
    dns.addresses(NAME, ['127.0.0.1'], 300)
    assert.equal(await ask(), '127.0.0.1')
    await old.close()
    dns.addresses(NAME, ['127.0.0.2'], 300)
    const movedAt = performance.now()
    while ((await ask()) !== '127.0.0.2') {
      // Its TTL is five minutes.
      assert.ok(performance.now() - movedAt < 30_000)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  })

  it('loses no connection when one of its two addresses dies', async () => {
    const { dns, start, ask } = await world()
    const dying = await start('127.0.0.1')
    await start('127.0.0.2')
    dns.addresses(NAME, ['127.0.0.1', '127.0.0.2'], 300)
    const before = new Set<string>()
    for (let i = 0; i < 50; i++) before.add(await ask())
    assert.deepEqual([...before].sort(), ['127.0.0.1', '127.0.0.2'])
    await dying.close()
    for (let i = 0; i < 200; i++) assert.equal(await ask(), '127.0.0.2')
  })

  it('may appear in DNS after the application has connected', async () => {
    const { dns, proxy, start } = await world({ timeouts: { connectMs: 30_000 } })
    await start('127.0.0.1')
    const early = proxy.client().end()
    while (proxy.driver.open === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    // It is asked for again and again, as it does not exist.
    const asked = dns.queries.length
    while (dns.queries.length < asked + 2) await new Promise((resolve) => setTimeout(resolve, 5))
    const heldAt = performance.now()
    dns.addresses(NAME, ['127.0.0.1'], 60)
    assert.equal(await early.ended(), '127.0.0.1')
    const { queueMs } = await proxy.record()
    assert.ok(queueMs > 0 && performance.now() - heldAt < 30_000, `held for ${Math.round(queueMs)} ms`)
  })

  it('is named in the reason when it does not appear', async () => {
    const { proxy } = await world({ timeouts: { connectMs: 2_000 } })
    assert.equal(await proxy.client().closed(), 'ECONNRESET')
    const { end, detail } = await proxy.record()
    assert.deepEqual(
      [end, detail],
      ['dns_failed', `name '${NAME}' does not exist in DNS, check the host of the upstream`],
    )
  })
})
