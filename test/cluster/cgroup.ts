/** A control group of its own for each node, on cgroup v1 and v2, so that two kubelets on one machine do not clean up each other's pods. */

import { existsSync, mkdirSync, readdirSync, readFileSync, rmdirSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { isErrorCode } from '../../build/machine/exec.ts'

/** Folders at which cgroup hierarchies are mounted, from the text of /proc/self/mounts. */
export const cgroupMounts = (mounts: string): { readonly path: string; readonly version: 1 | 2 }[] =>
  mounts
    .split('\n')
    .map((line) => line.split(' '))
    .filter(([, , type]) => type === 'cgroup' || type === 'cgroup2')
    .map(([, path = '', type]) => ({ path, version: type === 'cgroup2' ? 2 : 1 }))

const hierarchies = () => cgroupMounts(readFileSync('/proc/self/mounts', 'utf8'))

/** 2 on a machine with the unified hierarchy alone, else 1; undefined when there is none. */
export const cgroupVersion = (): 1 | 2 | undefined => {
  const found = hierarchies()
  if (found.length === 0) return undefined
  return found.some(({ version }) => version === 1) ? 1 : 2
}

/** Makes the group in every hierarchy, with what a child needs to work in it. */
export const makeCgroup = (name: string): void => {
  for (const { path, version } of hierarchies()) {
    const group = join(path, name)
    mkdirSync(group, { recursive: true })
    if (version === 2) delegate(path, group)
    else copyCpuset(path, group)
    favour(group, version)
  }
}

// All pods of a node together would weigh as much as one process beside them, and starve where tests keep the processors busy.
const favour = (group: string, version: 1 | 2): void => {
  const [file, weight] = version === 2 ? ['cpu.weight', '2000'] : ['cpu.shares', '20480']
  if (existsSync(join(group, file))) writeFileSync(join(group, file), weight)
}

// v1: a new cpuset group has no processors and takes no process before it is given some.
const copyCpuset = (parent: string, group: string): void => {
  for (const file of ['cpuset.cpus', 'cpuset.mems']) {
    if (existsSync(join(parent, file)))
      writeFileSync(join(group, file), readFileSync(join(parent, file), 'utf8').trim())
  }
}

// v2: controllers must be switched on in each group above the one that uses them. One that the machine keeps for itself
// (inside another container, say) is left out.
const delegate = (...groups: string[]): void => {
  for (const group of groups) {
    for (const controller of readFileSync(join(group, 'cgroup.controllers'), 'utf8').trim().split(' ')) {
      if (controller === '') continue
      try {
        writeFileSync(join(group, 'cgroup.subtree_control'), `+${controller}`)
      } catch (error) {
        if (!isErrorCode(error, 'EBUSY') && !isErrorCode(error, 'EINVAL') && !isErrorCode(error, 'ENOENT')) throw error
      }
    }
  }
}

/** Ids of all processes in the group and below it: every container of the node. */
export const processesIn = (name: string): number[] => {
  const pids = new Set<number>()
  for (const directory of hierarchies().flatMap(({ path }) => tree(join(path, name)))) {
    try {
      for (const pid of readFileSync(join(directory, 'cgroup.procs'), 'utf8').split('\n')) {
        if (pid !== '' && pid !== '0') pids.add(Number(pid))
      }
    } catch (error) {
      if (!isErrorCode(error, 'ENOENT') && !isErrorCode(error, 'ENODEV') && !isErrorCode(error, 'EOPNOTSUPP'))
        throw error
    }
  }
  return [...pids]
}

/** Removes the group, which must hold no process any more. */
export const removeCgroup = (name: string): void => {
  for (const directory of hierarchies().flatMap(({ path }) => tree(join(path, name)))) {
    try {
      rmdirSync(directory)
    } catch (error) {
      if (!isErrorCode(error, 'ENOENT')) throw error
    }
  }
}

/** The folder and all below it, deepest first; nothing when it does not exist. */
const tree = (directory: string): string[] => {
  if (!existsSync(directory)) return []
  const children = readdirSync(directory).filter((name) => {
    try {
      return statSync(join(directory, name)).isDirectory()
    } catch {
      return false // the group was removed between the two calls
    }
  })
  return [...children.flatMap((name) => tree(join(directory, name))), directory]
}
