/** Retries, breakers, limits and deadlines of the process, and the answers that it makes itself. */
import { after, afterEach, before, describe, it } from 'node:test'
import { GROUPS } from './resilience.cases.ts'
import { Bench } from './wire.ts'

for (const { title, patch, cases } of GROUPS) {
  describe(title, () => {
    let bench: Bench
    before(async () => {
      bench = await Bench.start(patch)
    })
    after(() => bench.stop())
    afterEach(() => bench.clear())
    for (const { name, run } of cases) it(name, () => run(bench))
  })
}
