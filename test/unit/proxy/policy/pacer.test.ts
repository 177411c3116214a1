import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { MAX_PAUSE_MS, Pacer } from '../../../../proxy/policy/pacer.ts'
import { quotasOf } from '../../../../proxy/policy/quota.ts'

const WALL = Date.UTC(2026, 10, 21, 12, 0, 0)

function pacer(maxDelayMs = 1000) {
  const counts = { delayed: 0, refused: 0 }
  const made = new Pacer({ maxDelayMs }, counts)
  const answer = (now: number, status: number, fields: Readonly<Record<string, string>> = {}) =>
    made.onAnswer(status, { field: (name) => fields[name] ?? null }, now, WALL)
  return { counts, pacer: made, answer }
}

describe('pacer', () => {
  it('lets everything through as long as the upstream says nothing', () => {
    const { pacer: it, answer, counts } = pacer()
    for (let i = 0; i < 100; i++) {
      assert.equal(it.admit(5000), 0)
      answer(5000, i % 2 === 0 ? 200 : 503)
    }
    assert.deepEqual(counts, { delayed: 0, refused: 0 })
  })

  it('holds requests for the time of Retry-After, within the bound, and refuses beyond it', () => {
    const { pacer: it, answer, counts } = pacer(1000)
    answer(0, 429, { 'retry-after': '2' })
    assert.equal(it.admit(500), -1500)
    assert.equal(it.admit(1000), 1000)
    assert.deepEqual(counts, { delayed: 1, refused: 1 })
  })

  it('reads a date and takes a 503 with Retry-After for the same', () => {
    const { pacer: it, answer } = pacer(5000)
    answer(0, 503, { 'retry-after': new Date(WALL + 3000).toUTCString() })
    assert.equal(it.admit(0), 3000)
  })

  it('pauses for a second after a 429 that says no time', () => {
    const { pacer: it, answer } = pacer(5000)
    answer(0, 429)
    assert.equal(it.admit(0), 1000)
  })

  it('lets requests that waited out one by one, further apart with each further refusal', () => {
    const { pacer: it, answer } = pacer(5000)
    answer(0, 429)
    assert.deepEqual([it.admit(0), it.admit(0), it.admit(0)], [1000, 1010, 1020])
    // Two requests of the same burst are one refusal.
    answer(10, 429)
    assert.equal(it.intervalMs(10), 10)
    answer(1500, 429)
    assert.equal(it.intervalMs(1500), 20)
  })

  it('forgets the distance while the upstream takes what it gets', () => {
    const { pacer: it, answer } = pacer()
    answer(0, 429)
    for (let i = 0; i < 60; i++) answer(2000 + i, 200)
    assert.equal(it.intervalMs(3000), 0)
    assert.equal(it.admit(3000), 0)
  })

  it('makes a request wait again that was overtaken by a refusal, within the bound in all', () => {
    const { pacer: it, answer } = pacer(1500)
    answer(0, 429)
    assert.equal(it.admit(0), 1000)
    answer(900, 429, { 'retry-after': '1' })
    assert.equal(it.admitAgain(1000, 1000), -900)
    assert.equal(pacer().pacer.admitAgain(1000, 1000), 0)
  })

  it('spreads what is left of a quota over the time that is left, once less than a quarter is', () => {
    const { pacer: it, answer } = pacer(60_000)
    const left = (r: number) => ({ ratelimit: `"default";r=${r};t=10`, 'ratelimit-policy': '"default";q=100;w=60' })
    answer(0, 200, left(25))
    assert.equal(it.intervalMs(0), 0)
    answer(0, 200, left(20))
    assert.deepEqual([it.admit(0), it.admit(0), it.admit(0)], [0, 500, 1000])
    assert.equal(it.intervalMs(10_000), 0)
  })

  it('waits for the reset when nothing is left, and no longer than five minutes', () => {
    const { pacer: it, answer } = pacer(MAX_PAUSE_MS)
    answer(0, 200, { ratelimit: '"hour";r=0;t=3600' })
    assert.equal(it.admit(0), MAX_PAUSE_MS)
  })

  it('learns the quota of an upstream that does not say it from the most that was left', () => {
    const { pacer: it, answer } = pacer(60_000)
    answer(0, 200, { 'x-ratelimit-remaining': '40', 'x-ratelimit-reset': '60' })
    assert.equal(it.intervalMs(0), 0)
    answer(0, 200, { 'x-ratelimit-remaining': '6', 'x-ratelimit-reset': '30' })
    assert.equal(it.intervalMs(0), 5000)
  })

  it('keeps to the quota that leaves least until its time is over', () => {
    const { pacer: it, answer } = pacer(60_000)
    answer(0, 200, {
      ratelimit: '"min";r=1;t=60, "sec";r=10;t=1',
      'ratelimit-policy': '"min";q=100;w=60, "sec";q=10;w=1',
    })
    assert.equal(it.intervalMs(0), 60_000)
  })

  it('takes over a changed bound', () => {
    const { pacer: it, answer } = pacer(0)
    answer(0, 429)
    assert.equal(it.admit(500), -500)
    it.reconfigure({ maxDelayMs: 500 })
    assert.equal(it.admit(500), 500)
  })
})

describe('quota fields', () => {
  const NONE = { rateLimit: null, policy: null, remaining: null, limit: null, reset: null }

  it('reads every form that is in use', () => {
    const cases = [
      [{ rateLimit: '"default";r=50;t=30', policy: '"default";q=100;w=60' }, [[50, 30_000, 100]]],
      [{ rateLimit: 'default;r=50;t=30' }, [[50, 30_000, null]]],
      // Without t the window of the policy is the longest that it can take.
      [{ rateLimit: '"a;b,c";r=1', policy: '"a;b,c";q=5;w=7' }, [[1, 7000, 5]]],
      [
        { rateLimit: '"a";r=1;t=2, "b";r=3;t=4;pk=:dA==:' },
        [
          [1, 2000, null],
          [3, 4000, null],
        ],
      ],
      [{ rateLimit: 'limit=100, remaining=50, reset=5' }, [[50, 5000, 100]]],
      [{ remaining: '7', limit: '10, 10;w=60', reset: '3' }, [[7, 3000, 10]]],
      [{ remaining: '7', reset: String(WALL / 1000 + 90) }, [[7, 90_000, null]]],
      [{ remaining: '0', reset: String(WALL / 1000 - 90) }, [[0, 0, null]]],
    ] as const
    for (const [given, expected] of cases) {
      const found = quotasOf({ ...NONE, ...given }, WALL).map(({ remaining, resetMs, quota }) => [
        remaining,
        resetMs,
        quota,
      ])
      assert.deepEqual(found, expected, JSON.stringify(given))
    }
  })

  it('leaves out what it does not understand', () => {
    const cases = [
      { rateLimit: '' },
      { rateLimit: '"a";r=x;t=1' },
      { rateLimit: '"a";t=1' },
      { rateLimit: '"a";r=5' },
      { rateLimit: '"bytes";r=0;t=9', policy: '"bytes";q=1000;qu="content-bytes"' },
      { rateLimit: '"unended;r=0;t=9' },
      { rateLimit: `${'"a";r=0;t=9, '.repeat(200)}` },
      { rateLimit: ';;;,,,===' },
      { remaining: '-1', reset: '5' },
      { remaining: '5' },
      { remaining: '5.5', reset: '5' },
    ]
    for (const given of cases)
      assert.deepEqual(quotasOf({ ...NONE, ...given }, WALL), [], JSON.stringify(given).slice(0, 60))
  })
})
