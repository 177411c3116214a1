/** An upstream whose DNS moves, lies, dies and comes back under 500 requests a second: none of them may fail. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { Agent, createServer, request } from 'node:http'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it, type TestContext } from 'node:test'
import type { Answer } from 'dns-packet'
import type { Discovery } from '../../../proxy/upstream/discovery/discovery.ts'
import { DnsDiscovery } from '../../../proxy/upstream/discovery/dns.ts'
import { SrvDiscovery } from '../../../proxy/upstream/discovery/srv.ts'
import { Resolver } from '../../../proxy/upstream/dns/resolver.ts'
import { type DnsReply, DnsServer } from '../../helpers/dns-server.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { httpProxy } from '../../helpers/http-proxy.ts'
import { SteadyLoad } from '../../helpers/steady-load.ts'
import { closedPort, tcpServer } from '../../helpers/tcp.ts'
import { tcpProxy } from '../../helpers/tcp-proxy.ts'

const PER_SECOND = 500
const TTL_MS = 1000
const NAME = 'api.example'
const SRV_NAME = '_api._tcp.example'

const dir = mkdtempSync(join(tmpdir(), 'ambassador-dns-load-'))
after(() => rmSync(dir, { recursive: true }))
const resolvConf = join(dir, 'resolv.conf')
const ends = endsOfEach()

/** A nameserver, named in resolv.conf, and a resolver that asks it. */
async function nameserver() {
  const dns = await DnsServer.start()
  ends.push(() => dns.close())
  writeFileSync(resolvConf, 'nameserver 127.0.0.1\n')
  return { dns, resolver: new Resolver({ resolvConf, hosts: '/nonexistent', port: dns.port, timeoutMs: 500 }) }
}

/** A server that answers with one word. */
async function httpServer(word: string, port = 0, host = '127.0.0.1') {
  const server = createServer((_incoming, answer) => answer.end(word)).listen(port, host)
  await once(server, 'listening')
  const close = () => {
    server.close()
    server.closeAllConnections()
  }
  ends.push(close)
  return { port: (server.address() as AddressInfo).port, close }
}

/** GETs through proxies in turn, with the retries that an Ambassador has by default. */
async function httpLoad(...discoveries: readonly Discovery[]): Promise<SteadyLoad> {
  const retry = { maxRetries: 2, statuses: [], budget: { ratio: 0.2, minPerSecond: 10 } }
  const ports: number[] = []
  for (const discovery of discoveries) {
    const proxy = await httpProxy({ discovery, retry, accessLog: { mode: 'Errors', sample: 0 } }, ends)
    ports.push(proxy.port)
  }
  const agent = new Agent({ keepAlive: true, maxSockets: 20 })
  ends.push(() => agent.destroy())
  let turn = 0
  const one = () =>
    new Promise<string>((resolve) => {
      const outgoing = request({ host: '127.0.0.1', port: ports[turn++ % ports.length], agent }, (answer) => {
        let text = ''
        answer.setEncoding('latin1')
        answer.on('data', (chunk: string) => {
          text += chunk
        })
        answer.on('end', () => resolve(answer.statusCode === 200 ? text : `${answer.statusCode} ${text}`))
        answer.on('error', (error) => resolve(error.message))
      })
      outgoing.on('error', (error) => resolve(error.message))
      outgoing.end()
    })
  return loaded(one)
}

/** Connections, each of which the server ends with a word. */
async function tcpLoad(discovery: Discovery): Promise<SteadyLoad> {
  const proxy = await tcpProxy({ discovery, limits: { maxConnections: 400 } }, ends)
  return loaded(async () => {
    const client = proxy.client().end()
    return (await client.ended()) || (await client.closed()) || 'nothing'
  })
}

function loaded(one: () => Promise<string>): SteadyLoad {
  const load = new SteadyLoad({ perSecond: PER_SECOND, one })
  ends.push(() => load.stop())
  return load
}

/** The load after the change: until nothing goes to the old place, which is then closed. */
async function moved(t: TestContext, load: SteadyLoad, change: () => void, closeOld: () => unknown): Promise<void> {
  await load.more(PER_SECOND / 5)
  assert.equal(load.count('new'), 0)
  change()
  const changedAt = performance.now()
  while (performance.now() - changedAt < TTL_MS + 1500) await load.more(1)
  await closeOld()
  await load.more(PER_SECOND / 5)
  await load.stop()
  assert.deepEqual(load.others('old', 'new'), {})
  assert.ok(load.count('new') > 0)
  const lastMs = (load.answers.get('old')?.lastBeganAt ?? 0) - changedAt
  t.diagnostic(
    `${load.sent} at ${load.rate}/s, none failed; the last one to the old place began ${Math.round(lastMs)} ms after the change of a TTL of ${TTL_MS} ms; the process was up to ${Math.round(load.lateMs)} ms late`,
  )
  // What the machine takes from this process is not the proxy's.
  assert.ok(lastMs < TTL_MS + 1000 + load.lostMs, `the old place was used for ${Math.round(lastMs)} ms`)
}

