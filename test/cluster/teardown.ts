/** Takes a cluster down, whole or half dead, and ends nothing that is not its own. */

import { existsSync, readdirSync, readFileSync, readlinkSync, rmSync } from 'node:fs'
import { join } from 'node:path'
import { runDirectory } from '../../build/machine/cache.ts'
import { run } from '../../build/machine/exec.ts'
import { processesIn, removeCgroup } from './cgroup.ts'
import { killAll, processesOf } from './daemons.ts'
import { MAX_NODES, removeNamespace } from './network.ts'
import { nodePlan } from './node.ts'
import { readState } from './state.ts'

/** Removes everything of a cluster. No error when there is nothing. Everything is ended at once, since all of its state is thrown away. */
export const tearDown = async (name: string): Promise<void> => {
  const directory = runDirectory(name)
  const slot = readState(name)?.slot
  // The kubelet first, which would start again what is ended after it: it carries the mark, its containers do not.
  await killAll(() => processesOf(directory), `cluster '${name}'`)
  if (slot !== undefined) {
    for (let number = 0; number < MAX_NODES; number++) {
      const { cgroup } = nodePlan(directory, slot, number)
      await killAll(() => processesIn(cgroup), `cluster '${name}', containers of node ${number + 1}`)
      removeCgroup(cgroup)
    }
  }
  for (const mount of mountsBelow(readFileSync('/proc/self/mounts', 'utf8'), directory))
    await run('umount', ['-l', mount])
  if (slot !== undefined) for (let number = MAX_NODES - 1; number >= 0; number--) await removeNamespace(slot, number)
  removeLogLinks(directory)
  rmSync(directory, { recursive: true, force: true })
}

/** Mount points in a folder, from the text of /proc/self/mounts, the innermost first. */
export const mountsBelow = (mounts: string, directory: string): string[] =>
  mounts
    .split('\n')
    .map((line) =>
      (line.split(' ')[1] ?? '').replaceAll(/\\(\d{3})/g, (_, octal) => String.fromCharCode(parseInt(octal, 8))),
    )
    .filter((path) => path.startsWith(`${directory}/`))
    .reverse()

// The kubelet's folder of links to log files cannot be chosen.
const removeLogLinks = (directory: string): void => {
  const links = '/var/log/containers'
  if (!existsSync(links)) return
  for (const name of readdirSync(links)) {
    const link = join(links, name)
    try {
      if (readlinkSync(link).startsWith(`${directory}/`)) rmSync(link)
    } catch {
      // no link, or another kubelet's that is just being replaced
    }
  }
}
