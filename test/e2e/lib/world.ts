/** The installed product on a real cluster, shared by the end-to-end tests: images built and loaded, chart installed, one namespace per test file. */
import { createHash } from 'node:crypto'
import { access, readdir, readFile, stat } from 'node:fs/promises'
import { join } from 'node:path'
import { lockFile } from '../../../build/machine/cache.ts'
import { withLock } from '../../../build/machine/lock.ts'
import { type Cluster, clusterForTests } from '../../cluster/cluster.ts'
import { execute, type Json, Kubectl } from './kubectl.ts'

const root = join(import.meta.dirname, '../../..')
export const SYSTEM = 'ambassador-system'
export const RELEASE = 'ambassador'
export const APP_IMAGE = 'localhost/ambassador-test-app:dev'
/** The proxy image carries Node, so it also runs the tests' own upstreams and load. */
export const NODE_IMAGE = 'localhost/ambassador-proxy:dev'

export interface World {
  readonly cluster: Cluster
  /** kubectl in a namespace of this test file's own. */
  readonly kubectl: Kubectl
  readonly system: Kubectl
  helm(args: readonly string[], timeoutMs?: number): ReturnType<typeof execute>
  /** Removes the namespace. */
  close(): Promise<void>
}

export const CHART = join(root, 'charts/ambassador')

export const INSTALL_VALUES = [
  '--set',
  'operator.image.repository=localhost/ambassador-operator',
  '--set',
  'operator.image.tag=dev',
  '--set',
  'proxy.image.repository=localhost/ambassador-proxy',
  '--set',
  'proxy.image.tag=dev',
]

/**
 * Brings up (or finds) the cluster, makes sure that the chart is installed from this checkout, and makes an empty namespace.
 * @param name of the namespace; anything left there by an earlier run is removed first
 */
export async function world(
  name: string,
  options: { labels?: Record<string, string>; install?: boolean } = {},
): Promise<World> {
  const cluster = await clusterForTests()
  const kubectl = new Kubectl(cluster.binaries.kubectl, cluster.kubeconfig, name)
  const system = kubectl.in(SYSTEM)
  const helm = helmOf(cluster)
  if (options.install !== false) await ensureInstalled(cluster)
  await kubectl.freshNamespace(name, options.labels)
  return {
    cluster,
    kubectl,
    system,
    helm,
    close: async () => {
      if (process.env.KEEP_NAMESPACES === undefined) await kubectl.remove(`namespace/${name}`)
    },
  }
}

const helmOf =
  (cluster: Cluster): World['helm'] =>
  (args, timeoutMs = 250_000) =>
    // It lives for seconds: most of its garbage is never worth a collection.
    execute(cluster.binaries.helm, ['--kubeconfig', cluster.kubeconfig, ...args], {
      timeoutMs,
      env: { ...process.env, GOGC: '400' },
    })

/** Makes sure that the chart is installed from this checkout. Several files run at a time, and Helm refuses a second one that installs. */
export const ensureInstalled = (cluster: Cluster): Promise<void> => {
  const system = new Kubectl(cluster.binaries.kubectl, cluster.kubeconfig, SYSTEM)
  return withLock(lockFile(`install-${cluster.name}`), () => install(cluster, system, helmOf(cluster)))
}

/** Of the product and of what every test needs. */
export const IMAGES = ['ambassador-operator', 'ambassador-proxy', 'ambassador-test-app']

/** Loads images of this checkout, by default those that every test needs; TEST_KUBECONFIG clusters must have them already. */
export async function loadImages(cluster: Cluster, images: readonly string[] = IMAGES): Promise<void> {
  if (process.env.TEST_KUBECONFIG !== undefined) return
  for (const image of images) {
    const file = join(root, `dist/images/${image}.tar`)
    await access(file).catch(() => {
      throw new Error(`image ${file}: is not built, run npm run images -- --tests`)
    })
    await cluster.loadImage(file)
  }
}

/** One hash of everything that is installed: a cluster that outlived an earlier run gets what this checkout holds. */
async function fingerprint(): Promise<string> {
  const hash = createHash('sha256')
  for (const image of IMAGES) {
    const file = join(root, `dist/images/${image}.tar`)
    const { size, mtimeMs } = await stat(file).catch(() => ({ size: 0, mtimeMs: 0 }))
    hash.update(`${file} ${size} ${mtimeMs}\n`)
  }
  for (const entry of (await readdir(CHART, { recursive: true, withFileTypes: true })).sort((a, b) =>
    join(a.parentPath, a.name) < join(b.parentPath, b.name) ? -1 : 1,
  )) {
    if (entry.isFile()) hash.update(await readFile(join(entry.parentPath, entry.name)))
  }
  return hash.digest('hex').slice(0, 16)
}

async function install(cluster: Cluster, system: Kubectl, helm: World['helm']): Promise<void> {
  const build = await fingerprint()
  const found = await system.try(['get', 'deployment', `${RELEASE}-operator`, '-o', 'json'])
  if (found.code === 0) {
    const deployment = JSON.parse(found.stdout) as Json
    const same = deployment.spec.template.metadata.annotations?.['test/build'] === build
    if (same && deployment.status.availableReplicas === deployment.spec.replicas) return
  }
  await loadImages(cluster)
  const result = await helm([
    'upgrade',
    '--install',
    RELEASE,
    CHART,
    '--namespace',
    SYSTEM,
    '--create-namespace',
    '--wait',
    '--timeout',
    '240s',
    '--set-string',
    `operator.podAnnotations.test/build=${build}`,
    ...INSTALL_VALUES,
  ])
  if (result.code !== 0) throw new Error(`helm: ${result.stderr}${result.stdout}`)
  await system.rollout(`deployment/${RELEASE}-operator`)
}
