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

  it('forgets requests and retries after ten seconds', () => {
    const budget = new RetryBudget(options)
    for (let i = 0; i < 100; i++) budget.deposit(0)
    assert.equal(take(budget, 9_999), 20)
    for (let i = 0; i < 100; i++) budget.deposit(10_000)
    assert.equal(take(budget, 15_000, 1), 0)
    for (let i = 0; i < 100; i++) budget.deposit(20_000)
    assert.equal(take(budget, 20_000), 20)
  })

  it('has a reserve per second for an upstream with few requests', () => {
    const budget = new RetryBudget({ ...options, minPerSecond: 2 })
    assert.equal(take(budget, 0), 20)
    assert.equal(take(budget, 5_000), 0)
    assert.equal(take(budget, 10_000), 20)
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

  it('never lets the retries of ten seconds exceed the share of the requests and the reserve', () => {
    const event = fc.record({ gap: fc.integer({ min: 0, max: 3_000 }), isRetry: fc.boolean() })
    fc.assert(
      fc.property(fc.array(event, { maxLength: 300 }), fc.integer({ min: 0, max: 3 }), (events, minPerSecond) => {
        const budget = new RetryBudget({ ...options, minPerSecond })
        const requests: number[] = []
        const retries: number[] = []
        let now = 5_000
        for (const { gap, isRetry } of events) {
          now += gap
          const slice = (at: number) => Math.floor(at / 1000)
          const within = (times: number[]) => times.filter((at) => slice(at) > slice(now) - 10).length
          if (!isRetry) {
            budget.deposit(now)
            requests.push(now)
            continue
          }
          const allowed = within(retries) + 1 <= 0.2 * within(requests) + 10 * minPerSecond + 1e-9
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
