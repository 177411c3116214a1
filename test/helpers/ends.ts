/** What a test has started and must end. */
import { after, afterEach, type TestContext } from 'node:test'

export type Ends = (() => unknown)[]

/** An empty list whose functions are called when this test is over, the last first: for tests that run at the same time. */
export function endsOf(t: TestContext): Ends {
  return endedBy((end) => t.after(end))
}

/** One whose functions are called after each test of the file. Call it where hooks are declared. */
export function endsOfEach(): Ends {
  return endedBy(afterEach)
}

/** One whose functions are called after the last test of the file. */
export function endsOfAll(): Ends {
  return endedBy(after)
}

function endedBy(hook: (end: () => Promise<void>) => void): Ends {
  const ends: Ends = []
  hook(async () => {
    for (const end of ends.splice(0).reverse()) await end()
  })
  return ends
}
