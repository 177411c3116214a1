import assert from 'node:assert/strict'
import { describe, it, mock } from 'node:test'
import { LookLoop } from '../../../../../proxy/upstream/dns/look-loop.ts'
import { SeededRandom } from '../../../../fuzz/random.ts'

const FLEET = 100
/** Of the clock. */
const STEP_MS = 5

/** Loops of as many sidecars that were started in one moment, under a clock that the test moves; and when each of them looked. */
function fleet(onAnswer: (loop: LookLoop<null>) => void) {
  const random = new SeededRandom(7)
  let at = 0
  const looks: number[][] = Array.from({ length: FLEET }, () => [])
  const loops = looks.map((own) => {
    const look = async () => {
      own.push(at)
      return null
    }
    const loop: LookLoop<null> = new LookLoop(
      look,
      () => onAnswer(loop),
      () => random.next(),
    )
    return loop
  })
  for (const loop of loops) loop.start()
  return {
    looks,
    pass: async (ms: number) => {
      for (const end = at + ms; at < end; at += STEP_MS) {
        mock.timers.tick(STEP_MS)
        await answered()
      }
    },
  }
}

/** A look that ended has told its loop. */
async function answered(): Promise<void> {
  for (let turn = 0; turn < 3; turn++) await null
}

/** Of look number `n` of each: the most that fall within one hundredth of a second, the first and the last. */
function spread(looks: readonly (readonly number[])[], n: number) {
  const times = looks.map((own) => own[n] ?? Number.NaN)
  assert.ok(times.every(Number.isFinite), `${times.filter((time) => !Number.isFinite(time)).length} have not looked`)
  const counts = new Map<number, number>()
  for (const time of times) counts.set(Math.floor(time / 10), (counts.get(Math.floor(time / 10)) ?? 0) + 1)
  return { most: Math.max(...counts.values()), first: Math.min(...times), last: Math.max(...times) }
}

describe('the look-ups of a fleet that began together', () => {
  for (const [ttlMs, within] of [
    [1_000, 100],
    [3_000, 300],
    [30_000, 500],
  ] as const) {
    it(`spread over ${within} ms behind a TTL of ${ttlMs / 1000} s, and never come before it is over`, async (t) => {
      mock.timers.enable({ apis: ['setTimeout'] })
      t.after(() => mock.timers.reset())
      const { looks, pass } = fleet((loop) => loop.succeeded(ttlMs))
      await pass(2 * (ttlMs + within) + 10)
      const second = spread(looks, 1)
      assert.ok(second.first >= ttlMs - STEP_MS && second.last <= ttlMs + within + STEP_MS, JSON.stringify(second))
      // Evenly they would be a tenth, or less, in each hundredth of a second.
      assert.ok(second.last - second.first > 0.8 * within && second.most < FLEET / 4, JSON.stringify(second))
      // And they drift apart with each further one.
      const third = spread(looks, 2)
      assert.ok(third.last - third.first > second.last - second.first, JSON.stringify(third))
    })
  }

  for (const isStale of [false, true]) {
    it(`spread by a tenth of the wait after a failure, ${isStale ? 'with' : 'without'} an earlier answer, and double it`, async (t) => {
      mock.timers.enable({ apis: ['setTimeout'] })
      t.after(() => mock.timers.reset())
      const { looks, pass } = fleet((loop) => loop.failed(isStale))
      await pass(isStale ? 70_000 : 26_000)
      const most = isStale ? 30_000 : 5_000
      let earliest = 0
      for (const [n, wait] of [1_000, 2_000, 4_000, 8_000, 16_000].map((ms) => Math.min(ms, most)).entries()) {
        earliest += wait
        const found = spread(looks, n + 1)
        assert.ok(
          found.first >= earliest - (n + 1) * STEP_MS && found.last <= 1.1 * earliest + (n + 1) * STEP_MS,
          `${n}: ${JSON.stringify(found)}`,
        )
        assert.ok(found.most < FLEET / 4, `${n}: ${JSON.stringify(found)}`)
      }
      for (const own of looks) {
        const last = own.at(-1)! - own.at(-2)!
        assert.ok(last >= most - STEP_MS && last <= 1.1 * most + STEP_MS, `${last}`)
      }
    })
  }

  it('do not come sooner than a second after the last one, however many ask for them', async (t) => {
    mock.timers.enable({ apis: ['setTimeout'] })
    t.after(() => mock.timers.reset())
    let looks = 0
    const look = async () => {
      looks++
      return null
    }
    const loop: LookLoop<null> = new LookLoop(look, () => loop.succeeded(300_000))
    loop.start()
    await answered()
    for (let i = 0; i < 100; i++) loop.refresh()
    mock.timers.tick(900)
    assert.equal(looks, 1)
    mock.timers.tick(200)
    assert.equal(looks, 2)
  })
})
