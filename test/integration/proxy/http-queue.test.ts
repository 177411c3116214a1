/** Requests that wait because every connection is busy: which endpoint they get when one becomes free. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { hashShare } from '../../../proxy/routing/router.ts'
import type { Cluster } from '../../../proxy/upstream/cluster.ts'
import type { Address } from '../../../proxy/upstream/discovery/discovery.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { httpProxy } from '../../helpers/http-proxy.ts'
import { scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'

const ends = endsOfEach()

/** An upstream whose answers are given when the test says so, with its number in the body. */
async function held(name: string, status = 200, ...lines: string[]) {
  const gates: (() => void)[] = []
  let isOpen = false
  const upstream = await scriptedUpstream(ends, async () => {
    if (!isOpen) await new Promise<void>((resolve) => gates.push(resolve))
    return withStatus(status, name, ...lines)
  })
  return {
    upstream,
    /** Answers the request that has waited longest. */
    answer: () => gates.shift()?.(),
    open: () => {
      isOpen = true
      for (const gate of gates.splice(0)) gate()
    },
  }
}

/** A user of each of two sides, found as the proxy does it. */
function sides(cluster: Cluster, port: number) {
  const sideOf = (user: string) => {
    const picked = cluster.pick(performance.now(), [], hashShare(user))
    assert.ok(typeof picked !== 'string')
    return picked.port
  }
  const users = Array.from({ length: 50 }, (_, i) => `user-${i}`)
  return { atOne: users.find((user) => sideOf(user) === port)!, atTwo: users.find((user) => sideOf(user) !== port)! }
}

const BREAKER = { consecutiveFailures: 1, failureRate: null, openMs: 60_000, maxOpenMs: 60_000, halfOpenRequests: 1 }

