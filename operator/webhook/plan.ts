/** plan(): what would be done to a pod, as plain data, or why not. Pure; knows no request and no API server. */
import { createHash } from 'node:crypto'
import { canonicalJson } from '../../common/config-hash.ts'
import { Annotation, CONTAINER_NAME, PRODUCT_VERSION } from '../../common/names.ts'
import type { InjectableAmbassador } from './ambassador.ts'
import { containerFor, graceSeconds, type SidecarMode } from './container.ts'
import { hostnamesOf } from './hostnames.ts'
import { annotationsOf } from './inject-annotation.ts'
import { asList, asObject, contains, type JsonObject, objectsOf, own } from './json.ts'
import { type Nodes, supportsNative } from './native.ts'
import { nearest } from './nearest.ts'
import { type Offer, offersOf } from './offered-env.ts'
import { portConflict } from './ports.ts'
import { type Denial, deny, type Skip, skip } from './reasons.ts'
import type { InjectorSettings } from './settings.ts'
import { type PodSettings, podSettings } from './settings-annotations.ts'
import { type SharedMount, sharedSockets } from './shared-sockets.ts'
import { socketMounts } from './sockets.ts'
import type { InjectionStatus } from './status.ts'
import { volumesFor } from './volumes.ts'

export interface PlanInput {
  /** Without a sidecar of ours: what uninjectPod() returns. */
  readonly pod: JsonObject
  readonly namespace: string
  /** From the annotation. */
  readonly names: readonly string[]
  /** What is known of each name; undefined: it does not exist. */
  readonly find: (name: string) => InjectableAmbassador | undefined
  /** Names of the Ambassadors of the namespace, for messages. */
  readonly known: () => readonly string[]
  readonly settings: InjectorSettings
  readonly nodes: Nodes
}

export interface InjectionPlan {
  readonly kind: 'plan'
  readonly container: JsonObject
  readonly volumes: readonly JsonObject[]
  /** Names for 127.0.0.1 that the pod does not have yet. */
  readonly hostnames: readonly string[]
  /** Variables for the containers of the application. */
  readonly offers: readonly Offer[]
  /** Volumes with sockets of ours, for the containers of the application. */
  readonly shared: readonly SharedMount[]
  /** To be added beside the status. */
  readonly annotations: Readonly<Record<string, string>>
  readonly status: Omit<InjectionStatus, 'before'>
  readonly warnings: readonly string[]
}

/** Which container `kubectl logs` and `kubectl exec` mean when none is named. */
const DEFAULT_CONTAINER = 'kubectl.kubernetes.io/default-container'

