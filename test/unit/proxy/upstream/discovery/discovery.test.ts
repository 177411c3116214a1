import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import type { DiscoveryConfig } from '../../../../../common/proxy-config.ts'
import { discover } from '../../../../../proxy/upstream/discovery/discover.ts'
import type { Address, Discovery } from '../../../../../proxy/upstream/discovery/discovery.ts'
import { Resolver } from '../../../../../proxy/upstream/dns/resolver.ts'
import { DnsServer } from '../../../../helpers/dns-server.ts'

const dir = mkdtempSync(join(tmpdir(), 'ambassador-discovery-'))
after(() => rmSync(dir, { recursive: true }))
const ends: (() => unknown)[] = []
after(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

/**
 * @param timeoutMs of a question; what a machine under load takes for an answer is no failure, unless that is the point. Less than the
 * file may live on after its last test: a question that comes while its nameserver closes is never answered.
 */
async function nameserver(timeoutMs = 8_000, search = '') {
  const server = await DnsServer.start()
  ends.push(() => server.close())
  const resolvConf = join(dir, `resolv.conf.${server.port}`)
  writeFileSync(resolvConf, `nameserver 127.0.0.1\noptions attempts:1 ndots:5\nsearch ${search}\n`)
  // Whole seconds of TTL are too long for a test: zero is held at 50 ms.
  const resolver = new Resolver({
    resolvConf,
    hosts: '/nonexistent',
    port: server.port,
    minTtlMs: 50,
    timeoutMs,
    hasIpv6: () => true,
  })
  return { server, resolver }
}

/** Collects the sets that a discovery tells of. */
class Sets {
  readonly all: (readonly Address[])[] = []
  readonly failures: (string | null)[] = []
  readonly discovery: Discovery
  #wake: (() => void)[] = []

  constructor(config: DiscoveryConfig, resolver: Resolver) {
    this.discovery = discover(config, resolver)
    ends.push(() => this.discovery.stop())
    this.discovery.start(
      (addresses) => {
        this.all.push(addresses)
        for (const wake of this.#wake.splice(0)) wake()
      },
      (failure) => this.failures.push(failure),
    )
  }

  /** The addresses of set number `n`, when it is there. */
  async ips(n: number): Promise<string[]> {
    while (this.all.length <= n) await new Promise<void>((resolve) => this.#wake.push(resolve))
    return this.all[n]!.map(({ ip }) => ip)
  }
}

/** Waits until a condition holds that nothing tells of. */
async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 5))
}

const DNS: DiscoveryConfig = { kind: 'dns', hostname: 'db.example', port: 5432 }

