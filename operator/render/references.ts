/** Which Secrets and ConfigMaps an Ambassador refers to: the webhook mounts them, the proxy reads them. */
import { tokenName } from '../../common/object-names.ts'
import type { AmbassadorSpec } from '../api/ambassador.ts'

/** One object and the keys of it that are used, both in order of name. */
export interface Reference {
  readonly name: string
  readonly keys: readonly string[]
}

export interface References {
  readonly secrets: readonly Reference[]
  readonly configMaps: readonly Reference[]
}

/** Keys of a Secret of type kubernetes.io/tls. */
export const TLS_KEYS = { certificate: 'tls.crt', privateKey: 'tls.key' } as const
/** Keys of a Secret of type kubernetes.io/basic-auth. */
export const BASIC_AUTH_KEYS = { username: 'username', password: 'password' } as const

/** Everything that a spec refers to, each object once, sorted, so that the same spec always mounts the same volumes. Total: unknown or missing parts are passed over. */
export function references(spec: AmbassadorSpec): References {
  const secrets = new Map<string, Set<string>>()
  const configMaps = new Map<string, Set<string>>()
  const add = (to: Map<string, Set<string>>, name: string | undefined, ...keys: (string | undefined)[]) => {
    if (!name) return
    const known = to.get(name) ?? new Set()
    for (const key of keys) if (key) known.add(key)
    to.set(name, known)
  }
  for (const upstream of Array.isArray(spec?.upstreams) ? spec.upstreams : []) {
    const { tls, auth, file, sentinel } = upstream ?? {}
    add(configMaps, file?.configMapKeyRef?.name, file?.configMapKeyRef?.key)
    const oauth2 = auth?.oauth2ClientCredentials
    for (const each of [tls, oauth2?.tls, sentinel?.tls]) {
      add(secrets, each?.ca?.secretKeyRef?.name, each?.ca?.secretKeyRef?.key)
      add(configMaps, each?.ca?.configMapKeyRef?.name, each?.ca?.configMapKeyRef?.key)
      add(secrets, each?.clientCertificate?.secretName, TLS_KEYS.certificate, TLS_KEYS.privateKey)
    }
    add(secrets, oauth2?.clientSecret?.secretKeyRef?.name, oauth2?.clientSecret?.secretKeyRef?.key)
    for (const each of [auth?.postgres?.password, auth?.postgres?.clientPassword]) {
      add(secrets, each?.secretKeyRef?.name, each?.secretKeyRef?.key)
    }
    add(secrets, auth?.bearer?.secretKeyRef?.name, auth?.bearer?.secretKeyRef?.key)
    add(secrets, auth?.basic?.secretName, BASIC_AUTH_KEYS.username, BASIC_AUTH_KEYS.password)
    add(secrets, auth?.header?.secretKeyRef?.name, auth?.header?.secretKeyRef?.key)
    for (const each of [auth?.redis, sentinel?.auth?.redis])
      add(secrets, each?.password?.secretKeyRef?.name, each?.password?.secretKeyRef?.key)
  }
  return { secrets: sorted(secrets), configMaps: sorted(configMaps) }
}

/** A token of the service account of the pod. */
export interface AccountToken {
  /** Of its directory and volume; see tokenName(). */
  readonly name: string
  readonly audience: string
  readonly expirationSeconds: number
}

/** The life of a token that says nothing, in seconds: the default of the schema, for objects that were stored without it. */
export const TOKEN_SECONDS = 3600

/** Every token that a spec needs, each once, in order of name. Total, as references() is. */
export function accountTokens(spec: AmbassadorSpec): AccountToken[] {
  const tokens = new Map<string, AccountToken>()
  for (const upstream of Array.isArray(spec?.upstreams) ? spec.upstreams : []) {
    const { audience, expirationSeconds = TOKEN_SECONDS } = upstream?.auth?.serviceAccountToken ?? {}
    if (typeof audience !== 'string' || audience === '') continue
    const name = tokenName(audience, expirationSeconds)
    tokens.set(name, { name, audience, expirationSeconds })
  }
  return [...tokens.values()].sort((a, b) => (a.name < b.name ? -1 : 1))
}

function sorted(objects: Map<string, Set<string>>): Reference[] {
  return [...objects].sort(([a], [b]) => (a < b ? -1 : 1)).map(([name, keys]) => ({ name, keys: [...keys].sort() }))
}
