/** The table of a bench: figures, and each as a ratio to HAProxy's of the same run, which is what can be compared between machines. */

import { openConnections } from './contender.ts'
import type { Result } from './run-suite.ts'
import type { Suite, Unit } from './suites/suite.ts'

const BASE = 'haproxy'

interface Column {
  readonly title: string
  /** Null: not looked at. */
  readonly of: (result: Result) => number | null
  readonly digits: number
}

const START: readonly Column[] = [
  { title: 'start ms', of: (r) => r.startMs, digits: 0 },
  { title: 'idle MB', of: (r) => r.anonymousIdle / 1e6, digits: 1 },
]

const LOAD: Readonly<Record<Unit, readonly Column[]>> = {
  req: [
    { title: 'CPU µs/req', of: (r) => r.cpuMicros, digits: 1 },
    { title: 'req/s', of: (r) => r.perSecond, digits: 0 },
  ],
  GiB: [
    { title: 'CPU s/GiB', of: (r) => r.cpuMicros / 1e6, digits: 3 },
    { title: 'MiB/s', of: (r) => r.perSecond * 1024, digits: 0 },
  ],
  conn: [
    { title: 'CPU µs/conn', of: (r) => r.cpuMicros, digits: 0 },
    { title: 'conn/s', of: (r) => r.perSecond, digits: 0 },
  ],
}

const REST: readonly Column[] = [
  { title: 'p50 ms', of: (r) => r.p50Ms, digits: 2 },
  { title: 'p99 ms', of: (r) => r.p99Ms, digits: 2 },
  ...START,
  { title: 'after MB', of: (r) => r.anonymousAfter / 1e6, digits: 1 },
  { title: 'open MB', of: (r) => (r.anonymousOpen === null ? null : r.anonymousOpen / 1e6), digits: 1 },
  {
    title: 'kB/conn',
    of: (r) => (r.bytesPerConnection === null ? null : r.bytesPerConnection / 1e3),
    digits: 1,
  },
]

/** For people. MB is anonymous memory: what one more sidecar costs a node. */
export const table = (suite: Suite, results: readonly Result[]): string => {
  const base = results.find(({ name }) => name === BASE)
  const all = [...(suite.load === null ? [] : LOAD[suite.unit ?? 'req']), ...REST]
  const columns = all.filter(({ of }) => results.some((result) => of(result) !== null))
  const rows = results.map((result) => [
    result.name,
    ...columns.flatMap(({ of, digits }) => {
      const [figure, unit] = [of(result), base === undefined ? null : of(base)]
      return [figure?.toFixed(digits) ?? '', figure === null || unit === null ? '' : `× ${(figure / unit).toFixed(2)}`]
    }),
    result.errors === 0 ? '' : `${result.errors} errors`,
  ])
  const heading = ['', ...columns.flatMap(({ title }) => [title, '']), '']
  const widths = heading.map((cell, column) => Math.max(cell.length, ...rows.map((row) => row[column]!.length)))
  const line = (cells: readonly string[]): string =>
    cells
      .map((cell, column) => (column === 0 ? cell.padEnd(widths[0]!) : cell.padStart(widths[column]!)))
      .join('  ')
      .trimEnd()
  const notes = results.map(({ name, version, features }) => `${name} ${version}: ${features}`)
  const connections = openConnections(suite.mode)
  return [
    `${suite.name}: ${suite.about}`,
    `× is the ratio to ${BASE}; start is CPU time until it listens; MB is anonymous memory, 'open' with ${connections} open connections`,
    '',
    line(heading),
    ...rows.map(line),
    '',
    ...notes,
    '',
  ].join('\n')
}
