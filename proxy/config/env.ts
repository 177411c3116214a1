/** Settings of the process from its environment: the variables of an injected pod, and the contract of a plain container. */
import { ADMIN_PORT, Env, LOG_LEVELS, Mount, READINESS, TELEMETRY_PORT } from '../../common/names.ts'
import type { ProxyConfig } from '../../common/proxy-config.ts'
import { plainConfig } from './plain.ts'

export type Environment = Readonly<Record<string, string | undefined>>
export type Readiness = (typeof READINESS)[number]
export type LogLevel = (typeof LOG_LEVELS)[number]

/**
 * Native: kubelet stops the application first, so a stop finishes what is in flight and ends.
 * Legacy: everything is told to stop at once, so a stop keeps serving until the application is gone.
 */
export type SidecarMode = 'Native' | 'Legacy'

/** Where configs come from. */
export type Source =
  /** Mounted ConfigMaps, one directory per Ambassador. */
  | { readonly kind: 'mounted'; readonly names: readonly string[]; readonly directory: string }
  /** One ProxyConfig in a file. */
  | { readonly kind: 'file'; readonly path: string }
  /** Made from the variables of a plain container. */
  | { readonly kind: 'fixed'; readonly config: ProxyConfig }

export interface Settings {
  readonly source: Source
  readonly secretsDir: string
  readonly configMapsDir: string
  readonly tokensDir: string
  readonly telemetryPort: number
  readonly adminPort: number
  readonly logLevel: LogLevel
  readonly readiness: Readiness
  /** The most that a stop may take, in milliseconds. */
  readonly drainMs: number
  readonly sidecarMode: SidecarMode
  /** A file that is not empty once the application has ended; null: whoever ends the application ends the sidecar. */
  readonly endedFile: string | null
  /** Zone of the pod; null: not known. */
  readonly zone: string | null
  /** Most connections of the application to one port of HTTP; null: as many as the container's memory has room for. */
  readonly maxClients: number | null
  /** Null outside Kubernetes. */
  readonly podName: string | null
  readonly podNamespace: string
}

/** A variable that cannot be used. The message is one sentence that names the variable, the value and what is allowed. */
export class SettingsError extends Error {
  override readonly name = 'SettingsError'
}

/** Variables of a plain container. A default is used when the variable is not set or empty. */
export const PlainEnv = {
  /** Name or address of the upstream. Required unless AMBASSADOR_CONFIG or AMBASSADOR_NAMES is set. */
  host: 'UPSTREAM_HOST',
  /** Its port. Required with UPSTREAM_HOST. */
  port: 'UPSTREAM_PORT',
  /** Port on 127.0.0.1 and [::1] for the application. Default 8080. */
  listenPort: 'LISTEN_PORT',
  /** HTTP or TCP. Default HTTP. */
  protocol: 'PROTOCOL',
  /** Tries on top of the first, 0 to 10, of idempotent requests that met no connection, a reset or a 5xx. HTTP only. Default 2. */
  retryMax: 'RETRY_MAX',
  /** Failures in a row that open the circuit of an endpoint, 1 to 1000. Default: no circuit breaker. */
  breaker: 'CIRCUIT_BREAKER_THRESHOLD',
  /** true: TLS to the upstream, chain and name verified. Default false. */
  tls: 'TLS_ENABLED',
  /** PEM bundle that is trusted instead of the system roots; needs TLS_ENABLED. */
  caFile: 'AMBASSADOR_CA_FILE',
  /** File with one ProxyConfig, as the operator renders it and `ambassador render` prints it. Instead of all of the above. */
  config: 'AMBASSADOR_CONFIG',
} as const

const PLAIN_VALUES = [
  PlainEnv.host,
  PlainEnv.port,
  PlainEnv.listenPort,
  PlainEnv.protocol,
  PlainEnv.retryMax,
  PlainEnv.breaker,
  PlainEnv.tls,
  PlainEnv.caFile,
]

/** A container without a pod's grace period is killed 10 seconds after SIGTERM (docker stop); Kubernetes waits 30. */
const DRAIN_SECONDS = { plain: 8, pod: 25 } as const

/**
 * Reads the settings.
 * @throws {SettingsError} for the first variable that cannot be used
 */
export function readSettings(env: Environment): Settings {
  const source = readSource(env)
  const isPod = source.kind === 'mounted'
  const telemetryPort = port(env, Env.telemetryPort, TELEMETRY_PORT)
  const adminPort = port(env, Env.adminPort, ADMIN_PORT)
  if (telemetryPort === adminPort) {
    throw new SettingsError(`${Env.adminPort}: '${adminPort}' is the telemetry port as well, use another one`)
  }
  return {
    source,
    secretsDir: text(env, Env.secretsDir) ?? Mount.secrets,
    configMapsDir: text(env, Env.configMapsDir) ?? Mount.configMaps,
    tokensDir: text(env, Env.tokensDir) ?? Mount.tokens,
    telemetryPort,
    adminPort,
    logLevel: oneOf(env, Env.logLevel, LOG_LEVELS) ?? 'info',
    readiness: oneOf(env, Env.readiness, READINESS) ?? 'Listening',
    drainMs: (integer(env, Env.drainSeconds, 0, 3600) ?? DRAIN_SECONDS[isPod ? 'pod' : 'plain']) * 1000,
    sidecarMode: oneOf(env, Env.sidecarMode, ['Native', 'Legacy'] as const) ?? 'Legacy',
    endedFile: text(env, Env.endedFile) ?? null,
    zone: text(env, Env.zone) ?? null,
    maxClients: integer(env, Env.maxClients, 1, 1_000_000) ?? null,
    podName: text(env, Env.podName) ?? null,
    podNamespace: text(env, Env.podNamespace) ?? '',
  }
}

