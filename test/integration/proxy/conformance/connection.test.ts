/** Conversations with the process from both sides: connections that are kept, reused, upgraded, half-closed and left. */
import { after, afterEach, before, describe, it } from 'node:test'
import { FLOW, KEEP_ALIVE, POST_ON_STALE, SLOWLORIS, STALE, TUNNELS } from './connection.cases.ts'
import { Bench } from './wire.ts'

let bench: Bench
let slow: Bench
let slowloris: Promise<unknown>
before(async () => {
  bench = await Bench.start()
  slow = await Bench.start()
  // Kept as a value, so that a failure is told by its test and not before it.
  slowloris = SLOWLORIS.run(slow).then(
    () => null,
    (error: unknown) => error,
  )
})
after(() => Promise.all([bench.stop(), slow.stop()]))
afterEach(() => bench.clear())

for (const [title, cases] of Object.entries({
  'connections that are kept': KEEP_ALIVE,
  'connections that went stale': STALE,
  'the flow of bytes': FLOW,
  'upgrades and tunnels': TUNNELS,
})) {
  describe(title, () => {
    for (const { name, run } of cases) it(name, () => run(bench))
  })
}

it(POST_ON_STALE.name, async () => {
  const alone = await Bench.start()
  try {
    await POST_ON_STALE.run(alone)
  } finally {
    await alone.stop()
  }
})

it(SLOWLORIS.name, async () => {
  const error = await slowloris
  if (error !== null) throw error
})

it('leaves no request and no connection behind', () => bench.idle())
