import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { ApiError } from '../../../../operator/kube/errors.ts'
import { WorkQueue, type WorkQueueOptions } from '../../../../operator/kube/workqueue.ts'
import { FakeClock, settle } from '../../../helpers/fake-clock.ts'

interface Call {
  readonly key: string
  readonly at: number
  readonly signal: AbortSignal
  finish(result?: number | Error): void
}

/** A queue whose work is finished by the test. */
function setup(options: Partial<WorkQueueOptions> = {}) {
  const clock = new FakeClock()
  const start = clock.now()
  const calls: Call[] = []
  const queue = new WorkQueue({
    name: 'test',
    clock,
    random: () => 1,
    backoff: { initialMs: 100, maxMs: 1000 },
    work: (key, signal) =>
      new Promise((resolve, reject) => {
        calls.push({
          key,
          at: clock.now() - start,
          signal,
          finish: (result) => (result instanceof Error ? reject(result) : resolve(result)),
        })
      }),
    ...options,
  })
  return { clock, calls, queue, keys: () => calls.map((call) => call.key) }
}

describe('work queue', () => {
  it('works on a key once, however often it was added before', async () => {
    const t = setup({ concurrency: 1 })
    t.queue.add('a')
    t.queue.add('b')
    t.queue.add('b')
    t.queue.add('c')
    t.queue.add('b')
    for (let i = 0; i < 3; i++) {
      t.calls[i]?.finish()
      await settle()
    }
    assert.deepEqual(t.keys(), ['a', 'b', 'c'])
  })

  it('never works on a key twice at the same time, and once more when it was added meanwhile', async () => {
    const t = setup()
    t.queue.add('a')
    t.queue.add('a')
    t.queue.add('a')
    await settle()
    assert.deepEqual(t.keys(), ['a'])
    t.calls[0]?.finish()
    await settle()
    assert.deepEqual(t.keys(), ['a', 'a'])
    t.calls[1]?.finish()
    await settle()
    assert.deepEqual(t.keys(), ['a', 'a'])
  })

  it('works on so many keys at a time and no more', async () => {
    const t = setup({ concurrency: 2 })
    for (const key of ['a', 'b', 'c']) t.queue.add(key)
    await settle()
    assert.deepEqual(t.keys(), ['a', 'b'])
    t.calls[1]?.finish()
    await settle()
    assert.deepEqual(t.keys(), ['a', 'b', 'c'])
  })

  it('tries again after a growing wait, up to the longest, and forgets failures with a success', async () => {
    const t = setup()
    t.queue.add('a')
    for (let i = 0; i < 6; i++) {
      t.calls[i]?.finish(new Error('no'))
      await settle()
      await t.clock.advance(1000)
    }
    assert.deepEqual(
      t.calls.map((call) => call.at),
      [0, 100, 1200, 2400, 3800, 5000, 6000],
    )
    t.calls[6]?.finish()
    await settle()
    t.queue.add('a')
    await settle()
    t.calls[7]?.finish(new Error('no'))
    await settle()
    await t.clock.advance(100)
    assert.equal(t.calls.length, 9, 'the wait starts small again')
  })

  it('waits at least as long as the API server asks', async () => {
    const t = setup()
    t.queue.add('a')
    t.calls[0]?.finish(new ApiError('slow down', { status: 429, reason: 'TooManyRequests', retryAfterMs: 5000 }))
    await settle()
    await t.clock.advance(4999)
    assert.equal(t.calls.length, 1)
    await t.clock.advance(1)
    assert.equal(t.calls.length, 2)
  })

  it('does not let one failing key hold up another', async () => {
    const t = setup({ concurrency: 1 })
    t.queue.add('bad')
    t.queue.add('good')
    t.calls[0]?.finish(new Error('no'))
    await settle()
    assert.deepEqual(t.keys(), ['bad', 'good'])
  })

  it('works again after the time that the work asks for', async () => {
    const t = setup()
    t.queue.add('a')
    t.calls[0]?.finish(700)
    await settle()
    await t.clock.advance(699)
    assert.equal(t.calls.length, 1)
    await t.clock.advance(1)
    assert.equal(t.calls.length, 2)
  })

  it('keeps the earlier of two delays, and an add beats both', async () => {
    const t = setup()
    t.queue.addAfter('a', 500)
    t.queue.addAfter('a', 100)
    t.queue.addAfter('a', 300)
    await t.clock.advance(100)
    assert.equal(t.calls.length, 1)
    t.calls[0]?.finish()
    t.queue.addAfter('b', 500)
    t.queue.add('b')
    await settle()
    t.calls[1]?.finish()
    await t.clock.advance(10_000)
    assert.deepEqual(t.keys(), ['a', 'b'])
  })

  it('starts a burst at once and the rest at the rate', async () => {
    const t = setup({ rate: { perSecond: 10, burst: 3 }, concurrency: 100 })
    for (let i = 0; i < 6; i++) t.queue.add(`k${i}`)
    await t.clock.advance(1000)
    assert.deepEqual(
      t.calls.map((call) => call.at),
      [0, 0, 0, 100, 200, 300],
    )
  })

  it('shuts down: drops what waits, tells what runs, and resolves when that has ended', async () => {
    const t = setup({ concurrency: 1 })
    t.queue.add('a')
    t.queue.add('b')
    t.queue.addAfter('c', 100)
    let isDown = false
    const down = t.queue.shutdown().then(() => {
      isDown = true
    })
    await settle()
    assert.equal(t.calls[0]?.signal.aborted, true)
    assert.equal(isDown, false)
    t.queue.add('d')
    t.calls[0]?.finish(new ApiError('ended', { status: 0, reason: 'Aborted' }))
    await down
    await t.clock.advance(10_000)
    assert.deepEqual(t.keys(), ['a'])
    assert.equal(t.clock.timers, 0)
    assert.equal(t.queue.depth, 0)
  })
})
