/** Docker archives into the containerd of every node. */

import { existsSync, mkdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { setTimeout as sleep } from 'node:timers/promises'
import { type ArchivedImage, readArchive } from '../../build/docker-archive.ts'
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

/** Imports a docker archive on one node. One that is there already takes no time. */
export const importImage = async (node: NodePlan, file: string): Promise<void> => {
  const images = await readArchive(file)
  if (images.every((image) => isNoted(node, image))) return
  if (!images.every(isPresentIn(await list(node)))) {
    await ctr(node, ['images', 'import', '--snapshotter', await snapshotter(node.directory), file])
    await untilSeen(node)
  }
  for (const image of images) note(node, image)
}

/** A file for each name says which image it has: a start of ctr costs as much as one of kubectl, and every test file asks. */
const noteOf = (node: NodePlan, tag: string): string => join(node.directory, 'images', encodeURIComponent(tag))

const isNoted = (node: NodePlan, { id, tags }: ArchivedImage): boolean =>
  tags.every((tag) => existsSync(noteOf(node, tag)) && readFileSync(noteOf(node, tag), 'utf8') === id)

const note = (node: NodePlan, { id, tags }: ArchivedImage): void => {
  mkdirSync(join(node.directory, 'images'), { recursive: true })
  for (const tag of tags) writeFileSync(noteOf(node, tag), id)
}

const isPresentIn =
  (listed: string) =>
  (image: ArchivedImage): boolean =>
    isPresent(image, listed)

/** True when the output of `ctr images list` has the image under all of its names. containerd also keeps it under its id. */
export const isPresent = ({ id, tags }: ArchivedImage, listed: string): boolean => {
  const digests = new Map(linesOf(listed).map(([name, , digest]) => [name, digest]))
  const digest = digests.get(`sha256:${id}`)
  return digest !== undefined && tags.every((tag) => digests.get(tag) === digest)
}

const linesOf = (listed: string): string[][] =>
  listed
    .split('\n')
    .slice(1)
    .filter((line) => line.trim() !== '')
    .map((line) => line.split(/\s+/))

const list = (node: NodePlan): Promise<string> => ctr(node, ['images', 'list'])

// containerd tells its Kubernetes side by an event, which then marks the image; before that a pod could not start from it.
const untilSeen = async (node: NodePlan): Promise<void> => {
  const deadline = Date.now() + 10_000
  while (unseenImages(await list(node)).length > 0) {
    if (Date.now() > deadline)
      throw new Error(`${node.name}: containerd does not show the imported images to the kubelet`)
    await sleep(50)
  }
}

/** Names of images without the mark, from the output of `ctr images list`. */
export const unseenImages = (listed: string): string[] =>
  linesOf(listed)
    .filter((fields) => !fields.some((field) => field.includes('io.cri-containerd.image=managed')))
    .map(([name = '']) => name)

const ctr = (node: NodePlan, args: readonly string[]): Promise<string> =>
  run('ctr', ['--address', node.containerdSocket, '--namespace', 'k8s.io', ...args])
