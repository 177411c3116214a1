/** What a suite says of itself; test/bench/main.ts lists them. */

import type { Contender, Mode, Upstream } from '../contender.ts'
import type { Load, LoadOptions } from '../load.ts'
import type { Running } from '../process.ts'

export interface Suite {
  readonly name: string
  /** One sentence for the report. */
  readonly about: string
  readonly mode: Mode
  readonly contenders: readonly Contender[]
  /** Debian packages that it needs. */
  readonly packages: readonly string[]
  /** Loads one port. Default: requests of HTTP by wrk. */
  readonly load?: (options: LoadOptions) => Promise<Load>
  startUpstream(options: {
    readonly core: number
    readonly directory: string
  }): Promise<{ readonly upstream: Upstream; readonly running: Running }>
}