// Each has a nameserver of its own, and waits for what it says to be over.
describe('discovery by dns', { concurrency: true, timeout: 60_000 }, () => {
  it('tells of every address with the name as host, and of a change when the TTL is over', async () => {
    const { server, resolver } = await nameserver()
    server.addresses('db.example', ['10.0.0.2', '10.0.0.1'], 0)
    const sets = new Sets(DNS, resolver)
    await sets.ips(0)
    assert.deepEqual(sets.all[0], [
      { host: 'db.example', ip: '10.0.0.1', port: 5432, weight: 1, priority: 0 },
      { host: 'db.example', ip: '10.0.0.2', port: 5432, weight: 1, priority: 0 },
    ])
    server.addresses('db.example', ['10.0.0.3'], 0)
    assert.deepEqual(await sets.ips(1), ['10.0.0.3'])
    assert.equal(sets.discovery.failure, null)
  })

  it('tells when DNS last confirmed what is in use, and nothing of an address', async () => {
    const { server, resolver } = await nameserver()
    server.addresses('db.example', ['10.0.0.1'], 0)
    const before = performance.now()
    const sets = new Sets(DNS, resolver)
    assert.equal(sets.discovery.lookedUpAt, null)
    await sets.ips(0)
    const first = sets.discovery.lookedUpAt ?? 0
    assert.ok(first >= before)
    await until(() => (sets.discovery.lookedUpAt ?? 0) > first)
    server.forget('db.example')
    await until(() => sets.discovery.failure !== null)
    const last = sets.discovery.lookedUpAt
    const asked = server.queries.length
    await until(() => server.queries.length > asked)
    assert.equal(sets.discovery.lookedUpAt, last, 'a look-up that fails confirms nothing')
    const endpoints = [{ host: '10.0.0.1', port: 80, weight: 1, priority: 0 }]
    assert.equal(new Sets({ kind: 'endpoints', endpoints }, resolver).discovery.lookedUpAt, null)
  })

  it('says nothing while nothing changes, in whatever order the addresses come', async () => {
    const { server, resolver } = await nameserver()
    server.addresses('db.example', ['10.0.0.1', '10.0.0.2'], 0)
    const sets = new Sets(DNS, resolver)
    await sets.ips(0)
    server.addresses('db.example', ['10.0.0.2', '10.0.0.1'], 0)
    const asked = server.queries.length
    await until(() => server.queries.length >= asked + 6)
    assert.equal(sets.all.length, 1)
  })

  const troubles: [title: string, spoil: (server: DnsServer) => void, why: RegExp][] = [
    ['the name is gone', (server) => server.forget('db.example'), /^name 'db\.example' does not exist in DNS/],
    ['the answer is empty', (server) => server.addresses('db.example', []), /has no A or AAAA record/],
    [
      'the nameserver is silent',
      (server) => {
        server.forget('db.example')
        server.fallback = () => ({ isSilent: true })
      },
      /nameserver 127\.0\.0\.1 did not answer within 1000 ms/,
    ],
    [
      'the nameserver fails',
      (server) => {
        server.forget('db.example')
        server.fallback = () => ({ rcode: 2 })
      },
      /SERVFAIL/,
    ],
  ]
  for (const [title, spoil, why] of troubles) {
    it(`keeps the last addresses when ${title}, says so, and goes on afterwards`, async () => {
      const isSilent = title.endsWith('silent')
      const { server, resolver } = await nameserver(isSilent ? 1_000 : undefined)
      server.addresses('db.example', ['10.0.0.1'], 0)
      const sets = new Sets(DNS, resolver)
      await sets.ips(0)
      spoil(server)
      await until(() => sets.discovery.failure !== null)
      assert.match(sets.discovery.failure ?? '', why)
      assert.match(sets.discovery.failure ?? '', /; the last known addresses stay in use: 10\.0\.0\.1$/)
      assert.equal(sets.all.length, 1)
      server.addresses('db.example', ['10.0.0.2'], 0)
      assert.deepEqual(await sets.ips(1), ['10.0.0.2'])
      await until(() => sets.failures.length >= 2)
      // With a short time-out a machine that stands still may fail once more.
      const told = isSilent ? sets.failures.slice(0, 2) : sets.failures
      assert.deepEqual(
        told.map((failure) => failure !== null),
        [true, false],
      )
    })
  }

  it('keeps the addresses of one family while only the other can be looked up', async () => {
    const { server, resolver } = await nameserver()
    server.addresses('db.example', ['10.0.0.1', '2001:db8::1'], 0)
    const sets = new Sets(DNS, resolver)
    await sets.ips(0)
    server.addresses('db.example', ['10.0.0.2'], 0)
    server.reply('db.example', 'AAAA', { rcode: 2 })
    assert.deepEqual(await sets.ips(1), ['10.0.0.2', '2001:db8::1'])
  })

  it('finds a name that appears only later', async () => {
    const { server, resolver } = await nameserver()
    const sets = new Sets(DNS, resolver)
    await until(() => sets.discovery.failure !== null)
    assert.equal(sets.discovery.failure, "name 'db.example' does not exist in DNS, check the host of the upstream")
    server.addresses('db.example', ['10.0.0.1'])
    assert.deepEqual(await sets.ips(0), ['10.0.0.1'])
  })

  it('looks again after a failed connect long before the TTL is over, but not at each of many', async () => {
    const { server, resolver } = await nameserver()
    server.addresses('db.example', ['10.0.0.1'], 300)
    const begin = performance.now()
    const sets = new Sets(DNS, resolver)
    await sets.ips(0)
    server.addresses('db.example', ['10.0.0.2'], 300)
    const asked = server.queries.length
    for (let i = 0; i < 100; i++) sets.discovery.refresh()
    assert.deepEqual(await sets.ips(1), ['10.0.0.2'])
    assert.equal(server.queries.length, asked + 2)
    const took = performance.now() - begin
    // Not sooner than a second after the look before, and not when the TTL of five minutes is over.
    assert.ok(took >= 990 && took < 30_000, `${took} ms`)
  })

  it('looks no more once it is stopped', async () => {
    const { server, resolver } = await nameserver()
    server.addresses('db.example', ['10.0.0.1'], 0)
    const sets = new Sets(DNS, resolver)
    await sets.ips(0)
    sets.discovery.stop()
    sets.discovery.refresh()
    const asked = server.queries.length
    await new Promise((resolve) => setTimeout(resolve, 150))
    assert.equal(server.queries.length, asked)
  })
})

