/** Writes keys at a steady pace through a driver, and remembers which of them were acknowledged, what failed, and how long nothing went. */
import { Lateness } from './lateness.ts'

export interface WriterFigures {
  readonly sent: number
  readonly acknowledged: readonly string[]
  readonly errors: readonly string[]
  /** The longest time between two acknowledgements. */
  readonly gapMs: number
  /** How long this process did not run meanwhile. */
  readonly lostMs: number
}

/** A write every `everyMs`, whether or not the earlier ones are answered, until the returned function is called. */
export function writeSteadily(
  prefix: string,
  everyMs: number,
  set: (key: string, value: string) => Promise<unknown>,
): (() => Promise<WriterFigures>) & { readonly acknowledged: readonly string[] } {
  const acknowledged: string[] = []
  const errors: string[] = []
  const open = new Set<Promise<unknown>>()
  let sent = 0
  let last = performance.now()
  let gapMs = 0
  const late = new Lateness()
  const timer = setInterval(() => {
    const key = `${prefix}${sent++}`
    const write = set(key, 'x').then(
      () => {
        acknowledged.push(key)
        const time = performance.now()
        gapMs = Math.max(gapMs, time - last)
        last = time
      },
      (error: Error) => errors.push(error.message),
    )
    open.add(write)
    void write.finally(() => open.delete(write))
  }, everyMs)
  const end = async () => {
    clearInterval(timer)
    await Promise.all(open)
    late.stop()
    return { sent, acknowledged, errors, gapMs, lostMs: late.lostMs }
  }
  return Object.assign(end, { acknowledged })
}