/** Decides about a pod that asks for Ambassadors. */
export function plan(input: PlanInput): InjectionPlan | Skip | Denial {
  const { pod, settings } = input
  const spec = asObject(pod['spec'])
  const annotations = annotationsOf(pod)
  if (own(annotations, 'kubernetes.io/config.mirror') !== undefined) return skip('MirrorPod')
  if (spec === undefined || asList(spec['containers']).length === 0) return skip('NoContainers')

  const podDenial = unfit(pod, spec)
  if (podDenial !== undefined) return podDenial
  const parsed = podSettings(annotations, settings)
  if (parsed.kind === 'denial') return parsed
  const ambassadors: InjectableAmbassador[] = []
  for (const name of input.names) {
    const found = usable(name, input)
    if ('kind' in found) return found
    ambassadors.push(found)
  }
  const conflict = portConflict(spec, ambassadors, parsed)
  if (conflict !== undefined) return conflict
  const hosts = hostnamesOf(spec, ambassadors)
  if (hosts.kind === 'denial') return hosts

  const mode = modeOf(spec, parsed, input.nodes)
  const isToldOfEnd = mode === 'Legacy' && ends(spec)
  const listening = sharedSockets(spec, ambassadors, mode)
  if (listening.kind === 'denial') return listening
  const { shared } = listening
  const usual = volumesFor(ambassadors, isToldOfEnd)
  const sockets = socketMounts(spec, ambassadors)
  const volumes = [...usual.volumes, ...listening.volumes]
  const mounts = [...usual.mounts, ...listening.mounts, ...sockets.mounts]
  const clash = volumeClash(spec, volumes)
  if (clash !== undefined) return clash
  const container = containerFor({ spec, ambassadors, mode, isToldOfEnd, mounts, pod: parsed, settings })
  const missingVolumes = volumes.filter((volume) => volumeNamed(spec, volume['name']) === undefined)
  const { offers, warnings } = offersOf(spec, ambassadors, mode)
  const env = Object.fromEntries(offers.map((each) => [each.container, each.variables.map(({ name }) => name)]))
  const extra = mode === 'Legacy' ? defaultContainer(spec, annotations) : {}
  return {
    kind: 'plan',
    container,
    volumes: missingVolumes,
    hostnames: hosts.names,
    offers,
    shared,
    annotations: extra,
    status: {
      version: PRODUCT_VERSION,
      image: parsed.image,
      mode,
      ambassadors: ambassadors.map(({ name, config }) => ({ name, configHash: config?.hash ?? '' })),
      added: {
        volumes: missingVolumes.map((volume) => String(volume['name'])),
        hostnames: hosts.names,
        annotations: Object.keys(extra),
        ...(offers.length > 0 && { env }),
      },
      hash: hashOf({
        container,
        volumes: missingVolumes,
        hostnames: hosts.names,
        ...(offers.length > 0 && { env: JSON.stringify(offers) }),
        ...(shared.length > 0 && { shared: JSON.stringify(shared) }),
      }),
    },
    warnings: [...parsed.warnings, ...sockets.warnings, ...warningsOf(spec, parsed, mode, ambassadors), ...warnings],
  }
}

/** What makes a pod unfit for any sidecar. */
function unfit(pod: JsonObject, spec: JsonObject): Denial | undefined {
  if (spec['hostNetwork'] === true) {
    return deny(
      'HostNetwork',
      `${Annotation.inject}: the pod has hostNetwork, so 127.0.0.1 is the node's and every process of the node could use its credentials; remove hostNetwork or the annotation`,
    )
  }
  if (isWindows(spec)) {
    return deny(
      'Windows',
      `${Annotation.inject}: the pod runs on Windows, where there is no sidecar; remove the annotation`,
    )
  }
  const isTaken = [...objectsOf(spec['initContainers']), ...objectsOf(spec['containers'])].some(
    (container) => container['name'] === CONTAINER_NAME,
  )
  if (!isTaken) return undefined
  const hasStatus = own(annotationsOf(pod), Annotation.status) !== undefined
  return deny(
    'NameConflict',
    hasStatus
      ? `${Annotation.inject}: the pod has a container "${CONTAINER_NAME}" that does not match its annotation ${Annotation.status}; remove that container and that annotation`
      : `${Annotation.inject}: the pod has a container of its own named "${CONTAINER_NAME}", which is the name of the sidecar; rename it`,
  )
}

const OS_LABELS = ['kubernetes.io/os', 'beta.kubernetes.io/os']

function isWindows(spec: JsonObject): boolean {
  const selector = asObject(spec['nodeSelector'])
  if (asObject(spec['os'])?.['name'] === 'windows') return true
  if (OS_LABELS.some((label) => own(selector, label) === 'windows')) return true
  const affinity = asObject(asObject(spec['affinity'])?.['nodeAffinity'])
  const terms = objectsOf(asObject(affinity?.['requiredDuringSchedulingIgnoredDuringExecution'])?.['nodeSelectorTerms'])
  const wantsWindows = (term: JsonObject): boolean =>
    objectsOf(term['matchExpressions']).some(
      (each) =>
        OS_LABELS.includes(String(each['key'])) &&
        each['operator'] === 'In' &&
        asList(each['values']).length > 0 &&
        asList(each['values']).every((value) => value === 'windows'),
    )
  return terms.length > 0 && terms.every(wantsWindows)
}

