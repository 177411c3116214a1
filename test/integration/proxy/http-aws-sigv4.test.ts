/** Signatures of AWS on real sockets, verified by a server of our own that computes them again with AWS's library: AWS itself is elsewhere. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { describe, it } from 'node:test'
import { Sha256 } from '@aws-crypto/sha256-js'
import { SignatureV4 } from '@smithy/signature-v4'
import type { AmbassadorSpec } from '../../../operator/api/ambassador.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { type Answer, ok, type ReceivedRequest, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'
import { renderedProxy } from '../../helpers/rendered-proxy.ts'

const ends = endsOfEach()

const KEYS = {
  accessKeyId: 'AKIDEXAMPLE',
  secretAccessKey: 'wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY',
  sessionToken: 'token/of+the=session',
}
process.env['AWS_ACCESS_KEY_ID'] = KEYS.accessKeyId
process.env['AWS_SECRET_ACCESS_KEY'] = KEYS.secretAccessKey
process.env['AWS_SESSION_TOKEN'] = KEYS.sessionToken
process.env['AWS_EC2_METADATA_DISABLED'] = 'true'
delete process.env['AWS_PROFILE']

const REGION = 'eu-west-1'

/** Fields of a request, by name in lower case; what is there twice is joined. */
function fieldsOf({ head }: ReceivedRequest): Record<string, string> {
  const fields: Record<string, string> = {}
  for (const line of head
    .split('\r\n')
    .slice(1)
    .filter((each) => each !== '')) {
    const name = line.slice(0, line.indexOf(':')).toLowerCase()
    const value = line.slice(line.indexOf(':') + 1).trim()
    fields[name] = fields[name] === undefined ? value : `${fields[name]},${value}`
  }
  return fields
}

/** Content of a body as it came. */
function contentOf(request: ReceivedRequest): string {
  if (request.field('transfer-encoding') === null) return request.body
  let content = ''
  for (let at = 0; ; ) {
    const data = request.body.indexOf('\r\n', at) + 2
    const size = Number.parseInt(request.body.slice(at, data), 16)
    if (size === 0) return content
    content += request.body.slice(data, data + size)
    at = data + size + 2
  }
}

/** Whether the signature of a request is the one that AWS's library makes of the same parts. */
async function verify(request: ReceivedRequest, service: string): Promise<string | null> {
  const fields = fieldsOf(request)
  const given = fields['authorization'] ?? ''
  const signed = /SignedHeaders=([^,]*)/.exec(given)?.[1]?.split(';') ?? []
  for (const name of ['host', 'x-amz-date', 'x-amz-security-token'])
    if (!signed.includes(name)) return `${name} is not signed`
  const [path = '', query = ''] = request.target.split('?')
  const stamp = fields['x-amz-date'] ?? ''
  const iso = stamp.replace(/(....)(..)(..)T(..)(..)(..)Z/, '$1-$2-$3T$4:$5:$6Z')
  const kept = Object.fromEntries(
    signed
      .filter((name) => !['x-amz-date', 'x-amz-security-token'].includes(name))
      .map((name) => [name, fields[name] ?? '']),
  )
  const isObject = service === 's3'
  const signer = new SignatureV4({
    credentials: KEYS,
    region: REGION,
    service,
    sha256: Sha256,
    uriEscapePath: !isObject,
    applyChecksum: isObject,
  })
  const pairs = [...new URLSearchParams(query)]
  const again = await signer.sign(
    {
      method: request.method,
      protocol: 'https:',
      hostname: 'x',
      path,
      query: Object.fromEntries(pairs),
      headers: kept,
      body: contentOf(request),
    },
    { signingDate: new Date(iso) },
  )
  return again.headers['authorization'] === given ? null : `${again.headers['authorization']} is not ${given}`
}

