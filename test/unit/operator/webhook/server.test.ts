import assert from 'node:assert/strict'
import { once } from 'node:events'
import https from 'node:https'
import { text } from 'node:stream/consumers'
import { after, before, describe, it } from 'node:test'
import { connect, type TLSSocket } from 'node:tls'
import { gzipSync } from 'node:zlib'
import { Registry } from 'prom-client'
import { silentLog } from '../../../../common/log.ts'
import { systemClock } from '../../../../operator/kube/clock.ts'
import type { InjectableAmbassador } from '../../../../operator/webhook/ambassador.ts'
import type { JsonObject } from '../../../../operator/webhook/json.ts'
import { applyPatch, type PatchOperation } from '../../../../operator/webhook/patch.ts'
import { startWebhook, type Webhook, type WebhookOptions } from '../../../../operator/webhook/server.ts'
import { CertificateApi } from '../../../helpers/certificate-api.ts'
import { ambassador, asking, nodes, SETTINGS, sidecarOf } from '../../../helpers/injection.ts'

interface Served extends AsyncDisposable {
  readonly webhook: Webhook
  readonly api: CertificateApi
  readonly registry: Registry
}

/** The webhook on a free port, with the fake of the two APIs that its certificate needs. */
const serve = async (changes: Partial<WebhookOptions> = {}): Promise<Served> => {
  const api = new CertificateApi()
  api.install()
  const registry = new Registry()
  const known = [ambassador('payments'), ambassador('cache', { port: 6379, hostnames: ['redis'] })]
  const webhook = await startWebhook({
    client: api,
    clock: systemClock,
    log: silentLog,
    registry,
    namespace: 'ambassador-system',
    port: 0,
    host: '127.0.0.1',
    names: ['localhost', '127.0.0.1'],
    source: {
      cached: (namespace, name) => (namespace === 'shop' ? known.find((each) => each.name === name) : undefined),
      fetch: async () => undefined,
      names: () => known.map((each) => each.name),
    },
    nodes: nodes({ kubeletVersion: 'v1.34.4' }),
    settings: SETTINGS,
    ...changes,
  })
  return { webhook, api, registry, [Symbol.asyncDispose]: () => webhook.close() }
}

interface Answer {
  readonly status: number
  readonly headers: Record<string, string | string[] | undefined>
  readonly body: JsonObject
}

interface Sent {
  readonly path?: string
  readonly method?: string
  readonly headers?: Record<string, string | number>
  readonly body?: string | Buffer
  readonly agent?: https.Agent
}

const send = async ({ webhook, api }: Served, sent: Sent): Promise<Answer> => {
  const request = https.request({
    host: '127.0.0.1',
    port: webhook.port,
    ca: api.bundle(),
    path: sent.path ?? '/mutate-pods?timeout=5s',
    method: sent.method ?? 'POST',
    headers: { 'content-type': 'application/json', ...sent.headers },
    agent: sent.agent ?? false,
  })
  request.end(sent.body ?? '')
  const [response] = (await once(request, 'response')) as [import('node:http').IncomingMessage]
  const body = await text(response)
  return {
    status: response.statusCode ?? 0,
    headers: response.headers,
    body: body === '' ? {} : (JSON.parse(body) as JsonObject),
  }
}

const review = (object: JsonObject | null, changes: JsonObject = {}): string =>
  JSON.stringify({
    apiVersion: 'admission.k8s.io/v1',
    kind: 'AdmissionReview',
    request: {
      uid: 'u-1',
      kind: { group: '', version: 'v1', kind: 'Pod' },
      resource: { group: '', version: 'v1', resource: 'pods' },
      namespace: 'shop',
      operation: 'CREATE',
      userInfo: { username: 'kubernetes-admin' },
      object,
      oldObject: null,
      dryRun: false,
      options: {},
      ...changes,
    },
  })

interface Response {
  readonly uid: string
  readonly allowed: boolean
  readonly patch?: string
  readonly warnings?: string[]
  readonly status?: { code: number; reason: string; message: string }
}
const responseOf = (answer: Answer): Response => {
  assert.equal(answer.status, 200, JSON.stringify(answer.body))
  return answer.body['response'] as unknown as Response
}
const patchOf = (answer: Answer): PatchOperation[] =>
  JSON.parse(Buffer.from(responseOf(answer).patch ?? '', 'base64').toString()) as PatchOperation[]

