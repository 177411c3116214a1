/** Reads what a config refers to: keys of mounted Secrets and ConfigMaps, files and variables. Values go to the caller and nowhere else. */
import { readdirSync, readFileSync, statSync } from 'node:fs'
import { join } from 'node:path'
import type { RefState } from '../../common/configz.ts'
import { Mount, TOKEN_FILE } from '../../common/names.ts'
import type { AuthConfig, DataRef, ProxyConfig } from '../../common/proxy-config.ts'

/** Where references of the kinds secret and configMap are looked up, as `<directory>/<name>/<key>`. */
export interface RefDirs {
  readonly secrets: string
  readonly configMaps: string
  /** The same for the kind token, as `<directory>/<name>/token`. Default: that of a pod. */
  readonly tokens?: string
  /**
   * Whether kubelet mounts them. Then a directory that is not there needs a restart of the pod; elsewhere it is simply missing.
   * Default true.
   */
  readonly isPod?: boolean
}

export type RefValue =
  | { readonly state: 'Found'; readonly bytes: Buffer }
  /** `message` names the Secret and the key, what is wrong and the remedy; never the value. */
  | { readonly state: Exclude<RefState, 'Found'>; readonly message: string }

export type RefText =
  | { readonly state: 'Found'; readonly text: string }
  | { readonly state: Exclude<RefState, 'Found'>; readonly message: string }

/** The directories and files that a config's references are read from, for the watcher. */
export function refPaths(config: ProxyConfig, dirs: RefDirs): readonly string[] {
  const refs = config.clusters.flatMap(({ discovery, tls, auth }): (DataRef | null | undefined)[] => [
    discovery.kind === 'file' ? discovery.ref : null,
    ...(discovery.kind === 'sentinel'
      ? [
          discovery.auth?.password,
          discovery.tls?.ca,
          discovery.tls?.clientCertificate?.certificate,
          discovery.tls?.clientCertificate?.privateKey,
        ]
      : []),
    tls?.ca,
    tls?.clientCertificate?.certificate,
    tls?.clientCertificate?.privateKey,
    ...(auth === null ? [] : credentialRefs(auth).map(({ ref }) => ref)),
    ...(auth?.kind === 'oauth2ClientCredentials'
      ? [auth.tls?.ca, auth.tls?.clientCertificate?.certificate, auth.tls?.clientCertificate?.privateKey]
      : []),
  ])
  return refs.flatMap((ref) => {
    switch (ref?.kind) {
      case 'secret':
        return PLAIN_NAME.test(ref.name) ? [join(dirs.secrets, ref.name)] : []
      case 'configMap':
        return PLAIN_NAME.test(ref.name) ? [join(dirs.configMaps, ref.name)] : []
      case 'token':
        return PLAIN_NAME.test(ref.name) ? [join(dirs.tokens ?? Mount.tokens, ref.name)] : []
      case 'file':
        return [ref.path]
      default:
        return []
    }
  })
}

/** The references of a credential, each with the field of the Ambassador that it stands in. */
export function credentialRefs(auth: AuthConfig): readonly { readonly field: string; readonly ref: DataRef }[] {
  switch (auth.kind) {
    case 'bearer':
      return [{ field: 'auth.bearer', ref: auth.token }]
    case 'basic':
      return [
        { field: 'auth.basic', ref: auth.username },
        { field: 'auth.basic', ref: auth.password },
      ]
    case 'header':
      return [{ field: 'auth.header', ref: auth.value }]
    case 'redis':
      return [{ field: 'auth.redis.password', ref: auth.password }]
    case 'serviceAccountToken':
      return [{ field: 'auth.serviceAccountToken', ref: auth.token }]
    case 'awsSigV4':
    case 'gcpIdToken':
      return []
    case 'oauth2ClientCredentials':
      return [{ field: 'auth.oauth2ClientCredentials.clientSecret', ref: auth.clientSecret }]
    case 'postgres':
      return [
        ...(auth.password === null ? [] : [{ field: 'auth.postgres.password', ref: auth.password }]),
        ...(auth.clientPassword ? [{ field: 'auth.postgres.clientPassword', ref: auth.clientPassword }] : []),
      ]
  }
}

/** The most that Kubernetes stores in one Secret or ConfigMap; a file larger than this is a mistake. */
const MAX_BYTES = 1024 * 1024

/** A name that stays below its directory. Kubernetes allows no other; a config that was written by hand may have any. */
const PLAIN_NAME = /^(?!\.{1,2}$)[^/\0]+$/

/** `secret 'payments-token', key 'token'`, `file '/run/token'` or `variable TOKEN`. */
export function refText(ref: DataRef): string {
  switch (ref.kind) {
    case 'secret':
    case 'configMap':
      return `${ref.kind === 'secret' ? 'Secret' : 'ConfigMap'} '${ref.name}', key '${ref.key}'`
    case 'token':
      return `token for audience '${ref.audience}'`
    case 'file':
      return `file '${ref.path}'`
    case 'env':
      return `variable ${ref.name}`
  }
}

