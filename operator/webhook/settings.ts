/** What the installation decides about every sidecar; a pod's annotations override most of it. */
import type { LOG_LEVELS, NATIVE_SIDECAR, READINESS } from '../../common/names.ts'

export interface InjectorSettings {
  /** Image of the sidecar. */
  readonly image: string
  readonly imagePullPolicy: 'Always' | 'IfNotPresent' | 'Never'
  readonly resources: {
    readonly cpuRequest: string
    /** Null: none, so that the sidecar is never throttled. */
    readonly cpuLimit: string | null
    readonly memoryRequest: string
    readonly memoryLimit: string | null
    /** CPU request and limit in a pod of QoS class Guaranteed, where a limit there must be. */
    readonly guaranteedCpu: string
  }
  /** User and group of the container. Null: what the namespace assigns (OpenShift refuses a fixed one). */
  readonly runAsUser: number | null
  readonly nativeSidecar: (typeof NATIVE_SIDECAR)[number]
  readonly logLevel: (typeof LOG_LEVELS)[number]
  readonly readiness: (typeof READINESS)[number]
  /** Longest time, in seconds, that the sidecar lets open exchanges end after SIGTERM. Never more than the pod's grace period leaves. */
  readonly drainSeconds: number
  /** Namespaces in which nothing is injected, beside the three of Kubernetes. The operator's own belongs here. */
  readonly excludedNamespaces: readonly string[]
}

export const DEFAULT_SETTINGS: Omit<InjectorSettings, 'image'> = {
  imagePullPolicy: 'IfNotPresent',
  resources: {
    cpuRequest: '10m',
    cpuLimit: null,
    memoryRequest: '32Mi',
    memoryLimit: '128Mi',
    guaranteedCpu: '100m',
  },
  runAsUser: 65532,
  nativeSidecar: 'auto',
  logLevel: 'info',
  readiness: 'Listening',
  drainSeconds: 25,
  excludedNamespaces: [],
}

/** Namespaces of Kubernetes itself. */
export const SYSTEM_NAMESPACES = ['kube-system', 'kube-node-lease', 'kube-public'] as const
