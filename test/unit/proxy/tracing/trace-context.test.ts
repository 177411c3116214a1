import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Trace } from '../../../../proxy/tracing/trace-context.ts'

const TRACE = '0af7651916cd43dd8448eb211c80319c'
const PARENT = 'b7ad6b7169203331'

function take(field: string | null, ratio = 0): Trace {
  const trace = new Trace()
  const bytes = Buffer.from(`xx${field ?? ''}yy`, 'latin1')
  trace.begin(bytes, field === null ? -1 : 2, field === null ? -1 : bytes.length - 2, ratio)
  return trace
}

const sent = (trace: Trace) => trace.field.toString('latin1')

describe('the trace of a request', () => {
  it('goes on with a span id of ours', () => {
    const trace = take(`00-${TRACE}-${PARENT}-01`)
    assert.ok(trace.hasParent)
    assert.equal(trace.traceId, TRACE)
    assert.equal(trace.parentId, PARENT)
    assert.equal(trace.isSampled, true)
    assert.equal(sent(trace), `00-${TRACE}-${trace.spanId}-01`)
    assert.match(trace.spanId, /^[0-9a-f]{16}$/)
    assert.notEqual(trace.spanId, PARENT)
  })

  it('is sampled when the caller says so, whatever the ratio is', () => {
    assert.equal(take(`00-${TRACE}-${PARENT}-00`, 1).isSampled, false)
    assert.equal(take(`00-${TRACE}-${PARENT}-01`, 0).isSampled, true)
    assert.equal(sent(take(`00-${TRACE}-${PARENT}-00`, 1)).slice(-3), '-00')
  })

  it('keeps the flag of a random trace id, and no flag that nobody knows', () => {
    assert.equal(sent(take(`00-${TRACE}-${PARENT}-03`)).slice(-3), '-03')
    assert.equal(sent(take(`00-${TRACE}-${PARENT}-ff`)).slice(-3), '-03')
    assert.equal(sent(take(`00-${TRACE}-${PARENT}-fc`)).slice(-3), '-00')
  })

  it('of a later version is read by its first four fields and written as version 00', () => {
    for (const field of [`01-${TRACE}-${PARENT}-01-more`, `cc-${TRACE}-${PARENT}-01`, `fe-${TRACE}-${PARENT}-01-`]) {
      const trace = take(field)
      assert.equal(trace.traceId, TRACE, field)
      assert.equal(sent(trace), `00-${TRACE}-${trace.spanId}-01`)
    }
  })

  const malformed = [
    null,
    '',
    '00',
    `ff-${TRACE}-${PARENT}-01`,
    `00-${'0'.repeat(32)}-${PARENT}-01`,
    `00-${TRACE}-${'0'.repeat(16)}-01`,
    `00-${TRACE.toUpperCase()}-${PARENT}-01`,
    `00-${TRACE}-${PARENT.toUpperCase()}-01`,
    `00-${TRACE}-${PARENT}-0A`,
    `0A-${TRACE}-${PARENT}-01`,
    `00-${TRACE}-${PARENT}-01-more`,
    `00-${TRACE}-${PARENT}-01-`,
    `01-${TRACE}-${PARENT}-01.more`,
    `00-${TRACE}-${PARENT}`,
    `00-${TRACE}-${PARENT}-0`,
    `00_${TRACE}-${PARENT}-01`,
    `00-${TRACE}_${PARENT}-01`,
    `00-${TRACE}-${PARENT}_01`,
    `00-${TRACE.slice(1)}g-${PARENT}-01`,
    `00-${TRACE}-${PARENT.slice(1)}\x80-01`,
    ` 00-${TRACE}-${PARENT}-01`,
    `00-${TRACE}-${PARENT}-01, 00-${TRACE}-${PARENT}-01`,
    'x'.repeat(5000),
  ]
  for (const field of malformed) {
    it(`begins here when the field is ${JSON.stringify(field)?.slice(0, 70)}`, () => {
      const trace = take(field)
      assert.equal(trace.hasParent, false)
      assert.equal(trace.parentId, null)
      assert.match(sent(trace), /^00-(?!0{32})[0-9a-f]{32}-(?!0{16})[0-9a-f]{16}-00$/)
      assert.notEqual(trace.traceId, TRACE)
      assert.match(sent(take(field, 1)), /-01$/)
    })
  }

  it('is sampled in the share that is asked for', () => {
    let sampled = 0
    for (let i = 0; i < 20_000; i++) if (take(null, 0.25).isSampled) sampled++
    // Ten standard deviations.
    assert.ok(sampled > 4400 && sampled < 5600, String(sampled))
  })

  it('has ids of its own each time', () => {
    const ids = new Set<string>()
    for (let i = 0; i < 2000; i++) {
      const { traceId, spanId } = take(null)
      ids.add(traceId).add(spanId)
    }
    assert.equal(ids.size, 4000)
  })

  const state = (text: string) => {
    const trace = take(`00-${TRACE}-${PARENT}-01`)
    trace.takeState(Buffer.from(text, 'latin1'), 0, text.length)
    return trace.state
  }

  it('has the caller’s state when that is well-formed', () => {
    for (const text of [
      'a=1',
      'congo=t61rcWkgMzE,rojo=00f067aa0ba902b7',
      'fw529a3039@dt=x y',
      'a=1 , b=2',
      'a=1,,b=2',
      'a_-*/0=~',
    ]) {
      assert.equal(state(text), text)
    }
  })

  it('has no state when a member is malformed or repeated, or there are too many', () => {
    const many = Array.from({ length: 33 }, (_, i) => `k${i}=1`).join(',')
    for (const text of [
      '',
      ' ',
      ',',
      'a',
      'a=',
      'A=1',
      '=1',
      'a=1=2',
      'a=1;b',
      'a=\x7f',
      'a=1,a=2',
      '1a=x',
      'a@=1',
      many,
    ]) {
      if (text === 'a=1;b') assert.equal(state(text), text, 'a semicolon is a character of a value')
      else assert.equal(state(text), null, text)
    }
    assert.equal(state(`a=${'x'.repeat(3000)}`), null)
  })
})
