import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { RouteConfig, ValueMatchConfig } from '../../../../common/proxy-config.ts'
import { type RequestView, Router, rewritten } from '../../../../proxy/routing/router.ts'
import { routeConfig as route } from '../../../helpers/routes.ts'

/** Every edge of matching and rewriting in one table each, as a reader of the Gateway API would ask for them. */

const view = (target: string, headers: Readonly<Record<string, string>> = {}): RequestView => ({
  method: () => 'GET',
  target: () => target,
  header: (name) => headers[name] ?? null,
})

const matches = (match: Partial<RouteConfig['match']>, request: RequestView): boolean =>
  new Router([route(match)], (cluster) => cluster).route(request) !== null

describe('a path prefix', () => {
  const table: [prefix: string, target: string, isMatch: boolean][] = [
    ['/api', '/api', true],
    ['/api', '/api/', true],
    ['/api', '/api/v1', true],
    ['/api', '/api//v1', true],
    ['/api', '/api?v=1', true],
    ['/api', '/api/?v=1', true],
    ['/api', '/apis', false],
    ['/api', '/API', false],
    ['/api', '//api', false],
    ['/api', '/', false],
    ['/api', '/?/api', false],
    ['/api', '/x/api', false],
    // A slash that is written %2F is no slash: it belongs to its segment.
    ['/api', '/api%2Fv1', false],
    ['/api', '/api%2fv1', false],
    ['/api%2Fv1', '/api%2Fv1/x', true],
    ['/api%2Fv1', '/api/v1/x', false],
    ['/api', '/%61pi', false],
    ['/api', '/api;v=1', false],
    // Dot segments are segments like others.
    ['/api', '/api/../admin', true],
    ['/admin', '/api/../admin', false],
    ['/api', '/./api', false],
    // A slash at the end of the prefix makes no difference.
    ['/api/', '/api', true],
    ['/api/', '/api?v=1', true],
    ['/api/', '/api/v1', true],
    ['/api/', '/apis', false],
    ['/', '/', true],
    ['/', '/?x', true],
    ['/', '//x', true],
    ['/', '*', false],
  ]
  for (const [prefix, target, isMatch] of table) {
    it(`${prefix} ${isMatch ? 'matches' : 'does not match'} ${target}`, () => {
      assert.equal(matches({ path: { kind: 'prefix', value: prefix } }, view(target)), isMatch)
    })
  }
})

describe('an exact path or a pattern', () => {
  const table: [kind: 'exact' | 'regex', value: string, target: string, isMatch: boolean][] = [
    ['exact', '/a', '/a', true],
    ['exact', '/a', '/a?', true],
    ['exact', '/a', '/a/', false],
    ['exact', '/a/', '/a', false],
    ['exact', '/a', '/A', false],
    ['exact', '/a%2Fb', '/a%2Fb', true],
    ['exact', '/a%2Fb', '/a%2fb', false],
    ['exact', '/a%2Fb', '/a/b', false],
    ['exact', '/a', '//a', false],
    ['exact', '/a', '/./a', false],
    ['regex', '/a', '/ab', false],
    ['regex', '/a|/b', '/b', true],
    ['regex', '/a|/b', '/bc', false],
    ['regex', '/[^/]+', '/a/b', false],
    ['regex', '/[^/]+', '/a%2Fb', true],
    ['regex', '/.*', '/a?b', true],
    ['regex', '.*b', '/a?b', false],
    ['regex', '/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', '/0189f2a4-1111-7222-8333-0123456789ab', true],
    ['regex', '/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}', '/0189f2a4-1111-7222-8333-0123456789a', false],
    ['regex', '/[a-z]{2,40}x', '/abcx', true],
    ['regex', '/[a-z]{2,40}x', '/x', false],
    ['regex', '/(v[0-9]{1,20}/){2}.{0,30}', '/v1/v22/rest', true],
    ['regex', '/(v[0-9]{1,20}/){2}.{0,30}', '/v1/rest', false],
    ['regex', '/a{17,}', `/${'a'.repeat(40)}`, true],
    ['regex', '/a{17,}', `/${'a'.repeat(16)}`, false],
  ]
  for (const [kind, value, target, isMatch] of table) {
    it(`${kind} ${value} ${isMatch ? 'matches' : 'does not match'} ${target}`, () => {
      assert.equal(matches({ path: { kind, value } }, view(target)), isMatch)
    })
  }
})

