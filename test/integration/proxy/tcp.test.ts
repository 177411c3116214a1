import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, describe, it } from 'node:test'
import type { BreakerConfig } from '../../../common/proxy-config.ts'
import { TcpDriver } from '../../../proxy/protocol/tcp/driver.ts'
import { listenAtPath } from '../../../proxy/runtime/listen.ts'
import type { Address } from '../../../proxy/upstream/discovery/discovery.ts'
import { serving } from '../../helpers/serving.ts'
import { silentPort } from '../../helpers/silent-port.ts'
import { closedPort, echo, settled, TestClient, TestServer, tcpServer } from '../../helpers/tcp.ts'
import { type TcpProxySetup, tcpProxy } from '../../helpers/tcp-proxy.ts'

const BREAKER: BreakerConfig = {
  consecutiveFailures: 2,
  failureRate: null,
  openMs: 2_500,
  maxOpenMs: 2_500,
  halfOpenRequests: 1,
}
const ends: (() => unknown)[] = []
async function endAll(): Promise<void> {
  for (const end of ends.splice(0).reverse()) await end()
}

const proxy = (setup: TcpProxySetup) => tcpProxy(setup, ends)

async function server(serve: (socket: Socket) => void): Promise<TestServer> {
  const made = await tcpServer(serve)
  ends.push(() => made.close())
  return made
}

/** Collects everything until the other side ends, then does something with it. */
function whole(use: (data: Buffer, socket: Socket) => void): (socket: Socket) => void {
  return (socket) => {
    const chunks: Buffer[] = []
    socket.on('data', (chunk: Buffer) => chunks.push(chunk))
    socket.on('end', () => use(Buffer.concat(chunks), socket))
  }
}

async function until(condition: () => boolean): Promise<void> {
  while (!condition()) await new Promise((resolve) => setTimeout(resolve, 2))
}

