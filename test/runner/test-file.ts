/** Runs one test file in a process group of its own, and ends the group when the file hangs. */

import { type ChildProcess, spawn } from 'node:child_process'
import { createInterface } from 'node:readline'
import type { Readable } from 'node:stream'
import { fileURLToPath } from 'node:url'
import type { FileEvent } from './reporter.ts'

/** One test that ended, or a fault of the file itself. */
export interface TestResult {
  readonly outcome: 'passed' | 'failed' | 'skipped'
  /** `file: suite > test`. */
  readonly title: string
  /** Why it failed or was skipped. */
  readonly detail: string
  /** Failed only because another failed, which says why. */
  readonly isEcho: boolean
}

export interface FileReport {
  readonly file: string
  readonly results: readonly TestResult[]
  readonly durationMs: number
  /** Last lines of what the file and its children wrote; shown when something failed. */
  readonly output: string
}

export interface FileLimits {
  /** For one test that names no limit itself. */
  readonly testTimeoutMs: number
  /** For all tests of the file. */
  readonly fileTimeoutMs: number
  /** How long the file may live on after its last test. */
  readonly exitTimeoutMs: number
}

const REPORTER = fileURLToPath(new URL('reporter.ts', import.meta.url))
const MAX_OUTPUT = 64 * 1024
const LAST_OUTPUT_MS = 1000

const running = new Set<ChildProcess>()

/** Ends every file that runs, for a person who has pressed Ctrl-C. */
export const endAll = (): void => {
  for (const child of running) endGroup(child)
}

/** Runs one file; never throws for what happens in it: that is a failed result under its name. */
export const runTestFile = async (
  file: string,
  limits: FileLimits,
  env: Readonly<Record<string, string>> = {},
): Promise<FileReport> => {
  const start = performance.now()
  // In one process (isolation=none): with Node's own isolation a hanging file is not ended with what it has started.
  const args = [
    '--test',
    '--test-isolation=none',
    `--test-timeout=${limits.testTimeoutMs}`,
    `--test-reporter=${REPORTER}`,
  ]
  const child = spawn(process.execPath, [...args, file], {
    detached: true,
    env: { ...process.env, ...env },
    stdio: ['ignore', 'pipe', 'pipe', 'pipe'],
  })
  running.add(child)

  const results: TestResult[] = []
  const add = (outcome: TestResult['outcome'], detail: string, path: readonly string[] = [], isEcho = false): void => {
    results.push({ outcome, title: path.length === 0 ? file : `${file}: ${path.join(' > ')}`, detail, isEcho })
  }
  let output = ''
  const collect = (text: string): void => {
    output = `${output}${text}`.slice(-MAX_OUTPUT)
  }
  for (const stream of [child.stdout!, child.stderr!]) stream.setEncoding('utf8').on('data', collect)

  let open = 0
  let isDone = false
  let ended: string | undefined
  const end = (why: string): void => {
    ended ??= why
    endGroup(child)
  }
  const fileTimer = setTimeout(
    () => end(`took longer than ${seconds(limits.fileTimeoutMs)} and was ended`),
    limits.fileTimeoutMs,
  )
  const idle = `was ended ${seconds(limits.exitTimeoutMs)} after its last test: a socket, a timer or a process keeps it alive`
  let idleTimer: NodeJS.Timeout | undefined

  const read = (line: string): void => {
    const event = JSON.parse(line) as FileEvent
    clearTimeout(idleTimer)
    if (event.kind === 'enqueued') open++
    else if (event.kind === 'completed') open--
    else if (event.kind === 'done') isDone = true
    else if (!event.isSuite || (event.outcome === 'failed' && !event.isEcho))
      add(event.outcome, event.detail, event.path, event.isEcho)
    if (open === 0) idleTimer = setTimeout(() => end(idle), limits.exitTimeoutMs)
  }
  const channel = createInterface({ input: child.stdio[3] as Readable }).on('line', read)
  const allRead = new Promise<void>((resolve) => channel.once('close', resolve))

  const closed = new Promise<void>((resolve) => child.once('close', () => resolve()))
  const exit = await new Promise<string>((resolve) => {
    child.once('error', (error) => resolve(`cannot be started: ${error.message}`))
    child.once('exit', (code, signal) => resolve(signal === null ? `exit code ${code}` : `signal ${signal}`))
  })
  endGroup(child) // children that it left, which would keep our pipes open
  await allRead
  // What it wrote last; a daemon that left the group may hold the pipe for ever.
  await Promise.race([closed, new Promise((resolve) => setTimeout(resolve, LAST_OUTPUT_MS).unref())])
  clearTimeout(fileTimer)
  clearTimeout(idleTimer)
  running.delete(child)

  const hasFailed = results.some(({ outcome }) => outcome === 'failed')
  if (ended !== undefined && !(ended === idle && hasFailed)) add('failed', ended)
  else if (ended === undefined && !isDone) add('failed', `ended with ${exit} before its tests were done`)
  else if (ended === undefined && exit !== 'exit code 0' && !hasFailed)
    add('failed', `ended with ${exit} although no test failed`)
  return { file, results, durationMs: performance.now() - start, output }
}

const endGroup = (child: ChildProcess): void => {
  if (child.pid === undefined) return
  try {
    process.kill(-child.pid, 'SIGKILL')
  } catch {
    // the whole group has ended
  }
}

const seconds = (ms: number): string => `${ms / 1000} s`
