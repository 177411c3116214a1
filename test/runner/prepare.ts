/** Puts on this machine what a stage needs: packages, a cluster, images. */

import { join } from 'node:path'

/** Undoes what a preparation started. */
export type Cleanup = () => Promise<void>

/** A stage cannot run on this machine. The message carries the remedy. */
export class CannotRun extends Error {
  override readonly name = 'CannotRun'
}

const DIST = join(import.meta.dirname, '../../dist')

/** Programs that tests call beside Node. */
export const prepareMachine = async (): Promise<Cleanup> => {
  const { ensurePackages } = await import('../../build/machine/packages.ts')
  await orCannotRun(() => ensurePackages(['openssl']))
  return async () => {}
}

/** Helm, from the PATH or built. */
export const prepareHelm = async (): Promise<Cleanup> => {
  const { helmForTests } = await import('../helpers/helm.ts')
  await orCannotRun(helmForTests)
  return async () => {}
}

/** The cluster of TEST_KUBECONFIG, or one of our own with the images of this checkout; one that was not up before is taken down after. */
export const prepareCluster = async (): Promise<Cleanup> => {
  await prepareMachine()
  const { clusterForTests } = await import('../cluster/cluster.ts')
  const { readState } = await import('../cluster/state.ts')
  const wasUp = readState(process.env['TEST_CLUSTER'] || 'test') !== undefined
  const cluster = await orCannotRun(() => clusterForTests())
  if (cluster.hostAddress !== undefined) {
    const { bundle } = await import('../../build/bundle.ts')
    const { buildImages } = await import('../../build/images.ts')
    await bundle({ root: join(DIST, '..'), dist: DIST })
    await buildImages({ dist: DIST })
  }
  return wasUp ? async () => {} : () => cluster.down()
}

const orCannotRun = async <T>(work: () => Promise<T>): Promise<T> => {
  try {
    return await work()
  } catch (error) {
    throw new CannotRun(error instanceof Error ? error.message : String(error), { cause: error })
  }
}
