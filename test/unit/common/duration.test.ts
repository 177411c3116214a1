import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { durationMs, isShorter, notADuration } from '../../../common/duration.ts'

const MAX_MS = 168 * 3_600_000

describe('durationMs', () => {
  const good: [string, number][] = [
    ['5s', 5000],
    ['250ms', 250],
    ['1h30m', 5_400_000],
    ['1.5s', 1500],
    ['.5s', 500],
    ['1.s', 1000],
    ['+5s', 5000],
    ['0s', 0],
    ['1h1h', 7_200_000],
    ['0.1s', 100],
    ['1.1s', 1100],
    ['168h', MAX_MS],
    ['604800000ms', MAX_MS],
  ]
  for (const [text, ms] of good) it(`reads '${text}' as ${ms} ms`, () => assert.equal(durationMs(text), ms))

  for (const text of [
    '',
    '10',
    's',
    '.s',
    '-5s',
    '5 s',
    '5S',
    '1d',
    '100us',
    '5s5',
    '1e3s',
    '5s,',
    '٥s',
    '168h1ms',
    '999h',
  ]) {
    it(`refuses '${text}'`, () => assert.equal(durationMs(text), undefined))
  }

  it('rounds up to a whole millisecond, so that a positive duration is never 0', () => {
    assert.equal(durationMs('0.001ms'), 1)
    assert.equal(durationMs('1.000001ms'), 2)
  })

  it('adds whole parts exactly, in any order and number', () => {
    const unit = fc.constantFrom<[string, number]>(['ms', 1], ['s', 1000], ['m', 60_000], ['h', 3_600_000])
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.integer({ min: 0, max: 40 }), unit), { minLength: 1, maxLength: 4 }),
        (parts) => {
          const text = parts.map(([n, [name]]) => `${n}${name}`).join('')
          assert.equal(
            durationMs(text),
            parts.reduce((sum, [n, [, size]]) => sum + n * size, 0),
          )
        },
      ),
    )
  })

  it('reads a fraction of a unit as the same share of its milliseconds', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 999 }), fc.integer({ min: 0, max: 99 }), (thousandths, whole) => {
        assert.equal(durationMs(`${whole}.${String(thousandths).padStart(3, '0')}s`), whole * 1000 + thousandths)
      }),
    )
  })

  it('never throws, and gives whole milliseconds in range or nothing', () => {
    const near = fc.array(fc.constantFrom('1', '9', '0', '.', 'm', 's', 'h', 'ms', '+', '-', 'u', ' '), {
      maxLength: 30,
    })
    fc.assert(
      fc.property(
        fc.oneof(
          fc.string(),
          near.map((parts) => parts.join('')),
        ),
        (text) => {
          const ms = durationMs(text)
          assert.ok(ms === undefined || (Number.isInteger(ms) && ms >= 0 && ms <= MAX_MS), `${text}: ${ms}`)
        },
      ),
      { numRuns: 2000 },
    )
  })
})

describe('isShorter', () => {
  it('compares lengths, not texts', () => {
    assert.equal(isShorter('59s', '1m'), true)
    assert.equal(isShorter('60s', '1m'), false)
    assert.equal(isShorter('200h', '168h'), false)
    assert.equal(isShorter('168h', '200h'), true)
  })

  it('says nothing of what is not a duration', () => {
    assert.equal(isShorter('1', '1m'), false)
    assert.equal(isShorter('1s', undefined), false)
  })
})

it('names the value and the remedy of what is no duration', () => {
  assert.equal(
    notADuration('10'),
    "'10' is not a duration: use a number with a unit from 1ms to 168h, such as 250ms, 5s or 1h30m",
  )
})
