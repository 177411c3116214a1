/** One of three endpoints goes wrong under load, and a whole priority: who notices, how soon, and how many requests it costs. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Agent, createServer, request } from 'node:http'
import type { AddressInfo, Socket } from 'node:net'
import { describe, it, type TestContext } from 'node:test'
import type { Endpoint } from '../../../proxy/upstream/endpoint.ts'
import { endsOfAll } from '../../helpers/ends.ts'
import { type HttpProxySetup, httpProxy } from '../../helpers/http-proxy.ts'
import { SteadyLoad } from '../../helpers/steady-load.ts'
import { tcpServer } from '../../helpers/tcp.ts'
import { tcpProxy } from '../../helpers/tcp-proxy.ts'

const PER_SECOND = 200
/** What a busy machine was too late to send does not come in one burst: the budget of retries is a share of the last second's requests. */
const MAX_AT_ONCE = 4
const OBSERVED_MS = 3_000
const SLOW_MS = 2_000

/** What an Ambassador has without saying anything. */
const DEFAULTS: HttpProxySetup = {
  limits: { maxConnections: 1024, maxPendingRequests: 1024, maxConcurrentRetries: 64 },
  timeouts: { connectMs: 5_000, requestMs: 15_000, idleMs: 60_000 },
  retry: { maxRetries: 2, on: ['ConnectFailure', 'Reset'], statuses: [], budget: { ratio: 0.2, minPerSecond: 10 } },
}
/** `retry: { on: [ConnectFailure, Reset, Timeout], perTryTimeout: 500ms }, outlierDetection: {}`. */
const WATCHFUL: HttpProxySetup = {
  ...DEFAULTS,
  retry: { ...DEFAULTS.retry, on: ['ConnectFailure', 'Reset', 'Timeout'], perTryTimeoutMs: 500 },
  cluster: {
    outlierDetection: { consecutiveFailures: 5, ejectionMs: 30_000, maxEjectionMs: 300_000, maxEjected: 0.5 },
  },
}

type Fault = 'good' | 'killed' | 'slow' | 'resetting' | 'half-open'

const ends = endsOfAll()

/** An HTTP server that can be made to fail in one of several ways. */
async function faultyServer() {
  let fault: Fault = 'good'
  let answered = 0
  const sockets = new Set<Socket>()
  const make = () =>
    createServer((incoming, answer) => {
      incoming.resume()
      if (fault === 'resetting') incoming.socket.resetAndDestroy()
      else if (fault === 'slow') setTimeout(() => answer.end('ok'), SLOW_MS).unref()
      else if (fault !== 'half-open') {
        answered++
        answer.end('ok')
      }
    }).on('connection', (socket) => {
      sockets.add(socket)
      socket.on('close', () => sockets.delete(socket))
    })
  let server = make().listen(0, '127.0.0.1')
  await once(server, 'listening')
  const { port } = server.address() as AddressInfo
  const close = () => {
    server.close()
    for (const socket of sockets) socket.destroy()
  }
  ends.push(close)
  return {
    port,
    /** Requests that it answered. */
    get answered() {
      return answered
    },
    become: async (next: Fault) => {
      if (fault === 'killed' && next !== 'killed') {
        server = make().listen(port, '127.0.0.1')
        await once(server, 'listening')
      }
      fault = next
      if (next === 'killed') close()
    },
  }
}

/** GETs, and every fifth request a POST; the answers are `GET ok`, `POST 502 upstream_reset` and so on. */
function httpLoad(port: number): SteadyLoad {
  const agent = new Agent({ keepAlive: true, maxSockets: 100 })
  let count = 0
  const one = () =>
    new Promise<string>((resolve) => {
      const method = count++ % 5 === 0 ? 'POST' : 'GET'
      const outgoing = request({ host: '127.0.0.1', port, agent, method }, (answer) => {
        answer.resume()
        const reason = answer.headers['x-ambassador-reason']
        answer.on('end', () =>
          resolve(`${method} ${answer.statusCode === 200 ? 'ok' : `${answer.statusCode} ${reason}`}`),
        )
        answer.on('error', (error) => resolve(`${method} ${error.message}`))
      })
      outgoing.on('error', (error) => resolve(`${method} ${error.message}`))
      outgoing.end(method === 'POST' ? 'pay' : undefined)
    })
  const load = new SteadyLoad({ perSecond: PER_SECOND, one, maxAtOnce: MAX_AT_ONCE })
  ends.push(async () => {
    await load.stop()
    agent.destroy()
  })
  return load
}

