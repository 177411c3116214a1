/** The stages of `npm test` as data, fast first. */

import { createHash } from 'node:crypto'
import { join } from 'node:path'
import { cacheRoot } from '../../build/machine/cache.ts'
import { type Cleanup, clusterIsGiven, prepareCluster, prepareHelm, prepareMachine, prepareProxy } from './prepare.ts'
import type { FileLimits } from './test-file.ts'

/** A command whose exit code is one test. */
export interface Check {
  readonly name: string
  readonly command: string
  readonly args: readonly string[]
}

export interface Stage {
  readonly name: string
  /** Stages of one group run at the same time; those of CLUSTER each on a cluster of its own, or one after the other on one that is given. */
  readonly group?: string
  readonly checks: readonly Check[]
  /** Folders below the repository whose *.test.ts are run. */
  readonly folders: readonly string[]
  readonly limits: FileLimits
  /** Test files that run at a time. */
  readonly concurrency: number
  /** Files that take longest, and so begin first. */
  readonly longest?: readonly string[]
  /** Files that would disturb each other, but not the others: they run one at a time in this order, beside the others. */
  readonly inTurn?: readonly string[]
  /** Files that run alone after all others, in this order. */
  readonly last?: readonly string[]
  /** Environment of the files, beside that of the run. */
  readonly env?: Readonly<Record<string, string>>
  /** Prints a line for each file that ends, where a stage takes minutes. */
  readonly isSlow: boolean
  /** Installs and starts what the files need. Throws CannotRun when this machine lacks what nobody but a person can give it. */
  readonly prepare?: () => Promise<Cleanup>
}

const limits = (testSeconds: number, fileSeconds: number, exitSeconds: number): FileLimits => ({
  testTimeoutMs: testSeconds * 1000,
  fileTimeoutMs: fileSeconds * 1000,
  exitTimeoutMs: exitSeconds * 1000,
})

const node = (...args: string[]): Omit<Check, 'name'> => ({ command: process.execPath, args })

/** What takes seconds and waits for nothing: one after the other, each would leave a core idle at its end. */
const QUICK = 'quick'
const CLUSTER = 'cluster'

/** What tsc knows of the files that it has checked, so that it looks at those again which have changed, and at what imports them. */
const CHECKED = join(
  cacheRoot(),
  'tsc',
  `${createHash('sha256')
    .update(join(import.meta.dirname, '../..'))
    .digest('hex')
    .slice(0, 16)}.tsbuildinfo`,
)

/** Two at a time suits the two cores of a small build machine: more would make each other's timing worse. */
const CONCURRENCY = 2

const checkStage = (name: string, checks: readonly Check[]): Stage => ({
  name,
  group: QUICK,
  checks,
  folders: [],
  limits: limits(0, 0, 0),
  concurrency: 1,
  isSlow: true,
})

