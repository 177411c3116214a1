/** What a suite says of itself; test/bench/main.ts lists them. */

import type { Contender, Upstream } from '../contender.ts'
import type { Running } from '../process.ts'

export interface Suite {
  readonly name: string
  /** One sentence for the report. */
  readonly about: string
  readonly mode: 'HTTP' | 'TCP'
  readonly contenders: readonly Contender[]
  /** Debian packages that it needs. */
  readonly packages: readonly string[]
  startUpstream(options: {
    readonly core: number
    readonly directory: string
  }): Promise<{ readonly upstream: Upstream; readonly running: Running }>
}
