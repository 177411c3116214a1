/** Tokens of an issuer on real sockets: waited for, renewed, and fetched again when the upstream refuses one. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer } from 'node:https'
import type { AddressInfo } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { endsOfEach } from '../../helpers/ends.ts'
import { type Answer, ok, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'
import { Pki } from '../../helpers/pki.ts'
import { renderedProxy } from '../../helpers/rendered-proxy.ts'

const ends = endsOfEach()

const token = (value: string) => ok(JSON.stringify({ access_token: value, expires_in: 3600, token_type: 'Bearer' }))

/** An issuer, an upstream and a proxy between them. */
async function setup(
  issue: (count: number) => Answer | Promise<Answer>,
  accepts: (authorization: string | null) => boolean = () => true,
  timeouts: { connect?: string; request?: string } = {},
) {
  const secrets = mkdtempSync(join(tmpdir(), 'oauth2-'))
  ends.push(() => rmSync(secrets, { recursive: true }))
  mkdirSync(join(secrets, 'payments'))
  const writeSecret = (text: string) => writeFileSync(join(secrets, 'payments/client-secret'), `${text}\n`)
  writeSecret('s1')
  let count = 0
  const issuer = await scriptedUpstream(ends, () => issue(++count))
  const upstream = await scriptedUpstream(ends, (request) =>
    accepts(request.field('authorization')) ? ok(request.body) : withStatus(401, 'refused'),
  )
  const spec = {
    upstreams: [
      {
        name: 'live',
        endpoints: [{ host: '127.0.0.1', port: upstream.port }],
        auth: {
          oauth2ClientCredentials: {
            tokenUrl: `http://127.0.0.1:${issuer.port}/token`,
            clientId: 'shop',
            clientSecret: { secretKeyRef: { name: 'payments', key: 'client-secret' } },
            scopes: ['a', 'b'],
          },
        },
      },
    ],
    timeouts,
  }
  const proxy = await renderedProxy(spec, ends, secrets)
  return { issuer, upstream, proxy, writeSecret, client: proxy.connect(), spec }
}

