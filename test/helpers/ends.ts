/** What a test has started and must end, for tests that run at the same time. */
import type { TestContext } from 'node:test'

/** An empty list whose functions are called when the test is over, the last first. */
export function endsOf(t: TestContext): (() => unknown)[] {
  const ends: (() => unknown)[] = []
  t.after(async () => {
    for (const end of ends.splice(0).reverse()) await end()
  })
  return ends
}
