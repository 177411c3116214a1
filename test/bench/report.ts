/** The table of a bench: figures, and each as a ratio to HAProxy's of the same run, which is what can be compared between machines. */

import { openConnections } from './contender.ts'
import type { Result } from './run-suite.ts'
import type { Suite } from './suites/suite.ts'

const BASE = 'haproxy'

const COLUMNS: readonly { readonly title: string; readonly of: (result: Result) => number; readonly digits: number }[] =
  [
    { title: 'CPU µs/req', of: (r) => r.cpuMicrosPerRequest, digits: 1 },
    { title: 'req/s', of: (r) => r.requestsPerSecond, digits: 0 },
    { title: 'p50 ms', of: (r) => r.p50Ms, digits: 2 },
    { title: 'p99 ms', of: (r) => r.p99Ms, digits: 2 },
    { title: 'start ms', of: (r) => r.startMs, digits: 0 },
    { title: 'idle MB', of: (r) => r.anonymousIdle / 1e6, digits: 1 },
    { title: 'after MB', of: (r) => r.anonymousAfter / 1e6, digits: 1 },
    { title: 'open MB', of: (r) => r.anonymousOpen / 1e6, digits: 1 },
  ]

/** For people. MB is anonymous memory: what one more sidecar costs a node. */
export const table = (suite: Suite, results: readonly Result[]): string => {
  const base = results.find(({ name }) => name === BASE)
  const rows = results.map((result) => [
    result.name,
    ...COLUMNS.flatMap(({ of, digits }) => [
      of(result).toFixed(digits),
      base === undefined ? '' : `× ${(of(result) / of(base)).toFixed(2)}`,
    ]),
    result.errors === 0 ? '' : `${result.errors} errors`,
  ])
  const heading = ['', ...COLUMNS.flatMap(({ title }) => [title, '']), '']
  const widths = heading.map((cell, column) => Math.max(cell.length, ...rows.map((row) => row[column]!.length)))
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)))
      .join('  ')
      .trimEnd()
  const notes = results.map(({ name, version, features }) => `${name} ${version}: ${features}`)
  return [
    `${suite.name}: ${suite.about}`,
    `× is the ratio to ${BASE}; start is CPU time until it listens; MB is anonymous memory, at last with ${openConnections(suite.mode)} open connections`,
    '',
    line(heading),
    ...rows.map(line),
    '',
    ...notes,
    '',
  ].join('\n')
}
