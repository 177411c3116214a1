import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { backoffMs } from '../../../../operator/kube/backoff.ts'
import { systemClock } from '../../../../operator/kube/clock.ts'
import { Delays } from '../../../../operator/kube/delays.ts'
import { lines } from '../../../../operator/kube/lines.ts'
import { Store } from '../../../../operator/kube/store.ts'
import { TokenBucket } from '../../../../operator/kube/token-bucket.ts'
import { FakeClock } from '../../../helpers/fake-clock.ts'

describe('back-off', () => {
  it('doubles up to the longest and is never less than half of it', () => {
    const waits = (random: () => number) =>
      [1, 2, 3, 10, 2000].map((n) => backoffMs(n, { initialMs: 100, maxMs: 1000, random }))
    assert.deepEqual(
      waits(() => 1),
      [100, 200, 400, 1000, 1000],
    )
    assert.deepEqual(
      waits(() => 0),
      [50, 100, 200, 500, 500],
    )
  })
})

describe('lines', () => {
  const collect = async (chunks: readonly Buffer[]): Promise<string[]> => {
    const all: string[] = []
    for await (const line of lines(
      (async function* () {
        yield* chunks
      })(),
    )) {
      all.push(line)
    }
    return all
  }

  it('yields the same lines however the bytes are cut, and never a torn one', async () => {
    await fc.assert(
      fc.asyncProperty(
        fc.array(fc.string({ unit: 'grapheme' })),
        fc.string(),
        fc.array(fc.nat(50)),
        async (texts, torn, cuts) => {
          const whole = texts.map((text) => text.replaceAll('\n', ' '))
          const bytes = Buffer.from(whole.map((text) => `${text}\n`).join('') + torn.replaceAll('\n', ' '))
          const chunks: Buffer[] = []
          let at = 0
          for (const size of cuts) {
            chunks.push(bytes.subarray(at, at + size))
            at += size
          }
          chunks.push(bytes.subarray(at))
          assert.deepEqual(await collect(chunks), whole)
        },
      ),
    )
  })

  it('refuses a line that never ends', async () => {
    const piece = Buffer.alloc(4 * 1024 * 1024, 'x')
    await assert.rejects(collect([piece, piece, piece, piece, piece]), /longer than/)
  })
})

describe('store', () => {
  it('agrees with a plain map about every index after any history', () => {
    fc.assert(
      fc.property(
        fc.array(fc.tuple(fc.constantFrom('a', 'b', 'c'), fc.option(fc.array(fc.constantFrom('x', 'y', 'z'))))),
        (history) => {
          const store = new Store<{ key: string; tags: string[] }>({ tag: (item) => item.tags })
          const plain = new Map<string, { key: string; tags: string[] }>()
          for (const [key, tags] of history) {
            const item = tags === null ? undefined : { key, tags }
            assert.equal(store.put(key, item), plain.get(key))
            if (item === undefined) plain.delete(key)
            else plain.set(key, item)
          }
          assert.equal(store.size, plain.size)
          for (const tag of ['x', 'y', 'z']) {
            const expected = [...plain.values()].filter((item) => item.tags.includes(tag)).map((item) => item.key)
            assert.deepEqual(
              store
                .byIndex('tag', tag)
                .map((item) => item.key)
                .sort(),
              expected.sort(),
            )
          }
        },
      ),
    )
  })

  it('refuses an index that nobody declared', () => {
    assert.throws(() => new Store().byIndex('color', 'red'), {
      message: "index 'color': not declared, pass it in the reflector's indices",
    })
  })
})

describe('token bucket', () => {
  it('gives a burst, then the rate, and fills up again', async () => {
    const clock = new FakeClock()
    const bucket = new TokenBucket({ perSecond: 2, burst: 3 }, () => clock.now())
    assert.deepEqual(
      [1, 2, 3, 4].map(() => bucket.tryTake()),
      [true, true, true, false],
    )
    await clock.advance(500)
    assert.deepEqual([bucket.tryTake(), bucket.tryTake()], [true, false])
    await clock.advance(60_000)
    assert.deepEqual(
      [1, 2, 3, 4, 5].map(() => bucket.reserve()),
      [0, 0, 0, 500, 1000],
    )
  })
})

describe('delays', () => {
  it('agree with a plain list about who is due when, after any history', async () => {
    const step = fc.oneof(
      fc.record({ set: fc.constantFrom('a', 'b', 'c', 'd', 'e'), inMs: fc.nat(100) }),
      fc.record({ delete: fc.constantFrom('a', 'b', 'c', 'd', 'e') }),
      fc.record({ advance: fc.nat(50) }),
    )
    await fc.assert(
      fc.asyncProperty(fc.array(step, { maxLength: 60 }), async (history) => {
        const clock = new FakeClock()
        const told: string[] = []
        const expected: string[] = []
        const plain = new Map<string, number>()
        const delays = new Delays(clock, (key) => told.push(key))
        for (const each of history) {
          if ('set' in each) {
            plain.set(each.set, clock.now() + each.inMs)
            delays.set(each.set, clock.now() + each.inMs)
          } else if ('delete' in each) {
            plain.delete(each.delete)
            delays.delete(each.delete)
          } else {
            await clock.advance(each.advance)
            const due = [...plain].filter(([, at]) => at <= clock.now()).map(([key]) => key)
            for (const key of due) plain.delete(key)
            expected.push(...due.sort())
            assert.deepEqual(told.slice(expected.length - due.length).sort(), due)
          }
          assert.equal(delays.size, plain.size)
        }
      }),
      { numRuns: 60 },
    )
  })

  it('need one timer for thousands of keys, and do not keep what is out of date', async () => {
    const clock = new FakeClock()
    const told = new Set<string>()
    const delays = new Delays(clock, (key) => told.add(key))
    for (let round = 0; round < 5; round++) for (let i = 0; i < 2000; i++) delays.set(`k${i}`, clock.now() + 1000 + i)
    assert.equal(clock.timers, 1)
    assert.equal(delays.size, 2000)
    await clock.advance(1999)
    assert.equal(told.size, 1000)
    await clock.advance(1000)
    assert.equal(told.size, 2000)
    assert.equal(clock.timers, 0)
  })
})

describe('system clock', () => {
  it('cancels a timer beyond 24 days instead of firing it at once', async () => {
    let fired = false
    const timer = systemClock.after(40 * 24 * 3600 * 1000, () => {
      fired = true
    })
    await new Promise((resolve) => setTimeout(resolve, 5))
    timer.cancel()
    assert.equal(fired, false)
  })
})
