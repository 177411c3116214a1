import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { backoffMs, parseHttpDate, readRetryAfter, retryAfterBackoffMs } from '../../../../proxy/policy/backoff.ts'

const NOW = Date.UTC(2026, 10, 21, 12, 0, 0)

describe('backoff', () => {
  it('is uniform from 0 to a bound that doubles up to the maximum', () => {
    const bounds = [1, 2, 3, 4, 5].map((retry) => backoffMs(retry, { initialMs: 100, maxMs: 1000 }, () => 1))
    assert.deepEqual(bounds, [100, 200, 400, 800, 1000])
    assert.equal(
      backoffMs(3, { initialMs: 100, maxMs: 1000 }, () => 0),
      0,
    )
    assert.equal(
      backoffMs(3, { initialMs: 100, maxMs: 1000 }, () => 0.5),
      200,
    )
  })

  it('stays finite after very many retries', () => {
    assert.equal(
      backoffMs(5000, { initialMs: 100, maxMs: 1000 }, () => 1),
      1000,
    )
  })

  it('is never shorter than Retry-After and at most a tenth longer', () => {
    assert.equal(
      retryAfterBackoffMs(2000, () => 0),
      2000,
    )
    assert.equal(
      retryAfterBackoffMs(2000, () => 1),
      2200,
    )
  })
})

describe('Retry-After', () => {
  const cases: [value: string, ms: number | null][] = [
    ['120', 120_000],
    [' 0 ', 0],
    ['300', 300_000],
    ['301', 301_000],
    ['99999999999999999999', 1e23],
    ['1.5', null],
    ['-1', null],
    ['+1', null],
    ['0x10', null],
    ['1e2', null],
    ['', null],
    ['soon', null],
    ['Sat, 21 Nov 2026 12:00:30 GMT', 30_000],
    ['Sat, 21 Nov 2026 11:59:00 GMT', 0],
    ['Sat, 21 Nov 2026 12:10:00 GMT', 600_000],
    ['Saturday, 21-Nov-26 12:00:30 GMT', 30_000],
    ['Sat Nov 21 12:00:30 2026', 30_000],
    ['Sat, 21 Nov 2026 12:00:30 CET', null],
    ['Sat, 21 Nov 2026 24:00:30 GMT', null],
    ['2026-11-21T12:00:30Z', null],
  ]
  for (const [value, ms] of cases) {
    it(`'${value}' means ${ms === null ? 'nothing' : `${ms} ms`}`, () => {
      assert.equal(readRetryAfter(value, NOW), ms)
    })
  }
})

describe('HTTP-date', () => {
  it('reads the example of RFC 9110 in its three forms', () => {
    const at = Date.UTC(1994, 10, 6, 8, 49, 37)
    assert.equal(parseHttpDate('Sun, 06 Nov 1994 08:49:37 GMT', NOW), at)
    assert.equal(parseHttpDate('Sunday, 06-Nov-94 08:49:37 GMT', NOW), at)
    assert.equal(parseHttpDate('Sun Nov  6 08:49:37 1994', NOW), at)
  })

  it('takes two digits for the next fifty years or the century before', () => {
    assert.equal(parseHttpDate('Sunday, 06-Nov-76 08:49:37 GMT', NOW), Date.UTC(2076, 10, 6, 8, 49, 37))
    assert.equal(parseHttpDate('Sunday, 06-Nov-77 08:49:37 GMT', NOW), Date.UTC(1977, 10, 6, 8, 49, 37))
  })

  it('refuses a day that the month does not have', () => {
    assert.equal(parseHttpDate('Sun, 31 Feb 2026 08:49:37 GMT', NOW), null)
  })
})
