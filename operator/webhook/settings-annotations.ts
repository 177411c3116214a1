/** The per-pod settings: each `ambassador.dev/...` annotation parsed; a bad value is a denial that tells the allowed ones. */
import {
  ADMIN_PORT,
  Annotation,
  GROUP,
  LOG_LEVELS,
  NATIVE_SIDECAR,
  READINESS,
  TELEMETRY_PORT,
} from '../../common/names.ts'
import { asObject, asString, type Json, type JsonObject, own } from './json.ts'
import { nearest } from './nearest.ts'
import { canonical, nanos } from './quantities.ts'
import { type Denial, deny } from './reasons.ts'
import type { InjectorSettings } from './settings.ts'

/** What this pod's sidecar is, after its annotations. Undefined: the installation decides. */
export interface PodSettings {
  readonly kind: 'settings'
  readonly image: string
  readonly cpuRequest: string | undefined
  readonly cpuLimit: string | undefined
  readonly memoryRequest: string | undefined
  readonly memoryLimit: string | undefined
  readonly logLevel: InjectorSettings['logLevel']
  readonly nativeSidecar: InjectorSettings['nativeSidecar']
  readonly readiness: InjectorSettings['readiness']
  readonly drainSeconds: number | undefined
  readonly adminPort: number
  readonly telemetryPort: number
  /** Annotations of our group that nobody reads. */
  readonly warnings: readonly string[]
}