describe('the webhook over HTTPS', () => {
  let served: Served
  before(async () => {
    served = await serve()
  })
  after(() => served[Symbol.asyncDispose]())

  const refuses = async (sent: Sent, status: number, reason: string, message: string): Promise<void> => {
    const answer = await send(served, sent)
    assert.deepEqual(
      [answer.status, answer.body['kind'], answer.body['reason'], answer.body['message'], answer.body['code']],
      [status, 'Status', reason, message, status],
    )
  }

  it('is ready when its certificate is served and known to API servers', () => {
    assert.equal(served.webhook.isReady(), true)
  })

  it('injects a pod', async () => {
    const object = asking('payments,cache')
    const answer = await send(served, { body: review(object) })
    assert.equal(responseOf(answer).uid, 'u-1')
    const once = applyPatch(object, patchOf(answer)) as JsonObject
    assert.equal(sidecarOf(once)['image'], SETTINGS.image)
  })

  it('copies the annotation of a workload', async () => {
    const object: JsonObject = {
      kind: 'Deployment',
      metadata: { annotations: { 'ambassador.dev/inject': 'payments' } },
      spec: { template: { spec: { containers: [{ name: 'app' }] } } },
    }
    const kind = { kind: { group: 'apps', version: 'v1', kind: 'Deployment' }, operation: 'UPDATE' }
    const answer = await send(served, { path: '/mutate-workloads?timeout=5s', body: review(object, kind) })
    assert.deepEqual(
      patchOf(answer).map(({ op, path }) => `${op} ${path}`),
      ['add /spec/template/metadata'],
    )
  })

  it('refuses with code, reason and message', async () => {
    const { allowed, status, patch } = responseOf(await send(served, { body: review(asking('paymnts')) }))
    assert.deepEqual([allowed, patch], [false, undefined])
    assert.deepEqual(status as unknown, {
      code: 403,
      message:
        'ambassador.dev/inject: Ambassador "paymnts" does not exist in namespace "shop" (did you mean "payments"?); create it or correct the annotation',
      reason: 'AmbassadorNotFound',
      status: 'Failure',
    })
  })

  it('allows a deletion, whose object is null', async () => {
    const response = responseOf(await send(served, { body: review(null, { operation: 'DELETE' }) }))
    assert.deepEqual(response, { uid: 'u-1', allowed: true })
  })

  it('keeps large whole numbers out of what it sends', async () => {
    const body = review(asking('payments')).replace('"image":"app:1"', '"image":"app:1","big":9007199254740993123')
    const answer = await send(served, { body })
    assert.ok(patchOf(answer).length > 0)
    assert.doesNotMatch(JSON.stringify(patchOf(answer)), /9007199254740993/)
  })

  it('takes a media type with parameters, in any case', async () => {
    const headers = { 'content-type': 'Application/JSON; charset=utf-8' }
    assert.equal(responseOf(await send(served, { headers, body: review(asking('payments')) })).allowed, true)
  })

  it('answers 415 to another media type or coding', async () => {
    const words = 'is not answered; send plain application/json'
    const body = review(asking('payments'))
    await refuses({ headers: { 'content-type': 'text/plain' }, body }, 415, 'NotJson', `"text/plain" ${words}`)
    await refuses({ headers: { 'content-type': '' }, body }, 415, 'NotJson', `"" ${words}`)
    await refuses(
      { headers: { 'content-encoding': 'gzip' }, body: gzipSync(body) },
      415,
      'NotJson',
      `gzip content ${words}`,
    )
  })

  it('answers 400 to what is not JSON, without repeating it', async () => {
    await refuses({ body: '{"secret": hunter2' }, 400, 'NotJson', 'the body is not JSON')
    await refuses({ body: '' }, 400, 'NotJson', 'the body is not JSON')
  })

  it('answers 400 to a review of another version', async () => {
    await refuses(
      { body: review(asking('payments')).replace('admission.k8s.io/v1', 'admission.k8s.io/v1beta1') },
      400,
      'NotAReview',
      'the body is "AdmissionReview" of "admission.k8s.io/v1beta1"; this webhook answers AdmissionReview of admission.k8s.io/v1, set admissionReviewVersions to [v1]',
    )
  })

  it('answers 413 to a review of 5 MiB, which its sender can read to the end', async () => {
    const body = review(asking('payments', {}, { big: 'x'.repeat(5 * 1024 * 1024) }))
    const text = 'the review is larger than 3145728 bytes; make the object smaller'
    for (let i = 0; i < 5; i++) await refuses({ body }, 413, 'TooLarge', text)
    await refuses({ body, headers: { 'transfer-encoding': 'chunked' } }, 413, 'TooLarge', text)
  })

  it('takes a review just below 3 MiB', async () => {
    const empty = review(asking('payments', {}, { big: '' })).length
    const object = asking('payments', {}, { big: 'x'.repeat(3 * 1024 * 1024 - empty) })
    assert.equal(review(object).length, 3 * 1024 * 1024)
    assert.equal(responseOf(await send(served, { body: review(object) })).allowed, true)
  })

  it('answers 404 to another path and 405 to another method', async () => {
    await refuses(
      { path: '/' },
      404,
      'NotFound',
      'there is nothing at this path, use /mutate-pods or /mutate-workloads',
    )
    await refuses({ method: 'GET' }, 405, 'MethodNotAllowed', '/mutate-pods: only POST is answered')
    assert.equal((await send(served, { method: 'GET' })).headers['allow'], 'POST')
  })

  it('lets the sender wait for 100 before the body', async () => {
    const body = review(asking('payments'))
    const request = https.request({
      host: '127.0.0.1',
      port: served.webhook.port,
      ca: served.api.bundle(),
      path: '/mutate-pods',
      method: 'POST',
      headers: { 'content-type': 'application/json', expect: '100-continue', 'content-length': body.length },
    })
    request.flushHeaders()
    await once(request, 'continue')
    request.end(body)
    const [response] = (await once(request, 'response')) as [import('node:http').IncomingMessage]
    assert.equal(response.statusCode, 200)
    response.resume()
  })

  it('answers many reviews on one connection, and keeps it for longer than API servers do', async () => {
    const agent = new https.Agent({ keepAlive: true, maxSockets: 1 })
    const first = await send(served, { agent, body: review(asking('payments')) })
    assert.equal(first.headers['keep-alive'], 'timeout=120')
    for (let i = 0; i < 20; i++) responseOf(await send(served, { agent, body: review(asking('payments')) }))
    assert.equal(Object.values(agent.freeSockets).flat().length, 1)
    agent.destroy()
  })

  it('answers 408 to a body that does not come within the time of the caller', async () => {
    const socket = connect({ host: '127.0.0.1', port: served.webhook.port, ca: served.api.bundle() })
    socket.write(
      'POST /mutate-pods?timeout=700ms HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{',
    )
    const answer = await text(socket)
    assert.match(answer, /^HTTP\/1\.1 408 /)
    assert.match(answer, /connection: close/i)
    assert.match(answer, /the review did not arrive in time; try again/)
  })

  it('survives a sender that leaves in the middle', async () => {
    const socket = connect({ host: '127.0.0.1', port: served.webhook.port, ca: served.api.bundle() })
    socket.write(
      'POST /mutate-pods HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 100\r\n\r\n{',
    )
    await once(socket, 'secureConnect')
    socket.destroy()
    assert.equal(responseOf(await send(served, { body: review(asking('payments')) })).allowed, true)
  })

  it('refuses TLS 1.1', async () => {
    const socket = connect({
      host: '127.0.0.1',
      port: served.webhook.port,
      ca: served.api.bundle(),
      minVersion: 'TLSv1.1',
      maxVersion: 'TLSv1.1',
    })
    const [error] = (await once(socket, 'error')) as [NodeJS.ErrnoException]
    assert.match(String(error.code), /^ERR_SSL_/)
  })
})

