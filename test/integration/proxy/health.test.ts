import assert from 'node:assert/strict'
import type { Socket } from 'node:net'
import { after, describe, it } from 'node:test'
import { createServer } from 'node:tls'
import type { BreakerConfig, ClusterConfig, HealthCheckConfig, OutlierConfig } from '../../../common/proxy-config.ts'
import { NO_GUARD } from '../../../proxy/policy/dial-guard.ts'
import { now, refreshClock } from '../../../proxy/runtime/clock.ts'
import { CoarseTimer } from '../../../proxy/runtime/timers.ts'
import { TlsContexts } from '../../../proxy/tls/contexts.ts'
import type { UpstreamTls } from '../../../proxy/tls/upstream-tls.ts'
import { Cluster } from '../../../proxy/upstream/cluster.ts'
import type { Address } from '../../../proxy/upstream/discovery/discovery.ts'
import { Endpoint } from '../../../proxy/upstream/endpoint.ts'
import { Health } from '../../../proxy/upstream/health/health.ts'
import { SeededRandom } from '../../fuzz/random.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { Pki } from '../../helpers/pki.ts'
import { closedPort, TestServer, tcpServer } from '../../helpers/tcp.ts'

const pki = new Pki()
const authority = pki.authority()
after(() => pki.remove())
const ends = endsOfEach()

const CHECK: HealthCheckConfig = {
  probe: { kind: 'tcp' },
  port: null,
  intervalMs: 30,
  timeoutMs: 10_000,
  unhealthyThreshold: 2,
  healthyThreshold: 2,
}
const OUTLIER: OutlierConfig = { consecutiveFailures: 2, ejectionMs: 200, maxEjectionMs: 1000, maxEjected: 0.1 }
const BREAKER: BreakerConfig = {
  consecutiveFailures: 1,
  failureRate: null,
  openMs: 60_000,
  maxOpenMs: 60_000,
  halfOpenRequests: 1,
}

/** A cluster of endpoints on loopback, and what it tells of their health. */
function started(ports: readonly number[], parts: Partial<ClusterConfig>, tls: UpstreamTls | null = null) {
  const told: string[] = []
  let wake = () => {}
  const addresses = ports.map(
    (port): Address => ({ host: 'db.example', ip: '127.0.0.1', port, weight: 1, priority: 0 }),
  )
  let tell: (addresses: readonly Address[]) => void = () => {}
  const config: ClusterConfig = {
    name: 'live',
    discovery: { kind: 'dns', hostname: 'db.example', port: 1 },
    tls: null,
    auth: null,
    circuitBreaker: null,
    limits: { maxConnections: 9, maxPendingRequests: 9, maxConcurrentRetries: 9 },
    ...parts,
  }
  let refreshes = 0
  const options = (changed: Partial<ClusterConfig> = {}) => {
    return { config: { ...config, ...changed }, tls, budget: null, probeTimeoutMs: 1000, queue: 'Oldest' as const }
  }
  const cluster = new Cluster(options(), {
    discover: () => ({
      failure: null,
      start: (onChange) => {
        tell = onChange
        onChange(addresses)
      },
      refresh: () => refreshes++,
      stop: () => {},
    }),
    onHealth: (_cluster, { port }, failure) => {
      told.push(`${ports.indexOf(port)}: ${failure ?? 'well'}`)
      wake()
    },
  })
  cluster.start()
  ends.push(() => cluster.destroy())
  /** In place of the clock, while it is set: nothing is over then because the machine stood still. */
  let stopped: number | null = null
  const time = () => stopped ?? refreshClock()
  const pick = (tried: readonly Endpoint[] = []) => cluster.pick(time(), tried)
  return {
    cluster,
    told,
    pick,
    tell: (some: readonly number[]) => tell(some.map((index) => addresses[index]!)),
    change: (changed: Partial<ClusterConfig>) => cluster.update(options(changed)),
    refreshes: () => refreshes,
    /** Ports that many picks give. */
    picked: () => new Set(Array.from({ length: 40 }, () => (pick() as Endpoint).port)),
    next: async (count: number) => {
      while (told.length < count) await new Promise<void>((resolve) => (wake = resolve))
      return told
    },
    /** An attempt on an endpoint that ends in this way. */
    attempt: (index: number, outcome: 'success' | 'failure') => {
      const endpoint = [...cluster.endpoints].find(({ port }) => port === ports[index])!
      const token = endpoint.begin(time())
      endpoint.settle(token, outcome, time())
      endpoint.leave()
    },
    /** Stops the clock of picks and attempts, or moves it on. */
    pass: (ms: number) => {
      stopped = time() + ms
    },
  }
}

