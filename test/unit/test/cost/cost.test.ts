import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { type Cost, compare, costOf } from '../../../cost/cost.ts'
import { stepsOf } from '../../../cost/counters.ts'
import { weigh } from '../../../cost/weigh.ts'

/** As V8 tells how often a piece of a script ran. */
const range = (script: string, piece: string, count: number) => {
  const startOffset = script.indexOf(piece)
  assert.ok(startOffset >= 0, piece)
  return { startOffset, endOffset: startOffset + piece.length, count }
}

const stepsIn = (script: string): number => weigh(script).reduce((sum, { steps }) => sum + steps, 0)

describe('the weights of a script', () => {
  it('are those of what it does: operations, calls, and what it allocates', () => {
    assert.equal(stepsIn('let a = 1; const b = a'), 0)
    assert.equal(stepsIn('a = b + c.d'), 3)
    assert.equal(stepsIn('f(a)'), 10)
    assert.equal(stepsIn('`plain`'), 0)
    assert.equal(stepsIn('`${a}`'), 100)
    assert.equal(stepsIn('new A([])'), 90)
  })

  it('count the head of a loop each time its body runs', () => {
    const script = 'function f(n) { for (let i = 0; i < n; i++) { g(i) } }'
    const counted = [
      {
        functionName: 'f',
        isBlockCoverage: true,
        ranges: [range(script, script, 2), range(script, '{ g(i) }', 20)],
      },
    ]
    // A comparison, an increment and a call.
    assert.deepEqual(stepsOf(counted, weigh(script)), [20 * 12])
  })

  it('belong to the innermost function and to the innermost block of it', () => {
    const script = 'function f(a) { if (a) { g(a) } return () => a.b }'
    const counted = [
      { functionName: 'f', isBlockCoverage: true, ranges: [range(script, script, 3), range(script, '{ g(a) }', 1)] },
      { functionName: '', isBlockCoverage: true, ranges: [range(script, '() => a.b', 7)] },
    ]
    // Three times the condition and the closure, once the call; seven times what the closure does.
    assert.deepEqual(stepsOf(counted, weigh(script)), [3 * 31 + 10, 7])
  })

  it('make no closure of a method', () => {
    assert.equal(stepsIn('class A { f() { return this.a } }'), 1)
  })
})

const cost = (change: Partial<Cost> = {}): Cost => ({
  steps: 10_000,
  calls: 100,
  nodeCalls: 100,
  reads: 4,
  writes: 4,
  turns: 4,
  functions: { 'a.ts f': [1, 5000], 'b.ts g': [1, 5000] },
  ...change,
})

describe('the comparison of costs', () => {
  it('says nothing of what is within bounds', () => {
    assert.deepEqual(compare(cost({ steps: 10_080, calls: 105, nodeCalls: 90, reads: 4.04, turns: 3.92 }), cost()), [])
  })

  it('names the figure that rose by more, and the functions that do more', () => {
    const more = cost({ steps: 10_151, functions: { 'a.ts f': [1, 5000], 'b.ts g': [1, 5100], 'c.ts h': [2, 51] } })
    assert.deepEqual(compare(more, cost()), [
      'steps: 10151 in place of 10000 (+1.5 %)',
      '  b.ts g: 1 calls, 5100 steps in place of 1, 5000',
      '  c.ts h: 2 calls, 51 steps in place of 0, 0',
    ])
  })

  it('names what fell so far that it should be written down', () => {
    assert.equal(compare(cost({ steps: 9839 }), cost())[0], 'steps: 9839 in place of 10000 (-1.6 %)')
    assert.deepEqual(compare(cost({ calls: 89 }), cost()), ['calls: 89 in place of 100 (-11 %)'])
  })

  it('names a read, a write or a turn that one request in ten has', () => {
    assert.deepEqual(compare(cost({ writes: 4.1 }), cost()), ['writes: 4.1 in place of 4 (+2.5 %)'])
  })

  it('leaves out what a machine cannot count', () => {
    const counts = { nodeCalls: 0, reads: Number.NaN, writes: Number.NaN, turns: 0, functions: new Map() }
    assert.equal(costOf(counts, 10).reads, null)
    assert.deepEqual(compare(cost({ reads: null }), cost()), [])
  })
})

describe('the cost of one request', () => {
  it('is the share of it in the sum, and leaves out functions that seldom run', () => {
    const functions = new Map([
      ['a.ts f', { calls: 200, steps: 2000 }],
      ['a.ts g', { calls: 9, steps: 90 }],
    ])
    assert.deepEqual(costOf({ functions, nodeCalls: 300, reads: 401, writes: 400, turns: 200 }, 100), {
      steps: 20.9,
      calls: 2.09,
      nodeCalls: 3,
      reads: 4.01,
      writes: 4,
      turns: 2,
      functions: { 'a.ts f': [2, 20] },
    })
  })
})
