/** A hundred changes of the config under load: what did not change lives on, and nothing fails. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Agent, createServer, request, type Server } from 'node:http'
import { type AddressInfo, connect } from 'node:net'
import { describe, it } from 'node:test'
import { configHash } from '../../../common/config-hash.ts'
import type { ClusterConfig, ProxyConfig, RouteConfig } from '../../../common/proxy-config.ts'
import { plainConfig } from '../../../proxy/config/plain.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { routeConfig } from '../../helpers/routes.ts'
import { SteadyLoad } from '../../helpers/steady-load.ts'
import { closedPort, echo, tcpServer } from '../../helpers/tcp.ts'
import { Volumes } from '../../helpers/volume.ts'

const CHANGES = 100
/** No quicker than this: six times the rate of which the README speaks. */
const CHANGE_MS = 100
const TCP_CONNECTIONS = 10

const ends = endsOfEach()

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

/** A server that answers with a word, and counts the connections that it got. `/stream` is an answer that never ends. */
async function wordServer(word: string) {
  let accepted = 0
  const server: Server = createServer((incoming, answer) => {
    if (incoming.url !== '/stream') {
      answer.end(word)
      return
    }
    const timer = setInterval(() => answer.write('x'), 50)
    answer.on('close', () => clearInterval(timer))
    answer.write('x')
  })
  server.keepAliveTimeout = 120_000
  server.on('connection', () => accepted++)
  server.listen(0, '127.0.0.1')
  await once(server, 'listening')
  ends.push(() => {
    server.close()
    server.closeAllConnections()
  })
  return {
    port: (server.address() as AddressInfo).port,
    get accepted() {
      return accepted
    },
  }
}

function get(port: number, path: string, agent: Agent | false): Promise<string> {
  return new Promise((resolve) => {
    const outgoing = request({ host: '127.0.0.1', port, path, agent }, (answer) => {
      let text = ''
      answer.on('data', (chunk) => {
        text += chunk
      })
      const reason = String(answer.headers['x-ambassador-reason'] ?? '')
      answer.on('end', () => resolve(answer.statusCode === 200 ? text : `${answer.statusCode} ${reason}`))
      answer.on('error', (error) => resolve(error.message))
    })
    outgoing.on('error', (error) => resolve(error.message))
    outgoing.setTimeout(20_000, () => outgoing.destroy(new Error('no answer within 20 s')))
    outgoing.end()
  })
}

const BREAKER = { consecutiveFailures: 1, failureRate: null, openMs: 600_000, maxOpenMs: 600_000, halfOpenRequests: 1 }

const route = (prefix: string, cluster: string): RouteConfig =>
  routeConfig({ path: { kind: 'prefix', value: prefix } }, { to: [{ cluster, weight: 1 }] })

