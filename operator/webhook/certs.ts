/** The serving certificate of the webhook: one CA in a Secret for all replicas, a short-lived leaf in the memory of each, and the CA in the webhook configuration. */
import type { Log } from '../../common/log.ts'
import { FIELD_MANAGER, Label } from '../../common/names.ts'
import type { KubeClient } from '../kube/client.ts'
import { type Clock, sleep } from '../kube/clock.ts'
import { hasStatus } from '../kube/errors.ts'
import type { KubeObject } from '../kube/objects.ts'
import {
  type Authorities,
  type Authority,
  bundle,
  DEFAULT_LIFETIMES,
  fromSecretData,
  isDue,
  isSettled,
  type Lifetimes,
  othersIn,
  renewalTime,
  rotated,
  signer,
  toSecretData,
} from './authorities.ts'
import { createLeaf, type KeyPair } from './x509.ts'

/** Secret of the CA, in the operator's namespace. */
export const CA_SECRET = 'ambassador-operator-ca'
/** The MutatingWebhookConfiguration that the chart installs, and its entries that call us. */
export const CONFIGURATION = 'ambassador-injector'
export const WEBHOOKS: readonly string[] = [
  'pods.ambassador.dev',
  'workloads.ambassador.dev',
  'templates.ambassador.dev',
]

/** Lost races in a row before a check gives up until the next one. */
const MAX_TRIES = 5

const CONFIGURATIONS = '/apis/admissionregistration.k8s.io/v1/mutatingwebhookconfigurations'

export interface CertsOptions {
  readonly client: KubeClient
  readonly clock: Clock
  readonly log: Log
  /** The operator's own: where the Secret is. */
  readonly namespace: string
  /** DNS names and addresses under which API servers call us. */
  readonly names: readonly string[]
  /** Default CA_SECRET. */
  readonly secret?: string
  /** Default CONFIGURATION. */
  readonly configuration?: string
  /** Default DEFAULT_LIFETIMES, each. */
  readonly lifetimes?: Partial<Lifetimes>
}

interface Leaf {
  readonly pair: KeyPair
  readonly signedBy: Authority
  readonly notBefore: number
  readonly notAfter: number
}

interface StoredSecret extends KubeObject {
  readonly data?: Readonly<Record<string, string>>
}

interface WebhookConfiguration extends KubeObject {
  readonly webhooks?: readonly { readonly name: string; readonly clientConfig?: { readonly caBundle?: string } }[]
}

/** Keeps a certificate that API servers trust. Any number of replicas work side by side; every write is conditional or idempotent. */
export class Certs {
  readonly #options: CertsOptions
  readonly #lifetimes: Lifetimes
  readonly #stopped = new AbortController()
  readonly #listeners: ((leaf: KeyPair) => void)[] = []
  #leaf: Leaf | undefined
  #isTrusted = false
  #isConfigurationMissed = false
  #checking: Promise<void> | undefined

  constructor(options: CertsOptions) {
    this.#options = options
    this.#lifetimes = { ...DEFAULT_LIFETIMES, ...options.lifetimes }
  }

  /** What to serve now; undefined before the first check that succeeded. */
  get current(): KeyPair | undefined {
    return this.#leaf?.pair
  }

  /** Whether the webhook configuration has ever had our CA: from then on API servers can call. Stays true, since a replica that is not ready cannot repair it. */
  get isTrusted(): boolean {
    return this.#isTrusted
  }

  /** Seconds until each certificate ends; for the metric. */
  expirySeconds(): { readonly leaf: number; readonly authority: number } | undefined {
    const leaf = this.#leaf
    if (leaf === undefined) return undefined
    const now = this.#options.clock.wall()
    return { leaf: (leaf.notAfter - now) / 1000, authority: (leaf.signedBy.notAfter - now) / 1000 }
  }

  /** Tells each new serving certificate. */
  onRenew(listener: (leaf: KeyPair) => void): void {
    this.#listeners.push(listener)
  }

