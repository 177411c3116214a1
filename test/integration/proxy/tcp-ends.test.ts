/** Every way in which a TCP connection ends, in one sidecar: the word in its log, in its metrics and in docs/tcp.md. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { createServer as createTlsServer } from 'node:tls'
import { configHash } from '../../../common/config-hash.ts'
import type { ClusterConfig, ProxyConfig } from '../../../common/proxy-config.ts'
import { plainConfig } from '../../../proxy/config/plain.ts'
import { Pki } from '../../helpers/pki.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { silentPort } from '../../helpers/silent-port.ts'
import { closedPort, echo, TestClient, TestServer, tcpServer } from '../../helpers/tcp.ts'
import { Volumes } from '../../helpers/volume.ts'

interface Case {
  /** The upstream. Default: one that sends back what it gets. */
  readonly port?: () => Promise<number>
  readonly change?: (base: ProxyConfig) => Partial<ProxyConfig>
  readonly cluster?: Partial<ClusterConfig>
  /** What the application does. Default: it connects and waits for the end. */
  readonly act?: (connected: () => TestClient, world: World) => Promise<unknown>
  /** What the sentence in the log says. Absent: there is none. */
  readonly detail?: RegExp
  /** Ends before the one that is looked at. */
  readonly others?: Readonly<Record<string, number>>
}

interface World {
  /** Puts another config of the same Ambassador in force. */
  readonly reconfigure: (cluster: Partial<ClusterConfig>) => Promise<void>
}

const ends: (() => unknown)[] = []
const volumes = new Volumes()
const pki = new Pki()
let proxy: ProxyProcess

async function serving(serve: (socket: Socket) => void): Promise<number> {
  const server = await tcpServer(serve)
  ends.push(() => server.close())
  return server.port
}

const at = (port: number) => ({
  kind: 'endpoints' as const,
  endpoints: [{ host: '127.0.0.1', port, weight: 1, priority: 0 }],
})
const timeouts = (connectMs: number, idleMs: number | null = null) => ({
  timeouts: { connectMs, requestMs: null, idleMs },
})
const BREAKER = { consecutiveFailures: 1, failureRate: null, openMs: 600_000, maxOpenMs: 600_000, halfOpenRequests: 1 }

const CASES: Readonly<Record<string, Case>> = {
  client_closed: { act: async (connected) => connected().end('hello').ended() },
  upstream_closed: {
    port: () => serving((socket) => socket.end('bye')),
    act: async (connected) => {
      const app = connected()
      await app.ended()
      app.end()
    },
  },
  idle_timeout: { change: () => timeouts(5000, 50) },
  client_gone: {
    act: async (connected) => {
      const app = connected().write('hello')
      await app.read(5)
      app.socket.resetAndDestroy()
    },
    detail: /^the application broke the connection: ECONNRESET$/,
  },
  upstream_reset: {
    port: () => serving((socket) => socket.on('data', () => socket.resetAndDestroy())),
    act: async (connected) => connected().write('hello').closed(),
    detail: /^the upstream broke the connection: ECONNRESET$/,
  },
  dns_failed: {
    change: () => timeouts(100),
    // A list that is not there is looked for as a name that does not resolve.
    cluster: { discovery: { kind: 'file', ref: { kind: 'configMap', name: 'nobody', key: 'list' } } },
    detail: /'nobody'/,
  },
  no_healthy_endpoint: {
    change: () => timeouts(100),
    cluster: {
      discovery: { kind: 'service', namespace: 'shop', name: 'db', port: '80', host: 'db.shop.svc', endpoints: [] },
    },
    detail: /^Service 'db' of namespace 'shop' has no endpoint/,
  },
  connect_refused: { port: closedPort, detail: /^endpoint 127\.0\.0\.1:\d+ cannot be connected to: ECONNREFUSED$/ },
  connect_timeout: {
    port: () => silentPort(ends),
    change: () => timeouts(100),
    detail: /^endpoint 127\.0\.0\.1:\d+ did not accept a connection within 100 ms$/,
  },
  tls_verify_failed: {
    port: async () => {
      const { cert, key } = pki.authority().issue()
      const server = await new TestServer(createTlsServer({ cert, key }), 'secureConnection').listen()
      ends.push(() => server.close())
      return server.port
    },
    cluster: { tls: { serverName: 'localhost', ca: null, clientCertificate: null, minVersion: 'TLSv1.2' } },
    detail: /its certificate is not trusted/,
  },
  circuit_open: {
    port: closedPort,
    cluster: { circuitBreaker: BREAKER },
    act: async (connected) => {
      await connected().closed()
      await connected().closed()
    },
    others: { connect_refused: 1 },
    detail: /^the circuit breakers of upstream 'upstream' are open, the next attempt may come in \d+ ms$/,
  },
  queue_full: {
    cluster: { limits: { maxConnections: 1, maxPendingRequests: 0, maxConcurrentRetries: 1 } },
    act: async (connected) => {
      const first = connected().write('x')
      await first.read(1)
      await connected().closed()
      await first.end().closed()
    },
    others: { client_closed: 1 },
    detail: /^upstream 'upstream' has 1 connections and 0 wait$/,
  },
  rate_limited: {
    change: () => ({ rateLimit: { requests: 1, perMs: 3_600_000, burst: 1, onLimit: 'Reject', maxDelayMs: 0 } }),
    act: async (connected) => {
      await connected().end().ended()
      await connected().closed()
    },
    others: { client_closed: 1 },
    detail: /^the rate limit is reached, the next connection may come in \d+ ms$/,
  },
  egress_denied: {
    change: () => ({ egress: { allow: ['nobody.example'] } }),
    detail: /is not in egress\.allow/,
  },
  endpoint_left: {
    cluster: { drainDeadlineMs: 1 },
    act: async (connected, { reconfigure }) => {
      const app = connected().write('x')
      await app.read(1)
      await reconfigure({ drainDeadlineMs: 1, discovery: at(await serving(echo)) })
      await app.closed()
    },
    detail: /which is its drainDeadline$/,
  },
}

