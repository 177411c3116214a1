/** `ambassador run`: renders Ambassadors with the operator's own code and runs the proxy in the foreground. */
import { dirname, resolve } from 'node:path'
import { parseArgs } from 'node:util'
import { ADMIN_PORT, KIND, LOG_LEVELS, TELEMETRY_PORT } from '../../common/names.ts'
import type { ProxyConfig } from '../../common/proxy-config.ts'
import type { Ambassador } from '../../operator/api/ambassador.ts'
import { checkObject } from '../../operator/api/check.ts'
import { problemText } from '../../operator/render/problems.ts'
import { render } from '../../operator/render/render.ts'
import { Compiler } from '../../proxy/config/compile.ts'
import { fixedSource } from '../../proxy/config/load.ts'
import { type RefDirs, readRef, refText } from '../../proxy/config/refs.ts'
import { FileWatcher } from '../../proxy/config/watch.ts'
import { driverMaker } from '../../proxy/drivers.ts'
import { startApp } from '../../proxy/main.ts'
import { LineWriter } from '../../proxy/observe/line-writer.ts'
import type { LogLevel } from '../../proxy/observe/log.ts'
import { Lifecycle } from '../../proxy/process.ts'
import { TlsContexts } from '../../proxy/tls/contexts.ts'
import { discover } from '../../proxy/upstream/discovery/discover.ts'
import { Resolver } from '../../proxy/upstream/dns/resolver.ts'
import { readDocuments, type SourceDocument, UnreadableError } from '../documents.ts'
import { Exit, UsageError } from '../exit.ts'
import { liftLocalRefs, restoreLocalRefs } from '../local-refs.ts'
import { runLog } from '../run-log.ts'
import { unknownFields } from '../unknown-fields.ts'

export const summary = 'run the proxy in the foreground for the Ambassadors in files'

export const usage = `
Usage: ambassador run -f FILE [-f FILE ...] [--secrets DIR] [--telemetry-port N] [--admin-port N] [--log-level LEVEL]

Renders every Ambassador in the files with the operator's own code and serves them on 127.0.0.1 and [::1] until it is stopped.
The files and everything that they refer to are watched: what changes is in force a moment later, and what is wrong is said
while the last good version goes on.

  -f, --file FILE       YAML or JSON, several documents allowed; - is the standard input
  --secrets DIR         where Secrets and ConfigMaps are: a reference to a key is the file DIR/NAME/KEY
  --telemetry-port N    port of /livez /readyz /metrics /configz on all addresses (default ${TELEMETRY_PORT}; 0: a free one)
  --admin-port N        port of the page for people on loopback (default ${ADMIN_PORT}; 0: a free one)
  --log-level LEVEL     ${LOG_LEVELS.join(', ')} (default info)

Here alone { file: PATH } and { env: NAME } may stand wherever a reference to a Secret or ConfigMap may:
  auth: { bearer: { env: PAYMENTS_TOKEN } }
  auth: { basic: { username: { env: DB_USER }, password: { file: ./password } } }
  tls: { ca: { file: ./ca.pem }, clientCertificate: { certificate: { file: tls.crt }, privateKey: { file: tls.key } } }
A relative PATH is relative to the file that names it.

SIGINT (Ctrl-C) finishes what is in flight and ends; SIGTERM keeps serving until the application is gone, at most 8 seconds.
Exit code: 0 stopped, 1 a file cannot be used, 2 wrong usage, 3 a port belongs to another process.
`

/** As Docker stops a container: 10 seconds after SIGTERM it is killed. */
const DRAIN_MS = 8000