describe('TCP relay', () => {
  afterEach(endAll)

  it('carries bytes both ways and tells of them when the connection has ended', async () => {
    const upstream = await server(echo)
    const { client, record, driver } = await proxy({ ports: [upstream.port] })
    const app = client().write('hello')
    assert.equal(await app.read(5), 'hello')
    assert.equal(driver.open, 1)
    assert.deepEqual([driver.totals.bytesIn, driver.totals.bytesOut], [5, 5])
    app.end(' world')
    assert.equal(await app.ended(), 'hello world')
    assert.equal(await app.closed(), null)
    const { durationMs, connectMs, queueMs, ...rest } = await record()
    assert.deepEqual(rest, {
      end: 'client_closed',
      detail: null,
      upstream: 'live',
      endpoint: `127.0.0.1:${upstream.port}`,
      attempts: 1,
      bytesIn: 11,
      bytesOut: 11,
      tlsMs: 0,
    })
    assert.ok(durationMs >= connectMs + queueMs && connectMs > 0)
    assert.equal(driver.open, 0)
    assert.deepEqual(driver.totals.ends, { client_closed: 1 })
    assert.deepEqual(
      [...driver.snapshot.cluster.endpoints].map(({ active }) => active),
      [0],
    )
    assert.equal(driver.snapshot.cluster.connections.used, 0)
  })

  it('carries a server that speaks first', async () => {
    const upstream = await server((socket) => socket.end('ready'))
    const { client, record } = await proxy({ ports: [upstream.port] })
    const app = client()
    assert.equal(await app.ended(), 'ready')
    app.end()
    assert.equal((await record()).end, 'upstream_closed')
  })

  it('carries a large random transfer in both directions at once without changing a byte', async () => {
    const { randomBytes, createHash } = await import('node:crypto')
    const upstream = await server(echo)
    const { client, record } = await proxy({ ports: [upstream.port] })
    const sent = createHash('sha256')
    const got = createHash('sha256')
    const app = client()
    app.socket.removeAllListeners('data')
    app.socket.on('data', (chunk: Buffer) => got.update(chunk))
    const sizes = [1, 100, 5_000, 70_000, 300_000, 1_000_000]
    let total = 0
    for (let i = 0; i < 60; i++) {
      const data = randomBytes(sizes[i % sizes.length]!)
      total += data.length
      sent.update(data)
      if (!app.socket.write(data)) await once(app.socket, 'drain')
    }
    app.end()
    await app.ended()
    assert.equal(got.digest('hex'), sent.digest('hex'))
    const { bytesIn, bytesOut } = await record()
    assert.deepEqual([bytesIn, bytesOut], [total, total])
  })

  it('keeps two connections apart that move data at the same time', async () => {
    const upstream = await server(echo)
    const { client } = await proxy({ ports: [upstream.port] })
    const apps = Array.from({ length: 20 }, (_, i) => ({ app: client(), letter: String.fromCharCode(97 + i) }))
    for (let round = 0; round < 20; round++) {
      for (const { app, letter } of apps) app.write(letter.repeat(1 + ((round * 7919) % 40_000)))
    }
    for (const { app } of apps) app.end()
    for (const { app, letter } of apps) assert.match(await app.ended(), new RegExp(`^${letter}+$`))
  })

  it('keeps a half-close of the application: the answer comes after it', async () => {
    const upstream = await server(whole((data, socket) => setTimeout(() => socket.end(`got ${data}`), 20)))
    const { client, record } = await proxy({ ports: [upstream.port] })
    const app = client().end('request')
    assert.equal(await app.ended(), 'got request')
    assert.equal((await record()).end, 'client_closed')
  })

  it('keeps a half-close of the upstream: the application can still send', async () => {
    const got = Promise.withResolvers<string>()
    const upstream = await server((socket) => {
      socket.end('enough')
      whole((data) => got.resolve(data.toString()))(socket)
    })
    const { client } = await proxy({ ports: [upstream.port] })
    const app = client()
    assert.equal(await app.ended(), 'enough')
    app.write('last ')
    app.end('words')
    assert.equal(await got.promise, 'last words')
  })

  it('keeps what the application sends before there is an upstream, also its half-close', async () => {
    const upstream = await server(whole((data, socket) => socket.end(`got ${data.length}`)))
    const { client, tell } = await proxy({ ports: [upstream.port], isLate: true })
    const small = client().end('x')
    const large = client().end('y'.repeat(3_000_000))
    await until(() => large.socket.bytesWritten > 100_000)
    tell()
    assert.equal(await small.ended(), 'got 1')
    assert.equal(await large.ended(), 'got 3000000')
  })

  it('passes a reset of the upstream on as a reset, after the bytes before it', async () => {
    const upstream = await server((socket) => {
      socket.write('partial')
    })
    const { client, record } = await proxy({ ports: [upstream.port] })
    const app = client()
    assert.equal(await app.read(7), 'partial')
    for (const socket of upstream.sockets) socket.resetAndDestroy()
    assert.equal(await app.closed(), 'ECONNRESET')
    const { end, detail } = await record()
    assert.deepEqual([end, detail], ['upstream_reset', 'the upstream broke the connection: ECONNRESET'])
  })

  it('passes a reset of the application on as a reset', async () => {
    const error = Promise.withResolvers<string | undefined>()
    const upstream = await server((socket) => {
      socket.on('error', ({ code }: NodeJS.ErrnoException) => error.resolve(code))
      socket.on('end', () => error.resolve('an orderly end'))
      socket.resume()
    })
    const { client, record } = await proxy({ ports: [upstream.port] })
    const app = client().write('x')
    await upstream.connections(1)
    await until(() => [...upstream.sockets][0]?.bytesRead === 1)
    app.socket.resetAndDestroy()
    assert.equal(await error.promise, 'ECONNRESET')
    assert.equal((await record()).end, 'client_gone')
  })

  it('stops reading from an upstream whose application does not read, and keeps no more than a read of it', async () => {
    const chunk = Buffer.alloc(1 << 20, 'x')
    let sent = 0
    const upstream = await server((socket) => {
      const more = () => {
        while (!socket.destroyed && socket.write(chunk)) sent += chunk.length
      }
      socket.on('drain', more)
      more()
    })
    const { client, driver } = await proxy({ ports: [upstream.port] })
    const before = process.memoryUsage().arrayBuffers
    const apps = Array.from({ length: 40 }, () => {
      const app = client()
      app.socket.pause()
      return app
    })
    await upstream.connections(40)
    await settled(() => driver.totals.bytesOut)
    const grown = process.memoryUsage().arrayBuffers - before
    // The server and the clients of this process have their own; 64 KiB for each stopped direction is ours.
    assert.ok(grown < 40 * 256 * 1024, `${grown} bytes`)
    assert.ok(sent >= 40 * 100_000)
    const before1 = apps[0]!.length
    apps[0]!.socket.resume()
    await apps[0]!.read(before1 + 20_000_000)
  })

  it('mixes no bytes of connections whose peers are slow, whatever the size of the pieces', async () => {
    const letters = [...'abcdefgh']
    const total = 16_000_000
    const upstream = await server((socket) => {
      socket.once('data', (first: Buffer) => {
        const letter = first.toString()
        // Half of them send pieces that are too small for memory of their own, the others both kinds.
        const sizes = letter < 'e' ? [8_000] : [700, 9_000, 60_000, 400_000]
        const pieces = sizes.map((size) => Buffer.alloc(size, letter))
        let left = total
        const more = (turn: number) => {
          const piece = pieces[turn % pieces.length]!.subarray(0, left)
          left -= piece.length
          if (piece.length === 0) socket.end()
          else if (socket.write(piece)) setImmediate(more, turn + 1)
          else socket.once('drain', () => more(turn + 1))
        }
        more(0)
      })
    })
    const { client, driver } = await proxy({ ports: [upstream.port] })
    for (let round = 0; round < 2; round++) {
      const apps = letters.map((letter) => client().write(letter))
      for (const app of apps) app.socket.pause()
      await settled(() => driver.totals.bytesOut)
      // Now every direction has stopped in the middle of a write.
      for (const app of apps) app.socket.resume()
      for (const [i, app] of apps.entries()) {
        await app.ended()
        assert.equal(app.received.equals(Buffer.alloc(total, letters[i])), true)
        app.end()
        await app.closed()
      }
    }
  })

  it('reads no more than a little of what comes before there is an upstream', async () => {
    const { client, driver, tell } = await proxy({ ports: [(await server(echo)).port], isLate: true })
    const app = client().end('y'.repeat(20_000_000))
    await until(() => driver.totals.bytesIn > 0)
    await settled(() => driver.totals.bytesIn)
    assert.ok(driver.totals.bytesIn <= 128 * 1024, `${driver.totals.bytesIn} bytes were read`)
    tell()
    assert.equal((await app.ended()).length, 20_000_000)
  })

  it('stops reading from an application whose upstream does not read, and goes on when it does', async () => {
    const size = 30_000_000
    const take = Promise.withResolvers<void>()
    const upstream = await server((socket) => {
      socket.pause()
      void take.promise.then(() => whole((data, each) => each.end(String(data.length)))(socket.resume()))
    })
    const { client, driver } = await proxy({ ports: [upstream.port] })
    const app = client()
    app.end('q'.repeat(size))
    await until(() => driver.totals.bytesIn > 0)
    await settled(() => driver.totals.bytesIn)
    assert.ok(driver.totals.bytesIn < size, `${driver.totals.bytesIn} bytes were read though nobody took them`)
    take.resolve()
    assert.equal(await app.ended(), String(size))
  })
})

