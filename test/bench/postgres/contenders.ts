/** What is measured before PostgreSQL: ours and PgBouncer, both pooling by transaction, with TLS and SCRAM to the server. */
import { chmodSync, mkdirSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { bundle } from '../../../build/bundle.ts'
import { imageRuntime } from '../../../build/image-runtime.ts'
import { buildDirectory } from '../../../build/machine/cache.ts'
import { run } from '../../../build/machine/exec.ts'
import { Env, PRODUCT_VERSION } from '../../../common/names.ts'
import { configHash, type ProxyConfig } from '../../../common/proxy-config.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER } from '../../helpers/postgres.ts'
import { startRelay } from '../contenders/relay.ts'
import { freePort, type Running, start } from '../process.ts'

export interface PoolSetting {
  readonly server: { readonly port: number; readonly caFile: string }
  readonly port: number
  readonly core: number
  /** Empty folder for its files. */
  readonly directory: string
  /** Connections to the server. */
  readonly connections: number
}

export interface PoolContender {
  readonly name: string
  /** Whether it carries prepared statements of the protocol from one connection to another. */
  readonly hasPrepared: boolean
  /** Clients share connections: what many of them cost can be told. */
  readonly isPooling: boolean
  /** Measured where `--only` names it, and left out otherwise. Default false. */
  readonly isOnlyByName?: boolean
  prepare(): Promise<string>
  start(setting: PoolSetting): Promise<Running>
}

/** Whom pgbench calls itself. */
export const CLIENT_USER = 'bench'

/** In the certificate of the server. */
export const SERVER_NAME = 'postgres.bench'

/** Clients that may be there at once: beyond what any part opens. */
const MAX_CLIENTS = 12_000

const ROOT = join(import.meta.dirname, '../../..')
const DIST = buildDirectory('bench', 'dist')

const ambassador: PoolContender = {
  name: 'ambassador',
  hasPrepared: true,
  isPooling: true,
  prepare: async () => {
    mkdirSync(DIST, { recursive: true })
    await bundle({ root: ROOT, dist: DIST, isCompiled: true })
    return `${PRODUCT_VERSION}, Node ${process.version}`
  },
  start: async (setting) => {
    const { directory } = setting
    mkdirSync(join(directory, 'config', 'bench'), { recursive: true })
    writeFileSync(join(directory, 'password'), POSTGRES_PASSWORD)
    writeFileSync(join(directory, 'config', 'bench', 'config.json'), JSON.stringify(configFor(setting)))
    const { flags, env } = imageRuntime(join(ROOT, 'Dockerfile.proxy'))
    const [telemetry, admin] = [await freePort(), await freePort()]
    return start(setting.core, process.execPath, [...flags, join(DIST, 'proxy.mjs')], {
      port: setting.port,
      env: {
        ...env,
        [Env.ambassadors]: 'bench',
        [Env.configDir]: join(directory, 'config'),
        [Env.podNamespace]: 'bench',
        AMBASSADOR_TELEMETRY_PORT: String(telemetry),
        AMBASSADOR_ADMIN_PORT: String(admin),
      },
    })
  },
}

function configFor({ server, port, connections, directory }: PoolSetting): ProxyConfig {
  const config: Omit<ProxyConfig, 'hash'> = {
    version: 1,
    ambassador: { namespace: 'bench', name: 'bench', generation: 1 },
    protocol: 'PostgreSQL',
    listener: { port },
    clusters: [
      {
        name: 'upstream',
        discovery: { kind: 'endpoints', endpoints: [{ host: '127.0.0.1', port: server.port, weight: 1, priority: 0 }] },
        tls: {
          serverName: SERVER_NAME,
          ca: { kind: 'file', path: server.caFile },
          clientCertificate: null,
          minVersion: 'TLSv1.2',
        },
        auth: {
          kind: 'postgres',
          username: POSTGRES_USER,
          password: { kind: 'file', path: join(directory, 'password') },
        },
        circuitBreaker: null,
        limits: { maxConnections: connections, maxPendingRequests: MAX_CLIENTS, maxConcurrentRetries: 3 },
      },
    ],
    routes: [],
    retry: null,
    timeouts: { connectMs: 5_000, requestMs: null, idleMs: null },
    rateLimit: null,
    accessLog: { mode: 'Errors', sample: 0 },
    postgres: {
      pooling: {
        mode: 'Transaction',
        queueTimeoutMs: 120_000,
        idleTimeoutMs: 600_000,
        maxLifetimeMs: 3_600_000,
        maxPreparedStatements: 200,
      },
    },
  }
  return { ...config, hash: configHash(config) }
}

let version = ''

const pgbouncer: PoolContender = {
  name: 'pgbouncer',
  get hasPrepared() {
    const [major = 0, minor = 0] = version.split('.').map(Number)
    return major > 1 || minor >= 21
  },
  isPooling: true,
  prepare: async () => {
    version = /PgBouncer (\S+)/.exec(await run('pgbouncer', ['--version']))?.[1] ?? 'unknown'
    return version
  },
  start: async ({ server, port, core, directory, connections }) => {
    const file = join(directory, 'pgbouncer.ini')
    const login = `user=${POSTGRES_USER} password='${POSTGRES_PASSWORD}'`
    writeFileSync(
      file,
      `[databases]
postgres = host=127.0.0.1 port=${server.port} ${login}
[pgbouncer]
listen_addr = 127.0.0.1
listen_port = ${port}
unix_socket_dir =
auth_type = any
pool_mode = transaction
default_pool_size = ${connections}
max_client_conn = ${MAX_CLIENTS}
server_tls_sslmode = verify-ca
server_tls_ca_file = ${server.caFile}
${pgbouncer.hasPrepared ? 'max_prepared_statements = 200\n' : ''}log_connections = 0
log_disconnections = 0
`,
    )
    for (const path of [directory, file]) chmodSync(path, 0o755)
    // It refuses to run as root.
    const args = process.getuid?.() === 0 ? ['-u', 'nobody', file] : [file]
    return start(core, 'pgbouncer', args, { port })
  },
}

/** Each client has a connection of its own, as CLIENT_USER, whom the server trusts. */
const relay: PoolContender = {
  name: 'relay',
  hasPrepared: true,
  isPooling: false,
  isOnlyByName: true,
  prepare: () => Promise.resolve(`Node ${process.version}`),
  start: ({ core, port, server }) =>
    startRelay(core, port, { port: server.port, tls: { caFile: server.caFile, serverName: SERVER_NAME } }),
}

export const CONTENDERS: readonly PoolContender[] = [ambassador, pgbouncer, relay]