describe('discovery by endpoints', { concurrency: true, timeout: 60_000 }, () => {
  const list = (...endpoints: [host: string, port: number, weight: number, priority: number][]): DiscoveryConfig => ({
    kind: 'endpoints',
    endpoints: endpoints.map(([host, port, weight, priority]) => ({ host, port, weight, priority })),
  })

  it('tells of addresses at once and asks nobody', async () => {
    const { server, resolver } = await nameserver()
    const sets = new Sets(list(['10.0.0.1', 80, 3, 0], ['2001:db8::1', 81, 1, 1]), resolver)
    assert.deepEqual(sets.all, [
      [
        { host: '10.0.0.1', ip: '10.0.0.1', port: 80, weight: 3, priority: 0 },
        { host: '2001:db8::1', ip: '2001:db8::1', port: 81, weight: 1, priority: 1 },
      ],
    ])
    assert.equal(server.queries.length, 0)
  })

  it('gives each address of a name the weight and priority of its entry, and a name that stands twice is asked for once', async () => {
    const { server, resolver } = await nameserver()
    server.addresses('a.example', ['10.0.0.1', '10.0.0.2'])
    const sets = new Sets(list(['a.example', 80, 2, 0], ['a.example', 81, 1, 1], ['10.0.0.9', 80, 1, 2]), resolver)
    await sets.ips(0)
    assert.deepEqual(
      sets.all[0]?.map(({ ip, port, weight, priority }) => [ip, port, weight, priority]),
      [
        ['10.0.0.1', 80, 2, 0],
        ['10.0.0.2', 80, 2, 0],
        ['10.0.0.1', 81, 1, 1],
        ['10.0.0.2', 81, 1, 1],
        ['10.0.0.9', 80, 1, 2],
      ],
    )
    assert.equal(server.queries.length, 2)
  })

  it('asks again for the name of an endpoint that failed, and for no other', async () => {
    const { server, resolver } = await nameserver()
    const hosts = ['a.example', 'b.example', 'c.example']
    for (const [i, host] of hosts.entries()) server.addresses(host, [`10.0.0.${i + 1}`], 300)
    const endpoints = hosts.map((host) => ({ host, port: 80, weight: 1, priority: 0 }))
    const sets = new Sets({ kind: 'endpoints', endpoints }, resolver)
    await sets.ips(0)
    server.queries.length = 0
    server.addresses('b.example', ['10.0.0.9'], 300)
    sets.discovery.refresh('b.example')
    sets.discovery.refresh('10.0.0.77')
    assert.deepEqual(await sets.ips(1), ['10.0.0.1', '10.0.0.9', '10.0.0.3'])
    assert.deepEqual([...new Set(server.queries.map(({ name }) => name))], ['b.example'])
  })

  it('waits for the slower name, so that a standby does not get the first traffic', async () => {
    const { server, resolver } = await nameserver()
    server.reply('primary.example', 'A', {
      answers: [{ type: 'A', name: 'primary.example', ttl: 60, data: '10.0.0.1' }],
      delayMs: 100,
    })
    server.addresses('standby.example', ['10.0.0.2'])
    const sets = new Sets(list(['primary.example', 80, 1, 0], ['standby.example', 80, 1, 1]), resolver)
    assert.deepEqual(await sets.ips(0), ['10.0.0.1', '10.0.0.2'])
  })

  it('goes on without a name that does not resolve, and says which', async () => {
    const { server, resolver } = await nameserver()
    server.addresses('standby.example', ['10.0.0.2'])
    const sets = new Sets(list(['primary.example', 80, 1, 0], ['standby.example', 80, 1, 1]), resolver)
    assert.deepEqual(await sets.ips(0), ['10.0.0.2'])
    assert.match(sets.discovery.failure ?? '', /^name 'primary\.example' does not exist/)
    server.addresses('primary.example', ['10.0.0.1'])
    assert.deepEqual(await sets.ips(1), ['10.0.0.1', '10.0.0.2'])
    assert.deepEqual(sets.failures, [
      "name 'primary.example' does not exist in DNS, check the host of the upstream",
      null,
    ])
  })

  it('goes on without a name whose nameserver is silent after a second', async () => {
    const { server } = await nameserver()
    server.reply('slow.example', 'A', { delayMs: 20_000 })
    server.reply('slow.example', 'AAAA', { delayMs: 20_000 })
    const slow = new Resolver({
      resolvConf: join(dir, 'resolv.conf'),
      hosts: '/nonexistent',
      port: server.port,
      timeoutMs: 5_000,
    })
    const begin = performance.now()
    const sets = new Sets(list(['slow.example', 80, 1, 0], ['10.0.0.2', 80, 1, 1]), slow)
    assert.deepEqual(await sets.ips(0), ['10.0.0.2'])
    assert.ok(performance.now() - begin >= 900)
  })
})