// Waits for times of the product, so at the same time.
describe('a peer that is gone while nothing is read from it', { concurrency: true, timeout: 120_000 }, () => {
  after(endAll)
  const bulk = Buffer.alloc(1 << 20)

  it('is noticed when it is the application and the upstream neither reads nor is read', async () => {
    const upstream = await server((socket) => {
      const more = () => {
        while (!socket.destroyed && socket.write(bulk)) {}
      }
      socket.pause().on('drain', more)
      more()
    })
    const { client, record, driver } = await proxy({ ports: [upstream.port] })
    const app = client()
    app.socket.pause()
    app.write(Buffer.alloc(30_000_000))
    await settled(() => driver.totals.bytesIn + driver.totals.bytesOut)
    app.socket.resetAndDestroy()
    const { end, detail } = await record()
    assert.equal(end, 'client_gone')
    assert.match(detail ?? '', /^the application broke the connection: (ECONNRESET|EPIPE)$/)
  })

  it('is noticed when it is the application and the upstream does not read', async () => {
    const upstream = await server((socket) => socket.pause())
    const { client, record, driver } = await proxy({ ports: [upstream.port] })
    const app = client().write(Buffer.alloc(30_000_000))
    await settled(() => driver.totals.bytesIn)
    app.socket.resetAndDestroy()
    const { end, detail } = await record()
    assert.equal(end, 'client_gone')
    assert.match(detail ?? '', /^the application broke the connection: (ECONNRESET|EPIPE)$/)
  })

  it('is noticed when it is the application, which closed, and gets a last word', async () => {
    const upstream = await server((socket) => {
      socket.resume().on('end', () => socket.write('too late'))
    })
    const { client, record } = await proxy({ ports: [upstream.port] })
    const app = client().write('hello')
    await upstream.connections(1)
    app.socket.destroy()
    assert.equal((await record()).end, 'client_gone')
  })

  it('is noticed when it is the upstream, which closed, and gets a last word', async () => {
    const upstream = await server((socket) => {
      socket.once('data', () => socket.destroy())
    })
    const { client, record } = await proxy({ ports: [upstream.port] })
    const app = client().write('hello')
    await app.ended()
    app.write('too late')
    assert.equal((await record()).end, 'upstream_reset')
  })

  it('is waited for when it is only slow, or has only half-closed', async () => {
    const size = 30_000_000
    const go = Promise.withResolvers<void>()
    const upstream = await server((socket) => {
      let length = 0
      socket.pause().on('data', (chunk: Buffer) => {
        length += chunk.length
      })
      socket.on('end', () => socket.end(`got ${length}`))
      void go.promise.then(() => socket.resume())
    })
    const { client, record, driver } = await proxy({ ports: [upstream.port] })
    const [slow, patient] = [client(), client().end('x')]
    slow.socket.end(Buffer.alloc(size))
    await settled(() => driver.totals.bytesIn)
    // Long enough for both to be asked whether they are there.
    await new Promise((resolve) => setTimeout(resolve, 1_500))
    go.resolve()
    assert.deepEqual([await slow.ended(), await patient.ended()], [`got ${size}`, 'got 1'])
    assert.deepEqual([(await record(0)).end, (await record(1)).end], ['client_closed', 'client_closed'])
  })

  it('is not taken for broken when it closed a Unix socket: what it sent is for the upstream', async () => {
    const go = Promise.withResolvers<void>()
    const got = Promise.withResolvers<number | string>()
    const upstream = await server((socket) => {
      let length = 0
      socket.pause().on('data', (chunk: Buffer) => {
        length += chunk.length
      })
      socket.on('error', ({ message }) => got.resolve(message))
      socket.on('end', () => {
        got.resolve(length)
        socket.end()
      })
      void go.promise.then(() => socket.resume())
    })
    const { driver, record } = await proxy({ ports: [upstream.port] })
    const dir = mkdtempSync(join(tmpdir(), 'amb-relay-'))
    ends.push(() => rmSync(dir, { recursive: true }))
    const listener = listenAtPath(join(dir, 'app.sock'), 16, (accepted) => driver.serve(accepted), assert.ifError)
    ends.push(() => listener.close())
    const app = connect(join(dir, 'app.sock'))
    app.end(Buffer.alloc(100_000))
    await until(() => driver.totals.bytesIn === 100_000)
    app.destroy()
    // Long enough for it to be asked whether it is there.
    await new Promise((resolve) => setTimeout(resolve, 1_500))
    go.resolve()
    assert.equal(await got.promise, 100_000)
    assert.equal((await record()).end, 'client_closed')
  })
})

