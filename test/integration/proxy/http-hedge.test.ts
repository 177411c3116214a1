/** A slow request that is sent a second time: which answer counts, what becomes of the other try, and when there is none. */
import assert from 'node:assert/strict'
import { afterEach, describe, it } from 'node:test'
import type { RetryConfig } from '../../../common/proxy-config.ts'
import { keptForReplay } from '../../../proxy/protocol/http1/outgoing.ts'
import { type HttpProxySetup, httpProxy } from '../../helpers/http-proxy.ts'
import { type Answer, ok, type ReceivedRequest, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'
import { onTime } from '../../helpers/on-time.ts'

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
  assert.equal(keptForReplay(), 0, 'no body is kept behind its request')
})

type Respond = (request: ReceivedRequest) => Answer | Promise<Answer>

/** Two endpoints, of which the first is asked first, and a proxy that hedges after 50 ms. */
async function setup(first: Respond, second: Respond, retry: Partial<RetryConfig> = {}, more: HttpProxySetup = {}) {
  const a = await scriptedUpstream(ends, first)
  const b = await scriptedUpstream(ends, second)
  const plan = { hedgeMs: 50, maxRetries: 0, ...retry }
  const proxy = await httpProxy({ ports: [a.port, b.port], isRanked: true, retry: plan, ...more }, ends)
  const isQuiet = (): void => {
    assert.equal(proxy.cluster.budget.active, 0)
    assert.deepEqual(
      [...proxy.cluster.endpoints].map(({ active }) => active),
      [0, 0],
    )
  }
  return { a, b, proxy, client: proxy.connect(), isQuiet }
}

const never: Respond = () => null

function closed(request: ReceivedRequest): Promise<void> {
  return new Promise((resolve) => {
    if (request.socket.destroyed) resolve()
    else request.socket.once('close', () => resolve())
  })
}

