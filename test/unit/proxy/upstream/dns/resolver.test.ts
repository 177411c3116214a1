import assert from 'node:assert/strict'
import { randomBytes } from 'node:crypto'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, describe, it } from 'node:test'
import { Resolver, type ResolverOptions } from '../../../../../proxy/upstream/dns/resolver.ts'
import { DnsServer } from '../../../../helpers/dns-server.ts'

const dir = mkdtempSync(join(tmpdir(), 'ambassador-dns-'))
after(() => rmSync(dir, { recursive: true }))
const servers: DnsServer[] = []
afterEach(async () => {
  await Promise.all(servers.splice(0).map((server) => server.close()))
})

async function start(options: { host?: string; port?: number } = {}): Promise<DnsServer> {
  const server = await DnsServer.start(options)
  servers.push(server)
  return server
}

let files = 0
/** A resolver that asks these servers (all on one port) with more lines of resolv.conf, and a hosts file. */
function resolverFor(asked: readonly DnsServer[], parts: { conf?: string; hosts?: string } & ResolverOptions = {}) {
  const id = files++
  const resolvConf = join(dir, `resolv.${id}`)
  const hosts = join(dir, `hosts.${id}`)
  const { conf = '', hosts: hostsText = '', ...options } = parts
  writeFileSync(resolvConf, `${asked.map(({ host }) => `nameserver ${host}\n`).join('')}${conf}`)
  writeFileSync(hosts, hostsText)
  const resolver = new Resolver({
    resolvConf,
    hosts,
    port: asked[0]?.port ?? 1,
    hasIpv6: () => true,
    timeoutMs: 500,
    ...options,
  })
  return { resolver, resolvConf, hosts }
}

const ok = (addresses: readonly string[], ttlMs: number, found: string | null) => ({
  ok: true,
  addresses,
  ttlMs,
  found,
  unknownFamily: null,
})