describe('discovery of very many names', { concurrency: true, timeout: 60_000 }, () => {
  const COUNT = 300
  const listOf = (hosts: readonly string[]): DiscoveryConfig => ({
    kind: 'endpoints',
    endpoints: hosts.map((host) => ({ host, port: 80, weight: 1, priority: 0 })),
  })
  const name = (i: number) => `n${i}.example`
  const ip = (i: number) => `10.0.${i >> 8}.${i & 255}`

  it('asks for a hundred at a time, and tells of what comes late together', async () => {
    const { server, resolver } = await nameserver()
    const late = 90
    let under = 0
    let most = 0
    server.fallback = ({ name: asked, type }) => {
      const i = Number(/\d+/.exec(asked)?.[0])
      // Longer than what waits for the first look.
      const delayMs = i < late ? 1_300 : 20
      under++
      most = Math.max(most, under)
      setTimeout(() => under--, delayMs - 1)
      return { delayMs, answers: type === 'A' ? [{ type, name: asked, ttl: 300, data: ip(i) }] : [] }
    }
    const sets = new Sets(listOf(Array.from({ length: COUNT }, (_, i) => name(i))), resolver)
    await until(() => sets.all.at(-1)?.length === COUNT)
    // Two questions for each.
    assert.ok(most <= 200, `${most} questions at a time`)
    // One at a time, they would be more than late.
    assert.ok(sets.all.length <= late / 2, `${sets.all.length} sets`)
    assert.deepEqual(sets.failures, [])
  })

  it('names five of those that fail, and counts the others', async () => {
    const { server, resolver } = await nameserver()
    for (let i = 20; i < COUNT; i++) server.addresses(name(i), [ip(i)])
    const sets = new Sets(listOf(Array.from({ length: COUNT }, (_, i) => name(i))), resolver)
    await until(() => /; and 15 more names$/.test(sets.discovery.failure ?? ''))
    const failure = sets.discovery.failure ?? ''
    assert.equal(failure.match(/^name 'n\d+\.example' does not exist in DNS/)?.length, 1)
    assert.equal(failure.split(' does not exist in DNS').length - 1, 5)
    await until(() => sets.failures.at(-1) === failure)
    for (let i = 0; i < 20; i++) server.addresses(name(i), [ip(i)])
    await until(() => sets.all.at(-1)?.length === COUNT && sets.failures.at(-1) === null)
    assert.equal(sets.discovery.failure, null)
  })
})