describe('a hedged request', () => {
  it('takes the answer of the second try when the first is slow, and ends the first with its connection', async () => {
    const { a, b, proxy, client, isQuiet } = await setup(never, () => ok('second'))
    client.write('PUT /x HTTP/1.1\r\nHost: a\r\nX-A: 1\r\nContent-Length: 5\r\n\r\nhello')
    const answer = await client.response()
    assert.deepEqual([answer.status, answer.body], [200, 'second'])
    const rest = (request: ReceivedRequest) => request.head.replace(/Host: [^\r]*/, 'Host') + request.body
    assert.equal(rest(b.requests[0]!), rest(a.requests[0]!), 'both got the same')
    await closed(a.requests[0]!)
    assert.deepEqual(proxy.cells.hedged, { sent: 1, won: 1 })
    assert.deepEqual([proxy.cluster.budget.requests, proxy.cluster.budget.successes], [1, 1])
    assert.equal((await proxy.recorded(1))[0]?.attempts, 2)
    isQuiet()
    assert.equal((await client.get('/next').response()).status, 200)
  })

  it('takes the answer of the first try when it comes first after all, and ends the second', async () => {
    let answerFirst: (answer: string) => void = () => {}
    const { b, proxy, client, isQuiet } = await setup(
      () => new Promise((resolve) => (answerFirst = resolve)),
      (request) => {
        answerFirst(ok('first'))
        return request.index > 0 ? ok() : null
      },
    )
    assert.equal((await client.get().response()).body, 'first')
    await closed(b.requests[0]!)
    assert.deepEqual(proxy.cells.hedged, { sent: 1, won: 0 })
    isQuiet()
  })

  it('takes an interim response for no answer', async () => {
    const { proxy, client, isQuiet } = await setup(
      ({ socket }) => {
        socket.write('HTTP/1.1 103 Early Hints\r\n\r\n')
        return null
      },
      () => ok('second'),
    )
    assert.equal((await client.get().response()).body, 'second')
    assert.deepEqual(proxy.cells.hedged, { sent: 1, won: 1 })
    isQuiet()
  })

  it('is not sent twice when the answer begins in time', async () => {
    const { b, proxy, client } = await setup(() => ok('x'.repeat(100_000)), never, { hedgeMs: 30_000 })
    for (let i = 0; i < 5; i++) assert.equal((await client.get().response()).status, 200)
    assert.deepEqual([b.requests.length, proxy.cells.hedged.sent], [0, 0])
  })

  it('goes on with the other try when one fails, whichever it is', () =>
    onTime(30, async () => {
      let failFirst = () => {}
      const one = await setup(
        ({ socket }) => {
          failFirst = () => socket.destroy()
          return null
        },
        () => {
          failFirst()
          return new Promise((resolve) => setTimeout(() => resolve(ok('second')), 50))
        },
      )
      assert.equal((await one.client.get().response()).body, 'second')
      one.isQuiet()

      let answerFirst: (answer: string) => void = () => {}
      const other = await setup(
        () => new Promise((resolve) => (answerFirst = resolve)),
        ({ socket }) => {
          socket.destroy()
          setTimeout(() => answerFirst(ok('first')), 50)
          return null
        },
      )
      assert.equal((await other.client.get().response()).body, 'first')
      assert.equal(other.proxy.cells.hedged.won, 0)
      other.isQuiet()
    }))

  it('does not take an answer that would be tried again while the other try is under way', async () => {
    let answerFirst: (answer: string) => void = () => {}
    const { client, isQuiet } = await setup(
      () => new Promise((resolve) => (answerFirst = resolve)),
      () => {
        setTimeout(() => answerFirst(ok('first')), 50)
        return withStatus(503, 'no')
      },
      { statuses: [503] },
    )
    assert.equal((await client.get().response()).body, 'first')
    isQuiet()
  })

  it('fails with the last of its tries when both do, and is tried again as the configuration says', () =>
    onTime(30, async () => {
      const broken: Respond = ({ socket }) => {
        setTimeout(() => socket.destroy(), 100)
        return null
      }
      const { client, isQuiet } = await setup(broken, broken)
      const answer = await client.get().response()
      assert.deepEqual([answer.status, answer.field('x-ambassador-reason')], [502, 'upstream_reset'])
      isQuiet()
      let requests = 0
      const late: Respond = (request) => (requests++ < 2 ? broken(request) : ok('third'))
      const again = await setup(late, late, { maxRetries: 1 })
      assert.equal((await again.client.get().response()).body, 'third')
      assert.equal(requests, 3)
      again.isQuiet()
    }))

  it('ends both tries at the deadline, and when the client leaves', () =>
    onTime(200, async () => {
      const { a, b, client, isQuiet } = await setup(never, never, {}, { timeouts: { requestMs: 400 } })
      assert.equal((await client.get().response()).field('x-ambassador-reason'), 'deadline')
      await Promise.all([closed(a.requests[0]!), closed(b.requests[0]!)])
      isQuiet()
      const gone = await setup(never, never)
      gone.client.get()
      const both = await Promise.all([gone.a.request(0), gone.b.request(0)])
      gone.client.socket.destroy()
      await Promise.all(both.map(closed))
      assert.equal((await gone.proxy.recorded(1))[0]?.reason, 'client_gone')
      gone.isQuiet()
    }))

  it('is sent once when it may not be repeated, when the budget is used up and when no connection is free', async () => {
    const slow: Respond = () => new Promise((resolve) => setTimeout(() => resolve(ok('first')), 250))
    const post = await setup(slow, () => ok('second'))
    assert.equal((await post.client.post('x').response()).body, 'first')
    assert.equal(post.b.requests.length, 0)
    const poor = await setup(slow, () => ok('second'), { budget: { ratio: 0, minPerSecond: 0 } })
    assert.equal((await poor.client.get().response()).body, 'first')
    assert.deepEqual([poor.b.requests.length, poor.proxy.cluster.budget.overflow], [0, 1])
    const full = await setup(slow, () => ok('second'), {}, { limits: { maxConnections: 1 } })
    assert.equal((await full.client.get().response()).body, 'first')
    assert.deepEqual([full.b.requests.length, full.proxy.cluster.connections.overflow], [0, 0])
    const large = await setup(slow, () => ok('second'), { maxBufferedBodyBytes: 3 })
    large.client.write('PUT / HTTP/1.1\r\nHost: a\r\nContent-Length: 4\r\n\r\nfour')
    assert.equal((await large.client.response()).body, 'first')
    assert.equal(large.b.requests.length, 0)
  })

  it('asks the only endpoint twice on two connections', async () => {
    const upstream = await scriptedUpstream(ends, ({ index }) => (index === 0 ? null : ok('second')))
    const proxy = await httpProxy({ ports: [upstream.port], retry: { hedgeMs: 50 } }, ends)
    assert.equal((await proxy.connect().get().response()).body, 'second')
    assert.equal(upstream.connections, 2)
  })
})
