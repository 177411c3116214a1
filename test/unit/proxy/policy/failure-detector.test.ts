import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { ConsecutiveFailures, FailureRate, failureDetector } from '../../../../proxy/policy/failure-detector.ts'

describe('failures in a row', () => {
  it('judge the endpoint failing at the limit, and a success between them starts anew', () => {
    const detector = new ConsecutiveFailures(3)
    assert.equal(detector.record('failure'), false)
    assert.equal(detector.record('failure'), false)
    assert.equal(detector.record('success'), false)
    assert.equal(detector.record('failure'), false)
    assert.equal(detector.record('failure'), false)
    assert.equal(detector.record('failure'), true)
  })

  it('are neither made nor broken by a throttled attempt', () => {
    const detector = new ConsecutiveFailures(2)
    detector.record('failure')
    assert.equal(detector.record('throttled'), false)
    assert.equal(detector.record('failure'), true)
  })
})

describe('failure rate', () => {
  const rate = (minimumRequests = 4) => new FailureRate({ ratio: 0.5, minimumRequests, windowMs: 10_000 })

  it('is judged only when enough attempts ended within the window', () => {
    const detector = rate(4)
    assert.equal(detector.record('failure', 0), false)
    assert.equal(detector.record('failure', 1), false)
    assert.equal(detector.record('failure', 2), false)
    assert.equal(detector.record('failure', 3), true)
  })

  it('is reached at exactly the ratio and not below it', () => {
    const detector = rate(4)
    for (const outcome of ['success', 'success', 'failure'] as const) detector.record(outcome, 0)
    assert.equal(detector.record('success', 1), false)
    assert.equal(detector.record('failure', 2), false)
    assert.equal(detector.record('failure', 3), true)
  })

  it('is reached at exactly the ratio whatever percentage it is, and with whichever attempt makes them enough', () => {
    for (let percent = 1; percent <= 100; percent++) {
      const judge = (failures: number, isFailureLast: boolean) => {
        const detector = new FailureRate({ ratio: percent / 100, minimumRequests: 100, windowMs: 10_000 })
        let judged = false
        for (let i = 0; i < 100; i++) {
          judged = detector.record((isFailureLast ? 99 - i : i) < failures ? 'failure' : 'success', 0)
          if (i < 99) assert.equal(judged, false)
        }
        return judged
      }
      for (const isFailureLast of [true, false]) {
        assert.equal(judge(percent, isFailureLast), true, `${percent} of 100`)
        assert.equal(judge(percent - 1, isFailureLast), false, `${percent - 1} of 100 at ${percent}%`)
      }
    }
  })

  it('counts a throttled attempt as failed', () => {
    const detector = rate(2)
    detector.record('throttled', 0)
    assert.equal(detector.record('throttled', 1), true)
  })

  it('forgets everything in a gap longer than the window, whatever number of attempts came before', () => {
    const detector = rate(4)
    for (let i = 0; i < 1000; i++) detector.record('failure', i)
    assert.equal(detector.record('failure', 3_600_000), false)
    assert.equal(detector.record('failure', 3_600_001), false)
    assert.equal(detector.record('failure', 3_600_002), false)
  })

  it('counts nothing older than the window and everything younger than nine tenths of it', () => {
    // A model that keeps every attempt with its time.
    const attempt = fc.record({
      gap: fc.integer({ min: 0, max: 4_000 }),
      failed: fc.boolean(),
    })
    fc.assert(
      fc.property(fc.array(attempt, { minLength: 1, maxLength: 200 }), (attempts) => {
        const detector = rate(3)
        const seen: { at: number; failed: boolean }[] = []
        let at = 1_000_003
        for (const { gap, failed } of attempts) {
          at += gap
          seen.push({ at, failed })
          const judged = detector.record(failed ? 'failure' : 'success', at)
          const verdict = (newerThan: number) => {
            const within = seen.filter((each) => each.at > newerThan)
            const failures = within.filter((each) => each.failed).length
            return within.length >= 3 && failures * 2 >= within.length
          }
          // The oldest slice is dropped as a whole: the exact window lies between nine and ten slices.
          const slice = Math.floor(at / 1000) * 1000
          assert.equal(judged, verdict(slice - 9_000 - 0.5))
        }
      }),
      { numRuns: 300 },
    )
  })
})

describe('the detector of a configuration', () => {
  const failureRate = { ratio: 0.5, minimumRequests: 4, windowMs: 1000 }

  it('is none when nothing is counted', () => {
    assert.equal(failureDetector({ consecutiveFailures: null, failureRate: null }), null)
  })

  it('fails by either of two, and both see every attempt', () => {
    const byRow = failureDetector({ consecutiveFailures: 2, failureRate })
    byRow?.record('failure', 0)
    assert.equal(byRow?.record('failure', 1), true)
    const byRate = failureDetector({ consecutiveFailures: 3, failureRate })
    for (const outcome of ['failure', 'failure', 'success'] as const) assert.equal(byRate?.record(outcome, 0), false)
    assert.equal(byRate?.record('failure', 1), true)
    byRate?.reset()
    assert.equal(byRate?.record('failure', 2), false)
  })
})
