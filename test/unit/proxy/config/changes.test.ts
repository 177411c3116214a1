import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { AmbassadorSpec } from '../../../../operator/api/ambassador.ts'
import { render } from '../../../../operator/render/render.ts'
import { changesText } from '../../../../proxy/config/changes.ts'

const live = { name: 'live', endpoints: [{ host: 'a', port: 80 }] }
const beta = { name: 'beta', endpoints: [{ host: 'b', port: 80 }] }

function config(more: Partial<AmbassadorSpec>, generation = 1) {
  const spec = { protocol: 'HTTP', listen: { port: 8081 }, upstreams: [live, beta], ...more } as AmbassadorSpec
  const { config, problems } = render({
    ambassador: { apiVersion: 'a', kind: 'b', metadata: { name: 'test', generation }, spec },
  })
  assert.ok(config !== null, JSON.stringify(problems))
  return config
}

/** What is said of a change from one spec to another. */
function said(before: Partial<AmbassadorSpec>, after: Partial<AmbassadorSpec>): string {
  return changesText(config(before), config(after, 2))
}

describe('the changes of a config', () => {
  it('are none between two generations that say the same', () => {
    assert.equal(said({}, {}), '')
  })

  it('are the fields that differ, with items of lists called by their names', () => {
    assert.equal(said({}, { timeouts: { request: '3s' } }), 'timeouts.requestMs')
    assert.equal(
      said({}, { upstreams: [{ ...live, limits: { maxConnections: 7 } }, beta], accessLog: { mode: 'All' } }),
      'clusters.live.limits.maxConnections, accessLog.mode',
    )
    assert.equal(
      said({}, { upstreams: [{ ...live, endpoints: [{ host: 'a', port: 81 }] }, beta] }),
      'clusters.live.discovery.endpoints.0.port',
    )
  })

  it('are whole parts where these come or go, and nothing of what is in them', () => {
    const auth = { bearer: { secretKeyRef: { name: 'hidden', key: 'token' } } }
    assert.equal(said({}, { upstreams: [{ ...live, auth }, beta] }), 'clusters.live.auth')
    assert.equal(said({}, { upstreams: [live] }), 'clusters.beta')
    assert.equal(said({ rateLimit: { requests: 1, per: '1s' } }, {}), 'rateLimit')
    assert.equal(said({}, { routes: [{ match: {}, to: [{ upstream: 'beta' }] }] }), 'routes.0')
  })

  it('are seen where only the order is another one', () => {
    assert.equal(said({}, { upstreams: [beta, live] }), 'clusters')
  })

  it('are a line of a bounded length', () => {
    const upstreams = Array.from({ length: 16 }, (_, i) => ({ ...live, name: `u${i}` }))
    const after = upstreams.map((each) => ({ ...each, limits: { maxConnections: 5 } }))
    const text = said({ upstreams }, { upstreams: after })
    assert.equal(text.split(', ').length, 12)
    assert.match(text, /^clusters\.u0\.limits\.maxConnections, .* and 4 more$/)
  })
})