describe('a value match', () => {
  const is = (value: string): ValueMatchConfig => ({ name: 'k', kind: 'in', values: [value] })
  const isThere: ValueMatchConfig = { name: 'k', kind: 'present', present: true }
  const query: [match: ValueMatchConfig, target: string, isMatch: boolean][] = [
    [is('v'), '/?k=v', true],
    [is('v'), '/?k=v&k=w', true],
    [is('w'), '/?k=v&k=w', false],
    [is('a b'), '/?k=a+b', true],
    [is('a b'), '/?k=a%20b', true],
    [is('ä'), '/?k=%C3%A4', true],
    [is('a&b'), '/?k=a%26b', true],
    [is(''), '/?k', true],
    [is(''), '/?k=', true],
    [is('a=b'), '/?k=a=b', true],
    [is('v'), '/?%6B=v', true],
    [is('v'), '/?K=v', false],
    [is('v?k=w'), '/?k=v?k=w', true],
    [isThere, '/', false],
    [isThere, '/?', false],
    [isThere, '/?xk=1', false],
    [isThere, '/?&&k', true],
    [is('%zz'), '/?k=%zz', true],
    [is('v'), '/??k=v', false],
    [is('v'), '/??x&k=v', true],
    [{ ...isThere, present: false }, '/?other', true],
  ]
  for (const [match, target, isMatch] of query) {
    it(`of a query parameter: ${JSON.stringify(match)} ${isMatch ? 'holds' : 'does not hold'} for ${target}`, () => {
      assert.equal(matches({ query: [match] }, view(target)), isMatch)
    })
  }
  // Several fields of one name are one list (RFC 9110 section 5.3), several Cookie fields one string (RFC 9113 section 8.2.3).
  const cookies: [match: ValueMatchConfig, cookie: string, isMatch: boolean][] = [
    [is('v'), 'k=v', true],
    [is('v'), 'a=b;k=v', true],
    [is('v'), 'a=b; k = v ', true],
    [is('v'), 'k=v; k=w', true],
    [is('w'), 'k=v; k=w', false],
    [is('v'), 'K=v', false],
    [is('v'), 'xk=v', false],
    [is('"v"'), 'k="v"', true],
    [is('v=w'), 'k=v=w', true],
    [is('%20'), 'k=%20', true],
    [isThere, 'k', false],
    [isThere, 'k=', true],
    [isThere, ';;=;', false],
  ]
  for (const [match, cookie, isMatch] of cookies) {
    it(`of a cookie: ${JSON.stringify(match)} ${isMatch ? 'holds' : 'does not hold'} for ${cookie}`, () => {
      assert.equal(matches({ cookies: [match] }, view('/', { cookie })), isMatch)
    })
  }
  const header: [match: ValueMatchConfig, value: string, isMatch: boolean][] = [
    [is('a, b'), 'a, b', true],
    [is('a'), 'a, b', false],
    [{ name: 'k', kind: 'prefix', value: 'a' }, 'a, b', true],
    [{ name: 'k', kind: 'regex', value: '.*\\bb' }, 'a, b', true],
    [{ name: 'k', kind: 'regex', value: 'b' }, 'a, b', false],
    [is(''), '', true],
    [isThere, '', true],
    [is('V'), 'v', false],
  ]
  for (const [match, value, isMatch] of header) {
    it(`of a header: ${JSON.stringify(match)} ${isMatch ? 'holds' : 'does not hold'} for '${value}'`, () => {
      assert.equal(matches({ headers: [match] }, view('/', { k: value })), isMatch)
    })
  }
})

