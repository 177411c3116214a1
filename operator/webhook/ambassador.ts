/** What the webhook must know of an Ambassador, and nothing more. */
import type { Ambassador } from '../api/ambassador.ts'
import { type AccountToken, accountTokens, references } from '../render/references.ts'
import { type Variable, variablesOf } from './offered-env.ts'

export interface InjectableAmbassador {
  readonly name: string
  /** Port on loopback. */
  readonly port: number
  /** Names that the pod's hosts file maps to 127.0.0.1. */
  readonly hostnames: readonly string[]
  /** Variables that containers of the application are offered. */
  readonly env: readonly Variable[]
  /** Secrets and ConfigMaps to mount, in order of name. */
  readonly secrets: readonly string[]
  readonly configMaps: readonly string[]
  /** Paths of Unix sockets that it connects to. */
  readonly sockets: readonly string[]
  /** Path of the Unix socket that it listens on; null: none. */
  readonly listenSocket: string | null
  /** Tokens of the service account to mount, in order of name. */
  readonly tokens: readonly AccountToken[]
  /** ConfigMap with its config, or null while none was ever published. */
  readonly config: { readonly name: string; readonly hash: string } | null
  /** Why the newest spec is not accepted; null when it is, or when nobody has looked yet. */
  readonly refusal: string | null
  readonly isDeleting: boolean
}

/**
 * The projection of a stored Ambassador. What is published comes from its status, which the controller writes after the
 * ConfigMap, so a hash here means that the ConfigMap exists.
 */
export function injectable(ambassador: Ambassador): InjectableAmbassador {
  const { spec, status, metadata } = ambassador
  const { secrets, configMaps } = references(spec)
  const accepted = status?.conditions?.find((condition) => condition.type === 'Accepted')
  const { hash, configMapName } = status?.config ?? {}
  return {
    name: metadata.name,
    port: spec.listen.port,
    hostnames: spec.listen.hostnames ?? [],
    env: spec.listen.env === true ? variablesOf(spec.protocol, spec.listen.port) : [],
    secrets: secrets.map((each) => each.name),
    configMaps: configMaps.map((each) => each.name),
    tokens: accountTokens(spec),
    sockets: spec.upstreams.flatMap(({ unix }) => (unix === undefined ? [] : [unix.path])),
    listenSocket: spec.listen.unix?.path ?? null,
    config: hash && configMapName ? { name: configMapName, hash } : null,
    refusal: accepted?.status === 'False' ? `${accepted.reason}: ${accepted.message}` : null,
    isDeleting: metadata.deletionTimestamp !== undefined,
  }
}
