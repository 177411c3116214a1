/** What V8 is told only when the start is over, since on the command line it would make each start a fifth dearer. */

export type Collect = (options?: {
  readonly type: 'major'
  readonly execution: 'sync'
  readonly flavor: 'last-resort'
}) => void

/** When the start is over even on a slow machine, and before anything is collected for the first time. */
const TUNE_MS = 900

let tuned: Collect | undefined

/** The collector of V8; undefined: neither is Node started with --expose-gc, nor was the engine tuned. */
export function collector(): Collect | undefined {
  return (globalThis as { gc?: Collect }).gc ?? tuned
}

/**
 * Has V8 give out its collector, and do without the compiler between the quick and the good one, a moment from now. Node brings its own
 * modules compiled, and the image brings the sidecar; V8 takes neither with other flags than it was compiled with, and `--expose-gc`
 * and `--no-maglev` are such flags.
 */
export function tuneSoon(): void {
  setTimeout(() => {
    const { setFlagsFromString } = process.getBuiltinModule('node:v8')
    setFlagsFromString('--no-maglev')
    setFlagsFromString('--expose-gc')
    // A context that is made from here on has the collector.
    tuned = process.getBuiltinModule('node:vm').runInNewContext('gc')
  }, TUNE_MS).unref()
}
