import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { ProxyConfig, RouteConfig } from '../../../../common/proxy-config.ts'
import { checkRoutes } from '../../../../proxy/config/routes.ts'

const NONE = { set: [], add: [], remove: [] }
const check = (over: Partial<RouteConfig>) => {
  const route: RouteConfig = {
    match: { methods: null, path: null, headers: [], query: [], cookies: [] },
    to: [{ cluster: 'a', weight: 1 }],
    stickyOn: null,
    rewritePrefix: null,
    requestHeaders: NONE,
    responseHeaders: NONE,
    timeouts: null,
    retry: null,
    rateLimit: null,
    ...over,
  }
  checkRoutes({ clusters: [{ name: 'a' }, { name: 'b' }], routes: [route] } as unknown as ProxyConfig)
}

describe('the routes of a config that somebody wrote', () => {
  it('are taken when they are in order', () => {
    check({ rewritePrefix: '/v1', requestHeaders: { ...NONE, add: [{ name: 'X-A', value: 'ä\tb' }] } })
  })

  it('are refused when they lead nowhere', () => {
    assert.throws(() => check({ to: [{ cluster: 'x', weight: 1 }] }), {
      message: "config: routes.0: cluster 'x' does not exist, use one of a, b",
    })
  })

  it('are refused with a pattern that does not compile', () => {
    const match = { methods: null, path: { kind: 'regex' as const, value: '(' }, headers: [], query: [], cookies: [] }
    assert.throws(() => check({ match }), /^Error: config: routes\.0: .*regular expression/)
  })

  for (const [what, changes] of [
    ['a line break in a value', { ...NONE, set: [{ name: 'X-A', value: 'a\r\nX-Evil: b' }] }],
    ['a line feed in a value', { ...NONE, add: [{ name: 'X-A', value: 'a\nb' }] }],
    ['a line break in a name', { ...NONE, set: [{ name: 'X-A: b\r\nX-Evil', value: 'b' }] }],
    ['a space in a name', { ...NONE, remove: ['X A'] }],
    ['an empty name', { ...NONE, add: [{ name: '', value: 'b' }] }],
  ] as [string, RouteConfig['requestHeaders']][]) {
    it(`are refused with ${what}`, () => {
      assert.throws(() => check({ requestHeaders: changes }), /^Error: config: routes\.0: /)
      assert.throws(() => check({ responseHeaders: changes }), /^Error: config: routes\.0: /)
    })
  }

  it('are refused with a rewritten path that would end the request line', () => {
    assert.throws(() => check({ rewritePrefix: '/ HTTP/1.1\r\nHost: evil' }), /rewritePrefix is not a path/)
  })
})
