/** `npm run images`: the two images of the product and those of the tests, as docker archives. */

import { createHash } from 'node:crypto'
import { copyFileSync, existsSync, mkdirSync, mkdtempSync, readFileSync, renameSync, rmSync } from 'node:fs'
import { createRequire } from 'node:module'
import { dirname, join } from 'node:path'
import { parseArgs } from 'node:util'
import { bundle } from './bundle.ts'
import { readArchive } from './docker-archive.ts'
import { imageDirectory, lockFile } from './machine/cache.ts'
import { CommandError, run, succeeds, which } from './machine/exec.ts'
import { withLock } from './machine/lock.ts'
import { ensurePackages, thisMachine, updateLists } from './machine/packages.ts'
import { type Progress, printed } from './machine/progress.ts'

/** Debian packages by which images are built where there is no Docker. */
export const IMAGE_PACKAGES = ['binutils', 'buildah'] as const

/** One image: its Dockerfile, and the packages of its root, which are the same in the Dockerfile; `NAME+`: with what it depends on. */
export interface Image {
  readonly name: string
  readonly dockerfile: string
  readonly packages: readonly string[]
  /** Its root carries Node, and its programs come from the bundle. */
  readonly isProgram: boolean
  /** Nobody but a test needs it, so `npm run images` leaves it out. */
  readonly isForTests?: boolean
}

const NODE_PACKAGES = ['ca-certificates', 'libatomic1', 'libc6', 'libgcc-s1', 'libstdc++6']

/** What is built, in this order. */
export const IMAGES: readonly Image[] = [
  { name: 'ambassador-operator', dockerfile: 'Dockerfile.operator', packages: NODE_PACKAGES, isProgram: true },
  { name: 'ambassador-proxy', dockerfile: 'Dockerfile.proxy', packages: NODE_PACKAGES, isProgram: true },
  {
    name: 'ambassador-test-app',
    dockerfile: 'test/cluster/app/Dockerfile',
    packages: ['busybox', 'libc6'],
    isProgram: false,
  },
  {
    name: 'ambassador-test-databases',
    dockerfile: 'test/cluster/databases/Dockerfile',
    packages: ['busybox', 'libc6', 'postgresql+', 'redis-server+', 'redis-tools+'],
    isProgram: false,
    isForTests: true,
  },
]

const ROOT = join(import.meta.dirname, '..')

/** Name under which an image is known in a cluster. */
const tagOf = (name: string): string => `localhost/${name}:dev`

export interface ImagesOptions {
  /** Where `proxy.mjs` and the others are. */
  readonly dist: string
  /** Default: lines on the standard error. */
  readonly progress?: Progress
  /** Make the roots anew, with the packages of today. Default: false, they are made once. */
  readonly fresh?: boolean
  /** Those of the tests alone too. Default: false. */
  readonly forTests?: boolean
}

/** Builds all images from what is bundled already; returns the archives. An archive of the same image is left as it is. */
export const buildImages = async (options: ImagesOptions): Promise<string[]> => {
  const { dist, progress = printed(), fresh = false, forTests = false } = options
  const out = join(dist, 'images')
  mkdirSync(out, { recursive: true })
  const builder = await chooseBuilder(progress)
  const archives: string[] = []
  await withLock(lockFile('images'), async () => {
    // What a killed build left. The storage is ours alone, and locked.
    if (builder === 'buildah') await buildah('rm', '--all')
    const roots = new Map<string, Promise<string>>()
    for (const image of IMAGES.filter(({ isForTests = false }) => forTests || !isForTests)) {
      const archive = join(out, `${image.name}.tar`)
      archives.push(archive)
      if (builder === 'docker') {
        await progress.step(tagOf(image.name), () => buildWithDocker(image, archive))
        continue
      }
      const root = roots.get(image.packages.join()) ?? ensureRoot(image, fresh, progress)
      roots.set(image.packages.join(), root)
      const reference = await root
      await progress.step(tagOf(image.name), () => buildWithBuildah(image, reference, dist, archive))
    }
    if (builder === 'buildah') await buildah('rmi', '--prune', '--force')
  })
  return archives
}

/** buildah as root on Debian or Ubuntu, where the roots can be made from packages; else Docker, when its engine answers. */
const chooseBuilder = async (progress: Progress): Promise<'buildah' | 'docker'> => {
  const machine = thisMachine()
  const canBuildah = process.platform === 'linux' && machine.isRoot && machine.hasApt
  if (canBuildah && which('buildah') !== undefined) return 'buildah'
  if (await succeeds('docker', ['version'])) return 'docker'
  if (!canBuildah) {
    throw new Error(
      'images: neither Docker nor root on Debian or Ubuntu is here, start Docker or run: sudo npm run images',
    )
  }
  await ensurePackages(IMAGE_PACKAGES, progress)
  return 'buildah'
}

const buildWithDocker = async ({ name, dockerfile }: Image, archive: string): Promise<void> => {
  await run('docker', ['build', '--quiet', '--file', join(ROOT, dockerfile), '--tag', tagOf(name), ROOT])
  await run('docker', ['save', '--output', `${archive}.new`, tagOf(name)])
  renameSync(`${archive}.new`, archive)
}

