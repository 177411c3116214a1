/** Everything that one reconcile may see of an Ambassador: plain data, gathered once, decided on without another read. */
import type { AmbassadorReport } from '../../common/configz.ts'
import type { Ambassador } from '../api/ambassador.ts'
import type { ResolvedService, ServiceEndpoint, ServiceRef } from '../render/services.ts'

/** What stands where the ConfigMap of an Ambassador belongs. */
export type ConfigMapState =
  | { readonly kind: 'absent' }
  /** Somebody else's. */
  | { readonly kind: 'foreign' }
  | {
      readonly kind: 'ours'
      readonly uid: string
      /** Of its contents, labels and owner: equal to that of what we would write, or edited, or of an older generation. */
      readonly digest: string
      /** Of the config in it; null when it does not parse. */
      readonly hash: string | null
      readonly generation: number | null
      /** What it says of the endpoints of Services and the number of sidecars; null: it says nothing of them. */
      readonly endpointsHash: string | null
      /** Sidecars that it shares limits among; null: it shares none. */
      readonly sidecars: number | null
      /** Of each Service in it, by serviceKey(). */
      readonly endpoints: Readonly<Record<string, readonly ServiceEndpoint[]>>
    }

/** What is known of the inside of a sidecar. */
export type SidecarReport =
  /** Ran before we looked for the first time, and was not asked yet: nothing can be said of it, good or bad. */
  | { readonly kind: 'unasked' }
  /** Was seen to start and was not asked yet, or does not run yet. */
  | { readonly kind: 'starting' }
  /** Does not answer; why. */
  | { readonly kind: 'silent'; readonly message: string }
  /** Answered; null when it does not know this Ambassador. */
  | { readonly kind: 'answered'; readonly ambassador: SidecarState | null }

/** What decisions need of common/configz.ts's report. */
export type SidecarState = Pick<AmbassadorReport, 'hash' | 'generation' | 'refs' | 'unready'> & {
  /** Null also of a sidecar that knows nothing of Services. */
  readonly endpointsHash: string | null
  readonly rejected: Omit<NonNullable<AmbassadorReport['rejected']>, 'at'> | null
}

/** A pod that carries a sidecar for the Ambassador. Pods that are finished or being deleted are not in the world. */
export interface PodState {
  readonly name: string
  readonly phase: string
  /** The sidecar's container runs and its startup probe has passed. */
  readonly isRunning: boolean
  readonly isReady: boolean
  readonly restarts: number
  /** Why the sidecar waits, such as CrashLoopBackOff; empty when it does not. */
  readonly waiting: string
  readonly image: string
  /** Image that a new pod with these annotations would get; null when that is not known. */
  readonly wantedImage: string | null
  /** Wall time in milliseconds. */
  readonly createdAt: number
  readonly report: SidecarReport
}

/** A pod that asks for the Ambassador and has no sidecar for it. */
export interface MissingPod {
  readonly name: string
  readonly reason: string
}

/** A workload whose template names the Ambassador while pods from before still run without it. */
export interface Rollout {
  /** Such as `Deployment 'checkout'`. */
  readonly workload: string
  readonly pods: readonly string[]
  /** Its pods are replaced only when somebody deletes them. */
  readonly waitsForDelete: boolean
}

/** A reference that the operator looked up itself, where it may. */
export interface CheckedRef {
  readonly kind: 'Secret' | 'ConfigMap'
  readonly name: string
  readonly key: string
  readonly state: 'Found' | 'ObjectMissing' | 'KeyMissing'
}

/** A Service that the spec names, as it is now. */
export interface WorldService {
  readonly ref: ServiceRef
  /** Path of the first field that names it. */
  readonly field: string
  readonly found: ResolvedService
}

export interface World {
  readonly ambassador: Ambassador
  readonly configMap: ConfigMapState
  readonly services: readonly WorldService[]
  readonly pods: readonly PodState[]
  readonly missing: readonly MissingPod[]
  readonly rollouts: readonly Rollout[]
  /** A workload that names the Ambassador was not looked at yet. */
  readonly rolloutsUnknown: boolean
  /** Null: the operator may not look in this namespace, or could not. */
  readonly checkedRefs: readonly CheckedRef[] | null
  /** What the API server answered when this same content was to be written last; null when it took it. */
  readonly publishFailure: string | null
  /** Wall time in milliseconds. */
  readonly now: number
}
