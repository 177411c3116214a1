/** The programs of this checkout as the images have them, bundled once for all test files: they start at half the price of the sources. */
import { createHash } from 'node:crypto'
import {
  cpSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  utimesSync,
} from 'node:fs'
import { join } from 'node:path'
import { cacheRoot, lockFile } from '../../build/machine/cache.ts'
import { withLock } from '../../build/machine/lock.ts'

const ROOT = join(import.meta.dirname, '../..')

/** What a bundle is made of: folders whole, and files. */
const SOURCES = ['build', 'cli', 'common', 'operator', 'proxy', 'Dockerfile.proxy', 'package-lock.json']

/** Bundles that nobody has used for so long are of sources that have changed since. */
const MAX_AGE_MS = 24 * 3_600_000

/** Entry of the sources → file of the bundle that stands for it: the program that the image starts. */
const PROGRAMS: ReadonlyMap<string, string> = new Map([
  ['proxy/main.ts', 'proxy.mjs'],
  ['cli/main.ts', 'ambassador.mjs'],
  ['operator/main.ts', 'operator.mjs'],
])

export interface Built {
  /** As it is in an image, with the code that V8 has compiled. Shared by everybody who has these sources: not to be written to. */
  readonly dist: string
  /** The same before that code is added. Not to be written to. */
  readonly plain: string
}

let made: Promise<Built> | undefined

/** The bundle of the sources as they are now; made when nobody has bundled these very bytes before. */
export const built = (): Promise<Built> => (made ??= make())

/** Arguments of Node, with an entry of the sources among them replaced by the file of the bundle that stands for it. */
export const programArgs = async (args: readonly string[]): Promise<string[]> => {
  if (!args.some((arg) => PROGRAMS.has(arg))) return [...args]
  const { dist } = await built()
  return args.map((arg) => {
    const file = PROGRAMS.get(arg)
    return file === undefined ? arg : join(dist, file)
  })
}

const make = async (): Promise<Built> => {
  const root = join(cacheRoot(), 'test-bundles')
  const directory = join(root, keyOf())
  // Complete when it exists, since it is renamed.
  if (existsSync(directory)) {
    const now = new Date()
    utimesSync(directory, now, now)
  } else
    await withLock(lockFile('test-bundle'), async () => {
      if (existsSync(directory)) return
      mkdirSync(root, { recursive: true })
      for (const name of readdirSync(root)) if (isOld(join(root, name))) rmSync(join(root, name), { recursive: true })
      const unfinished = `${directory}.unfinished`
      rmSync(unfinished, { recursive: true, force: true })
      const { dist, plain } = inside(unfinished)
      // Only now: loading the bundler costs each test file what it saves.
      const { bundle } = await import('../../build/bundle.ts')
      const { addCodeCache } = await import('../../build/code-cache.ts')
      const { imageRuntime } = await import('../../build/image-runtime.ts')
      await bundle({ root: ROOT, dist: plain })
      cpSync(plain, dist, { recursive: true, verbatimSymlinks: true })
      await addCodeCache({ dist, runtime: imageRuntime(join(ROOT, 'Dockerfile.proxy')) })
      renameSync(unfinished, directory)
    })
  return inside(directory)
}

const inside = (directory: string): Built => ({ dist: join(directory, 'dist'), plain: join(directory, 'plain') })

const isOld = (directory: string): boolean => Date.now() - statSync(directory).mtimeMs > MAX_AGE_MS

/** Hash of every byte that goes into a bundle, of the names of the files, and of the engine that compiles it. */
const keyOf = (): string => {
  const hash = createHash('sha256').update(`${process.version} ${process.arch}`)
  for (const source of SOURCES) {
    const path = join(ROOT, source)
    const files = statSync(path).isFile()
      ? [path]
      : readdirSync(path, { recursive: true, withFileTypes: true })
          .filter((entry) => entry.isFile())
          .map((entry) => join(entry.parentPath, entry.name))
          .sort()
    for (const file of files) {
      const bytes = readFileSync(file)
      hash.update(`\0${file.slice(ROOT.length)}\0${bytes.length}\0`).update(bytes)
    }
  }
  return hash.digest('hex').slice(0, 32)
}
