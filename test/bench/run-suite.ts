/** Measures the contenders of a suite side by side: all are up, each is loaded in turn, round after round. */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ensurePackages } from '../../build/machine/packages.ts'
import { printed } from '../../build/machine/progress.ts'
import { type Contender, openConnections } from './contender.ts'
import { load, withOpenConnections } from './load.ts'
import { anonymousBytes, cpuSeconds, freePort, type Running } from './process.ts'
import type { Suite } from './suites/suite.ts'

/** The load and the upstream share one core, the proxy has the other: it is never held up by them. */
const LOAD_CORE = 0
const PROXY_CORE = 1

export interface Measurement {
  readonly cpuMicrosPerRequest: number
  readonly requestsPerSecond: number
  readonly p50Ms: number
  readonly p99Ms: number
  readonly errors: number
}

export interface Result extends Measurement {
  readonly name: string
  readonly version: string
  readonly features: string
  /** CPU time from its start until it listens, in milliseconds. */
  readonly startMs: number
  /** Before the first request and after the last, in bytes, and then with many open connections which had one request each; see openConnections(). */
  readonly anonymousIdle: number
  readonly anonymousAfter: number
  readonly anonymousOpen: number
  readonly rounds: readonly Measurement[]
}

export interface SuiteOptions {
  /** Of load in each round. */
  readonly seconds: number
  readonly rounds: number
  /** Of load before the first round, which is not counted. */
  readonly warmUpSeconds: number
}

interface Entry {
  readonly contender: Contender
  readonly version: string
  readonly port: number
  readonly running: Running
  readonly anonymousIdle: number
  readonly rounds: Measurement[]
}

/** Throws when a contender cannot be had or started: a table without one of them says nothing. */
export const runSuite = async (suite: Suite, options: SuiteOptions): Promise<Result[]> => {
  const progress = printed()
  await ensurePackages(suite.packages, progress)
  const directory = mkdtempSync(join(tmpdir(), 'ambassador-bench-'))
  const folder = (name: string): string => {
    const path = join(directory, name)
    mkdirSync(path)
    return path
  }
  const stops: (() => Promise<void>)[] = []
  try {
    const { upstream, running } = await suite.startUpstream({ core: LOAD_CORE, directory: folder('upstream') })
    stops.push(running.stop)
    const entries: Entry[] = []
    for (const contender of suite.contenders) {
      const version = await progress.step(`${contender.name} prepared`, () => contender.prepare())
      const port = await freePort()
      const proxy = await contender.start({
        mode: suite.mode,
        upstream,
        port,
        core: PROXY_CORE,
        directory: folder(contender.name),
      })
      stops.push(proxy.stop)
      entries.push({ contender, version, port, running: proxy, anonymousIdle: await settled(proxy.pid), rounds: [] })
    }
    const measure = (entry: Entry, seconds: number) => measureOne(suite, entry, seconds, directory)
    for (const entry of entries) await measure(entry, options.warmUpSeconds)
    for (let round = 1; round <= options.rounds; round++)
      await progress.step(`round ${round} of ${options.rounds}`, async () => {
        for (const entry of entries) entry.rounds.push(await measure(entry, options.seconds))
      })
    const results: Result[] = []
    for (const entry of entries) results.push(await resultOf(entry, suite.mode))
    return results
  } finally {
    for (const stop of stops) await stop()
    rmSync(directory, { recursive: true, force: true })
  }
}

const measureOne = async (
  suite: Suite,
  { port, running }: Entry,
  seconds: number,
  directory: string,
): Promise<Measurement> => {
  const before = cpuSeconds(running.pid)
  const { requests, errors, requestsPerSecond, p50Ms, p99Ms } = await (suite.load ?? load)({
    core: LOAD_CORE,
    port,
    seconds,
    directory,
  })
  const used = cpuSeconds(running.pid) - before
  return { cpuMicrosPerRequest: (used / requests) * 1e6, requestsPerSecond, p50Ms, p99Ms, errors }
}

/** Long enough for what a proxy puts off until its start is over. */
const IDLE_MS = 3000
const settled = (pid: number): Promise<number> =>
  new Promise((resolve) => setTimeout(() => resolve(anonymousBytes(pid)), IDLE_MS))

const resultOf = async (
  { contender, version, running, port, anonymousIdle, rounds }: Entry,
  mode: Suite['mode'],
): Promise<Result> => ({
  name: contender.name,
  version,
  features: contender.features,
  startMs: running.startMs,
  anonymousIdle,
  anonymousAfter: anonymousBytes(running.pid),
  anonymousOpen: await withOpenConnections(port, openConnections(mode), mode, () => anonymousBytes(running.pid)),
  cpuMicrosPerRequest: median(rounds.map((r) => r.cpuMicrosPerRequest)),
  requestsPerSecond: median(rounds.map((r) => r.requestsPerSecond)),
  p50Ms: median(rounds.map((r) => r.p50Ms)),
  p99Ms: median(rounds.map((r) => r.p99Ms)),
  errors: rounds.reduce((sum, r) => sum + r.errors, 0),
  rounds,
})

/** The middle one; of an even number the mean of the two in the middle. */
export const median = (values: readonly number[]): number => {
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length / 2
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