async function setup(
  service: string,
  more: Partial<AmbassadorSpec> = {},
  respond: (request: ReceivedRequest) => Answer = () => ok(),
) {
  const upstream = await scriptedUpstream(ends, respond)
  const endpoints = [{ host: '127.0.0.1', port: upstream.port }]
  const auth = { awsSigV4: { service, region: REGION } }
  const proxy = await renderedProxy({ upstreams: [{ name: 'live', endpoints, auth }], ...more }, ends)
  return { upstream, proxy, client: proxy.connect() }
}

describe('a request signed for AWS', () => {
  it('carries a signature over what goes on the wire, and nothing of a signature of the application', async () => {
    const { upstream, client } = await setup('execute-api')
    const own = [
      'Authorization: AWS4-HMAC-SHA256 Credential=dummy',
      'X-Amz-Date: 20000101T000000Z',
      'X-Amz-Security-Token: dummy',
    ]
    client.get(
      '/stage/a%20b/../c//d?b=2&a=1&a=%C3%A9&empty',
      ...own,
      'X-Amz-Target: T.Get',
      'Content-Type:  text/plain ',
    )
    assert.equal((await client.response()).status, 200)
    const request = await upstream.request(0)
    assert.equal(request.target, '/stage/a%20b/../c//d?b=2&a=1&a=%C3%A9&empty')
    assert.doesNotMatch(request.head, /dummy|20000101/)
    assert.equal(request.head.match(/\r\nX-Amz-Date:/gi)?.length, 1)
    assert.equal((await client.get('/plain?x=1', 'X-Amz-Target: T.Get').response()).status, 200)
    assert.equal(await verify(await upstream.request(1), 'execute-api'), null)
  })

  it('signs the content of a body with a length and of one in chunks, whole or in pieces', async () => {
    const { upstream, client } = await setup('execute-api')
    assert.equal((await client.post('some content', 'Content-Type: text/plain').response()).status, 200)
    client.write('POST /chunks HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nsome\r\n')
    client.write('8\r\n content\r\n0\r\n\r\n')
    assert.equal((await client.response()).status, 200)
    for (const index of [0, 1]) {
      const request = await upstream.request(index)
      assert.equal(contentOf(request), 'some content')
      assert.equal(await verify(request, 'execute-api'), null)
    }
  })

  it('answers the expectation of a client itself, since the body must come before it is signed', async () => {
    const { upstream, client } = await setup('execute-api')
    client.write('POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 4\r\nExpect: 100-continue\r\n\r\n')
    await once(client.socket, 'data')
    client.write('body')
    assert.equal((await client.response()).status, 200)
    assert.deepEqual(client.interim, [100])
    assert.equal(await verify(await upstream.request(0), 'execute-api'), null)
  })

  it('sends S3 the hash of the content, and content that is not kept as unsigned', async () => {
    const { upstream, client } = await setup('s3', { retry: { maxBufferedBody: '1Ki' } })
    assert.equal((await client.post('some content').response()).status, 200)
    assert.equal((await client.post('x'.repeat(5000)).response()).status, 200)
    const [small, large] = [await upstream.request(0), await upstream.request(1)]
    assert.match(small.field('x-amz-content-sha256') ?? '', /^[0-9a-f]{64}$/)
    assert.equal(large.field('x-amz-content-sha256'), 'UNSIGNED-PAYLOAD')
    assert.equal(large.body.length, 5000)
    for (const each of [small, large]) assert.equal(await verify(each, 's3'), null)
  })

  it('refuses a body that is too large to be kept for any other service with 413, and says what to do', async () => {
    const { upstream, client } = await setup('execute-api', { retry: { maxBufferedBody: '1Ki' } })
    const response = await client.post('x'.repeat(5000)).response()
    assert.deepEqual([response.status, response.field('X-Ambassador-Reason')], [413, 'bad_request'])
    assert.match(response.body, /larger than the 1024 bytes that may be kept to be signed: raise retry.maxBufferedBody/)
    assert.equal(upstream.requests.length, 0)
  })

  it('refuses content that the application signs piece by piece', async () => {
    const { upstream, client } = await setup('s3')
    const response = await client.post('x', 'X-Amz-Content-Sha256: STREAMING-AWS4-HMAC-SHA256-PAYLOAD').response()
    assert.deepEqual([response.status, response.field('X-Ambassador-Reason')], [400, 'bad_request'])
    assert.match(response.body, /let it send the body unsigned/)
    assert.equal(upstream.requests.length, 0)
  })

  it('is signed anew for each retry', async () => {
    const { upstream, client } = await setup(
      'execute-api',
      { retry: { maxRetries: 1, on: ['5xx'], methods: 'All' } },
      ({ index }) => (index === 0 ? withStatus(500) : ok()),
    )
    assert.equal((await client.post('charge').response()).status, 200)
    for (const index of [0, 1]) assert.equal(await verify(await upstream.request(index), 'execute-api'), null)
  })

  it('is signed by the clock of an upstream that refuses ours, once', async () => {
    const ahead = new Date(Date.now() + 3_600_000)
    const { upstream, client } = await setup('execute-api', {}, ({ index }) =>
      index === 0 ? withStatus(403, 'skewed', `Date: ${ahead.toUTCString()}`) : ok(),
    )
    assert.equal((await client.post('charge').response()).status, 200)
    const stamp = (await upstream.request(1)).field('x-amz-date') ?? ''
    const signedAt = Date.parse(stamp.replace(/(....)(..)(..)T(..)(..)(..)Z/, '$1-$2-$3T$4:$5:$6Z'))
    assert.ok(Math.abs(signedAt - ahead.getTime()) < 600_000, stamp)
    assert.equal(await verify(await upstream.request(1), 'execute-api'), null)
  })

  const expired: [how: string, answer: string][] = [
    ['a field', withStatus(403, '{}', 'x-amzn-ErrorType: ExpiredTokenException:http://internal.amazon.com/')],
    ['JSON', withStatus(403, '{"__type":"com.amazon.coral.service#ExpiredTokenException"}')],
    ['the XML of S3', withStatus(400, '<?xml version="1.0"?><Error><Code>ExpiredToken</Code></Error>')],
  ]
  for (const [how, answer] of expired) {
    it(`is signed once more with keys fetched anew when the upstream says in ${how} that they have expired`, async () => {
      const { upstream, client } = await setup('execute-api', {}, ({ index }) => (index === 1 ? answer : ok()))
      assert.equal((await client.get().response()).status, 200)
      process.env['AWS_ACCESS_KEY_ID'] = 'AKIDOTHER'
      ends.push(() => {
        process.env['AWS_ACCESS_KEY_ID'] = KEYS.accessKeyId
      })
      assert.equal((await client.post('charge').response()).status, 200)
      const keyOf = async (index: number) =>
        /Credential=([^/]*)/.exec((await upstream.request(index)).field('authorization') ?? '')?.[1]
      assert.deepEqual([await keyOf(1), await keyOf(2)], [KEYS.accessKeyId, 'AKIDOTHER'])
      assert.equal((await upstream.request(2)).body, 'charge')
    })
  }

  it('is signed anew once: a second refusal is the answer of the application', async () => {
    const { upstream, client } = await setup('execute-api', {}, () => withStatus(403, 'ExpiredToken'))
    assert.equal((await client.get().response()).body, 'ExpiredToken')
    assert.equal(upstream.requests.length, 2)
  })

  it('leaves a 403 that has nothing to do with time to the application', async () => {
    const { upstream, client } = await setup('execute-api', {}, () =>
      withStatus(403, 'denied', `Date: ${new Date().toUTCString()}`),
    )
    const response = await client.get('/').response()
    assert.deepEqual([response.status, response.body], [403, 'denied'])
    assert.equal(upstream.requests.length, 1)
  })
})