const buildWithBuildah = async (image: Image, root: string, dist: string, archive: string): Promise<void> => {
  const id = (
    await buildah(
      'build',
      '--quiet',
      '--isolation=chroot',
      // Times of files and of the build are left out, so that the same content is the same image.
      '--timestamp=0',
      `--build-arg=ROOT=${root}`,
      '--build-arg=APP=bundled',
      `--file=${join(ROOT, image.dockerfile)}`,
      `--tag=${tagOf(image.name)}`,
      image.isProgram ? dist : ROOT,
    )
  ).trim()
  if (existsSync(archive) && (await readArchive(archive)).some((archived) => archived.id === id)) return
  rmSync(`${archive}.new`, { force: true })
  await buildah('push', '--quiet', tagOf(image.name), `docker-archive:${archive}.new:${tagOf(image.name)}`)
  renameSync(`${archive}.new`, archive)
}

/** Counts the changes of ensureRoot that change its result. */
const ROOT_RECIPE = '2'

/** Makes the image that an image starts from, once for each list of packages. Returns its reference. */
const ensureRoot = async (image: Image, fresh: boolean, progress: Progress): Promise<string> => {
  const script = join(import.meta.dirname, 'rootfs.sh')
  const node = image.isProgram ? nodeBinary() : undefined
  const debian = existsSync('/etc/os-release') ? readFileSync('/etc/os-release', 'utf8') : ''
  const recipe = [
    ROOT_RECIPE,
    readFileSync(script, 'utf8'),
    ...image.packages,
    debian,
    process.arch,
    node?.version ?? '',
  ]
  const hash = createHash('sha256').update(recipe.join('\n')).digest('hex').slice(0, 12)
  const reference = `localhost/ambassador-root:${hash}`
  if (!fresh && (await hasImage(reference))) return reference
  await ensurePackages(IMAGE_PACKAGES, progress)
  await progress.step(`root of ${image.packages.join(', ')}`, async () => {
    const workshop = mkdtempSync(join(imageDirectory(), 'root-'))
    try {
      const rootfs = join(workshop, 'rootfs')
      await makeRootfs(script, rootfs, image.packages)
      if (node !== undefined) {
        const target = join(rootfs, 'usr/local/bin/node')
        mkdirSync(dirname(target), { recursive: true })
        await run('strip', ['-o', target, node.file])
        await run('install', ['-D', '--mode=644', node.licence, join(rootfs, 'usr/share/doc/nodejs/copyright')])
      }
      copyFileSync(join(import.meta.dirname, 'root.Dockerfile'), join(workshop, 'Dockerfile'))
      await buildah(
        'build',
        '--quiet',
        '--timestamp=0',
        `--tag=${reference}`,
        `--file=${workshop}/Dockerfile`,
        workshop,
      )
    } finally {
      rmSync(workshop, { recursive: true, force: true })
    }
  })
  return reference
}

const makeRootfs = async (script: string, rootfs: string, packages: readonly string[]): Promise<void> => {
  mkdirSync(rootfs)
  try {
    await run('sh', [script, rootfs, ...packages])
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    // Lists may be missing, or name versions that are gone.
    await updateLists()
    rmSync(rootfs, { recursive: true })
    mkdirSync(rootfs)
    await run('sh', [script, rootfs, ...packages])
  }
}

/** The Node of the lock file, for this machine's processor. Throws when it is not installed. */
const nodeBinary = (): { file: string; licence: string; version: string } => {
  const name = `node-linux-${process.arch}`
  try {
    const manifest = createRequire(import.meta.url).resolve(`${name}/package.json`)
    const { version } = JSON.parse(readFileSync(manifest, 'utf8'))
    return { file: join(dirname(manifest), 'bin/node'), licence: join(dirname(manifest), 'LICENSE'), version }
  } catch (cause) {
    throw new Error(`images: package '${name}' is not installed, run: npm ci`, { cause })
  }
}

const hasImage = (reference: string): Promise<boolean> =>
  succeeds('buildah', [...storage(), 'inspect', '--type=image', reference])

const buildah = (...args: string[]): Promise<string> => run('buildah', [...storage(), ...args])

// A storage of our own, which goes with the cache. vfs works on every file system, also inside another container.
const storage = (): string[] => {
  mkdirSync(imageDirectory(), { recursive: true })
  return [
    '--storage-driver=vfs',
    `--root=${join(imageDirectory(), 'storage')}`,
    `--runroot=${join(imageDirectory(), 'storage-run')}`,
  ]
}

if (import.meta.main) {
  const { values } = parseArgs({
    options: {
      'allow-missing': { type: 'boolean', default: false },
      fresh: { type: 'boolean', default: false },
      tests: { type: 'boolean', default: false },
    },
  })
  const progress = printed()
  const dist = join(ROOT, 'dist')
  try {
    await progress.step('bundle', () =>
      bundle({ root: ROOT, dist, allowMissing: values['allow-missing'], isCompiled: !values['allow-missing'] }),
    )
    for (const archive of await buildImages({ dist, progress, fresh: values.fresh, forTests: values.tests }))
      process.stdout.write(`${archive}\n`)
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n`)
    process.exitCode = 1
  }
}
