import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Limiter } from '../../../../operator/webhook/limiter.ts'
import { FakeClock, settle } from '../../../helpers/fake-clock.ts'

const setUp = (capacity: number, maxWaiting = 10) => {
  const clock = new FakeClock()
  const limiter = new Limiter({ capacity, maxWaiting, clock })
  const log: string[] = []
  const acquire = (name: string, weight: number, ms = 1000): void => {
    const answer = limiter.acquire(weight, clock.now() + ms)
    if (typeof answer === 'boolean') log.push(`${name}:${answer}`)
    else void answer.then((is) => log.push(`${name}:${is}`))
  }
  return { clock, limiter, log, acquire }
}

describe('the limiter', () => {
  it('lets through what fits and makes the rest wait in order', async () => {
    const { limiter, log, acquire } = setUp(10)
    acquire('a', 6)
    acquire('b', 4)
    acquire('c', 8)
    acquire('d', 1)
    assert.deepEqual(log, ['a:true', 'b:true'])
    limiter.release(4)
    await settle()
    assert.deepEqual(log, ['a:true', 'b:true'], 'a light one does not overtake a heavy one')
    limiter.release(6)
    await settle()
    assert.deepEqual(log, ['a:true', 'b:true', 'c:true', 'd:true'])
  })

  it('lets one through alone that is heavier than everything', () => {
    const { log, acquire } = setUp(10)
    acquire('a', 100)
    assert.deepEqual(log, ['a:true'])
  })

  it('refuses at the deadline, and lets those behind go on', async () => {
    const { clock, limiter, log, acquire } = setUp(10)
    acquire('a', 9)
    acquire('heavy', 5, 100)
    acquire('light', 1, 1000)
    await clock.advance(100)
    assert.deepEqual(log, ['a:true', 'heavy:false', 'light:true'])
    limiter.release(9)
    limiter.release(1)
    assert.equal(clock.timers, 0)
    assert.equal(limiter.waiting, 0)
  })

  it('refuses at once when the line is full or there is no time', () => {
    const { log, acquire } = setUp(1, 1)
    acquire('a', 1)
    acquire('late', 1, 0)
    acquire('b', 1)
    acquire('c', 1)
    assert.deepEqual(log, ['a:true', 'late:false', 'c:false'])
  })
})
