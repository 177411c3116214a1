/** What egress.allow and the guard against loops keep from being dialled, on real sockets. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { OAuth2Source } from '../../../proxy/auth/oauth2.ts'
import { DialGuard } from '../../../proxy/policy/dial-guard.ts'
import { NO_HANDLER } from '../../../proxy/runtime/raw-socket.ts'
import { dial } from '../../../proxy/upstream/connector.ts'
import { check } from '../../../proxy/upstream/health/check.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { HttpTestClient } from '../../helpers/http-client.ts'
import { ok, scriptedUpstream } from '../../helpers/http-upstream.ts'
import { OtlpCollector } from '../../helpers/otlp-collector.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { renderedProxy } from '../../helpers/rendered-proxy.ts'
import { TestClient } from '../../helpers/tcp.ts'

const ends = endsOfEach()

describe('egress', () => {
  it('leaves out endpoints that are not allowed, and answers for an upstream that has no other', async () => {
    const [good, bad] = [await scriptedUpstream(ends, () => ok('good')), await scriptedUpstream(ends, () => ok('bad'))]
    const endpoints = [good, bad].map(({ port }) => ({ host: '127.0.0.1', port }))
    const proxy = await renderedProxy(
      {
        upstreams: [
          { name: 'both', endpoints },
          { name: 'denied', endpoints: [{ host: 'localhost', port: bad.port }] },
        ],
        routes: [{ match: { path: { prefix: '/denied' } }, to: [{ upstream: 'denied' }] }],
        egress: { allow: [`127.0.0.0/8:${good.port}`] },
      },
      ends,
    )
    const client = proxy.connect()
    for (let i = 0; i < 10; i++) assert.equal((await client.get('/').response()).body, 'good')
    const denied = await client.get('/denied').response()
    assert.deepEqual([denied.status, denied.field('X-Ambassador-Reason')], [502, 'egress_denied'])
    assert.match(denied.field('Proxy-Status') ?? '', /error=destination_ip_prohibited/)
    assert.match(denied.body, /endpoint 'localhost' \(.*\) is not in egress\.allow: add it there/)
    assert.equal(bad.connections, 0)
    const [both, other] = proxy.compiler.clusters
    assert.equal(both?.cluster.denials, 1)
    assert.ok((other?.cluster.denials ?? 0) >= 2)
  })

  it('keeps spans from a collector that is not allowed, and lets them go when it is', async () => {
    const collector = await new OtlpCollector().start(ends)
    const upstream = await scriptedUpstream(ends, () => ok())
    const tracing = { otlpEndpoint: collector.url, sample: '100%' }
    const spec = { upstreams: [{ name: 'a', endpoints: [{ host: '127.0.0.1', port: upstream.port }] }], tracing }
    const denied = await renderedProxy({ ...spec, egress: { allow: [`127.0.0.1:${upstream.port}`] } }, ends)
    assert.equal((await denied.connect().get('/').response()).status, 200)
    await denied.driver.spans?.close()
    assert.equal(collector.requests.length, 0)
    assert.deepEqual([denied.driver.spans?.exported, denied.driver.spans?.dropped], [0, 1])
    const allowed = await renderedProxy({ ...spec, egress: { allow: ['127.0.0.1'] } }, ends)
    assert.equal((await allowed.connect().get('/').response()).status, 200)
    await allowed.driver.spans?.close()
    assert.equal(allowed.driver.spans?.exported, 1)
  })

  it('holds from the next request on when it changes, in both directions', async () => {
    const upstream = await scriptedUpstream(ends, () => ok())
    const spec = { upstreams: [{ name: 'a', endpoints: [{ host: '127.0.0.1', port: upstream.port }] }] }
    const proxy = await renderedProxy(spec, ends)
    const client = proxy.connect()
    assert.equal((await client.get('/').response()).status, 200)
    proxy.update({ ...spec, egress: { allow: ['192.0.2.1'] } })
    assert.equal((await client.get('/').response()).field('X-Ambassador-Reason'), 'egress_denied')
    proxy.update({ ...spec, egress: { allow: ['127.0.0.1'] } })
    assert.equal((await client.get('/').response()).status, 200)
    assert.equal(upstream.requests.length, 2)
  })

  it('is asked by the dial itself, by health checks and for token URLs', async () => {
    const upstream = await scriptedUpstream(ends, () => ok())
    const guard = new DialGuard({ ownPort: 1, allow: ['192.0.2.1'] })
    const { port } = upstream
    const address = { host: '127.0.0.1', ip: '127.0.0.1', port, weight: 1, priority: 0 }
    const failure = await new Promise<{ reason: string }>((resolve, reject) => {
      dial(
        { address, guard, tls: null, alpn: null, timeoutMs: 1000 },
        {
          onDialFailed: resolve,
          onDialled: (socket) => {
            socket.handler = NO_HANDLER
            socket.destroy()
            reject(new Error('it was dialled'))
          },
        },
      )
    })
    assert.equal(failure.reason, 'egress_denied')
    const config = {
      probe: { kind: 'tcp' },
      port: null,
      intervalMs: 1000,
      timeoutMs: 1000,
      unhealthyThreshold: 1,
      healthyThreshold: 1,
    } as const
    const checked = await new Promise<string | null>((resolve) => check({ address, guard, tls: null, config }, resolve))
    assert.match(checked ?? 'passed', /is not in egress\.allow/)
    for (const host of ['127.0.0.1', 'localhost']) {
      const source = new OAuth2Source({
        guard: () => guard,
        tokenUrl: new URL(`http://${host}:${port}/token`),
        clientId: 'x',
        clientSecret: () => 'x',
        scopes: [],
        audience: null,
        context: () => null,
      })
      await assert.rejects(source.fetch(new AbortController().signal), /is not in egress\.allow/)
    }
    assert.equal(upstream.connections, 0)
  })

  it('keeps a list of endpoints from leading back to the own port, and a TCP connection from what is not allowed', async () => {
    const root = mkdtempSync(join(tmpdir(), 'ambassador-egress-'))
    ends.push(() => rmSync(root, { recursive: true }))
    const upstream = await scriptedUpstream(ends, () => ok())
    const [http, tcp] = [await freePort(), await freePort()]
    writeFileSync(join(root, 'list'), `localhost:${http}\n`)
    const head = 'apiVersion: ambassador.dev/v1alpha1\nkind: Ambassador\n'
    writeFileSync(
      join(root, 'all.yaml'),
      `${head}metadata: { name: loop }\nspec: { protocol: HTTP, listen: { port: ${http} }, upstreams: [ { name: a, file: { file: ./list } } ] }\n---\n${head}metadata: { name: raw }\nspec: { protocol: TCP, listen: { port: ${tcp} }, egress: { allow: [ "127.0.0.1:1" ] }, upstreams: [ { name: a, endpoints: [ { host: 127.0.0.1, port: ${upstream.port} } ] } ] }\n`,
    )
    const ports = ['--telemetry-port', `${await freePort()}`, '--admin-port', `${await freePort()}`]
    const proxy = await ProxyProcess.start({}, ['cli/main.ts', 'run', '-f', join(root, 'all.yaml'), ...ports])
    ends.push(() => proxy.end())
    await proxy.line((line) => line['ambassador'] === 'raw' && line['msg'] === 'config in force')
    const client = new HttpTestClient({ port: http })
    ends.push(() => client.socket.destroy())
    const answer = await client.get('/').response()
    assert.deepEqual([answer.status, answer.field('X-Ambassador-Reason')], [502, 'egress_denied'])
    assert.match(answer.field('Proxy-Status') ?? '', /error=proxy_loop_detected/)
    const raw = new TestClient({ port: tcp })
    ends.push(() => raw.socket.destroy())
    await raw.ended()
    const ended = await proxy.line((line) => line['ambassador'] === 'raw' && line['reason'] === 'egress_denied')
    assert.match(String(ended['detail']), /is not in egress\.allow/)
    await proxy.line((line) => line['msg'] === 'an endpoint is not dialled' && line['ambassador'] === 'raw')
    const metrics = await fetch(`http://127.0.0.1:${ports[1]}/metrics`).then((each) => each.text())
    assert.match(metrics, /^ambassador_egress_denied_total\{ambassador="raw",upstream="a"\} [2-9]/m)
    assert.equal(upstream.connections, 0)
  })
})