describe('a look-up', () => {
  it('finds every A and AAAA record with the smallest TTL', async () => {
    const server = await start()
    server.reply('db.example', 'A', {
      answers: [
        { type: 'A', name: 'db.example', ttl: 30, data: '10.0.0.2' },
        { type: 'A', name: 'db.example', ttl: 20, data: '10.0.0.1' },
      ],
    })
    server.reply('db.example', 'AAAA', {
      answers: [{ type: 'AAAA', name: 'db.example', ttl: 60, data: '2001:db8::1' }],
    })
    const { resolver } = resolverFor([server])
    assert.deepEqual(
      await resolver.resolve('db.example'),
      ok(['10.0.0.1', '10.0.0.2', '2001:db8::1'], 20_000, 'db.example'),
    )
    assert.deepEqual(
      server.queries.map(({ ednsSize, via }) => [ednsSize, via]),
      [
        [1232, 'udp'],
        [1232, 'udp'],
      ],
    )
  })

  it('holds TTLs between one second and five minutes', async () => {
    const server = await start()
    server.addresses('short.example', ['10.0.0.1'], 0)
    server.addresses('long.example', ['10.0.0.1'], 86_400)
    const { resolver } = resolverFor([server])
    assert.deepEqual(await resolver.resolve('short.example'), ok(['10.0.0.1'], 1_000, 'short.example'))
    assert.deepEqual(await resolver.resolve('long.example'), ok(['10.0.0.1'], 300_000, 'long.example'))
  })

  it('follows aliases, whose TTL counts too, and takes no record of another name', async () => {
    const server = await start()
    server.reply('www.example', 'A', {
      answers: [
        { type: 'A', name: 'evil.example', ttl: 1, data: '10.6.6.6' },
        { type: 'CNAME', name: 'www.example', ttl: 7, data: 'edge.example' },
        { type: 'CNAME', name: 'EDGE.example', ttl: 50, data: 'host.example' },
        { type: 'A', name: 'host.example', ttl: 50, data: '10.0.0.1' },
      ],
    })
    const { resolver } = resolverFor([server])
    assert.deepEqual(await resolver.resolve('www.example'), ok(['10.0.0.1'], 7_000, 'www.example'))
  })

  it('goes through the search list, and later asks for the full name alone', async () => {
    const server = await start()
    server.addresses('db.svc', ['10.0.0.1'])
    const { resolver } = resolverFor([server], { conf: 'search shop.svc svc cluster.local\noptions ndots:5\n' })
    assert.deepEqual(await resolver.resolve('db'), ok(['10.0.0.1'], 60_000, 'db.svc'))
    assert.deepEqual([...new Set(server.queries.map(({ name }) => name))], ['db.shop.svc', 'db.svc'])
    server.queries.length = 0
    await resolver.resolve('db', 'db.svc')
    assert.deepEqual([...new Set(server.queries.map(({ name }) => name))], ['db.svc'])
  })

  it('goes through the search list again when the full name is gone', async () => {
    const server = await start()
    server.addresses('db.shop.svc', ['10.0.0.9'])
    const { resolver } = resolverFor([server], { conf: 'search shop.svc svc\noptions ndots:5\n' })
    assert.deepEqual(await resolver.resolve('db', 'db.svc'), ok(['10.0.0.9'], 60_000, 'db.shop.svc'))
  })

  it('asks once for a complete name that is gone', async () => {
    const server = await start()
    const { resolver } = resolverFor([server], { conf: 'search shop.svc svc\noptions ndots:5\n' })
    const resolution = await resolver.resolve('db.example.', 'db.example')
    assert.equal(
      !resolution.ok && resolution.why,
      "name 'db.example' does not exist in DNS, check the host of the upstream",
    )
    assert.deepEqual(server.queries.map(({ name, type }) => `${name} ${type}`).sort(), [
      'db.example A',
      'db.example AAAA',
    ])
  })

  it('goes on behind a search domain whose nameserver fails', async () => {
    const server = await start()
    server.reply('db.corp', 'A', { rcode: 2 })
    server.reply('db.corp', 'AAAA', { rcode: 2 })
    server.addresses('db', ['10.0.0.1'])
    const { resolver } = resolverFor([server], { conf: 'search corp\noptions ndots:5 attempts:1\n' })
    assert.deepEqual(await resolver.resolve('db'), ok(['10.0.0.1'], 60_000, 'db'))
  })

  it('tells a name that does not exist, one without addresses, and a nameserver that fails apart', async () => {
    const server = await start()
    server.reply('empty.example', 'TXT', {})
    server.reply('broken.example', 'A', { rcode: 2 })
    server.reply('broken.example', 'AAAA', { rcode: 2 })
    server.reply('refused.example', 'A', { rcode: 5 })
    const { resolver } = resolverFor([server], { conf: 'options attempts:1\n' })
    const why = async (name: string) => {
      const resolution = await resolver.resolve(name)
      return resolution.ok ? resolution : [resolution.isDefinite, resolution.why]
    }
    assert.deepEqual(await why('no.example'), [
      true,
      "name 'no.example' does not exist in DNS, check the host of the upstream",
    ])
    assert.deepEqual(await why('empty.example'), [
      true,
      "name 'empty.example' has no A or AAAA record in DNS, add one or check the host of the upstream",
    ])
    assert.deepEqual(await why('broken.example'), [
      false,
      "name 'broken.example' cannot be resolved: nameserver 127.0.0.1 answers with an error (SERVFAIL)",
    ])
    assert.deepEqual(await why('refused.example'), [
      false,
      "name 'refused.example' cannot be resolved: nameserver 127.0.0.1 answers with an error (REFUSED)",
    ])
    assert.deepEqual(await why('a..b'), [
      true,
      "name 'a..b' cannot be asked for: a part of it is empty or longer than 63 characters, correct it",
    ])
  })

  it('names all full names that it asked for', async () => {
    const server = await start()
    const { resolver } = resolverFor([server], { conf: 'search svc\n' })
    const resolution = await resolver.resolve('db')
    assert.equal(
      !resolution.ok && resolution.why,
      "name 'db' does not exist in DNS (asked for 'db.svc', 'db'), check the host of the upstream",
    )
  })

  it('asks again over TCP when the answer is cut short', async () => {
    const server = await start()
    const many = Array.from({ length: 200 }, (_, i) => `10.1.${i >> 8}.${i & 255}`)
    server.addresses('many.example', many)
    const answers = many.map((data) => ({ type: 'A' as const, name: 'many.example', ttl: 60, data }))
    server.reply('many.example', 'A', { answers, isTruncated: true })
    const { resolver } = resolverFor([server])
    const resolution = await resolver.resolve('many.example')
    assert.deepEqual(resolution.ok && resolution.addresses, [...many].sort())
    assert.deepEqual(
      server.queries.filter(({ type }) => type === 'A').map(({ via }) => via),
      ['udp', 'tcp'],
    )
  })

  it('asks again over TCP when the answer was cut in the middle of a record', async () => {
    const server = await start()
    const all = Array.from({ length: 40 }, (_, i) => `10.1.0.${i}`)
    server.addresses('many.example', all)
    const answers = all.map((data) => ({ type: 'A' as const, name: 'many.example', ttl: 60, data }))
    const corrupt = (reply: Buffer) => (reply[2]! & 0x02 ? reply.subarray(0, 200) : reply)
    server.reply('many.example', 'A', { answers, fitting: answers, isTruncated: true, corrupt })
    const { resolver } = resolverFor([server])
    assert.deepEqual(await resolver.resolve('many.example'), ok([...all].sort(), 60_000, 'many.example'))
  })

  it('says of a nameserver whose answers cannot be read that it is not silent', async () => {
    const server = await start()
    server.fallback = () => ({ corrupt: (reply) => reply.subarray(0, reply.length - 3) })
    const { resolver } = resolverFor([server], { conf: 'options attempts:1\n', timeoutMs: 200 })
    const resolution = await resolver.resolve('db.example')
    assert.equal(
      !resolution.ok && resolution.why,
      "name 'db.example' cannot be resolved: nameserver 127.0.0.1 did not answer within 200 ms, or not in a way that can be read",
    )
  })

  it('ends at aliases that lead in a circle, and takes what stands beside an alias of itself', async () => {
    const server = await start()
    const alias = (name: string, data: string) => ({ type: 'CNAME' as const, name, ttl: 60, data })
    server.addresses('b.example', [])
    server.addresses('a.example', [])
    server.reply('a.example', 'A', { answers: [alias('a.example', 'b.example'), alias('b.example', 'a.example')] })
    const { resolver } = resolverFor([server])
    const resolution = await resolver.resolve('a.example')
    assert.match(resolution.ok ? '' : resolution.why, /^name 'a\.example' has no A or AAAA record in DNS/)
    server.addresses('self.example', [])
    const record = { type: 'A' as const, name: 'self.example', ttl: 60, data: '10.0.0.1' }
    server.reply('self.example', 'A', { answers: [alias('self.example', 'SELF.example'), record] })
    assert.deepEqual(await resolver.resolve('self.example'), ok(['10.0.0.1'], 60_000, 'self.example'))
  })

  it('takes as many records as an answer over TCP can have, of any letter case and TTL', async () => {
    const server = await start()
    // Of 20 bytes each in a message of 64 KiB.
    const all = Array.from({ length: 3_200 }, (_, i) => `10.1.${i >> 8}.${i & 255}`)
    server.addresses('x.io', [])
    const answers = all.map((data) => ({ type: 'A' as const, name: 'X.iO', ttl: 2 ** 31 + 7, data }))
    server.reply('x.io', 'A', { answers, isTruncated: true })
    const { resolver } = resolverFor([server], { timeoutMs: 10_000 })
    assert.deepEqual(await resolver.resolve('x.IO'), ok([...all].sort(), 300_000, 'x.io'))
  })

  it('takes the records that fit where the whole answer is not to be had, for TCP is refused or says nothing', async () => {
    for (const isRefused of [true, false]) {
      const server = await start()
      const fitting = ['10.1.0.1', '10.1.0.2'].map((data) => ({
        type: 'A' as const,
        name: 'many.example',
        ttl: 60,
        data,
      }))
      server.addresses('many.example', [])
      server.reply('many.example', 'A', { isTruncated: true, fitting })
      if (isRefused) await server.refuseTcp()
      else server.reply('many.example', 'A', { isTruncated: true, fitting, isSilentOnTcp: true })
      const { resolver } = resolverFor([server])
      assert.deepEqual(await resolver.resolve('many.example'), ok(['10.1.0.1', '10.1.0.2'], 60_000, 'many.example'))
    }
  })

  it('does not take a cut answer without records for a name without records', async () => {
    const server = await start()
    server.reply('many.example', 'A', { isTruncated: true })
    await server.refuseTcp()
    const { resolver } = resolverFor([server])
    const resolution = await resolver.resolve('many.example')
    assert.equal(!resolution.ok && resolution.isDefinite, false)
    assert.match(resolution.ok ? '' : resolution.why, /cannot be asked over TCP \(ECONNREFUSED\)/)
  })

  it('does not take a cut answer with a CNAME alone for a name without records', async () => {
    const server = await start()
    const fitting = [{ type: 'CNAME' as const, name: 'alias.example', ttl: 60, data: 'many.example' }]
    server.reply('alias.example', 'A', { isTruncated: true, fitting })
    await server.refuseTcp()
    const { resolver } = resolverFor([server])
    const resolution = await resolver.resolve('alias.example')
    assert.equal(!resolution.ok && resolution.isDefinite, false)
    assert.match(resolution.ok ? '' : resolution.why, /cannot be asked over TCP \(ECONNREFUSED\)/)
  })

  it('asks without EDNS where the nameserver does not know it', async () => {
    const server = await start()
    server.fallback = (query) =>
      query.ednsSize === null
        ? { answers: query.type === 'A' ? [{ type: 'A', name: query.name, ttl: 9, data: '10.0.0.1' }] : [] }
        : { rcode: 1 }
    const { resolver } = resolverFor([server])
    assert.deepEqual(await resolver.resolve('old.example'), ok(['10.0.0.1'], 9_000, 'old.example'))
  })

  it('asks without EDNS where the nameserver sends the error alone, without the question', async () => {
    const server = await start()
    const bare = (reply: Buffer): Buffer => {
      const header = Buffer.from(reply.subarray(0, 12))
      header.fill(0, 4)
      return header
    }
    server.fallback = (query) =>
      query.ednsSize === null
        ? { answers: query.type === 'A' ? [{ type: 'A', name: query.name, ttl: 9, data: '10.0.0.1' }] : [] }
        : { rcode: 1, corrupt: bare }
    const { resolver } = resolverFor([server])
    assert.deepEqual(await resolver.resolve('old.example'), ok(['10.0.0.1'], 9_000, 'old.example'))
    // What claims that the name does not exist must say which name.
    server.fallback = () => ({ rcode: 3, corrupt: bare })
    const resolution = await resolver.resolve('other.example')
    assert.equal(!resolution.ok && resolution.isTimeout, true)
  })

  it('uses a socket of its own for every question', async () => {
    const server = await start()
    server.addresses('db.example', ['10.0.0.1'])
    const { resolver } = resolverFor([server])
    for (let i = 0; i < 5; i++) await resolver.resolve('db.example')
    assert.ok(new Set(server.queries.map(({ sourcePort }) => sourcePort)).size >= 5)
  })

  it('shares one look-up among those who ask at the same time', async () => {
    const server = await start()
    server.addresses('db.example', ['10.0.0.1'])
    const { resolver } = resolverFor([server])
    await Promise.all([resolver.resolve('db.example'), resolver.resolve('DB.example'), resolver.resolve('db.example')])
    assert.equal(server.queries.length, 2)
  })

  it('does not ask again at once for a name that does not exist', async () => {
    const server = await start()
    const { resolver } = resolverFor([server])
    await resolver.resolve('no.example')
    const asked = server.queries.length
    assert.equal((await resolver.resolve('no.example')).ok, false)
    assert.equal(server.queries.length, asked)
  })

  it('does not take 0.0.0.0, which filters answer, for an address', async () => {
    const server = await start()
    server.addresses('ads.example', ['0.0.0.0', '::'])
    const { resolver } = resolverFor([server])
    const resolution = await resolver.resolve('ads.example')
    assert.equal(!resolution.ok && resolution.isDefinite, true)
  })

  it('leaves out IPv6 addresses where there is no way to them, unless nothing else is left', async () => {
    const server = await start()
    server.addresses('both.example', ['10.0.0.1', '2001:db8::1'])
    server.addresses('six.example', ['2001:db8::1'])
    const { resolver } = resolverFor([server], { hasIpv6: () => false })
    assert.deepEqual(await resolver.resolve('both.example'), ok(['10.0.0.1'], 60_000, 'both.example'))
    assert.deepEqual(await resolver.resolve('six.example'), ok(['2001:db8::1'], 60_000, 'six.example'))
  })

  it('does not wait long for AAAA when the nameserver drops such questions, and says that it does not know', async () => {
    const server = await start()
    server.addresses('db.example', ['10.0.0.1'])
    server.reply('db.example', 'AAAA', { isSilent: true })
    const { resolver } = resolverFor([server], { timeoutMs: 5_000 })
    const resolution = await resolver.resolve('db.example')
    assert.deepEqual(resolution, { ...ok(['10.0.0.1'], 60_000, 'db.example'), unknownFamily: 6 })
  })
})

