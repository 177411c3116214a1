/** What one request costs, and how that compares with the cost that is written down. */
import type { Counts } from './counters.ts'

/** What it costs, but for the functions. Two digits, so that what happens once in a hundred requests is seen. */
export interface Figures {
  /** Operations of our JavaScript, by weigh.ts. */
  readonly steps: number
  /** Calls of our functions. */
  readonly calls: number
  /** Calls of functions of Node's own JavaScript. This and what follows has what client and upstream do in it. */
  readonly nodeCalls: number
  /** System calls; null where they cannot be counted. */
  readonly reads: number | null
  readonly writes: number | null
  /** Of the event loop. */
  readonly turns: number
}

export interface Cost extends Figures {
  /** `file name` → calls and steps, of our functions that run for each tenth request or more often. */
  readonly functions: Readonly<Record<string, readonly [calls: number, steps: number]>>
}

const LEAST_CALLS = 0.1

/** Pure: the cost of one of `requests`. */
export const costOf = (counts: Counts, requests: number): Cost => {
  const each = (number: number): number => Math.round((100 * number) / requests) / 100
  const counted = (number: number): number | null => (Number.isNaN(number) ? null : each(number))
  const all = [...counts.functions].sort(([a], [b]) => (a < b ? -1 : 1))
  const sum = (of: 'calls' | 'steps'): number => each(all.reduce((sum, [, counted]) => sum + counted[of], 0))
  const functions = all
    .filter(([, { calls }]) => calls >= LEAST_CALLS * requests)
    .map(([name, { calls, steps }]) => [name, [each(calls), each(steps)]] as const)
  return {
    steps: sum('steps'),
    calls: sum('calls'),
    nodeCalls: each(counts.nodeCalls),
    reads: counted(counts.reads),
    writes: counted(counts.writes),
    turns: each(counts.turns),
    functions: Object.fromEntries(functions),
  }
}

/**
 * How far a figure may be above what is written down, and twice as far below. The counts are the same in each run, so the room is for changes
 * that nobody would notice: less than a look into a map and a string.
 */
const ROOM: Readonly<Record<keyof Figures, number>> = {
  steps: 80,
  calls: 5,
  nodeCalls: 5,
  // One in twenty requests.
  reads: 0.05,
  writes: 0.05,
  turns: 0.05,
}

const NAMES = Object.keys(ROOM) as (keyof Figures)[]

/** Functions that a message names. */
const SHOWN = 10

/** Pure: a line for each figure that is out of bounds, and then those functions that do more, or less, than before; empty when all is well. */
export const compare = (is: Cost, was: Cost): string[] => {
  const lines: string[] = []
  for (const name of NAMES) {
    const [now, before] = [is[name], was[name]]
    if (now === null || before === null) continue
    if (now <= before + ROOM[name] && now >= before - 2 * ROOM[name]) continue
    const percent = Math.round((1000 * (now - before)) / before) / 10
    lines.push(`${name}: ${now} in place of ${before} (${percent > 0 ? '+' : ''}${percent} %)`)
  }
  return lines.length === 0 ? [] : [...lines, ...changedFunctions(is, was)]
}

/** Pure: the functions that differ most, one a line. */
const changedFunctions = ({ functions: now }: Cost, { functions: before }: Cost): string[] =>
  [...new Set([...Object.keys(now), ...Object.keys(before)])]
    .map((name) => {
      const [[calls, steps], [callsBefore, stepsBefore]] = [now[name] ?? [0, 0], before[name] ?? [0, 0]]
      const by = Math.max(Math.abs(steps - stepsBefore), Math.abs(calls - callsBefore))
      return { by, line: `  ${name}: ${calls} calls, ${steps} steps in place of ${callsBefore}, ${stepsBefore}` }
    })
    .filter(({ by }) => by > 0)
    .sort((a, b) => b.by - a.by)
    .slice(0, SHOWN)
    .map(({ line }) => line)
