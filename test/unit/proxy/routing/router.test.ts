import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { RouteConfig } from '../../../../common/proxy-config.ts'
import { cookieOf, hashShare, type RequestView, Router, rewritten } from '../../../../proxy/routing/router.ts'
import { routeConfig } from '../../../helpers/routes.ts'

type Route = Partial<Omit<RouteConfig, 'match'>> & { match?: Partial<RouteConfig['match']> }
const route = ({ match, ...over }: Route = {}): RouteConfig => routeConfig(match, over)

const view = (target: string, headers: Record<string, string> = {}, method = 'GET'): RequestView => ({
  method: () => method,
  target: () => target,
  header: (name) => headers[name] ?? null,
})

const named = (routes: RouteConfig[]) => new Router(routes, (cluster) => cluster)
const to = (routes: RouteConfig[], request: RequestView, random = () => 0) =>
  named(routes).route(request)?.pick(request, random) ?? 'first upstream'

describe('the routes of an Ambassador', () => {
  it('are tried in order, and the first match wins', () => {
    const routes = [
      route({ match: { path: { kind: 'prefix', value: '/v1' } }, to: [{ cluster: 'v1', weight: 1 }] }),
      route({ to: [{ cluster: 'rest', weight: 1 }] }),
    ]
    assert.equal(to(routes, view('/v1/charges')), 'v1')
    assert.equal(to(routes, view('/v2')), 'rest')
  })

  it('leave a request that none matches to the first upstream', () => {
    assert.equal(to([route({ match: { methods: ['POST'] } })], view('/')), 'first upstream')
  })

  const paths: [RouteConfig['match']['path'], string, boolean][] = [
    [{ kind: 'exact', value: '/a' }, '/a', true],
    [{ kind: 'exact', value: '/a' }, '/a?b=c', true],
    [{ kind: 'exact', value: '/a' }, '/a/', false],
    [{ kind: 'prefix', value: '/api' }, '/api', true],
    [{ kind: 'prefix', value: '/api' }, '/api/v1', true],
    [{ kind: 'prefix', value: '/api' }, '/api?x', true],
    [{ kind: 'prefix', value: '/api' }, '/apis', false],
    [{ kind: 'prefix', value: '/api/' }, '/api/v1', true],
    [{ kind: 'prefix', value: '/' }, '/anything', true],
    [{ kind: 'regex', value: '/users/[0-9]+' }, '/users/12', true],
    [{ kind: 'regex', value: '/users/[0-9]+' }, '/users/12/x', false],
    [{ kind: 'regex', value: 'a|b' }, '/a', false],
    // Nothing is decoded or normalized.
    [{ kind: 'prefix', value: '/admin' }, '/x/../admin', false],
    [{ kind: 'exact', value: '/a b' }, '/a%20b', false],
  ]
  for (const [path, target, matches] of paths) {
    it(`with path ${path?.kind} ${path?.value} ${matches ? 'match' : 'do not match'} ${target}`, () => {
      assert.equal(to([route({ match: { path } })], view(target)), matches ? 'a' : 'first upstream')
    })
  }

  it('match values of header fields, query parameters and cookies', () => {
    const routes = [
      route({
        match: {
          headers: [{ name: 'x-user-region', kind: 'in', values: ['IN', 'LK'] }],
          query: [{ name: 'beta', kind: 'present', present: true }],
          cookies: [{ name: 'plan', kind: 'prefix', value: 'gold' }],
        },
      }),
    ]
    const all = { 'x-user-region': 'IN', cookie: 'a=b; plan=gold-2' }
    assert.equal(to(routes, view('/?beta', all)), 'a')
    assert.equal(to(routes, view('/', all)), 'first upstream')
    assert.equal(to(routes, view('/?beta', { ...all, 'x-user-region': 'US' })), 'first upstream')
    assert.equal(to(routes, view('/?beta', { ...all, cookie: 'xplan=gold' })), 'first upstream')
  })

  it('match the absence of a header field', () => {
    const routes = [route({ match: { headers: [{ name: 'x-debug', kind: 'present', present: false }] } })]
    assert.equal(to(routes, view('/')), 'a')
    assert.equal(to(routes, view('/', { 'x-debug': '' })), 'first upstream')
  })

  it('share requests by weight', () => {
    const routes = [
      route({
        to: [
          { cluster: 'world', weight: 95 },
          { cluster: 'beta', weight: 5 },
        ],
      }),
    ]
    const n = 10_000
    let beta = 0
    for (let i = 0; i < n; i++) if (to(routes, view('/'), () => i / n) === 'beta') beta++
    assert.equal(beta, 500)
  })

  it('never use an upstream of weight 0', () => {
    const routes = [
      route({
        to: [
          { cluster: 'on', weight: 1 },
          { cluster: 'off', weight: 0 },
        ],
      }),
    ]
    fc.assert(
      fc.property(
        fc.double({ min: 0, max: 1, maxExcluded: true, noNaN: true }),
        (r) => to(routes, view('/'), () => r) === 'on',
      ),
    )
  })

  it('give the same user always the same side, and move only the users that a changed weight moves', () => {
    const routes = (beta: number) => [
      route({
        to: [
          { cluster: 'world', weight: 100 - beta },
          { cluster: 'beta', weight: beta },
        ],
        stickyOn: { kind: 'header', name: 'x-user-id' },
      }),
    ]
    let at5 = 0
    let at10 = 0
    for (let user = 0; user < 20_000; user++) {
      const request = view('/', { 'x-user-id': `user-${user}` })
      const side = to(routes(5), request, Math.random)
      assert.equal(to(routes(5), request, Math.random), side)
      const later = to(routes(10), request, Math.random)
      if (side === 'beta') assert.equal(later, 'beta', `user-${user} fell back`)
      if (side === 'beta') at5++
      if (later === 'beta') at10++
    }
    assert.ok(Math.abs(at5 - 1000) < 130, `${at5} of 20000 at 5 %`)
    assert.ok(Math.abs(at10 - 2000) < 180, `${at10} of 20000 at 10 %`)
  })

  it('may replace the prefix of the path and leave the query', () => {
    assert.equal(rewritten('/api/users?x=1', { from: '/api', to: '/v2' }), '/v2/users?x=1')
    assert.equal(rewritten('/api/users', { from: '/api', to: '/' }), '/users')
    assert.equal(rewritten('/api', { from: '/api', to: '/' }), '/')
    assert.equal(rewritten('/api?x', { from: '/api', to: '/' }), '/?x')
    assert.equal(rewritten('/users', { from: '/', to: '/base' }), '/base/users')
    assert.equal(rewritten('/api/users', { from: '/api/', to: '/v2' }), '/v2/users')
  })
})

describe('a pattern', () => {
  it('that would backtrack for ever is run in linear time', () => {
    // V8 begins with its backtracking engine; without the linear one this takes hours.
    const routes = [route({ match: { headers: [{ name: 'x', kind: 'regex', value: '(a+)+b' }] } })]
    assert.equal(to(routes, view('/', { x: `${'a'.repeat(60)}c` })), 'first upstream')
    assert.equal(to(routes, view('/', { x: `${'a'.repeat(60)}b` })), 'a')
  })
})

describe('a cookie', () => {
  it('is found by its whole name', () => {
    assert.equal(cookieOf('a=1; bb=2; b=3', 'b'), '3')
    assert.equal(cookieOf('a="x=y"', 'a'), '"x=y"')
    assert.equal(cookieOf('a', 'a'), null)
    assert.equal(cookieOf(null, 'a'), null)
  })
})

describe('the hash of a value', () => {
  it('is a share of at least 0 and below 1', () => {
    fc.assert(
      fc.property(fc.string(), (text) => {
        const share = hashShare(text)
        return share >= 0 && share < 1
      }),
    )
  })
})