describe('several nameservers', () => {
  const trouble: [title: string, spoil: (server: DnsServer) => void][] = [
    [
      'is silent',
      (server) => {
        server.fallback = () => ({ isSilent: true })
      },
    ],
    [
      'fails',
      (server) => {
        server.fallback = () => ({ rcode: 2 })
      },
    ],
    [
      'refuses',
      (server) => {
        server.fallback = () => ({ rcode: 5 })
      },
    ],
    [
      'answers noise',
      (server) => {
        server.fallback = () => ({ corrupt: (reply) => randomBytes(reply.length) })
      },
    ],
    [
      'answers with a wrong id',
      (server) => {
        server.fallback = () => ({
          corrupt: (reply) => {
            reply[0]! ^= 0xff
            return reply
          },
        })
      },
    ],
    [
      'answers half a message',
      (server) => {
        server.fallback = () => ({ corrupt: (reply) => reply.subarray(0, reply.length >> 1) })
      },
    ],
    [
      'answers another question',
      (server) => {
        server.fallback = () => ({
          corrupt: (reply) => {
            reply[13] = 0x7a
            return reply
          },
        })
      },
    ],
    [
      'is late',
      (server) => {
        server.fallback = (query) => ({
          delayMs: 1_500,
          answers: [{ type: 'A', name: query.name, ttl: 9, data: '10.6.6.6' }],
        })
      },
    ],
  ]
  for (const [title, spoil] of trouble) {
    it(`ask the second when the first ${title}`, async () => {
      const first = await start()
      const second = await start({ host: '127.0.0.2', port: first.port })
      spoil(first)
      second.addresses('db.example', ['10.0.0.1'])
      const { resolver } = resolverFor([first, second])
      assert.deepEqual(await resolver.resolve('db.example'), ok(['10.0.0.1'], 60_000, 'db.example'))
    })
  }

  it('ask the second when nobody listens at the first', async () => {
    const second = await start({ host: '127.0.0.2' })
    second.addresses('db.example', ['10.0.0.1'])
    const { resolver, resolvConf } = resolverFor([second])
    writeFileSync(resolvConf, 'nameserver 127.0.0.3\nnameserver 127.0.0.2\n')
    assert.deepEqual(await resolver.resolve('db.example'), ok(['10.0.0.1'], 60_000, 'db.example'))
  })

  it('believe the first when it answers', async () => {
    const first = await start()
    const second = await start({ host: '127.0.0.2', port: first.port })
    first.addresses('db.example', ['10.0.0.1'])
    second.addresses('db.example', ['10.0.0.2'])
    const { resolver } = resolverFor([first, second])
    assert.deepEqual(await resolver.resolve('db.example'), ok(['10.0.0.1'], 60_000, 'db.example'))
    assert.equal(second.queries.length, 0)
  })

  it('are all named when none answers', async () => {
    const first = await start()
    const second = await start({ host: '127.0.0.2', port: first.port })
    first.fallback = () => ({ rcode: 2 })
    second.fallback = () => ({ isSilent: true })
    const { resolver } = resolverFor([first, second], { conf: 'options attempts:1\n', timeoutMs: 200 })
    const resolution = await resolver.resolve('db.example')
    assert.equal(
      !resolution.ok && resolution.why,
      "name 'db.example' cannot be resolved: nameserver 127.0.0.1 answers with an error (SERVFAIL); nameserver 127.0.0.2 did not answer within 200 ms",
    )
  })

  it('are read anew for each look-up: one whose address changed is found', async () => {
    const before = await start()
    before.addresses('db.example', ['10.0.0.1'])
    const { resolver, resolvConf } = resolverFor([before])
    await resolver.resolve('db.example')
    const moved = await start({ host: '127.0.0.2', port: before.port })
    moved.addresses('db.example', ['10.0.0.2'])
    await servers.shift()?.close()
    writeFileSync(resolvConf, 'nameserver 127.0.0.2\n')
    assert.deepEqual(await resolver.resolve('db.example'), ok(['10.0.0.2'], 60_000, 'db.example'))
  })
})

