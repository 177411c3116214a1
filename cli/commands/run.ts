/** `ambassador run`: renders Ambassadors with the operator's own code and runs the proxy in the foreground. */
import { resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { ADMIN_PORT, Env, LOG_LEVELS, TELEMETRY_PORT } from '../../common/names.ts'
import type { ProxyConfig } from '../../common/proxy-config.ts'
import type { Settings } from '../../proxy/config/env.ts'
import { fixedSource } from '../../proxy/config/load.ts'
import type { RefDirs } from '../../proxy/config/refs.ts'
import { FileWatcher } from '../../proxy/config/watch.ts'
import { driverMaker } from '../../proxy/drivers.ts'
import { startApp } from '../../proxy/main.ts'
import { LineWriter } from '../../proxy/observe/line-writer.ts'
import { Lifecycle } from '../../proxy/process.ts'
import { discover } from '../../proxy/upstream/discovery/discover.ts'
import { Resolver } from '../../proxy/upstream/dns/resolver.ts'
import { Exit, UsageError } from '../exit.ts'
import { loadFiles, missingRefs } from '../local-configs.ts'
import { portOption } from '../port-option.ts'
import { runLog } from '../run-log.ts'
import { SERVICE_USAGE } from '../services.ts'

export const summary = 'run the proxy in the foreground for the Ambassadors in files'

export const usage = `
Usage: ambassador run -f FILE [-f FILE ...] [--secrets DIR] [--service NAME=HOST:PORT ...] [--telemetry-port N] [--admin-port N] [--log-level LEVEL]

Renders every Ambassador in the files with the operator's own code and serves them on 127.0.0.1 and [::1] until it is stopped.
The files and everything that they refer to are watched: what changes is in force a moment later, and what is wrong is said
while the last good version goes on.

  -f, --file FILE       YAML or JSON, several documents allowed; - is the standard input
  --secrets DIR         where Secrets and ConfigMaps are: a reference to a key is the file DIR/NAME/KEY
${SERVICE_USAGE}
  --telemetry-port N    port of /livez /readyz /metrics /configz on all addresses (default ${TELEMETRY_PORT}; 0: a free one)
  --admin-port N        port of the page for people on loopback (default ${ADMIN_PORT}; 0: a free one)
  --log-level LEVEL     ${LOG_LEVELS.join(', ')} (default info)

Here alone { file: PATH } and { env: NAME } may stand wherever a reference to a Secret or ConfigMap may:
  auth: { bearer: { env: PAYMENTS_TOKEN } }
  auth: { basic: { username: { env: DB_USER }, password: { file: ./password } } }
  auth: { serviceAccountToken: { audience: vault, file: ./token } }
  tls: { ca: { file: ./ca.pem }, clientCertificate: { certificate: { file: tls.crt }, privateKey: { file: tls.key } } }
A relative PATH is relative to the file that names it.

The variable ${Env.zone} says which zone this machine is in, for loadBalancing.zonePreference.

SIGINT (Ctrl-C) finishes what is in flight and ends; SIGTERM keeps serving until the application is gone, at most 8 seconds.
Exit code: 0 stopped, 1 a file cannot be used, 2 wrong usage, 3 a port belongs to another process.
`

/** As Docker stops a container: 10 seconds after SIGTERM it is killed. */
const DRAIN_MS = 8000

export async function run(args: string[], env: NodeJS.ProcessEnv = process.env): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      file: { type: 'string', short: 'f', multiple: true },
      secrets: { type: 'string' },
      service: { type: 'string', multiple: true },
      'telemetry-port': { type: 'string' },
      'admin-port': { type: 'string' },
      'log-level': { type: 'string' },
    },
  })
  const logLevel = LOG_LEVELS.find((each) => each === (values['log-level'] ?? 'info'))
  if (logLevel === undefined) {
    throw new UsageError(`--log-level: '${values['log-level']}' is not a level, use ${LOG_LEVELS.join(', ')}`)
  }
  return serveFiles(values.file ?? [], {
    secrets: values.secrets ?? null,
    services: values.service ?? [],
    telemetryPort: portOption('--telemetry-port', values['telemetry-port'], TELEMETRY_PORT),
    adminPort: portOption('--admin-port', values['admin-port'], ADMIN_PORT),
    logLevel,
    readiness: 'Listening',
    sidecarMode: 'Legacy',
    drainMs: DRAIN_MS,
    zone: env[Env.zone] || null,
  })
}

