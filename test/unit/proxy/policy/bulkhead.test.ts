import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { Bulkhead, type Waiter } from '../../../../proxy/policy/bulkhead.ts'

function waiter(log: string[], name: string): Waiter {
  return { onSlot: () => log.push(name), nextWaiter: null, previousWaiter: null, waitsAt: null }
}

describe('bulkhead', () => {
  it('gives out its slots and then queues up to its bound', () => {
    const bulkhead = new Bulkhead({ max: 2, maxPending: 1, first: 'Oldest' })
    const log: string[] = []
    assert.deepEqual([bulkhead.tryAcquire(), bulkhead.tryAcquire(), bulkhead.tryAcquire()], [true, true, false])
    assert.equal(bulkhead.wait(waiter(log, 'a')), true)
    assert.equal(bulkhead.wait(waiter(log, 'b')), false)
    assert.deepEqual([bulkhead.used, bulkhead.pending, bulkhead.overflow], [2, 1, 1])
    bulkhead.release()
    assert.deepEqual(log, ['a'])
    assert.deepEqual([bulkhead.used, bulkhead.pending], [2, 0])
    bulkhead.release()
    bulkhead.release()
    assert.equal(bulkhead.used, 0)
  })

  it('serves the oldest or the newest first, as configured', () => {
    for (const [first, order] of [
      ['Oldest', ['a', 'b', 'c']],
      ['Newest', ['c', 'b', 'a']],
    ] as const) {
      const bulkhead = new Bulkhead({ max: 1, maxPending: 3, first })
      const log: string[] = []
      bulkhead.tryAcquire()
      for (const name of ['a', 'b', 'c']) bulkhead.wait(waiter(log, name))
      for (let i = 0; i < 3; i++) bulkhead.release()
      assert.deepEqual(log, order)
    }
  })

  it('does not let a newcomer overtake those who wait', () => {
    const bulkhead = new Bulkhead({ max: 1, maxPending: 5, first: 'Oldest' })
    const log: string[] = []
    bulkhead.tryAcquire()
    const greedy = waiter(log, 'x')
    greedy.onSlot = () => assert.equal(bulkhead.tryAcquire(), false)
    bulkhead.wait(greedy)
    bulkhead.wait(waiter(log, 'y'))
    bulkhead.reconfigure({ max: 3, maxPending: 5, first: 'Oldest' })
    assert.deepEqual(log, ['y'])
    assert.equal(bulkhead.used, 3)
  })

  it('serves any number of waiters that give their slot back at once, as behind a circuit that has opened', () => {
    for (const first of ['Oldest', 'Newest'] as const) {
      const bulkhead = new Bulkhead({ max: 1, maxPending: 100_000, first })
      let served = 0
      bulkhead.tryAcquire()
      for (let i = 0; i < 100_000; i++) {
        const each = waiter([], '')
        each.onSlot = () => {
          served++
          bulkhead.release()
        }
        bulkhead.wait(each)
      }
      bulkhead.release()
      assert.deepEqual([served, bulkhead.used, bulkhead.pending], [100_000, 0, 0])
    }
  })

  it('forgets a waiter that gave up, wherever it stands, and does nothing for one that does not wait', () => {
    for (const gone of [0, 1, 2]) {
      const bulkhead = new Bulkhead({ max: 1, maxPending: 3, first: 'Oldest' })
      const log: string[] = []
      bulkhead.tryAcquire()
      const waiters = ['a', 'b', 'c'].map((name) => waiter(log, name))
      for (const each of waiters) bulkhead.wait(each)
      bulkhead.cancel(waiters[gone]!)
      bulkhead.cancel(waiters[gone]!)
      assert.equal(bulkhead.pending, 2)
      for (let i = 0; i < 2; i++) bulkhead.release()
      assert.deepEqual(
        log,
        ['a', 'b', 'c'].filter((_, index) => index !== gone),
      )
    }
  })

  it('serves those who wait when its bound grows, and lets what is in use run out when it shrinks', () => {
    const bulkhead = new Bulkhead({ max: 1, maxPending: 5, first: 'Oldest' })
    const log: string[] = []
    bulkhead.tryAcquire()
    for (const name of ['a', 'b', 'c']) bulkhead.wait(waiter(log, name))
    bulkhead.reconfigure({ max: 3, maxPending: 5, first: 'Oldest' })
    assert.deepEqual(log, ['a', 'b'])
    bulkhead.reconfigure({ max: 1, maxPending: 5, first: 'Oldest' })
    bulkhead.release()
    bulkhead.release()
    assert.deepEqual([log.length, bulkhead.used], [2, 1])
    bulkhead.release()
    assert.deepEqual(log, ['a', 'b', 'c'])
  })

  it('gives a waiter to an owner that has something better than a slot', () => {
    const bulkhead = new Bulkhead({ max: 1, maxPending: 5, first: 'Oldest' })
    const log: string[] = []
    bulkhead.tryAcquire()
    const only = waiter(log, 'a')
    bulkhead.wait(only)
    assert.equal(bulkhead.shift(), only)
    assert.equal(bulkhead.shift(), null)
    bulkhead.release()
    assert.deepEqual([bulkhead.used, log.length], [0, 0])
  })

  it('never has more in use than its bound, loses no slot and no waiter, over any sequence', () => {
    const step = fc.record({ what: fc.constantFrom('come', 'end', 'give up'), which: fc.nat() })
    fc.assert(
      fc.property(
        fc.array(step, { maxLength: 200 }),
        fc.integer({ min: 1, max: 3 }),
        fc.integer({ min: 0, max: 4 }),
        (steps, max, maxPending) => {
          const bulkhead = new Bulkhead({ max, maxPending, first: 'Newest' })
          let running = 0
          const queue: Waiter[] = []
          for (const { what, which } of steps) {
            if (what === 'come') {
              if (bulkhead.tryAcquire()) running++
              else {
                const each = waiter([], '')
                each.onSlot = () => {
                  queue.splice(queue.indexOf(each), 1)
                  running++
                }
                if (bulkhead.wait(each)) queue.push(each)
                else assert.equal(queue.length, maxPending)
              }
            } else if (what === 'end' && running > 0) {
              running--
              bulkhead.release()
            } else if (what === 'give up' && queue.length > 0) {
              const [gone] = queue.splice(which % queue.length, 1)
              bulkhead.cancel(gone as Waiter)
            }
            assert.deepEqual([bulkhead.used, bulkhead.pending], [running, queue.length])
            assert.ok(running <= max)
            assert.ok(queue.length === 0 || running === max)
          }
        },
      ),
      { numRuns: 300 },
    )
  })
})
