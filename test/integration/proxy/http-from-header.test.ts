/** Upstreams that requests name in a header field, on real sockets. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { now } from '../../../proxy/runtime/clock.ts'
import { HOST_IDLE_MS, MAX_HOSTS } from '../../../proxy/upstream/host-clusters.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { ok, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'
import { renderedProxy } from '../../helpers/rendered-proxy.ts'

const ends = endsOfEach()

/** `*.localhost` is [::1] too, where nobody listens. */
const RETRY = { backoff: { initial: '1ms', max: '1ms' }, budget: { ratio: '100%', minPerSecond: 10_000 } }

async function setup(allowed: (ports: readonly number[]) => readonly string[], more: object = {}) {
  const answer = { a: ok('a'), b: ok('b') }
  const a = await scriptedUpstream(ends, () => answer.a)
  const b = await scriptedUpstream(ends, () => answer.b)
  const fromHeader = { name: 'X-Upstream-Host', allowed: [...allowed([a.port, b.port])] }
  const proxy = await renderedProxy({ upstreams: [{ name: 'any', fromHeader, ...more }], retry: RETRY }, ends)
  const client = proxy.connect()
  const ask = async (...lines: string[]) => {
    const { status, body, field } = await client.get('/x', ...lines).response()
    return { status, body, reason: field('X-Ambassador-Reason') }
  }
  return { a, b, answer, proxy, ask, cluster: proxy.compiler.clusters[0]!.cluster }
}

