/** Retries, breakers, limits and deadlines of the process, and the answers that it makes itself. */
import { after, afterEach, before, describe, it } from 'node:test'
import { GROUPS } from './resilience.cases.ts'
import { Bench } from './wire.ts'

// Each group has a process of its own, and waits for its deadlines most of the time.
describe('the process', { concurrency: 4 }, () => {
  for (const { title, patch, cases, isTogether = false } of GROUPS) {
    describe(title, { concurrency: 1 }, () => {
      let bench: Bench
      /** What became of each case, kept as a value so that its own test tells of it. */
      let outcomes: Promise<unknown>[] = []
      before(async () => {
        bench = await Bench.start(patch)
        if (!isTogether) return
        outcomes = cases.map(({ run }) =>
          run(bench).then(
            () => null,
            (error: unknown) => error,
          ),
        )
      })
      after(() => bench.stop())
      afterEach(() => (isTogether ? undefined : bench.clear()))
      for (const [index, { name, run }] of cases.entries()) {
        it(name, async () => {
          if (!isTogether) return run(bench)
          const error = await outcomes[index]
          if (error !== null) throw error
        })
      }
    })
  }
})
