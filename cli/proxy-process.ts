/** The process that a proxy runs best in: the flags of Node and the settings of malloc that the image has. */

/** As in the ENTRYPOINT of Dockerfile.proxy, which gives the reasons; a test keeps the two equal. */
export const NODE_FLAGS = ['--single-threaded-gc', '--max-semi-space-size=4', '--use-openssl-ca'] as const

/** As in the ENV of Dockerfile.proxy. A value of the person who starts it stands. */
export const MALLOC_ENV = {
  MALLOC_ARENA_MAX: '1',
  MALLOC_TRIM_THRESHOLD_: '65536',
  MALLOC_MMAP_THRESHOLD_: '8192',
} as const

/** What becomeProxy() looks at and calls. */
export type Host = Pick<NodeJS.Process, 'execArgv' | 'execPath' | 'argv' | 'env'> & { readonly execve?: Execve }
type Execve = (file: string, args: readonly string[], env: NodeJS.ProcessEnv) => never

/**
 * Starts this program anew in the same process (its id, its streams and its parent stay), with the flags and settings that are missing: V8
 * takes most of them only before it starts, and a first line of a script has no room for them. Does nothing when all are there,
 * or where a process cannot do that (Windows).
 */
export function becomeProxy(host: Host = process): void {
  const given = new Set(host.execArgv.map(nameOf))
  const missing = NODE_FLAGS.filter((flag) => !given.has(nameOf(flag)))
  const isSet = Object.keys(MALLOC_ENV).every((name) => host.env[name] !== undefined)
  if ((missing.length === 0 && isSet) || host.execve === undefined) return
  const args = [host.execPath, ...host.execArgv, ...missing, ...host.argv.slice(1)]
  host.execve(host.execPath, args, { ...MALLOC_ENV, ...host.env })
}

function nameOf(flag: string): string {
  return flag.split('=', 1)[0]!
}
