/** Entry of the proxy: settings from the environment, then everything that ProxyApp does until a signal. */
import { writeSync } from 'node:fs'
import { ProxyApp, type ProxyOptions, StartError } from './app.ts'
import { watchEnded } from './config/ended-file.ts'
import { PlainEnv, readSettings, type Settings, SettingsError, type Source } from './config/env.ts'
import { type ConfigSource, fileSource, fixedSource, holdsAmbassadors, mountedSource } from './config/load.ts'
import { driverMaker } from './drivers.ts'
import { ServerPortError } from './observe/http-server.ts'
import { LineWriter } from './observe/line-writer.ts'
import { ProxyLog } from './observe/log.ts'
import { ExitCode, Lifecycle } from './process.ts'
import { discover } from './upstream/discovery/discover.ts'
import { Resolver } from './upstream/dns/resolver.ts'

/** Serves the Ambassadors in a file. The proxy cannot: it knows nothing of how they are rendered. */
export type ServeAmbassadors = (path: string, settings: Settings) => Promise<void>

/**
 * Runs the proxy as the environment says. Returns when it serves; the process goes on until it is stopped.
 * @param serveAmbassadors what AMBASSADOR_CONFIG is given to when it names a file with Ambassadors and not with a ProxyConfig
 */
export async function main(env: NodeJS.ProcessEnv = process.env, serveAmbassadors?: ServeAmbassadors): Promise<void> {
  let settings: Settings
  try {
    settings = readSettings(env)
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error
    refuse(error.message, ExitCode.settings)
  }
  const { source } = settings
  if (source.kind === 'file' && serveAmbassadors !== undefined && holdsAmbassadors(source.path)) {
    return serveAmbassadors(source.path, settings)
  }
  const log = new ProxyLog({ level: settings.logLevel })
  const access = new LineWriter()
  const lifecycle = new Lifecycle(log, access)
  lifecycle.install()
  const isPod = source.kind === 'mounted'
  // In a pod /etc/hosts may map the upstream's own name to our listener (listen.hostnames).
  const resolver = new Resolver({ ignoreLoopbackHosts: isPod })
  const sources = sourcesOf(source, settings.podNamespace)
  if (!isPod) {
    const read = sources[0]?.read()
    if (read?.ok === false) refuse(`${PlainEnv.config}: ${read.message}`, ExitCode.settings)
  }
  if (settings.endedFile !== null) {
    watchEnded(settings.endedFile, (since) => {
      log.info({ detail: since }, 'the application has ended')
      void lifecycle.stop('Native')
    })
  }
  await startApp(
    {
      sources,
      dirs: {
        secrets: settings.secretsDir,
        configMaps: settings.configMapsDir,
        tokens: settings.tokensDir,
        isPod,
      },
      telemetryPort: settings.telemetryPort,
      adminPort: settings.adminPort,
      readiness: settings.readiness,
      sidecarMode: settings.sidecarMode,
      drainMs: settings.drainMs,
      podName: settings.podName,
      zone: settings.zone,
      log,
      discover: (config, source) => discover(config, resolver, source),
      makeDriver: driverMaker((line) => access.write(line), {
        pod: settings.podName,
        log,
        maxClients: settings.maxClients,
      }),
      onQuit: () => void lifecycle.stop('Native'),
    },
    lifecycle,
  )
}

/** Starts an app whose life `lifecycle` ends; a port that cannot be had ends the process with a sentence. */
export async function startApp(options: ProxyOptions, lifecycle: Lifecycle): Promise<ProxyApp> {
  const app = new ProxyApp(options)
  lifecycle.adopt(app)
  try {
    await app.start()
  } catch (error) {
    if (!(error instanceof StartError || error instanceof ServerPortError)) throw error
    refuse(error.message, ExitCode.port)
  }
  return app
}

/** One sentence for a person, and the end. */
function refuse(sentence: string, code: number): never {
  writeSync(2, `${sentence}\n`)
  process.exit(code)
}

function sourcesOf(source: Source, namespace: string): readonly ConfigSource[] {
  switch (source.kind) {
    case 'mounted':
      return source.names.map((name) => mountedSource(source.directory, namespace, name))
    case 'file':
      return [fileSource(source.path)]
    case 'fixed':
      return [fixedSource(source.config)]
  }
}

if (import.meta.main) void main()
