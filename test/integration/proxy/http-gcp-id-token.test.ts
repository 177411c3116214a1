/** ID tokens of Google on real sockets, from an imitation of the metadata server: the real one is only in Google's network. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { endsOfEach } from '../../helpers/ends.ts'
import { type Answer, ok, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'
import { renderedProxy } from '../../helpers/rendered-proxy.ts'

const ends = endsOfEach()

// The well-known file of a developer's machine must not be found.
process.env['CLOUDSDK_CONFIG'] = '/nonexistent'
delete process.env['GOOGLE_APPLICATION_CREDENTIALS']

const AUDIENCE = 'https://api.example.com/a?b&c'
const FLAVOR = 'Metadata-Flavor: Google'

/** A token of the form that Google's have, signed by nobody. */
function idToken(seconds: number, id: number): string {
  const encode = (part: object) => Buffer.from(JSON.stringify(part)).toString('base64url')
  return `${encode({ alg: 'none' })}.${encode({ aud: AUDIENCE, id, exp: Date.now() / 1000 + seconds })}.c2lnbmVk`
}

async function setup(
  issue: (count: number) => Answer | Promise<Answer>,
  accepts: (authorization: string | null) => boolean = () => true,
) {
  let count = 0
  const metadata = await scriptedUpstream(ends, () => issue(++count))
  process.env['GCE_METADATA_HOST'] = `127.0.0.1:${metadata.port}`
  const upstream = await scriptedUpstream(ends, (request) =>
    accepts(request.field('authorization')) ? ok(request.body) : withStatus(401, 'refused'),
  )
  const endpoints = [{ host: '127.0.0.1', port: upstream.port }]
  const auth = { gcpIdToken: { audience: AUDIENCE } }
  const proxy = await renderedProxy({ upstreams: [{ name: 'live', endpoints, auth }] }, ends)
  return { metadata, upstream, proxy, client: proxy.connect() }
}

describe('an ID token of Google', () => {
  it('is asked for once for all requests, with the audience whatever characters are in it', async () => {
    const token = idToken(3600, 1)
    const { metadata, upstream, proxy, client } = await setup(() => ok(token, FLAVOR))
    const clients = [client, ...Array.from({ length: 9 }, () => proxy.connect())]
    for (const each of clients) assert.equal((await each.get('/').response()).status, 200)
    assert.equal(metadata.requests.length, 1)
    const [asked] = metadata.requests
    const url = new URL(asked?.target ?? '', 'http://metadata')
    assert.equal(url.pathname, '/computeMetadata/v1/instance/service-accounts/default/identity')
    assert.deepEqual(
      [...url.searchParams],
      [
        ['format', 'full'],
        ['audience', AUDIENCE],
      ],
    )
    assert.equal(asked?.field('Metadata-Flavor'), 'Google')
    for (const each of upstream.requests) assert.equal(each.field('authorization'), `Bearer ${token}`)
    const [compiled] = proxy.compiler.clusters
    const left = (compiled?.credential?.expiresAt ?? 0) - Date.now()
    assert.ok(left > 3000_000 && left <= 3600_000, `${left}`)
  })

  it('is fetched again when the upstream refuses it, and the request is sent again', async () => {
    const tokens = [idToken(3600, 1), idToken(3600, 2)]
    const { client, metadata, upstream } = await setup(
      (count) => ok(tokens[count - 1], FLAVOR),
      (authorization) => authorization === `Bearer ${tokens[1]}`,
    )
    const response = await client.post('charge').response()
    assert.deepEqual([response.status, response.body], [200, 'charge'])
    assert.deepEqual([metadata.requests.length, upstream.requests.length], [2, 2])
  })

  it('that cannot be had is a 503 of our own with the status of the issuer, and nothing of its words', async () => {
    const { client, upstream } = await setup(() => withStatus(404, 'hidden words of the issuer', FLAVOR))
    const response = await client.get('/').response()
    assert.deepEqual([response.status, response.field('X-Ambassador-Reason')], [503, 'auth_unavailable'])
    assert.match(response.body, /the issuer answered 404, check the service account of the pod/)
    assert.doesNotMatch(response.body, /hidden/)
    assert.equal(upstream.requests.length, 0)
  })

  it('that has expired when it comes is not used', async () => {
    const { client, upstream } = await setup(() => ok(idToken(-5, 1), FLAVOR))
    const response = await client.get('/').response()
    assert.deepEqual([response.status, response.field('X-Ambassador-Reason')], [503, 'auth_unavailable'])
    assert.match(response.body, /already expired/)
    assert.equal(upstream.requests.length, 0)
  })
})