describe('the hosts file of a look-up', () => {
  it('goes before DNS', async () => {
    const server = await start()
    server.addresses('db.example', ['10.0.0.1'])
    const { resolver } = resolverFor([server], { hosts: '10.9.9.9 db.example\n' })
    assert.deepEqual(await resolver.resolve('db.example'), ok(['10.9.9.9'], 10_000, null))
    assert.equal(server.queries.length, 0)
  })

  it('does not send us to our own listener in a pod, where the name of the upstream may be an alias for the application', async () => {
    const server = await start()
    server.addresses('redis', ['10.0.0.1'])
    const hosts = '127.0.0.1 localhost redis\n'
    const inPod = resolverFor([server], { hosts, ignoreLoopbackHosts: true }).resolver
    assert.deepEqual(await inPod.resolve('redis'), ok(['10.0.0.1'], 60_000, 'redis'))
    assert.deepEqual(await inPod.resolve('localhost'), ok(['127.0.0.1'], 10_000, null))
    const elsewhere = resolverFor([server], { hosts }).resolver
    assert.deepEqual(await elsewhere.resolve('redis'), ok(['127.0.0.1'], 10_000, null))
  })

  it('is not needed for localhost', async () => {
    const { resolver } = resolverFor([])
    assert.deepEqual(await resolver.resolve('localhost'), ok(['127.0.0.1', '::1'], 10_000, null))
  })
})
