/** TLS contexts to the upstreams: built once per set of files, shared, replaced when the files change, the last good ones kept. */
import type { X509Certificate } from 'node:crypto'
import { readFileSync } from 'node:fs'
import type { SecureContext } from 'node:tls'
import type { RefReport, RefState } from '../../common/configz.ts'
import type { DataRef, TlsConfig } from '../../common/proxy-config.ts'
import { trustNodeRoots } from '../runtime/roots.ts'
import { groupsWith, KeyShare } from './key-share.ts'
import { type Certificates, parseCertificates, parsePrivateKey, subjectOf, validityProblem } from './pem.ts'
import type { UpstreamTls } from './upstream-tls.ts'

/** Content of a reference, or why there is none, as a sentence that names it. */
export type RefContent =
  | { readonly state: 'Found'; readonly bytes: Buffer }
  | { readonly state: Exclude<RefState, 'Found'>; readonly message: string }

export interface TlsContextsOptions {
  readonly read: (ref: DataRef) => RefContent
  /** How a reference is called in a sentence: `Secret 'a', key 'b'`. */
  readonly name: (ref: DataRef) => string
  /** PEM bundle of the machine, trusted beside Node's own roots where no CA is configured. A file that is not there is no error. */
  readonly systemRoots?: string
  /** Time of day in milliseconds since 1970. */
  readonly wallNow?: () => number
  /** Told after each reload of an upstream whose files changed or whose failure did. */
  readonly onReload?: (reload: TlsReload) => void
}

/** Where Debian, Ubuntu and Alpine keep theirs. */
export const SYSTEM_ROOTS = '/etc/ssl/certs/ca-certificates.crt'

/** Sessions kept per upstream. */
const MAX_SESSIONS = 128

/** Time of day, in milliseconds since 1970, at which a certificate stops being valid; null: there is none. */
export interface TlsExpiry {
  readonly clientCertificate: number | null
  /** The first to expire of those CAs that have not. */
  readonly ca: number | null
}

/** What became of the files of one upstream at a reload. */
export interface TlsReload {
  readonly tls: FileTls
  /** New files are in use. */
  readonly isReplaced: boolean
  /** Why the newest files are not in use; null when they are. */
  readonly failure: string | null
}

/** Makes the context that sends the key share of a group; null: those of OpenSSL. */
type Predict = (group: string | null) => SecureContext

/** The TLS of one upstream, as files and references say. */
export class FileTls implements UpstreamTls {
  context: SecureContext | null = null
  failure: string | null = null
  readonly serverName: string | null
  readonly isUnverified: boolean
  readonly config: TlsConfig
  /** State of each file that the config refers to, as of the last reload. */
  refs: readonly RefReport[] = []
  expiry: TlsExpiry = { clientCertificate: null, ca: null }
  /** What the context was made of. */
  fingerprint: string | null = null
  readonly #sessions = new Map<string, Buffer>()
  #share = new KeyShare()
  /** All of these files: they differ in what they predict. */
  readonly #contexts = new Set<SecureContext>()
  #predict: Predict | null = null

  constructor(config: TlsConfig) {
    this.config = config
    this.serverName = config.serverName
    this.isUnverified = config.insecureSkipVerify !== undefined
  }

  session(key: string): Buffer | undefined {
    const session = this.#sessions.get(key)
    if (session !== undefined) {
      this.#sessions.delete(key)
      this.#sessions.set(key, session)
    }
    return session
  }

