/** Helm for tests of the chart that need no cluster. */
import { existsSync } from 'node:fs'
import { join } from 'node:path'
import { run } from '../../build/machine/exec.ts'
import { binaries, buildHelm } from '../cluster/build.ts'

export const CHART = join(import.meta.dirname, '../../charts/ambassador')

/** Path of the Helm of the version that the goldens were made with; built when it is not in the cache. Throws when Go is missing. */
export const helmForTests = async (): Promise<string> => {
  const { helm } = binaries()
  return existsSync(helm) ? helm : buildHelm()
}

/** Runs helm on the chart and returns what it prints. Throws with its words. */
export const helm = async (...args: string[]): Promise<string> => run(await helmForTests(), args)

/** `helm template` as it is installed, with a file of values and single ones. */
export const template = (values?: string, ...sets: string[]): Promise<string> =>
  helm(
    'template',
    'ambassador',
    CHART,
    '--namespace=ambassador-system',
    ...(values === undefined ? [] : [`--values=${values}`]),
    ...sets.flatMap((set) => ['--set', set]),
  )