describe('TCP connection set-up', { concurrency: true, timeout: 120_000 }, () => {
  after(endAll)

  it('goes on to another endpoint when one refuses, without the application noticing', async () => {
    const upstream = await server(echo)
    const dead = await closedPort()
    const { client, record, driver } = await proxy({ ports: [dead, upstream.port], breaker: BREAKER })
    const begin = performance.now()
    const app = client().end('hello')
    assert.equal(await app.ended(), 'hello')
    const { end, attempts, endpoint } = await record()
    assert.deepEqual([end, attempts, endpoint], ['client_closed', 2, `127.0.0.1:${upstream.port}`])
    assert.deepEqual([driver.totals.dials, driver.totals.redials], [2, 1])
    assert.equal(driver.snapshot.cluster.budget.successes, 1)
    // The dead one is avoided for half a second at first: no second dial.
    assert.equal(await client().end('again').ended(), 'again')
    const { attempts: next } = await record(1)
    assert.ok(next === 1 || performance.now() - begin >= 500, `${next} attempts`)
  })

  it('resets the application when nobody accepts, with the reason', async () => {
    const dead = await closedPort()
    const { client, record } = await proxy({ ports: [dead] })
    assert.equal(await client().closed(), 'ECONNRESET')
    const { end, detail, attempts } = await record()
    assert.deepEqual(
      [end, detail, attempts],
      ['connect_refused', `endpoint 127.0.0.1:${dead} cannot be connected to: ECONNREFUSED`, 1],
    )
  })

  it('dials at most three endpoints, each once', async () => {
    const ports = await Promise.all([closedPort(), closedPort(), closedPort(), closedPort()])
    const { client, record } = await proxy({ ports })
    assert.equal(await client().closed(), 'ECONNRESET')
    assert.equal((await record()).attempts, 3)
  })

  it('does not try another endpoint when no concurrent retries are allowed', async () => {
    const upstream = await server(echo)
    const { client, record } = await proxy({
      ports: [await closedPort(), upstream.port],
      limits: { maxConcurrentRetries: 0 },
    })
    assert.equal(await client().closed(), 'ECONNRESET')
    assert.deepEqual([(await record()).end, (await record()).attempts], ['connect_refused', 1])
  })

  it('opens the circuit of an endpoint that refuses, and closes it by one connection when it is back', async () => {
    const port = await closedPort()
    const { client, record, cluster } = await proxy({ ports: [port], breaker: BREAKER })
    for (let i = 0; i < 3; i++) await client().closed()
    assert.deepEqual(
      [(await record(0)).end, (await record(1)).end, (await record(2)).end],
      ['connect_refused', 'connect_refused', 'circuit_open'],
    )
    assert.match(
      (await record(2)).detail ?? '',
      /^the circuit breakers of upstream 'live' are open, the next attempt may come in \d+ ms$/,
    )
    const back = await new TestServer(createServer({ allowHalfOpen: true }, echo)).listen(port)
    ends.push(() => back.close())
    await until(() => cluster.retryAfterMs(performance.now()) === 0)
    assert.equal(await client().end('hello').ended(), 'hello')
    assert.equal([...cluster.endpoints][0]?.breaker?.state, 'closed')
  })

  it('holds a connection that comes before the endpoints do', async () => {
    const upstream = await server(echo)
    const { client, tell, record, driver } = await proxy({
      ports: [upstream.port],
      isLate: true,
      timeouts: { connectMs: 30_000 },
    })
    const app = client().end('early bird')
    await until(() => driver.open === 1)
    await new Promise((resolve) => setTimeout(resolve, 100))
    tell()
    assert.equal(await app.ended(), 'early bird')
    assert.ok((await record()).queueMs >= 80)
  })

  it('gives up when no endpoint is found within the connect time-out', async () => {
    const { client, record } = await proxy({ isLate: true, timeouts: { connectMs: 60 } })
    assert.equal(await client().closed(), 'ECONNRESET')
    const { end, detail } = await record()
    assert.deepEqual([end, detail], ['dns_failed', "upstream 'live' has no endpoint yet"])
  })

  it('goes on to another endpoint at once when the one that it dials leaves discovery', async () => {
    const upstream = await server(echo)
    const silent = await silentPort(ends)
    const { client, found, record, cluster } = await proxy({ ports: [silent], timeouts: { connectMs: 600_000 } })
    const [old] = cluster.endpoints
    const app = client().end('x')
    await until(() => old?.active === 1)
    found([upstream.port])
    assert.equal(await app.ended(), 'x')
    const { end, attempts } = await record()
    assert.deepEqual([end, attempts], ['client_closed', 2])
    assert.deepEqual([old?.active, old?.failures, old?.tenants.size], [0, 0, 0])
  })

  it('stays with the endpoint that it dials when that has left and there is no other', async () => {
    const silent = await silentPort(ends)
    const { client, record, cluster } = await proxy({ ports: [silent], timeouts: { connectMs: 500 } })
    const [old] = cluster.endpoints
    const app = client()
    await until(() => old?.active === 1)
    cluster.close()
    assert.equal(await app.closed(), 'ECONNRESET')
    assert.equal((await record()).end, 'connect_timeout')
    assert.deepEqual([old?.active, old?.tenants.size], [0, 0])
  })

  it('forgets a connection whose application leaves while it is held', async () => {
    const { client, record, driver } = await proxy({ isLate: true, breaker: BREAKER })
    const app = client()
    await until(() => driver.open === 1)
    app.socket.resetAndDestroy()
    assert.equal((await record()).end, 'client_gone')
    assert.equal(driver.open, 0)
  })
})

