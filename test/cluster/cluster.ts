/** A real Kubernetes for tests and for people: `up`, and what can be done with it then. */

import { existsSync } from 'node:fs'
import { lockFile, runDirectory } from '../../build/machine/cache.ts'
import { which } from '../../build/machine/exec.ts'
import { withLock } from '../../build/machine/lock.ts'
import { type Progress, printed } from '../../build/machine/progress.ts'
import { binaries, buildAll } from './build.ts'
import { kubeconfigOf } from './control-plane.ts'
import { loadImage } from './images.ts'
import { addNode, createCluster, isHealthy, RECIPE, restartApiServer } from './lifecycle.ts'
import { addressesOf, MAX_NODES } from './network.ts'
import { CLUSTER_PACKAGES, ensurePackages } from './packages.ts'
import { pauseArchive } from './pause.ts'
import { readState } from './state.ts'
import { tearDown } from './teardown.ts'

/** A cluster that answers. */
export interface Cluster {
  readonly name: string
  /** Path of a kubeconfig with all rights. */
  readonly kubeconfig: string
  /** Full paths, or names on the PATH. */
  readonly binaries: { readonly kubectl: string; readonly helm: string }
  /** Address under which pods, nodes and the API server reach programs on this machine; undefined for a cluster that is not ours. */
  readonly hostAddress: string | undefined
  /** Makes a docker archive's images known to every node; pods then use them with `imagePullPolicy: IfNotPresent`. Throws for a cluster that is not ours. */
  loadImage(file: string): Promise<void>
  /** Kills the API server and starts it again, after `meanwhile` if given. Resolves when it is ready. Throws for a cluster that is not ours. */
  restartApiServer(meanwhile?: () => Promise<void>): Promise<void>
  /** Removes it with everything in it. Does nothing for a cluster that is not ours. */
  down(): Promise<void>
}

export interface UpOptions {
  /** Lower-case letters, digits and dashes, 20 at most. Default: `dev`. */
  readonly name?: string
  /** 1 or 2. Default: 1. A running cluster gets the second node; it never loses one. */
  readonly nodes?: number
  /** Default: lines on the standard error. */
  readonly progress?: Progress
}

/** No cluster can be had here; the message says what to do instead. */
export class ClusterUnavailable extends Error {
  override readonly name = 'ClusterUnavailable'
}

const OTHERWISE = 'or set TEST_KUBECONFIG to the kubeconfig of a cluster that you have'

/** Returns the running cluster of that name, or makes one, with everything that it needs. A half-dead one is made anew. Throws ClusterUnavailable, PackagesMissing, or an error that names the process which failed and its log. */
export const up = async ({ name = 'dev', nodes = 1, progress = printed() }: UpOptions = {}): Promise<Cluster> => {
  checkOptions(name, nodes)
  checkMachine()
  await ensurePackages(CLUSTER_PACKAGES, progress)
  await buildAll(progress)
  const pause = await pauseArchive()
  const wait = (owner: number) => progress.note(`cluster '${name}': process ${owner} works on it, waiting`)
  await withLock(
    lockFile(`cluster-${name}`),
    async () => {
      const state = readState(name)
      if (state !== undefined && state.recipe === RECIPE && (await isHealthy(state))) {
        progress.note(`cluster '${name}' runs already`)
        if (state.nodes.length < nodes) await progress.step('second node', () => addNode(state, pause))
        return
      }
      if (existsSync(runDirectory(name))) {
        await progress.step(`cluster '${name}' is half dead or of another version: taken down`, () => tearDown(name))
      }
      try {
        await createCluster(name, nodes, pause, progress)
      } catch (error) {
        progress.note(`logs: ${runDirectory(name)}/logs (removed by the next up or down)`)
        throw error
      }
    },
    wait,
  )
  return running(name)
}

/** Removes a cluster with everything in it. No error when there is none. */
export const down = async (name: string = 'dev'): Promise<void> => {
  checkMachine()
  await withLock(lockFile(`cluster-${name}`), () => tearDown(name))
}

/** The cluster that tests use: that of TEST_KUBECONFIG when set, else our own, brought up when it does not run, named by TEST_CLUSTER (default `test`). */
export const clusterForTests = async (options: UpOptions = {}): Promise<Cluster> => {
  const kubeconfig = process.env['TEST_KUBECONFIG']
  if (kubeconfig !== undefined && kubeconfig !== '') return given(kubeconfig)
  return up({ name: process.env['TEST_CLUSTER'] || 'test', ...options })
}

/** A cluster that `up` has made before. Throws when there is none of that name. */
export const running = (name: string): Cluster => {
  const state = readState(name)
  if (state === undefined) throw new Error(`cluster '${name}': is not up, run: npm run cluster -- up --name ${name}`)
  const { kubectl, helm } = binaries()
  return {
    name,
    kubeconfig: kubeconfigOf(runDirectory(name)),
    binaries: { kubectl, helm },
    hostAddress: addressesOf(state.slot).host,
    loadImage: (file) => loadImage(state, file),
    restartApiServer: (meanwhile = async () => {}) =>
      withLock(lockFile(`cluster-${name}`), async () => restartApiServer(readState(name) ?? state, meanwhile)),
    down: () => down(name),
  }
}

const given = (kubeconfig: string): Cluster => {
  if (!existsSync(kubeconfig))
    throw new ClusterUnavailable(
      `TEST_KUBECONFIG: file '${kubeconfig}' does not exist, set it to that of a cluster that you have`,
    )
  return {
    name: 'given',
    kubeconfig,
    binaries: { kubectl: programFor('kubectl'), helm: programFor('helm') },
    hostAddress: undefined,
    loadImage: async (file) => {
      throw new ClusterUnavailable(
        `image '${file}': cannot be loaded into the cluster of TEST_KUBECONFIG, push the images of 'npm run images' to a registry it reaches and set TEST_IMAGE_REGISTRY to it`,
      )
    },
    restartApiServer: async () => {
      throw new ClusterUnavailable('API server: that of TEST_KUBECONFIG is not ours to restart')
    },
    down: async () => {},
  }
}

const programFor = (program: 'kubectl' | 'helm'): string => {
  const found = which(program) ?? (existsSync(binaries()[program]) ? binaries()[program] : undefined)
  if (found === undefined)
    throw new ClusterUnavailable(`${program}: not found on the PATH, which TEST_KUBECONFIG needs, install it`)
  return found
}

const checkOptions = (name: string, nodes: number): void => {
  if (!/^[a-z0-9]([a-z0-9-]{0,18}[a-z0-9])?$/.test(name)) {
    throw new Error(`cluster '${name}': a name has lower-case letters, digits and dashes, 20 at most, choose another`)
  }
  if (!Number.isInteger(nodes) || nodes < 1 || nodes > MAX_NODES) {
    throw new Error(`cluster '${name}': ${nodes} nodes cannot be had, use 1 to ${MAX_NODES}`)
  }
}

const checkMachine = (): void => {
  if (process.platform !== 'linux') {
    throw new ClusterUnavailable(`cluster: needs Linux, not ${process.platform}; use a Linux machine, ${OTHERWISE}`)
  }
  if (process.getuid?.() !== 0) {
    throw new ClusterUnavailable(
      `cluster: needs root for network namespaces and containers, put sudo env "PATH=$PATH" before the command, ${OTHERWISE}`,
    )
  }
}