describe('a rewritten prefix', () => {
  const table: [target: string, from: string, to: string, expected: string][] = [
    ['/foo/bar', '/foo', '/xyz', '/xyz/bar'],
    ['/foo/bar', '/foo', '/xyz/', '/xyz/bar'],
    ['/foo/bar', '/foo/', '/xyz', '/xyz/bar'],
    ['/foo/bar', '/foo/', '/xyz/', '/xyz/bar'],
    ['/foo', '/foo', '/xyz', '/xyz'],
    ['/foo', '/foo/', '/xyz', '/xyz'],
    ['/foo/', '/foo', '/xyz', '/xyz/'],
    ['/foo/', '/foo/', '/xyz', '/xyz/'],
    ['/foo', '/foo', '/xyz/', '/xyz/'],
    ['/foo/bar', '/foo', '/', '/bar'],
    ['/foo/', '/foo', '/', '/'],
    ['/foo', '/foo', '/', '/'],
    ['/foo?q=/foo', '/foo', '/xyz', '/xyz?q=/foo'],
    ['/foo?q', '/foo/', '/xyz', '/xyz?q'],
    ['/foo?q', '/foo', '/', '/?q'],
    ['/foo/?q', '/foo', '/xyz/', '/xyz/?q'],
    ['/bar', '/', '/xyz', '/xyz/bar'],
    ['/bar', '/', '/xyz/', '/xyz/bar'],
    ['/?q', '/', '/xyz', '/xyz?q'],
    ['/foo/../bar', '/foo', '/xyz', '/xyz/../bar'],
    ['/foo/a%2Fb', '/foo', '/xyz', '/xyz/a%2Fb'],
    ['/foo//bar', '/foo', '/xyz', '/xyz//bar'],
    ['//bar', '/', '/xyz', '/xyz//bar'],
    ['//bar', '/', '/xyz/', '/xyz//bar'],
    // Never a path that begins with two slashes: to some servers that is the name of a host.
    ['/foo//bar', '/foo', '/', '/bar'],
    ['/foo///bar.example/x', '/foo', '/', '/bar.example/x'],
    ['//bar', '/', '/', '/bar'],
  ]
  for (const [target, from, to, expected] of table) {
    it(`${from} by ${to} makes ${expected} of ${target}`, () => {
      assert.equal(rewritten(target, { from, to }), expected)
    })
  }
})

describe('the choice of an upstream', () => {
  const weights = (...all: number[]) => all.map((weight, index) => ({ cluster: String(index), weight }))
  const pick = (over: Partial<RouteConfig>, random: number, headers = {}) => {
    const request = view('/', headers)
    return new Router([route({}, over)], (cluster) => cluster).route(request)?.pick(request, () => random)
  }

  it('never falls on a weight of 0, wherever it stands', () => {
    for (const to of [weights(0, 1, 0), weights(0, 0, 1), weights(1, 0, 0)]) {
      const only = String(to.findIndex(({ weight }) => weight > 0))
      for (const random of [0, 0.5, 1 - 2 ** -53]) assert.equal(pick({ to }, random), only)
    }
  })

  it('is by chance where what should stick is missing or empty', () => {
    const to = weights(1, 1)
    for (const stickyOn of [
      { kind: 'header', name: 'x-user' },
      { kind: 'cookie', name: 'user' },
    ] as const) {
      for (const headers of [{}, { 'x-user': '', cookie: 'user=' }, { cookie: 'other=1' }]) {
        assert.deepEqual(
          [0, 0.99].map((random) => pick({ to, stickyOn }, random, headers)),
          ['0', '1'],
        )
      }
    }
  })
})

describe('a pattern with large counts', () => {
  it('is run in bounded time too: beside one another they make a backtracking engine try every way to share', () => {
    const startedAt = performance.now()
    const value = 'a{0,200}a{0,200}a{0,200}a{0,200}b'
    assert.equal(matches({ path: { kind: 'regex', value: `/${value}` } }, view(`/${'a'.repeat(1000)}c`)), false)
    assert.equal(matches({ path: { kind: 'regex', value: `/${value}` } }, view(`/${'a'.repeat(800)}b`)), true)
    // With the backtracking engine alone it is more than a minute on a machine that has nothing else to do.
    assert.ok(performance.now() - startedAt < 20_000)
  })
})
