/** A fake of the two APIs that certificates need, Secrets and webhook configurations, in memory: optimistic locking, uids and server-side apply as real ones do them. */
import type { KubeClient, KubeRequest } from '../../operator/kube/client.ts'
import { ApiError } from '../../operator/kube/errors.ts'
import { WEBHOOKS } from '../../operator/webhook/certs.ts'

interface Stored {
  metadata: { name: string; uid: string; resourceVersion: string }
  data?: Record<string, string>
  webhooks?: { name: string; clientConfig: { service: object; caBundle?: string } }[]
}

type Hook = (request: KubeRequest) => Promise<void> | void

export class CertificateApi implements KubeClient {
  readonly requests: string[] = []
  readonly #objects = new Map<string, Stored>()
  #version = 0
  /** Called before each request is looked at; may throw. */
  before: Hook = () => {}

  /** Puts the webhook configuration there, as a chart would. */
  install(name = 'ambassador-injector', webhooks: readonly string[] = WEBHOOKS): void {
    const entries = ['other.example.com', ...webhooks].map((webhook) => ({
      name: webhook,
      clientConfig: { service: { name: 'ambassador-operator', namespace: 'ambassador-system' } },
    }))
    this.#objects.set(`configuration/${name}`, { metadata: this.#meta(name), webhooks: entries })
  }

  /** PEM in an entry of the configuration. */
  bundle(webhook = 'pods.ambassador.dev', name = 'ambassador-injector'): string {
    const entry = this.#objects.get(`configuration/${name}`)?.webhooks?.find((each) => each.name === webhook)
    return Buffer.from(entry?.clientConfig.caBundle ?? '', 'base64').toString()
  }

  /** The entries of the configuration, to write over. */
  entries(name = 'ambassador-injector'): NonNullable<Stored['webhooks']> {
    return this.#objects.get(`configuration/${name}`)?.webhooks ?? []
  }

  get secret(): Stored | undefined {
    return this.#objects.get('secret')
  }

  set secret(value: Stored | undefined) {
    if (value === undefined) this.#objects.delete('secret')
    else this.#objects.set('secret', value)
  }

  removeConfiguration(name = 'ambassador-injector'): void {
    this.#objects.delete(`configuration/${name}`)
  }

  async request<T>(request: KubeRequest): Promise<T> {
    const { method = 'GET', path } = request
    this.requests.push(`${method} ${path}`)
    await this.before(request)
    // As on a network: the answer is what was true at one moment, and it arrives later.
    const answer = structuredClone(this.#answer(method, path, request)) as T
    await new Promise((resolve) => setImmediate(resolve))
    return answer
  }

  open(): never {
    throw new Error('certificates watch nothing')
  }

  close(): void {}

  #answer(method: string, path: string, request: KubeRequest): Stored {
    if (path.includes('/secrets')) return this.#secrets(method, path, request.body as Stored)
    const name = path.split('/').at(-1) ?? ''
    const stored = this.#objects.get(`configuration/${name}`)
    if (stored === undefined) throw failure(404, 'NotFound')
    if (method === 'PATCH') this.#apply(stored, request)
    return stored
  }

  #secrets(method: string, path: string, body: Stored): Stored {
    const stored = this.secret
    if (method === 'POST') {
      if (stored !== undefined) throw failure(409, 'AlreadyExists')
      this.secret = { ...body, metadata: this.#meta(body.metadata.name) }
      return this.secret as Stored
    }
    if (stored === undefined || !path.endsWith(`/${stored.metadata.name}`)) throw failure(404, 'NotFound')
    if (method === 'GET') return stored
    if (method !== 'PUT') throw failure(405, 'MethodNotAllowed')
    if (body.metadata.resourceVersion !== stored.metadata.resourceVersion) throw failure(409, 'Conflict')
    this.secret = { ...body, metadata: { ...this.#meta(body.metadata.name), uid: stored.metadata.uid } }
    return this.secret as Stored
  }

  #apply(stored: Stored, { contentType, query, body }: KubeRequest): void {
    const applied = body as Stored
    if (contentType !== 'application/apply-patch+yaml' || !query?.['fieldManager']) throw failure(415, 'Unsupported')
    if (applied.metadata.uid !== stored.metadata.uid) throw failure(409, 'Conflict')
    for (const entry of applied.webhooks ?? []) {
      const known = stored.webhooks?.find((each) => each.name === entry.name)
      // A new entry of name and caBundle alone lacks what is required.
      if (known === undefined) throw failure(422, 'Invalid')
      known.clientConfig.caBundle = entry.clientConfig.caBundle ?? ''
    }
    stored.metadata.resourceVersion = String(++this.#version)
  }

  #meta(name: string): Stored['metadata'] {
    const version = String(++this.#version)
    return { name, uid: `uid-${version}`, resourceVersion: version }
  }
}

function failure(status: number, reason: string): ApiError {
  return new ApiError(`${reason} by the fake`, { status, reason })
}