/**
 * Reads the bytes behind a reference. Synchronous on purpose: the files are small and in memory (tmpfs), a reload sees all of them
 * as of one moment, and the first asynchronous read would start four threads that the process needs for nothing else.
 */
export function readRef(ref: DataRef, dirs: RefDirs): RefValue {
  switch (ref.kind) {
    case 'secret':
    case 'configMap':
      return readMounted(ref, ref.kind === 'secret' ? dirs.secrets : dirs.configMaps, dirs.isPod ?? true)
    case 'token':
      return readToken(ref, dirs)
    case 'file':
      return readFile(ref.path, ref, () => ({
        state: 'Missing',
        message: `file '${ref.path}' does not exist, create it`,
      }))
    case 'env': {
      const value = process.env[ref.name]
      if (value === undefined) return { state: 'Missing', message: `variable ${ref.name} is not set, set it` }
      return { state: 'Found', bytes: Buffer.from(value) }
    }
  }
}

/**
 * Reads a reference whose value goes into a header line: one trailing line break is cut off (files end in one more often than
 * not), anything else that would end or break the line makes it Invalid (RFC 9110 section 5.5), and so does an empty value.
 */
export function readRefText(ref: DataRef, dirs: RefDirs): RefText {
  const value = readRef(ref, dirs)
  if (value.state !== 'Found') return value
  const text = value.bytes.toString('utf8').replace(/\r?\n$/, '')
  const problem = textProblem(text, value.bytes)
  return problem === null ? { state: 'Found', text } : { state: 'Invalid', message: `${refText(ref)} ${problem}` }
}

function textProblem(text: string, bytes: Buffer): string | null {
  if (text === '') return 'is empty, put the value there'
  if (/[\r\n]/.test(text)) return 'has a line break inside, put one line there'
  if (/[\0-\x08\x0b-\x1f\x7f]/.test(text)) return 'has a control character, put plain text there'
  if (/^[ \t]|[ \t]$/.test(text)) return 'begins or ends with a space, remove it'
  if (text.includes('\ufffd') && !bytes.includes('\ufffd')) return 'is not UTF-8 text, put plain text there'
  return null
}

function readToken(ref: Extract<DataRef, { kind: 'token' }>, dirs: RefDirs): RefValue {
  const directory = join(dirs.tokens ?? Mount.tokens, ref.name)
  if (!PLAIN_NAME.test(ref.name)) {
    return { state: 'Invalid', message: `${refText(ref)}: a name has no slash, correct it` }
  }
  const path = join(directory, TOKEN_FILE)
  return readFile(path, ref, () => {
    if (dirs.isPod === false) {
      return { state: 'Missing', message: `${refText(ref)}: file '${path}' does not exist, create it` }
    }
    if (list(directory) === null) {
      return { state: 'NotMounted', message: `${refText(ref)} is not mounted in this pod, restart the pod to mount it` }
    }
    return { state: 'Missing', message: `${refText(ref)} was not written by the kubelet, see the events of the pod` }
  })
}

function readMounted(ref: Extract<DataRef, { kind: 'secret' | 'configMap' }>, root: string, isPod: boolean): RefValue {
  const kind = ref.kind === 'secret' ? 'Secret' : 'ConfigMap'
  if (!PLAIN_NAME.test(ref.name) || !PLAIN_NAME.test(ref.key)) {
    return { state: 'Invalid', message: `${refText(ref)}: a name has no slash, correct it` }
  }
  const directory = join(root, ref.name)
  return readFile(join(directory, ref.key), ref, () => {
    if (!isPod) {
      return {
        state: 'Missing',
        message: `${refText(ref)}: file '${join(directory, ref.key)}' does not exist, create it`,
      }
    }
    const entries = list(directory)
    if (entries === null) {
      return {
        state: 'NotMounted',
        message: `${kind} '${ref.name}' is not mounted in this pod, restart the pod to mount it`,
      }
    }
    // kubelet writes dot-dot entries of its own (..data) into every volume; only the others are keys.
    const isEmpty = entries.every((entry) => entry.startsWith('..'))
    return {
      state: 'Missing',
      message: isEmpty
        ? `${kind} '${ref.name}' does not exist or is empty, create it with the key '${ref.key}'`
        : `${kind} '${ref.name}' has no key '${ref.key}', add it`,
    }
  })
}

function readFile(path: string, ref: DataRef, absent: () => RefValue): RefValue {
  try {
    const { size } = statSync(path)
    if (size > MAX_BYTES) {
      return { state: 'Invalid', message: `${refText(ref)} has ${size} bytes, use at most ${MAX_BYTES}` }
    }
    return { state: 'Found', bytes: readFileSync(path) }
  } catch (error) {
    const { code } = error as NodeJS.ErrnoException
    if (code === 'ENOENT' || code === 'ENOTDIR') return absent()
    return { state: 'Invalid', message: `${refText(ref)} cannot be read (${code}), make it a readable file` }
  }
}

function list(directory: string): string[] | null {
  try {
    return readdirSync(directory)
  } catch {
    return null
  }
}
