/** Debian packages that the tests need: found, installed when this is root on Debian or Ubuntu, else named with the exact command. */

import { chmodSync, existsSync, readdirSync, readFileSync, renameSync, rmSync, statSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { lockFile } from './cache.ts'
import { CommandError, run, which } from './exec.ts'
import { withLock } from './lock.ts'
import { type Progress, printed } from './progress.ts'

// Whoever has the program has it, wherever it comes from: Docker's own packages bring `containerd` and `runc` under
// other names, and Debian's would push them out.
const PROGRAM_OF: Readonly<Record<string, string>> = {
  binutils: 'strip',
  buildah: 'buildah',
  chromium: 'chromium',
  conntrack: 'conntrack',
  containerd: 'containerd',
  golang: 'go',
  haproxy: 'haproxy',
  iproute2: 'ip',
  iptables: 'iptables',
  nginx: 'nginx',
  openssl: 'openssl',
  'redis-server': 'redis-server',
  'redis-tools': 'redis-cli',
  runc: 'runc',
}

/** Packages are missing and cannot be installed from here; the message carries the command that does it. */
export class PackagesMissing extends Error {
  override readonly name = 'PackagesMissing'
  readonly packages: readonly string[]

  constructor(packages: readonly string[], machine: Machine) {
    super(`packages ${packages.join(', ')} are missing, ${remedy(packages, machine)}`)
    this.packages = packages
  }
}

/** What decides whether packages can be installed from here. */
export interface Machine {
  readonly hasApt: boolean
  readonly isRoot: boolean
}

const remedy = (packages: readonly string[], machine: Machine): string => {
  const command = `apt-get update && apt-get install -y --no-install-recommends ${packages.join(' ')}`
  if (!machine.hasApt) return `this is not Debian or Ubuntu: install what carries the same programs`
  return `run: ${machine.isRoot ? command : `sudo sh -c '${command}'`}`
}

/** The machine that this runs on. */
export const thisMachine = (): Machine => ({
  hasApt: which('apt-get') !== undefined && which('dpkg-query') !== undefined,
  isRoot: process.getuid?.() === 0,
})

/** Names of those packages that are neither installed nor present as a program of their own. */
export const missingPackages = async (names: readonly string[]): Promise<string[]> => {
  const absent = names.filter((name) => !hasProgram(name))
  if (absent.length === 0 || !thisMachine().hasApt) return absent.filter((name) => PROGRAM_OF[name] !== undefined)
  return notInstalled(absent, await packageStates(absent))
}

const hasProgram = (name: string): boolean => {
  const program = PROGRAM_OF[name]
  return program !== undefined && which(program) !== undefined
}

// dpkg-query exits with 1 when it knows nothing of one name, and still lists the others.
const packageStates = async (names: readonly string[]): Promise<string> => {
  const format = ['-W', '-f', '${Package} ${db:Status-Status}\n', ...names]
  return run('sh', ['-c', 'dpkg-query "$@" 2>/dev/null || true', 'dpkg-query', ...format])
}

/** Reads `name state` lines as dpkg-query prints them, and returns the wanted names whose state is not `installed`. */
export const notInstalled = (wanted: readonly string[], states: string): string[] => {
  const installed = new Set(
    states
      .split('\n')
      .map((line) => line.split(' '))
      .filter(([, state]) => state === 'installed')
      .map(([name]) => name),
  )
  return wanted.filter((name) => !installed.has(name))
}

/** Installs those of the packages that are missing, without starting any service that they bring. Throws PackagesMissing when this is not root on Debian or Ubuntu. */
export const ensurePackages = async (names: readonly string[], progress: Progress = printed()): Promise<void> => {
  if ((await missingPackages(names)).length === 0) return
  const machine = thisMachine()
  if (!machine.hasApt || !machine.isRoot) throw new PackagesMissing(await missingPackages(names), machine)
  await withLock(lockFile('packages'), async () => {
    const missing = await missingPackages(names)
    if (missing.length === 0) return
    await progress.step(`packages ${missing.join(' ')}`, () => withoutServices(() => install(missing)))
  })
}

const install = async (names: readonly string[]): Promise<void> => {
  if (!hasFreshLists()) await updateLists()
  // --no-remove: rather an error than a person's Docker gone.
  const args = [
    'install',
    '-y',
    '-q',
    '--no-install-recommends',
    '--no-remove',
    '-o',
    'DPkg::Lock::Timeout=300',
    ...names,
  ]
  try {
    await run('apt-get', args, { env: QUIET })
  } catch (error) {
    if (!(error instanceof CommandError)) throw error
    // Old lists name versions that are gone, and a killed installation leaves dpkg half way.
    await run('dpkg', ['--configure', '-a'], { env: QUIET })
    await updateLists()
    await run('apt-get', args, { env: QUIET })
  }
}

const QUIET = { DEBIAN_FRONTEND: 'noninteractive', NEEDRESTART_MODE: 'l' } as const
const LISTS = '/var/lib/apt/lists'
const FRESH_MS = 24 * 3600 * 1000

/** Fetches the lists of packages anew. */
export const updateLists = (): Promise<string> => run('apt-get', ['update', '-q'], { env: QUIET })

const hasFreshLists = (): boolean =>
  existsSync(LISTS) &&
  readdirSync(LISTS).some(
    (name) => /_Packages(\.\w+)?$/.test(name) && Date.now() - statSync(join(LISTS, name)).ctimeMs < FRESH_MS,
  )

/** Where Debian's maintainer scripts ask whether they may start a service. */
const POLICY = '/usr/sbin/policy-rc.d'
const OURS = '# put here by ambassador while it installs packages'

/** Runs `work` while no package may start a service. What stood in the policy's place is put back, also after a kill, by the next call. */
export const withoutServices = async <T>(work: () => Promise<T>, policy: string = POLICY): Promise<T> => {
  const saved = `${policy}.ambassador-saved`
  restore(policy, saved)
  if (existsSync(policy)) renameSync(policy, saved)
  writeFileSync(policy, `#!/bin/sh\n${OURS}\nexit 101\n`)
  chmodSync(policy, 0o755)
  try {
    return await work()
  } finally {
    restore(policy, saved)
  }
}

const restore = (policy: string, saved: string): void => {
  if (existsSync(policy) && readFileSync(policy, 'utf8').includes(OURS)) rmSync(policy)
  if (!existsSync(saved)) return
  if (existsSync(policy)) rmSync(saved)
  else renameSync(saved, policy)
}
