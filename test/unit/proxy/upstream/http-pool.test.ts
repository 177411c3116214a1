import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { LimitsConfig } from '../../../../common/proxy-config.ts'
import { now, refreshClock } from '../../../../proxy/runtime/clock.ts'
import { NO_HANDLER, type RawSocket } from '../../../../proxy/runtime/raw-socket.ts'
import { Cluster } from '../../../../proxy/upstream/cluster.ts'
import type { Endpoint } from '../../../../proxy/upstream/endpoint.ts'
import type { ConnectionWaiter } from '../../../../proxy/upstream/handover.ts'
import { type ConnectionUser, HttpPool, UpstreamConnection } from '../../../../proxy/upstream/http-pool.ts'

/** What the pool asks of a socket. */
class FakeSocket {
  handler = NO_HANDLER
  backlog = 0
  ended = false
  destroyed = false
  isPaused = false
  resume(): void {
    this.isPaused = false
  }
  destroy(): void {
    this.destroyed = true
  }
}

const USER: ConnectionUser = { onUpstreamData() {}, onUpstreamEnd() {}, onUpstreamDrain() {}, onUpstreamClose() {} }

function setUp(host = 'api.example', port = 8080, limits: Partial<LimitsConfig> = {}) {
  const cluster = new Cluster(
    {
      config: {
        name: 'live',
        discovery: { kind: 'dns', hostname: 'unused', port: 1 },
        tls: null,
        auth: null,
        circuitBreaker: null,
        limits: { maxConnections: 2, maxPendingRequests: 2, maxConcurrentRetries: 1, ...limits },
      },
      tls: null,
      budget: null,
      probeTimeoutMs: 1000,
      queue: 'Newest',
    },
    {
      discover: () => ({
        failure: null,
        start: (onChange) => onChange([{ host, ip: '10.0.0.1', port, weight: 1, priority: 0 }]),
        refresh() {},
        stop() {},
      }),
    },
  )
  cluster.start()
  const endpoint = [...cluster.endpoints][0] as Endpoint
  const pool = HttpPool.of(cluster, endpoint)
  const open = (): { connection: UpstreamConnection; socket: FakeSocket } => {
    assert.ok(cluster.connections.tryAcquire())
    const socket = new FakeSocket()
    const connection = pool.onDialled(null as never, socket as unknown as RawSocket, endpoint)
    connection.use(USER)
    return { connection, socket }
  }
  return { cluster, endpoint, pool, open }
}