describe('the metrics of the webhook', () => {
  it('count by result and reason, dry runs apart, and time each request', async () => {
    await using served = await serve()
    await send(served, { body: review(asking('payments')) })
    await send(served, { body: review(asking('payments'), { dryRun: true }) })
    await send(served, { body: review(asking('nothing')) })
    await send(served, { body: review(asking('false')) })
    await send(served, { body: 'x' })
    const lines = (await served.registry.metrics()).split('\n')
    assert.deepEqual(
      lines.filter((line) => line.startsWith('ambassador_webhook_reviews_total{')),
      [
        'ambassador_webhook_reviews_total{result="injected",reason="",dry_run="false"} 1',
        'ambassador_webhook_reviews_total{result="injected",reason="",dry_run="true"} 1',
        'ambassador_webhook_reviews_total{result="denied",reason="AmbassadorNotFound",dry_run="false"} 1',
        'ambassador_webhook_reviews_total{result="skipped",reason="OptedOut",dry_run="false"} 1',
        'ambassador_webhook_reviews_total{result="malformed",reason="NotJson",dry_run="false"} 1',
      ],
    )
    assert.ok(lines.includes('ambassador_webhook_duration_seconds_count{webhook="pods"} 5'))
    const buckets = lines.filter((line) => line.startsWith('ambassador_webhook_duration_seconds_bucket'))
    assert.match(buckets[0] ?? '', /le="0.0005"/)
    assert.match(buckets.at(-2) ?? '', /le="5"/)
    const expiry = lines.filter((line) => line.startsWith('ambassador_webhook_certificate_expiry_seconds{'))
    assert.deepEqual(
      expiry.map((line) => Math.round(Number(line.split(' ')[1]) / 86_400)),
      [7, 365],
    )
  })
})

