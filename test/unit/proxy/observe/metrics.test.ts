import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { HttpCells, MAX_STATUSES } from '../../../../proxy/observe/cells.ts'
import { Exposition } from '../../../../proxy/observe/exposition.ts'
import { MAX_ENDPOINTS, writeEndpoints } from '../../../../proxy/observe/metrics.ts'
import { Endpoint } from '../../../../proxy/upstream/endpoint.ts'

describe('the series of an upstream', () => {
  it('are bounded whatever statuses its server makes up, and nothing is lost', () => {
    const cells = new HttpCells()
    for (let round = 0; round < 2; round++) for (let status = 100; status < 1000; status++) cells.add(status, 1)
    const { statuses } = cells
    assert.equal(statuses.length, MAX_STATUSES + 1)
    assert.equal(statuses.at(-1)?.[0], 'overflow')
    assert.equal(
      statuses.reduce((sum, [, { count }]) => sum + count, 0),
      1800,
    )
    assert.equal(cells.byStatus[100]?.count, 2)
  })

  it('are bounded however many endpoints there are, and the worst of the others shows', () => {
    const endpoints = Array.from(
      { length: MAX_ENDPOINTS + 10 },
      (_, i) =>
        new Endpoint(
          { host: 'a', ip: `10.0.0.${i}`, port: 1, weight: 1, priority: 0 },
          { config: null, probeTimeoutMs: 1 },
        ),
    )
    const out = new Exposition()
    writeEndpoints(out, 'm', { upstream: 'live' }, endpoints, ({ ip }) => (ip === '10.0.0.70' ? 2 : 0))
    const lines = out.text().trimEnd().split('\n')
    assert.equal(lines.length, MAX_ENDPOINTS + 1)
    assert.equal(lines.at(-1), 'm{upstream="live",endpoint="overflow"} 2')
  })

  it('are none where no endpoint has a value', () => {
    const out = new Exposition()
    writeEndpoints(out, 'm', {}, [], () => null)
    assert.equal(out.text(), '\n')
  })
})