async function server(serve: (socket: Socket) => void = () => {}, port = 0) {
  const made = await tcpServer(serve, port)
  ends.push(() => (made.server.listening ? made.close() : undefined))
  return made
}

describe('active checks', () => {
  it('of a fleet that began together are spread over the first tenth of the interval, and drift apart with each gap', async (t) => {
    const made = await server((socket) => socket.end())
    const random = new SeededRandom(11)
    const waits: number[] = []
    const set = CoarseTimer.prototype.set
    t.mock.method(CoarseTimer.prototype, 'set', function (this: CoarseTimer, at: number) {
      // The others are deadlines.
      if (at - now() < CHECK.timeoutMs / 2) waits.push(at - now())
      set.call(this, at)
    })
    const options = { tls: null, proxyProtocol: null, guard: NO_GUARD, prober: null }
    for (let i = 0; i < 50; i++) {
      const health = new Health(
        { config: { ...CHECK, intervalMs: 1000 }, ...options },
        { random: () => random.next(), onHealth: () => {}, onFailedCheck: () => {} },
      )
      ends.push(() => health.close())
      const address = { host: 'db.example', ip: '127.0.0.1', port: made.port, weight: 1, priority: 0 }
      health.setEndpoints([new Endpoint(address, { config: null, probeTimeoutMs: 1000 })])
    }
    while (waits.length < 100) await new Promise((resolve) => setTimeout(resolve, 5))
    const evenly = (some: readonly number[], from: number, to: number) => {
      const fifths = [0, 0, 0, 0, 0]
      for (const each of some) fifths[Math.floor((5 * (each - from)) / (to - from))]!++
      // Ten each, were they quite even.
      assert.ok(fifths.length === 5 && Math.min(...fifths) >= 3, `${fifths} between ${from} and ${to} ms`)
    }
    evenly(waits.slice(0, 50), 0, 100)
    evenly(waits.slice(50, 100), 900, 1100)
  })

  it('take an endpoint out of use that does not accept connections, and back when it does', async () => {
    const one = await server()
    const port = await closedPort()
    const { next, picked, refreshes } = started([one.port, port], { healthCheck: CHECK })
    const [failure] = await next(1)
    assert.match(failure ?? '', /^1: endpoint 'db\.example' \(127\.0\.0\.1:\d+\) cannot be connected to: ECONNREFUSED$/)
    assert.deepEqual([...picked()], [one.port])
    assert.ok(refreshes() >= 2)
    await server(() => {}, port)
    assert.equal((await next(2))[1], '1: well')
    assert.deepEqual(picked(), new Set([one.port, port]))
  })

  it('do not wait for a slow endpoint before the next, and call it unhealthy when it takes too long', async () => {
    const slow = await server()
    const probe = { kind: 'http', path: '/', statuses: null } as const
    const quick = await server((socket) => socket.on('data', () => socket.end('HTTP/1.1 204 No Content\r\n\r\n')))
    const { next } = started([slow.port, quick.port], { healthCheck: { ...CHECK, probe, timeoutMs: 500 } })
    assert.equal((await next(1))[0], '0: GET / was not answered within 500 ms')
  })

  const answers: [title: string, answer: string, statuses: readonly number[] | null, says: string | null][] = [
    ['a redirect', 'HTTP/1.1 301 Moved\r\n\r\n', null, null],
    ['an informational answer first', 'HTTP/1.1 103 Early Hints\r\nlink: x\r\n\r\nHTTP/1.1 200 OK\r\n\r\n', null, null],
    ['HTTP/1.0 without a reason', 'HTTP/1.0 200\r\n\r\n', null, null],
    ['503', 'HTTP/1.1 503 Service Unavailable\r\n\r\n', null, 'GET /healthz was answered with 503'],
    ['another status than the expected', 'HTTP/1.1 200 OK\r\n\r\n', [204], 'GET /healthz was answered with 200'],
    ['an expected 503', 'HTTP/1.1 503 Service Unavailable\r\n\r\n', [503], null],
    ['another protocol', '220 mail.example ESMTP\r\n', null, 'GET /healthz was not answered in HTTP/1.1'],
    ['nothing', '', null, 'GET /healthz was not answered, the connection was closed'],
  ]
  for (const [title, answer, statuses, says] of answers) {
    it(`over HTTP understand ${title}`, async () => {
      const requests: string[] = []
      let heard = () => {}
      const enough = new Promise<void>((resolve) => (heard = resolve))
      const one = await server((socket) =>
        socket.on('data', (chunk: Buffer) => {
          requests.push(chunk.toString())
          socket.end(answer)
          if (requests.length === 4) heard()
        }),
      )
      const probe = { kind: 'http', path: '/healthz', statuses: statuses && [...statuses] } as const
      const { told } = started([one.port], { healthCheck: { ...CHECK, probe } })
      await enough
      assert.deepEqual(told, says === null ? [] : [`0: ${says}`])
      assert.match(requests[0]!, new RegExp(`^GET /healthz HTTP/1\\.1\\r\\nhost: db\\.example:${one.port}\\r\\n`))
    })
  }

  it('of TLS want a handshake', async () => {
    const contexts = new TlsContexts({ read: () => ({ state: 'Missing', message: 'no' }), name: () => '' })
    const tls = contexts.open({ serverName: 'db.example', ca: null, clientCertificate: null, minVersion: 'TLSv1.2' })
    const plain = await server((socket) => socket.end('not TLS'))
    const { next } = started([plain.port], { healthCheck: { ...CHECK, probe: { kind: 'tls' } } }, tls)
    assert.match((await next(1))[0]!, /^0: endpoint 'db\.example' \(127\.0\.0\.1:\d+\) .*TLS handshake/)
  })

  for (const maxVersion of ['TLSv1.3', 'TLSv1.2'] as const) {
    it(`of ${maxVersion} pass with a trusted certificate, and the server sees whole handshakes`, async () => {
      const files = { ca: authority.cert }
      const contexts = new TlsContexts({
        read: () => ({ state: 'Found', bytes: Buffer.from(files.ca) }),
        name: () => '',
      })
      const tls = contexts.open({
        serverName: 'db.example',
        ca: { kind: 'file', path: 'ca' },
        clientCertificate: null,
        minVersion: 'TLSv1.2',
      })
      const broken: string[] = []
      const listening = createServer({ ...authority.issue({ names: ['db.example'] }), maxVersion, allowHalfOpen: true })
      listening.on('tlsClientError', ({ message }) => broken.push(message))
      // It ends when the other side does, as a server does.
      listening.on('secureConnection', (socket) => socket.on('end', () => socket.end()).resume())
      const good = await new TestServer(listening, 'secureConnection').listen()
      ends.push(() => good.close())
      const plain = await server((socket) => socket.end('not TLS'))
      const probe = { kind: 'tls' } as const
      const { next, picked } = started([good.port, plain.port], { healthCheck: { ...CHECK, probe } }, tls)
      assert.match((await next(1))[0]!, /^1: .*TLS handshake/)
      await good.connections(5)
      assert.deepEqual(broken, [])
      assert.deepEqual([...picked()], [good.port])
      files.ca = pki.authority('Another CA').cert
      contexts.reload()
      assert.match((await next(2))[1]!, /^0: .*its certificate is not trusted/)
      files.ca = authority.cert
      contexts.reload()
      assert.equal((await next(3))[2], '0: well')
    })
  }

  it('look at another port when they are told to', async () => {
    const health = await server()
    const { told, next, change } = started([await closedPort()], { healthCheck: { ...CHECK, port: health.port } })
    await new Promise((resolve) => setTimeout(resolve, 200))
    assert.deepEqual(told, [])
    change({ healthCheck: CHECK })
    assert.match((await next(1))[0]!, /ECONNREFUSED$/)
  })

  it('never leave nothing: when all are unhealthy they are all tried', async () => {
    const ports = [await closedPort(), await closedPort()]
    const { next, picked, pick } = started(ports, { healthCheck: CHECK })
    await next(2)
    assert.deepEqual(picked(), new Set(ports))
    const first = pick() as Endpoint
    assert.notEqual(pick([first]), first)
  })

  it('that pass do not close a breaker that traffic opened', async () => {
    let checks = 0
    let heard = () => {}
    const enough = new Promise<void>((resolve) => (heard = resolve))
    const one = await server(() => {
      if (++checks === 5) heard()
    })
    const { attempt, pick } = started([one.port], { healthCheck: CHECK, circuitBreaker: BREAKER })
    attempt(0, 'failure')
    await enough
    assert.equal(pick(), 'circuit_open')
  })

  it('end with the cluster, with the endpoint, and with their configuration', async () => {
    let checks = 0
    const one = await server(() => checks++)
    const dead = await closedPort()
    const { next, change, cluster, tell, picked } = started([one.port, dead], { healthCheck: CHECK })
    await next(1)
    tell([0])
    change({})
    assert.deepEqual([...picked()], [one.port])
    change({ healthCheck: undefined })
    const before = checks
    await new Promise((resolve) => setTimeout(resolve, 150))
    assert.ok(checks <= before + 1)
    tell([0, 1])
    assert.deepEqual(picked(), new Set([one.port, dead]))
    cluster.close()
  })
})

