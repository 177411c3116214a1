import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { RetryBudget } from '../../../../proxy/policy/retry-budget.ts'

const options = { ratio: 0.2, minPerSecond: 0, maxConcurrent: 1000 }

function take(budget: RetryBudget, now: number, most = 10_000): number {
  let taken = 0
  while (taken < most && budget.tryRetry(now)) {
    budget.endRetry(false)
    taken++
  }
  return taken
}

describe('retry budget', () => {
  it('allows one retry for each five requests at 20 %', () => {
    const budget = new RetryBudget(options)
    for (let i = 0; i < 4; i++) budget.deposit(0)
    assert.equal(take(budget, 0), 0)
    budget.deposit(0)
    assert.equal(take(budget, 0), 1)
    for (let i = 0; i < 100; i++) budget.deposit(500)
    assert.equal(take(budget, 600), 20)
  })

  it('forgets requests and retries after a second', () => {
    const budget = new RetryBudget(options)
    for (let i = 0; i < 100; i++) budget.deposit(0)
    assert.equal(take(budget, 999), 20)
    for (let i = 0; i < 100; i++) budget.deposit(1_000)
    assert.equal(take(budget, 1_500, 1), 0)
    for (let i = 0; i < 100; i++) budget.deposit(2_000)
    assert.equal(take(budget, 2_000), 20)
  })

  it('has a reserve per second for an upstream with few requests', () => {
    const budget = new RetryBudget({ ...options, minPerSecond: 2 })
    assert.equal(take(budget, 0), 2)
    assert.equal(take(budget, 500), 0)
    assert.equal(take(budget, 1_000), 2)
    // What was not used in between is not there on top.
    assert.equal(take(budget, 60_000), 2)
  })

  it('allows no more at once than configured, and frees the place when a retry ends', () => {
    const budget = new RetryBudget({ ratio: 1, minPerSecond: 100, maxConcurrent: 2 })
    assert.equal(budget.tryRetry(0), true)
    assert.equal(budget.tryRetry(0), true)
    assert.equal(budget.tryRetry(0), false)
    assert.equal(budget.active, 2)
    budget.endRetry(true)
    assert.equal(budget.tryRetry(0), true)
    assert.deepEqual([budget.requests, budget.successes, budget.overflow], [3, 1, 1])
  })

  it('allows none with no retries in flight allowed', () => {
    assert.equal(new RetryBudget({ ratio: 1, minPerSecond: 100, maxConcurrent: 0 }).tryRetry(0), false)
  })

  it('gives a dead upstream at most 1.2 times 200 requests a second, in its first second and in each later one', () => {
    for (const warmUpMs of [0, 3_000]) {
      const budget = new RetryBudget({ ...options, minPerSecond: 10 })
      for (let at = 0; at < warmUpMs; at += 5) budget.deposit(at)
      let sent = 0
      let retries = 0
      for (let at = warmUpMs; at < warmUpMs + 10_000; at += 5) {
        budget.deposit(at)
        sent++
        // Each request wants two more.
        retries += take(budget, at, 2)
        const isWholeSecond = sent % 200 === 0
        if (isWholeSecond) assert.ok(retries <= 0.2 * sent, `${retries} retries of ${sent} requests`)
      }
      assert.ok(retries >= 0.19 * sent, `${retries} retries of ${sent} requests`)
    }
  })

  it('never lets the retries of a second exceed the share of the requests and the reserve', () => {
    const event = fc.record({ gap: fc.integer({ min: 0, max: 300 }), isRetry: fc.boolean() })
    fc.assert(
      fc.property(fc.array(event, { maxLength: 300 }), fc.integer({ min: 0, max: 3 }), (events, minPerSecond) => {
        const budget = new RetryBudget({ ...options, minPerSecond })
        const requests: number[] = []
        const retries: number[] = []
        let now = 5_000
        for (const { gap, isRetry } of events) {
          now += gap
          const slice = (at: number) => Math.floor(at / 100)
          const within = (times: number[]) => times.filter((at) => slice(at) > slice(now) - 10).length
          if (!isRetry) {
            budget.deposit(now)
            requests.push(now)
            continue
          }
          const allowed = within(retries) + 1 <= Math.max(0.2 * within(requests), minPerSecond) + 1e-9
          assert.equal(budget.tryRetry(now), allowed)
          if (allowed) {
            retries.push(now)
            budget.endRetry(false)
          }
        }
      }),
      { numRuns: 300 },
    )
  })
})
