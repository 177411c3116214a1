/** What a sidecar reports at /configz and the operator reads into status. No secret is ever in it. */
import type { DataRef } from './proxy-config.ts'

/**
 * - Found: read and usable
 * - Missing: its Secret or ConfigMap is mounted (optional) but absent or without this key
 * - NotMounted: the pod does not mount it; only a restart of the pod can
 * - Invalid: there, but cannot be used (a CA that does not parse, a line break inside a token)
 */
export type RefState = 'Found' | 'Missing' | 'NotMounted' | 'Invalid'

export interface RefReport {
  readonly ref: DataRef
  readonly state: RefState
  /** Names the field, what is wrong and the remedy; empty when Found. Never the value. */
  readonly message: string
}

/** Why a config that the sidecar can read is not in force. */
export type LoadFailure = 'Unreadable' | 'Invalid' | 'NotMounted' | 'MissingRef' | 'InvalidRef' | 'PortInUse'

export interface AmbassadorReport {
  readonly namespace: string
  readonly name: string
  /** Of the config in force; null while none was ever loaded. */
  readonly hash: string | null
  readonly generation: number | null
  /** Of the endpoints of Services that are in use; null: the newest config names no Service. */
  readonly endpointsHash: string | null
  /** ISO time since when that config is in force. */
  readonly since: string | null
  /** Newest config that could not be put in force, or null when the newest one is. */
  readonly rejected: {
    readonly hash: string | null
    readonly generation: number | null
    readonly reason: LoadFailure
    readonly message: string
    readonly at: string
  } | null
  /** References of the config in force and of the rejected one. */
  readonly refs: readonly RefReport[]
  /** Last trouble of this Ambassador's data path that a person should see (certificate not trusted, DNS empty, ...), or null. */
  readonly lastError: { readonly reason: string; readonly message: string; readonly at: string } | null
  /** Why this Ambassador keeps the sidecar from being ready, each a sentence that names the upstream if it is one; empty when it does not. */
  readonly unready: readonly string[]
}

export interface Configz {
  readonly version: string
  readonly pod: string | null
  readonly startedAt: string
  readonly ambassadors: readonly AmbassadorReport[]
}
