import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { AmbassadorSpec } from '../../../../operator/api/ambassador.ts'
import { podsSummary, upstreamSummary, versionSummary } from '../../../../operator/api/summary.ts'

const spec = (...upstreams: object[]) => ({ upstreams }) as unknown as AmbassadorSpec

describe('the texts of kubectl get', () => {
  it('tell the first endpoint and how many more there are', () => {
    assert.equal(upstreamSummary(spec({ endpoints: [{ host: 'a', port: 1 }] })), 'a:1')
    assert.equal(
      upstreamSummary(
        spec({
          endpoints: [
            { host: 'a', port: 1 },
            { host: 'b', port: 2 },
          ],
        }),
      ),
      'a:1 +1',
    )
    assert.equal(upstreamSummary(spec({ dns: { hostname: 'a', port: 1 } }, { dns: { hostname: 'b', port: 1 } })), 'a:1')
    assert.equal(upstreamSummary(spec({ endpoints: [{ host: '::1', port: 1 }] })), '[::1]:1')
  })

  it('tell where the endpoints are kept when they are not in the spec', () => {
    assert.equal(upstreamSummary(spec({ srv: { name: '_db._tcp.a' } })), '_db._tcp.a')
    assert.equal(upstreamSummary(spec({ file: { configMapKeyRef: { name: 'a', key: 'b' } } })), 'configmap/a:b')
  })

  it('fit their field', () => {
    assert.equal(upstreamSummary(spec({ endpoints: [{ host: 'a'.repeat(253), port: 65535 }] })).length, 256)
  })

  it('are empty for what is no spec', () => {
    for (const value of [undefined, {}, spec(), spec({}), { upstreams: 'x' }]) {
      assert.equal(upstreamSummary(value as AmbassadorSpec), '')
    }
  })

  it('tell the tags of the images, each once', () => {
    assert.equal(versionSummary(['r.io:5000/p:1.2', 'x/p:1.2', 'p:1.1']), '1.1,1.2')
    assert.equal(versionSummary(['p:1.2@sha256:abc', 'r.io:5000/p']), '1.2,r.io:5000/p')
    assert.equal(podsSummary(1, 2), '1/2')
  })
})
