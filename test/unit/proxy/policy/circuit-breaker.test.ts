import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import type { BreakerConfig } from '../../../../common/proxy-config.ts'
import { CircuitBreaker, type CircuitState } from '../../../../proxy/policy/circuit-breaker.ts'

const CONFIG: BreakerConfig = {
  consecutiveFailures: 3,
  failureRate: null,
  openMs: 1000,
  maxOpenMs: 8000,
  halfOpenRequests: 1,
}
const PROBE_MS = 500

/** A breaker without jitter, and the changes that it told of. */
function breaker(parts: Partial<BreakerConfig> = {}, random: () => number = () => 0.5) {
  const changes: CircuitState[] = []
  const config = { ...CONFIG, ...parts }
  const circuit = new CircuitBreaker({
    config,
    probeTimeoutMs: PROBE_MS,
    onChange: (state) => changes.push(state),
    random,
  })
  return { circuit, changes }
}

function attempt(
  circuit: CircuitBreaker,
  outcome: 'success' | 'failure' | 'throttled' | 'abandoned',
  now: number,
): boolean {
  const token = circuit.tryAcquire(now)
  if (token === -1) return false
  circuit.settle(token, outcome, now)
  return true
}

/** Open at 0 for the first time. */
function openBreaker(parts: Partial<BreakerConfig> = {}, random?: () => number) {
  const made = breaker(parts, random)
  for (let i = 0; i < 3; i++) attempt(made.circuit, 'failure', 0)
  assert.equal(made.circuit.state, 'open')
  made.changes.length = 0
  return made
}

