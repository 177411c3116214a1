/** Every reason code from end to end: status, x-ambassador-reason and Proxy-Status of the answer, access log, count. */
import assert from 'node:assert/strict'
import { after, describe, it } from 'node:test'
import { createServer } from 'node:tls'
import { REASONS, type Reason } from '../../../common/reasons.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import type { HttpTestClient } from '../../helpers/http-client.ts'
import { ok, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'
import { Pki } from '../../helpers/pki.ts'
import { renderedProxy } from '../../helpers/rendered-proxy.ts'
import { closedPort, TestServer, tcpServer } from '../../helpers/tcp.ts'

const ends = endsOfEach()
const pki = new Pki()
after(() => pki.remove())

type Proxy = Awaited<ReturnType<typeof renderedProxy>>

interface Case {
  /** The spec, when the upstream listens on this port. */
  readonly spec: (port: number) => object
  /** Default: an upstream that answers. */
  readonly port?: () => Promise<number>
  /** What the application does. Default: one GET. Its last answer is the one that is looked at. */
  readonly act?: (
    client: HttpTestClient,
    proxy: Proxy,
  ) => Promise<Awaited<ReturnType<HttpTestClient['response']>> | null>
  /** RFC 9209 error type, where it is not that of the reason. */
  readonly proxyError?: string
  /** Nobody answers: only the log and the count say it. */
  readonly isSilent?: true
  /** Lines of the access log before the one that is looked at. */
  readonly before?: number
}

const once = { retry: { maxRetries: 0 } }
const upstreams = (port: number, more: object = {}) => [
  { name: 'live', endpoints: [{ host: '127.0.0.1', port }], ...more },
]
const plain = (port: number) => ({ upstreams: upstreams(port), ...once })
const silent = async () => (await scriptedUpstream(ends, () => null)).port
const answering = async () => (await scriptedUpstream(ends, () => ok())).port
const closing = async () =>
  (
    await scriptedUpstream(ends, ({ socket }) => {
      socket.destroy()
      return null
    })
  ).port

const CASES: Readonly<Partial<Record<Reason, Case>>> = {
  dns_failed: {
    spec: () => ({
      upstreams: [{ name: 'live', endpoints: [{ host: 'nowhere.invalid', port: 80 }] }],
      ...once,
      timeouts: { request: '300ms' },
    }),
  },
  connect_refused: { spec: plain, port: closedPort },
  connect_timeout: {
    // It accepts and never shakes hands: the time to connect includes the handshake.
    port: async () => {
      const server = await tcpServer(() => {})
      ends.push(() => server.close())
      return server.port
    },
    spec: (port) => ({ upstreams: upstreams(port, { tls: {} }), ...once, timeouts: { connect: '200ms' } }),
  },
  tls_verify_failed: {
    port: async () => {
      const { cert, key } = pki.authority().issue({ names: ['other.example'] })
      const server = await new TestServer(createServer({ cert, key }), 'secureConnection').listen()
      ends.push(() => server.close())
      return server.port
    },
    spec: (port) => ({ upstreams: upstreams(port, { tls: {} }), ...once }),
  },
  auth_unavailable: {
    spec: (port) => ({
      upstreams: upstreams(port, { auth: { bearer: { secretKeyRef: { name: 'none', key: 'token' } } } }),
      ...once,
    }),
  },
  circuit_open: {
    port: async () => (await scriptedUpstream(ends, () => withStatus(500))).port,
    spec: (port) => ({ upstreams: upstreams(port, { circuitBreaker: { consecutiveFailures: 1 } }), ...once }),
    act: async (client) => {
      await client.get().response()
      return client.get().response()
    },
    before: 1,
  },
  queue_full: {
    port: silent,
    spec: (port) => ({ upstreams: upstreams(port, { limits: { maxConnections: 1, maxPendingRequests: 0 } }), ...once }),
    act: async (client, proxy) => {
      proxy.connect().get()
      while (proxy.compiler.clusters[0]?.cluster.connections.used !== 1)
        await new Promise((resolve) => setImmediate(resolve))
      return client.get().response()
    },
  },
  rate_limited: {
    spec: (port) => ({ ...plain(port), rateLimit: { requests: 1, per: '1h' } }),
    act: async (client) => {
      await client.get().response()
      return client.get().response()
    },
    before: 1,
  },
  try_timeout: {
    port: silent,
    spec: (port) => ({ upstreams: upstreams(port), retry: { maxRetries: 1, on: ['Timeout'], perTryTimeout: '50ms' } }),
  },
  deadline: { port: silent, spec: (port) => ({ ...plain(port), timeouts: { request: '100ms' } }) },
  upstream_reset: { port: closing, spec: plain },
  upstream_truncated: {
    port: async () =>
      (
        await scriptedUpstream(ends, ({ socket }) => {
          socket.end('HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nabc')
          return null
        })
      ).port,
    spec: plain,
    act: async (client) => {
      await client.get().tcp.ended()
      return null
    },
    isSilent: true,
  },
  body_too_large_to_retry: {
    port: closing,
    spec: (port) => ({
      upstreams: upstreams(port),
      retry: { on: ['Reset'], methods: 'All', maxBufferedBody: '1' },
    }),
    act: (client) => client.post('more than a byte').response(),
  },
  budget_exhausted: {
    port: closing,
    spec: (port) => ({
      upstreams: upstreams(port),
      retry: { on: ['Reset'], budget: { ratio: '0%', minPerSecond: 0 } },
    }),
  },
  client_gone: {
    port: silent,
    spec: plain,
    act: async (client, proxy) => {
      client.get()
      while (proxy.compiler.clusters[0]?.cells.active !== 1) await new Promise((resolve) => setImmediate(resolve))
      client.socket.resetAndDestroy()
      return null
    },
    isSilent: true,
  },
  // The address of the endpoint is in none of the ranges.
  egress_denied: { spec: (port) => ({ ...plain(port), egress: { allow: ['192.0.2.0/24'] } }) },
  bad_request: { spec: plain, act: (client) => client.write('GET / HTTP/1.1\r\n\r\n').response() },
}

/** Codes that no request here ends with, and why. */
const ELSEWHERE: Readonly<Partial<Record<Reason, string>>> = {
  draining: 'a request that is under way is finished; connections of TCP are told',
  overloaded: 'the process itself must be short of memory or time: the tests of shedding have it',
  no_route: 'what no route takes goes to the first upstream',
  no_healthy_endpoint: 'endpoints that are not well are asked when there is no other',
}

describe('a reason code', () => {
  it('is tried here, or cannot occur', () => {
    const known = new Set([...Object.keys(CASES), ...Object.keys(ELSEWHERE)])
    const missing = Object.keys(REASONS).filter((reason) => !known.has(reason))
    // Codes of other protocols have tests of their own.
    assert.deepEqual(
      missing.filter((reason) => REASONS[reason as Reason].status !== 0),
      [],
    )
  })

  for (const [code, each] of Object.entries(CASES) as [Reason, Case][]) {
    it(`${code} is the same in answer, log and count`, async () => {
      const { spec, port = answering, act = (client: HttpTestClient) => client.get().response() } = each
      const proxy = await renderedProxy(spec(await port()) as never, ends)
      const answer = await act(proxy.connect(), proxy)
      const { status, proxyError } = REASONS[code]
      assert.equal(answer === null, each.isSilent === true)
      if (answer !== null) {
        assert.equal(answer.status, status, answer.body)
        assert.equal(answer.field('x-ambassador-reason'), code)
        assert.equal(answer.field('content-type'), 'application/problem+json')
        assert.match(
          answer.field('proxy-status') ?? '',
          new RegExp(`^ambassador; error=${each.proxyError ?? proxyError}; details="[^"]+"$`),
        )
        const problem = JSON.parse(answer.body)
        assert.equal(problem.reason, code)
        assert.equal(problem.status, status)
        assert.equal(problem.requestId, answer.field('x-request-id'))
      }
      const { before = 0 } = each
      const line = (await proxy.logged(before + 1))[before]
      assert.equal(line?.['reason'], code)
      if (answer !== null) assert.equal(line?.['status'], status)
      for (const timer of ['queue_ms', 'connect_ms', 'tls_ms', 'total_ms'])
        assert.equal(typeof line?.[timer], 'number', timer)
      assert.ok('ttfb_ms' in (line ?? {}))
      assert.equal(proxy.compiler.clusters[0]?.cells.reasons[code], 1)
    })
  }
})
