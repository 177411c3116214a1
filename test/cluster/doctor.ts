/** What `npm run cluster -- doctor` prints: what this machine lacks for a cluster, each with its remedy. */

import { existsSync, readFileSync } from 'node:fs'
import { statfs } from 'node:fs/promises'
import { homedir } from 'node:os'
import { IMAGE_PACKAGES } from '../../build/images.ts'
import { cacheRoot } from '../../build/machine/cache.ts'
import { succeeds } from '../../build/machine/exec.ts'
import { missingPackages, PackagesMissing, thisMachine } from '../../build/machine/packages.ts'
import { goProblem, unbuilt } from './build.ts'
import { cgroupVersion } from './cgroup.ts'
import { loadKernelModules } from './network.ts'
import { CNI_PLUGINS } from './node.ts'
import { CLUSTER_PACKAGES } from './packages.ts'

/** One question and its answer. `problem` carries the remedy. */
interface Check {
  readonly what: string
  readonly problem?: string | undefined
  readonly note?: string
}

const BUILD_SPACE_GB = 9

/** Checks everything, changes nothing (kernel modules that `up` would load are loaded). */
export const doctor = async (): Promise<{ readonly text: string; readonly isComplete: boolean }> => {
  const checks = await allChecks()
  return {
    text: checks.map((check) => `${renderCheck(check)}\n`).join(''),
    isComplete: checks.every(({ problem }) => problem === undefined),
  }
}

const renderCheck = ({ what, problem, note }: Check): string => {
  if (problem !== undefined) return `MISSING  ${what}: ${problem}`
  return `ok       ${what}${note === undefined ? '' : `: ${note}`}`
}

const allChecks = async (): Promise<Check[]> => {
  if (process.platform !== 'linux') {
    return [{ what: 'Linux', problem: `this is ${process.platform}, set TEST_KUBECONFIG to a cluster that you have` }]
  }
  const machine = thisMachine()
  return [
    { what: 'Linux' },
    {
      what: 'root',
      problem: machine.isRoot ? undefined : `run with sudo, or set TEST_KUBECONFIG to a cluster that you have`,
    },
    await packages('packages for the cluster', CLUSTER_PACKAGES),
    await packages('packages for images', IMAGE_PACKAGES),
    { what: 'Go', problem: await goProblem() },
    await diskSpace(),
    await kernel(machine.isRoot),
    { what: 'cgroups', ...cgroups() },
    await networkPlugins(),
    {
      what: 'programs',
      note: unbuilt().length === 0 ? 'all built' : `${unbuilt().join(', ')} will be built by the first up`,
    },
  ]
}

const packages = async (what: string, names: readonly string[]): Promise<Check> => {
  const missing = await missingPackages(names)
  if (missing.length === 0) return { what }
  const machine = thisMachine()
  if (machine.hasApt && machine.isRoot) return { what, note: `${missing.join(', ')} will be installed when needed` }
  return { what, problem: new PackagesMissing(missing, machine).message }
}

const diskSpace = async (): Promise<Check> => {
  const { bavail, bsize } = await statfs(existsSync(cacheRoot()) ? cacheRoot() : homedir())
  const freeGb = Math.floor((bavail * bsize) / 1e9)
  const needed = unbuilt().length === 0 ? 2 : BUILD_SPACE_GB
  const problem =
    freeGb < needed ? `${freeGb} GB are free, ${needed} are needed, set AMBASSADOR_CACHE to a larger disk` : undefined
  return { what: `disk space in ${cacheRoot()}`, problem, note: `${freeGb} GB` }
}

const kernel = async (isRoot: boolean): Promise<Check> => {
  if (!isRoot) return { what: 'kernel', note: 'only root can check it' }
  await loadKernelModules()
  const filesystems = readFileSync('/proc/filesystems', 'utf8')
  const missing = [
    ...(/\boverlay\b/.test(filesystems) ? [] : ['overlay']),
    ...((await succeeds('unshare', ['--net', 'ip', 'link', 'add', 'left', 'type', 'veth', 'peer', 'name', 'right']))
      ? []
      : ['veth']),
    ...((await succeeds('unshare', ['--net', 'iptables', '-t', 'nat', '-L'])) ? [] : ['nat']),
  ]
  const problem =
    missing.length === 0 ? undefined : `${missing.join(', ')} not usable, load the modules or use another kernel`
  return { what: 'kernel (overlay, veth, nat)', problem }
}

const cgroups = (): { problem?: string; note?: string } => {
  const version = cgroupVersion()
  return version === undefined ? { problem: 'none mounted, mount /sys/fs/cgroup' } : { note: `version ${version}` }
}

const networkPlugins = async (): Promise<Check> => {
  const what = `network plugins in ${CNI_PLUGINS}`
  const missing = ['ptp', 'portmap', 'host-local', 'loopback'].filter((name) => !existsSync(`${CNI_PLUGINS}/${name}`))
  const willBeInstalled = (await missingPackages(['containernetworking-plugins'])).length > 0
  if (missing.length === 0 || willBeInstalled) return { what }
  return { what, problem: `${missing.join(', ')} not found, link that folder to where they are` }
}
