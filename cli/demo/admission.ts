/** Sends objects through the operator's own webhook, over HTTP as an API server does. */
import { once } from 'node:events'
import { createServer } from 'node:http'
import type { AddressInfo } from 'node:net'
import { Registry } from 'prom-client'
import { silentLog } from '../../common/log.ts'
import { systemClock } from '../../operator/kube/clock.ts'
import type { InjectableAmbassador } from '../../operator/webhook/ambassador.ts'
import { createApp } from '../../operator/webhook/app.ts'
import type { JsonObject } from '../../operator/webhook/json.ts'
import { Lookup } from '../../operator/webhook/lookup.ts'
import { WebhookMetrics } from '../../operator/webhook/metrics.ts'
import { applyPatch, type PatchOperation } from '../../operator/webhook/patch.ts'
import { Reviewer } from '../../operator/webhook/review.ts'
import { DEFAULT_SETTINGS } from '../../operator/webhook/settings.ts'

/** What the webhook made of an object. */
export interface Admitted {
  readonly object: JsonObject
  readonly patch: readonly PatchOperation[]
  readonly durationMs: number
}

/** A webhook that knows these Ambassadors of one namespace. */
export class Admission {
  readonly #server = createServer()
  readonly #namespace: string

  constructor(namespace: string, ambassadors: readonly InjectableAmbassador[], image: string) {
    this.#namespace = namespace
    const clock = systemClock
    const lookup = new Lookup(
      {
        cached: (_namespace, name) => ambassadors.find((each) => each.name === name),
        fetch: async () => undefined,
        names: () => ambassadors.map((each) => each.name),
      },
      clock,
    )
    const settings = { ...DEFAULT_SETTINGS, image }
    const nodes = {
      list: () => [{ name: 'demo', kubeletVersion: 'v1.34.0', labels: {}, taints: [] }],
    }
    const reviewer = new Reviewer({ lookup, nodes, settings, clock, log: silentLog })
    const registry = new Registry()
    this.#server.on('request', createApp({ reviewer, metrics: new WebhookMetrics(registry), clock }))
  }

  async start(): Promise<void> {
    this.#server.listen(0, '127.0.0.1')
    await once(this.#server, 'listening')
  }

  stop(): void {
    this.#server.close()
    this.#server.closeAllConnections()
  }

  /**
   * An AdmissionReview for an object that is created.
   * @throws {Error} with the webhook's own words when it is refused
   */
  async create(object: JsonObject, webhook: 'pods' | 'workloads'): Promise<Admitted> {
    const { port } = this.#server.address() as AddressInfo
    const kind = String(object['kind'])
    const startedAt = performance.now()
    const answer = await fetch(`http://127.0.0.1:${port}/mutate-${webhook}?timeout=5s`, {
      method: 'POST',
      headers: { 'content-type': 'application/json' },
      body: JSON.stringify({
        apiVersion: 'admission.k8s.io/v1',
        kind: 'AdmissionReview',
        request: { uid: 'demo', kind: { kind }, namespace: this.#namespace, operation: 'CREATE', object },
      }),
    })
    const { response } = (await answer.json()) as {
      response: { allowed: boolean; patch?: string; status?: { message: string } }
    }
    const durationMs = performance.now() - startedAt
    if (!response.allowed) throw new Error(`the webhook refused the ${kind}: ${response.status?.message}`)
    const text = Buffer.from(response.patch ?? '', 'base64').toString() || '[]'
    const patch = JSON.parse(text) as PatchOperation[]
    return { object: applyPatch(object, patch) as JsonObject, patch, durationMs }
  }
}