describe('HttpPool', () => {
  it('says its endpoint’s configured name in Host, with the port unless it is the default', () => {
    assert.equal(setUp('api.example', 8080).pool.host.toString(), 'api.example:8080')
    assert.equal(setUp('api.example', 80).pool.host.toString(), 'api.example')
    assert.equal(setUp('fd00::1', 443).pool.host.toString(), '[fd00::1]:443')
  })

  it('ends a connection at the boundary of the request that uses up its number (ten thousand), up to a tenth earlier', () => {
    for (const [max, least] of [
      [1, 1],
      [10, 9],
      [undefined, 9000],
    ] as const) {
      const limits = max === undefined ? {} : { maxConnectionRequests: max }
      const { pool, open } = setUp('api.example', 8080, limits)
      const { connection, socket } = open()
      let requests = 1
      for (;;) {
        pool.giveBack(connection, -1)
        if (socket.destroyed) break
        assert.equal(pool.take(now()), connection)
        connection.use(USER)
        requests++
      }
      assert.ok(requests >= least && requests <= (max ?? 10_000), `${requests} of ${max}`)
    }
  })

  it('ends a connection that is too old when its request ends, and one that rests when its time is up', async () => {
    const { pool, open } = setUp('api.example', 8080, { maxConnectionAgeMs: 100 })
    const busy = open()
    const oldAt = refreshClock() + 110 // ages differ by a tenth
    const resting = open()
    pool.giveBack(resting.connection, -1)
    assert.equal(pool.idle, 1)
    while (!resting.socket.destroyed || refreshClock() < oldAt) await new Promise((resolve) => setTimeout(resolve, 5))
    assert.equal(busy.socket.destroyed, false, 'its request goes on')
    pool.giveBack(busy.connection, -1)
    assert.equal(busy.socket.destroyed, true)
    assert.equal(pool.open, 0)
  })

  it('keeps a connection of any age when there is no limit', () => {
    const { pool, open } = setUp('api.example', 8080, { maxConnectionAgeMs: null })
    const { connection, socket } = open()
    pool.giveBack(connection, -1)
    assert.equal(socket.destroyed, false)
    assert.equal(pool.take(now() + 3_999), connection)
  })

  it('gives out the connection that was used last', () => {
    const { pool, open } = setUp()
    const one = open()
    const two = open()
    pool.giveBack(one.connection, -1)
    pool.giveBack(two.connection, -1)
    assert.equal(pool.take(now()), two.connection)
    assert.equal(pool.take(now()), one.connection)
    assert.equal(pool.take(now()), null)
  })

  it('lets one rest for 4 s, or a second less than its server says', () => {
    for (const [serverSeconds, restMs] of [
      [-1, 4000],
      [5, 4000],
      [20, 19_000],
      [3600, 60_000],
    ] as const) {
      const { pool, open } = setUp()
      const { connection } = open()
      refreshClock()
      pool.giveBack(connection, serverSeconds)
      assert.ok(connection.isFresh(now() + restMs - 1), String(serverSeconds))
      assert.ok(!connection.isFresh(now() + restMs), String(serverSeconds))
      connection.destroy()
    }
  })

  it('keeps none that the server closes at once, that has ended, or that has not sent everything', () => {
    const { pool, open, cluster } = setUp()
    const cases: ((socket: FakeSocket) => number)[] = [
      () => 1,
      () => 0,
      (socket) => {
        socket.ended = true
        return -1
      },
      (socket) => {
        socket.backlog = 1
        return -1
      },
    ]
    for (const prepare of cases) {
      const { connection, socket } = open()
      pool.giveBack(connection, prepare(socket))
      assert.ok(socket.destroyed)
      assert.equal(pool.idle, 0)
      assert.equal(cluster.connections.used, 0)
    }
  })

  it('reads from one that a slow client had paused', () => {
    const { pool, open } = setUp()
    const { connection, socket } = open()
    socket.isPaused = true
    pool.giveBack(connection, -1)
    assert.equal(socket.isPaused, false)
    connection.destroy()
  })

  it('gives one to the first of those who wait that goes on at its endpoint, and the slot to the next one when none does', () => {
    const { pool, open, cluster } = setUp()
    const { connection } = open()
    const log: string[] = []
    const waiter = (name: string, takes: boolean): ConnectionWaiter => ({
      nextWaiter: null,
      previousWaiter: null,
      waitsAt: null,
      passedOver: 0,
      onSlot: () => log.push(`slot for ${name}`),
      takes: () => takes,
      onIdleConnection(given) {
        assert.equal(given, connection)
        log.push(`connection for ${name}`)
      },
    })
    // The newest is the next one.
    cluster.connections.wait(waiter('b', true))
    cluster.connections.wait(waiter('a', false))
    pool.giveBack(connection, -1)
    assert.deepEqual(log, ['connection for b'])
    assert.equal(pool.idle, 0)
    connection.use(USER)
    pool.giveBack(connection, -1)
    assert.deepEqual(log, ['connection for b', 'slot for a'])
    assert.equal(pool.idle, 0)
  })

  it('gives the slot to the next one that waits when eight connections went to those behind it', () => {
    const { pool, open, cluster } = setUp(undefined, undefined, { maxConnections: 1, maxPendingRequests: 10 })
    const { connection } = open()
    let slots = 0
    let given = 0
    const waiter = (takes: boolean): ConnectionWaiter => ({
      nextWaiter: null,
      previousWaiter: null,
      waitsAt: null,
      passedOver: 0,
      onSlot: () => slots++,
      takes: () => takes,
      onIdleConnection: () => given++,
    })
    for (let at = 0; at < 9; at++) cluster.connections.wait(waiter(true))
    cluster.connections.wait(waiter(false))
    for (let at = 0; at < 8; at++) {
      pool.giveBack(connection, -1)
      connection.use(USER)
    }
    assert.deepEqual({ given, slots }, { given: 8, slots: 0 })
    pool.giveBack(connection, -1)
    assert.deepEqual({ given, slots }, { given: 8, slots: 1 })
  })

  it('frees the slot of a connection once, whoever closes it', () => {
    const { open, cluster, pool } = setUp()
    const { connection } = open()
    connection.destroy()
    connection.onClose(null)
    assert.equal(cluster.connections.used, 0)
    const other = open().connection
    pool.giveBack(other, -1)
    other.onEnd()
    assert.equal(cluster.connections.used, 0)
    assert.equal(pool.idle, 0)
  })

  it('closes what is idle when its endpoint goes, and what is busy when it is given back', () => {
    const { open, endpoint, pool, cluster } = setUp()
    const idle = open()
    const busy = open()
    pool.giveBack(idle.connection, -1)
    endpoint.retire()
    assert.ok(idle.socket.destroyed)
    assert.ok(!busy.socket.destroyed)
    pool.giveBack(busy.connection, -1)
    assert.ok(busy.socket.destroyed)
    assert.equal(cluster.connections.used, 0)
  })

  it('tells the user of a connection that breaks, after its slot is free', () => {
    const { pool, cluster, endpoint } = setUp()
    assert.ok(cluster.connections.tryAcquire())
    const connection = pool.onDialled(null as never, new FakeSocket() as unknown as RawSocket, endpoint)
    let usedThen = -1
    connection.use({
      ...USER,
      onUpstreamClose: () => {
        usedThen = cluster.connections.used
      },
    })
    assert.ok(connection instanceof UpstreamConnection)
    connection.onClose(new Error('broken'))
    assert.equal(usedThen, 0)
  })
})