export interface ServeOptions
  extends Pick<Settings, 'telemetryPort' | 'adminPort' | 'logLevel' | 'readiness' | 'sidecarMode' | 'drainMs' | 'zone'>,
    Partial<Pick<Settings, 'maxClients'>> {
  /** Where Secrets and ConfigMaps are; null: nowhere. */
  readonly secrets: string | null
  /** Stand-ins for Kubernetes Services, such as `orders=localhost:8080`. */
  readonly services?: readonly string[]
}

/** Serves the Ambassadors in files until the process is stopped. Returns an exit code when they cannot be served. */
export async function serveFiles(files: readonly string[], options: ServeOptions): Promise<number> {
  const directory = options.secrets === null ? null : resolve(options.secrets)
  const dirs: RefDirs = { secrets: directory ?? '', configMaps: directory ?? '', tokens: directory ?? '', isPod: false }
  const { services = [] } = options
  const first = await loadFiles(files, directory, services)
  const problems = first.problems.length > 0 ? first.problems : missingRefs(first.configs, dirs)
  for (const line of [...problems, ...first.warnings]) console.error(line)
  if (problems.length > 0) return Exit.problem

  const isTerminal = process.stdout.isTTY === true
  const log = runLog(options.logLevel, isTerminal)
  const access = new LineWriter()
  const lifecycle = new Lifecycle(log, access)
  lifecycle.install()
  const resolver = new Resolver()
  const { telemetryPort, adminPort, readiness, sidecarMode, drainMs, zone } = options
  const app = await startApp(
    {
      sources: first.configs.map(fixedSource),
      dirs,
      telemetryPort,
      adminPort,
      readiness,
      sidecarMode,
      drainMs,
      podName: null,
      zone,
      log,
      discover: (config, source) => discover(config, resolver, source),
      makeDriver: driverMaker((line) => access.write(line), { pod: null, log, maxClients: options.maxClients ?? null }),
      onQuit: () => void lifecycle.stop('Native'),
    },
    lifecycle,
  )
  if (isTerminal) greet(first.configs, app.telemetryPort, app.adminPort)

  let loading = Promise.resolve()
  const watcher = new FileWatcher(() => {
    loading = loading.then(async () => {
      const again = await loadFiles(files, directory, services)
      for (const detail of again.problems)
        log.error({ detail }, 'the files are not usable, the last good version goes on')
      for (const detail of again.warnings) log.warn({ detail }, 'a file has a warning')
      if (again.problems.length === 0) await app.replace(again.configs.map(fixedSource))
    })
  })
  // What came from the standard input cannot be read again.
  if (!files.includes('-')) watcher.setPaths(files.map((file) => resolve(file)))
  // The lifecycle ends the process.
  return new Promise(() => {})
}

function greet(configs: readonly ProxyConfig[], telemetryPort: number, adminPort: number): void {
  for (const { ambassador, protocol, listener, routes, clusters } of configs) {
    const scheme = protocol === 'HTTP' ? 'http' : 'tcp'
    const socket = listener.unix === undefined ? '' : ` and unix:${listener.unix}`
    console.log(
      `${ambassador.name}: ${scheme}://localhost:${listener.port}${socket} goes to ${goals(routes, clusters)}`,
    )
  }
  console.log(`page for people: http://localhost:${adminPort}/, metrics: http://localhost:${telemetryPort}/metrics`)
}

/** Where requests may go, in the order of the upstreams. */
function goals(routes: ProxyConfig['routes'], clusters: ProxyConfig['clusters']): string {
  const used = new Set([clusters[0]?.name, ...routes.flatMap(({ to }) => to.map(({ cluster }) => cluster))])
  return clusters.flatMap(({ name }) => (used.has(name) ? [name] : [])).join(', ')
}
