/** What the environment decides about the operator, read once: each variable with its meaning, default and check. */
import { z } from 'zod'
import { LOG_LEVELS, NATIVE_SIDECAR, READINESS } from '../common/names.ts'
import { nanos } from './webhook/quantities.ts'
import { DEFAULT_SETTINGS, type InjectorSettings } from './webhook/settings.ts'

export interface Settings {
  /** Name of this process in the Lease and in Events. POD_NAME; default: the host's name. */
  readonly podName: string
  /** Where the Lease and the CA are. POD_NAMESPACE; default: the namespace of the service account. */
  readonly namespace: string | undefined
  /** AMBASSADOR_LOG_LEVEL. Default info. */
  readonly logLevel: (typeof LOG_LEVELS)[number]
  /** Port of the webhook, HTTPS. AMBASSADOR_WEBHOOK_PORT. Default 9443; 0: a free one. */
  readonly webhookPort: number
  /** Port of /livez, /readyz and /metrics, HTTP. AMBASSADOR_HTTP_PORT. Default 8080; 0: a free one. */
  readonly httpPort: number
  /** Namespaces in which the operator may read Secrets. AMBASSADOR_SECRET_CHECKS, comma-separated. Default none. */
  readonly secretChecks: readonly string[]
  /** Replicas of the operator's own Deployment. AMBASSADOR_REPLICAS. Default: it is left as it is. */
  readonly replicas: number | undefined
  /** How long to go on serving after SIGTERM, not ready any more, in milliseconds. AMBASSADOR_SHUTDOWN_DELAY_SECONDS, 0 to 60. Default 5 s. */
  readonly shutdownDelayMs: number
  /** What sidecars get: AMBASSADOR_PROXY_IMAGE (required) and the other AMBASSADOR_PROXY_ variables; AMBASSADOR_EXCLUDED_NAMESPACES. */
  readonly injector: InjectorSettings
}

type Env = Readonly<Record<string, string | undefined>>

/** A variable that cannot be used; the message is one sentence with the remedy. */
export class SettingsError extends Error {
  override readonly name = 'SettingsError'
}

const NAMESPACE = /^[a-z0-9]([-a-z0-9]{0,61}[a-z0-9])?$/

const text = z.string().max(512)
const port = whole(0, 65535)
const quantity = (example: string) =>
  z.string().refine((value) => nanos(value) !== undefined, `use a quantity such as ${example}`)
const namespaces = z
  .string()
  .transform((value) =>
    value
      .split(',')
      .map((each) => each.trim())
      .filter((each) => each !== ''),
  )
  .refine((all) => all.every((each) => NAMESPACE.test(each)), 'use names of namespaces, separated by commas')
const oneOf = <T extends readonly [string, ...string[]]>(values: T) => z.enum(values, `use ${values.join(', ')}`)
const PULL_POLICIES = ['Always', 'IfNotPresent', 'Never'] as const

function whole(min: number, max: number) {
  const remedy = `use a whole number from ${min} to ${max}`
  return z
    .string()
    .regex(/^\d{1,10}$/, remedy)
    .transform(Number)
    .refine((value) => value >= min && value <= max, remedy)
}

/** Reads the environment. An empty variable has its default. @throws {SettingsError} for the first variable that cannot be used */
export function readSettings(env: Env, host = 'ambassador-operator'): Settings {
  const read = <T>(name: string, schema: z.ZodType<T, string>): T | undefined => {
    const value = env[name]
    if (value === undefined || value === '') return undefined
    const result = schema.safeParse(value)
    if (result.success) return result.data
    throw new SettingsError(`${name}: '${value}' cannot be used, ${result.error.issues[0]?.message ?? 'correct it'}`)
  }
  const image = read('AMBASSADOR_PROXY_IMAGE', text)
  if (image === undefined)
    throw new SettingsError('AMBASSADOR_PROXY_IMAGE: is not set, set it to the image of the sidecar')
  const user = env['AMBASSADOR_PROXY_RUN_AS_USER']
  const { resources } = DEFAULT_SETTINGS
  const namespace = read('POD_NAMESPACE', text)
  const replicas = read('AMBASSADOR_REPLICAS', whole(0, 100))
  const cpu = quantity('10m')
  const memory = quantity('64Mi')
  return {
    podName: read('POD_NAME', text) ?? host,
    namespace,
    logLevel: read('AMBASSADOR_LOG_LEVEL', oneOf(LOG_LEVELS)) ?? 'info',
    webhookPort: read('AMBASSADOR_WEBHOOK_PORT', port) ?? 9443,
    httpPort: read('AMBASSADOR_HTTP_PORT', port) ?? 8080,
    secretChecks: read('AMBASSADOR_SECRET_CHECKS', namespaces) ?? [],
    replicas,
    shutdownDelayMs: (read('AMBASSADOR_SHUTDOWN_DELAY_SECONDS', whole(0, 60)) ?? 5) * 1000,
    injector: {
      image,
      imagePullPolicy:
        read('AMBASSADOR_PROXY_IMAGE_PULL_POLICY', oneOf(PULL_POLICIES)) ?? DEFAULT_SETTINGS.imagePullPolicy,
      resources: {
        cpuRequest: read('AMBASSADOR_PROXY_CPU_REQUEST', cpu) ?? resources.cpuRequest,
        cpuLimit: read('AMBASSADOR_PROXY_CPU_LIMIT', cpu) ?? null,
        memoryRequest: read('AMBASSADOR_PROXY_MEMORY_REQUEST', memory) ?? resources.memoryRequest,
        memoryLimit: read('AMBASSADOR_PROXY_MEMORY_LIMIT', memory) ?? null,
        guaranteedCpu: read('AMBASSADOR_PROXY_GUARANTEED_CPU', cpu) ?? resources.guaranteedCpu,
      },
      runAsUser:
        user === 'none'
          ? null
          : (read('AMBASSADOR_PROXY_RUN_AS_USER', whole(1, 2 ** 31 - 1)) ?? DEFAULT_SETTINGS.runAsUser),
      nativeSidecar: read('AMBASSADOR_PROXY_NATIVE_SIDECAR', oneOf(NATIVE_SIDECAR)) ?? DEFAULT_SETTINGS.nativeSidecar,
      logLevel: read('AMBASSADOR_PROXY_LOG_LEVEL', oneOf(LOG_LEVELS)) ?? DEFAULT_SETTINGS.logLevel,
      readiness: read('AMBASSADOR_PROXY_READINESS', oneOf(READINESS)) ?? DEFAULT_SETTINGS.readiness,
      drainSeconds: read('AMBASSADOR_PROXY_DRAIN_SECONDS', whole(0, 3600)) ?? DEFAULT_SETTINGS.drainSeconds,
      excludedNamespaces: read('AMBASSADOR_EXCLUDED_NAMESPACES', namespaces) ?? [],
    },
  }
}
