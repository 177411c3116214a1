/** `{ file: PATH }` and `{ env: NAME }` in place of references, for `ambassador run` alone: taken out before rendering, put back after. */
import { isAbsolute, join } from 'node:path'
import { configHash } from '../common/config-hash.ts'
import { TOKEN_FILE } from '../common/names.ts'
import { tokenName } from '../common/object-names.ts'
import type { DataRef, ProxyConfig } from '../common/proxy-config.ts'
import type { Issue } from '../operator/api/check.ts'
import { BASIC_AUTH_KEYS, TLS_KEYS, TOKEN_SECONDS } from '../operator/render/references.ts'

/** A spec that the schema of the API knows, and what stands for its made-up Secrets. */
export interface Lifted {
  readonly object: object
  /** `name/key` of a made-up Secret or ConfigMap → what it stands for. */
  readonly locals: ReadonlyMap<string, DataRef>
  readonly issues: readonly Issue[]
}

type Fields = Record<string, unknown>

/** A made-up key of a made-up Secret. */
const KEY = 'value'

/**
 * Replaces each local reference by one to a made-up Secret. They may stand where a secretKeyRef or configMapKeyRef does (beside or
 * inside it), beside the audience of a serviceAccountToken, and as `username` and `password` of `basic`, `certificate` and `privateKey` of `clientCertificate`.
 * @param directory what a relative path is relative to: where the file is that names it
 */
