/** Measures the contenders of a suite side by side: all are up, each is loaded in turn, round after round. */

import { mkdirSync, mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { ensurePackages } from '../../build/machine/packages.ts'
import { type Progress, printed } from '../../build/machine/progress.ts'
import { type Contender, openConnections } from './contender.ts'
import { load, withOpenConnections } from './load.ts'
import { anonymousBytes, cpuSeconds, freePort, type Running } from './process.ts'
import type { Suite } from './suites/suite.ts'

/** The load and the upstream share one core, the proxy has the other: it is never held up by them. */
const LOAD_CORE = 0
const PROXY_CORE = 1

/** For each of what the suite counts, see Suite.unit. */
export interface Measurement {
  readonly cpuMicros: number
  readonly perSecond: number
  /** Null: the load asks for no answers. */
  readonly p50Ms: number | null
  readonly p99Ms: number | null
  readonly errors: number
}

/** Of a suite without load, all figures of a Measurement are 0 or null. */
export interface Result extends Measurement {
  readonly name: string
  readonly version: string
  readonly features: string
  /** CPU time from its start until it listens, in milliseconds. */
  readonly startMs: number
  /** Before the first request and after the last, in bytes. */
  readonly anonymousIdle: number
  readonly anonymousAfter: number
  /** Then with many open connections which had one request each, see openConnections(); null: not looked at. */
  readonly anonymousOpen: number | null
  /** What each of them takes once all have been idle for a while; null: not looked at. */
  readonly bytesPerConnection: number | null
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
    const ask = suite.load === undefined ? load : suite.load
    if (ask !== null) await loadInTurn(ask, entries, options, directory, progress)
    const results: Result[] = []
    for (const entry of entries) {
      const open = await progress.step(`${entry.contender.name} with open connections`, () => openMemory(suite, entry))
      results.push(resultOf(entry, open))
    }
    return results
  } finally {
    for (const stop of stops) await stop()
    rmSync(directory, { recursive: true, force: true })
  }
}

const loadInTurn = async (
  ask: NonNullable<Suite['load']>,
  entries: readonly Entry[],
  { warmUpSeconds, rounds, seconds }: SuiteOptions,
  directory: string,
  progress: Progress,
): Promise<void> => {
  const measure = async ({ port, running }: Entry, seconds: number): Promise<Measurement> => {
    const before = cpuSeconds(running.pid)
    const { count, ...rest } = await ask({ core: LOAD_CORE, port, seconds, directory })
    return { cpuMicros: ((cpuSeconds(running.pid) - before) / count) * 1e6, ...rest }
  }
  for (const entry of entries) await measure(entry, warmUpSeconds)
  for (let round = 1; round <= rounds; round++)
    await progress.step(`round ${round} of ${rounds}`, async () => {
      for (const entry of inTurn(entries, round)) entry.rounds.push(await measure(entry, seconds))
    })
}

/** Each is first in its turn: the first of a round took up to a sixth less CPU time for a connection than the same program behind it. */
export const inTurn = <Each>(entries: readonly Each[], round: number): readonly Each[] => {
  const first = round % entries.length
  return [...entries.slice(first), ...entries.slice(0, first)]
}

/** Long enough for what a proxy puts off until its start is over. */
const IDLE_MS = 3000
const settled = (pid: number): Promise<number> =>
  new Promise((resolve) => setTimeout(() => resolve(anonymousBytes(pid)), IDLE_MS))

type OpenMemory = Pick<Result, 'anonymousAfter' | 'anonymousOpen' | 'bytesPerConnection'>

/** Streams and connections that come and go are told of without it: `tcp-idle` says the same of the same proxies. */
const openMemory = async ({ mode, unit = 'req', load }: Suite, entry: Entry): Promise<OpenMemory> => {
  const { port, running, anonymousIdle } = entry
  const anonymousAfter = anonymousBytes(running.pid)
  if (unit !== 'req') return { anonymousAfter, anonymousOpen: null, bytesPerConnection: null }
  const connections = openConnections(mode)
  return withOpenConnections(port, connections, mode, async () => {
    const anonymousOpen = anonymousBytes(running.pid)
    const bytesPerConnection = load === null ? ((await atRest(running.pid)) - anonymousIdle) / connections : null
    return { anonymousAfter, anonymousOpen, bytesPerConnection }
  })
}

/** Idle for so long, a proxy has given back what it gives back: ours looks once a minute. */
const REST_MS = 65_000
const REST_LOOKS = 13

/** The least of some looks: what is made for a moment only, to look after oneself, is not what a connection takes. */
const atRest = async (pid: number): Promise<number> => {
  let least = Number.POSITIVE_INFINITY
  for (let look = 0; look < REST_LOOKS; look++) {
    await new Promise((resolve) => setTimeout(resolve, REST_MS / REST_LOOKS))
    least = Math.min(least, anonymousBytes(pid))
  }
  return least
}

const resultOf = ({ contender, version, running, anonymousIdle, rounds }: Entry, open: OpenMemory): Result => ({
  name: contender.name,
  version,
  features: contender.features,
  startMs: running.startMs,
  anonymousIdle,
  ...open,
  cpuMicros: median(rounds.map((r) => r.cpuMicros)),
  perSecond: median(rounds.map((r) => r.perSecond)),
  p50Ms: medianOf(rounds.map((r) => r.p50Ms)),
  p99Ms: medianOf(rounds.map((r) => r.p99Ms)),
  errors: rounds.reduce((sum, r) => sum + r.errors, 0),
  rounds,
})

const medianOf = (values: readonly (number | null)[]): number | null => {
  const known = values.filter((value) => value !== null)
  return known.length === 0 ? null : median(known)
}

/** The middle one; of an even number the mean of the two in the middle; of none 0. */
export const median = (values: readonly number[]): number => {
  if (values.length === 0) return 0
  const sorted = [...values].sort((a, b) => a - b)
  const middle = sorted.length / 2
  return sorted.length % 2 === 1 ? sorted[Math.floor(middle)]! : (sorted[middle - 1]! + sorted[middle]!) / 2
}