describe('a token of an issuer', () => {
  it('is waited for by the requests that come before the first one, which is fetched once', async () => {
    let release = (_: string) => {}
    const issued = new Promise<string>((resolve) => (release = resolve))
    const { proxy, issuer, upstream, client } = await setup(() => issued)
    const other = proxy.connect().post('body of some length', 'authorization: mine', 'X-After: 1')
    client.get('/', 'X-Request-ID: kept')
    await issuer.request(0)
    assert.equal(upstream.requests.length, 0)
    release(token('t1'))
    assert.equal((await client.response()).status, 200)
    assert.equal((await other.response()).body, 'body of some length')
    assert.equal(issuer.requests.length, 1)
    for (const { head } of upstream.requests) assert.equal(head.match(/\r\nAuthorization: Bearer t1\r\n/gi)?.length, 1)
    const posted = upstream.requests.find(({ method }) => method === 'POST')!
    assert.match(posted.head, /\r\nAuthorization: Bearer t1\r\nX-After: 1\r\n/)
    assert.doesNotMatch(posted.head, /mine/)
    const [, logged] = await proxy.logged(2)
    assert.ok(['kept', posted.field('x-request-id')].includes(logged!['requestId'] as string))
    // The next one has it at once.
    assert.equal((await client.get('/').response()).status, 200)
    assert.match((await upstream.request(2)).head, /Bearer t1\r\n/)
  })

  it('that does not come is a 503 of our own after the connect time-out, never a 401', async () => {
    const { client } = await setup(
      () => null,
      () => true,
      { connect: '150ms' },
    )
    const response = await client.get('/').response()
    assert.deepEqual([response.status, response.field('X-Ambassador-Reason')], [503, 'auth_unavailable'])
    assert.match(response.body, /no token within 150 ms/)
  })

  it('that the issuer refuses is told with its code and without the secret', async () => {
    const { client } = await setup(() => withStatus(401, '{"error":"invalid_client"}'))
    const response = await client.get('/').response()
    assert.deepEqual([response.status, response.field('X-Ambassador-Reason')], [503, 'auth_unavailable'])
    assert.match(response.body, /answered 401 \(invalid_client\)/)
    assert.doesNotMatch(response.body, /s1/)
  })

  it('that is too long to be one is told with its address, once', async () => {
    const { client } = await setup(() => token('x'.repeat(100_000)))
    const { reason, detail } = JSON.parse((await client.get('/').response()).body)
    assert.equal(reason, 'auth_unavailable')
    assert.match(detail, /^token URL 'http:[^']+': answered more than 65536 bytes, check the address$/)
  })

  it('is fetched again, with the secret as it is now, when the upstream refuses it, and the request is sent again', async () => {
    const { client, issuer, upstream, writeSecret } = await setup(
      (count) => token(`t${count}`),
      (authorization) => authorization !== 'Bearer t1',
    )
    writeSecret('s2')
    const response = await client.post('charge').response()
    assert.deepEqual([response.status, response.body], [200, 'charge'])
    assert.deepEqual(
      upstream.requests.map((each) => [each.field('authorization'), each.body]),
      [
        ['Bearer t1', 'charge'],
        ['Bearer t2', 'charge'],
      ],
    )
    const secrets = issuer.requests.map((each) =>
      Buffer.from(each.field('authorization')!.slice('Basic '.length), 'base64').toString(),
    )
    assert.equal(secrets.at(-1), 'shop:s2')
    assert.equal((await client.get('/').response()).status, 200)
    assert.equal(issuer.requests.length, 2)
  })

  it('that is refused for many requests at a time is fetched again once, and each of them is sent again', async () => {
    let release = (_: string) => {}
    const second = new Promise<string>((resolve) => (release = resolve))
    const { proxy, client, issuer, upstream } = await setup(
      (count) => (count === 1 ? token('t1') : second),
      (authorization) => authorization !== 'Bearer t1',
    )
    const clients = [client, ...Array.from({ length: 9 }, () => proxy.connect())]
    const responses = clients.map((each) => each.get('/').response())
    await issuer.request(1)
    // All ten are refused before the issuer answers.
    await upstream.request(9)
    release(token('t2'))
    assert.deepEqual(
      (await Promise.all(responses)).map(({ status }) => status),
      clients.map(() => 200),
    )
    assert.equal(issuer.requests.length, 2)
    assert.equal(upstream.requests.length, 20)
  })

  it('that is refused again reaches the application as the upstream’s own 401, without a storm at the issuer', async () => {
    const { client, issuer, upstream } = await setup(
      (count) => token(`t${count}`),
      () => false,
    )
    for (let i = 0; i < 5; i++) {
      const response = await client.get('/').response()
      assert.deepEqual([response.status, response.body, response.field('X-Ambassador-Reason')], [401, 'refused', null])
    }
    assert.equal(issuer.requests.length, 2)
    assert.equal(upstream.requests.length, 6)
  })

  it('is asked for over TLS by the roots of the config, and of nobody else', async () => {
    const pki = new Pki()
    ends.push(() => pki.remove())
    const trusted = pki.authority()
    const { cert, key } = trusted.issue()
    const issuer = createServer({ cert, key }, (_, response) => {
      response.end(JSON.stringify({ access_token: 't1', expires_in: 60 }))
    })
    await new Promise<void>((resolve) => issuer.listen(0, '127.0.0.1', resolve))
    ends.push(() => issuer.close())
    issuer.on('connection', (socket) => ends.push(() => socket.destroy()))
    const upstream = await scriptedUpstream(ends, (request) => ok(request.field('authorization') ?? ''))
    const secrets = mkdtempSync(join(tmpdir(), 'oauth2-'))
    ends.push(() => rmSync(secrets, { recursive: true }))
    mkdirSync(join(secrets, 'issuer'))
    writeFileSync(join(secrets, 'issuer/secret'), 's1')
    writeFileSync(join(secrets, 'issuer/ca'), trusted.cert)
    writeFileSync(join(secrets, 'issuer/other'), pki.authority('Other').cert)
    const through = (tls?: object) => {
      const oauth2ClientCredentials = {
        tokenUrl: `https://localhost:${(issuer.address() as AddressInfo).port}/token`,
        clientId: 'shop',
        clientSecret: { secretKeyRef: { name: 'issuer', key: 'secret' } },
        ...(tls && { tls }),
      }
      const live = { name: 'live', endpoints: [{ host: '127.0.0.1', port: upstream.port }] }
      return renderedProxy({ upstreams: [{ ...live, auth: { oauth2ClientCredentials } }] }, ends, secrets)
    }
    const ca = (k: string) => ({ ca: { secretKeyRef: { name: 'issuer', key: k } } })
    const good = await (await through(ca('ca'))).connect().get('/').response()
    assert.equal(good.body, 'Bearer t1')
    for (const tls of [undefined, ca('other'), ca('missing')]) {
      const refused = await (await through(tls)).connect().get('/').response()
      assert.deepEqual([refused.status, refused.field('X-Ambassador-Reason')], [503, 'auth_unavailable'])
    }
    assert.equal(upstream.requests.length, 1)
  })

  it('is fetched for no request whose client has gone', async () => {
    let release = (_: string) => {}
    const issued = new Promise<string>((resolve) => (release = resolve))
    const { proxy, issuer, upstream, client } = await setup(() => issued)
    client.get('/left')
    await issuer.request(0)
    client.socket.destroy()
    await proxy.logged(1)
    release(token('t1'))
    assert.equal((await proxy.connect().get('/next').response()).status, 200)
    assert.deepEqual(
      upstream.requests.map(({ target }) => target),
      ['/next'],
    )
  })
})
