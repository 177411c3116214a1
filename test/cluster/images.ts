/** Docker archives into the containerd of every node. */

import { existsSync } from 'node:fs'
import { setTimeout as sleep } from 'node:timers/promises'
import { runDirectory } from '../../build/machine/cache.ts'
import { run } from '../../build/machine/exec.ts'
import { type NodePlan, nodePlan, snapshotter } from './node.ts'
import type { ClusterState } from './state.ts'

/** Imports a docker archive on every node, and returns when the kubelets see its images. */
export const loadImage = async (state: ClusterState, file: string): Promise<void> => {
  if (!existsSync(file)) throw new Error(`image '${file}': there is no such file, run: npm run images`)
  const nodes = state.nodes.map((_, number) => nodePlan(runDirectory(state.name), state.slot, number))
  for (const node of nodes) await importImage(node, file)
}

/** Imports a docker archive on one node. */
export const importImage = async (node: NodePlan, file: string): Promise<void> => {
  await ctr(node, ['images', 'import', '--snapshotter', await snapshotter(node.directory), file])
  await untilSeen(node)
}

// containerd tells its Kubernetes side by an event, which then marks the image; before that a pod could not start from it.
const untilSeen = async (node: NodePlan): Promise<void> => {
  const deadline = Date.now() + 10_000
  while (unseenImages(await ctr(node, ['images', 'list'])).length > 0) {
    if (Date.now() > deadline)
      throw new Error(`${node.name}: containerd does not show the imported images to the kubelet`)
    await sleep(50)
  }
}

/** Names of images without the mark, from the output of `ctr images list`. */
export const unseenImages = (list: string): string[] =>
  list
    .split('\n')
    .slice(1)
    .filter((line) => line.trim() !== '' && !line.includes('io.cri-containerd.image=managed'))
    .map((line) => line.split(/\s+/)[0]!)

const ctr = (node: NodePlan, args: readonly string[]): Promise<string> =>
  run('ctr', ['--address', node.containerdSocket, '--namespace', 'k8s.io', ...args])
