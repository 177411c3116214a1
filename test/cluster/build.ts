/** Kubernetes and its companions, built from Go modules and kept in the cache, one folder per version. */

import { createHash } from 'node:crypto'
import {
  copyFileSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
} from 'node:fs'
import { join } from 'node:path'
import { buildDirectory, cacheRoot, lockFile } from '../../build/machine/cache.ts'
import { run, which } from '../../build/machine/exec.ts'
import { withLock } from '../../build/machine/lock.ts'
import { ensurePackages, thisMachine } from '../../build/machine/packages.ts'
import { type Progress, printed } from '../../build/machine/progress.ts'
import { isNewEnough, OLDEST_GO, readGoMod, renderGoMod } from './go-modules.ts'
import { PROGRAMS, type Program } from './versions.ts'

/** Full paths of every program. */
export interface Binaries {
  readonly 'kube-apiserver': string
  readonly 'kube-controller-manager': string
  readonly 'kube-scheduler': string
  readonly kubelet: string
  readonly 'kube-proxy': string
  readonly kubectl: string
  readonly etcd: string
  readonly coredns: string
  readonly helm: string
}

/** Builds what is not in the cache yet; with a warm cache it takes no time. */
export const buildAll = async (progress: Progress = printed()): Promise<Binaries> => {
  for (const program of Object.values(PROGRAMS)) await build(program, progress)
  return binaries()
}

/** Builds helm alone, for tests that need no cluster; returns its path. */
export const buildHelm = async (progress: Progress = printed()): Promise<string> => {
  await build(PROGRAMS.helm, progress)
  return binaries().helm
}

/** Where the programs are, whether they are built already or not. */
export const binaries = (): Binaries =>
  Object.fromEntries(
    Object.values(PROGRAMS).flatMap((program) =>
      Object.keys(program.packages).map((name) => [name, join(directoryOf(program), name)]),
    ),
  ) as unknown as Binaries

/** Names and versions of those that are still to be built. */
export const unbuilt = (): string[] =>
  Object.values(PROGRAMS)
    .filter((program) => !isBuilt(program))
    .map((program) => `${program.name} ${program.version}`)

const directoryOf = (program: Program): string => {
  if (program.source === undefined) return buildDirectory(program.name, program.version)
  const hash = createHash('sha256').update(readFileSync(join(import.meta.dirname, program.source)))
  return buildDirectory(program.name, `${program.version}-${hash.digest('hex').slice(0, 8)}`)
}
const isBuilt = (program: Program): boolean => existsSync(directoryOf(program))

const build = async (program: Program, progress: Progress): Promise<void> => {
  if (isBuilt(program)) return
  await ensureGo(progress)
  await withLock(
    lockFile(`build-${program.name}`),
    async () => {
      if (isBuilt(program)) return
      await progress.step(`${program.name} ${program.version}`, () => buildInto(program), program.takes)
    },
    (owner) => progress.note(`${program.name}: process ${owner} is building it, waiting`),
  )
}

const buildInto = async (program: Program): Promise<void> => {
  const workshop = join(cacheRoot(), 'workshop', program.name)
  rmSync(workshop, { recursive: true, force: true }) // what a killed build left
  mkdirSync(workshop, { recursive: true })
  const out = mkdtempSync(join(workshop, 'out-'))

  const { GoMod } = JSON.parse(await go(workshop, 'mod', 'download', '-json', `${program.module}@${program.version}`))
  writeFileSync(join(workshop, 'go.mod'), renderGoMod(program, readGoMod(readFileSync(GoMod, 'utf8'))))
  if (program.source !== undefined) copyFileSync(join(import.meta.dirname, program.source), join(workshop, 'main.go'))
  const flags = ['-mod=mod', '-trimpath', '-tags', program.tags, '-ldflags', `-s -w ${program.linkerFlags}`]
  const [only = '', ...others] = Object.keys(program.packages)
  // All of Kubernetes in one command, which is faster than six. A single program is named, or Go would call it by the end
  // of its package's path (`v3` for etcd).
  const target = others.length === 0 ? join(out, only) : `${out}/`
  await go(workshop, 'build', ...flags, '-o', target, ...Object.values(program.packages))

  for (const [name, { args, says }] of Object.entries(program.verify)) {
    const said = await run(join(out, name), args)
    if (!said.includes(says)) throw new Error(`${name}: says '${said.trim()}', not '${says}'`)
  }
  mkdirSync(join(directoryOf(program), '..'), { recursive: true })
  renameSync(out, directoryOf(program))
  rmSync(workshop, { recursive: true, force: true })
}

// Debian's Go does not fetch a newer toolchain by itself unless told so.
const go = (cwd: string, ...args: string[]): Promise<string> => {
  const toolchain = process.env['GOTOOLCHAIN'] || 'auto'
  return run('go', args, { cwd, env: { CGO_ENABLED: '0', GOFLAGS: '', GOTOOLCHAIN: toolchain, GOWORK: 'off' } })
}

const ensureGo = async (progress: Progress): Promise<void> => {
  if (which('go') === undefined && thisMachine().hasApt) await ensurePackages(['golang'], progress)
  const problem = await goProblem()
  if (problem !== undefined) throw new Error(problem)
}

/** Says why Go cannot be used here, with the remedy; undefined when it can. */
export const goProblem = async (): Promise<string | undefined> => {
  const remedy = `install Go ${OLDEST_GO} or newer (Debian 13 and newer: apt-get install golang; others: see go.dev/doc/install)`
  if (which('go') === undefined) return `go: not found, ${remedy}`
  const version = (await run('go', ['version'])).trim()
  if (!isNewEnough(version)) return `go: '${version}' is too old, ${remedy}`
  return undefined
}