const nameOf = (end: string) => end.replaceAll('_', '-')
interface Place {
  readonly port: number
  readonly to: number
}
const places = new Map<string, Place>()

before(async () => {
  for (const [end, { port = () => serving(echo), cluster }] of [
    ...Object.entries(CASES),
    ['draining', {} as Case] as const,
  ]) {
    const place = { port: await freePort(), to: await port() }
    places.set(end, place)
    volumes.config(nameOf(end), configOf(end, place, 1, cluster))
  }
  proxy = await ProxyProcess.start({
    ...volumes.env([...places.keys()].map(nameOf).join(',')),
    AMBASSADOR_SIDECAR_MODE: 'Native',
    AMBASSADOR_DRAIN_SECONDS: '1',
    POD_NAMESPACE: 'shop',
  })
  ends.push(() => proxy.end())
  await proxy.ready()
})
after(async () => {
  for (const end of ends.splice(0).reverse()) await end()
  volumes.remove()
  pki.remove()
})

function configOf(end: string, { port, to }: Place, generation: number, cluster: Partial<ClusterConfig> = {}) {
  const base = plainConfig({
    namespace: 'shop',
    host: '127.0.0.1',
    port: to,
    listenPort: port,
    protocol: 'TCP',
    tls: null,
  })
  const content = {
    ...base,
    ambassador: { namespace: 'shop', name: nameOf(end), generation },
    clusters: base.clusters.map((each) => ({ ...each, ...cluster })),
    accessLog: { mode: 'All' as const, sample: 0 },
    ...CASES[end]?.change?.(base),
  }
  return { ...content, hash: configHash(content) }
}

interface Line {
  readonly name: string
  readonly ambassador: string
  readonly reason: string
  readonly detail?: string
}

/** The access line of this Ambassador with this end, as soon as it is there. */
async function logged(end: string): Promise<Line> {
  for (;;) {
    const lines = proxy.stdout.split('\n').slice(0, -1)
    for (const text of lines) {
      const line = JSON.parse(text) as Line
      if (line.name === 'access' && line.ambassador === nameOf(end) && line.reason === end) return line
    }
    await new Promise((resolve) => setTimeout(resolve, 10))
  }
}

describe('a TCP connection', { timeout: 120_000 }, () => {
  for (const [end, { act, detail, others = {} }] of Object.entries(CASES)) {
    it(`that ends by ${end} says so in log and metric`, async () => {
      const place = places.get(end)!
      const connected = () => {
        const client = new TestClient({ port: place.port })
        ends.push(() => client.socket.destroy())
        return client
      }
      const reconfigure = async (cluster: Partial<ClusterConfig>) => {
        volumes.config(nameOf(end), configOf(end, place, 2, cluster))
      }
      await (act ?? (async () => connected().ended()))(connected, { reconfigure })
      const line = await logged(end)
      if (detail === undefined) assert.equal(line.detail, undefined)
      else assert.match(line.detail ?? '', detail)
      const counts: Record<string, number> = {}
      const sample = new RegExp(
        `^ambassador_tcp_connections_total\\{ambassador="${nameOf(end)}",end="(\\w+)"\\} (\\d+)$`,
        'gm',
      )
      for (const [, each = '', count] of (await proxy.get('/metrics')).body.matchAll(sample))
        counts[each] = Number(count)
      assert.deepEqual(counts, { ...others, [end]: 1 })
    })
  }

  it('that is open when the sidecar ends says draining', async () => {
    const socket = connect(places.get('draining')!.port, '127.0.0.1')
    socket.on('error', () => {})
    socket.write('x')
    await once(socket, 'data')
    proxy.kill('SIGTERM')
    assert.equal(await proxy.exit, 0)
    assert.equal((await logged('draining')).detail, 'the sidecar is shutting down')
  })

  it('ends in a way that docs/tcp.md has, and in no other', () => {
    const text = readFileSync(join(import.meta.dirname, '../../../docs/tcp.md'), 'utf8')
    const table = text.slice(text.indexOf('| end | meaning |'))
    const documented = [...table.matchAll(/^\| (`[^|]*`) \|/gm)].flatMap(([, cell = '']) =>
      [...cell.matchAll(/`(\w+)`/g)].map(([, word]) => word),
    )
    // `overloaded` is in open-files.test.ts: it needs a sidecar that may open few files.
    assert.deepEqual(documented.sort(), [...Object.keys(CASES), 'draining', 'overloaded'].sort())
  })
})
