/** Whether the process should take no more work: the memory of its cgroup is nearly used up, or its event loop cannot keep up. */
import { readFileSync } from 'node:fs'
import { join } from 'node:path'
import { collector } from './engine.ts'

/** Share of the memory limit at which new work is refused, and at which it is taken again. */
const SHED_AT = 0.85
const RESUME_AT = 0.8
/** An event loop that is this late twice in a row has more to do than it can; once may be a pause of the machine. */
const LATE_MS = 1_000
const LATE_LOOKS = 2
/** A collection stops everything, so it is tried no more often than this. */
const COLLECT_EVERY_MS = 5_000

export type OverloadCause = 'memory' | 'event_loop'

/** What nobody waits for is left out earlier. */
const STRAINED_AT = 0.7
const STRAINED_LATE_MS = 100

let cause: OverloadCause | null = null
let strained = false
let detail = ''

/** Asked for each request: null, or why it should be refused. */
export function overloadCause(): OverloadCause | null {
  return cause
}

/** Whether what nobody waits for should be left out: well before anything is refused. */
export function isStrained(): boolean {
  return strained
}

/** The same for a person. */
export function overloadDetail(): string {
  return detail
}

const CGROUP = '/sys/fs/cgroup'

/** What the cgroup (version 2) of this container may use, in bytes; null: no limit. */
export function memoryLimit(cgroupDir: string = CGROUP): number | null {
  // "max" is no limit, and so is a file that is not there.
  const max = Number(readCgroup(cgroupDir, 'memory.max'))
  return max > 0 ? max : null
}

function readCgroup(dir: string, name: string): string {
  try {
    return readFileSync(join(dir, name), 'utf8')
  } catch {
    return ''
  }
}

export interface OverloadOptions {
  /** Where the cgroup (version 2) of this container is. Default /sys/fs/cgroup. Without a limit there, memory is not watched. */
  readonly cgroupDir?: string
  /** Frees what nobody needs. Default: the collector, when there is one (engine.ts). */
  readonly collect?: () => void
  /** Told when it begins and when it ends (null). */
  readonly onChange?: (cause: OverloadCause | null, detail: string) => void
}

/** Looks at what it is told to, as often as look() is called. One per process: what it finds is what overloadCause() says. */
export class OverloadWatch {
  readonly #dir: string
  readonly #collect: () => void
  readonly #onChange: NonNullable<OverloadOptions['onChange']>
  #lateLooks = 0
  #collectedAt = Number.NEGATIVE_INFINITY

  constructor({ cgroupDir, collect, onChange }: OverloadOptions = {}) {
    this.#dir = cgroupDir ?? CGROUP
    this.#collect = collect ?? (() => collector()?.())
    this.#onChange = onChange ?? (() => {})
  }

  /** @param delayMs how late this look is */
  look(delayMs: number): void {
    this.#lateLooks = delayMs >= LATE_MS ? this.#lateLooks + 1 : 0
    if (this.#lateLooks >= LATE_LOOKS) {
      strained = true
      this.#become('event_loop', `the event loop is ${Math.round(delayMs)} ms late`)
      return
    }
    const memory = this.#memory()
    strained = delayMs >= STRAINED_LATE_MS || (memory !== null && memory.used >= STRAINED_AT * memory.max)
    if (memory !== null && memory.used >= (cause === 'memory' ? RESUME_AT : SHED_AT) * memory.max) {
      const percent = Math.round((100 * memory.used) / memory.max)
      this.#become('memory', `${percent} % of the memory limit of ${memory.max} bytes are used`)
    } else this.#become(null, '')
  }

  /** Nobody is overloaded any more. */
  stop(): void {
    cause = null
    strained = false
    detail = ''
  }

  #become(next: OverloadCause | null, text: string): void {
    detail = text
    if (cause === next) return
    cause = next
    this.#onChange(next, text)
  }

  /** What is used and cannot be given back, of what there is; null without a limit. */
  #memory(): { readonly used: number; readonly max: number } | null {
    const max = memoryLimit(this.#dir)
    if (max === null) return null
    let used = this.#used(max)
    const time = performance.now()
    if (used >= SHED_AT * max && time - this.#collectedAt >= COLLECT_EVERY_MS) {
      this.#collectedAt = time
      this.#collect()
      used = this.#used(max)
    }
    return { used, max }
  }

  #used(max: number): number {
    const current = Number(readCgroup(this.#dir, 'memory.current'))
    if (current < STRAINED_AT * max) return current
    // The kernel takes back the pages of files that nobody used lately before it kills anybody.
    const inactive = /^inactive_file (\d+)$/m.exec(readCgroup(this.#dir, 'memory.stat'))?.[1] ?? 0
    return current - Number(inactive)
  }
}
