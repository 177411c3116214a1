import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { BreakerConfig, ClusterConfig, DiscoveryConfig } from '../../../../common/proxy-config.ts'
import { Cluster, type ClusterOptions } from '../../../../proxy/upstream/cluster.ts'
import type { Address, Discovery, Halt } from '../../../../proxy/upstream/discovery/discovery.ts'
import type { Endpoint } from '../../../../proxy/upstream/endpoint.ts'

const BREAKER: BreakerConfig = {
  consecutiveFailures: 1,
  failureRate: null,
  openMs: 1000,
  maxOpenMs: 8000,
  halfOpenRequests: 1,
}

function config(parts: Partial<ClusterConfig> = {}): ClusterConfig {
  return {
    name: 'live',
    discovery: { kind: 'dns', hostname: 'db.example', port: 5432 },
    tls: null,
    auth: null,
    circuitBreaker: BREAKER,
    limits: { maxConnections: 2, maxPendingRequests: 1, maxConcurrentRetries: 1 },
    ...parts,
  }
}

function options(parts: Partial<ClusterConfig> = {}): ClusterOptions {
  return {
    config: config(parts),
    tls: null,
    budget: { ratio: 0.2, minPerSecond: 0 },
    probeTimeoutMs: 500,
    queue: 'Oldest',
  }
}

/** A discovery that says what the test tells it. */
class Told implements Discovery {
  failure: string | null = null
  refreshes = 0
  isStopped = false
  tell: (endpoints: readonly Address[]) => void = () => {}
  fail: (failure: string | null) => void = () => {}
  halt: (halt: Halt) => void = () => {}
  readonly config: DiscoveryConfig

  constructor(config: DiscoveryConfig) {
    this.config = config
  }
  start(
    onChange: (endpoints: readonly Address[]) => void,
    onFailure: (failure: string | null) => void,
    onHalt: (halt: Halt) => void,
  ): void {
    this.tell = onChange
    this.fail = onFailure
    this.halt = onHalt
  }
  refresh(): void {
    this.refreshes++
  }
  stop(): void {
    this.isStopped = true
  }
}

const at = (ip: string, parts: Partial<Address> = {}): Address => ({
  host: 'db.example',
  ip,
  port: 5432,
  weight: 1,
  priority: 0,
  ...parts,
})

function started(parts: Partial<ClusterConfig> = {}) {
  const discoveries: Told[] = []
  const changes: string[] = []
  const cluster = new Cluster(options(parts), {
    discover: (discovery) => {
      discoveries.push(new Told(discovery))
      return discoveries.at(-1)!
    },
    onCircuit: (_cluster, endpoint, state) => changes.push(`${endpoint.name} ${state}`),
    onEndpoints: ({ endpoints }) => changes.push([...endpoints].map(({ name }) => name).join()),
    onDiscovery: (_cluster, failure) => changes.push(`discovery ${failure}`),
    random: () => 0.5,
  })
  cluster.start()
  return { cluster, discoveries, discovery: discoveries[0]!, changes }
}

const names = (cluster: Cluster) => [...cluster.endpoints].map(({ name }) => name)

/** Picks, and fails or passes the attempt. */
function attempt(cluster: Cluster, outcome: 'success' | 'failure', now: number): Endpoint {
  const endpoint = cluster.pick(now)
  assert.ok(typeof endpoint !== 'string')
  endpoint.settle(endpoint.begin(now), outcome, now)
  endpoint.leave()
  return endpoint
}

