/** Requests to an upstream that counts: the sidecar keeps to what its 429, Retry-After and RateLimit fields say. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { endsOfEach } from '../../helpers/ends.ts'
import { httpProxy } from '../../helpers/http-proxy.ts'
import { ok, type ScriptedUpstream, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'
import { onTime } from '../../helpers/on-time.ts'

const ends = endsOfEach()

/** Takes `quota` requests in each second and says so; `refused` are those beyond. */
async function countingUpstream(quota: number): Promise<{ upstream: ScriptedUpstream; refused: () => number }> {
  let since = performance.now()
  let left = quota
  let refused = 0
  const upstream = await scriptedUpstream(ends, () => {
    const passed = performance.now() - since
    if (passed >= 1000) {
      since = performance.now()
      left = quota
    }
    const policy = `RateLimit-Policy: "default";q=${quota};w=1`
    if (left === 0) {
      refused++
      return withStatus(429, 'slow down', policy, 'RateLimit: "default";r=0;t=1', 'Retry-After: 1')
    }
    left--
    return ok('ok', policy, `RateLimit: "default";r=${left};t=1`)
  })
  return { upstream, refused: () => refused }
}

describe('pacing', () => {
  it('keeps within the quota that the upstream tells, so that the application sees no 429', async () => {
    const { upstream, refused } = await countingUpstream(10)
    const setup = { ports: [upstream.port], cluster: { pacing: { maxDelayMs: 30_000 } } }
    const proxy = await httpProxy(setup, ends)
    const statuses: number[] = []
    await Promise.all(
      Array.from({ length: 2 }, async () => {
        const client = proxy.connect()
        for (let i = 0; i < 15; i++) statuses.push((await client.get().response()).status)
      }),
    )
    assert.equal(statuses.length, 30)
    assert.deepEqual(new Set(statuses), new Set([200]))
    assert.equal(refused(), 0, 'nothing was sent that had to be refused')
    assert.ok(proxy.cluster.paced.delayed > 0)
    assert.ok((await proxy.recorded(30)).some(({ queueMs }) => queueMs > 0))
  })

  it('refuses what would wait too long, with the time of the upstream, and asks it again when that is over', () =>
    onTime(400, async () => {
      const upstream = await scriptedUpstream(ends, ({ index }) =>
        index === 0 ? withStatus(429, 'no', 'Retry-After: 1') : ok(),
      )
      const proxy = await httpProxy({ ports: [upstream.port], cluster: { pacing: { maxDelayMs: 0 } } }, ends)
      const client = proxy.connect()
      const first = await client.get().response()
      assert.deepEqual([first.status, first.field('x-ambassador-reason')], [429, null], "the upstream's own passes")
      const second = await client.get().response()
      assert.deepEqual(
        [second.status, second.field('x-ambassador-reason'), second.field('retry-after')],
        [429, 'rate_limited', '1'],
      )
      assert.equal(upstream.requests.length, 1)
      assert.equal(proxy.cluster.paced.refused, 1)
      assert.match((await proxy.recorded(2))[1]?.detail ?? '', /upstream 'live' said that it takes no more/)
      let status = 429
      while (status === 429) {
        await new Promise((resolve) => setTimeout(resolve, 50))
        status = (await client.get().response()).status
      }
      assert.equal(status, 200)
      assert.equal(upstream.requests.length, 2, 'it was left alone until then')
    }))

  it('holds requests that are in time and lets them go when the upstream takes them again', () =>
    onTime(400, async () => {
      const upstream = await scriptedUpstream(ends, ({ index }) =>
        index === 0 ? withStatus(503, 'no', 'Retry-After: 1') : ok(),
      )
      const proxy = await httpProxy({ ports: [upstream.port], cluster: { pacing: { maxDelayMs: 20_000 } } }, ends)
      const startedAt = performance.now()
      assert.equal((await proxy.connect().get().response()).status, 503)
      const answers = await Promise.all(Array.from({ length: 5 }, () => proxy.connect().get().response()))
      assert.deepEqual(
        answers.map(({ status }) => status),
        [200, 200, 200, 200, 200],
      )
      assert.ok(performance.now() - startedAt > 900)
      assert.equal(proxy.cluster.paced.delayed, 5)
    }))

  it('gives nothing to the upstream of a request whose client left while it waited', () =>
    onTime(400, async () => {
      const upstream = await scriptedUpstream(ends, () => withStatus(429, 'no', 'Retry-After: 1'))
      const proxy = await httpProxy({ ports: [upstream.port], cluster: { pacing: { maxDelayMs: 20_000 } } }, ends)
      await proxy.connect().get().response()
      const leaving = proxy.connect().get()
      while (proxy.cells.active === 0) await new Promise((resolve) => setImmediate(resolve))
      leaving.socket.destroy()
      assert.equal((await proxy.recorded(2))[1]?.reason, 'client_gone')
      assert.equal((await proxy.connect().get().response()).status, 429)
      assert.equal(upstream.requests.length, 2)
    }))

  it('is off without the field: every answer passes and every request goes on', async () => {
    const upstream = await scriptedUpstream(ends, () =>
      withStatus(429, 'no', 'Retry-After: 60', 'RateLimit: "a";r=0;t=60'),
    )
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    for (let i = 0; i < 3; i++) assert.equal((await client.get().response()).field('retry-after'), '60')
    assert.equal(upstream.requests.length, 3)
  })
})
