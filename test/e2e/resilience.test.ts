/** What the application sees while its upstream misbehaves. */
import assert from 'node:assert/strict'
import { mkdtemp, readFile, rm } from 'node:fs/promises'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { eventually, execute, get, type Json } from './lib/kubectl.ts'
import { ambassador, deployment, httpTo, podTemplate, upstream } from './lib/manifests.ts'
import { type World, world } from './lib/world.ts'

describe('an upstream that fails, on a real cluster', () => {
  let w: World
  const order = async (orders: object): Promise<Json> => {
    const pods = await w.kubectl.pods('app=provider')
    const script = `fetch('http://localhost:8090', { method: 'PUT', body: process.argv[1] }).then(async (r) => console.log(await r.text()))`
    const result = await w.kubectl.exec(
      `pod/${pods[0].metadata.name}`,
      ['node', '-e', script, JSON.stringify(orders)],
      'upstream',
    )
    assert.equal(result.code, 0, result.stderr)
    return JSON.parse(result.stdout)
  }
  const call = () => get(w.kubectl, 'deploy/app', 8081)

  before(async () => {
    w = await world('e2e-resilience')
    await w.kubectl.apply([
      ...upstream('provider'),
      ambassador(
        'payments',
        httpTo('provider', 8081, {
          upstream: { circuitBreaker: { consecutiveFailures: 5, openDuration: '2s', maxOpenDuration: '4s' } },
          spec: {
            retry: {
              maxRetries: 3,
              on: ['ConnectFailure', 'Reset', '5xx'],
              backoff: { initial: '10ms', max: '100ms' },
            },
            timeouts: { connect: '1s', request: '10s' },
          },
        }),
      ),
      deployment('app', podTemplate('app', 'payments')),
    ])
    await w.kubectl.rollout('deployment/provider')
    await w.kubectl.rollout('deployment/app')
  })
  after(() => w.close())

  it('two of three requests fail: the application sees no failure', async () => {
    await order({ failRatioOf3: 2, reset: true })
    // 30 requests, one at a time, in one exec: each third attempt of the upstream succeeds.
    const loop =
      'for i in $(seq 30); do wget -qO- -T 10 http://localhost:8081/v1/charges >/dev/null && echo ok || echo failed; done'
    const { stdout } = await w.kubectl.exec('deploy/app', ['sh', '-c', loop])
    assert.equal(stdout.match(/ok/g)?.length, 30, stdout)
    const { stats } = await order({ failRatioOf3: 0 })
    console.log(`    30 requests of the application, ${stats.requests} at the upstream`)
    assert.ok(stats.requests >= 60, `the upstream saw only ${stats.requests}: nothing was hidden`)
  })

  it('down: the breaker opens with circuit_open, lets one probe through and closes again', async () => {
    await order({ down: true })
    const open = await eventually('the breaker opens', async () => {
      const answer = await call()
      return answer.reason === 'circuit_open' ? answer : undefined
    })
    assert.equal(open.status, 503)
    assert.match(open.text, /retry-after: \d+/i)
    await order({ down: false, reset: true })
    await eventually('the breaker closes', async () => (await call()).status === 200, {
      timeoutMs: 20_000,
      everyMs: 100,
    })
    const { stats } = await order({})
    assert.equal(stats.requests, 1, 'one probe reached the upstream, and its answer closed the breaker')
    assert.equal((await call()).status, 200)
  })

  it('a certificate with another name: tls_verify_failed, and nothing is sent', async () => {
    const dir = await mkdtemp(join(tmpdir(), 'e2e-pki-'))
    try {
      const key = ['-newkey', 'ec', '-pkeyopt', 'ec_paramgen_curve:prime256v1', '-nodes']
      const openssl = async (...args: string[]) => {
        const result = await execute('openssl', args)
        assert.equal(result.code, 0, result.stderr)
      }
      await openssl(
        'req',
        '-x509',
        ...key,
        '-keyout',
        join(dir, 'ca.key'),
        '-out',
        join(dir, 'ca.crt'),
        '-subj',
        '/CN=test ca',
        '-days',
        '2',
      )
      await openssl(
        'req',
        '-x509',
        ...key,
        '-CA',
        join(dir, 'ca.crt'),
        '-CAkey',
        join(dir, 'ca.key'),
        '-keyout',
        join(dir, 'tls.key'),
        '-out',
        join(dir, 'tls.crt'),
        '-subj',
        '/CN=secure',
        '-addext',
        'subjectAltName=DNS:secure',
        '-addext',
        'basicConstraints=critical,CA:FALSE',
        '-days',
        '2',
      )
      const text = async (file: string) => await readFile(join(dir, file), 'utf8')
      await w.kubectl.apply([
        {
          apiVersion: 'v1',
          kind: 'Secret',
          metadata: { name: 'secure-tls' },
          type: 'kubernetes.io/tls',
          stringData: { 'tls.crt': await text('tls.crt'), 'tls.key': await text('tls.key') },
        },
        {
          apiVersion: 'v1',
          kind: 'ConfigMap',
          metadata: { name: 'secure-ca' },
          data: { 'ca.crt': await text('ca.crt') },
        },
        { apiVersion: 'v1', kind: 'Secret', metadata: { name: 'token' }, stringData: { token: 'sesame' } },
        ...upstream('secure', { tlsSecret: 'secure-tls' }),
        ambassador('right', {
          protocol: 'HTTP',
          listen: { port: 8081 },
          upstreams: [
            {
              name: 'live',
              endpoints: [{ host: 'secure', port: 8080 }],
              tls: { ca: { configMapKeyRef: { name: 'secure-ca', key: 'ca.crt' } } },
              auth: { bearer: { secretKeyRef: { name: 'token', key: 'token' } } },
            },
          ],
        }),
        ambassador('wrong', {
          protocol: 'HTTP',
          listen: { port: 8082 },
          upstreams: [
            {
              name: 'live',
              endpoints: [{ host: 'secure', port: 8080 }],
              tls: { serverName: 'another.example', ca: { configMapKeyRef: { name: 'secure-ca', key: 'ca.crt' } } },
              auth: { bearer: { secretKeyRef: { name: 'token', key: 'token' } } },
            },
          ],
        }),
        deployment('tls-app', podTemplate('tls-app', 'right,wrong')),
      ])
      await w.kubectl.rollout('deployment/secure')
      await w.kubectl.rollout('deployment/tls-app')
      // A Service may know its pod a moment later than the rollout does.
      const right = await eventually('the right name is answered', async () => {
        const { code, stdout } = await w.kubectl.exec('deploy/tls-app', [
          'wget',
          '-qO-',
          '-T',
          '10',
          'http://localhost:8081/',
        ])
        return code === 0 && JSON.parse(stdout)
      })
      assert.equal(right.authorization, 'Bearer sesame')
      const pods = await w.kubectl.pods('app=secure')
      const statsOf = async () => {
        const script = `fetch('http://localhost:8090').then(async (r) => console.log(await r.text()))`
        const { stdout } = await w.kubectl.exec(`pod/${pods[0].metadata.name}`, ['node', '-e', script], 'upstream')
        return JSON.parse(stdout).stats
      }
      const before = await statsOf()
      const wrong = await get(w.kubectl, 'deploy/tls-app', 8082)
      assert.deepEqual([wrong.status, wrong.reason], [502, 'tls_verify_failed'], wrong.text)
      assert.equal((await statsOf()).requests, before.requests, 'the upstream got no request')
    } finally {
      await rm(dir, { recursive: true })
    }
  })
})