interface Loaded {
  readonly configs: readonly ProxyConfig[]
  /** Lines that say what is wrong; the configs are then not to be used. */
  readonly problems: readonly string[]
  readonly warnings: readonly string[]
}

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      file: { type: 'string', short: 'f', multiple: true },
      secrets: { type: 'string' },
      'telemetry-port': { type: 'string' },
      'admin-port': { type: 'string' },
      'log-level': { type: 'string' },
    },
  })
  const files = values.file ?? []
  const level = LOG_LEVELS.find((each) => each === (values['log-level'] ?? 'info')) as LogLevel | undefined
  if (level === undefined) {
    throw new UsageError(`--log-level: '${values['log-level']}' is not a level, use ${LOG_LEVELS.join(', ')}`)
  }
  const telemetryPort = port('--telemetry-port', values['telemetry-port'], TELEMETRY_PORT)
  const adminPort = port('--admin-port', values['admin-port'], ADMIN_PORT)
  const directory = values.secrets === undefined ? null : resolve(values.secrets)
  const dirs: RefDirs = { secrets: directory ?? '', configMaps: directory ?? '', isPod: false }

  const first = await load(files, directory)
  const problems = first.problems.length > 0 ? first.problems : missing(first.configs, dirs)
  for (const line of [...problems, ...first.warnings]) console.error(line)
  if (problems.length > 0) return Exit.problem

  const isTerminal = process.stdout.isTTY === true
  const log = runLog(level, isTerminal)
  const access = new LineWriter()
  const lifecycle = new Lifecycle(log, access)
  lifecycle.install()
  const resolver = new Resolver()
  const app = await startApp(
    {
      sources: first.configs.map(fixedSource),
      dirs,
      telemetryPort,
      adminPort,
      readiness: 'Listening',
      sidecarMode: 'Legacy',
      drainMs: DRAIN_MS,
      podName: null,
      log,
      discover: (config, source) => discover(config, resolver, source),
      makeDriver: driverMaker((line) => access.write(line)),
      onQuit: () => void lifecycle.stop('Native'),
    },
    lifecycle,
  )
  if (isTerminal) greet(first.configs, app.telemetryPort, app.adminPort)

  let loading = Promise.resolve()
  const watcher = new FileWatcher(() => {
    loading = loading.then(async () => {
      const again = await load(files, directory)
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

/** Reads and renders every Ambassador in the files. Never throws. */
async function load(files: readonly string[], secrets: string | null): Promise<Loaded> {
  let documents: SourceDocument[]
  try {
    documents = await readDocuments(files)
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error
    return { configs: [], problems: [error.message], warnings: [] }
  }
  const ambassadors = documents.filter(({ value }) => (value as { kind?: unknown } | null)?.kind === KIND)
  if (ambassadors.length === 0) {
    return { configs: [], problems: [`${files.join(', ')}: there is no Ambassador in it`], warnings: [] }
  }
  const problems: string[] = []
  const warnings: string[] = []
  const configs: ProxyConfig[] = []
  const places = new Map<string, string>()
  for (const document of ambassadors) {
    const { file, lineOf } = document
    const name = String((document.value as { metadata?: { name?: unknown } }).metadata?.name ?? 'without a name')
    const at = (field: string) => `${file}:${lineOf(field)}: Ambassador '${name}': ${field === '' ? '' : `${field}: `}`
    const base = file === '<stdin>' ? process.cwd() : dirname(resolve(file))
    const { object, locals, issues } = liftLocalRefs(document.value as object, base)
    const broken = [...issues, ...checkObject(object), ...unknownFields(object)]
    problems.push(...broken.map(({ field, message }) => at(field) + message))
    if (broken.length > 0) continue
    const rendered = render({ ambassador: object as Ambassador })
    for (const problem of rendered.problems) {
      const lines = problem.severity === 'Error' ? problems : warnings
      lines.push(`${file}:${lineOf(problem.field)}: Ambassador '${name}': ${problemText(problem)}`)
    }
    if (rendered.config === null) continue
    const config = restoreLocalRefs(rendered.config, locals)
    if (secrets === null && /"kind":"(?:secret|configMap)"/.test(JSON.stringify(config.clusters))) {
      const remedy = 'use --secrets DIR, or { file: PATH } or { env: NAME } in its place'
      problems.push(`${at('spec.upstreams')}refers to a Secret or ConfigMap, ${remedy}`)
    }
    const { namespace } = config.ambassador
    for (const [key, what, field] of [
      [`${namespace}/${name}`, `the name '${name}'`, 'metadata.name'],
      [`port ${config.listener.port}`, `port ${config.listener.port}`, 'spec.listen.port'],
    ] as const) {
      const other = places.get(key)
      if (other !== undefined) problems.push(`${at(field)}${what} is that of ${other} too, change one of the two`)
      places.set(key, `the Ambassador at ${file}:${lineOf(field)}`)
    }
    configs.push(config)
  }
  return { configs, problems, warnings }
}

/** References that cannot be used. In a pod they may come later; a person who starts a program has them, or made a slip. */
function missing(configs: readonly ProxyConfig[], dirs: RefDirs): string[] {
  const tls = new TlsContexts({ read: (ref) => readRef(ref, dirs), name: refText })
  const compiler = new Compiler({ dirs, tls, discover: () => ({ start() {}, refresh() {}, failure: null, stop() {} }) })
  return configs.flatMap((config) => {
    const candidate = compiler.prepare(config)
    compiler.discard(candidate)
    return candidate.problem === null ? [] : [`Ambassador '${config.ambassador.name}': ${candidate.problem.message}`]
  })
}

function greet(configs: readonly ProxyConfig[], telemetryPort: number, adminPort: number): void {
  for (const { ambassador, protocol, listener, clusters } of configs) {
    const scheme = protocol === 'HTTP' ? 'http' : 'tcp'
    console.log(`${ambassador.name}: ${scheme}://localhost:${listener.port} goes to ${clusters[0]?.name}`)
  }
  console.log(`page for people: http://localhost:${adminPort}/, metrics: http://localhost:${telemetryPort}/metrics`)
}

function port(option: string, value: string | undefined, fallback: number): number {
  if (value === undefined) return fallback
  const number = /^\d{1,5}$/.test(value) ? Number(value) : Number.NaN
  if (!(number <= 65535))
    throw new UsageError(`${option}: '${value}' is not a port, use 1 to 65535, or 0 for a free one`)
  return number
}