describe('TCP limits', { concurrency: true, timeout: 120_000 }, () => {
  after(endAll)

  it('queues connections above the limit, the oldest first, and refuses above the queue', async () => {
    const upstream = await server(echo)
    const { client, record, cluster } = await proxy({
      ports: [upstream.port],
      limits: { maxConnections: 1, maxPendingRequests: 2 },
    })
    const first = client().write('1')
    await first.read(1)
    const second = client().write('2')
    await until(() => cluster.connections.pending === 1)
    const third = client().write('3')
    await until(() => cluster.connections.pending === 2)
    assert.equal(await client().closed(), 'ECONNRESET')
    const refused = await record()
    assert.deepEqual([refused.end, refused.detail], ['queue_full', "upstream 'live' has 1 connections and 2 wait"])
    assert.equal(upstream.accepted, 1)
    first.end()
    await second.read(1)
    assert.equal(third.length, 0)
    second.end()
    await third.read(1)
    assert.equal(upstream.accepted, 3)
  })

  it('waits on when its turn comes while the endpoints of a changed config are looked up', async () => {
    const old = await server((socket) => void socket.write('old'))
    const young = await server((socket) => void socket.end('young'))
    const starts: ((addresses: readonly Address[]) => void)[] = []
    const at = (port: number) => [{ host: '127.0.0.1', ip: '127.0.0.1', port, weight: 1, priority: 0 }]
    const proxy = await tcpProxy(
      {
        limits: { maxConnections: 1 },
        discovery: { failure: null, start: (onChange) => starts.push(onChange), refresh() {}, stop() {} },
      },
      ends,
    )
    starts[0]!(at(old.port))
    const first = proxy.client()
    await first.read(3)
    const second = proxy.client()
    while (proxy.cluster.connections.pending < 1) await new Promise((resolve) => setImmediate(resolve))
    proxy.cluster.update({
      config: { ...proxy.cluster.config, discovery: { kind: 'dns', hostname: 'other', port: 1 } },
      tls: null,
      budget: null,
      probeTimeoutMs: 1000,
      queue: 'Oldest',
    })
    first.socket.resetAndDestroy()
    await proxy.record(0)
    starts[1]!(at(young.port))
    assert.equal(await second.ended(), 'young')
  })

  it('gives up waiting for a connection after the connect time-out', async () => {
    const upstream = await server(echo)
    const { client, record, cluster } = await proxy({
      ports: [upstream.port],
      limits: { maxConnections: 1 },
      timeouts: { connectMs: 1_000 },
    })
    await client().write('1').read(1)
    assert.equal(await client().closed(), 'ECONNRESET')
    const { end, detail } = await record()
    assert.deepEqual(
      [end, detail],
      ['queue_full', "none of the 1 connections of upstream 'live' became free in 1000 ms"],
    )
    assert.equal(cluster.connections.pending, 0)
  })

  it('frees the place of a connection that leaves the queue', async () => {
    const upstream = await server(echo)
    const { client, record, cluster } = await proxy({
      ports: [upstream.port],
      limits: { maxConnections: 1, maxPendingRequests: 1 },
    })
    await client().write('1').read(1)
    const waiting = client()
    await until(() => cluster.connections.pending === 1)
    waiting.socket.resetAndDestroy()
    assert.equal((await record()).end, 'client_gone')
    assert.equal(cluster.connections.pending, 0)
  })

  it('frees the place of a connection that leaves the queue after it has spoken', async () => {
    const upstream = await server(echo)
    const { client, record, driver, cluster } = await proxy({
      ports: [upstream.port],
      limits: { maxConnections: 1, maxPendingRequests: 1 },
      timeouts: { connectMs: 60_000 },
    })
    await client().write('1').read(1)
    const waiting = client().write('hello')
    await until(() => driver.totals.bytesIn === 6)
    waiting.socket.resetAndDestroy()
    const { end, bytesIn } = await record()
    assert.deepEqual([end, bytesIn, cluster.connections.pending], ['client_gone', 5, 0])
  })

  it('frees the place of a connection that is closed in the queue, and not that of one that half-closed', async () => {
    const upstream = await server((socket) => {
      socket.write('ready')
      socket.resume().on('end', () => socket.end())
    })
    const { client, record, driver, cluster } = await proxy({
      ports: [upstream.port],
      limits: { maxConnections: 1, maxPendingRequests: 3 },
      timeouts: { connectMs: 60_000 },
    })
    const first = client()
    await first.read(5)
    const [halfClosed, spoke, closed] = [client().end(), client().write('bye'), client()]
    await until(() => cluster.connections.pending === 3)
    await until(() => driver.totals.bytesIn === 3)
    spoke.socket.destroy()
    closed.socket.destroy()
    const { end, detail } = await record()
    assert.deepEqual(
      [end, detail],
      ['client_gone', 'the application left before there was a connection to the upstream'],
    )
    assert.equal(cluster.connections.pending, 2)
    first.socket.resetAndDestroy()
    // What was sent before the end is for the upstream, though nobody waits for an answer.
    assert.equal(await halfClosed.ended(), 'ready')
    assert.equal((await record(2)).end, 'client_closed')
    assert.equal((await record(3)).bytesIn, 3)
  })

  it('refuses connections above the rate', async () => {
    const upstream = await server(echo)
    const { client, record } = await proxy({
      ports: [upstream.port],
      rateLimit: { requests: 1, perMs: 60_000, burst: 2, onLimit: 'Reject', maxDelayMs: 0 },
    })
    await client().write('1').read(1)
    await client().write('2').read(1)
    assert.equal(await client().closed(), 'ECONNRESET')
    const { end, detail } = await record()
    assert.equal(end, 'rate_limited')
    assert.match(detail ?? '', /^the rate limit is reached, the next connection may come in \d{5} ms$/)
  })

  it('delays connections above the rate, and gives the turn of one that leaves to the next', async () => {
    const upstream = await server(echo)
    // Behind one that waits, the next would have to wait for longer than it may.
    const { client, record, snapshot } = await proxy({
      ports: [upstream.port],
      rateLimit: { requests: 1, perMs: 2_500, burst: 1, onLimit: 'Delay', maxDelayMs: 3_000 },
    })
    await client().write('1').read(1)
    const leaving = client()
    await until(() => snapshot.rateLimit?.delayed === 1)
    leaving.socket.resetAndDestroy()
    assert.equal((await record()).end, 'client_gone')
    const app = client().write('3')
    await app.read(1)
    assert.equal(snapshot.rateLimit?.limited, 0)
    app.end()
    assert.ok((await record(1)).queueMs > 0)
  })

  it('ends a connection in which no byte moves for the idle time, in order', async () => {
    const upstream = await server(echo)
    const { client, record } = await proxy({ ports: [upstream.port], timeouts: { idleMs: 1_500 } })
    const app = client()
    for (let i = 0; i < 4; i++) {
      app.write('x')
      await app.read(i + 1)
      await new Promise((resolve) => setTimeout(resolve, 400))
    }
    assert.equal(await app.ended(), 'xxxx')
    app.end()
    assert.equal(await app.closed(), null)
    assert.equal((await record()).end, 'idle_timeout')
    await until(() => upstream.sockets.size === 0)
  })
})