  keepSession(key: string, session: Buffer, context: SecureContext | null): void {
    // A ticket may come at any time in the life of a connection, also after the files were replaced.
    if (context === null || !this.#contexts.has(context)) return
    this.#sessions.delete(key)
    this.#sessions.set(key, session)
    if (this.#sessions.size > MAX_SESSIONS) this.#sessions.delete(this.#sessions.keys().next().value as string)
  }

  agreed(context: SecureContext | null, group: string | null): void {
    // The context of another moment says nothing of what is predicted now.
    if (context !== this.context || this.#predict === null || !this.#share.agreed(group)) return
    try {
      const predicting = this.#predict(this.#share.predicted)
      this.#contexts.add(predicting)
      this.context = predicting
    } catch {
      // An OpenSSL that cannot be told so: what it does by itself is right, only dearer.
      this.#predict = null
    }
  }

  /**
   * Takes a new context into use. A session was verified by the files of its time and must not outlive them.
   * @param predict null: it is used as it is
   */
  replace(context: SecureContext, fingerprint: string, expiry: TlsExpiry, predict: Predict | null = null): void {
    this.context = context
    this.fingerprint = fingerprint
    this.expiry = expiry
    this.#sessions.clear()
    this.#share = new KeyShare()
    this.#contexts.clear()
    this.#contexts.add(context)
    this.#predict = predict
  }
}

/** What the files of one upstream hold, ready to be made a context of. */
interface Material {
  readonly ca: Buffer | null
  readonly pair: { readonly certificate: Buffer; readonly privateKey: Buffer } | null
  readonly expiry: TlsExpiry
}

/** Every upstream TLS of the process, so that equal files are one context: a set of roots takes 15 ms and over a megabyte. */
export class TlsContexts {
  readonly #options: TlsContextsOptions
  readonly #opened = new Set<FileTls>()
  readonly #contexts = new Map<string, SecureContext>()
  #recheck: NodeJS.Timeout | null = null
  #recheckAt = Number.POSITIVE_INFINITY
  /** Reloads that left the last good files in use, or none. */
  reloadFailures = 0

  constructor(options: TlsContextsOptions) {
    this.#options = options
  }

  /** Reads the files of a config and keeps them up to date at each `reload()`, until `close()`. */
  open(config: TlsConfig): FileTls {
    const tls = new FileTls(config)
    this.#opened.add(tls)
    this.#load(tls)
    return tls
  }

  close(tls: FileTls): void {
    this.#opened.delete(tls)
    this.#prune()
  }

  /** Reads every file again. Call it when files have changed; a certificate that becomes valid later needs no call. */
  reload(): void {
    this.#recheckAt = Number.POSITIVE_INFINITY
    for (const tls of this.#opened) {
      const before = { fingerprint: tls.fingerprint, failure: tls.failure }
      this.#load(tls)
      const isReplaced = tls.fingerprint !== before.fingerprint
      if (isReplaced || tls.failure !== before.failure) {
        this.#options.onReload?.({ tls, isReplaced, failure: tls.failure })
      }
    }
    this.#prune()
  }

  #load(tls: FileTls): void {
    const reports = new Map<DataRef, RefReport>()
    let material = this.#read(tls.config, reports)
    if (typeof material === 'string' && tls.config.clientCertificate !== null) {
      // The kubelet may have exchanged the directory between our reading the certificate and its key.
      reports.clear()
      material = this.#read(tls.config, reports)
    }
    tls.refs = [...reports.values()]
    if (typeof material === 'string') {
      tls.failure = material
      this.reloadFailures++
      return
    }
    try {
      const fingerprint = fingerprintOf(tls.config, material)
      if (fingerprint !== tls.fingerprint) {
        const good = material
        const make = (group: string | null) => this.#contextOf(fingerprint, tls.config, good, group)
        // A second set of all roots would cost more than it saves.
        tls.replace(make(null), fingerprint, good.expiry, good.ca === null ? null : make)
      }
      tls.failure = null
    } catch (error) {
      tls.failure = `OpenSSL does not take the files: ${(error as Error).message}`
      this.reloadFailures++
    }
  }

  #contextOf(fingerprint: string, config: TlsConfig, material: Material, group: string | null): SecureContext {
    const id = group === null ? fingerprint : `${fingerprint}/${group}`
    const known = this.#contexts.get(id)
    if (known !== undefined) return known
    const context = process.getBuiltinModule('node:tls').createSecureContext({
      minVersion: config.minVersion,
      maxVersion: 'TLSv1.3',
      ca: material.ca ?? this.#roots(),
      // Whoever names an intermediate CA as the one to trust means it.
      allowPartialTrustChain: material.ca !== null,
      cert: material.pair?.certificate,
      key: material.pair?.privateKey,
      ecdhCurve: group === null ? undefined : groupsWith(group),
    })
    this.#contexts.set(id, context)
    return context
  }

  /** Node's roots and those of the machine. Undefined (Node's alone, which all contexts share) when the machine has no others. */
  #roots(): string[] | undefined {
    const all = this.#rootsOfBoth()
    if (all === undefined) trustNodeRoots()
    return all
  }

  #rootsOfBoth(): string[] | undefined {
    let file: Buffer
    try {
      file = readFileSync(this.#options.systemRoots ?? SYSTEM_ROOTS)
    } catch {
      return undefined
    }
    const blocks = file.toString('latin1').match(/-----BEGIN CERTIFICATE-----[^-]+-----END CERTIFICATE-----/g) ?? []
    const { rootCertificates } = process.getBuiltinModule('node:tls')
    const known = new Set(rootCertificates.map(withoutSpace))
    const more = blocks.filter((block) => !known.has(withoutSpace(block)))
    return more.length === 0 ? undefined : [...rootCertificates, ...more]
  }

