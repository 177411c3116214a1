/** `npm run build`: each process in one file, with what it may need later in files beside it, and the licences of what is inside. */

import {
  chmodSync,
  existsSync,
  mkdirSync,
  readdirSync,
  readFileSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { basename, join } from 'node:path'
import { parseArgs } from 'node:util'
import { type Plugin, rolldown } from 'rolldown'
import { addCodeCache } from './code-cache.ts'
import { imageRuntime } from './image-runtime.ts'

/** What is bundled: file below `dist/` → entry. */
export const ENTRIES: Readonly<Record<string, string>> = {
  'proxy.mjs': 'cli/image.ts',
  'operator.mjs': 'operator/main.ts',
  'ambassador.mjs': 'cli/main.ts',
}

/** First line of each entry, by which the kernel starts it in an image without a shell. */
const FIRST_LINE = '#!/usr/local/bin/node'

/** Where the image's `bin/ambassador` leads to. A link, and no file that imports it: what is imported is not the main module. */
const LAUNCHED = '/app/ambassador.mjs'

export interface BundleOptions {
  /** Folder that the entries are relative to. */
  readonly root: string
  /** Output folder. Made when it does not exist. */
  readonly dist: string
  /** Leave out entries that do not exist, instead of failing. Default: false. */
  readonly allowMissing?: boolean
  /** Start the sidecar once, so that what V8 compiles for that is there at every start: see code-cache.ts. Default: false. */
  readonly isCompiled?: boolean
}

/** One bundled process. `bytes`: of the file that is read at its start. */
export interface Bundled {
  readonly file: string
  readonly bytes: number
}

/** Bundles every entry. Throws when one does not exist or imports something that cannot be found. */
export const bundle = async ({
  root,
  dist,
  allowMissing = false,
  isCompiled = false,
}: BundleOptions): Promise<Bundled[]> => {
  const missing = Object.values(ENTRIES).filter((entry) => !existsSync(join(root, entry)))
  if (missing.length > 0 && !allowMissing) {
    throw new Error(
      `bundle: entry '${missing.join(`', '`)}' does not exist in ${root}, use --allow-missing to leave it out`,
    )
  }
  const entries = Object.entries(ENTRIES).filter(([, entry]) => !missing.includes(entry))
  const packages = new Set<string>()
  const bundled: Bundled[] = []
  for (const [file, entry] of entries) {
    const { bytes, modules } = await bundleOne(join(root, entry), dist, file)
    for (const module of modules) packages.add(packageOf(module))
    bundled.push({ file, bytes })
  }
  packages.delete('')
  rmSync(join(dist, 'bin'), { recursive: true, force: true })
  mkdirSync(join(dist, 'bin'), { recursive: true })
  symlinkSync(LAUNCHED, join(dist, 'bin', 'ambassador'))
  writeFileSync(join(dist, 'LICENSES.txt'), licences([...packages].sort()))
  if (isCompiled) await addCodeCache({ dist, runtime: imageRuntime(join(root, 'Dockerfile.proxy')) })
  return bundled
}

const bundleOne = async (input: string, dist: string, file: string): Promise<{ bytes: number; modules: string[] }> => {
  const stem = basename(file, '.mjs')
  const build = await rolldown({
    input,
    platform: 'node',
    plugins: [onlyEntryIsMain(input), plainBuiltins, asciiOnly],
    onLog(level, log, report) {
      // An import that cannot be resolved would only fail when the process runs.
      if (log.code === 'UNRESOLVED_IMPORT') throw new Error(`bundle: ${log.message}`)
      if (level === 'warn' && !QUIET.has(log.code ?? '')) report(level, log)
    },
  })
  try {
    const { output } = await build.write({
      dir: dist,
      format: 'esm',
      entryFileNames: file,
      // What is imported only when it is needed stays on the disk until then: of the operator, most.
      chunkFileNames: `${stem}-[name]-[hash].mjs`,
      banner: (chunk) => (chunk.isEntry ? FIRST_LINE : ''),
      // Names stay, those of private methods too, so that stack traces and the names of errors in logs can be read.
      minify: { compress: true, mangle: false, codegen: { removeWhitespace: true } },
      sourcemap: false,
    })
    removeStale(dist, stem, new Set(output.map(({ fileName }) => fileName)))
    chmodSync(join(dist, file), 0o755)
    return {
      bytes: statSync(join(dist, file)).size,
      modules: output.flatMap((chunk) => ('moduleIds' in chunk ? chunk.moduleIds : [])),
    }
  } finally {
    await build.close()
  }
}

// After the new files are there, so that an image that is built meanwhile finds either.
const removeStale = (dist: string, stem: string, written: ReadonlySet<string>): void => {
  for (const name of readdirSync(dist)) {
    if (name.startsWith(`${stem}-`) && name.endsWith('.mjs') && !written.has(name)) rmSync(join(dist, name))
  }
}

// In one file every module would take itself for the one that was started, and start its own process.
const onlyEntryIsMain = (entry: string): Plugin => ({
  name: 'only-entry-is-main',
  transform: (code, module) =>
    module === entry || packageOf(module) !== '' ? undefined : code.replaceAll('import.meta.main', 'false'),
})

/**
 * Takes Node's own modules as they are. An import statement makes names of everything that a module exports and so evaluates every
 * getter in it: `import { createServer } from 'node:http'` loads all of fetch and WebSocket, which costs 7 MB.
 */
const plainBuiltins: Plugin = {
  name: 'plain-builtins',
  renderChunk: (code) =>
    code.replace(BUILTIN_IMPORT, (_all, whole: string | undefined, names: string | undefined, module: string) => {
      const builtin = `process.getBuiltinModule("node:${module}")`
      const destructured = names === undefined ? '' : `var {${names.replaceAll(' as ', ':')}} = ${builtin};`
      return whole === undefined ? destructured : `var ${whole} = ${builtin};${destructured}`
    }),
}

/**
 * V8 keeps the source as long as the process lives: one dash from outside Latin-1, in the text of a page, makes that two bytes for
 * each character of the bundle, 450 kB more. All such characters are in strings, templates without a tag, and patterns.
 */
const asciiOnly: Plugin = {
  name: 'ascii-only',
  generateBundle: (_options, output) => {
    for (const chunk of Object.values(output))
      if (chunk.type === 'chunk' && chunk.isEntry)
        chunk.code = chunk.code.replace(/[^\x00-\x7f]/g, (c) => `\\u${c.charCodeAt(0).toString(16).padStart(4, '0')}`)
  },
}

/** `import x, { a as b } from "node:http";` at the beginning of a line, as bundles have it. */
const BUILTIN_IMPORT =
  /^import (?:(?:\* as )?([A-Za-z_$][\w$]*)(?:, )?)?(?:\{([^}]*)\})? ?from "(?:node:)?([a-z_]+(?:\/[a-z]+)*)";/gm

