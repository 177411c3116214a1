/** Completes package-lock.json: `node build/lock-file.ts`, after an `npm install` on a machine whose registry does not carry the builds for every platform. npm then leaves those out of the file, and `npm ci` refuses it. */

import { readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

/** What of the file matters here. */
interface LockFile {
  packages: Record<string, LockedPackage>
}

interface LockedPackage {
  readonly version?: string
  readonly dev?: boolean
  readonly optionalDependencies?: Readonly<Record<string, string>>
  readonly optional?: boolean
  readonly os?: readonly string[]
  readonly cpu?: readonly string[]
  readonly libc?: readonly string[]
}

/** Entries for optional dependencies that have none. Such a package is for one platform, which its name tells. Versions are exact, as authors of platform builds name them. */
export const missingEntries = ({ packages }: LockFile): Record<string, LockedPackage> => {
  const present = new Set(Object.keys(packages).map((path) => path.replace(/^.*node_modules\//, '')))
  const missing: Record<string, LockedPackage> = {}
  for (const { dev, optionalDependencies = {} } of Object.values(packages)) {
    for (const [name, version] of Object.entries(optionalDependencies)) {
      if (!present.has(name)) missing[`node_modules/${name}`] = platformPackage(name, version, dev)
    }
  }
  return missing
}

/** Pure: the entry of a package for one platform. Throws when its name tells none, or its version is a range. */
export const platformPackage = (name: string, version: string, dev: boolean | undefined): LockedPackage => {
  const [os] = /(?<=-)(android|darwin|freebsd|linux|openharmony|win32)(?=-)/.exec(name) ?? []
  const [cpu] = /(?<=-)(arm64|arm|ppc64|s390x|wasm32|x64)(?=-|$)/.exec(name) ?? []
  if (cpu === undefined || !/^\d+\.\d+\.\d+$/.test(version)) {
    throw new Error(`package '${name}': '${version}' is not for one platform, it cannot be completed`)
  }
  const libc = os !== 'linux' ? undefined : /-musl/.test(name) ? 'musl' : /-gnu/.test(name) ? 'glibc' : undefined
  return {
    version,
    cpu: [cpu],
    ...(dev === true && { dev }),
    ...(libc !== undefined && { libc: [libc] }),
    optional: true,
    ...(os !== undefined && { os: [os] }),
  }
}

if (import.meta.main) {
  const file = join(import.meta.dirname, '../package-lock.json')
  const lock = JSON.parse(readFileSync(file, 'utf8')) as LockFile
  const missing = missingEntries(lock)
  const [root, ...others] = Object.entries({ ...lock.packages, ...missing })
  others.sort(([a], [b]) => a.localeCompare(b, 'en'))
  lock.packages = Object.fromEntries([root!, ...others])
  writeFileSync(file, `${JSON.stringify(lock, undefined, 2)}\n`)
  process.stdout.write(`${Object.keys(missing).length} entries added\n`)
}