describe('discovery by srv', { concurrency: true, timeout: 60_000 }, () => {
  const SRV: DiscoveryConfig = { kind: 'srv', name: '_db._tcp.example' }
  const shown = (addresses: readonly Address[] | undefined) =>
    addresses?.map(({ host, ip, port, weight, priority }) => [host, ip, port, weight, priority])

  it('gives each target its port, priority and weight, which its addresses share; weight 0 is hardly any', async () => {
    const { server, resolver } = await nameserver()
    server.services('_db._tcp.example', [
      [10, 60, 5432, 'a.example'],
      [10, 0, 5433, 'B.example'],
      [20, 1, 5434, 'c.example'],
    ])
    server.addresses('a.example', ['10.0.0.2', '10.0.0.1'])
    server.addresses('b.example', ['10.0.0.3'])
    server.addresses('c.example', ['10.0.0.4'])
    const sets = new Sets(SRV, resolver)
    await sets.ips(0)
    assert.deepEqual(shown(sets.all[0]), [
      ['a.example', '10.0.0.1', 5432, 30, 10],
      ['a.example', '10.0.0.2', 5432, 30, 10],
      ['b.example', '10.0.0.3', 5433, 0.01, 10],
      ['c.example', '10.0.0.4', 5434, 1, 20],
    ])
  })

  it('takes the name of a target for complete: no search list of the pod has a part in it', async () => {
    const { server, resolver } = await nameserver(8_000, 'shop.svc wild.corp')
    server.services('_db._tcp.example', [[0, 1, 1, 'a.example']], 0)
    server.addresses('a.example', ['10.0.0.1'], 0)
    // A domain that has every name.
    server.fallback = ({ name, type }) => {
      if (!name.endsWith('.wild.corp') || type !== 'A') return { rcode: name.endsWith('.wild.corp') ? 0 : 3 }
      return { answers: [{ type, name, ttl: 60, data: '10.6.6.6' }] }
    }
    const sets = new Sets(SRV, resolver)
    assert.deepEqual(await sets.ips(0), ['10.0.0.1'])
    server.forget('a.example')
    await until(() => sets.discovery.failure !== null)
    assert.match(sets.discovery.failure ?? '', /^name 'a\.example' does not exist in DNS/)
    assert.equal(sets.all.length, 1)
    const asked = new Set(server.queries.filter(({ type }) => type === 'A').map(({ name }) => name))
    assert.deepEqual([...asked], ['a.example'])
  })

  it('passes over a target that is no host name: it would go into the requests as Host', async () => {
    const { server, resolver } = await nameserver()
    const names = ['evil\r\nx-injected: 1', '\u010d\u010aevil: 1', 'two words.example', '-.example', 'a\0.example']
    server.services(
      '_db._tcp.example',
      [...names, 'a_1.example'].map((name, port) => [0, 1, port + 1, name] as const),
    )
    for (const name of names) server.addresses(name, ['10.6.6.6'])
    server.addresses('a_1.example', ['10.0.0.1'])
    const sets = new Sets(SRV, resolver)
    assert.deepEqual(await sets.ips(0), ['10.0.0.1'])
    assert.equal(sets.all[0]![0]!.host, 'a_1.example')
  })

  it('follows the records and the addresses of a target, each when its own TTL is over', async () => {
    const { server, resolver } = await nameserver()
    server.services('_db._tcp.example', [[0, 1, 1, 'a.example']], 300)
    server.addresses('a.example', ['10.0.0.1'], 0)
    const sets = new Sets(SRV, resolver)
    await sets.ips(0)
    server.addresses('a.example', ['10.0.0.2'], 0)
    assert.deepEqual(await sets.ips(1), ['10.0.0.2'])
    assert.equal(server.queries.filter(({ type }) => type === 'SRV').length, 1)
    server.addresses('b.example', ['10.0.0.3'], 300)
    server.services('_db._tcp.example', [[0, 1, 2, 'b.example']], 0)
    sets.discovery.refresh()
    assert.deepEqual(await sets.ips(2), ['10.0.0.3'])
    const asked = server.queries.filter(({ name }) => name === 'a.example').length
    server.services('_db._tcp.example', [[0, 1, 3, 'b.example']], 0)
    await sets.ips(3)
    assert.deepEqual(shown(sets.all[3]), [['b.example', '10.0.0.3', 3, 1, 0]])
    assert.equal(server.queries.filter(({ name }) => name === 'a.example').length, asked)
  })

  it('waits a second for a silent target, also when the records are looked up again and again meanwhile', async () => {
    const { server, resolver } = await nameserver(3_000)
    server.addresses('a.example', ['10.0.0.1'], 300)
    for (const type of ['A', 'AAAA']) server.reply('silent.example', type, { isSilent: true })
    // The records change with each question, and hold for 50 ms.
    let port = 0
    server.fallback = ({ name }) => {
      const targets = ['a.example', 'silent.example']
      const answers = targets.map((target) => {
        return { type: 'SRV' as const, name, ttl: 0, data: { priority: 0, weight: 1, port: ++port, target } }
      })
      return { answers }
    }
    const sets = new Sets(SRV, resolver)
    const first = sets.ips(0)
    // A set that is put off again and again would never come.
    await until(() => sets.all.length > 0 || port > 100)
    assert.ok(sets.all.length > 0, `${port} records were told of, and nothing came of them`)
    assert.deepEqual([...new Set(await first)], ['10.0.0.1'])
  })

  it('keeps the old targets until the new one has an address, and says that it has none', async () => {
    const { server, resolver } = await nameserver()
    server.services('_db._tcp.example', [[0, 1, 1, 'a.example']], 0)
    server.addresses('a.example', ['10.0.0.1'])
    const sets = new Sets(SRV, resolver)
    await sets.ips(0)
    server.services('_db._tcp.example', [[0, 1, 1, 'new.example']], 0)
    await until(() => sets.discovery.failure !== null)
    assert.equal(sets.discovery.failure, "name 'new.example' does not exist in DNS, check the host of the upstream")
    assert.equal(sets.all.length, 1)
    server.addresses('new.example', ['10.0.0.2'])
    assert.deepEqual(await sets.ips(1), ['10.0.0.2'])
    assert.equal(sets.discovery.failure, null)
  })

  const troubles: [title: string, spoil: (server: DnsServer) => void, why: RegExp][] = [
    [
      'the name is gone',
      (server) => server.forget('_db._tcp.example'),
      /^SRV name '_db\._tcp\.example' does not exist/,
    ],
    ['the answer is empty', (server) => server.services('_db._tcp.example', []), /has no SRV record/],
    [
      'DNS says that there is no such service',
      (server) => server.services('_db._tcp.example', [[0, 0, 1, '.']]),
      /has no SRV record in DNS that names a target/,
    ],
    [
      'the nameserver fails',
      (server) => {
        server.forget('_db._tcp.example')
        server.fallback = () => ({ rcode: 2 })
      },
      /SERVFAIL/,
    ],
  ]
  for (const [title, spoil, why] of troubles) {
    it(`keeps the last targets when ${title}, says so, and goes on afterwards`, async () => {
      const { server, resolver } = await nameserver()
      server.services('_db._tcp.example', [[0, 1, 1, 'a.example']], 0)
      server.addresses('a.example', ['10.0.0.1'], 300)
      const sets = new Sets(SRV, resolver)
      await sets.ips(0)
      spoil(server)
      await until(() => sets.discovery.failure !== null)
      assert.match(sets.discovery.failure ?? '', why)
      assert.match(sets.discovery.failure ?? '', /; the last known targets stay in use: a\.example:1$/)
      assert.equal(sets.all.length, 1)
      server.addresses('b.example', ['10.0.0.2'])
      server.services('_db._tcp.example', [[0, 1, 1, 'b.example']], 0)
      assert.deepEqual(await sets.ips(1), ['10.0.0.2'])
      assert.equal(sets.discovery.failure, null)
    })
  }

  it('asks again over TCP when the answer is cut short, and follows an alias', async () => {
    const { server, resolver } = await nameserver()
    const data = { priority: 1, weight: 2, port: 3, target: 'a.example' }
    server.reply('_db._tcp.example', 'SRV', {
      isTruncated: true,
      answers: [
        { type: 'CNAME', name: '_db._tcp.example', ttl: 60, data: '_x._tcp.example' },
        { type: 'SRV', name: '_x._tcp.example', ttl: 60, data },
      ],
    })
    server.addresses('a.example', ['10.0.0.1'])
    const sets = new Sets(SRV, resolver)
    await sets.ips(0)
    assert.deepEqual(shown(sets.all[0]), [['a.example', '10.0.0.1', 3, 2, 1]])
  })

  it('asks no more once it is stopped', async () => {
    const { server, resolver } = await nameserver()
    server.services('_db._tcp.example', [[0, 1, 1, 'a.example']], 0)
    server.addresses('a.example', ['10.0.0.1'], 0)
    const sets = new Sets(SRV, resolver)
    await sets.ips(0)
    sets.discovery.stop()
    sets.discovery.refresh()
    const asked = server.queries.length
    await new Promise((resolve) => setTimeout(resolve, 150))
    assert.equal(server.queries.length, asked)
  })
})
