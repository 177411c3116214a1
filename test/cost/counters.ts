/** Counts what a process does: how often each piece of our code runs, its system calls and turns of the event loop. */
import { existsSync, openSync, readSync } from 'node:fs'
import { type Debugger, type Profiler, Session } from 'node:inspector'
import { relative } from 'node:path'
import { performance } from 'node:perf_hooks'
import { fileURLToPath } from 'node:url'
import { type Weight, weigh } from './weigh.ts'

/** What one function did: how often it was called, and the steps of weigh.ts that it took. */
export interface FunctionCount {
  calls: number
  steps: number
}

/** What was done between two looks. */
export interface Counts {
  /** `file name` of our functions that ran. */
  readonly functions: ReadonlyMap<string, FunctionCount>
  /** Calls of functions of Node's own JavaScript. */
  readonly nodeCalls: number
  readonly reads: number
  readonly writes: number
  /** Of the event loop. */
  readonly turns: number
}

interface Level {
  readonly reads: number
  readonly writes: number
  readonly turns: number
}

const MOST: Level = {
  reads: Number.POSITIVE_INFINITY,
  writes: Number.POSITIVE_INFINITY,
  turns: Number.POSITIVE_INFINITY,
}

export class Counters {
  readonly #session = new Session()
  readonly #root: string
  readonly #isOurs: (path: string) => boolean
  readonly #weights = new Map<string, readonly Weight[]>()
  #before: Level
  /** Of the laps so far: how many, and the least of each figure in one. */
  #laps = 0
  #least: Level = MOST

  /**
   * Counts from now on, in what is compiled from now on: call it before the code to be counted is loaded.
   * @param root of the repository
   * @param isOurs whether the functions of this file, relative to the root, are to be counted
   */
  constructor(root: string, isOurs: (path: string) => boolean) {
    this.#root = root
    this.#isOurs = isOurs
    this.#session.connect()
    this.#post('Debugger.enable')
    this.#post('Profiler.enable')
    this.#post('Profiler.startPreciseCoverage', { callCount: true, detailed: true })
    this.#before = level()
  }

  /** Forgets what was done so far. */
  reset(): void {
    this.#post('Profiler.takePreciseCoverage')
    this.#laps = 0
    this.#least = MOST
    this.#before = level()
  }

  /**
   * Ends a lap: system calls and turns are those of the lap that had least, times the number of laps, since V8 wakes the event loop by some
   * when it likes.
   */
  lap(): void {
    const [now, before, least] = [level(), this.#before, this.#least]
    this.#laps++
    this.#least = {
      // A look at the level is a read.
      reads: Math.min(least.reads, now.reads - before.reads - 1),
      writes: Math.min(least.writes, now.writes - before.writes),
      turns: Math.min(least.turns, now.turns - before.turns),
    }
    this.#before = now
  }

  /** What was done since reset(), up to the end of a lap. */
  take(): Counts {
    const { result } = this.#post<Profiler.TakePreciseCoverageReturnType>('Profiler.takePreciseCoverage')
    const functions = new Map<string, FunctionCount>()
    let nodeCalls = 0
    for (const { url, scriptId, functions: counted } of result) {
      if (url.startsWith('node:')) for (const { ranges } of counted) nodeCalls += ranges[0]?.count ?? 0
      if (!url.startsWith('file:')) continue
      const path = relative(this.#root, fileURLToPath(url))
      if (counted.length > 0 && this.#isOurs(path)) addCounts(functions, path, counted, this.#weightsOf(scriptId))
    }
    const { reads, writes, turns } = this.#least
    return {
      functions,
      nodeCalls,
      reads: this.#laps * reads,
      writes: this.#laps * writes,
      turns: this.#laps * turns,
    }
  }

  #weightsOf(scriptId: string): readonly Weight[] {
    const known = this.#weights.get(scriptId)
    if (known !== undefined) return known
    const { scriptSource } = this.#post<Debugger.GetScriptSourceReturnType>('Debugger.getScriptSource', { scriptId })
    const weights = weigh(scriptSource)
    this.#weights.set(scriptId, weights)
    return weights
  }

  /** The inspector of a process answers the process itself before it returns. */
  #post<T>(method: string, params: object = {}): T {
    let answer: { readonly error: Error | null; readonly result: T } | undefined
    this.#session.post(method, params, (error, result) => {
      answer = { error, result: result as T }
    })
    if (answer === undefined) throw new Error(`inspector: ${method} has no answer`)
    if (answer.error !== null) throw new Error(`inspector: ${method}: ${answer.error.message}`)
    return answer.result
  }
}

/** Adds what the functions of a file did. */
const addCounts = (
  functions: Map<string, FunctionCount>,
  path: string,
  counted: readonly Profiler.FunctionCoverage[],
  weights: readonly Weight[],
): void => {
  const steps = stepsOf(counted, weights)
  for (const [index, { functionName, ranges }] of counted.entries()) {
    const calls = ranges[0]?.count ?? 0
    if (calls === 0) continue
    const key = `${path} ${functionName || '(anonymous)'}`
    const sum = functions.get(key) ?? { calls: 0, steps: 0 }
    functions.set(key, { calls: sum.calls + calls, steps: sum.steps + steps[index]! })
  }
}

/** Pure: the steps that each of the functions of a script took, from how often its ranges ran. */
export const stepsOf = (counted: readonly Profiler.FunctionCoverage[], weights: readonly Weight[]): number[] => {
  const steps = counted.map(() => 0)
  for (const { at, steps: each } of weights) {
    const index = innermost(counted, at, ({ ranges }) => ranges[0])
    if (index < 0) continue
    const { ranges } = counted[index]!
    steps[index]! += each * ranges[innermost(ranges, at, (range) => range)]!.count
  }
  return steps
}

/** Which of those whose ranges hold `at` has the smallest; -1: none. */
const innermost = <T>(
  all: readonly T[],
  at: number,
  rangeOf: (each: T) => Profiler.CoverageRange | undefined,
): number => {
  let found = -1
  let least = Number.POSITIVE_INFINITY
  for (const [index, each] of all.entries()) {
    const range = rangeOf(each)
    if (range === undefined || range.startOffset > at || range.endOffset <= at) continue
    const length = range.endOffset - range.startOffset
    if (length > least) continue
    least = length
    found = index
  }
  return found
}

const level = (): Level => ({
  ...systemCalls(),
  turns: performance.nodeTiming.uvMetricsInfo.loopCount,
})

/** Where Linux counts the reads and writes of a process: system calls, whatever they move. */
const IO = '/proc/self/io'
const io = existsSync(IO) ? openSync(IO, 'r') : null
const text = Buffer.alloc(1024)

/** So far; NaN on other systems. */
const systemCalls = (): { readonly reads: number; readonly writes: number } => {
  const length = io === null ? 0 : readSync(io, text, 0, text.length, 0)
  const of = (name: string): number =>
    Number(new RegExp(`^${name}: (\\d+)$`, 'm').exec(text.toString('latin1', 0, length))?.[1])
  return { reads: of('syscr'), writes: of('syscw') }
}
