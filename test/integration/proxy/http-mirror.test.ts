/** Copies of requests to another upstream, on real sockets: what they are, and that the application never notices them. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import type { AmbassadorSpec } from '../../../operator/api/ambassador.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { ok, type ScriptedUpstream, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'
import { renderedProxy } from '../../helpers/rendered-proxy.ts'
import { closedPort } from '../../helpers/tcp.ts'

const ends = endsOfEach()

type Upstream = AmbassadorSpec['upstreams'][number]
type Mirror = NonNullable<NonNullable<AmbassadorSpec['routes']>[number]['mirror']>

const at = (name: string, port: number, more: Partial<Upstream> = {}): Upstream => ({
  name,
  endpoints: [{ host: '127.0.0.1', port }],
  ...more,
})

interface Setup {
  readonly mirror?: Omit<Mirror, 'upstream'>
  readonly live?: Partial<Upstream>
  readonly shadow?: Partial<Upstream>
  readonly retry?: AmbassadorSpec['retry']
  readonly secrets?: string
}

async function setup(livePort: number, shadowPort: number, { mirror, live, shadow, retry, secrets }: Setup = {}) {
  const spec = {
    upstreams: [at('live', livePort, live), at('shadow', shadowPort, shadow)],
    routes: [{ match: {}, to: [{ upstream: 'live' }], mirror: { upstream: 'shadow', ...mirror } }],
    ...(retry && { retry }),
  }
  const proxy = await renderedProxy(spec, ends, secrets)
  const found = proxy.compiler.clusters.find(({ cluster }) => cluster.name === 'shadow')
  assert.ok(found)
  return { client: proxy.connect(), proxy, counts: found.cells.mirrored, cluster: found.cluster }
}

const answers = (): Promise<ScriptedUpstream> => scriptedUpstream(ends, () => ok('live'))

async function until(isTrue: () => boolean): Promise<void> {
  const startedAt = performance.now()
  while (!isTrue()) {
    assert.ok(performance.now() - startedAt < 20_000, 'within 20 s')
    await new Promise((resolve) => setTimeout(resolve, 2))
  }
}

function secretsDir(secrets: Readonly<Record<string, string>>): string {
  const dir = mkdtempSync(join(tmpdir(), 'mirror-'))
  ends.push(() => rmSync(dir, { recursive: true }))
  for (const [name, value] of Object.entries(secrets)) {
    mkdirSync(join(dir, name))
    writeFileSync(join(dir, name, 'token'), value)
  }
  return dir
}

const bearer = (name: string) => ({ bearer: { secretKeyRef: { name, key: 'token' } } })

describe('a mirror', () => {
  it('gets the request as it was sent, for its own host and with its own credential', async () => {
    const live = await answers()
    const shadow = await scriptedUpstream(ends, () => withStatus(500, 'nobody reads this'))
    const secrets = secretsDir({ one: 'for-live', other: 'for-shadow' })
    const { client, counts } = await setup(live.port, shadow.port, {
      secrets,
      live: { auth: bearer('one') },
      shadow: { auth: bearer('other') },
    })
    client.write(
      'POST /v1/x?q=1 HTTP/1.1\r\nHost: a\r\nAuthorization: mine\r\nX-Case: Kept\r\nTransfer-Encoding: chunked\r\n\r\n',
    )
    client.write('5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n')
    const answer = await client.response()
    assert.deepEqual([answer.status, answer.body], [200, 'live'])
    const sent = live.requests[0]!
    const copy = await shadow.request(0)
    assert.equal(sent.field('authorization'), 'Bearer for-live')
    const lines = (head: string) => head.split('\r\n').filter((line) => line !== '')
    const expected = lines(sent.head)
      .filter((line) => !line.startsWith('Authorization:'))
      .map((line) => (line.startsWith('Host:') ? `Host: 127.0.0.1:${shadow.port}` : line))
    assert.deepEqual(lines(copy.head), [...expected, 'Authorization: Bearer for-shadow'])
    assert.equal(copy.body, '5\r\nhello\r\n0\r\nX-T: 1\r\n\r\n')
    await until(() => counts.sent === 1)
    assert.deepEqual(counts, { active: 0, sent: 1, failed: 0, dropped: 0, tooLarge: 0 })
  })

  it('gets no credential of the other upstream', async () => {
    const live = await answers()
    const shadow = await answers()
    const { client } = await setup(live.port, shadow.port, {
      secrets: secretsDir({ one: 'for-live' }),
      live: { auth: bearer('one') },
    })
    client.get('/')
    await client.response()
    assert.doesNotMatch((await shadow.request(0)).head, /for-live|authorization/i)
  })

  it('uses its connections again, whatever the answers are', async () => {
    const live = await answers()
    const shadow = await scriptedUpstream(ends, ({ index }) =>
      index % 2 === 0 ? withStatus(503, 'x'.repeat(70_000)) : 'HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No\r\n\r\n',
    )
    const { client, counts } = await setup(live.port, shadow.port)
    for (let i = 1; i <= 6; i++) {
      assert.equal((await client.get().response()).body, 'live')
      await until(() => counts.sent === i)
    }
    assert.equal(shadow.connections, 1)
  })

  it('that hangs, is dead or is not HTTP leaves the application alone', async () => {
    const live = await answers()
    const hanging = await scriptedUpstream(ends, () => null)
    const rude = await scriptedUpstream(ends, () => 'SSH-2.0 what\r\n\r\n')
    for (const [port, outcome] of [
      [hanging.port, 'active'],
      [await closedPort(), 'failed'],
      [rude.port, 'failed'],
    ] as const) {
      const { client, counts } = await setup(live.port, port)
      for (let i = 0; i < 3; i++) assert.equal((await client.get().response()).body, 'live')
      await until(() => counts[outcome] + counts.dropped === 3)
      assert.ok(counts[outcome] > 0)
    }
  })

  it('never waits for a connection: a copy that would is left out and counted', async () => {
    const live = await answers()
    const hanging = await scriptedUpstream(ends, () => null)
    const { client, counts, cluster } = await setup(live.port, hanging.port, {
      shadow: { limits: { maxConnections: 2 } },
    })
    for (let i = 0; i < 5; i++) assert.equal((await client.get().response()).body, 'live')
    assert.deepEqual([counts.active, counts.dropped], [2, 3])
    assert.equal(cluster.connections.pending, 0)
  })

  it('gets no body that was too large to keep', async () => {
    const live = await answers()
    const shadow = await answers()
    const { client, counts } = await setup(live.port, shadow.port, { retry: { maxBufferedBody: '1Ki' } })
    client.post('x'.repeat(1025))
    assert.equal((await client.response()).body, 'live')
    client.post('x'.repeat(1024))
    await client.response()
    await until(() => counts.sent === 1)
    assert.deepEqual([counts.tooLarge, shadow.requests.length], [1, 1])
  })

  it('gets its share', async () => {
    const live = await answers()
    const shadow = await answers()
    const { client, counts } = await setup(live.port, shadow.port, { mirror: { percent: '30%' } })
    for (let i = 0; i < 300; i++) await client.get().response()
    await until(() => counts.active === 0)
    const all = counts.sent + counts.dropped
    assert.ok(all > 45 && all < 135, `${all} of 300`)
  })

  it('hears nothing of requests that were never sent', async () => {
    const shadow = await answers()
    const { client, counts } = await setup(await closedPort(), shadow.port, {
      live: { circuitBreaker: { consecutiveFailures: 1, openDuration: '1h' } },
      retry: { maxRetries: 0 },
    })
    assert.equal((await client.get('/1').response()).field('x-ambassador-reason'), 'connect_refused')
    assert.equal((await client.get('/2').response()).field('x-ambassador-reason'), 'circuit_open')
    await until(() => counts.sent === 1)
    assert.deepEqual(
      shadow.requests.map(({ target }) => target),
      ['/1'],
    )
  })
})