/** When an endpoint began attempts, looked at every few milliseconds. */
function watchAttempts(endpoint: () => Endpoint) {
  const at: number[] = []
  let seen = endpoint().attempts
  const timer = setInterval(() => {
    for (const { attempts } = endpoint(); seen < attempts; seen++) at.push(performance.now())
  }, 5)
  ends.push(() => clearInterval(timer))
  return {
    /** Milliseconds from `since` until it got no more than three attempts in the following second: such as only ask whether it is back. */
    quietAfterMs: (since: number): number => {
      const later = at.filter((time) => time >= since)
      const last = later.findLast((time) => later.filter((each) => each > time && each <= time + 1000).length > 3)
      return Math.max(0, Math.round((last ?? since) - since))
    },
    count: (since: number) => at.filter((time) => time >= since).length,
  }
}

const pause = (ms: number) => new Promise((resolve) => setTimeout(resolve, ms))

async function measured(t: TestContext, fault: Fault, setup: HttpProxySetup) {
  const servers = await Promise.all([faultyServer(), faultyServer(), faultyServer()])
  const proxy = await httpProxy(
    { ...setup, ports: servers.map(({ port }) => port), accessLog: { mode: 'Off', sample: 0 } },
    ends,
  )
  const [bad] = servers
  const load = httpLoad(proxy.port)
  await load.more(PER_SECOND)
  const attempts = watchAttempts(() => [...proxy.cluster.endpoints].find(({ port }) => port === bad?.port)!)
  await bad?.become(fault)
  const since = performance.now()
  const before = load.sent
  await Promise.all([pause(OBSERVED_MS), load.more(PER_SECOND / 2)])
  await load.stop()
  const share = attempts.count(since) / (load.sent - before)
  const quietMs = attempts.quietAfterMs(since)
  const failed = load.others('GET ok', 'POST ok')
  const gets = Object.entries(failed).filter(([answer]) => answer.startsWith('GET') && !isExcused(answer, load))
  const posts = Object.entries(failed).filter(([answer]) => answer.startsWith('POST'))
  const sum = (counts: [string, number][]) => counts.reduce((total, [, count]) => total + count, 0)
  t.diagnostic(
    `${fault}: ${load.sent} requests at ${load.rate}/s; failed GETs ${sum(gets)}, POSTs ${sum(posts)} ${JSON.stringify(failed)}; ` +
      `quiet after ${quietMs} ms, ${attempts.count(since)} attempts in all; up to ${Math.round(load.lateMs)} ms late`,
  )
  return { gets: sum(gets), posts: sum(posts), quietMs, share, lateMs: load.lateMs }
}

/**
 * The budget of retries is a share of the requests of the last second: a process that stood still in it had fewer of them, and then
 * retries what failed meanwhile all at once.
 */
function isExcused(answer: string, { lateMs }: SteadyLoad): boolean {
  return answer === 'GET 503 budget_exhausted' && lateMs > 50
}

function assertNoGet(gets: number, lateMs: number): void {
  assert.equal(gets, 0, `${gets} GETs failed, the process was ${lateMs} ms late`)
}

