/** What is measured: a proxy between the load and the upstream, with the settings that a suite asks for. */

import type { Running } from './process.ts'

/** The upstream of a suite. */
export interface Upstream {
  readonly port: number
  /** File with the CA and the name to verify; null: plain HTTP. */
  readonly tls: { readonly caFile: string; readonly serverName: string } | null
}

/** What a proxy is set to understand: requests, commands of Redis where it can, or bytes alone. */
export type Mode = 'HTTP' | 'TCP' | 'Redis'

export interface Setting {
  readonly mode: Mode
  readonly upstream: Upstream
  /** Where the proxy must listen, on 127.0.0.1. */
  readonly port: number
  /** Core to run on. */
  readonly core: number
  /** Empty folder for its files. */
  readonly directory: string
}

export interface Contender {
  readonly name: string
  /** Measured where `--only` names it, and left out otherwise. Default false. */
  readonly isOnlyByName?: boolean
  /** What it is set to do beside passing requests on: said in the report. */
  readonly features: string
  /** Fetches or builds the program; returns its version. Throws with the remedy when it cannot be had. */
  prepare(): Promise<string>
  start(setting: Setting): Promise<Running>
}

/** Connections to the upstream that each contender allows: few where requests share them, one for each client where they cannot. */
export const upstreamConnections = (mode: Mode): number => (mode === 'HTTP' ? 100 : 6_000)

/** Open connections with which memory is looked at after the rounds. */
export const openConnections = (mode: Mode): number => (mode === 'HTTP' ? 1_000 : 5_000)
