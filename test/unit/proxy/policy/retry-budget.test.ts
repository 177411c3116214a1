import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { RetryBudget } from '../../../../proxy/policy/retry-budget.ts'

const options = { ratio: 0.2, minPerSecond: 0, maxConcurrent: 1000 }

function take(budget: RetryBudget, now: number, most = 10_000, succeeded = false): number {
  let taken = 0
  while (taken < most && budget.tryRetry(now)) {
    budget.endRetry(succeeded)
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

  it('has a reserve for an upstream with few requests, saved up for ten seconds', () => {
    const budget = new RetryBudget({ ...options, minPerSecond: 2 })
    const helpful = (now: number) => take(budget, now, 10_000, true)
    assert.deepEqual([0, 500, 1_000, 60_000].map(helpful), [18, 1, 1, 18])
  })

  it('lends two seconds of its reserve while none of the retries helps, and the rest once they do', () => {
    const budget = new RetryBudget({ ...options, minPerSecond: 10 })
    assert.equal(take(budget, 0), 20)
    assert.equal(take(budget, 999), 0)
    assert.equal(take(budget, 1_000, 1), 1)
    assert.ok(take(budget, 1_000, 10_000, true) > 60)
  })

  it('lends its reserve to many requests that fail at once, for it is not known yet that their retries fail', () => {
    const budget = new RetryBudget({ ...options, minPerSecond: 10 })
    for (let request = 0; request < 45; request++) budget.deposit(0)
    for (let request = 0; request < 45; request++) assert.equal(budget.tryRetry(0), true, `request ${request}`)
  })

  it('hides that two of three requests fail, one after the other and at the default', () => {
    const budget = new RetryBudget({ ...options, minPerSecond: 10 })
    for (let request = 0; request < 150; request++) {
      const now = request * 150
      budget.deposit(now)
      for (const succeeded of [false, true]) {
        assert.equal(budget.tryRetry(now + 50), true, `request ${request}`)
        budget.endRetry(succeeded)
      }
    }
  })

  it('gives its reserve to a busy upstream whose retries succeed, as when one endpoint of three is gone', () => {
    const budget = new RetryBudget({ ...options, minPerSecond: 10 })
    for (let at = 0; at < 5_000; at += 10) budget.deposit(at)
    let request = 0
    for (let at = 5_000; at < 15_000; at += 10) {
      budget.deposit(at)
      if (request++ % 3 !== 0) continue
      assert.equal(budget.tryRetry(at), true, `${at} ms`)
      budget.endRetry(true)
    }
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

  it('gives a dead upstream at most 1.2 times 200 requests a second, in each second once it is known to be busy', () => {
    const budget = new RetryBudget({ ...options, minPerSecond: 10 })
    for (let at = 0; at < 3_000; at += 5) budget.deposit(at)
    const { sent, retries } = storm(budget, 3_000, 10_000, (soFar, requests) => {
      if (requests % 200 === 0) assert.ok(soFar <= 0.2 * requests, `${soFar} retries of ${requests} requests`)
    })
    assert.ok(retries >= 0.19 * sent, `${retries} retries of ${sent} requests`)
  })

  it('takes back from the share of a busy upstream, dead from the start, what it had of the reserve', () => {
    const budget = new RetryBudget({ ...options, minPerSecond: 10 })
    const { sent, retries } = storm(budget, 0, 10_000, (soFar, requests) => {
      // A fifth of 200 requests: what one second brings.
      assert.ok(soFar <= Math.max(40, 0.2 * requests), `${soFar} retries of ${requests} requests`)
    })
    assert.ok(retries >= 0.19 * sent, `${retries} retries of ${sent} requests`)
  })

  it('gives an upstream that was dead from the start at most 1.2 times 200 requests, however fast they come', () => {
    for (const gapMs of [1, 2, 3, 7, 10, 13, 16, 19]) {
      const budget = new RetryBudget({ ...options, minPerSecond: 10 })
      let retries = 0
      for (let request = 0; request < 1000; request++) {
        budget.deposit(request * gapMs)
        retries += take(budget, request * gapMs, 2)
        if (request >= 199) assert.ok(retries <= 0.2 * (request + 1), `${retries} of ${request + 1}, ${gapMs} ms apart`)
      }
      assert.ok(retries >= 150, `${retries} retries, ${gapMs} ms apart`)
    }
  })

  it('has no reserve for a dead upstream between bursts, nor when the machine stood still for a moment', () => {
    const budget = new RetryBudget({ ...options, minPerSecond: 10 })
    let requests = 0
    let retries = 0
    for (let burst = 0; burst < 40; burst++) {
      for (let at = 0; at < 500; at += 5) {
        budget.deposit(burst * 2_000 + at)
        requests++
        retries += take(budget, burst * 2_000 + at, 2)
      }
      if (burst >= 10) assert.ok(retries <= 0.2 * requests, `${retries} retries of ${requests} requests`)
    }
  })

  it('has its reserve again when the upstream was quiet for ten seconds', () => {
    const budget = new RetryBudget({ ...options, minPerSecond: 10 })
    for (let at = 0; at < 1_000; at += 5) budget.deposit(at)
    const share = take(budget, 995)
    assert.equal(share, 40)
    assert.equal(take(budget, 10_994), 0)
    assert.ok(take(budget, 10_995, 10_000, true) > 80)
  })

  it('never lets retries exceed the share of the requests by more than the reserve', () => {
    const event = fc.record({ gap: fc.integer({ min: 0, max: 300 }), isRetry: fc.boolean(), succeeded: fc.boolean() })
    fc.assert(
      fc.property(fc.array(event, { maxLength: 300 }), fc.integer({ min: 0, max: 3 }), (events, minPerSecond) => {
        const budget = new RetryBudget({ ...options, minPerSecond })
        let now = 5_000
        let requests = 0
        let retries = 0
        for (const { gap, isRetry, succeeded } of events) {
          now += gap
          if (!isRetry) {
            budget.deposit(now)
            requests++
          } else if (budget.tryRetry(now)) {
            budget.endRetry(succeeded)
            retries++
          }
          const reserve = (minPerSecond * (10_000 + now)) / 1000
          assert.ok(retries <= 0.2 * requests + reserve + 1e-9, `${retries} retries of ${requests} requests`)
        }
      }),
      { numRuns: 300 },
    )
  })
})

/** 200 requests a second, each of which fails and wants two more tries that fail too. */
function storm(
  budget: RetryBudget,
  fromMs: number,
  forMs: number,
  look: (retries: number, sent: number) => void,
): { sent: number; retries: number } {
  let sent = 0
  let retries = 0
  for (let at = fromMs; at < fromMs + forMs; at += 5) {
    budget.deposit(at)
    sent++
    retries += take(budget, at, 2)
    look(retries, sent)
  }
  return { sent, retries }
}