describe('under 500 requests a second', { timeout: 120_000 }, () => {
  it('SRV records move every request within the TTL and a second, and none fails', async (t) => {
    const { dns, resolver } = await nameserver()
    const [from, to] = [await httpServer('old'), await httpServer('new')]
    dns.addresses('a.example', ['127.0.0.1'], 1)
    dns.addresses('b.example', ['127.0.0.1'], 1)
    dns.services(SRV_NAME, [[0, 1, from.port, 'a.example']], 1)
    const load = await httpLoad(new SrvDiscovery({ name: SRV_NAME }, resolver))
    await moved(t, load, () => dns.services(SRV_NAME, [[0, 1, to.port, 'b.example']], 1), from.close)
  })

  it('address records move every request within the TTL and a second, and none fails', async (t) => {
    const { dns, resolver } = await nameserver()
    const from = await httpServer('old')
    await httpServer('new', from.port, '127.0.0.2')
    dns.addresses(NAME, ['127.0.0.1'], 1)
    const load = await httpLoad(new DnsDiscovery({ hostname: NAME, port: from.port }, resolver))
    await moved(t, load, () => dns.addresses(NAME, ['127.0.0.2'], 1), from.close)
  })

  it('SRV records move every new TCP connection within the TTL and a second, and none fails', async (t) => {
    const { dns, resolver } = await nameserver()
    const [from, to] = await Promise.all(['old', 'new'].map((word) => tcpServer((socket) => socket.end(word))))
    ends.push(() => to!.close())
    dns.addresses('a.example', ['127.0.0.1'], 1)
    dns.services(SRV_NAME, [[0, 1, from!.port, 'a.example']], 1)
    const load = await tcpLoad(new SrvDiscovery({ name: SRV_NAME }, resolver))
    const change = () => dns.services(SRV_NAME, [[0, 1, to!.port, 'a.example']], 1)
    await moved(t, load, change, () => from!.close())
  })

  it('nothing fails and nothing moves while the nameserver lies, fails, is silent or late; then the records move', async (t) => {
    const { dns, resolver } = await nameserver()
    const [from, to] = [await httpServer('old'), await httpServer('new')]
    dns.addresses('a.example', ['127.0.0.1'], 1)
    const elsewhere = await closedPort()
    const wrong = (name: string): Answer[] => [
      { type: 'SRV', name, ttl: 1, data: { priority: 0, weight: 1, port: elsewhere, target: 'a.example' } },
    ]
    const alias = (name: string, data: string): Answer => ({ type: 'CNAME', name, ttl: 1, data })
    const lies: Record<string, (name: string) => DnsReply> = {
      'a name that does not exist': () => ({ rcode: 3 }),
      'an empty answer': () => ({}),
      'the target that says that there is no service': (name) => ({
        answers: [{ type: 'SRV', name, ttl: 1, data: { port: 0, target: '.' } }],
      }),
      'records of another name': () => ({ answers: wrong('_other._tcp.example') }),
      'a loop of aliases': (name) => ({ answers: [alias(name, 'x.example'), alias('x.example', name)] }),
      'a server failure': () => ({ rcode: 2 }),
      'another id': (name) => ({
        answers: wrong(name),
        corrupt: (reply) => {
          reply.writeUInt16BE((reply.readUInt16BE(0) + 1) & 0xffff, 0)
          return reply
        },
      }),
      'another question': (name) => ({
        answers: wrong(name),
        corrupt: (reply) => {
          // The first letter of the name that was asked for.
          reply[13] = 'x'.charCodeAt(0)
          return reply
        },
      }),
      'half a message': (name) => ({ answers: wrong(name), corrupt: (reply) => reply.subarray(0, reply.length >> 1) }),
      silence: () => ({ isSilent: true }),
      'an answer that is late': (name) => ({ answers: wrong(name), delayMs: 5_000 }),
    }
    // A name, an upstream and a proxy for each, so that they go wrong at the same time.
    const worlds = Object.entries(lies).map(([what, lie], index) => {
      const name = `_api${index}._tcp.example`
      dns.services(name, [[0, 1, from.port, 'a.example']], 1)
      return { what, lie, name, discovery: new SrvDiscovery({ name }, resolver) }
    })
    const load = await httpLoad(...worlds.map(({ discovery }) => discovery))
    await load.more(PER_SECOND / 5)
    await Promise.all(
      worlds.map(async ({ what, lie, name, discovery }) => {
        dns.reply(name, 'SRV', lie(name))
        // A person is told, and asks for the records at once as a failed connect would, not when the time of the last failure is over.
        while (discovery.failure === null) {
          discovery.refresh()
          await load.more(10)
        }
        assert.match(discovery.failure, new RegExp(`${name}.*stay in use: a\\.example:${from.port}$`), what)
        await load.more(10 * worlds.length)
        assert.deepEqual(load.others('old'), {}, what)
        dns.services(name, [[0, 1, from.port, 'a.example']], 1)
        while (discovery.failure !== null) {
          discovery.refresh()
          await load.more(10)
        }
      }),
    )
    const answered = load.count('old')
    await load.more(PER_SECOND / 5)
    assert.ok(load.count('old') > answered)
    for (const { name } of worlds) dns.services(name, [[0, 1, to.port, 'a.example']], 1)
    // Until a round of all of them goes to the new place.
    for (let old = -1; old !== load.count('old'); ) {
      old = load.count('old')
      await load.more(PER_SECOND / 2)
    }
    await load.stop()
    assert.deepEqual(load.others('old', 'new'), {})
    assert.ok(load.count('new') > 0)
    t.diagnostic(`${load.sent} at ${load.rate}/s, none failed over ${worlds.length} kinds of wrong answers`)
  })

  it('an answer that is cut short is asked for over TCP, and a TTL of 0 costs one question a second', async () => {
    const { dns, resolver } = await nameserver()
    const server = await httpServer('old')
    const answers: Answer[] = [{ type: 'A', name: NAME, ttl: 0, data: '127.0.0.1' }]
    dns.reply(NAME, 'A', { answers, isTruncated: true })
    dns.reply(NAME, 'AAAA', {})
    const load = await httpLoad(new DnsDiscovery({ hostname: NAME, port: server.port }, resolver))
    const startedAt = performance.now()
    const asked = () => dns.queries.filter(({ type, via }) => type === 'A' && via === 'tcp').length
    while (asked() < 3) await load.more(10)
    await load.stop()
    const seconds = (performance.now() - startedAt) / 1000
    assert.ok(seconds >= 2, `three questions within ${seconds} s`)
    assert.deepEqual(load.others('old'), {})
  })

  it('a nameserver whose address changes in resolv.conf is found, and nothing fails meanwhile', async (t) => {
    const { dns, resolver } = await nameserver()
    const [from, to] = [await httpServer('old'), await httpServer('new')]
    dns.addresses('a.example', ['127.0.0.1'], 1)
    dns.services(SRV_NAME, [[0, 1, from.port, 'a.example']], 1)
    const load = await httpLoad(new SrvDiscovery({ name: SRV_NAME }, resolver))
    await load.more(PER_SECOND / 5)
    // The old one says nothing more, as an address without a pod behind it.
    dns.fallback = () => ({ isSilent: true })
    for (const [name, type] of [
      [SRV_NAME, 'SRV'] as const,
      ['a.example', 'A'] as const,
      ['a.example', 'AAAA'] as const,
    ])
      dns.reply(name, type, { isSilent: true })
    const second = await DnsServer.start({ host: '127.0.0.2', port: dns.port })
    ends.push(() => second.close())
    second.addresses('a.example', ['127.0.0.1'], 1)
    second.services(SRV_NAME, [[0, 1, to.port, 'a.example']], 1)
    const changedAt = performance.now()
    writeFileSync(resolvConf, 'nameserver 127.0.0.2\n')
    while (load.count('new') === 0) await load.more(10)
    const tookMs = performance.now() - changedAt
    await load.more(PER_SECOND / 5)
    await load.stop()
    assert.deepEqual(load.others('old', 'new'), {})
    // The TTL, a question that the old one does not answer (two of 500 ms) and the wait after it; a resolver that keeps its sockets never.
    assert.ok(tookMs < 30_000, `${tookMs} ms`)
    t.diagnostic(
      `${load.sent} at ${load.rate}/s, none failed; the new nameserver was asked within ${Math.round(tookMs)} ms`,
    )
  })
})