describe('cluster', () => {
  it('takes over another zone of an endpoint and another preference with the next attempt', () => {
    const discoveries: Told[] = []
    const zoned = (zonePreference?: 'SameZone'): ClusterOptions => ({
      ...options({ loadBalancing: { policy: 'RoundRobin', ...(zonePreference && { zonePreference }) } }),
      zone: 'west',
    })
    const cluster = new Cluster(zoned('SameZone'), {
      discover: (discovery) => {
        discoveries.push(new Told(discovery))
        return discoveries.at(-1)!
      },
    })
    cluster.start()
    const used = () => {
      const names = new Set<string>()
      for (let i = 0; i < 4; i++) names.add(attempt(cluster, 'success', 0).ip)
      return [...names].sort()
    }
    discoveries[0]?.tell([at('10.0.0.1', { zone: 'west' }), at('10.0.0.2', { zone: 'east' })])
    assert.deepEqual(used(), ['10.0.0.1'])
    discoveries[0]?.tell([at('10.0.0.1', { zone: 'east' }), at('10.0.0.2', { zone: 'west' })])
    assert.deepEqual(used(), ['10.0.0.2'])
    discoveries[0]?.tell([
      at('10.0.0.1', { zone: 'east', forZones: ['west'] }),
      at('10.0.0.2', { zone: 'west', forZones: [] }),
    ])
    assert.deepEqual(used(), ['10.0.0.1'])
    cluster.update(zoned())
    assert.deepEqual(used(), ['10.0.0.1', '10.0.0.2'])
    cluster.destroy()
  })

  it('takes over another way of balancing with the next attempt', () => {
    const { cluster, discovery } = started()
    discovery.tell([at('10.0.0.1'), at('10.0.0.2')])
    const pick = () => {
      const endpoint = cluster.pick(0)
      assert.ok(typeof endpoint !== 'string')
      endpoint.settle(endpoint.begin(0), 'success', 0)
      return endpoint.ip
    }
    const [first] = [...cluster.endpoints]
    for (let i = 0; i < 9; i++) first!.begin(0)
    assert.deepEqual([pick(), pick(), pick()], ['10.0.0.2', '10.0.0.2', '10.0.0.2'])
    cluster.update(options({ loadBalancing: { policy: 'RoundRobin' } }))
    pick()
    for (let i = 0; i < 5; i++) assert.equal(new Set([pick(), pick()]).size, 2)
  })

  it('refuses with dns_failed while it knows no endpoint and with circuit_open while every breaker is open', () => {
    const { cluster, discovery, changes } = started()
    assert.equal(cluster.isReady, false)
    assert.equal(cluster.pick(0), 'dns_failed')
    discovery.tell([at('10.0.0.1'), at('2001:db8::1')])
    assert.equal(cluster.isReady, true)
    attempt(cluster, 'failure', 0)
    attempt(cluster, 'failure', 100)
    assert.equal(cluster.pick(200), 'circuit_open')
    assert.equal(cluster.retryAfterMs(200), 800)
    assert.equal(typeof cluster.pick(1000), 'object')
    assert.deepEqual(changes.sort(), [
      '10.0.0.1:5432 open',
      '10.0.0.1:5432,[2001:db8::1]:5432',
      '[2001:db8::1]:5432 open',
    ])
  })

  it('keeps the breaker, pool and counts of an endpoint that stays, and retires one that leaves', () => {
    const { cluster, discovery } = started()
    discovery.tell([at('10.0.0.1'), at('10.0.0.2')])
    const [one, two] = [...cluster.endpoints] as [Endpoint, Endpoint]
    const ended: string[] = []
    for (const each of [one, two])
      each.pool = { retire: () => ended.push(each.name), destroy: () => ended.push(`destroy ${each.name}`) }
    one.settle(one.begin(0), 'failure', 0)
    discovery.tell([at('10.0.0.3'), at('10.0.0.1', { weight: 5, priority: 2 })])
    assert.deepEqual(names(cluster), ['10.0.0.3:5432', '10.0.0.1:5432'])
    assert.equal([...cluster.endpoints][1], one)
    assert.deepEqual([one.breaker?.state, one.failures, one.active, one.weight, one.priority], ['open', 1, 1, 5, 2])
    assert.deepEqual([two.retired, one.retired], [true, false])
    assert.deepEqual(ended, ['10.0.0.2:5432'])
  })

  it('takes the same address under two names for two endpoints, and the same twice for one', () => {
    const { cluster, discovery } = started()
    discovery.tell([at('10.0.0.1'), at('10.0.0.1', { host: 'other.example' }), at('10.0.0.1')])
    assert.deepEqual(
      [...cluster.endpoints].map(({ host }) => host),
      ['db.example', 'other.example'],
    )
  })

  it('never takes an empty set for an answer', () => {
    const { cluster, discovery } = started()
    discovery.tell([at('10.0.0.1')])
    discovery.tell([])
    assert.deepEqual(names(cluster), ['10.0.0.1:5432'])
  })

  it('holds what comes before the first endpoints, and asks discovery to hurry', async () => {
    const { cluster, discovery } = started()
    const held = new Promise<boolean>((resolve) => cluster.whenReady(5_000, resolve))
    assert.equal(discovery.refreshes, 1)
    discovery.tell([at('10.0.0.1')])
    assert.equal(await held, true)
    const later: boolean[] = []
    cluster.whenReady(5_000, (ready) => later.push(ready))
    assert.deepEqual(later, [true])
  })

  it('ends a hold at its deadline, at the close of the cluster, and not at all when it was given up', async () => {
    const { cluster, discovery } = started()
    const ends: string[] = []
    cluster.whenReady(60_000, () => ends.push('given up'))()
    assert.equal(await new Promise<boolean>((resolve) => cluster.whenReady(5, resolve)), false)
    cluster.whenReady(60_000, (ready) => ends.push(`closed ${ready}`))
    cluster.close()
    assert.deepEqual(ends, ['closed false'])
    assert.equal(discovery.isStopped, true)
    cluster.whenReady(60_000, (ready) => ends.push(`too late ${ready}`))
    assert.deepEqual(ends, ['closed false', 'too late false'])
  })

  it('holds what is new while discovery is not sure, and tells the pools when what is under way must wait too', async () => {
    const { cluster, discovery } = started()
    discovery.tell([at('10.0.0.1')])
    const halted: boolean[] = []
    const [endpoint] = [...cluster.endpoints]
    endpoint!.pool = { retire() {}, destroy() {}, halt: (isHalted) => halted.push(isHalted) }
    discovery.halt('new')
    assert.equal(cluster.isReady, false)
    assert.equal(cluster.isHalted, false)
    const held = new Promise<boolean>((resolve) => cluster.whenReady(10_000, resolve))
    discovery.halt('all')
    assert.equal(cluster.isHalted, true)
    discovery.halt('none')
    assert.equal(await held, true)
    assert.equal(cluster.isReady, true)
    assert.deepEqual(halted, [true, false])
  })

  it('goes on holding through a new set until discovery is sure of it', async () => {
    const { cluster, discovery } = started()
    discovery.tell([at('10.0.0.1')])
    discovery.halt('all')
    let isOver = false
    const held = new Promise<boolean>((resolve) => cluster.whenReady(10_000, resolve)).finally(() => (isOver = true))
    discovery.tell([at('10.0.0.2')])
    await new Promise((resolve) => setImmediate(resolve))
    assert.equal(isOver, false)
    discovery.halt('none')
    assert.equal(await held, true)
  })

  it('counts and tells each other master of discovery by Sentinel, and none of another kind', () => {
    const sentinel: DiscoveryConfig = {
      kind: 'sentinel',
      masterName: 'mymaster',
      sentinels: [{ host: 'sentinel', port: 26379 }],
      role: 'Master',
      auth: null,
      tls: null,
    }
    for (const [parts, count] of [
      [{ discovery: sentinel }, 1],
      [{}, 0],
    ] as const) {
      const { cluster, discovery } = started(parts)
      discovery.tell([at('10.0.0.1')])
      assert.equal(cluster.switches, 0)
      discovery.tell([at('10.0.0.2')])
      assert.equal(cluster.switches, count)
    }
  })

  it('looks again and prefers another endpoint after a failed dial', () => {
    const { cluster, discovery } = started()
    discovery.tell([at('10.0.0.1'), at('10.0.0.2')])
    const [one, two] = [...cluster.endpoints] as [Endpoint, Endpoint]
    cluster.dialFailed(one, 0)
    assert.equal(discovery.refreshes, 1)
    for (let i = 0; i < 20; i++) assert.equal(cluster.pick(10), two)
  })

  it('takes over limits, budget and breaker of a changed configuration without touching the endpoints', () => {
    const { cluster, discovery, discoveries } = started()
    discovery.tell([at('10.0.0.1')])
    const [one] = [...cluster.endpoints] as [Endpoint]
    attempt(cluster, 'failure', 0)
    const limits = { maxConnections: 1, maxPendingRequests: 0, maxConcurrentRetries: 0 }
    cluster.update(options({ limits, circuitBreaker: { ...BREAKER, openMs: 300, maxOpenMs: 300 } }))
    assert.equal(discoveries.length, 1)
    assert.equal([...cluster.endpoints][0], one)
    assert.equal(cluster.pick(10), 'circuit_open')
    attempt(cluster, 'failure', 1000)
    assert.equal(cluster.retryAfterMs(1000), 300)
    assert.deepEqual([cluster.connections.tryAcquire(), cluster.connections.tryAcquire()], [true, false])
    for (let i = 0; i < 10; i++) cluster.budget.deposit(0)
    assert.equal(cluster.budget.tryRetry(0), false)
    cluster.update(options({ circuitBreaker: null }))
    assert.equal(cluster.pick(1001), one)
    assert.equal(one.breaker, null)
  })

  it('waits for the first set of a changed discovery, and keeps an endpoint that is in both', () => {
    const { cluster, discovery, discoveries } = started()
    discovery.tell([at('10.0.0.1'), at('10.0.0.2')])
    const [one] = [...cluster.endpoints] as [Endpoint]
    cluster.update(options({ discovery: { kind: 'dns', hostname: 'new.example', port: 5432 } }))
    assert.equal(discovery.isStopped, true)
    assert.equal(cluster.pick(0), 'dns_failed')
    discovery.tell([at('10.6.6.6')])
    assert.equal(cluster.isReady, false)
    discoveries[1]!.tell([at('10.0.0.1'), at('10.0.0.9')])
    assert.equal([...cluster.endpoints][0], one)
    assert.deepEqual(names(cluster), ['10.0.0.1:5432', '10.0.0.9:5432'])
  })

  it('tells when discovery fails, but not of one that it does not use any more', () => {
    const { cluster, discovery, changes } = started()
    discovery.fail('gone')
    cluster.update(options({ discovery: { kind: 'dns', hostname: 'new.example', port: 5432 } }))
    discovery.fail('gone again')
    assert.deepEqual(changes, ['discovery gone'])
  })

  it('destroys the pools of its endpoints', () => {
    const { cluster, discovery } = started()
    discovery.tell([at('10.0.0.1')])
    const [one] = [...cluster.endpoints] as [Endpoint]
    const calls: string[] = []
    one.pool = { retire: () => calls.push('retire'), destroy: () => calls.push('destroy') }
    cluster.destroy()
    assert.deepEqual(calls, ['retire', 'destroy'])
  })

  it('allows retries without a budget of their own up to the number in flight', () => {
    const cluster = new Cluster({ ...options(), budget: null }, { discover: (discovery) => new Told(discovery) })
    assert.deepEqual([cluster.budget.tryRetry(0), cluster.budget.tryRetry(0)], [true, false])
  })
})
