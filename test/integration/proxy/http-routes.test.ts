/** Routes on real sockets, from the spec that a person writes to the upstream that is asked. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { AmbassadorSpec } from '../../../operator/api/ambassador.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { ok, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'
import { freePort } from '../../helpers/ports.ts'
import { renderedProxy } from '../../helpers/rendered-proxy.ts'

const ends = endsOfEach()

type Routes = NonNullable<AmbassadorSpec['routes']>
type Upstreams = AmbassadorSpec['upstreams']

const at = (name: string, port: number, more: object = {}): Upstreams[number] => ({
  name,
  endpoints: [{ host: '127.0.0.1', port }],
  ...more,
})

/** Upstreams that answer with their name, and a proxy with routes to them. */
async function setup(routes: Routes, names = ['a', 'b', 'c'], more: object = {}) {
  const upstreams = await Promise.all(names.map((name) => scriptedUpstream(ends, () => ok(name, 'Server: x'))))
  const all = names.map((name, index) => at(name, upstreams[index]!.port, more))
  const spec = { upstreams: all, routes, retry: { maxRetries: 0 } }
  const proxy = await renderedProxy(spec, ends)
  return { proxy, upstreams, spec, client: proxy.connect() }
}

describe('routes', () => {
  it('send each request to the upstream of the first that matches, and the rest to the first upstream', async () => {
    const { client, proxy } = await setup([
      { match: { headers: [{ name: 'X-User-Region', in: ['IN'] }] }, to: [{ upstream: 'b' }] },
      { match: { path: { prefix: '/v1' }, methods: ['GET'] }, to: [{ upstream: 'c' }] },
      { match: { query: [{ name: 'q', in: ['ä b'] }] }, to: [{ upstream: 'b' }] },
      { match: { cookies: [{ name: 'beta', present: true }] }, to: [{ upstream: 'c' }] },
      { match: { path: { regex: '/users/[0-9]+' } }, to: [{ upstream: 'b' }] },
    ])
    const body = async () => (await client.response()).body
    client.get('/v1', 'x-user-region: IN')
    assert.equal(await body(), 'b')
    client.get('/v1/x')
    assert.equal(await body(), 'c')
    client.get('/v10')
    assert.equal(await body(), 'a')
    client.get('/?q=%C3%A4+b')
    assert.equal(await body(), 'b')
    client.get('/', 'Cookie: a=1', 'Cookie: beta=2')
    assert.equal(await body(), 'c')
    client.get('http://localhost/users/12?x')
    assert.equal(await body(), 'b')
    client.get('/users/x')
    assert.equal(await body(), 'a')
    const logged = (await proxy.logged(7)).map(({ upstream, route }) => [upstream, route ?? null])
    assert.deepEqual(logged, [
      ['b', 'routes[0]'],
      ['c', 'routes[1]'],
      ['a', null],
      ['b', 'routes[2]'],
      ['c', 'routes[3]'],
      ['b', 'routes[4]'],
      ['a', null],
    ])
  })

  it('share by weight, and keep a user on one side', async () => {
    const { proxy, upstreams } = await setup(
      [
        {
          to: [
            { upstream: 'a', weight: 95 },
            { upstream: 'b', weight: 5 },
          ],
          stickyOn: { header: 'X-User-Id' },
        },
      ],
      ['a', 'b'],
    )
    const sides = new Map<string, string>()
    for (let round = 0; round < 2; round++) {
      let client = proxy.connect()
      for (let user = 0; user < 500; user++) {
        // The client of these tests reads what it has again and again.
        if (user % 25 === 0) client = proxy.connect()
        client.get('/', `X-User-Id: user-${user}`)
        const { body } = await client.response()
        assert.equal(sides.get(`${user}`) ?? body, body, `user ${user} changed sides`)
        sides.set(`${user}`, body)
      }
    }
    // 5 % of 500, with a standard deviation of 4.9.
    const beta = [...sides.values()].filter((side) => side === 'b').length
    assert.ok(beta > 5 && beta < 50, `${beta} of 500 users are on the side of 5 %`)
    assert.equal(upstreams[1]!.requests.length, 2 * beta)
  })

  it('change the path and the fields on the way there, and the fields on the way back', async () => {
    const { client, upstreams } = await setup([
      {
        match: { path: { prefix: '/api' } },
        to: [{ upstream: 'b' }],
        rewrite: { prefix: '/' },
        requestHeaders: {
          set: [{ name: 'X-Shard', value: 'bé' }],
          add: [{ name: 'Via', value: '1.1 x' }],
          remove: ['x-internal', 'Accept-Encoding'],
        },
        responseHeaders: { set: [{ name: 'Cache-Control', value: 'no-store' }], remove: ['SERVER'] },
      },
    ])
    client.get('/api/users?x=/api', 'X-SHARD: evil', 'Via: 1.0 y', 'X-Internal: 1', 'x-shard: evil', 'Accept: a')
    const response = await client.response()
    assert.deepEqual(response.fields, [
      ['Content-Length', '1'],
      ['Cache-Control', 'no-store'],
    ])
    const { head } = await upstreams[1]!.request(0)
    const [line, ...fields] = head.trimEnd().split('\r\n')
    assert.equal(line, 'GET /users?x=/api HTTP/1.1')
    assert.deepEqual(
      fields.filter((field) => !field.startsWith('X-Request-ID') && !field.startsWith('Host')),
      ['Via: 1.0 y', 'Accept: a', `X-Shard: ${Buffer.from('bé').toString('latin1')}`, 'Via: 1.1 x'],
    )
    // What comes after a request with changes is not touched by them.
    client.get('/other', 'X-Internal: 1')
    assert.equal((await client.response()).field('Server'), 'x')
    assert.match((await upstreams[0]!.request(0)).head, /\r\nX-Internal: 1\r\n/)
  })

  it('change a request that comes a byte at a time, or in HTTP/1.0, alike', async () => {
    const { client, upstreams } = await setup([
      { match: { path: { prefix: '/api' } }, to: [{ upstream: 'b' }], rewrite: { prefix: `/${'x'.repeat(900)}` } },
    ])
    for (const byte of 'POST /api HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi') {
      client.write(byte)
      await new Promise((resolve) => setImmediate(resolve))
    }
    assert.equal((await client.response()).body, 'b')
    const { target, body } = await upstreams[1]!.request(0)
    assert.deepEqual([target, body], [`/${'x'.repeat(900)}`, 'hi'])
    client.write('GET /api/y HTTP/1.0\r\n\r\n')
    assert.equal((await client.response()).body, 'b')
    assert.match((await upstreams[1]!.request(1)).head, /^GET \/x{900}\/y HTTP\/1\.1\r\nHost: /)
  })

  it('let a shard that is down fail its own requests only', async () => {
    const up = await scriptedUpstream(ends, () => ok('up'))
    const proxy = await renderedProxy(
      {
        upstreams: [
          at('world', up.port),
          at('india', await freePort(), { circuitBreaker: { consecutiveFailures: 1 } }),
        ],
        routes: [{ match: { headers: [{ name: 'X-Region', in: ['IN'] }] }, to: [{ upstream: 'india' }] }],
        retry: { maxRetries: 0 },
      },
      ends,
    )
    const client = proxy.connect()
    const reasons: (string | null)[] = []
    for (let i = 0; i < 3; i++) {
      const down = await client.get('/', 'X-Region: IN').response()
      reasons.push(down.field('X-Ambassador-Reason'))
      const fine = await client.get('/').response()
      assert.deepEqual([fine.status, fine.body], [200, 'up'])
    }
    assert.deepEqual(reasons, ['connect_refused', 'circuit_open', 'circuit_open'])
    assert.deepEqual(proxy.driver.answers, { 200: 3, 502: 1, 503: 2 })
  })

  it('override time-outs, retries and the rate limit for their own requests', async () => {
    let failures = 0
    const upstream = await scriptedUpstream(ends, ({ target }) => {
      if (target === '/slow') return null
      return target === '/flaky' && failures++ < 2 ? withStatus(503) : ok('a')
    })
    const proxy = await renderedProxy(
      {
        upstreams: [at('a', upstream.port)],
        retry: { maxRetries: 0 },
        routes: [
          { match: { path: { exact: '/slow' } }, to: [{ upstream: 'a' }], timeouts: { request: '100ms' } },
          {
            match: { path: { exact: '/flaky' } },
            to: [{ upstream: 'a' }],
            retry: { maxRetries: 2, on: ['503'], backoff: { initial: '1ms', max: '2ms' } },
          },
          {
            match: { path: { prefix: '/limited' } },
            to: [{ upstream: 'a' }],
            rateLimit: { requests: 1, per: '1h', burst: 1 },
          },
        ],
      },
      ends,
    )
    const client = proxy.connect()
    const slow = await client.get('/slow').response()
    assert.deepEqual([slow.status, slow.field('X-Ambassador-Reason')], [504, 'deadline'])
    assert.match(slow.body, /within 100 ms/)
    assert.equal((await client.get('/flaky').response()).status, 200)
    assert.equal(failures, 3)
    assert.equal((await client.get('/limited/1').response()).status, 200)
    assert.equal((await client.get('/limited/2').response()).field('X-Ambassador-Reason'), 'rate_limited')
    for (let i = 0; i < 3; i++) assert.equal((await client.get('/other').response()).status, 200)
  })

  it('keep a bucket that a changed config moves to another place', async () => {
    const { proxy, client, spec } = await setup([
      { match: { path: { exact: '/l' } }, to: [{ upstream: 'a' }], rateLimit: { requests: 1, per: '1h' } },
    ])
    assert.equal((await client.get('/l').response()).status, 200)
    proxy.update({ ...spec, routes: [{ match: { methods: ['PUT'] }, to: [{ upstream: 'b' }] }, ...spec.routes] })
    assert.equal((await client.get('/l').response()).status, 429)
  })

  it('take effect on a connection that is open', async () => {
    const { proxy, client, spec } = await setup([])
    assert.equal((await client.get('/').response()).body, 'a')
    proxy.update({ ...spec, routes: [{ to: [{ upstream: 'c' }] }] })
    assert.equal((await client.get('/').response()).body, 'c')
    proxy.update({ ...spec, routes: [] })
    assert.equal((await client.get('/').response()).body, 'a')
  })
})
