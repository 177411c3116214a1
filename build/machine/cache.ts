/** Where everything that is built or run lives: outside the checkout, so that it outlives a clone. */

import { homedir } from 'node:os'
import { join, resolve } from 'node:path'

/** The cache folder: `ambassador` below $AMBASSADOR_CACHE, else $XDG_CACHE_HOME, else `~/.cache`. It may be deleted when no cluster runs. */
export const cacheRoot = (env: NodeJS.ProcessEnv = process.env): string =>
  resolve(env['AMBASSADOR_CACHE'] || env['XDG_CACHE_HOME'] || join(homedir(), '.cache'), 'ambassador')

/** Built programs of one version and one processor. Complete when it exists: it is made elsewhere and renamed. */
export const buildDirectory = (name: string, version: string): string =>
  join(cacheRoot(), 'bin', `${name}-${version}-${process.arch}`)

/** State, logs, certificates and disks of one cluster. */
export const runDirectory = (cluster: string): string => join(cacheRoot(), 'run', cluster)

/** Base images and the like, named by the hash of what they are made of. */
export const imageDirectory = (): string => join(cacheRoot(), 'images')

/** Lock files, one per thing that only one process may do at a time. */
export const lockFile = (name: string): string => join(cacheRoot(), 'lock', name)