  /**
   * Resolves when there is a certificate to serve, and goes on checking until close(). While the API server cannot be asked it
   * tries again, with more time between the tries.
   */
  async start(): Promise<void> {
    const { clock, log } = this.#options
    for (let failures = 0; !this.#stopped.signal.aborted; ) {
      try {
        await this.check()
        failures = 0
      } catch (err) {
        failures++
        log.warn({ err, count: failures }, 'certificate check failed')
      }
      if (this.#leaf !== undefined) {
        void this.#goOn(failures)
        return
      }
      await sleep(clock, this.#pauseMs(failures), this.#stopped.signal)
    }
  }

  async #goOn(failures: number): Promise<void> {
    const { clock, log } = this.#options
    while (await sleep(clock, this.#pauseMs(failures), this.#stopped.signal)) {
      try {
        await this.check()
        failures = 0
      } catch (err) {
        failures++
        if (!this.#stopped.signal.aborted) log.warn({ err, count: failures }, 'certificate check failed')
      }
    }
  }

  /** One second after a failure, twice that after the next; never longer than between two checks. Jitter keeps replicas apart. */
  #pauseMs(failures: number): number {
    const { checkMs } = this.#lifetimes
    const ms = failures === 0 && this.#isTrusted ? checkMs : Math.min(checkMs, 1000 * 2 ** Math.max(0, failures - 1))
    return ms * (0.8 + 0.4 * Math.random())
  }

  /**
   * Looks at everything once and repairs what is not as it should be; called by a timer, and by whoever sees one of the objects
   * change. Two calls at a time are one.
   * @throws {ApiError} when the API server cannot be asked or refuses
   */
  check(): Promise<void> {
    this.#checking ??= this.#check().finally(() => {
      this.#checking = undefined
    })
    return this.#checking
  }

  async #check(): Promise<void> {
    const now = this.#options.clock.wall()
    const authorities = await this.#authorities(now)
    // The configuration first: a leaf must not be served before API servers can trust it. But one that they may come to
    // trust is better than none, so a configuration that cannot be written does not keep us from serving.
    let failure: unknown
    try {
      const keepsOthers = !isSettled(authorities[0], now, this.#lifetimes)
      this.#isTrusted =
        (await this.#publish(bundle(authorities, now), keepsOthers ? now : undefined)) || this.#isTrusted
    } catch (error) {
      failure = error
    }
    const chosen =
      failure === undefined ? signer(authorities, now, this.#lifetimes) : this.#keptSigner(authorities, now)
    if (this.#needsLeaf(chosen, now)) this.#issue(chosen, now)
    if (failure !== undefined) throw failure
  }

  /**
   * Reads the Secret; makes it, or the next CA in it, when that is due. Whoever loses a race reads what the winner wrote. When the
   * Secret is gone or cannot be used, the CA that signed what is served now is kept as the one before: the other replicas serve
   * what it signed, and API servers know no other yet.
   */
  async #authorities(now: number): Promise<Authorities> {
    const { namespace, client, log } = this.#options
    const name = this.#options.secret ?? CA_SECRET
    const collection = `/api/v1/namespaces/${namespace}/secrets`
    for (let tries = 1; ; tries++) {
      const stored = await absentAsUndefined(client.request<StoredSecret>({ path: `${collection}/${name}` }))
      const [newest, ...older] = fromSecretData(stored?.data)
      if (newest !== undefined && !isDue(newest, now)) return [newest, ...older]
      const served = this.#leaf === undefined ? [] : [this.#leaf.signedBy]
      const next = rotated(newest === undefined ? served : [newest, ...older], now, this.#lifetimes)
      const body = {
        apiVersion: 'v1',
        kind: 'Secret',
        metadata: {
          name,
          namespace,
          labels: { [Label.managedBy]: FIELD_MANAGER },
          ...(stored === undefined ? {} : { resourceVersion: stored.metadata.resourceVersion }),
        },
        type: 'Opaque',
        data: toSecretData(next),
      }
      try {
        if (stored === undefined) await client.request({ method: 'POST', path: collection, body })
        else await client.request({ method: 'PUT', path: `${collection}/${name}`, body })
        log.info({ resource: name, reason: reasonOf(stored, newest) }, 'CA written')
        return next
      } catch (error) {
        if (tries >= MAX_TRIES || (!hasStatus(error, 409) && !hasStatus(error, 404))) throw error
      }
    }
  }

  /**
   * Sees to it that every entry of ours has the bundle. False: there is no such configuration yet.
   * @param othersAt with it the CAs of ours stay that the entries have and the bundle has not, if they count at this time: a
   *   replica that is new and found no Secret does not know what the others serve until they have looked
   */
  async #publish(pem: string, othersAt: number | undefined): Promise<boolean> {
    const { client, log } = this.#options
    const name = this.#options.configuration ?? CONFIGURATION
    const path = `${CONFIGURATIONS}/${name}`
    const stored = await absentAsUndefined(client.request<WebhookConfiguration>({ path }))
    const entries = (stored?.webhooks ?? []).filter((webhook) => WEBHOOKS.includes(webhook.name))
    if (stored === undefined || entries.length === 0) {
      if (!this.#isConfigurationMissed) log.warn({ resource: name }, 'webhook configuration is missing')
      this.#isConfigurationMissed = true
      return false
    }
    this.#isConfigurationMissed = false
    const present = entries.map((webhook) => Buffer.from(webhook.clientConfig?.caBundle ?? '', 'base64').toString())
    const kept = othersAt === undefined ? [] : othersIn(present.join('\n'), pem, othersAt)
    const caBundle = Buffer.from([pem, ...kept].join('')).toString('base64')
    if (entries.every((webhook) => webhook.clientConfig?.caBundle === caBundle)) return true
    await client.request({
      method: 'PATCH',
      path,
      query: { fieldManager: FIELD_MANAGER, force: true },
      contentType: 'application/apply-patch+yaml',
      // With the uid a configuration that was deleted meanwhile is not made again, without its rules.
      body: {
        apiVersion: 'admissionregistration.k8s.io/v1',
        kind: 'MutatingWebhookConfiguration',
        metadata: { name, uid: stored.metadata.uid },
        webhooks: entries.map((webhook) => ({ name: webhook.name, clientConfig: { caBundle } })),
      },
    })
    log.info({ resource: name, count: entries.length }, 'CA published')
    return true
  }

  /** While the configuration cannot be written, what is served stays with the CA that API servers know. */
  #keptSigner(authorities: Authorities, now: number): Authority {
    const kept = authorities.find((each) => each.pair.certificate === this.#leaf?.signedBy.pair.certificate)
    if (kept !== undefined && kept.notAfter > now) return kept
    const oldest = authorities.findLast((each) => each.notAfter > now)
    return oldest ?? authorities[0]
  }

  #needsLeaf(chosen: Authority, now: number): boolean {
    const leaf = this.#leaf
    if (leaf === undefined || leaf.signedBy.pair.certificate !== chosen.pair.certificate) return true
    return now >= renewalTime(leaf.notBefore, leaf.notAfter) || now < leaf.notBefore
  }

  #issue(signedBy: Authority, now: number): void {
    const { backdateMs, leafMs } = this.#lifetimes
    const notBefore = Math.max(now - backdateMs, signedBy.notBefore)
    const notAfter = Math.min(now + leafMs, signedBy.notAfter)
    const validity = { notBefore: new Date(notBefore), notAfter: new Date(notAfter) }
    const pair = createLeaf(signedBy.pair, this.#options.names, validity)
    this.#leaf = { pair, signedBy, notBefore, notAfter }
    this.#options.log.info({ detail: validity.notAfter.toISOString() }, 'serving certificate issued')
    for (const listener of this.#listeners) listener(pair)
  }

  /** Ends the checks; what is served stays. */
  close(): void {
    this.#stopped.abort()
  }
}

function reasonOf(stored: StoredSecret | undefined, newest: Authority | undefined): string {
  if (stored === undefined) return 'Created'
  return newest === undefined ? 'Unusable' : 'Rotated'
}

async function absentAsUndefined<T>(answer: Promise<T>): Promise<T | undefined> {
  try {
    return await answer
  } catch (error) {
    if (hasStatus(error, 404)) return undefined
    throw error
  }
}