describe('a hundred changes of the config under load', { timeout: 300_000 }, () => {
  it('fail no request and drop no connection, whatever is added, removed and moved', async (t) => {
    const [a, b, steady] = [await wordServer('a'), await wordServer('b'), await wordServer('steady')]
    const dead = await closedPort()
    const database = await tcpServer(echo)
    ends.push(() => database.close())
    const volumes = new Volumes()
    ends.push(() => volumes.remove())
    const [apiPort, dbPort, ...extraPorts] = await Promise.all(Array.from({ length: 6 }, () => freePort()))

    const make = (
      name: string,
      protocol: 'HTTP' | 'TCP',
      port: number,
      to: number,
      generation: number,
      change: (base: ProxyConfig) => Partial<ProxyConfig>,
    ): ProxyConfig => {
      const base = plainConfig({
        namespace: 'shop',
        host: '127.0.0.1',
        port: to,
        listenPort: port,
        protocol,
        tls: null,
      })
      const ambassador = { namespace: 'shop', name, generation }
      const content = { ...base, ambassador, ...change(base) }
      return { ...content, hash: configHash(content) }
    }

    /** Every change touches something else; `steady` and `broken` stay as they are. */
    const api = (generation: number): ProxyConfig =>
      make('api', 'HTTP', apiPort!, generation % 4 < 2 ? a.port : b.port, generation, (base) => {
        const [first] = base.clusters as [ClusterConfig]
        const endpoints = (port: number) => ({
          kind: 'endpoints' as const,
          endpoints: [{ host: '127.0.0.1', port, weight: 1, priority: 0 }],
        })
        const extra: ClusterConfig = { ...first, name: 'extra', discovery: endpoints(b.port) }
        return {
          clusters: [
            {
              ...first,
              circuitBreaker: generation % 3 === 0 ? { ...BREAKER, consecutiveFailures: 5 } : null,
              limits: { ...first.limits, maxConnections: 500 + generation },
              ...(generation % 5 === 0 && { loadBalancing: { policy: 'RoundRobin' as const } }),
            },
            { ...first, name: 'steady', discovery: endpoints(steady.port) },
            { ...first, name: 'broken', discovery: endpoints(dead), circuitBreaker: BREAKER },
            ...(generation % 2 === 0 ? [extra] : []),
          ],
          routes: [
            route('/steady', 'steady'),
            route('/stream', 'steady'),
            route('/broken', 'broken'),
            ...(generation % 2 === 0 ? [route('/extra', 'extra')] : []),
          ],
          timeouts: { ...base.timeouts, requestMs: 15_000 + generation },
          accessLog: { mode: 'Errors', sample: (generation % 10) / 1000 },
        }
      })
    const db = (generation: number): ProxyConfig =>
      make('db', 'TCP', dbPort!, database.port, generation, (base) => ({
        timeouts: { ...base.timeouts, connectMs: 5000 + generation },
        accessLog: { mode: generation % 2 === 0 ? 'All' : 'Off', sample: 0 },
      }))
    /** Its port is another one every time. */
    const moving = (generation: number): ProxyConfig =>
      make('moving', 'HTTP', extraPorts[generation % extraPorts.length]!, a.port, generation, () => ({}))

    volumes.config('api', api(1))
    volumes.config('db', db(1))
    const proxy = await ProxyProcess.start({
      ...volumes.env('api,db,moving'),
      AMBASSADOR_SIDECAR_MODE: 'Native',
      POD_NAMESPACE: 'shop',
    })
    ends.push(() => proxy.end())
    const inForce = async (name: string, generation: number) => {
      const startedAt = performance.now()
      for (;;) {
        const { ambassadors } = JSON.parse((await proxy.get('/configz')).body) as {
          ambassadors: { name: string; generation: number | null; rejected: unknown }[]
        }
        const found = ambassadors.find((each) => each.name === name)
        if (found?.generation === generation) return
        assert.ok(performance.now() - startedAt < 20_000, JSON.stringify(found))
        await pause(10)
      }
    }
    while (!proxy.stdout.includes('"generation":1')) await pause(10)
    await inForce('api', 1)
    await inForce('db', 1)

    // What must live through all of it.
    assert.equal(await get(apiPort!, '/broken', false), '502 connect_refused')
    assert.equal(await get(apiPort!, '/broken', false), '503 circuit_open')
    let streamed = 0
    let streamEnd: string | null = null
    const stream = request({ host: '127.0.0.1', port: apiPort, path: '/stream', agent: false }, (answer) => {
      answer.on('data', (chunk: Buffer) => {
        streamed += chunk.length
      })
      answer.on('close', () => {
        streamEnd ??= 'the stream was cut'
      })
      answer.on('error', () => {})
    })
    stream.on('error', () => {})
    stream.end()
    ends.push(() => stream.destroy())
    let dropped = 0
    const sessions = Array.from({ length: TCP_CONNECTIONS }, () => {
      const socket = connect(dbPort!, '127.0.0.1')
      let received = 0
      socket.on('data', (chunk) => {
        received += chunk.length
      })
      socket.on('error', () => {})
      socket.on('close', () => dropped++)
      ends.push(() => socket.destroy())
      return { socket, received: () => received }
    })
    let pinged = 0
    const pinging = setInterval(() => {
      pinged++
      for (const { socket } of sessions) socket.write('x')
    }, 20)
    ends.push(() => clearInterval(pinging))
    const agent = new Agent({ keepAlive: true, maxSockets: 10 })
    const one = new Agent({ keepAlive: true, maxSockets: 1 })
    ends.push(() => {
      agent.destroy()
      one.destroy()
    })
    const load = new SteadyLoad({ perSecond: 100, one: () => get(apiPort!, '/', agent) })
    ends.push(() => load.stop())
    // One at a time, so that one connection to the upstream is enough.
    const alone = new SteadyLoad({ perSecond: 20, max: 1, one: () => get(apiPort!, '/steady', one) })
    ends.push(() => alone.stop())
    while (alone.count('steady') === 0 || streamed === 0) await pause(10)

    const startedAt = performance.now()
    for (let change = 0; change < CHANGES; change++) {
      const began = performance.now()
      const generation = 2 + Math.floor(change / 2)
      if (change % 2 === 0) {
        volumes.config('api', api(generation))
        await inForce('api', generation)
        if (generation % 2 === 0) assert.equal(await get(apiPort!, '/extra', false), 'b')
      } else if (change % 4 === 1) {
        volumes.config('db', db(generation))
        await inForce('db', generation)
      } else {
        volumes.config('moving', moving(generation))
        await inForce('moving', generation)
        assert.equal(await get(extraPorts[generation % extraPorts.length]!, '/', false), 'a')
      }
      await pause(Math.max(0, CHANGE_MS - (performance.now() - began)))
    }
    const seconds = (performance.now() - startedAt) / 1000
    await Promise.all([load.stop(), alone.stop()])
    clearInterval(pinging)
    assert.deepEqual(load.others('a', 'b'), {})
    assert.deepEqual(alone.others('steady'), {})
    assert.ok(load.count('a') > 0 && load.count('b') > 0)
    while (sessions.some(({ received }) => received() < pinged)) await pause(10)
    assert.equal(dropped, 0, 'TCP connections that were dropped')
    assert.equal(database.accepted, TCP_CONNECTIONS)
    assert.equal(streamEnd, null)
    assert.equal(await get(apiPort!, '/broken', false), '503 circuit_open')
    // The stream has one, and all requests that came one at a time had the other.
    assert.equal(steady.accepted, 2)
    const text = (await proxy.get('/metrics')).body
    assert.match(text, /^ambassador_config_loads_total\{result="rejected"\} \d+$/m)
    t.diagnostic(
      `${CHANGES} changes in ${seconds.toFixed(1)} s (${Math.round((CHANGES * 60) / seconds)} a minute), ${load.sent + alone.sent} requests at ${load.rate + alone.rate}/s, ` +
        `${TCP_CONNECTIONS} connections with ${pinged} exchanges each and a stream of ${streamed} pieces: none failed`,
    )
  })
})
