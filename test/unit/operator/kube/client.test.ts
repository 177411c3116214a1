import assert from 'node:assert/strict'
import { mkdtempSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { createClient, type KubeClient } from '../../../../operator/kube/client.ts'
import { connect } from '../../../../operator/kube/connection.ts'
import { ApiError } from '../../../../operator/kube/errors.ts'
import {
  answer,
  failure,
  reset,
  type ScriptedServer,
  type Step,
  scriptedServer,
  silence,
} from '../../../helpers/api-server.ts'
import { FakeClock } from '../../../helpers/fake-clock.ts'

async function setup(...script: Step[]): Promise<{ server: ScriptedServer; client: KubeClient } & AsyncDisposable> {
  const server = await scriptedServer(...script)
  const client = createClient(server.connection)
  return {
    server,
    client,
    async [Symbol.asyncDispose]() {
      client.close()
      await server[Symbol.asyncDispose]()
    },
  }
}

/** The ApiError that a promise rejects with. */
async function errorOf(promise: Promise<unknown>): Promise<ApiError> {
  const error = await promise.then(
    () => undefined,
    (thrown: unknown) => thrown,
  )
  assert.ok(error instanceof ApiError, `an ApiError, not ${String(error)}`)
  return error
}

describe('API client', { timeout: 20_000 }, () => {
  it('sends method, query, body and credentials, and reads JSON', async () => {
    await using t = await setup(answer({ ok: true }))
    const result = await t.client.request({
      method: 'PATCH',
      path: '/api/v1/things/a',
      query: { fieldManager: 'me', force: true, absent: undefined },
      contentType: 'application/apply-patch+yaml',
      body: { a: 'ü' },
    })
    assert.deepEqual(result, { ok: true })
    const [request] = t.server.requests
    assert.equal(request?.method, 'PATCH')
    assert.equal(String(request?.query), 'fieldManager=me&force=true')
    assert.deepEqual(request?.body, { a: 'ü' })
    assert.equal(request?.headers['content-type'], 'application/apply-patch+yaml')
    assert.equal(request?.headers.authorization, 'Bearer test')
  })

  it('turns a refusal into an error with status, reason and words', async () => {
    await using t = await setup(failure(403, 'Forbidden'))
    const error = await errorOf(t.client.request({ path: '/api/v1/secrets' }))
    assert.equal(error.status, 403)
    assert.equal(error.reason, 'Forbidden')
    assert.equal(error.message, 'GET /api/v1/secrets: 403 Forbidden by script')
  })

  it('says what a proxy said that is not the API server', async () => {
    await using t = await setup((_request, response) => {
      response.writeHead(502)
      response.end('bad gateway')
    })
    const error = await errorOf(t.client.request({ path: '/api' }))
    assert.equal(error.reason, 'BadGateway')
    assert.equal(error.message, 'GET /api: 502 bad gateway')
  })

  it('sends again after 429, when Retry-After is over', async () => {
    await using t = await setup(failure(429, 'TooManyRequests', { 'retry-after': '1' }), answer({ ok: true }))
    const before = performance.now()
    await t.client.request({ path: '/api', timeoutMs: 5000 })
    assert.ok(performance.now() - before >= 990)
  })

  it('gives up on 429 when Retry-After is beyond its time, and hands it on', async () => {
    await using t = await setup(failure(429, 'TooManyRequests', { 'retry-after': '60' }))
    const error = await errorOf(t.client.request({ path: '/api', timeoutMs: 5000 }))
    assert.equal(error.retryAfterMs, 60_000)
    assert.equal(t.server.requests.length, 1)
  })

  it('sends again when a kept connection was closed under it, but not when a new one is', async () => {
    await using t = await setup(answer({}), reset, answer({ ok: true }))
    await t.client.request({ path: '/first' })
    assert.deepEqual(await t.client.request({ path: '/second' }), { ok: true })
    await using fresh = await setup(reset)
    assert.equal((await errorOf(fresh.client.request({ path: '/api' }))).reason, 'Unreachable')
    assert.equal(fresh.server.requests.length, 1)
  })

  it('ends a request that is not answered in time', async () => {
    await using t = await setup(silence)
    const error = await errorOf(t.client.request({ path: '/api', timeoutMs: 30 }))
    assert.equal(error.reason, 'Timeout')
  })

  it('ends a request whose answer stops half-way', async () => {
    await using t = await setup((_request, response) => {
      response.writeHead(200, { 'content-length': '100' })
      response.write('{"half":')
    })
    assert.equal((await errorOf(t.client.request({ path: '/api', timeoutMs: 50 }))).reason, 'Timeout')
  })

  it('ends a request when its signal aborts', async () => {
    await using t = await setup(silence)
    const abort = new AbortController()
    const request = errorOf(t.client.request({ path: '/api', signal: abort.signal }))
    await t.server.received(1)
    abort.abort()
    assert.equal((await request).reason, 'Aborted')
    assert.equal((await errorOf(t.client.request({ path: '/api', signal: abort.signal }))).reason, 'Aborted')
    assert.equal(t.server.requests.length, 1)
  })

  it('reads the token again when the API server refuses it', async () => {
    await using server = await scriptedServer(
      failure(401, 'Unauthorized'),
      answer({ ok: true }),
      failure(401, 'Unauthorized'),
      failure(401, 'Unauthorized'),
    )
    let token = 'old'
    const client = createClient({
      ...server.connection,
      async identity(fresh) {
        if (fresh) token = 'new'
        return { headers: { authorization: `Bearer ${token}` }, tls: {} }
      },
    })
    assert.deepEqual(await client.request({ path: '/api' }), { ok: true })
    assert.deepEqual(
      server.requests.map((request) => request.headers.authorization),
      ['Bearer old', 'Bearer new'],
    )
    assert.equal((await errorOf(client.request({ path: '/api' }))).status, 401)
    client.close()
  })
})

describe('connection of a pod', () => {
  const env = { KUBERNETES_SERVICE_HOST: 'fd00::1', KUBERNETES_SERVICE_PORT: '6443' }

  function serviceAccount(): string {
    const directory = mkdtempSync(join(tmpdir(), 'sa-'))
    writeFileSync(join(directory, 'token'), 'first\n')
    writeFileSync(join(directory, 'ca.crt'), 'CA')
    writeFileSync(join(directory, 'namespace'), 'ambassador-system')
    return directory
  }

  it('is made from the service account and the environment', async () => {
    const connection = await connect({ env, serviceAccountDir: serviceAccount() })
    assert.equal(connection.server.href, 'https://[fd00::1]:6443/')
    assert.equal(connection.namespace, 'ambassador-system')
    assert.deepEqual(await connection.identity(), { headers: { authorization: 'Bearer first' }, tls: { ca: 'CA' } })
  })

  it('follows a rotated token within half a minute, and at once when asked', async () => {
    const clock = new FakeClock()
    const directory = serviceAccount()
    const connection = await connect({ env, serviceAccountDir: directory, clock })
    const first = await connection.identity()
    writeFileSync(join(directory, 'token'), 'second')
    assert.equal(await connection.identity(), first)
    assert.equal((await connection.identity(true)).headers['authorization'], 'Bearer second')
    writeFileSync(join(directory, 'token'), 'third')
    await clock.advance(30_000)
    assert.equal((await connection.identity()).headers['authorization'], 'Bearer third')
  })

  it('names the kubeconfig that has no usable cluster', async () => {
    const file = join(mkdtempSync(join(tmpdir(), 'kc-')), 'config')
    writeFileSync(
      file,
      'apiVersion: v1\nkind: Config\nclusters: []\nusers: []\ncontexts: []\ncurrent-context: nowhere\n',
    )
    await assert.rejects(connect({ kubeconfig: file }), {
      message: `kubeconfig '${file}': context 'nowhere' names no cluster, set KUBECONFIG or pass a context that exists`,
    })
  })
})
