import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { RateLimitConfig } from '../../../../common/proxy-config.ts'
import { RateLimit } from '../../../../proxy/policy/rate-limit.ts'

const REJECT: RateLimitConfig = { requests: 10, perMs: 1000, burst: 20, onLimit: 'Reject', maxDelayMs: 0 }
const DELAY: RateLimitConfig = { requests: 10, perMs: 1000, burst: 1, onLimit: 'Delay', maxDelayMs: 300 }

describe('rate limit', () => {
  it('begins with a full bucket and then gives out the rate', () => {
    const limit = new RateLimit(REJECT)
    for (let i = 0; i < 20; i++) assert.equal(limit.admit(5000), 0)
    assert.equal(limit.admit(5000), -100)
    assert.equal(limit.admit(5050), -50)
    assert.equal(limit.admit(5100), 0)
    assert.equal(limit.admit(5100), -100)
    assert.equal(limit.limited, 3)
  })

  it('admits exactly the rate when requests come exactly at it', () => {
    const limit = new RateLimit({ ...REJECT, requests: 3, burst: 1 })
    for (let i = 0; i < 3000; i++) assert.equal(limit.admit((i * 1000) / 3), 0)
  })

  it('delays within the bound, each request behind the one before, and then refuses', () => {
    const limit = new RateLimit(DELAY)
    assert.deepEqual(
      [0, 0, 0, 0, 0].map((now) => limit.admit(now)),
      [0, 100, 200, 300, -400],
    )
    assert.deepEqual([limit.delayed, limit.limited], [3, 1])
    assert.equal(limit.admit(100), 300)
  })

  it('gives the turn of a request that left to the next', () => {
    const limit = new RateLimit(DELAY)
    limit.admit(0)
    assert.equal(limit.admit(0), 100)
    limit.giveBack()
    assert.equal(limit.admit(0), 100)
  })

  it('tells how many are left', () => {
    const limit = new RateLimit(REJECT)
    assert.equal(limit.remaining(0), 20)
    for (let i = 0; i < 5; i++) limit.admit(0)
    assert.equal(limit.remaining(0), 15)
    assert.equal(limit.remaining(250), 17.5)
    assert.equal(limit.remaining(60_000), 20)
  })

  it('keeps what was taken when the configuration changes, and at most the new burst of it', () => {
    const limit = new RateLimit(REJECT)
    for (let i = 0; i < 15; i++) limit.admit(0)
    limit.reconfigure({ ...REJECT, requests: 100, burst: 30 }, 0)
    assert.equal(limit.remaining(0), 15)
    limit.reconfigure({ ...REJECT, burst: 5 }, 0)
    assert.equal(limit.remaining(0), 0)
    assert.equal(limit.admit(0), -100)
    assert.equal(limit.admit(100), 0)
  })

  it('does not fill a bucket by a change of the configuration', () => {
    const limit = new RateLimit(REJECT)
    limit.reconfigure({ ...REJECT, burst: 3 }, 0)
    assert.deepEqual(
      [0, 0, 0, 0].map((now) => limit.admit(now)),
      [0, 0, 0, -100],
    )
  })

  it('takes its share of a limit of the fleet, and keeps what was taken when the fleet grows or shrinks', () => {
    const limit = new RateLimit({ ...REJECT, perFleet: true }, 4)
    assert.equal(limit.remaining(0), 5)
    for (let i = 0; i < 5; i++) assert.equal(limit.admit(0), 0)
    assert.equal(limit.admit(0), -400)
    limit.shareAmong(2, 0)
    assert.equal(limit.remaining(0), 5)
    assert.deepEqual(limit.fieldLines(100), [
      'RateLimit-Policy: "ambassador";q=5;w=1',
      'RateLimit: "ambassador";r=0;t=1',
    ])
    limit.shareAmong(20, 0)
    assert.equal(limit.remaining(0), 0)
  })

  it('lets each of a fleet that is larger than the burst send one request', () => {
    const limit = new RateLimit({ ...REJECT, perFleet: true }, 1000)
    assert.deepEqual([limit.admit(0), limit.admit(0)], [0, -100_000])
  })

  it('does not share a limit that is of each sidecar', () => {
    const limit = new RateLimit(REJECT, 10)
    limit.shareAmong(20, 0)
    assert.equal(limit.remaining(0), 20)
  })

  it('tells its quota and when it is worth trying again, in whole seconds', () => {
    const lines = (requests: number, perMs: number, waitMs: number) =>
      new RateLimit({ requests, perMs, burst: 7, onLimit: 'Reject', maxDelayMs: 0 }).fieldLines(waitMs)
    assert.deepEqual(lines(10, 1000, 100), [
      'RateLimit-Policy: "ambassador";q=10;w=1',
      'RateLimit: "ambassador";r=0;t=1',
    ])
    assert.deepEqual(lines(2, 100, 1001), [
      'RateLimit-Policy: "ambassador";q=20;w=1',
      'RateLimit: "ambassador";r=0;t=2',
    ])
    assert.deepEqual(lines(600, 60_000, 0), [
      'RateLimit-Policy: "ambassador";q=600;w=60',
      'RateLimit: "ambassador";r=0;t=1',
    ])
    assert.deepEqual(lines(1, 1500, 1500), [
      'RateLimit-Policy: "ambassador";q=1;w=2',
      'RateLimit: "ambassador";r=0;t=2',
    ])
  })

  it('never admits more than the burst and the rate in any span of time', () => {
    const scenario = fc.record({
      requests: fc.integer({ min: 1, max: 50 }),
      perMs: fc.constantFrom(1, 7, 1000, 60_000),
      burst: fc.integer({ min: 1, max: 20 }),
      onLimit: fc.constantFrom<'Reject' | 'Delay'>('Reject', 'Delay'),
      maxDelayMs: fc.constantFrom(0, 10, 5000),
      gaps: fc.array(fc.oneof(fc.constant(0), fc.double({ min: 0, max: 3000, noNaN: true })), {
        minLength: 1,
        maxLength: 150,
      }),
    })
    fc.assert(
      fc.property(scenario, ({ gaps, ...config }) => {
        const limit = new RateLimit(config)
        const admitted: number[] = []
        let now = 1000
        for (const gap of gaps) {
          now += gap
          const wait = limit.admit(now)
          if (wait >= 0) {
            if (config.onLimit === 'Reject') assert.equal(wait, 0)
            else assert.ok(wait <= config.maxDelayMs)
            admitted.push(now + wait)
          } else {
            // And what it refused would have been too much (a refusal is not a whim either).
            assert.ok(
              -wait <= config.perMs / config.requests + (config.onLimit === 'Delay' ? config.maxDelayMs : 0) + 1e-3,
            )
          }
        }
        const rate = config.requests / config.perMs
        for (let from = 0; from < admitted.length; from++) {
          for (let to = from; to < admitted.length; to++) {
            const span = admitted[to]! - admitted[from]!
            assert.ok(to - from + 1 <= config.burst + span * rate + 1e-3, `${to - from + 1} within ${span} ms`)
          }
        }
      }),
      { numRuns: 300 },
    )
  })
})