describe('a request that waits for a connection', () => {
  it('goes elsewhere at once when the endpoint of the one that became free has an open breaker', async () => {
    const bad = await held('bad', 500)
    const good = await held('good')
    good.open()
    const proxy = await httpProxy(
      {
        ports: [bad.upstream.port, good.upstream.port],
        isRanked: true,
        limits: { maxConnections: 1 },
        breaker: BREAKER,
      },
      ends,
    )
    const first = proxy.connect().get()
    await bad.upstream.request(0)
    const second = proxy.connect().get()
    while (proxy.cluster.connections.pending < 1) await new Promise((resolve) => setImmediate(resolve))
    bad.answer()
    assert.equal((await first.response()).status, 500)
    assert.equal((await second.response()).body, 'good')
    const [, record] = await proxy.recorded(2)
    // The connection that rests at the endpoint with the open breaker would be kept for four seconds.
    assert.ok(record!.queueMs < 3_000, `it waited for ${record!.queueMs} ms`)
    assert.equal(bad.upstream.requests.length, 1)
  })

  it('goes where its hash says, not where a connection became free', async () => {
    const one = await held('one')
    const two = await held('two')
    const proxy = await httpProxy(
      {
        ports: [one.upstream.port, two.upstream.port],
        limits: { maxConnections: 1 },
        cluster: { loadBalancing: { policy: 'ConsistentHash', hashOn: { kind: 'header', name: 'x-user' } } },
      },
      ends,
    )
    const { atOne, atTwo } = sides(proxy.cluster, one.upstream.port)
    one.open()
    two.open()
    assert.equal((await proxy.connect().get('/', `X-User: ${atOne}`).response()).body, 'one')
    const clients = Array.from({ length: 8 }, (_, i) =>
      proxy.connect().get('/', `X-User: ${i % 2 === 0 ? atOne : atTwo}`),
    )
    const bodies = await Promise.all(clients.map(async (client) => (await client.response()).body))
    assert.deepEqual(bodies, ['one', 'two', 'one', 'two', 'one', 'two', 'one', 'two'])
  })

  it('leaves a connection to another endpoint to one behind it, so that none is closed while somebody wants it', async () => {
    const one = await held('one')
    const two = await held('two')
    const proxy = await httpProxy(
      {
        ports: [one.upstream.port, two.upstream.port],
        limits: { maxConnections: 2, maxPendingRequests: 100 },
        cluster: { loadBalancing: { policy: 'ConsistentHash', hashOn: { kind: 'header', name: 'x-user' } } },
      },
      ends,
    )
    const { atOne, atTwo } = sides(proxy.cluster, one.upstream.port)
    const busy = [proxy.connect().get('/', `X-User: ${atOne}`), proxy.connect().get('/', `X-User: ${atTwo}`)]
    await Promise.all([one.upstream.request(0), two.upstream.request(0)])
    const waiting = []
    for (const user of [atOne, atTwo]) {
      for (let at = 0; at < 6; at++) {
        waiting.push(proxy.connect().get('/', `X-User: ${user}`))
        const count = waiting.length
        while (proxy.cluster.connections.pending < count) await new Promise((resolve) => setImmediate(resolve))
      }
    }
    two.open()
    for (const client of [busy[1]!, ...waiting.slice(6)]) assert.equal((await client.response()).body, 'two')
    one.open()
    for (const client of [busy[0]!, ...waiting.slice(0, 6)]) assert.equal((await client.response()).body, 'one')
    // The slot of the connection that nobody waited for any more became a second one to the other side.
    assert.deepEqual([one.upstream.connections, two.upstream.connections], [2, 1])
  })

  it('goes to another endpoint when it is there for its second try', async () => {
    const bad = await held('bad', 503)
    const good = await held('good')
    const proxy = await httpProxy(
      { ports: [bad.upstream.port, good.upstream.port], isRanked: true, limits: { maxConnections: 1 }, retry: {} },
      ends,
    )
    const first = proxy.connect().get()
    await bad.upstream.request(0)
    // The second one takes the only connection while the first rests before its second try.
    const second = proxy.connect().get()
    while (proxy.cluster.connections.pending < 1) await new Promise((resolve) => setImmediate(resolve))
    good.open()
    bad.open()
    assert.equal((await first.response()).body, 'good')
    assert.equal((await second.response()).body, 'good')
    assert.ok(bad.upstream.requests.length <= 2, 'none came to the failing endpoint twice')
  })

  it('goes back to the first priority though connections to the second never rest', async () => {
    const first = await held('first')
    const second = await held('second')
    first.open()
    const proxy = await httpProxy(
      {
        ports: [first.upstream.port, second.upstream.port],
        isRanked: true,
        limits: { maxConnections: 2, maxPendingRequests: 100 },
      },
      ends,
    )
    const [primary] = [...proxy.cluster.endpoints]
    primary!.isHealthy = false
    const before = [proxy.connect().get(), proxy.connect().get()]
    await second.upstream.request(1)
    const waiting = Array.from({ length: 20 }, () => proxy.connect().get())
    while (proxy.cluster.connections.pending < 20) await new Promise((resolve) => setImmediate(resolve))
    primary!.isHealthy = true
    second.open()
    for (const client of before) assert.equal((await client.response()).body, 'second')
    for (const client of waiting) assert.equal((await client.response()).body, 'first')
  })

  it('finds an endpoint that is new, though connections to the old one never rest', async () => {
    const old = await held('old')
    const young = await held('young')
    young.open()
    const proxy = await httpProxy(
      { ports: [old.upstream.port], limits: { maxConnections: 4, maxPendingRequests: 100 } },
      ends,
    )
    const clients = Array.from({ length: 44 }, () => proxy.connect().get())
    await old.upstream.request(3)
    while (proxy.cluster.connections.pending < 40) await new Promise((resolve) => setImmediate(resolve))
    proxy.found([old.upstream.port, young.upstream.port])
    old.open()
    const bodies = await Promise.all(clients.map(async (client) => (await client.response()).body))
    const count = bodies.filter((body) => body === 'young').length
    assert.ok(count >= 5, `${count} of 40 came to the new endpoint`)
    assert.ok(old.upstream.connections + young.upstream.connections <= 8, 'connections are kept')
  })

  for (const connection of ['keep-alive', 'close'])
    it(`waits on when its turn comes while the endpoints of a changed config are looked up (${connection})`, async () => {
      const old = await held('old', 200, `Connection: ${connection}`)
      const young = await held('young')
      young.open()
      const starts: ((addresses: readonly Address[]) => void)[] = []
      const at = (port: number) => [{ host: '127.0.0.1', ip: '127.0.0.1', port, weight: 1, priority: 0 }]
      const proxy = await httpProxy(
        {
          limits: { maxConnections: 1 },
          discovery: { failure: null, start: (onChange) => starts.push(onChange), refresh() {}, stop() {} },
        },
        ends,
      )
      starts[0]!(at(old.upstream.port))
      const first = proxy.connect().get()
      await old.upstream.request(0)
      const second = proxy.connect().get()
      while (proxy.cluster.connections.pending < 1) await new Promise((resolve) => setImmediate(resolve))
      proxy.cluster.update({
        config: { ...proxy.cluster.config, discovery: { kind: 'dns', hostname: 'other', port: 1 } },
        tls: null,
        budget: null,
        probeTimeoutMs: 5000,
        queue: 'Newest',
      })
      old.answer()
      assert.equal((await first.response()).body, 'old')
      starts[1]!(at(young.upstream.port))
      assert.equal((await second.response()).body, 'young')
    })

  it('that does not come before its deadline is told when to ask again', async () => {
    const busy = await held('busy')
    const proxy = await httpProxy(
      { ports: [busy.upstream.port], limits: { maxConnections: 1 }, timeouts: { requestMs: 60_000 } },
      ends,
    )
    const first = proxy.connect().get()
    await busy.upstream.request(0)
    const hasty = { ...proxy.snapshot, timeouts: { ...proxy.snapshot.timeouts, requestMs: 50 } }
    proxy.driver.update(hasty)
    const response = await proxy.connect().get().response()
    assert.equal(response.status, 503)
    assert.equal(response.field('x-ambassador-reason'), 'queue_full')
    assert.equal(response.field('retry-after'), '1')
    busy.open()
    assert.equal((await first.response()).status, 200)
  })

  it('keeps to a limit that was lowered, though connections that are more than it allows would do', async () => {
    let most = 0
    let running = 0
    const gates: (() => void)[] = []
    const upstream = await scriptedUpstream(ends, async () => {
      most = Math.max(most, ++running)
      await new Promise<void>((resolve) => gates.push(resolve))
      running--
      return withStatus(200, 'ok')
    })
    const proxy = await httpProxy({ ports: [upstream.port], limits: { maxConnections: 6 } }, ends)
    const round = async (size: number, during: () => void): Promise<void> => {
      const clients = Array.from({ length: size }, () => proxy.connect().get())
      while (running + proxy.cluster.connections.pending < size) await new Promise((resolve) => setImmediate(resolve))
      during()
      let done = 0
      const answers = clients.map((client) => client.response().then(() => done++))
      while (done < size) {
        for (const gate of gates.splice(0)) gate()
        await new Promise((resolve) => setImmediate(resolve))
      }
      await Promise.all(answers)
    }
    const lower = (maxConnections: number): void => {
      const { config } = proxy.cluster
      proxy.cluster.update({
        config: { ...config, limits: { ...config.limits, maxConnections } },
        tls: null,
        budget: null,
        probeTimeoutMs: 5000,
        queue: 'Newest',
      })
    }
    await round(6, () => lower(4))
    assert.equal(proxy.cluster.connections.used, 4, 'what was busy is closed at the end of its request')
    lower(2)
    assert.equal(proxy.cluster.connections.used, 2, 'what rested is closed at once')
    most = 0
    await round(6, () => {})
    assert.equal(most, 2)
  })
})
