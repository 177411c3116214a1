import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Exposition } from '../../../../proxy/observe/exposition.ts'

describe('Exposition', () => {
  it('writes the text format, with every label value escaped', () => {
    const out = new Exposition()
    out.metric('a_total', 'counter', 'Counts\nthings, with a \\.')
    out.sample('a_total', {}, 1)
    out.sample('a_total', { name: 'x', n: 5 }, 0.25)
    out.sample('a_total', { name: 'q"b\\n\n' }, Number.POSITIVE_INFINITY)
    assert.equal(
      out.text(),
      [
        '# HELP a_total Counts\\nthings, with a \\\\.',
        '# TYPE a_total counter',
        'a_total 1',
        'a_total{name="x",n="5"} 0.25',
        'a_total{name="q\\"b\\\\n\\n"} +Inf',
        '',
      ].join('\n'),
    )
  })

  it('writes the buckets of a histogram cumulated, as the format wants them', () => {
    const out = new Exposition()
    out.histogram('h', { s: '200' }, [0.1, 1], { counts: [2, 3, 4], sum: 9.5 })
    assert.equal(
      out.text(),
      [
        'h_bucket{s="200",le="0.1"} 2',
        'h_bucket{s="200",le="1"} 5',
        'h_bucket{s="200",le="+Inf"} 9',
        'h_sum{s="200"} 9.5',
        'h_count{s="200"} 9',
        '',
      ].join('\n'),
    )
  })
})