export function liftLocalRefs(source: object, directory: string): Lifted {
  const object = structuredClone(source) as Fields
  const locals = new Map<string, DataRef>()
  const issues: Issue[] = []
  let made = 0

  /** The reference that an object is, or null when it has neither `file` nor `env`. */
  const localRef = (value: unknown, field: string): DataRef | null => {
    if (!isFields(value) || !('file' in value || 'env' in value)) return null
    const { file, env } = value
    if (file !== undefined && env !== undefined) {
      issues.push({ field, message: 'has both file and env, use one of the two' })
    } else if (typeof (file ?? env) !== 'string' || (file ?? env) === '') {
      const what = file === undefined ? 'env is not the name of a variable' : 'file is not a path'
      issues.push({ field, message: `${what}: use text` })
    }
    if (typeof file === 'string') return { kind: 'file', path: isAbsolute(file) ? file : join(directory, file) }
    return { kind: 'env', name: String(env) }
  }
  const secret = (values: Readonly<Record<string, DataRef>>): string => {
    const name = `ambassador-run-${++made}`
    for (const [key, ref] of Object.entries(values)) locals.set(`${name}/${key}`, ref)
    return name
  }
  /** Of an object that holds a reference to one key. */
  const liftKey = (holder: unknown, field: string, as: 'secretKeyRef' | 'configMapKeyRef' = 'secretKeyRef'): void => {
    if (!isFields(holder)) return
    for (const name of ['secretKeyRef', 'configMapKeyRef']) {
      const ref = localRef(holder[name], `${field}.${name}`)
      if (ref === null) continue
      delete holder[name]
      holder[as] = { name: secret({ [KEY]: ref }), key: KEY }
    }
    const ref = localRef(holder, field)
    if (ref === null) return
    delete holder['file']
    delete holder['env']
    holder[as] = { name: secret({ [KEY]: ref }), key: KEY }
  }
  /** Of an object that names a Secret with two keys. */
  const liftPair = (holder: unknown, field: string, keys: Readonly<Record<string, string>>): void => {
    if (!isFields(holder)) return
    const values: Record<string, DataRef> = {}
    for (const [name, key] of Object.entries(keys)) {
      const ref = localRef(holder[name], `${field}.${name}`)
      if (ref === null) continue
      values[key] = ref
      delete holder[name]
    }
    const given = Object.keys(values)
    if (given.length === 0) return
    if (given.length < Object.keys(keys).length) {
      issues.push({ field, message: `needs both ${Object.keys(keys).join(' and ')}` })
    }
    if (holder['secretName'] !== undefined) issues.push({ field, message: `has secretName too, use one of the two` })
    holder['secretName'] = secret(values)
  }

  /** Of a token of the service account, which only a pod has: the rest of it stays, and names what is looked up. */
  const liftToken = (holder: unknown, field: string): void => {
    if (!isFields(holder)) return
    const ref = localRef(holder, field)
    if (ref === null) return
    delete holder['file']
    delete holder['env']
    const { audience, expirationSeconds } = holder
    if (typeof audience !== 'string') return
    const key = `${tokenName(audience, Number(expirationSeconds ?? TOKEN_SECONDS))}/${TOKEN_FILE}`
    const other = locals.get(key)
    if (other !== undefined && JSON.stringify(other) !== JSON.stringify(ref)) {
      issues.push({ field, message: `audience '${audience}' has another token elsewhere, use one for both` })
    }
    locals.set(key, ref)
  }

  const spec = object['spec']
  const upstreams = isFields(spec) && Array.isArray(spec['upstreams']) ? spec['upstreams'] : []
  upstreams.forEach((upstream: unknown, index) => {
    if (!isFields(upstream)) return
    const path = `spec.upstreams[${index}]`
    const tls = isFields(upstream['tls']) ? upstream['tls'] : {}
    const auth = isFields(upstream['auth']) ? upstream['auth'] : {}
    liftKey(upstream['file'], `${path}.file`, 'configMapKeyRef')
    liftKey(tls['ca'], `${path}.tls.ca`)
    liftPair(tls['clientCertificate'], `${path}.tls.clientCertificate`, TLS_KEYS)
    liftKey(auth['bearer'], `${path}.auth.bearer`)
    liftKey(auth['header'], `${path}.auth.header`)
    const redis = isFields(auth['redis']) ? auth['redis'] : {}
    liftKey(redis['password'], `${path}.auth.redis.password`)
    liftToken(auth['serviceAccountToken'], `${path}.auth.serviceAccountToken`)
    const oauth2 = isFields(auth['oauth2ClientCredentials']) ? auth['oauth2ClientCredentials'] : {}
    const ofToken = isFields(oauth2['tls']) ? oauth2['tls'] : {}
    liftKey(oauth2['clientSecret'], `${path}.auth.oauth2ClientCredentials.clientSecret`)
    liftKey(ofToken['ca'], `${path}.auth.oauth2ClientCredentials.tls.ca`)
    liftPair(ofToken['clientCertificate'], `${path}.auth.oauth2ClientCredentials.tls.clientCertificate`, TLS_KEYS)
    liftPair(auth['basic'], `${path}.auth.basic`, BASIC_AUTH_KEYS)
    const postgres = isFields(auth['postgres']) ? auth['postgres'] : {}
    liftKey(postgres['password'], `${path}.auth.postgres.password`)
    liftKey(postgres['clientPassword'], `${path}.auth.postgres.clientPassword`)
    const sentinel = isFields(upstream['sentinel']) ? upstream['sentinel'] : {}
    const ofSentinels =
      isFields(sentinel['auth']) && isFields(sentinel['auth']['redis']) ? sentinel['auth']['redis'] : {}
    const sentinelTls = isFields(sentinel['tls']) ? sentinel['tls'] : {}
    liftKey(ofSentinels['password'], `${path}.sentinel.auth.redis.password`)
    liftKey(sentinelTls['ca'], `${path}.sentinel.tls.ca`)
    liftPair(sentinelTls['clientCertificate'], `${path}.sentinel.tls.clientCertificate`, TLS_KEYS)
  })
  return { object, locals, issues }
}

/** Puts the local references back where rendering left the made-up ones. */
export function restoreLocalRefs(config: ProxyConfig, locals: Lifted['locals']): ProxyConfig {
  if (locals.size === 0) return config
  const restore = (value: unknown): unknown => {
    if (Array.isArray(value)) return value.map(restore)
    if (!isFields(value)) return value
    const { kind, name, key = TOKEN_FILE } = value
    const isRef = kind === 'secret' || kind === 'configMap' || kind === 'token'
    const local = isRef ? locals.get(`${name}/${key}`) : undefined
    return local ?? Object.fromEntries(Object.entries(value).map(([field, each]) => [field, restore(each)]))
  }
  const restored = restore(config) as ProxyConfig
  return { ...restored, hash: configHash(restored) }
}

function isFields(value: unknown): value is Fields {
  return value !== null && typeof value === 'object' && !Array.isArray(value)
}