function readSource(env: Environment): Source {
  const names = text(env, Env.ambassadors)
  const file = text(env, PlainEnv.config)
  const plain = PLAIN_VALUES.filter((variable) => text(env, variable) !== undefined)
  const [first] = plain
  if (names !== undefined && file !== undefined) {
    throw new SettingsError(`${PlainEnv.config}: cannot be used with ${Env.ambassadors}, remove one of the two`)
  }
  const other = names !== undefined ? Env.ambassadors : PlainEnv.config
  if ((names !== undefined || file !== undefined) && first !== undefined) {
    throw new SettingsError(`${first}: cannot be used with ${other}, remove one of the two`)
  }
  if (names !== undefined) {
    const list = names.split(',').map((name) => name.trim())
    if (list.includes('')) throw new SettingsError(`${Env.ambassadors}: '${names}' has an empty name, remove it`)
    const twice = list.find((name, index) => list.indexOf(name) !== index)
    if (twice !== undefined) {
      throw new SettingsError(`${Env.ambassadors}: '${names}' names '${twice}' twice, remove one`)
    }
    return { kind: 'mounted', names: list, directory: text(env, Env.configDir) ?? Mount.config }
  }
  if (file !== undefined) return { kind: 'file', path: file }
  return { kind: 'fixed', config: readPlain(env) }
}

function readPlain(env: Environment): ProxyConfig {
  const host = text(env, PlainEnv.host)
  if (host === undefined) {
    throw new SettingsError(
      `${PlainEnv.host}: is not set, set it and ${PlainEnv.port}, or ${PlainEnv.config}, or ${Env.ambassadors}`,
    )
  }
  const upstreamPort = port(env, PlainEnv.port, null)
  const protocol = oneOf(env, PlainEnv.protocol, ['HTTP', 'TCP'] as const, true) ?? 'HTTP'
  const retryMax = integer(env, PlainEnv.retryMax, 0, 10)
  if (retryMax !== undefined && protocol === 'TCP') {
    throw new SettingsError(
      `${PlainEnv.retryMax}: '${retryMax}' has no meaning with ${PlainEnv.protocol}=TCP, remove it`,
    )
  }
  const isTls = ['true', '1'].includes(oneOf(env, PlainEnv.tls, ['true', 'false', '1', '0'] as const, true) ?? 'false')
  const caFile = text(env, PlainEnv.caFile) ?? null
  if (caFile !== null && !isTls) {
    throw new SettingsError(`${PlainEnv.caFile}: '${caFile}' needs ${PlainEnv.tls}=true, set it or remove the file`)
  }
  const listenPort = port(env, PlainEnv.listenPort, 8080)
  for (const [variable, fallback] of [
    [Env.telemetryPort, TELEMETRY_PORT],
    [Env.adminPort, ADMIN_PORT],
  ] as const) {
    if (port(env, variable, fallback) === listenPort) {
      throw new SettingsError(
        `${PlainEnv.listenPort}: '${listenPort}' is the port of ${variable} as well, use another one`,
      )
    }
  }
  return plainConfig({
    namespace: text(env, Env.podNamespace) ?? '',
    host: readHost(host),
    port: upstreamPort,
    listenPort,
    protocol,
    maxRetries: retryMax,
    breakerThreshold: integer(env, PlainEnv.breaker, 1, 1000),
    tls: isTls ? { caFile } : null,
  })
}

/** A name or an address, without the brackets that IPv6 has in URLs. Says what is meant instead when a URL or a port is given. */
function readHost(value: string): string {
  const refuse = (why: string) => new SettingsError(`${PlainEnv.host}: '${value}' ${why}`)
  if (value.includes('://')) throw refuse(`is a URL, use the host alone (and ${PlainEnv.tls}=true for https)`)
  const bare = /^\[([0-9A-Fa-f:.]+)\]$/.exec(value)?.[1] ?? value
  if (/^[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*:[0-9A-Fa-f:.]*$/.test(bare)) return bare
  if (/:\d*$/.test(bare)) throw refuse(`has a port, put that into ${PlainEnv.port}`)
  if (!/^[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?(\.[A-Za-z0-9_]([A-Za-z0-9_-]*[A-Za-z0-9_])?)*\.?$/.test(bare)) {
    throw refuse('is not a host, use a name such as api.example.com or an IP address')
  }
  return bare
}

/** The value; undefined when it is not set or empty (Compose passes an unset variable as an empty one). */
function text(env: Environment, variable: string): string | undefined {
  const value = env[variable]?.trim()
  return value === '' ? undefined : value
}

function integer(env: Environment, variable: string, min: number, max: number): number | undefined {
  const value = text(env, variable)
  if (value === undefined) return undefined
  const number = /^\d{1,9}$/.test(value) ? Number(value) : Number.NaN
  if (!(number >= min && number <= max)) {
    throw new SettingsError(`${variable}: '${value}' is not allowed, use a whole number from ${min} to ${max}`)
  }
  return number
}

function port(env: Environment, variable: string, fallback: number | null): number {
  const number = integer(env, variable, 1, 65535)
  if (number !== undefined) return number
  if (fallback === null) throw new SettingsError(`${variable}: is not set, use a port from 1 to 65535`)
  return fallback
}

function oneOf<T extends string>(
  env: Environment,
  variable: string,
  allowed: readonly T[],
  anyCase = false,
): T | undefined {
  const value = text(env, variable)
  if (value === undefined) return undefined
  const found = allowed.find((each) => (anyCase ? each.toLowerCase() === value.toLowerCase() : each === value))
  if (found !== undefined) return found
  throw new SettingsError(
    `${variable}: '${value}' is not allowed, use ${allowed.join(', ').replace(/, ([^,]*)$/, ' or $1')}`,
  )
}