describe('TCP driver', () => {
  afterEach(endAll)

  it('serves new connections by a new snapshot while open ones live on', async () => {
    const before = await server(echo)
    const after = await server((socket) => socket.end('new'))
    const first = await proxy({ ports: [before.port] })
    const second = await proxy({ ports: [after.port] })
    const open = first.client().write('a')
    await open.read(1)
    first.driver.update(second.snapshot)
    assert.equal(await first.client().ended(), 'new')
    assert.equal(await open.write('b').read(2), 'ab')
  })

  it('lets a connection run to its end when its endpoint has left', async () => {
    const upstream = await server(echo)
    const { client, cluster } = await proxy({ ports: [upstream.port] })
    const app = client().write('a')
    await app.read(1)
    cluster.close()
    assert.equal(await app.write('b').read(2), 'ab')
  })

  it('drains by waiting for the open connections, and reports when the last has ended', async () => {
    const upstream = await server(echo)
    const { client, driver } = await proxy({ ports: [upstream.port] })
    await driver.drain()
    const [one, two] = [client().write('1'), client().write('2')]
    await Promise.all([one.read(1), two.read(1)])
    let isDrained = false
    const drained = driver.drain().then(() => {
      isDrained = true
    })
    one.end()
    await one.closed()
    assert.equal(isDrained, false)
    assert.equal(driver.busy, 1)
    two.end()
    await drained
  })

  it('ends everything at once when it is destroyed, also what waits', async () => {
    const upstream = await server(echo)
    const { client, driver, record, cluster } = await proxy({ ports: [upstream.port], limits: { maxConnections: 1 } })
    const open = client().write('1')
    await open.read(1)
    const waiting = client()
    await until(() => cluster.connections.pending === 1)
    const drained = driver.drain()
    driver.destroy()
    assert.deepEqual([await open.closed(), await waiting.closed()], ['ECONNRESET', 'ECONNRESET'])
    await drained
    assert.deepEqual([(await record(0)).end, (await record(1)).end], ['draining', 'draining'])
    assert.deepEqual([cluster.connections.used, cluster.connections.pending, driver.open], [0, 0, 0])
  })

  it('logs failures and a sample of the rest with Errors, and nothing with Off', async () => {
    const upstream = await server(echo)
    const logged: string[] = []
    const { snapshot } = await proxy({ ports: [upstream.port] })
    for (const [mode, sample, random] of [
      ['Errors', 0.5, 0.4],
      ['Errors', 0.5, 0.6],
      ['Errors', 0, 0],
      ['Off', 1, 0],
    ] as const) {
      const driver = new TcpDriver({
        snapshot: { ...snapshot, accessLog: { mode, sample } },
        random: () => random,
        onLogged: ({ end }) => logged.push(`${mode} ${sample} ${random} ${end}`),
      })
      const listener = serving((accepted) => driver.serve(accepted))
      ends.push(() => listener.close())
      const orderly = new TestClient({ port: listener.port }).end('x')
      await orderly.closed()
      const broken = new TestClient({ port: listener.port }).write('x')
      await broken.read(1)
      broken.socket.resetAndDestroy()
      await until(() => driver.totals.ends.client_gone === 1)
    }
    assert.deepEqual(logged, [
      'Errors 0.5 0.4 client_closed',
      'Errors 0.5 0.4 client_gone',
      'Errors 0.5 0.6 client_gone',
      'Errors 0 0 client_gone',
    ])
  })
})
