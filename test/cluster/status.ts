/** What `npm run cluster -- status` prints. */

import { cacheRoot, runDirectory } from '../../build/machine/cache.ts'
import { kubeconfigOf } from './control-plane.ts'
import { isAlive } from './daemons.ts'
import { isHealthy } from './lifecycle.ts'
import { addressesOf, namespaceOf } from './network.ts'
import { clusterNames, readState } from './state.ts'

/** One line for each thing that a person asks for. */
export const status = async (name: string): Promise<string> => {
  const state = readState(name)
  const others = clusterNames().filter((other) => other !== name)
  const lines = [`cache       ${cacheRoot()}`]
  if (others.length > 0) lines.push(`others      ${others.join(' ')}`)
  if (state === undefined) return `${[...lines, `cluster     '${name}' is not up`].join('\n')}\n`
  const addresses = addressesOf(state.slot)
  const daemons = Object.values(state.daemons)
  lines.push(
    `cluster     '${name}' is ${(await isHealthy(state, 0)) ? 'healthy' : 'half dead, the next up makes it anew'}`,
    `made of     ${state.recipe.replace(/^\d+, /, '')}`,
    `kubeconfig  ${kubeconfigOf(runDirectory(name))}`,
    `logs        ${runDirectory(name)}/logs`,
    `nodes       ${state.nodes.join(' ')} (network namespace ${namespaceOf(state.slot, 0)})`,
    `pods        ${addresses.allPods}, reached from this machine; they reach it as ${addresses.host}`,
    ...daemons.map((daemon) => `process     ${daemon.name} ${daemon.pid} ${isAlive(daemon) ? 'runs' : 'has ended'}`),
  )
  return `${lines.join('\n')}\n`
}
