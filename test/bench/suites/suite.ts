/** What a suite says of itself; test/bench/main.ts lists them. */

import type { Contender, Mode, Upstream } from '../contender.ts'
import type { Load, LoadOptions } from '../load.ts'
import type { Running } from '../process.ts'

/** What is counted: requests (the default), GiB of bytes passed on, or connections. */
export type Unit = 'req' | 'GiB' | 'conn'

export interface Suite {
  readonly name: string
  /** One sentence for the report. */
  readonly about: string
  readonly mode: Mode
  /** What CPU time and rates are told for. Default: 'req'. */
  readonly unit?: Unit
  readonly contenders: readonly Contender[]
  /** Debian packages that it needs. */
  readonly packages: readonly string[]
  /** Loads one port; null: no rounds, only the memory of open connections that nobody uses. Default: requests of HTTP by wrk. */
  readonly load?: ((options: LoadOptions) => Promise<Load>) | null
  startUpstream(options: {
    readonly core: number
    readonly directory: string
  }): Promise<{ readonly upstream: Upstream; readonly running: Running }>
}