describe('ejection of what keeps failing', () => {
  it('ejects one of two although a tenth of two is less than one, for a time that grows', async () => {
    const { attempt, told, picked, pass } = started([1, 2], { outlierDetection: OUTLIER })
    pass(0)
    attempt(0, 'failure')
    attempt(0, 'success')
    attempt(0, 'failure')
    assert.deepEqual(told, [])
    attempt(0, 'failure')
    assert.deepEqual(told, ['0: 2 attempts in a row failed, it gets none for 200 ms'])
    assert.deepEqual([...picked()], [2])
    pass(OUTLIER.ejectionMs - 1)
    assert.deepEqual([...picked()], [2])
    pass(1)
    assert.deepEqual(picked(), new Set([1, 2]))
    attempt(0, 'failure')
    attempt(0, 'failure')
    assert.equal(told[1], '0: 2 attempts in a row failed, it gets none for 400 ms')
  })

  it('never ejects the last one that is up, and no more than its share', () => {
    const { attempt, told, pass } = started([1, 2], { outlierDetection: { ...OUTLIER, maxEjected: 1 } })
    pass(0)
    for (const index of [0, 0, 1, 1, 1]) attempt(index, 'failure')
    assert.equal(told.length, 1)
    const five = started([1, 2, 3, 4, 5], { outlierDetection: { ...OUTLIER, maxEjected: 0.4 } })
    five.pass(0)
    for (const index of [0, 0, 1, 1, 2, 2, 3, 3]) five.attempt(index, 'failure')
    assert.deepEqual(
      five.told.map((text) => text[0]),
      ['0', '1'],
    )
  })

  it('is over when it is not configured any more', () => {
    const { attempt, picked, change, pass } = started([1, 2], { outlierDetection: OUTLIER })
    pass(0)
    attempt(0, 'failure')
    attempt(0, 'failure')
    assert.deepEqual([...picked()], [2])
    change({ outlierDetection: undefined })
    assert.deepEqual(picked(), new Set([1, 2]))
  })
})