/** Warnings about other people's code that change nothing for us. */
const QUIET: ReadonlySet<string> = new Set(['EVAL', 'CIRCULAR_DEPENDENCY', 'COMMONJS_VARIABLE_IN_ESM'])

/** Folder of the package that a module belongs to; '' for our own. */
export const packageOf = (module: string): string =>
  /^.*\/node_modules\/(?:@[^/]+\/)?[^/]+(?=\/)/.exec(module.replace(/^\0/, ''))?.[0] ?? ''

/** All licences, each under its package's name and version. Throws when a package has no licence at all. */
const licences = (packages: readonly string[]): string =>
  packages
    .map((directory) => {
      const { name, version, license } = JSON.parse(readFileSync(join(directory, 'package.json'), 'utf8'))
      const file = readdirSync(directory).find((entry) => /^licen[cs]e/i.test(entry))
      const text = file === undefined ? `License: ${license}` : readFileSync(join(directory, file), 'utf8').trim()
      if (file === undefined && license === undefined) throw new Error(`bundle: package '${name}' has no licence`)
      return `${name} ${version}\n${'='.repeat(`${name} ${version}`.length)}\n\n${text}\n`
    })
    .join('\n\n')

/** `12.3 kB` */
export const size = (bytes: number): string =>
  bytes < 1e6 ? `${(bytes / 1e3).toFixed(1)} kB` : `${(bytes / 1e6).toFixed(1)} MB`

if (import.meta.main) {
  const { values } = parseArgs({ options: { 'allow-missing': { type: 'boolean', default: false } } })
  const root = join(import.meta.dirname, '..')
  try {
    for (const { file, bytes } of await bundle({
      root,
      dist: join(root, 'dist'),
      allowMissing: values['allow-missing'],
      isCompiled: !values['allow-missing'],
    })) {
      process.stdout.write(`${size(bytes).padStart(9)}  dist/${basename(file)}\n`)
    }
  } catch (error) {
    process.stderr.write(`${error instanceof Error ? error.message : error}\n`)
    process.exitCode = 1
  }
}