/** An Ambassador of that name that a pod can start with. */
function usable(name: string, { find, known, namespace }: PlanInput): InjectableAmbassador | Denial {
  const subject = `${Annotation.inject}: Ambassador "${name}"`
  const found = find(name)
  if (found === undefined) {
    const near = nearest(name, known())
    const hint = near === undefined ? '' : ` (did you mean "${near}"?)`
    return deny(
      'AmbassadorNotFound',
      `${subject} does not exist in namespace "${namespace}"${hint}; create it or correct the annotation`,
    )
  }
  if (found.isDeleting) {
    return deny('AmbassadorDeleting', `${subject} is being deleted; create it again or correct the annotation`)
  }
  if (found.config !== null) return found // the last good config serves, whatever the newest spec is
  if (found.refusal !== null) {
    return deny('AmbassadorNotAccepted', `${subject} is not accepted (${found.refusal}); correct the Ambassador`)
  }
  return deny(
    'ConfigNotReady',
    `${subject} has no configuration yet; the operator publishes it within seconds, try again`,
  )
}

function modeOf(spec: JsonObject, settings: PodSettings, nodes: Nodes): SidecarMode {
  if (settings.nativeSidecar === 'auto') return supportsNative(spec, nodes) ? 'Native' : 'Legacy'
  return settings.nativeSidecar === 'true' ? 'Native' : 'Legacy'
}

function volumeNamed(spec: JsonObject, name: unknown): JsonObject | undefined {
  return objectsOf(spec['volumes']).find((volume) => volume['name'] === name)
}

/** A volume of the pod with the name of ours is used as it is when it is the same, and refused when it is not. */
function volumeClash(spec: JsonObject, volumes: readonly JsonObject[]): Denial | undefined {
  for (const volume of volumes) {
    const other = volumeNamed(spec, volume['name'])
    if (other !== undefined && !contains(other, volume)) {
      return deny(
        'VolumeConflict',
        `${Annotation.inject}: the pod has a volume of its own named "${String(volume['name'])}", which the sidecar needs; rename it`,
      )
    }
  }
  return undefined
}

/** Whether the pod is one that ends, as that of a Job does. */
function ends(spec: JsonObject): boolean {
  return spec['restartPolicy'] !== 'Always' && spec['restartPolicy'] !== undefined
}

/** An ordinary container that stands first would be the one that `kubectl logs` shows. */
function defaultContainer(spec: JsonObject, annotations: JsonObject | undefined): Record<string, string> {
  const first = objectsOf(spec['containers'])[0]?.['name']
  const isSet = own(annotations, DEFAULT_CONTAINER) !== undefined
  return isSet || typeof first !== 'string' ? {} : { [DEFAULT_CONTAINER]: first }
}

/** What works and a person should know; each below 256 characters, since longer ones are cut by API servers. */
function warningsOf(
  spec: JsonObject,
  settings: PodSettings,
  mode: SidecarMode,
  ambassadors: readonly InjectableAmbassador[],
): string[] {
  const warnings: string[] = []
  if (mode === 'Legacy' && ends(spec)) {
    warnings.push(
      `without native sidecars the operator ends the sidecar of this pod when its other containers have ended; POST http://127.0.0.1:${settings.adminPort}/quitquitquit does it without the operator`,
    )
  }
  const grace = graceSeconds(spec)
  if (settings.drainSeconds !== undefined && settings.drainSeconds > grace) {
    warnings.push(
      `${Annotation.drainSeconds}: ${settings.drainSeconds} is more than terminationGracePeriodSeconds ${grace}, so the kubelet ends the sidecar first; raise the grace period`,
    )
  }
  if (spec['shareProcessNamespace'] === true || spec['hostPID'] === true) {
    warnings.push(
      'the processes of this pod can see each other, so they can read the files and credentials of the sidecar',
    )
  }
  for (const { name, refusal } of ambassadors) {
    if (refusal !== null) {
      warnings.push(`Ambassador "${name}": its newest spec is not accepted, the last good configuration is used`)
    }
  }
  return warnings
}

/** 16 hex digits of SHA-256. */
function hashOf(block: JsonObject): string {
  return createHash('sha256').update(canonicalJson(block)).digest('hex').slice(0, 16)
}
