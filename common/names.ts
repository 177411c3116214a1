/** Every name that two parts of the product, or a user and the product, must agree on. */

export const GROUP = 'ambassador.dev'
export const VERSION = 'v1alpha1'
export const KIND = 'Ambassador'
export const PLURAL = 'ambassadors'

/** Version of the product, as `--version`, `/configz` and the status annotation tell it. Kept equal to package.json by a test. */
export const PRODUCT_VERSION = '0.1.0'

/** Field manager of everything that the operator applies. */
export const FIELD_MANAGER = 'ambassador-operator'

/** Annotations that a person writes on a pod template, or on the workload itself. */
export const Annotation = {
  /** Comma-separated names of Ambassadors, or "false". */
  inject: `${GROUP}/inject`,
  proxyImage: `${GROUP}/proxy-image`,
  proxyCpuRequest: `${GROUP}/proxy-cpu-request`,
  proxyCpuLimit: `${GROUP}/proxy-cpu-limit`,
  proxyMemoryRequest: `${GROUP}/proxy-memory-request`,
  proxyMemoryLimit: `${GROUP}/proxy-memory-limit`,
  logLevel: `${GROUP}/log-level`,
  nativeSidecar: `${GROUP}/native-sidecar`,
  readiness: `${GROUP}/readiness`,
  drainSeconds: `${GROUP}/drain-seconds`,
  adminPort: `${GROUP}/admin-port`,
  telemetryPort: `${GROUP}/telemetry-port`,
  /** Written by us on a pod: what was injected, as JSON. */
  status: `${GROUP}/status`,
  /** Written by us on a pod template: its inject annotation was copied from the workload's own metadata. */
  copiedFromWorkload: `${GROUP}/copied-from-workload`,
  /** Written by us on a running pod, so that its kubelet refreshes the mounted ConfigMaps at once: the newest config hash. */
  touched: `${GROUP}/touched`,
  /** Written by us on a running pod whose sidecar is an ordinary container: since when all its other containers have ended. */
  applicationEnded: `${GROUP}/application-ended`,
} as const

/** On a Service: comma-separated namespaces whose Ambassadors may name it, or `*`. Its own namespace always may. */
export const ALLOW_FROM = `${GROUP}/allow-from`

/** Labels that we write. */
export const Label = {
  /** On injected pods, always "true". */
  injected: `${GROUP}/injected`,
  /** On the ConfigMap of an Ambassador: its name (truncated and hashed when long). */
  ambassador: `${GROUP}/ambassador`,
  managedBy: 'app.kubernetes.io/managed-by',
} as const

/** Label of nodes, and of pods from Kubernetes 1.35 on. */
export const ZONE_LABEL = 'topology.kubernetes.io/zone'

/** Most Ambassadors that one pod may name. */
export const MAX_AMBASSADORS_PER_POD = 16

/** Name of the injected container. */
export const CONTAINER_NAME = 'ambassador'

/** Read-only HTTP port of the sidecar on all addresses: /livez /readyz /metrics /configz. */
export const TELEMETRY_PORT = 14990
/** HTTP port of the sidecar on loopback: people and lifecycle verbs. */
export const ADMIN_PORT = 14991

/** Directories inside the sidecar. One subdirectory per Ambassador, Secret or ConfigMap, mounted whole and never by subPath. */
export const Mount = {
  config: '/etc/ambassador/config',
  secrets: '/etc/ambassador/secrets',
  configMaps: '/etc/ambassador/configmaps',
  /** Projected tokens of the pod's service account, one directory for each audience and life. */
  tokens: '/etc/ambassador/tokens',
  /** What the pod itself says: a directory with a file for each annotation that a sidecar follows. */
  pod: '/etc/ambassador/pod',
} as const

/** Key of the one entry in an Ambassador's ConfigMap. */
export const CONFIG_KEY = 'config.json'

/** Directory below Mount.pod and file in it with the annotation of this meaning: empty until the application has ended. */
export const POD_ANNOTATIONS = 'annotations'
export const APPLICATION_ENDED_FILE = 'application-ended'

/** Name of the one file in a volume with a token of the service account. */
export const TOKEN_FILE = 'token'

/** Environment of the sidecar when it runs in a pod. The variables of a plain container (UPSTREAM_HOST, ...) are in proxy/config/env.ts. */
export const Env = {
  /** Comma-separated Ambassadors to serve, in the order of the annotation. */
  ambassadors: 'AMBASSADOR_NAMES',
  configDir: 'AMBASSADOR_CONFIG_DIR',
  secretsDir: 'AMBASSADOR_SECRETS_DIR',
  configMapsDir: 'AMBASSADOR_CONFIGMAPS_DIR',
  /** Set only where there are tokens. */
  tokensDir: 'AMBASSADOR_TOKENS_DIR',
  telemetryPort: 'AMBASSADOR_TELEMETRY_PORT',
  adminPort: 'AMBASSADOR_ADMIN_PORT',
  logLevel: 'AMBASSADOR_LOG_LEVEL',
  /** Listening | UpstreamHealthy */
  readiness: 'AMBASSADOR_READINESS',
  drainSeconds: 'AMBASSADOR_DRAIN_SECONDS',
  /** Native | Legacy: in which order kubelet stops us and the application. */
  sidecarMode: 'AMBASSADOR_SIDECAR_MODE',
  /** Set only where kubelet does not end the sidecar by itself: a file that is not empty once the application has ended. */
  endedFile: 'AMBASSADOR_ENDED_FILE',
  /** Zone of the pod; empty: not known. */
  zone: 'AMBASSADOR_ZONE',
  /** Most connections of the application to one port of HTTP. */
  maxClients: 'AMBASSADOR_MAX_CLIENT_CONNECTIONS',
  podName: 'POD_NAME',
  podNamespace: 'POD_NAMESPACE',
} as const

/** Values of the enumerated annotations. */
export const LOG_LEVELS = ['debug', 'info', 'warn', 'error'] as const
export const NATIVE_SIDECAR = ['auto', 'true', 'false'] as const
export const READINESS = ['Listening', 'UpstreamHealthy'] as const