describe('circuit breaker', () => {
  it('opens after the configured number of failures and refuses until its time is over', () => {
    const { circuit, changes } = breaker()
    attempt(circuit, 'failure', 0)
    attempt(circuit, 'failure', 0)
    assert.equal(circuit.state, 'closed')
    attempt(circuit, 'failure', 10)
    assert.equal(circuit.state, 'open')
    assert.equal(circuit.wouldAdmit(1009), false)
    assert.equal(circuit.tryAcquire(1009), -1)
    assert.equal(circuit.retryAfterMs(10), 1000)
    assert.equal(circuit.retryAfterMs(900), 110)
    assert.equal(circuit.wouldAdmit(1010), true)
    assert.deepEqual(changes, ['open'])
  })

  it('never counts what was abandoned', () => {
    const { circuit } = breaker()
    for (let i = 0; i < 100; i++) attempt(circuit, 'abandoned', i)
    assert.equal(circuit.state, 'closed')
    attempt(circuit, 'failure', 0)
    attempt(circuit, 'failure', 0)
    attempt(circuit, 'abandoned', 0)
    attempt(circuit, 'failure', 0)
    assert.equal(circuit.state, 'open')
  })

  it('lets exactly one of 200 callers probe, and closes when it succeeds', () => {
    const { circuit, changes } = openBreaker()
    const tokens = Array.from({ length: 200 }, () => circuit.tryAcquire(1000))
    assert.equal(tokens.filter((token) => token >= 0).length, 1)
    assert.equal(circuit.state, 'half-open')
    circuit.settle(Math.max(...tokens), 'success', 1010)
    assert.equal(circuit.state, 'closed')
    assert.deepEqual(changes, ['half-open', 'closed'])
    assert.equal(attempt(circuit, 'success', 1011), true)
  })

  it('asks for as many probes as are configured, at the same time or one after the other', () => {
    const { circuit } = openBreaker({ halfOpenRequests: 3 })
    const tokens = [1, 2, 3, 4].map(() => circuit.tryAcquire(1000))
    assert.deepEqual(
      tokens.map((token) => token >= 0),
      [true, true, true, false],
    )
    circuit.settle(tokens[0]!, 'success', 1000)
    circuit.settle(tokens[1]!, 'success', 1000)
    assert.equal(circuit.tryAcquire(1000), -1)
    assert.equal(circuit.state, 'half-open')
    circuit.settle(tokens[2]!, 'success', 1000)
    assert.equal(circuit.state, 'closed')
  })

  it('doubles the open time with each failed probe up to the maximum, and begins anew after it was closed', () => {
    const { circuit } = openBreaker()
    let now = 0
    for (const openMs of [1000, 2000, 4000, 8000, 8000]) {
      assert.equal(circuit.retryAfterMs(now), openMs)
      now += openMs
      assert.equal(attempt(circuit, 'failure', now), true)
    }
    now += 8000
    attempt(circuit, 'success', now)
    assert.equal(circuit.state, 'closed')
    for (let i = 0; i < 3; i++) attempt(circuit, 'failure', now)
    assert.equal(circuit.retryAfterMs(now), 1000)
  })

  it('varies the open time by a tenth in both directions', () => {
    assert.equal(openBreaker({}, () => 0).circuit.retryAfterMs(0), 900)
    assert.ok(Math.abs(openBreaker({}, () => 1 - 2 ** -53).circuit.retryAfterMs(0) - 1100) < 1e-6)
  })

  it('takes a throttled probe for a failed one', () => {
    const { circuit } = openBreaker()
    attempt(circuit, 'throttled', 1000)
    assert.equal(circuit.state, 'open')
    assert.equal(circuit.retryAfterMs(1000), 2000)
  })

  it('gives the place of an abandoned probe to the next attempt', () => {
    const { circuit } = openBreaker()
    attempt(circuit, 'abandoned', 1000)
    assert.equal(circuit.state, 'half-open')
    assert.equal(attempt(circuit, 'success', 1001), true)
    assert.equal(circuit.state, 'closed')
  })

  it('takes a probe that hangs for a failed one after the probe time-out, and ignores its late result', () => {
    const { circuit } = openBreaker()
    const hung = circuit.tryAcquire(1000)
    assert.equal(circuit.tryAcquire(1000 + PROBE_MS - 1), -1)
    assert.equal(circuit.state, 'half-open')
    assert.equal(circuit.tryAcquire(1000 + PROBE_MS), -1)
    assert.equal(circuit.state, 'open')
    assert.equal(circuit.retryAfterMs(1000 + PROBE_MS), 2000)
    circuit.settle(hung, 'success', 1000 + PROBE_MS + 1)
    assert.equal(circuit.state, 'open')
    assert.equal(attempt(circuit, 'success', 3500), true)
    assert.equal(circuit.state, 'closed')
  })

  it('drops the results of attempts that began in an earlier state', () => {
    const { circuit } = breaker()
    const early = Array.from({ length: 10 }, () => circuit.tryAcquire(0))
    for (let i = 0; i < 3; i++) attempt(circuit, 'failure', 0)
    for (const token of early.slice(0, 5)) circuit.settle(token, 'success', 1)
    assert.equal(circuit.state, 'open')
    const probe = circuit.tryAcquire(1000)
    for (const token of early.slice(5)) circuit.settle(token, 'failure', 1001)
    assert.equal(circuit.state, 'half-open')
    circuit.settle(probe, 'success', 1002)
    assert.equal(circuit.state, 'closed')
  })

  it('is not opened by failures from before it was closed', () => {
    const { circuit } = openBreaker()
    attempt(circuit, 'success', 1000)
    attempt(circuit, 'failure', 1000)
    attempt(circuit, 'failure', 1000)
    assert.equal(circuit.state, 'closed')
  })

  it('keeps its state when the configuration changes, and uses the new times', () => {
    const { circuit } = openBreaker()
    circuit.reconfigure({ ...CONFIG, consecutiveFailures: 1, openMs: 300 }, PROBE_MS)
    assert.equal(circuit.state, 'open')
    assert.equal(circuit.tryAcquire(999), -1)
    attempt(circuit, 'success', 1000)
    attempt(circuit, 'failure', 1000)
    assert.equal(circuit.state, 'open')
    assert.equal(circuit.retryAfterMs(1000), 300)
  })

  it('goes on counting when the configuration changes elsewhere', () => {
    const { circuit } = breaker()
    attempt(circuit, 'failure', 0)
    attempt(circuit, 'failure', 0)
    circuit.reconfigure({ ...CONFIG, openMs: 5000 }, PROBE_MS)
    attempt(circuit, 'failure', 0)
    assert.equal(circuit.state, 'open')
    assert.equal(circuit.retryAfterMs(0), 5000)
  })

  it('begins its probes anew when the configuration changes while it is half-open', () => {
    const { circuit } = openBreaker({ halfOpenRequests: 3 })
    const old = circuit.tryAcquire(1000)
    circuit.reconfigure({ ...CONFIG, halfOpenRequests: 1 }, PROBE_MS)
    circuit.settle(old, 'failure', 1001)
    assert.equal(attempt(circuit, 'success', 1001), true)
    assert.equal(circuit.state, 'closed')
  })

  describe('slow calls', () => {
    const slowCall = { durationMs: 100, ratio: 0.5, minimumRequests: 4, windowMs: 1000 }
    const took = (circuit: CircuitBreaker, ms: number, now: number, outcome: 'success' | 'abandoned' = 'success') =>
      circuit.settle(circuit.tryAcquire(now), outcome, now, ms)

    it('open the circuit at their share, though each of them succeeded', () => {
      const { circuit } = breaker({ consecutiveFailures: null, slowCall })
      took(circuit, 99, 0)
      took(circuit, 10, 0)
      took(circuit, 100, 0)
      assert.equal(circuit.state, 'closed')
      took(circuit, 5000, 0)
      assert.equal(circuit.state, 'open')
    })

    it('that were abandoned or are older than the window do not count', () => {
      const { circuit } = breaker({ consecutiveFailures: null, slowCall })
      for (let i = 0; i < 10; i++) took(circuit, 5000, 0, 'abandoned')
      for (let i = 0; i < 3; i++) took(circuit, 5000, 0)
      for (let i = 0; i < 10; i++) took(circuit, 1, 2000)
      assert.equal(circuit.state, 'closed')
    })

    it('fail a probe', () => {
      const { circuit } = openBreaker({ slowCall })
      took(circuit, 100, 1000)
      assert.equal(circuit.state, 'open')
      took(circuit, 99, 3000)
      assert.equal(circuit.state, 'closed')
    })
  })

  it('is held open or closed by a person whatever happens, and begins anew when it is let go', () => {
    const { circuit, changes } = breaker()
    const token = circuit.tryAcquire(0)
    circuit.force('open')
    assert.deepEqual(
      [circuit.state, circuit.isForced, circuit.wouldAdmit(1e9), circuit.tryAcquire(1e9)],
      ['open', true, false, -1],
    )
    circuit.settle(token, 'success', 0)
    circuit.force('closed')
    for (let i = 0; i < 100; i++) assert.equal(attempt(circuit, 'failure', i), true)
    assert.deepEqual([circuit.state, circuit.isForced], ['closed', true])
    circuit.force('auto')
    for (let i = 0; i < 2; i++) attempt(circuit, 'failure', 200)
    assert.deepEqual([circuit.state, circuit.isForced], ['closed', false])
    attempt(circuit, 'failure', 200)
    assert.equal(circuit.state, 'open')
    assert.deepEqual(changes, ['open', 'closed', 'closed', 'open'])
  })

  it('behaves like its state table over any sequence of attempts, ends and waits', () => {
    type Step = {
      readonly wait: number
      readonly begin: boolean
      readonly end: number
      readonly outcome: 'success' | 'failure' | 'abandoned'
    }
    const step = fc.record<Step>({
      wait: fc.constantFrom(0, 1, 100, 499, 500, 1000, 2000, 9000),
      begin: fc.boolean(),
      end: fc.nat(),
      outcome: fc.constantFrom('success', 'failure', 'abandoned'),
    })
    fc.assert(
      fc.property(fc.array(step, { maxLength: 120 }), fc.integer({ min: 1, max: 2 }), (steps, probes) => {
        const { circuit } = breaker({ halfOpenRequests: probes })
        // The model: state, row of failures, open until, trips, probes begun, passed and the deadline of the newest.
        const model = { state: 'closed', row: 0, until: 0, trips: 0, started: 0, passed: 0, deadline: 0, era: 0 }
        const running: { token: number; era: number }[] = []
        const trip = (now: number) => {
          model.trips++
          model.state = 'open'
          model.until = now + Math.min(1000 * 2 ** (model.trips - 1), 8000)
          model.era++
        }
        let now = 0
        for (const { wait, begin, end, outcome } of steps) {
          now += wait
          if (begin) {
            let admitted = model.state === 'closed'
            if (model.state === 'open' && now >= model.until) {
              Object.assign(model, { state: 'half-open', started: 0, passed: 0, era: model.era + 1 })
            }
            if (model.state === 'half-open') {
              admitted = model.started < probes
              if (admitted) {
                model.started++
                model.deadline = now + PROBE_MS
              } else if (now >= model.deadline) trip(now)
            }
            const token = circuit.tryAcquire(now)
            assert.equal(token >= 0, admitted)
            if (admitted) running.push({ token, era: model.era })
          } else if (running.length > 0) {
            const [{ token, era }] = running.splice(end % running.length, 1) as [{ token: number; era: number }]
            circuit.settle(token, outcome, now)
            if (era === model.era && model.state === 'closed') {
              if (outcome === 'success') model.row = 0
              if (outcome === 'failure' && ++model.row === 3) {
                model.trips = 0
                trip(now)
              }
            } else if (era === model.era && model.state === 'half-open') {
              if (outcome === 'abandoned') model.started--
              if (outcome === 'failure') trip(now)
              if (outcome === 'success' && ++model.passed === probes) {
                Object.assign(model, { state: 'closed', row: 0, era: model.era + 1 })
              }
            }
          }
          assert.equal(circuit.state, model.state)
          if (model.state === 'half-open') assert.ok(model.started <= probes)
        }
      }),
      { numRuns: 500 },
    )
  })
})
