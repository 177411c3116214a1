/** Whether the process should take no more work: the memory of its cgroup is nearly used up, or its event loop cannot keep up. */
import { existsSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { collector } from './engine.ts'

/** Share of the memory limit at which new work is refused, and at which it is taken again. */
const SHED_AT = 0.85
const RESUME_AT = 0.8
/** Share at which work that waits for a slow peer is ended: what was begun before may grow until the kernel kills the process. */
const END_AT = 0.92
/**
 * What a request that begins may come to hold before a look shows what it does hold: two connections, what making them leaves to the
 * collector, and a piece of a body that its receiver does not take. Half of it stays.
 */
const BYTES_PER_REQUEST = 64 * 1024
const BYTES_THAT_STAY = 32 * 1024
/** The piece, which those that wait for their answer do not hold yet. */
const BYTES_TO_COME = 20 * 1024
/** So many may begin between two looks, whatever is left, and so many that wait for their answer do not matter. */
const FEW_REQUESTS = 64
/** While what nobody waits for is left out, memory is looked at this often. */
const QUICK_LOOK_MS = 25
/** An event loop that is this late twice in a row has more to do than it can; once may be a pause of the machine. */
const LATE_MS = 1_000
const LATE_LOOKS = 2
/** A collection stops everything, so it is tried no more often than this; more often while requests are refused until it helps. */
const COLLECT_EVERY_MS = 5_000
const COLLECT_REFUSING_EVERY_MS = 1_000

export type OverloadCause = 'memory' | 'event_loop'

/** What nobody waits for is left out earlier. */
const STRAINED_AT = 0.7
const STRAINED_LATE_MS = 100

let cause: OverloadCause | null = null
let strained = false
let detail = ''

/** More requests than can begin between two looks. */
const UNBOUNDED = 2 ** 30
/** Requests that may begin before memory is looked at again. */
let credit = UNBOUNDED
let watching: OverloadWatch | null = null

/** Asked once for each request that begins: null, or why it should be refused. */
export function overloadCause(): OverloadCause | null {
  if (--credit < 0) watching?.recount()
  return cause
}

/** Whether it is refused for want of memory: then no connection should stay that does not have to. */
export function isMemoryShort(): boolean {
  return cause === 'memory'
}

/** Whether what nobody waits for should be left out: well before anything is refused. */
export function isStrained(): boolean {
  return strained
}

/** The same for a person. */
export function overloadDetail(): string {
  return detail
}

/**
 * What the kernel takes back before it kills anybody: pages of files, such as those of the program itself, which are charged to whoever
 * reads them first on a node, and caches of names. Files in memory (tmpfs) are not among them.
 */
const RECLAIMABLE = /^(?:(?:in)?active_file|slab_reclaimable) (\d+)$/gm

const CGROUP = '/sys/fs/cgroup'

/** Where the kernel says what a container uses. */
interface MemoryFiles {
  /** The lowest of them holds; "max" is none, and so is a file that is not there. */
  readonly limits: readonly string[]
  readonly used: string
  readonly stat: string
}

const V2: MemoryFiles = {
  // Above `high` nobody is killed, but a process that goes on growing is made to wait until it stands still.
  limits: ['memory.max', 'memory.high'],
  used: 'memory.current',
  stat: 'memory.stat',
}

const V1: MemoryFiles = {
  limits: ['memory/memory.limit_in_bytes'],
  used: 'memory/memory.usage_in_bytes',
  stat: 'memory/memory.stat',
}

/** Without a limit version 1 has the largest whole number of pages. */
const NO_LIMIT = 2 ** 62

const filesOf = (cgroupDir: string): MemoryFiles => (existsSync(join(cgroupDir, V1.used)) ? V1 : V2)

/** What the cgroup (version 1 or 2) of this container may use, in bytes; null: no limit. */
export function memoryLimit(cgroupDir: string = CGROUP): number | null {
  return lowest(cgroupDir, filesOf(cgroupDir).limits)
}

function lowest(dir: string, limits: readonly string[]): number | null {
  let found = NO_LIMIT
  for (const name of limits) {
    const limit = Number(readCgroup(dir, name))
    if (limit > 0 && limit < found) found = limit
  }
  return found === NO_LIMIT ? null : found
}

function readCgroup(dir: string, name: string): string {
  try {
    return readFileSync(join(dir, name), 'utf8')
  } catch {
    return ''
  }
}

export interface OverloadOptions {
  /** Where the cgroup (version 1 or 2) of this container is. Default /sys/fs/cgroup. Without a limit there, memory is not watched. */
  readonly cgroupDir?: string
  /** Frees what nobody needs. Default: the collector, when there is one (engine.ts). */
  readonly collect?: () => void
  /** Told when it begins and when it ends (null). */
  readonly onChange?: (cause: OverloadCause | null, detail: string) => void
  /** How many requests may come to hold more than they do now. Default: none. */
  readonly growing?: () => number
  /** Ends up to `count` requests that wait for slow peers. Default: none can be ended. */
  readonly endSome?: (count: number, detail: string) => void
}

interface Memory {
  readonly used: number
  readonly max: number
  /** Requests that may come to hold more, if they are many. */
  readonly growing: number
}

const textOf = ({ used, max, growing }: Memory): string => {
  const text = `${Math.round((100 * used) / max)} % of the memory limit of ${max} bytes are used`
  return used >= SHED_AT * max ? text : `${text}, and ${growing} requests that wait for their answer may need the rest`
}

/** How many bytes are left below that share of the limit, when all that grow have grown. */
const room = ({ used, max, growing }: Memory, share: number): number => share * max - used - growing * BYTES_TO_COME

/** Looks at what it is told to, as often as look() is called. One per process: what it finds is what overloadCause() says. */
export class OverloadWatch {
  readonly #dir: string
  readonly #files: MemoryFiles
  readonly #collect: () => void
  readonly #onChange: NonNullable<OverloadOptions['onChange']>
  readonly #growing: () => number
  readonly #endSome: NonNullable<OverloadOptions['endSome']>
  #lateLooks = 0
  #collectedAt = Number.NEGATIVE_INFINITY
  #quick: NodeJS.Timeout | null = null

  constructor({ cgroupDir, collect, onChange, growing, endSome }: OverloadOptions = {}) {
    this.#dir = cgroupDir ?? CGROUP
    this.#files = filesOf(this.#dir)
    this.#collect = collect ?? (() => collector()?.())
    this.#onChange = onChange ?? (() => {})
    this.#growing = growing ?? (() => 0)
    this.#endSome = endSome ?? (() => {})
  }

  /** @param delayMs how late this look is */
  look(delayMs: number): void {
    watching = this
    this.#lateLooks = delayMs >= LATE_MS ? this.#lateLooks + 1 : 0
    const memory = this.#memory()
    const isTight = memory !== null && memory.used >= STRAINED_AT * memory.max
    if (isTight) this.#lookSoon()
    if (this.#lateLooks >= LATE_LOOKS) {
      strained = true
      this.#become('event_loop', `the event loop is ${Math.round(delayMs)} ms late`)
      return
    }
    strained = delayMs >= STRAINED_LATE_MS || isTight
    this.#judge(memory)
  }

  /** As many requests have begun since the last look as there was memory for: whether there is more of it. */
  recount(): void {
    if (cause !== 'event_loop') this.#judge(this.#memory())
  }

  /** Nobody is overloaded any more. */
  stop(): void {
    if (this.#quick !== null) clearTimeout(this.#quick)
    this.#quick = null
    if (watching === this) watching = null
    credit = UNBOUNDED
    cause = null
    strained = false
    detail = ''
  }

  #lookSoon(): void {
    this.#quick ??= setTimeout(() => {
      this.#quick = null
      const memory = this.#memory()
      if (memory !== null && memory.used >= STRAINED_AT * memory.max) this.#lookSoon()
      if (cause !== 'event_loop') this.#judge(memory)
    }, QUICK_LOOK_MS).unref()
  }

  #judge(memory: Memory | null): void {
    credit = memory === null ? UNBOUNDED : Math.max(FEW_REQUESTS, Math.floor(room(memory, SHED_AT) / BYTES_PER_REQUEST))
    if (memory === null || room(memory, cause === 'memory' ? RESUME_AT : SHED_AT) > 0) {
      this.#become(null, '')
      return
    }
    const text = textOf(memory)
    this.#become('memory', text)
    if (memory.used < END_AT * memory.max) return
    const count = Math.ceil((memory.used - SHED_AT * memory.max) / BYTES_THAT_STAY)
    this.#endSome(count, text)
  }

  #become(next: OverloadCause | null, text: string): void {
    detail = text
    if (cause === next) return
    cause = next
    this.#onChange(next, text)
  }

  /** What is used and cannot be given back, of what there is; null without a limit. */
  #memory(): Memory | null {
    const max = lowest(this.#dir, this.#files.limits)
    if (max === null) return null
    let used = this.#used(max)
    const sinceMs = performance.now() - this.#collectedAt
    const isRefusing = cause === 'memory'
    const isDue = sinceMs >= (isRefusing ? COLLECT_REFUSING_EVERY_MS : COLLECT_EVERY_MS)
    if (isDue && used >= (isRefusing ? RESUME_AT : SHED_AT) * max) {
      this.#collect()
      // Behind it: a collection of a large heap may take a while itself.
      this.#collectedAt = performance.now()
      used = this.#used(max)
    }
    const growing = this.#growing()
    return { used, max, growing: growing > FEW_REQUESTS ? growing : 0 }
  }

  #used(max: number): number {
    const current = Number(readCgroup(this.#dir, this.#files.used))
    if (current < STRAINED_AT * max) return current
    let reclaimable = 0
    for (const [, bytes] of readCgroup(this.#dir, this.#files.stat).matchAll(RECLAIMABLE)) reclaimable += Number(bytes)
    return current - reclaimable
  }
}
