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

const BUILD_SPACE_GB = 8

/** Checks everything, changes nothing (kernel modules that `up` would load are loaded). */
export const doctor = async (): Promise<{ readonly text: string; readonly isComplete: boolean }> => {
  const checks = await allChecks()
  const lines = checks.map(
    ({ what, problem, note }) =>
      `${problem === undefined ? 'ok      ' : 'MISSING '} ${what}${problem === undefined ? (note ? `: ${note}` : '') : `: ${problem}`}`,
  )
  return { text: `${lines.join('\n')}\n`, isComplete: checks.every(({ problem }) => problem === undefined) }
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
    await kernel(),
    { what: 'cgroups', ...cgroups() },
    networkPlugins(),
    {
      what: 'programs',
      note: unbuilt().length === 0 ? 'all built' : `${unbuilt().join(', ')} will be built by the first up`,
    },
  ]
}

const packages = async (what: string, names: readonly string[]): Promise<Check> => {
  const missing = await missingPackages(names)
  return { what, problem: missing.length === 0 ? undefined : new PackagesMissing(missing, thisMachine()).message }
}

const diskSpace = async (): Promise<Check> => {
  const { bavail, bsize } = await statfs(existsSync(cacheRoot()) ? cacheRoot() : homedir())
  const freeGb = Math.floor((bavail * bsize) / 1e9)
  const needed = unbuilt().length === 0 ? 2 : BUILD_SPACE_GB
  const problem =
    freeGb < needed ? `${freeGb} GB are free, ${needed} are needed, set AMBASSADOR_CACHE to a larger disk` : undefined
  return { what: `disk space in ${cacheRoot()}`, problem, note: `${freeGb} GB` }
}

const kernel = async (): Promise<Check> => {
  await loadKernelModules()
  const filesystems = readFileSync('/proc/filesystems', 'utf8')
  const missing = [
    ...(/\boverlay\b/.test(filesystems) ? [] : ['overlay']),
    ...((await succeeds('unshare', ['--net', 'ip', 'link', 'add', 'a', 'type', 'veth', 'peer', 'name', 'b']))
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

const networkPlugins = (): Check => ({
  what: `network plugins in ${CNI_PLUGINS}`,
  problem: ['ptp', 'portmap', 'host-local', 'loopback'].every((name) => existsSync(`${CNI_PLUGINS}/${name}`))
    ? undefined
    : 'install the Debian package containernetworking-plugins',
})
