import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { BreakerConfig } from '../../../../common/proxy-config.ts'
import { groupByPriority, NONE, pickEndpoint } from '../../../../proxy/upstream/balancer.ts'
import { Endpoint } from '../../../../proxy/upstream/endpoint.ts'

const BREAKER: BreakerConfig = {
  consecutiveFailures: 1,
  failureRate: null,
  openMs: 1000,
  maxOpenMs: 1000,
  halfOpenRequests: 1,
}

function endpoint(port: number, weight = 1, priority = 0): Endpoint {
  const address = { host: 'db', ip: '10.0.0.1', port, weight, priority }
  return new Endpoint(address, { config: BREAKER, probeTimeoutMs: 500, random: () => 0.5 })
}

/** The same sequence in each run. */
function seeded(seed = 1): () => number {
  let state = seed
  return () => {
    state = (state * 1_103_515_245 + 12_345) % 2_147_483_648
    return state / 2_147_483_648
  }
}

/** Shares of many picks while `load` attempts are in flight at any time, each the same length. */
function shares(endpoints: Endpoint[], load: number, picks = 20_000): number[] {
  const groups = groupByPriority(endpoints)
  const random = seeded()
  const counts = endpoints.map(() => 0)
  const running: Endpoint[] = []
  for (let i = 0; i < picks; i++) {
    if (running.length >= load) running.shift()?.leave()
    const picked = pickEndpoint(groups, 0, NONE, random)
    assert.ok(picked !== null)
    picked.begin(0)
    running.push(picked)
    counts[endpoints.indexOf(picked)]!++
  }
  for (const each of running) each.leave()
  return counts.map((count) => count / picks)
}

const near = (actual: number, expected: number, by: number) =>
  assert.ok(Math.abs(actual - expected) <= by, `${actual} is not within ${by} of ${expected}`)

/** Opens the breaker of an endpoint at time 0. */
function trip(each: Endpoint): void {
  each.settle(each.begin(0), 'failure', 0)
  each.leave()
}

describe('balancer', () => {
  it('spreads evenly over equal endpoints', () => {
    for (const load of [1, 8, 64]) {
      for (const share of shares([endpoint(1), endpoint(2), endpoint(3), endpoint(4)], load)) near(share, 0.25, 0.02)
    }
  })

  it('holds the weights with one attempt in flight and with many', () => {
    const [heavy, light] = shares([endpoint(1, 9), endpoint(2, 1)], 1)
    near(heavy!, 0.9, 0.02)
    near(light!, 0.1, 0.02)
    for (const load of [20, 100]) near(shares([endpoint(1, 9), endpoint(2, 1)], load)[0]!, 0.9, 0.03)
    // In between a light endpoint that is busy is passed over, so it gets a little less than its share, never nothing.
    for (const load of [2, 4]) {
      const share = shares([endpoint(1, 9), endpoint(2, 1)], load)[1]!
      assert.ok(share > 0.06 && share < 0.12, `${share}`)
    }
  })

  it('takes the less loaded of two', () => {
    const slow = endpoint(1)
    const quick = endpoint(2)
    for (let i = 0; i < 3; i++) slow.begin(0)
    for (let i = 0; i < 50; i++) assert.equal(pickEndpoint(groupByPriority([slow, quick]), 0, NONE, seeded(i)), quick)
  })

  it('starves an endpoint that hangs while others answer', () => {
    const endpoints = [endpoint(1), endpoint(2), endpoint(3)]
    const groups = groupByPriority(endpoints)
    const random = seeded()
    const counts = [0, 0, 0]
    for (let i = 0; i < 1000; i++) {
      const picked = pickEndpoint(groups, 0, NONE, random)!
      picked.begin(0)
      counts[endpoints.indexOf(picked)]!++
      if (picked !== endpoints[0]) picked.leave()
    }
    assert.equal(counts[0], 1)
  })

  it('uses the next priority only when every endpoint of the lower ones is open, and goes back', () => {
    const [a, b, standby, last] = [endpoint(1), endpoint(2), endpoint(3, 1, 1), endpoint(4, 1, 7)]
    const groups = groupByPriority([last, standby, a, b])
    const picked = (now: number) =>
      new Set(Array.from({ length: 50 }, (_, i) => pickEndpoint(groups, now, NONE, seeded(i))))
    assert.deepEqual(picked(0), new Set([a, b]))
    trip(a)
    assert.deepEqual(picked(10), new Set([b]))
    trip(b)
    assert.deepEqual(picked(10), new Set([standby]))
    trip(standby)
    assert.deepEqual(picked(10), new Set([last]))
    trip(last)
    assert.deepEqual(picked(10), new Set([null]))
    assert.deepEqual(picked(1000), new Set([a, b]))
  })

  it('avoids what was tried for the same request while another is available, also in a later group', () => {
    const [a, b, standby] = [endpoint(1), endpoint(2), endpoint(3, 1, 1)]
    const groups = groupByPriority([a, b, standby])
    const random = seeded()
    assert.equal(pickEndpoint(groups, 0, [a], random), b)
    assert.equal(pickEndpoint(groups, 0, [a, b], random), standby)
    assert.notEqual(pickEndpoint(groups, 0, [a, b, standby], random), null)
    trip(b)
    assert.equal(pickEndpoint(groups, 0, [a], random), standby)
  })

  it('prefers others after a failed dial for a time that doubles, but never refuses because of it', () => {
    const [a, b] = [endpoint(1), endpoint(2)]
    const groups = groupByPriority([a, b])
    const picked = (now: number) =>
      new Set(Array.from({ length: 50 }, (_, i) => pickEndpoint(groups, now, NONE, seeded(i))))
    a.dialFailed(0)
    assert.deepEqual(picked(499), new Set([b]))
    assert.deepEqual(picked(500), new Set([a, b]))
    a.dialFailed(500)
    assert.deepEqual(picked(1499), new Set([b]))
    assert.deepEqual(picked(1500), new Set([a, b]))
    b.dialFailed(1400)
    a.dialFailed(1500)
    assert.deepEqual(picked(1600), new Set([a, b]))
  })

  it('lets one attempt find out whether an avoided endpoint is back', () => {
    const [a, b] = [endpoint(1), endpoint(2)]
    a.dialFailed(0)
    const token = a.begin(600)
    assert.equal(a.isAvoided(700), true)
    a.settle(token, 'success', 800)
    assert.equal(a.isAvoided(801), false)
    a.dialFailed(900)
    assert.equal(a.isAvoided(1399), true)
    assert.equal(a.isAvoided(1400), false)
    assert.equal(b.isAvoided(0), false)
  })
})

