import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Exposition, formatFor } from '../../../../proxy/observe/exposition.ts'

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

  it('writes OpenMetrics with the examples of buckets, when it is told to', () => {
    const out = new Exposition('OpenMetrics')
    out.metric('a_total', 'counter', 'Says "a".')
    out.sample('a_total', {}, 1)
    out.metric('g_total', 'gauge', 'G.')
    out.sample('g_total', {}, 2)
    const exemplars = [null, { traceId: '0af7651916cd43dd8448eb211c80319c', value: 0.25, at: 1520879607.7894 }, null]
    out.histogram('h', { s: '200' }, [0.1, 1], { counts: [2, 3, 4], sum: 9.5, exemplars })
    assert.equal(
      out.text(),
      [
        '# HELP a Says \\"a\\".',
        '# TYPE a counter',
        'a_total 1',
        '# HELP g_total G.',
        '# TYPE g_total gauge',
        'g_total 2',
        'h_bucket{s="200",le="0.1"} 2',
        'h_bucket{s="200",le="1.0"} 5 # {trace_id="0af7651916cd43dd8448eb211c80319c"} 0.25 1520879607.789',
        'h_bucket{s="200",le="+Inf"} 9',
        'h_sum{s="200"} 9.5',
        'h_count{s="200"} 9',
        '# EOF',
        '',
      ].join('\n'),
    )
    const plain = new Exposition()
    plain.histogram('h', {}, [0.1, 1], { counts: [2, 3, 4], sum: 9.5, exemplars })
    assert.doesNotMatch(plain.text(), /trace_id|EOF/)
  })
})

describe('the format of the metrics', () => {
  for (const [accept, format] of [
    ['', 'Prometheus'],
    ['*/*', 'Prometheus'],
    ['text/html, */*;q=0.8', 'Prometheus'],
    ['text/plain;version=0.0.4', 'Prometheus'],
    ['application/openmetrics-text;q=0', 'Prometheus'],
    ['application/openmetrics-text;q=x', 'Prometheus'],
    ['application/openmetrics-text;q=0.2, text/plain;q=0.5', 'Prometheus'],
    ['application/openmetrics-text', 'OpenMetrics'],
    ['Application/OpenMetrics-Text; version=1.0.0; charset=utf-8', 'OpenMetrics'],
    [
      'application/openmetrics-text;version=0.0.1;q=0.4,application/openmetrics-text;q=0.5,text/plain;q=0.5',
      'OpenMetrics',
    ],
    // What Prometheus sends.
    [
      'application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,text/plain;version=0.0.4;q=0.2,*/*;q=0.1',
      'OpenMetrics',
    ],
  ] as const) {
    it(`is ${format} for '${accept}'`, () => assert.equal(formatFor(accept), format))
  }
})
