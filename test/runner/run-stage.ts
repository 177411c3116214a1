/** Runs the checks and test files of one stage and collects their results. */

import { spawn } from 'node:child_process'
import { readdirSync, statSync } from 'node:fs'
import { join } from 'node:path'
import { CannotRun, type Cleanup } from './prepare.ts'
import type { Check, Stage } from './stages.ts'
import { type FileReport, runTestFile, type TestResult } from './test-file.ts'

export interface StageReport {
  readonly stage: string
  readonly results: readonly TestResult[]
  readonly durationMs: number
}

/** Hears of each thing as it happens. */
export interface Listener {
  /** A check or a file has ended. */
  ended(report: FileReport): void
}

interface Options {
  /** The files to run; undefined: everything of the stage. */
  readonly paths?: readonly string[] | undefined
  /** What cannot run is a failure. */
  readonly isCi: boolean
}

/** Puts what the files of a stage need on this machine; runStage does it itself unless it is given one. Never rejects. */
export const prepareStage = async (stage: Stage, { paths, isCi }: Options): Promise<Cleanup | TestResult> =>
  testFiles(paths ?? stage.folders).length === 0 ? async () => {} : prepare(stage, isCi)

/** A stage that cannot run here counts as one skipped test for a person, and as a failed one where nobody would read of it. */
const prepare = async (stage: Stage, isCi: boolean): Promise<Cleanup | TestResult> => {
  const title = `stage ${stage.name}`
  try {
    return (await stage.prepare?.()) ?? (async () => {})
  } catch (error) {
    if (error instanceof CannotRun)
      return { outcome: isCi ? 'failed' : 'skipped', title, detail: `cannot run here: ${error.message}`, isEcho: false }
    return {
      outcome: 'failed',
      title,
      detail: error instanceof Error ? (error.stack ?? error.message) : String(error),
      isEcho: false,
    }
  }
}

/** Test files below the paths, in the order of their names; a path may be a file. */
export const testFiles = (paths: readonly string[]): string[] =>
  paths.flatMap((path) => {
    const stat = statSync(path, { throwIfNoEntry: false })
    if (stat === undefined) return []
    if (stat.isFile()) return [path]
    return readdirSync(path, { recursive: true, encoding: 'utf8' })
      .filter((name) => name.endsWith('.test.ts'))
      .map((name) => join(path, name))
      .sort()
  })

/** Runs the checks of the stage, then its files. `prepared`: of prepareStage with the same options. */
export const runStage = async (
  stage: Stage,
  options: Options & { readonly listener: Listener; readonly prepared?: Promise<Cleanup | TestResult> | undefined },
): Promise<StageReport> => {
  const start = performance.now()
  const results: TestResult[] = []
  const take = (report: FileReport): void => {
    results.push(...report.results)
    options.listener.ended(report)
  }
  if (options.paths === undefined) for (const check of stage.checks) take(await runCheck(check))
  const files = testFiles(options.paths ?? stage.folders)
  if (files.length > 0) {
    const cleanup = await (options.prepared ?? prepare(stage, options.isCi))
    if (typeof cleanup === 'function') {
      const { longest = [], inTurn = [], last = [] } = stage
      const run = async (file: string): Promise<void> => take(await runTestFile(file, stage.limits, stage.env))
      const chosenOf = (names: readonly string[]): string[] => names.filter((file) => files.includes(file))
      const others = [...new Set([...chosenOf(longest), ...files])].filter(
        (file) => ![...inTurn, ...last].includes(file),
      )
      await Promise.all([eachOf(chosenOf(inTurn), 1, run), eachOf(others, stage.concurrency, run)])
      await eachOf(chosenOf(last), 1, run)
      await cleanup()
    } else take({ file: cleanup.title, results: [cleanup], durationMs: 0, output: '' })
  }
  return { stage: stage.name, results, durationMs: performance.now() - start }
}

/** At most `width` at a time. */
const eachOf = async <T>(items: readonly T[], width: number, work: (item: T) => Promise<void>): Promise<void> => {
  const queue = [...items]
  const worker = async (): Promise<void> => {
    for (let item = queue.shift(); item !== undefined; item = queue.shift()) await work(item)
  }
  await Promise.all(Array.from({ length: width }, worker))
}

const runCheck = (check: Check): Promise<FileReport> =>
  new Promise((resolve) => {
    const start = performance.now()
    const child = spawn(check.command, check.args, { stdio: ['ignore', 'pipe', 'pipe'] })
    let output = ''
    const end = (failure: string | undefined): void => {
      const line = [check.command, ...check.args].join(' ')
      const result: TestResult =
        failure === undefined
          ? { outcome: 'passed', title: check.name, detail: '', isEcho: false }
          : { outcome: 'failed', title: check.name, detail: `'${line}' ${failure}`, isEcho: false }
      resolve({ file: check.name, results: [result], durationMs: performance.now() - start, output })
    }
    for (const stream of [child.stdout, child.stderr])
      stream.setEncoding('utf8').on('data', (text: string) => (output += text))
    child.once('error', (error) => end(`cannot be started: ${error.message}`))
    child.once('close', (code, signal) =>
      end(code === 0 ? undefined : `failed with ${signal === null ? `exit code ${code}` : `signal ${signal}`}`),
    )
  })
