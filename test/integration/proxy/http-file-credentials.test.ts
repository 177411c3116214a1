/** Credentials in mounted files on real sockets: what the upstream refuses is looked for again, and a token that expired is not sent. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { endsOfEach } from '../../helpers/ends.ts'
import { ok, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'
import { renderedProxy } from '../../helpers/rendered-proxy.ts'

const ends = endsOfEach()

/** A proxy with a bearer token in a file, and an upstream that takes one token alone. */
async function setup(first: string, accepted: string) {
  const secrets = mkdtempSync(join(tmpdir(), 'file-credentials-'))
  ends.push(() => rmSync(secrets, { recursive: true }))
  mkdirSync(join(secrets, 'payments'))
  const write = (text: string) => writeFileSync(join(secrets, 'payments/token'), `${text}\n`)
  write(first)
  const upstream = await scriptedUpstream(ends, (request) =>
    request.field('authorization') === `Bearer ${accepted}` ? ok(request.body) : withStatus(401, 'refused'),
  )
  const auth = { bearer: { secretKeyRef: { name: 'payments', key: 'token' } } }
  const endpoints = [{ host: '127.0.0.1', port: upstream.port }]
  const proxy = await renderedProxy({ upstreams: [{ name: 'live', endpoints, auth }] }, ends, secrets)
  return { upstream, write, client: proxy.connect() }
}

describe('a credential in a file', () => {
  it('that the upstream refuses is read again at once, and the request is sent again with another one', async () => {
    const { upstream, write, client } = await setup('one', 'two')
    write('two')
    const response = await client.post('charge').response()
    assert.deepEqual([response.status, response.body], [200, 'charge'])
    assert.deepEqual(
      upstream.requests.map((each) => [each.field('authorization'), each.body]),
      [
        ['Bearer one', 'charge'],
        ['Bearer two', 'charge'],
      ],
    )
  })

  it('that is still the same leaves the 401 of the upstream to the application, and sends nothing twice', async () => {
    const { upstream, client } = await setup('one', 'two')
    const response = await client.post('charge').response()
    assert.deepEqual([response.status, response.body, response.field('X-Ambassador-Reason')], [401, 'refused', null])
    assert.equal(upstream.requests.length, 1)
  })

  it('with a line break inside is a 503 of our own that does not show it', async () => {
    const { upstream, client } = await setup('sec\nret', 'two')
    const response = await client.get('/').response()
    assert.deepEqual([response.status, response.field('X-Ambassador-Reason')], [503, 'auth_unavailable'])
    assert.match(response.body, /has a line break inside, put one line there/)
    assert.doesNotMatch(response.body, /sec|ret"/)
    assert.equal(upstream.requests.length, 0)
  })
})