// Each has a world of its own, and waits most of its time.
describe('one of three endpoints', { timeout: 120_000, concurrency: 3 }, () => {
  it('that is killed costs no GET and only POSTs that were under way, by default', async (t) => {
    const { gets, posts, quietMs, lateMs } = await measured(t, 'killed', DEFAULTS)
    assertNoGet(gets, lateMs)
    assert.ok(posts <= 20, `${posts} POSTs failed`)
    assert.ok(quietMs < 1000 + 4 * lateMs, `it got attempts for ${quietMs} ms`)
  })

  it('that resets costs no GET by default, but goes on to get its share', async (t) => {
    const { gets, share, lateMs } = await measured(t, 'resetting', DEFAULTS)
    assertNoGet(gets, lateMs)
    assert.ok(share > 0.1, `it got ${share} of the requests`)
  })

  it('that resets costs no GET, and is out of use after five failures', async (t) => {
    const { gets, posts, quietMs, lateMs } = await measured(t, 'resetting', WATCHFUL)
    assertNoGet(gets, lateMs)
    assert.ok(posts <= 20, `${posts} POSTs failed`)
    assert.ok(quietMs < 1000 + 4 * lateMs, `it got attempts for ${quietMs} ms`)
  })

  for (const fault of ['slow', 'half-open'] as const) {
    it(`that is ${fault} costs no GET, and is out of use soon after the time that a try may take`, async (t) => {
      const { gets, posts, quietMs, lateMs } = await measured(t, fault, WATCHFUL)
      assertNoGet(gets, lateMs)
      // A POST that got no answer in time must not be sent again.
      assert.ok(posts <= 40, `${posts} POSTs failed`)
      assert.ok(quietMs < 2000 + 4 * lateMs, `it got attempts for ${quietMs} ms`)
    })
  }

  it('that accepts no TCP connection costs none', async (t) => {
    const servers = await Promise.all(Array.from({ length: 3 }, () => tcpServer((socket) => socket.end('ok'))))
    const [bad, ...good] = servers
    ends.push(() => Promise.all(good.map((server) => server.close())))
    const ports = servers.map(({ port }) => port)
    const at = bad?.port
    const { cluster, client } = await tcpProxy({ ports, isRanked: false, limits: { maxConnections: 400 } }, ends)
    const load = new SteadyLoad({
      perSecond: PER_SECOND,
      maxAtOnce: MAX_AT_ONCE,
      one: async () => {
        const made = client().end()
        return (await made.ended()) || (await made.closed()) || 'nothing'
      },
    })
    ends.push(() => load.stop())
    await load.more(PER_SECOND / 2)
    const attempts = watchAttempts(() => [...cluster.endpoints].find(({ port }) => port === at)!)
    // Connections that are accepted are served to their end.
    bad?.server.close()
    const since = performance.now()
    await pause(OBSERVED_MS)
    await load.stop()
    assert.deepEqual(load.others('ok'), {})
    const quietMs = attempts.quietAfterMs(since)
    assert.ok(quietMs < 1000 + 4 * load.lateMs, `it got dials for ${quietMs} ms`)
    t.diagnostic(
      `killed, TCP: ${load.sent} connections at ${load.rate}/s, none failed; quiet after ${quietMs} ms, ${attempts.count(since)} dials in all`,
    )
  })
})

describe('two priorities', { timeout: 120_000, concurrency: true }, () => {
  for (const [how, setup] of [
    ['', DEFAULTS],
    [
      ' with health checks',
      {
        ...DEFAULTS,
        cluster: {
          healthCheck: {
            probe: { kind: 'tcp' },
            port: null,
            intervalMs: 1000,
            timeoutMs: 1000,
            unhealthyThreshold: 2,
            healthyThreshold: 2,
          },
        },
      },
    ],
  ] as const satisfies readonly (readonly [string, HttpProxySetup])[]) {
    it(`hand over when the first is killed and back when it is there again${how}, and no GET fails`, async (t) => {
      const [first, second] = await Promise.all([faultyServer(), faultyServer()])
      const ports = [first.port, second.port]
      const proxy = await httpProxy({ ...setup, ports, isRanked: true, accessLog: { mode: 'Off', sample: 0 } }, ends)
      const load = httpLoad(proxy.port)
      await load.more(PER_SECOND / 2)
      assert.equal(second.answered, 0)
      await first.become('killed')
      const killedAt = performance.now()
      while (second.answered === 0) await pause(5)
      const toSecondMs = performance.now() - killedAt
      await load.more(2 * PER_SECOND)
      await first.become('good')
      const backAt = performance.now()
      const before = first.answered
      while (first.answered === before) await pause(5)
      const toFirstMs = performance.now() - backAt
      // Everything is back at the first, as soon as a second's requests all go there.
      for (let left = -1; left !== second.answered; ) {
        left = second.answered
        await load.more(PER_SECOND)
      }
      await load.stop()
      const failed = load.others('GET ok', 'POST ok')
      assert.deepEqual(
        Object.keys(failed).filter((answer) => answer.startsWith('GET') && !isExcused(answer, load)),
        [],
      )
      assert.ok(toFirstMs < 10_000 + 4 * load.lateMs, `${toFirstMs} ms`)
      t.diagnostic(
        `${load.sent} requests at ${load.rate}/s, failed ${JSON.stringify(failed)}; the second answered ${Math.round(toSecondMs)} ms after the first was killed, ` +
          `the first ${Math.round(toFirstMs)} ms after it was back`,
      )
    })
  }
})