  /** What the files hold; a sentence about the first that cannot be used. */
  #read(config: TlsConfig, reports: Map<DataRef, RefReport>): Material | string {
    const { ca, clientCertificate } = config
    let failure: string | null = null
    const fail = (field: string, ref: DataRef, state: Exclude<RefState, 'Found'>, text: string): null => {
      const message = `${field}: ${text}`
      reports.set(ref, { ref, state, message })
      failure ??= message
      return null
    }
    const read = (field: string, ref: DataRef): Buffer | null => {
      const content = this.#options.read(ref)
      if (content.state !== 'Found') return fail(field, ref, content.state, content.message)
      reports.set(ref, { ref, state: 'Found', message: '' })
      return content.bytes
    }
    const invalid = (field: string, ref: DataRef, problem: string): null =>
      fail(field, ref, 'Invalid', `${this.#options.name(ref)}${problem.startsWith(':') ? '' : ' '}${problem}`)
    const certificates = (field: string, ref: DataRef, bytes: Buffer): Certificates | null => {
      const parsed = parseCertificates(bytes)
      return parsed.ok ? parsed.value : invalid(field, ref, parsed.problem)
    }

    const wallNow = this.#options.wallNow?.() ?? Date.now()
    let caExpiry: number | null = null
    let roots: Buffer | null = null
    const caBytes = ca === null ? null : read('tls.ca', ca)
    if (ca !== null && caBytes !== null) {
      const { all: bundle, pem } = certificates('tls.ca', ca, caBytes) ?? { all: [], pem: null }
      roots = pem
      // A bundle that is kept for years has old CAs in it; only one without any other is of no use.
      const valid = bundle.filter((each) => validityProblem(each, wallNow) === null)
      const first = bundle[0]
      if (valid.length > 0) caExpiry = Math.min(...valid.map((each) => each.validToDate.getTime()))
      else if (first !== undefined) {
        const of = bundle.length === 1 ? '' : `, the first of ${bundle.length} that are not valid,`
        invalid('tls.ca', ca, `: ${subjectOf(first)}${of} ${validityProblem(first, wallNow)}, replace it`)
        this.#recheckWhenValid(bundle, wallNow)
      }
    }

    let expiry: number | null = null
    let pair: Material['pair'] = null
    if (clientCertificate !== null) {
      const field = 'tls.clientCertificate'
      const { certificate, privateKey } = clientCertificate
      const certificateBytes = read(field, certificate)
      const keyBytes = read(field, privateKey)
      const chain = certificateBytes === null ? null : certificates(field, certificate, certificateBytes)
      const leaf = chain?.all[0]
      const key = keyBytes === null ? null : parsePrivateKey(keyBytes)
      if (key !== null && !key.ok) invalid(field, privateKey, key.problem)
      if (leaf !== undefined) {
        const problem = validityProblem(leaf, wallNow)
        if (problem !== null) {
          invalid(field, certificate, `: ${subjectOf(leaf)} ${problem}, renew it`)
          this.#recheckWhenValid([leaf], wallNow)
        } else if (key?.ok && !leaf.checkPrivateKey(key.value.key)) {
          invalid(field, privateKey, `does not match the certificate of ${subjectOf(leaf)}, store the two of one pair`)
        }
        expiry = leaf.validToDate.getTime()
      }
      if (chain !== null && key?.ok) pair = { certificate: chain.pem, privateKey: key.value.pem }
    }
    return failure ?? { ca: roots, pair, expiry: { clientCertificate: expiry, ca: caExpiry } }
  }

  /** Looks again at the moment from which on one of these is valid: nobody writes a file then. */
  #recheckWhenValid(certificates: readonly X509Certificate[], wallNow: number): void {
    for (const certificate of certificates) {
      const at = certificate.validFromDate.getTime()
      if (at <= wallNow || at >= this.#recheckAt) continue
      this.#recheckAt = at
      if (this.#recheck !== null) clearTimeout(this.#recheck)
      // The dates have no fractions of a second, and a timer cannot be longer than 24 days.
      this.#recheck = setTimeout(() => this.reload(), Math.min(at - wallNow + 1000, 2 ** 31 - 1))
      this.#recheck.unref()
    }
  }

  #prune(): void {
    const used = new Set([...this.#opened].map((tls) => tls.fingerprint))
    for (const id of this.#contexts.keys()) if (!used.has(id.split('/', 1)[0] ?? id)) this.#contexts.delete(id)
  }
}

function fingerprintOf(config: TlsConfig, material: Material): string {
  const hash = process.getBuiltinModule('node:crypto').createHash('sha256').update(config.minVersion)
  for (const part of [material.ca, material.pair?.certificate, material.pair?.privateKey]) {
    // With the length before each part, no two sets of files give the same input.
    hash.update(`\n${part?.length ?? 'none'}\n`).update(part ?? '')
  }
  return hash.digest('hex')
}

function withoutSpace(pem: string): string {
  return pem.replace(/\s+/g, '')
}