describe('taking turns', () => {
  const turns = () => ({ at: 0 })
  const made = (shared: { at: number }, port: number, weight = 1, priority = 0) => {
    const address = { host: 'db', ip: '10.0.0.1', port, weight, priority }
    return new Endpoint(address, { config: BREAKER, probeTimeoutMs: 500, random: () => 0.5 }, shared)
  }
  /** Ports of the next picks, each of which ends at once. */
  const order = (endpoints: Endpoint[], picks: number, at = 0): number[] => {
    const groups = groupByPriority(endpoints)
    return Array.from({ length: picks }, () => {
      const picked = pickEndpoint(groups, at, NONE, seeded(), 'RoundRobin')!
      picked.settle(picked.begin(at), 'success', at)
      picked.leave()
      return picked.port
    })
  }

  it('goes through equal endpoints one after the other', () => {
    const shared = turns()
    assert.deepEqual(order([made(shared, 1), made(shared, 2), made(shared, 3)], 7), [1, 2, 3, 1, 2, 3, 1])
  })

  it('holds the weights exactly in each round, without a burst on the heavy one', () => {
    const shared = turns()
    const picks = order([made(shared, 1, 5), made(shared, 2, 1), made(shared, 3, 4)], 1000)
    for (let round = 0; round < 1000; round += 10) {
      const counts = [1, 2, 3].map((port) => picks.slice(round, round + 10).filter((each) => each === port).length)
      assert.deepEqual(counts, [5, 1, 4])
    }
    assert.ok(!picks.join('').includes('111'), picks.slice(0, 20).join(''))
  })

  it('gives one that comes back its turns, and not those that it missed', () => {
    const shared = turns()
    const [one, two] = [made(shared, 1), made(shared, 2)]
    trip(one)
    assert.deepEqual(new Set(order([one, two], 100)), new Set([2]))
    const back = order([one, two], 10, 1000)
    // One that waited longest goes first, and that is all it gets for it.
    assert.ok(back[0] === 1 && back.slice(2).filter((port) => port === 1).length === 4, back.join())
  })

  it('begins anywhere, so that many sidecars do not begin with the same endpoint', () => {
    const firsts = new Set(
      Array.from({ length: 50 }, (_, seed) => {
        const random = seeded(seed * 7919)
        const shared = turns()
        const endpoints = [1, 2, 3].map((port) => {
          const address = { host: 'db', ip: '10.0.0.1', port, weight: 1, priority: 0 }
          return new Endpoint(address, { config: null, probeTimeoutMs: 500, random }, shared)
        })
        return order(endpoints, 1)[0]
      }),
    )
    assert.deepEqual([...firsts].sort(), [1, 2, 3])
  })

  it('uses a later priority only while no earlier one is available', () => {
    const shared = turns()
    const [one, standby] = [made(shared, 1), made(shared, 2, 1, 1)]
    assert.deepEqual(order([one, standby], 3), [1, 1, 1])
    trip(one)
    assert.deepEqual(order([one, standby], 3), [2, 2, 2])
    assert.deepEqual(order([one, standby], 3, 1000), [1, 1, 1])
  })

  it('passes over what was tried already for the same request', () => {
    const shared = turns()
    const [one, two] = [made(shared, 1), made(shared, 2)]
    assert.equal(pickEndpoint(groupByPriority([one, two]), 0, [one], seeded(), 'RoundRobin'), two)
  })
})

describe('choosing by chance', () => {
  it('holds the weights and does not look at the load', () => {
    const [heavy, light] = [endpoint(1, 3), endpoint(2, 1)]
    for (let i = 0; i < 1000; i++) heavy.begin(0)
    const random = seeded()
    const groups = groupByPriority([heavy, light])
    const picks = Array.from({ length: 20_000 }, () => pickEndpoint(groups, 0, NONE, random, 'Random'))
    near(picks.filter((each) => each === heavy).length / picks.length, 0.75, 0.02)
  })
})