/** Longest drain, in seconds: an hour, as long as the longest sensible grace period. */
const MAX_DRAIN_SECONDS = 3600
/** Ports below cannot be bound without privileges on every cluster. */
const LOWEST_PORT = 1024
/** Less memory than this starts no process; who writes `64m` (0.064 bytes) means `64Mi`. */
const LEAST_MEMORY = '8Mi'
/** A registry (a name, or an IPv6 address in brackets) with a port, path, tag and digest, as container runtimes read them. */
const IMAGE =
  /^((([a-zA-Z0-9][a-zA-Z0-9.-]*|\[[a-fA-F0-9:.]+\])(:\d+)?|[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)\/)?[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*(\/[a-z0-9]+((\.|_|__|-+)[a-z0-9]+)*)*(:\w[\w.-]{0,127})?(@[a-z0-9]+:[a-fA-F0-9]{32,})?$/
const MAX_IMAGE_LENGTH = 512

/** More typing errors than these are not told one by one: looking for what was meant takes time, and an object may hold a hundred thousand. */
const MOST_UNKNOWN_TOLD = 16

/** Written by us or read elsewhere: no warning about these. */
const KNOWN: ReadonlySet<string> = new Set(Object.values(Annotation))

/** What podSettings() reads. */
const SETTINGS: ReadonlySet<string> = new Set([
  Annotation.proxyImage,
  Annotation.proxyCpuRequest,
  Annotation.proxyCpuLimit,
  Annotation.proxyMemoryRequest,
  Annotation.proxyMemoryLimit,
  Annotation.logLevel,
  Annotation.nativeSidecar,
  Annotation.readiness,
  Annotation.drainSeconds,
  Annotation.adminPort,
  Annotation.telemetryPort,
])

/** Reads every setting of a pod, or the first bad value in the order of the documentation. */
export function podSettings(annotations: JsonObject | undefined, settings: InjectorSettings): PodSettings | Denial {
  const reader = new Reader(annotations)
  const parsed: PodSettings = {
    kind: 'settings',
    image: reader.image(Annotation.proxyImage) ?? settings.image,
    cpuRequest: reader.cpu(Annotation.proxyCpuRequest),
    cpuLimit: reader.cpu(Annotation.proxyCpuLimit),
    memoryRequest: reader.memory(Annotation.proxyMemoryRequest),
    memoryLimit: reader.memory(Annotation.proxyMemoryLimit),
    logLevel: reader.oneOf(Annotation.logLevel, LOG_LEVELS) ?? settings.logLevel,
    nativeSidecar: reader.oneOf(Annotation.nativeSidecar, NATIVE_SIDECAR) ?? settings.nativeSidecar,
    readiness: reader.oneOf(Annotation.readiness, READINESS) ?? settings.readiness,
    drainSeconds: reader.integer(Annotation.drainSeconds, 0, MAX_DRAIN_SECONDS),
    adminPort: reader.integer(Annotation.adminPort, LOWEST_PORT, 65535) ?? ADMIN_PORT,
    telemetryPort: reader.integer(Annotation.telemetryPort, LOWEST_PORT, 65535) ?? TELEMETRY_PORT,
    warnings: unknownAnnotations(annotations),
  }
  if (reader.denial !== undefined) return reader.denial
  return contradiction(parsed) ?? parsed
}

/** One sentence for each annotation of our group that has no meaning, with the nearest that has. */
export function unknownAnnotations(annotations: JsonObject | undefined): string[] {
  const unknown = Object.keys(annotations ?? {}).filter((key) => key.startsWith(`${GROUP}/`) && !KNOWN.has(key))
  const told = unknown.sort().slice(0, MOST_UNKNOWN_TOLD)
  return told.map((key) => {
    const near = nearest(key, KNOWN)
    return `annotation "${key}" is not known and does nothing${near === undefined ? '' : `, did you mean "${near}"?`}`
  })
}

/**
 * One sentence for each annotation of our group that does nothing where it stands, or that is a label: settings are read from the pod template and not from the
 * workload itself, and nothing is read from the template of a CronJob's Jobs, which have a controller.
 */
export function misplacedAnnotations(workload: JsonObject, kind: string): string[] {
  const template = kind === 'CronJob' ? 'spec.jobTemplate.spec.template' : 'spec.template'
  const ofItself = asObject(asObject(workload['metadata'])?.['annotations'])
  const spec = asObject(workload['spec'])
  const jobTemplate = kind === 'CronJob' ? asObject(spec?.['jobTemplate']) : undefined
  const holder = kind === 'CronJob' ? asObject(jobTemplate?.['spec']) : spec
  const ofJobs = asObject(asObject(jobTemplate?.['metadata'])?.['annotations'])
  const misplaced = (annotations: JsonObject | undefined, isMisplaced: (key: string) => boolean, where: string) =>
    Object.keys(annotations ?? {})
      .filter(isMisplaced)
      .sort()
      .map((key) => `annotation "${key}" does nothing ${where}, move it to ${template}.metadata.annotations`)
  return [
    ...misplaced(ofItself, (key) => SETTINGS.has(key), `on the ${kind} itself`),
    ...misplaced(ofJobs, (key) => SETTINGS.has(key) || key === Annotation.inject, 'at spec.jobTemplate.metadata'),
    ...unknownAnnotations(ofItself),
    ...unknownAnnotations(ofJobs),
    ...labelled(asObject(workload['metadata']), `the ${kind}`),
    ...labelled(asObject(asObject(holder?.['template'])?.['metadata']), template),
  ]
}

/** Other injectors are asked by a label of such a name. */
function labelled(metadata: JsonObject | undefined, where: string): string[] {
  const isLabelled = own(asObject(metadata?.['labels']), Annotation.inject) !== undefined
  return isLabelled ? [`label "${Annotation.inject}" of ${where} does nothing, write it as an annotation`] : []
}

/** Values that are fine each on its own. */
function contradiction(parsed: PodSettings): Denial | undefined {
  const { cpuRequest, cpuLimit, memoryRequest, memoryLimit, adminPort, telemetryPort } = parsed
  if (cpuRequest !== undefined && cpuLimit !== undefined && nanos(cpuRequest)! > nanos(cpuLimit)!) {
    return deny(
      'InvalidSetting',
      `${Annotation.proxyCpuRequest}: "${cpuRequest}" is more than ${Annotation.proxyCpuLimit} "${cpuLimit}"; lower the request or raise the limit`,
    )
  }
  if (memoryRequest !== undefined && memoryLimit !== undefined && nanos(memoryRequest)! > nanos(memoryLimit)!) {
    return deny(
      'InvalidSetting',
      `${Annotation.proxyMemoryRequest}: "${memoryRequest}" is more than ${Annotation.proxyMemoryLimit} "${memoryLimit}"; lower the request or raise the limit`,
    )
  }
  if (adminPort === telemetryPort) {
    return deny(
      'PortConflict',
      `${Annotation.adminPort} and ${Annotation.telemetryPort}: both are ${adminPort}; give one of them another port`,
    )
  }
  return undefined
}

class Reader {
  readonly #annotations: JsonObject | undefined
  /** Of the first bad value. */
  denial: Denial | undefined

  constructor(annotations: JsonObject | undefined) {
    this.#annotations = annotations
  }

  oneOf<T extends string>(key: string, allowed: readonly T[]): T | undefined {
    return this.#read(
      key,
      (text) => allowed.find((value) => value === text),
      (text) => {
        const near = nearest(text.toLowerCase(), allowed) ?? allowed.find((v) => v.toLowerCase() === text.toLowerCase())
        const hint = near === undefined ? '' : ` (did you mean "${near}"?)`
        return `is not one of ${allowed.join(', ')}${hint}`
      },
    )
  }

  integer(key: string, min: number, max: number): number | undefined {
    return this.#read(
      key,
      (text) => {
        const value = /^\d{1,9}$/.test(text) ? Number(text) : Number.NaN
        return value >= min && value <= max ? value : undefined
      },
      () => `is not a whole number from ${min} to ${max}`,
    )
  }

  cpu(key: string): string | undefined {
    return this.#read(key, positive, () => 'is not a quantity of CPU; use a value such as 10m, 250m or 1')
  }

  memory(key: string): string | undefined {
    return this.#read(
      key,
      (text) => {
        const quantity = positive(text)
        return quantity !== undefined && nanos(quantity)! >= nanos(LEAST_MEMORY)! ? quantity : undefined
      },
      (text) =>
        /^\d+m$/.test(text)
          ? `is thousandths of a byte; did you mean "${text.slice(0, -1)}Mi"?`
          : `is not a quantity of memory of at least ${LEAST_MEMORY}; use a value such as 32Mi or 1Gi`,
    )
  }

  image(key: string): string | undefined {
    return this.#read(
      key,
      (text) => (text.length <= MAX_IMAGE_LENGTH && IMAGE.test(text) ? text : undefined),
      () => 'is not an image; use a reference such as registry.example.com/ambassador-proxy:1.2.3',
    )
  }

  #read<T>(key: string, parse: (text: string) => T | undefined, problem: (text: string) => string): T | undefined {
    const value = own(this.#annotations, key)
    if (value === undefined || value === null) return undefined
    const text = asString(value)?.trim()
    if (text === undefined) {
      this.denial ??= deny('InvalidSetting', `${key}: ${notText(value)}`)
      return undefined
    }
    const parsed = parse(text)
    if (parsed === undefined) this.denial ??= deny('InvalidSetting', `${key}: "${shorten(text)}" ${problem(text)}`)
    return parsed
  }
}

function positive(text: string): string | undefined {
  const value = nanos(text)
  return value !== undefined && value > 0n ? canonical(text) : undefined
}

/** What to say of a value of an annotation that YAML reads as something else than text. API servers never let one through; files do. */
function notText(value: Json): string {
  const shown = shorten(JSON.stringify(value))
  return typeof value === 'object'
    ? `${shown} is not a string`
    : `${shown} is not a string; write it in quotes: "${shown}"`
}

/** A value as a message shows it: a long one is cut, since messages of an admission answer are. */
export function shorten(text: string): string {
  return text.length > 80 ? `${text.slice(0, 79)}…` : text
}