export const STAGES: readonly Stage[] = [
  checkStage('lint', [
    { name: 'biome', command: 'node_modules/.bin/biome', args: ['check', '--error-on-warnings', '.'] },
    {
      name: 'tsc',
      command: 'node_modules/.bin/tsc',
      args: ['--noEmit', '--incremental', '--tsBuildInfoFile', CHECKED],
    },
  ]),
  checkStage('generated', [{ name: 'generated files are up to date', ...node('operator/api/generate.ts', '--check') }]),
  {
    name: 'unit',
    group: QUICK,
    checks: [],
    folders: ['test/unit'],
    limits: limits(30, 120, 10),
    concurrency: 4, // small ones, which wait for each other's results and for time-outs half of the time
    isSlow: false,
    prepare: prepareMachine,
  },
  {
    name: 'golden',
    group: QUICK,
    checks: [],
    folders: ['test/golden', 'test/codec', 'test/fuzz'],
    limits: limits(60, 300, 10),
    concurrency: CONCURRENCY,
    isSlow: false,
  },
  {
    name: 'chart',
    group: QUICK,
    checks: [],
    folders: ['test/chart'],
    limits: limits(60, 300, 10),
    concurrency: CONCURRENCY,
    isSlow: false,
    prepare: prepareHelm,
  },
  {
    name: 'proxy',
    checks: [],
    folders: ['test/integration/proxy', 'test/integration/cli'],
    limits: limits(60, 300, 10),
    concurrency: 4, // most of their time is waiting: for time-outs, for Sentinels, for names that expire
    isSlow: true,
    prepare: prepareProxy,
  },
  {
    name: 'operator',
    group: CLUSTER,
    checks: [],
    folders: ['test/integration/operator'],
    limits: limits(300, 1200, 60),
    concurrency: 1,
    // Each starts operators that see the whole cluster. The chart first: it wants a cluster without the product, and takes it away again.
    inTurn: ['chart', 'controller', 'process'].map((name) => `test/integration/operator/${name}.test.ts`),
    isSlow: true,
    ...onCluster('test-operator', false),
  },
  {
    name: 'e2e',
    group: CLUSTER,
    checks: [],
    folders: ['test/e2e'],
    limits: limits(300, 1200, 60),
    concurrency: 3, // a namespace for each file
    longest: ['databases', 'routing', 'workloads', 'migration', 'live'].map((name) => `test/e2e/${name}.test.ts`),
    // The one stops the operator, the other drains a node.
    last: ['outage', 'nodes'].map((name) => `test/e2e/${name}.test.ts`),
    isSlow: true,
    ...onCluster('test', true),
  },
]

/** A cluster with this name of our own, unless the person who runs the tests names one. */
function onCluster(name: string, isInstalled: boolean): Pick<Stage, 'env' | 'prepare'> {
  return { env: clusterIsGiven() ? {} : { TEST_CLUSTER: name }, prepare: () => prepareCluster(name, isInstalled) }
}

/**
 * The stages, and the files of them, that the arguments of `npm test --` choose: names of stages or groups, or paths of test files
 * or folders; none means all. `files` undefined: the whole stage with its checks.
 * @throws {Error} naming the argument that fits nothing
 */
export const chosen = (
  args: readonly string[],
  stages: readonly Stage[] = STAGES,
): readonly { readonly stage: Stage; readonly paths: readonly string[] | undefined }[] => {
  const words = args.filter((arg) => arg !== '--stage').map((arg) => arg.replace(/^--stage=/, '').replace(/^\.\//, ''))
  if (words.length === 0) return stages.map((stage) => ({ stage, paths: undefined }))
  const isOf = (stage: Stage, path: string): boolean =>
    stage.folders.some((folder) => path === folder || path.startsWith(`${folder}/`))
  const isNamed = ({ name, group }: Stage, word: string): boolean => word === name || word === group
  for (const word of words) {
    if (stages.some((stage) => isNamed(stage, word) || isOf(stage, word))) continue
    const names = [...new Set(stages.flatMap(({ name, group = name }) => [group, name]))].join(', ')
    throw new Error(`stage '${word}': is not known, use ${names}, or the path of a test file`)
  }
  return stages
    .map((stage) => ({
      stage,
      paths: words.some((word) => isNamed(stage, word)) ? undefined : words.filter((word) => isOf(stage, word)),
    }))
    .filter(({ paths }) => paths === undefined || paths.length > 0)
}

/** What runs at the same time: the stages of one group, if it is not one cluster that is given for all of them. */
export const together = <T extends { readonly stage: Stage }>(
  all: readonly T[],
  isGiven = clusterIsGiven(),
): readonly T[][] => {
  const batches: T[][] = []
  for (const one of all) {
    const batch = batches.at(-1)
    const { group } = one.stage
    const isApart = group === undefined || (isGiven && group === CLUSTER)
    if (!isApart && batch?.[0]?.stage.group === group) batch.push(one)
    else batches.push([one])
  }
  return batches
}
