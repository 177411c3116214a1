/** The sidecar container: image, environment, probes, resources, security context. Every default of the API server is written out, so that what it stores is what we rendered. */
import { APPLICATION_ENDED_FILE, CONTAINER_NAME, Env, Mount, POD_ANNOTATIONS, ZONE_LABEL } from '../../common/names.ts'
import type { InjectableAmbassador } from './ambassador.ts'
import type { JsonObject } from './json.ts'
import { resourcesOf } from './qos.ts'
import type { InjectorSettings } from './settings.ts'
import type { PodSettings } from './settings-annotations.ts'

/** In which order the kubelet starts and stops sidecar and application: see common/names.ts. */
export type SidecarMode = 'Native' | 'Legacy'

/** Name of the telemetry port. Names of ports are one namespace per pod for Services, so it carries ours. */
const TELEMETRY_PORT_NAME = 'amb-telemetry'

export interface ContainerInput {
  readonly spec: JsonObject
  readonly ambassadors: readonly InjectableAmbassador[]
  readonly mode: SidecarMode
  /** It has a volume that says when the application has ended. */
  readonly isToldOfEnd: boolean
  readonly mounts: readonly JsonObject[]
  readonly pod: PodSettings
  readonly settings: InjectorSettings
}

/** The container as it stands in the pod. */
export function containerFor(input: ContainerInput): JsonObject {
  const { spec, mode, mounts, pod, settings } = input
  const resources = resourcesOf(spec, pod, settings.resources)
  return {
    env: environment(input),
    image: pod.image,
    imagePullPolicy: settings.imagePullPolicy,
    livenessProbe: probe('/livez', { periodSeconds: 10, timeoutSeconds: 5, failureThreshold: 6 }),
    name: CONTAINER_NAME,
    ports: [{ containerPort: pod.telemetryPort, name: TELEMETRY_PORT_NAME, protocol: 'TCP' }],
    readinessProbe: probe('/readyz', { periodSeconds: 5, timeoutSeconds: 3, failureThreshold: 2 }),
    ...(resources === undefined ? {} : { resources }),
    ...(mode === 'Native' ? { restartPolicy: 'Always' } : {}),
    securityContext: securityContext(settings.runAsUser),
    // Whether it listens, never whether an upstream answers: an application must start while its dependency is down.
    startupProbe: probe('/readyz?startup', { periodSeconds: 1, timeoutSeconds: 3, failureThreshold: 60 }),
    terminationMessagePath: '/dev/termination-log',
    terminationMessagePolicy: 'FallbackToLogsOnError',
    volumeMounts: [...mounts],
  }
}

function environment({ spec, ambassadors, mode, isToldOfEnd, pod, settings }: ContainerInput): JsonObject[] {
  return [
    { name: Env.ambassadors, value: ambassadors.map((each) => each.name).join(',') },
    { name: Env.configDir, value: Mount.config },
    { name: Env.secretsDir, value: Mount.secrets },
    { name: Env.configMapsDir, value: Mount.configMaps },
    ...(ambassadors.some(({ tokens }) => tokens.length > 0) ? [{ name: Env.tokensDir, value: Mount.tokens }] : []),
    { name: Env.telemetryPort, value: String(pod.telemetryPort) },
    { name: Env.adminPort, value: String(pod.adminPort) },
    { name: Env.logLevel, value: pod.logLevel },
    { name: Env.readiness, value: pod.readiness },
    { name: Env.drainSeconds, value: String(pod.drainSeconds ?? drainWithin(spec, settings.drainSeconds)) },
    { name: Env.sidecarMode, value: mode },
    ...(isToldOfEnd
      ? [{ name: Env.endedFile, value: `${Mount.pod}/${POD_ANNOTATIONS}/${APPLICATION_ENDED_FILE}` }]
      : []),
    // Empty where nobody puts the label on pods.
    { name: Env.zone, valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath: `metadata.labels['${ZONE_LABEL}']` } } },
    { name: Env.podName, valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.name' } } },
    { name: Env.podNamespace, valueFrom: { fieldRef: { apiVersion: 'v1', fieldPath: 'metadata.namespace' } } },
  ]
}

/** What Kubernetes gives a pod that does not say. */
const DEFAULT_GRACE_SECONDS = 30
/** Kept of the grace period for the end itself, in seconds. */
const GRACE_RESERVE_SECONDS = 2

/** The pod's grace period in seconds. */
export function graceSeconds(spec: JsonObject): number {
  const grace = spec['terminationGracePeriodSeconds']
  return typeof grace === 'number' ? grace : DEFAULT_GRACE_SECONDS
}

/** The default drain, or what the pod's grace period leaves of it. */
function drainWithin(spec: JsonObject, seconds: number): number {
  return Math.max(0, Math.min(seconds, graceSeconds(spec) - GRACE_RESERVE_SECONDS))
}

/** No `host`: restricted Pod Security refuses it from Kubernetes 1.34 on. */
function probe(path: string, times: { periodSeconds: number; timeoutSeconds: number; failureThreshold: number }) {
  return {
    failureThreshold: times.failureThreshold,
    httpGet: { path, port: TELEMETRY_PORT_NAME, scheme: 'HTTP' },
    periodSeconds: times.periodSeconds,
    successThreshold: 1,
    timeoutSeconds: times.timeoutSeconds,
  }
}

/** Everything that the restricted Pod Security Standard wants, said by the container itself, whatever the pod says. */
function securityContext(user: number | null): JsonObject {
  return {
    allowPrivilegeEscalation: false,
    capabilities: { drop: ['ALL'] },
    privileged: false,
    readOnlyRootFilesystem: true,
    ...(user === null ? {} : { runAsGroup: user }),
    runAsNonRoot: true,
    ...(user === null ? {} : { runAsUser: user }),
    seccompProfile: { type: 'RuntimeDefault' },
  }
}