describe('a webhook that has too much to do', () => {
  it('answers 503 within the time of the caller', async () => {
    await using served = await serve()
    const head = (ms: number) =>
      `POST /mutate-pods?timeout=${ms}ms HTTP/1.1\r\nhost: x\r\ncontent-type: application/json\r\ncontent-length: 3145728\r\n\r\n`
    const open = async (ms: number): Promise<TLSSocket> => {
      const socket = connect({ host: '127.0.0.1', port: served.webhook.port, ca: served.api.bundle() })
      await once(socket, 'secureConnect')
      socket.write(head(ms))
      return socket
    }
    // Ten bodies of 3 MiB that do not come fill what is held at once.
    const slow = await Promise.all(Array.from({ length: 10 }, () => open(4000)))
    const answers = slow.map((socket) => text(socket))
    const late = await open(600)
    const answer = await text(late)
    assert.match(answer, /^HTTP\/1\.1 503 /)
    assert.match(answer, /the operator has more reviews than it can hold; try again/)
    for (const socket of slow) socket.destroy()
    await Promise.allSettled(answers)
  })
})

describe('the end of a webhook', () => {
  it('closes connections with their answer while it drains, then answers what is under way, and ends', async () => {
    let letGo: (found: InjectableAmbassador) => void = () => {}
    let asked: () => void = () => {}
    const isAsked = new Promise<void>((resolve) => {
      asked = resolve
    })
    await using served = await serve({
      source: {
        cached: () => undefined,
        names: () => [],
        fetch: () => {
          asked()
          return new Promise((resolve) => {
            letGo = resolve
          })
        },
      },
    })
    served.webhook.drain()
    const underWay = send(served, { body: review(asking('late')) })
    await isAsked
    const closed = served.webhook.close()
    await assert.rejects(send(served, { body: review(asking('payments')) }), { code: 'ECONNREFUSED' })
    letGo(ambassador('late'))
    const answer = await underWay
    assert.equal(responseOf(answer).allowed, true)
    assert.equal(answer.headers['connection'], 'close')
    await closed
  })
})

describe('rotation of certificates under load', () => {
  it('fails no handshake and no review over a hundred new CAs and leaves', { timeout: 100_000 }, async () => {
    // Every look finds CA and leaf due, so each makes a new CA, and a leaf that the CA of the look before signs.
    const lifetimes = { authorityMs: 600_000, leafMs: 60_000, settleMs: 3_600_000, checkMs: 3_600_000 }
    await using served = await serve({ lifetimes })
    const body = review(asking('payments'))
    const agents = Array.from({ length: 2 }, () => new https.Agent({ keepAlive: true, maxSockets: 1 }))
    let isOver = false
    let handshakes = 0
    const load = async (agent?: https.Agent): Promise<void> => {
      while (!isOver) {
        const answer = await send(served, { body, ...(agent === undefined ? {} : { agent }) })
        assert.equal(responseOf(answer).allowed, true)
        if (agent === undefined) handshakes++
      }
    }
    const loads = [load(), load(), ...agents.map((agent) => load(agent))]
    const seen = new Set<string>()
    for (let i = 0; i < 100; i++) {
      await served.webhook.checkCertificates()
      seen.add(served.api.bundle())
      const before = handshakes
      while (handshakes < before + 2) await new Promise((resolve) => setImmediate(resolve))
    }
    isOver = true
    await Promise.all(loads)
    for (const agent of agents) agent.destroy()
    assert.equal(seen.size, 100)
    assert.ok(handshakes >= 200, `${handshakes} handshakes`)
  })
})
