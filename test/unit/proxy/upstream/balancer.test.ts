import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { BreakerConfig } from '../../../../common/proxy-config.ts'
import { hashShare } from '../../../../proxy/routing/router.ts'
import {
  type Balancing,
  DEFAULT_BALANCING,
  groupByPriority,
  NONE,
  pickEndpoint,
} from '../../../../proxy/upstream/balancer.ts'
import { NO_HASH } from '../../../../proxy/upstream/consistent-hash.ts'
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

  it('of SRV uses the next priority only when every endpoint of the lower ones is open, and goes back', () => {
    const [a, b, standby, last] = [endpoint(1), endpoint(2), endpoint(3, 1, 1), endpoint(4, 1, 7)]
    const groups = groupByPriority([last, standby, a, b])
    const strict: Balancing = { ...DEFAULT_BALANCING, isStrict: true }
    const picked = (now: number) =>
      new Set(Array.from({ length: 50 }, (_, i) => pickEndpoint(groups, now, NONE, seeded(i), strict)))
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
    // Under way together with the first: the time is not doubled for each.
    for (let i = 0; i < 10; i++) a.dialFailed(1)
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

describe('the only endpoint', () => {
  /** What is picked of one alone, and of the same one beside another that never is available. */
  const picks = (prepare: (only: Endpoint) => void, balancing: Balancing, isTried: boolean, hash: number) =>
    [[], [endpoint(2)]].map((others) => {
      const only = endpoint(1)
      prepare(only)
      for (const other of others) trip(other)
      const tried = isTried ? [only] : NONE
      return pickEndpoint(groupByPriority([only, ...others]), 1, tried, seeded(), balancing, hash) === only
    })

  const states: Readonly<Record<string, (only: Endpoint) => void>> = {
    well: () => {},
    avoided: (only) => only.dialFailed(0),
    unhealthy: (only) => {
      only.isHealthy = false
    },
    open: trip,
  }

  it('is picked whenever it would be beside others of which none is available', () => {
    for (const policy of ['LeastRequest', 'RoundRobin', 'Random', 'ConsistentHash'] as const)
      for (const panicThreshold of [null, 0, 0.5])
        for (const [state, prepare] of Object.entries(states))
          for (const isTried of [false, true])
            for (const hash of [NO_HASH, 0.3]) {
              const balancing = { policy, panicThreshold, isStrict: false }
              const [alone, beside] = picks(prepare, balancing, isTried, hash)
              const expected = state !== 'open' && (state !== 'unhealthy' || panicThreshold !== 0)
              assert.deepEqual(
                [alone, beside],
                [expected, expected],
                `${state} ${JSON.stringify(balancing)} ${isTried}`,
              )
            }
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
      const picked = pickEndpoint(groups, at, NONE, seeded(), { ...DEFAULT_BALANCING, policy: 'RoundRobin' })!
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
    assert.equal(
      pickEndpoint(groupByPriority([one, two]), 0, [one], seeded(), { ...DEFAULT_BALANCING, policy: 'RoundRobin' }),
      two,
    )
  })
})

describe('choosing by chance', () => {
  it('holds the weights and does not look at the load', () => {
    const [heavy, light] = [endpoint(1, 3), endpoint(2, 1)]
    for (let i = 0; i < 1000; i++) heavy.begin(0)
    const random = seeded()
    const groups = groupByPriority([heavy, light])
    const picks = Array.from({ length: 20_000 }, () =>
      pickEndpoint(groups, 0, NONE, random, { ...DEFAULT_BALANCING, policy: 'Random' }),
    )
    near(picks.filter((each) => each === heavy).length / picks.length, 0.75, 0.02)
  })
})

describe('several priorities', () => {
  const host = (name: string, port: number, priority = 0) => {
    const address = { host: name, ip: '10.0.0.1', port, weight: 1, priority }
    return new Endpoint(address, { config: BREAKER, probeTimeoutMs: 500, random: () => 0.5 })
  }
  /** The share of many first attempts that goes to each. */
  const spread = (endpoints: Endpoint[], balancing: Partial<Balancing> = {}) => {
    const groups = groupByPriority(endpoints)
    const random = seeded(7)
    const picks = Array.from({ length: 20_000 }, () =>
      pickEndpoint(groups, 1, NONE, random, { ...DEFAULT_BALANCING, ...balancing }),
    )
    return endpoints.map((each) => picks.filter((picked) => picked === each).length / picks.length)
  }

  it('hand over what 1.4 times the available share of the first does not cover', () => {
    const [a, b, c, d, standby] = [host('a', 1), host('b', 2), host('c', 3), host('d', 4), host('s', 5, 1)]
    const all = [a, b, c, d, standby]
    assert.equal(spread(all)[4], 0)
    trip(a)
    assert.equal(spread(all)[4], 0)
    trip(b)
    near(spread(all)[4]!, 0.3, 0.02)
    trip(c)
    near(spread(all)[4]!, 0.65, 0.02)
    trip(d)
    assert.equal(spread(all)[4], 1)
  })

  it('count a host with several addresses as one that is up while one of them is', () => {
    const [a, b, standby] = [host('db', 1), host('db', 1), host('s', 2, 1)]
    trip(a)
    assert.deepEqual(spread([a, b, standby]), [0, 1, 0])
  })

  it('share everything out when all together have too little', () => {
    const endpoints = [host('a', 1), host('b', 2), host('c', 3), host('d', 4, 1), host('e', 5, 1), host('f', 6, 1)]
    for (const index of [0, 1, 3, 4]) trip(endpoints[index]!)
    const shares = spread(endpoints)
    near(shares[2]!, 0.5, 0.02)
    near(shares[5]!, 0.5, 0.02)
  })
})

describe('zones', () => {
  const pod = (port: number, isNear: boolean, priority = 0) => {
    const each = endpoint(port, 1, priority)
    each.isNear = isNear
    return each
  }
  const spread = (endpoints: Endpoint[], tried: readonly Endpoint[] = NONE, balancing: Partial<Balancing> = {}) => {
    const groups = groupByPriority(endpoints, true)
    const random = seeded(7)
    const picks = Array.from({ length: 20_000 }, () =>
      pickEndpoint(groups, 1, tried, random, { ...DEFAULT_BALANCING, ...balancing }),
    )
    return endpoints.map((each) => picks.filter((picked) => picked === each).length / picks.length)
  }

  it('keep the traffic of a zone in it, but for what 1.4 times its available share does not cover', () => {
    const [near1, near2, far] = [pod(1, true), pod(2, true), pod(3, false)]
    const all = [near1, near2, far]
    assert.equal(spread(all)[2], 0)
    trip(near1)
    near(spread(all)[2]!, 0.3, 0.02)
    trip(near2)
    assert.equal(spread(all)[2], 1)
  })

  it('stand behind priorities', () => {
    const all = [pod(1, true, 1), pod(2, false, 0), pod(3, false, 1)]
    assert.deepEqual(spread(all), [0, 1, 0])
    trip(all[1]!)
    assert.deepEqual(spread(all), [1, 0, 0])
  })

  it('are left by a retry when the only endpoint of the zone was tried', () => {
    const all = [pod(1, true), pod(2, false)]
    assert.deepEqual(spread(all, [all[0]!]), [0, 1])
  })

  it('do not make a panic of one that is down while the others have enough', () => {
    const all = [pod(1, true), pod(2, false), pod(3, false)]
    all[0]!.isHealthy = false
    assert.equal(spread(all, NONE, { panicThreshold: 0.5 })[0], 0)
  })
})

describe('the pods of a Service and the records of a name', () => {
  const at = (ip: string) => {
    const address = { host: 'orders.shop.svc', ip, port: 80, weight: 1, priority: 0 }
    return new Endpoint(address, { config: null, probeTimeoutMs: 500, random: () => 0.5 })
  }

  it('are hosts of their own, though they have one name and one port', () => {
    const pods = [1, 2, 3, 4].map((n) => at(`10.0.0.${n}`))
    for (const each of pods.slice(1)) each.isHealthy = false
    const picked = (isEachHost: boolean) => {
      const groups = groupByPriority(pods, isEachHost)
      const random = seeded(3)
      const balancing: Balancing = { ...DEFAULT_BALANCING, panicThreshold: 0.5 }
      return new Set(Array.from({ length: 200 }, () => pickEndpoint(groups, 0, NONE, random, balancing)?.ip)).size
    }
    assert.deepEqual([picked(true), picked(false)], [4, 1])
  })

  it('are up while one of their families is', () => {
    const both = ['10.0.0.1', '10.0.0.2', '10.0.0.3', '2001:db8::1', '2001:db8::2'].map(at)
    const [group] = groupByPriority(both, true)
    assert.deepEqual(
      group?.hosts.map((host) => host.map(({ ip }) => ip)),
      [['10.0.0.1', '2001:db8::1'], ['10.0.0.2', '2001:db8::2'], ['10.0.0.3']],
    )
  })
})

describe('a panic threshold', () => {
  const ill = (count: number, of: number) => {
    const endpoints = Array.from({ length: of }, (_, i) => endpoint(i + 1))
    for (const each of endpoints.slice(0, count)) each.isHealthy = false
    return endpoints
  }
  const picked = (endpoints: Endpoint[], panicThreshold: number | null) => {
    const groups = groupByPriority(endpoints)
    const random = seeded(3)
    const balancing: Balancing = { ...DEFAULT_BALANCING, panicThreshold }
    return new Set(Array.from({ length: 200 }, () => pickEndpoint(groups, 0, NONE, random, balancing)?.port ?? null))
  }

  it('uses all when fewer are healthy than it says, and only the healthy ones otherwise', () => {
    assert.deepEqual([...picked(ill(3, 4), 0.5)].sort(), [1, 2, 3, 4])
    assert.deepEqual([...picked(ill(2, 4), 0.5)].sort(), [3, 4])
    assert.deepEqual([...picked(ill(3, 4), null)], [4])
  })

  it('of zero never uses one that is not healthy; without one, all are used when none is', () => {
    assert.deepEqual([...picked(ill(4, 4), 0)], [null])
    assert.deepEqual([...picked(ill(4, 4), null)].sort(), [1, 2, 3, 4])
  })
})

describe('a slow start', () => {
  it('begins with a tenth of the weight and ends with all of it', () => {
    const [old, young] = [endpoint(1), endpoint(2)]
    young.startSlowly(1000, 10_000)
    const share = (now: number) => {
      const groups = groupByPriority([old, young])
      const random = seeded(5)
      const picks = Array.from({ length: 20_000 }, () =>
        pickEndpoint(groups, now, NONE, random, { ...DEFAULT_BALANCING, policy: 'Random' }),
      )
      return picks.filter((each) => each === young).length / picks.length
    }
    near(share(1000), 0.1 / 1.1, 0.01)
    near(share(6000), 0.5 / 1.5, 0.02)
    near(share(11_000), 0.5, 0.02)
  })
})

describe('consistent hashing', () => {
  const HASHED: Balancing = { ...DEFAULT_BALANCING, policy: 'ConsistentHash' }
  const made = (ports: readonly number[], weights: readonly number[] = []) =>
    ports.map((port, index) => endpoint(port, weights[index] ?? 1))
  const keys = Array.from({ length: 20_000 }, (_, i) => hashShare(`user-${i}`))
  const owners = (endpoints: Endpoint[]) => {
    const groups = groupByPriority(endpoints)
    return keys.map((key) => pickEndpoint(groups, 0, NONE, Math.random, HASHED, key)!.port)
  }

  it('spreads values by weight, in every process alike', () => {
    const found = owners(made([1, 2, 3], [1, 1, 2]))
    assert.deepEqual(found, owners(made([3, 2, 1], [2, 1, 1])))
    for (const [port, share] of [
      [1, 0.25],
      [2, 0.25],
      [3, 0.5],
    ] as const) {
      near(found.filter((each) => each === port).length / found.length, share, 0.02)
    }
  })

  it('moves only the share of an endpoint that comes or goes', () => {
    const before = owners(made([1, 2, 3, 4]))
    const after = owners(made([1, 2, 3]))
    const moved = before.filter((port, index) => port !== after[index])
    assert.deepEqual([...new Set(moved)], [4])
    near(moved.length / before.length, 0.25, 0.02)
  })

  it('sends a value to one endpoint also while a priority or zone shares its traffic with the next', () => {
    const endpoints = [1, 2, 3, 4, 5].map((port) => endpoint(port, 1, port > 4 ? 1 : 0))
    for (const each of endpoints.slice(0, 2)) each.isHealthy = false
    const groups = groupByPriority(endpoints)
    const some = keys.slice(0, 2_000)
    const chosen = some.map((key, i) => {
      const own = new Set(
        Array.from({ length: 10 }, (_, n) => pickEndpoint(groups, 0, NONE, seeded(i + n), HASHED, key)),
      )
      assert.equal(own.size, 1, `${own.size} endpoints for one value`)
      return [...own][0]!.port
    })
    // Two of four are up, and 1.4 times that is 70 %.
    near(chosen.filter((port) => port === 5).length / chosen.length, 0.3, 0.04)
    near(chosen.filter((port) => port === 3).length / chosen.length, 0.35, 0.04)
    const without = new Set(Array.from({ length: 50 }, (_, n) => pickEndpoint(groups, 0, NONE, seeded(n), HASHED)))
    assert.equal(without.size, 3)
  })

  it('passes on what is more than a quarter above the share, and goes back', () => {
    const endpoints = made([1, 2, 3, 4])
    const groups = groupByPriority(endpoints)
    const key = keys[0]!
    const pick = () => pickEndpoint(groups, 0, NONE, Math.random, HASHED, key)!
    const favourite = pick()
    for (let i = 0; i < 100; i++) pick().begin(0)
    const counts = endpoints.map(({ active }) => active)
    assert.ok(Math.max(...counts) <= 33, counts.join())
    assert.equal(favourite.active, Math.max(...counts))
    for (const each of endpoints) each.active = 0
    assert.equal(pick(), favourite)
  })

  it('goes to the next one while the own is not available, and by load without a value', () => {
    const endpoints = made([1, 2, 3])
    const groups = groupByPriority(endpoints)
    const favourite = pickEndpoint(groups, 0, NONE, Math.random, HASHED, keys[1]!)!
    trip(favourite)
    const next = new Set(Array.from({ length: 20 }, () => pickEndpoint(groups, 1, NONE, Math.random, HASHED, keys[1]!)))
    assert.equal(next.size, 1)
    assert.ok(!next.has(favourite))
    const chance = new Set(Array.from({ length: 50 }, (_, i) => pickEndpoint(groups, 1, NONE, seeded(i), HASHED)))
    assert.equal(chance.size, 2)
  })
})
