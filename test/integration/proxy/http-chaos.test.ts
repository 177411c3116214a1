/** Everything at once: clients that leave, pipeline and dawdle, upstreams that fail in every way; afterwards nothing is left over. */
import assert from 'node:assert/strict'
import { connect, type Socket } from 'node:net'
import { it } from 'node:test'
import { keptForReplay } from '../../../proxy/protocol/http1/outgoing.ts'
import { lentPieces } from '../../../proxy/runtime/buffers.ts'
import { HttpPool } from '../../../proxy/upstream/http-pool.ts'
import { SeededRandom } from '../../fuzz/random.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { httpProxy } from '../../helpers/http-proxy.ts'
import { ok, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'
import { llhttp } from '../../helpers/llhttp.ts'

const ends = endsOfEach()

const SEED = Number(process.env['CHAOS_SEED'] ?? Math.floor(Date.now() / 1000))
const CLIENTS = 120
const LARGE = 300_000

it(`leaves nothing behind (seed ${SEED})`, { timeout: 120_000 }, async (t) => {
  const random = new SeededRandom(SEED)
  const sleep = (): Promise<void> => new Promise((resolve) => setTimeout(resolve, random.below(15)))
  /** How often each POST came. */
  const posts = new Map<string, number>()
  const pipelined = new Set<string>()
  let next = 0
  const upstreams = await Promise.all(
    [0, 1, 2].map(() =>
      scriptedUpstream(ends, async ({ socket, target, body, method }) => {
        if (method === 'POST') posts.set(target, (posts.get(target) ?? 0) + 1)
        socket.on('error', () => {})
        const mark = `${target} ${body.length}`
        switch (random.below(14)) {
          case 0:
            socket.destroy()
            return null
          case 1:
            socket.resetAndDestroy()
            return null
          case 2:
            return withStatus(random.pick([500, 503, 429]), mark)
          case 3:
            socket.write('HTTP/1.1 200 OK\r\nContent-Length: 100\r\n\r\nhalf')
            await sleep()
            socket.destroy()
            return null
          case 4:
            socket.end(ok(mark))
            return null
          case 5:
            return `HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n${mark.length.toString(16)}\r\n${mark}\r\n0\r\n\r\n`
          case 6:
            return Buffer.concat([
              Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${LARGE}\r\n\r\n`),
              Buffer.alloc(LARGE, 'x'),
            ])
          case 7:
            return random.below(3) === 0 ? null : ok(mark)
          case 8:
            return ok(mark, 'Connection: close')
          case 9:
            socket.write('HTTP/1.1 103 x\r\n\r\n')
            await sleep()
            return ok(mark)
          case 10:
            return `${ok(mark)}garbage`
          default:
            if (random.below(2) === 0) await sleep()
            return ok(mark)
        }
      }),
    ),
  )
  const proxy = await httpProxy(
    {
      ports: upstreams.map(({ port }) => port),
      retry: { perTryTimeoutMs: 100, maxRetries: 2, maxBufferedBodyBytes: 20_000 },
      breaker: { consecutiveFailures: 4, failureRate: null, openMs: 20, maxOpenMs: 50, halfOpenRequests: 1 },
      limits: { maxConnections: 12, maxPendingRequests: 30 },
      timeouts: { requestMs: 400, idleMs: 300 },
      rateLimit: { requests: 5000, perMs: 1000, burst: 50, onLimit: 'Delay', maxDelayMs: 50 },
    },
    ends,
  )
  let whole = 0
  const wrong: string[] = []

  async function client(): Promise<void> {
    const socket: Socket = connect({ port: proxy.port, host: '127.0.0.1' })
    let received = ''
    let isClosed = false
    socket.on('data', (data) => {
      received += data.toString('latin1')
    })
    socket.on('error', () => {})
    socket.on('close', () => {
      isClosed = true
    })
    const style = random.below(6)
    for (let i = 0; i < 8 && !isClosed; i++) {
      received = ''
      const target = `/${next++}`
      const length = random.pick([0, 0, 5, 5000, 50_000])
      const method = length === 0 ? 'GET' : random.pick(['POST', 'PUT'])
      const head = `${method} ${target} HTTP/1.1\r\nHost: a\r\n${length > 0 ? `Content-Length: ${length}\r\n` : ''}\r\n`
      const bytes = head + 'b'.repeat(length)
      if (style === 0) {
        // In pieces.
        const cut = random.below(bytes.length)
        socket.write(bytes.slice(0, cut))
        await sleep()
        socket.write(bytes.slice(cut))
      } else if (style === 1) {
        // Pipelined.
        pipelined.add(target)
        socket.write(bytes + bytes)
      } else if (style === 2 && random.below(3) === 0) {
        socket.write(bytes.slice(0, random.below(bytes.length + 1)))
        await sleep()
        if (random.below(2) === 0) socket.destroy()
        else socket.resetAndDestroy()
        return
      } else if (style === 3) {
        // Reads late.
        socket.pause()
        socket.write(bytes)
        await sleep()
        socket.resume()
      } else socket.write(bytes)
      const expected = style === 1 ? 2 : 1
      const deadline = performance.now() + 15_000
      for (let seen = -1; ; ) {
        const isLate = performance.now() > deadline
        if (received.length > seen || isClosed || isLate) {
          seen = received.length
          const { messages, refused } = llhttp('response', Buffer.from(received, 'latin1'))
          if (refused !== null && refused !== 'HPE_CLOSED_CONNECTION')
            wrong.push(`${refused} in ${received.slice(0, 300)}`)
          const complete = messages.filter((m) => m.isComplete && Number(m.start) >= 200)
          // An answer of the upstream is the one to this request and to no other.
          const others = complete.filter((m) => m.body.startsWith('/') && !m.body.startsWith(`${target} `))
          for (const { body } of others) wrong.push(`${target} was answered with ${body}`)
          if (complete.length >= expected || isClosed || isLate) {
            if (isLate && complete.length < expected && !isClosed)
              wrong.push(`${bytes.slice(0, 100)} got only ${received.slice(0, 300)}`)
            whole += complete.length
            break
          }
        }
        await new Promise((resolve) => setTimeout(resolve, 3))
      }
    }
    socket.destroy()
  }

  await Promise.all(Array.from({ length: CLIENTS }, client))
  while (proxy.driver.open > 0 || proxy.cells.active > 0) await new Promise((resolve) => setTimeout(resolve, 10))
  const sum = (count: (pool: HttpPool) => number): number =>
    [...proxy.cluster.endpoints].reduce((total, { pool }) => total + (pool instanceof HttpPool ? count(pool) : 0), 0)
  // The last of them may still be on its way into its pool.
  const until = performance.now() + 20_000
  while (sum((pool) => pool.open - pool.idle) + proxy.cluster.connections.pending > 0 && performance.now() < until)
    await new Promise((resolve) => setTimeout(resolve, 10))
  const reasons = Object.fromEntries(Object.entries(proxy.cells.reasons).filter(([, count]) => count > 0))
  t.diagnostic(`${whole} whole answers, ${JSON.stringify(reasons)}, ${proxy.cells.replays} replays`)
  assert.deepEqual(wrong, [], 'no answer is damaged, missing or for somebody else')
  assert.ok(whole > CLIENTS)
  assert.ok(posts.size > 20)
  for (const [target, count] of posts)
    assert.ok(count <= (pipelined.has(target) ? 2 : 1), `${target} came ${count} times`)
  assert.equal(
    proxy.cluster.connections.used,
    sum((pool) => pool.open),
    'a slot for each connection',
  )
  assert.equal(
    sum((pool) => pool.open),
    sum((pool) => pool.idle),
    'every connection that is left is idle',
  )
  assert.equal(proxy.cluster.connections.pending, 0)
  assert.equal(proxy.cluster.budget.active, 0)
  for (const { active } of proxy.cluster.endpoints) assert.equal(active, 0)
  assert.equal(keptForReplay(), 0)
  assert.equal(lentPieces(), 0)
})
