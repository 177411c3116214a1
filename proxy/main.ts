/** Entry of the proxy: settings from the environment, then everything that ProxyApp does until a signal. */
import { ProxyApp, type ProxyOptions, StartError } from './app.ts'
import { readSettings, type Settings, SettingsError, type Source } from './config/env.ts'
import { type ConfigSource, fileSource, fixedSource, mountedSource } from './config/load.ts'
import { makeDriver } from './drivers.ts'
import { ServerPortError } from './observe/http-server.ts'
import { ProxyLog } from './observe/log.ts'
import { ExitCode, Lifecycle } from './process.ts'
import { discover } from './upstream/discovery/discover.ts'
import { Resolver } from './upstream/dns/resolver.ts'

/** Runs the proxy as the environment says. Returns when it serves; the process goes on until it is stopped. */
export async function main(env: NodeJS.ProcessEnv = process.env): Promise<void> {
  let settings: Settings
  try {
    settings = readSettings(env)
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error
    process.stderr.write(`${error.message}\n`)
    process.exit(ExitCode.settings)
  }
  const log = new ProxyLog({ level: settings.logLevel })
  const lifecycle = new Lifecycle(log)
  lifecycle.install()
  const isPod = settings.source.kind === 'mounted'
  // In a pod /etc/hosts may map the upstream's own name to our listener (listen.hostnames).
  const resolver = new Resolver({ ignoreLoopbackHosts: isPod })
  const sources = sourcesOf(settings.source, settings.podNamespace)
  if (!isPod) {
    const read = sources[0]?.read()
    if (read?.ok === false) {
      process.stderr.write(`AMBASSADOR_CONFIG: ${read.message}\n`)
      process.exit(ExitCode.settings)
    }
  }
  await startApp(
    {
      sources,
      dirs: { secrets: settings.secretsDir, configMaps: settings.configMapsDir, isPod },
      telemetryPort: settings.telemetryPort,
      adminPort: settings.adminPort,
      readiness: settings.readiness,
      sidecarMode: settings.sidecarMode,
      drainMs: settings.drainMs,
      podName: settings.podName,
      log,
      discover: (config) => discover(config, resolver),
      makeDriver,
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
    process.stderr.write(`${error.message}\n`)
    process.exit(ExitCode.port)
  }
  return app
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

if (import.meta.main) await main()