describe('an upstream from a header', () => {
  it('gets the request with its own Host and without the header', async () => {
    const { a, b, ask } = await setup(([a, b]) => [`127.0.0.1:${a}`, `*.localhost:${b}`])
    assert.equal((await ask(`x-upstream-HOST: 127.0.0.1:${a.port}`)).body, 'a')
    assert.equal((await ask(`X-Upstream-Host: Web.Shop.LOCALHOST.:${b.port}`)).body, 'b')
    const { head } = await a.request(0)
    assert.match(head, new RegExp(`\\r\\nHost: 127\\.0\\.0\\.1:${a.port}\\r\\n`))
    assert.doesNotMatch(head, /upstream-host/i)
    assert.equal((await b.request(0)).field('Host'), `web.shop.localhost:${b.port}`)
  })

  it('is no open proxy', async () => {
    const { a, b, ask } = await setup(([a]) => [`127.0.0.1:${a}`, '*.allowed.localhost'])
    const refused: readonly [lines: string[], status: number, reason: string][] = [
      [[], 404, 'no_route'],
      [['X-Upstream-Host:'], 404, 'no_route'],
      [[`X-Upstream-Host: 127.0.0.1:${b.port}`], 404, 'no_route'],
      [[`X-Upstream-Host: localhost:${a.port}`], 404, 'no_route'],
      [[`X-Upstream-Host: allowed.localhost:${b.port}`], 404, 'no_route'],
      [[`X-Upstream-Host: notallowed.localhost:${b.port}`], 404, 'no_route'],
      [[`X-Upstream-Host: user@127.0.0.1:${a.port}`], 400, 'bad_request'],
      [[`X-Upstream-Host: http://127.0.0.1:${a.port}`], 400, 'bad_request'],
      [[`X-Upstream-Host: 127.0.0.1:${a.port}, 127.0.0.1:${b.port}`], 400, 'bad_request'],
      [[`X-Upstream-Host: 127.0.0.1:${a.port}`, `X-Upstream-Host: 127.0.0.1:${a.port}`], 400, 'bad_request'],
    ]
    for (const [lines, status, reason] of refused) {
      const answer = await ask(...lines)
      assert.deepEqual([answer.status, answer.reason], [status, reason], lines.join())
    }
    assert.equal(a.connections + b.connections, 0)
    assert.equal((await ask(`X-Upstream-Host: 127.0.0.1:${a.port}`)).body, 'a')
  })

  it('has a circuit breaker for each host', async () => {
    const { a, b, answer, ask } = await setup(() => ['127.0.0.1'], { circuitBreaker: { consecutiveFailures: 1 } })
    answer.a = withStatus(500)
    assert.equal((await ask(`X-Upstream-Host: 127.0.0.1:${a.port}`)).status, 500)
    assert.equal((await ask(`X-Upstream-Host: 127.0.0.1:${a.port}`)).reason, 'circuit_open')
    assert.equal((await ask(`X-Upstream-Host: 127.0.0.1:${b.port}`)).body, 'b')
    assert.equal(a.requests.length, 1)
  })

  it('has its circuits held open or closed by a person for the hosts that are known and for those that are named later', async () => {
    const { a, b, answer, ask, cluster } = await setup(() => ['127.0.0.1'], {
      circuitBreaker: { consecutiveFailures: 1 },
    })
    assert.equal((await ask(`X-Upstream-Host: 127.0.0.1:${a.port}`)).body, 'a')
    assert.equal(cluster.forceCircuits('open', null), 1)
    assert.equal((await ask(`X-Upstream-Host: 127.0.0.1:${a.port}`)).reason, 'circuit_open')
    assert.equal((await ask(`X-Upstream-Host: 127.0.0.1:${b.port}`)).reason, 'circuit_open')
    assert.equal(cluster.forceCircuits('closed', `127.0.0.1:${b.port}`), 1)
    answer.b = withStatus(500)
    for (let i = 0; i < 3; i++) assert.equal((await ask(`X-Upstream-Host: 127.0.0.1:${b.port}`)).status, 500)
    assert.equal((await ask(`X-Upstream-Host: 127.0.0.1:${a.port}`)).reason, 'circuit_open')
    assert.equal(cluster.forceCircuits('auto', null), 2)
    assert.equal((await ask(`X-Upstream-Host: 127.0.0.1:${a.port}`)).body, 'a')
    assert.deepEqual([a.requests.length, b.requests.length], [2, 3])
    assert.equal(cluster.forceCircuits('open', '127.0.0.1:1'), 0)
  })

  it('keeps a bounded number of hosts, and forgets those that nobody asks for', async () => {
    const { a, ask, cluster } = await setup(() => ['*.localhost'])
    const startedAt = now()
    for (let i = 0; i < MAX_HOSTS + 5; i++) {
      assert.equal((await ask(`X-Upstream-Host: h${i}.localhost:${a.port}`)).body, 'a')
    }
    assert.equal(cluster.hosts?.size, MAX_HOSTS)
    cluster.hosts?.sweep(startedAt + HOST_IDLE_MS - 1000)
    assert.equal(cluster.hosts?.size, MAX_HOSTS)
    cluster.hosts?.sweep(now() + HOST_IDLE_MS + 10_000)
    assert.equal(cluster.hosts?.size, 0)
    assert.equal((await ask(`X-Upstream-Host: h0.localhost:${a.port}`)).body, 'a')
  })

  it('may be where a route leads, whose other changes it keeps', async () => {
    const a = await scriptedUpstream(ends, () => ok('a'))
    const main = await scriptedUpstream(ends, () => ok('main'))
    const proxy = await renderedProxy(
      {
        upstreams: [
          { name: 'main', endpoints: [{ host: '127.0.0.1', port: main.port }] },
          { name: 'any', fromHeader: { name: 'X-Upstream-Host', allowed: ['127.0.0.1'] } },
        ],
        routes: [
          {
            match: { path: { prefix: '/out' } },
            to: [{ upstream: 'any' }],
            rewrite: { prefix: '/' },
            requestHeaders: { set: [{ name: 'X-A', value: '1' }], remove: ['X-B'] },
          },
        ],
      },
      ends,
    )
    const client = proxy.connect()
    const header = `X-Upstream-Host: 127.0.0.1:${a.port}`
    assert.equal((await client.get('/out/y', header, 'X-B: 2').response()).body, 'a')
    assert.equal((await client.get('/y', header).response()).body, 'main')
    const { head, target } = await a.request(0)
    assert.equal(target, '/y')
    assert.match(head, /\r\nX-A: 1\r\n/)
    assert.doesNotMatch(head, /X-B|X-Upstream-Host/)
    assert.equal((await main.request(0)).field('X-Upstream-Host'), `127.0.0.1:${a.port}`)
  })
})
