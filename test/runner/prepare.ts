/** Puts on this machine what a stage needs: packages, a cluster, images. */

import { join } from 'node:path'
import { run } from '../../build/machine/exec.ts'

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
  await orCannotRun(() => ensurePackages(['haproxy', 'nginx', 'openssl', 'postgresql', 'redis-server', 'redis-tools']))
  return async () => {}
}

/** The same, and a browser. Without one its tests say that they are skipped; in CI they may not be. */
export const prepareBrowser = async (): Promise<Cleanup> => {
  const { ensurePackages, PackagesMissing } = await import('../../build/machine/packages.ts')
  await prepareMachine()
  await orCannotRun(() =>
    ensurePackages(['chromium']).catch((error: unknown) => {
      if (!(error instanceof PackagesMissing) || process.env['CI'] === 'true') throw error
    }),
  )
  return async () => {}
}

/** The same, and the programs of this checkout in a bundle: made before the tests, whose deadlines are not for that. */
export const prepareProxy = async (): Promise<Cleanup> => {
  const { built } = await import('../helpers/built.ts')
  const cleanup = await prepareBrowser()
  await built()
  return cleanup
}

/** Helm, from the PATH or built. */
export const prepareHelm = async (): Promise<Cleanup> => {
  const { helmForTests } = await import('../helpers/helm.ts')
  await orCannotRun(helmForTests)
  return async () => {}
}

/** Whether the person who runs the tests names the cluster: TEST_KUBECONFIG, or TEST_CLUSTER. */
export const clusterIsGiven = (): boolean => Boolean(process.env['TEST_KUBECONFIG'] || process.env['TEST_CLUSTER'])

/**
 * The cluster of TEST_KUBECONFIG, that of TEST_CLUSTER, or a new one of this name, taken down after; with the images of this checkout.
 * New, because the first files want a cluster without the product, and a run that was killed leaves one with it.
 * `isInstalled`: with the product as well, if it is a new one; the files see to it otherwise.
 */
export const prepareCluster = async (name: string, isInstalled: boolean): Promise<Cleanup> => {
  await prepareBrowser()
  const { clusterForTests, down, up } = await import('../cluster/cluster.ts')
  const isGiven = clusterIsGiven()
  const cluster = await orCannotRun(async () => {
    if (isGiven) return clusterForTests()
    await down(name)
    return up({ name })
  })
  if (cluster.hostAddress !== undefined) {
    await (images ??= makeImages())
    // What end-to-end tests of an earlier run have left would answer for the operators that these tests start.
    const helm = ['uninstall', 'ambassador', '--namespace', 'ambassador-system', '--ignore-not-found', '--wait']
    if (isGiven) await run(cluster.binaries.helm, ['--kubeconfig', cluster.kubeconfig, ...helm])
    const { ensureInstalled, IMAGES, loadImages } = await import('../e2e/lib/world.ts')
    await loadImages(cluster, IMAGES)
    if (isInstalled && !isGiven) {
      await loadImages(cluster, ['ambassador-test-databases'])
      await ensureInstalled(cluster)
    }
  }
  return isGiven ? async () => {} : () => cluster.down()
}

/** Made once for a run, whoever asks first. */
let images: Promise<void> | undefined

const makeImages = async (): Promise<void> => {
  const { bundle } = await import('../../build/bundle.ts')
  const { buildImages } = await import('../../build/images.ts')
  await bundle({ root: join(DIST, '..'), dist: DIST, isCompiled: true })
  await buildImages({ dist: DIST, forTests: true })
}

const orCannotRun = async <T>(work: () => Promise<T>): Promise<T> => {
  try {
    return await work()
  } catch (error) {
    throw new CannotRun(error instanceof Error ? error.message : String(error), { cause: error })
  }
}
