/** The examples as a person runs them: `ambassador run` with the file as it stands, but for hosts and ports, which are stand-ins here. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { endsOfEach } from '../../helpers/ends.ts'
import { HttpTestClient } from '../../helpers/http-client.ts'
import { ok, scriptedUpstream, withStatus } from '../../helpers/http-upstream.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'

const EXAMPLES = join(import.meta.dirname, '../../../examples')
const ends = endsOfEach()

/** Runs an example with stand-ins for its hosts, by name. `untouched` is a text that is left as it is all the same. */
async function run(name: string, hosts: Readonly<Record<string, number>>, untouched = '') {
  const root = mkdtempSync(join(tmpdir(), 'ambassador-example-'))
  ends.push(() => rmSync(root, { recursive: true }))
  mkdirSync(join(root, 'payment-token'))
  writeFileSync(join(root, 'payment-token', 'token'), 'example-token\n')
  const port = await freePort()
  let text = readFileSync(join(EXAMPLES, name, 'ambassador.yaml'), 'utf8')
  const changed = (from: string, to: string) => {
    assert.ok(text.includes(from), `${name} has no '${from}'`)
    text = text.replaceAll(from, to)
  }
  for (const [host, own] of Object.entries(hosts)) {
    if (name !== 'fastapi-ambassador') changed(`{ host: ${host}, port: 80 }`, `{ host: 127.0.0.1, port: ${own} }`)
    if (untouched !== `"${host}:80"`) text = text.replaceAll(`"${host}:80"`, `"127.0.0.1:${own}"`)
  }
  text = text.replace(/(listen:\s+port: )\d+/, `$1${port}`)
  const file = join(root, 'ambassador.yaml')
  writeFileSync(file, text)
  const own = ['--telemetry-port', `${await freePort()}`, '--admin-port', `${await freePort()}`, '--secrets', root]
  const proxy = await ProxyProcess.start({}, ['cli/main.ts', 'run', '-f', file, ...own])
  ends.push(() => proxy.end())
  await proxy.ready()
  const connect = (): HttpTestClient => {
    const client = new HttpTestClient({ port })
    ends.push(() => client.socket.destroy())
    return client
  }
  return { proxy, connect }
}

describe('the example', () => {
  it('fastapi-ambassador sends each request to the host that it names, out of its list', async () => {
    let failures = 0
    const billing = await scriptedUpstream(ends, () => (failures-- > 0 ? withStatus(503) : ok('billing')))
    const [catalog, other] = [
      await scriptedUpstream(ends, () => ok('catalog')),
      await scriptedUpstream(ends, () => ok()),
    ]
    const { connect } = await run('fastapi-ambassador', { billing: billing.port, catalog: catalog.port })
    const client = connect()
    const ask = (port: number) => client.get('/', `X-Upstream-Host: 127.0.0.1:${port}`).response()
    assert.equal((await ask(catalog.port)).body, 'catalog')
    failures = 1
    assert.equal((await ask(billing.port)).body, 'billing')
    assert.equal(billing.requests.length, 2)
    const { head } = await billing.request(1)
    assert.match(head, new RegExp(`\\r\\nHost: 127\\.0\\.0\\.1:${billing.port}\\r\\n`))
    assert.match(head, /\r\nX-Request-ID: \S+\r\n/)
    assert.doesNotMatch(head, /X-Upstream-Host/)
    assert.deepEqual([(await ask(other.port)).status, (await client.get('/').response()).status], [404, 404])
    assert.equal(other.connections, 0)
  })

  it('nginx-rate-limit lets a burst of 20 through and answers the rest 429 with Retry-After', async () => {
    const api = await scriptedUpstream(ends, () => ok())
    const { connect } = await run('nginx-rate-limit', { 'quota-api': api.port })
    const client = connect()
    const startedAt = performance.now()
    client.write('GET / HTTP/1.1\r\nHost: a\r\n\r\n'.repeat(60))
    const answers = []
    for (let i = 0; i < 60; i++) answers.push(await client.response())
    const seconds = (performance.now() - startedAt) / 1000
    const passed = answers.filter(({ status }) => status === 200).length
    assert.ok(passed >= 20 && passed <= 21 + 10 * seconds, `${passed} of 60 in ${seconds} s`)
    assert.equal(api.requests.length, passed)
    const refused = answers.find(({ status }) => status !== 200)
    assert.deepEqual([refused?.status, refused?.field('X-Ambassador-Reason')], [429, 'rate_limited'])
    assert.match(refused?.field('Retry-After') ?? '', /^[1-9]\d*$/)
  })

  it('envoy-http follows a try that hangs, or fails, by another one, and a POST by none', async () => {
    const answers = [null, withStatus(503), ok('third'), withStatus(503)]
    const service = await scriptedUpstream(ends, () => answers.shift())
    const { connect } = await run('envoy-http', { inventory: service.port })
    const client = connect()
    const startedAt = performance.now()
    assert.equal((await client.get('/').response()).body, 'third')
    assert.ok(performance.now() - startedAt >= 900)
    assert.equal(service.requests.length, 3)
    assert.equal((await client.post('x').response()).status, 503)
    assert.equal(service.requests.length, 4)
  })

  it('data-localization sends the users of India to the store of India, and a store that is down fails alone', async () => {
    const [world, india] = [
      await scriptedUpstream(ends, () => ok('world')),
      await scriptedUpstream(ends, () => ok('india')),
    ]
    const { connect } = await run('data-localization', { 'image-store': world.port, 'image-store-in': india.port })
    const client = connect()
    assert.equal((await client.get('/', 'X-User-Region: IN').response()).body, 'india')
    assert.equal((await client.get('/', 'X-User-Region: FR').response()).body, 'world')
    assert.equal((await client.get('/').response()).body, 'world')
    await india.server.close()
    for (let i = 0; i < 4; i++) {
      const down = await client.get('/', 'X-User-Region: IN').response()
      assert.ok(down.status >= 502 && down.field('X-Ambassador-Reason') !== null, `status ${down.status}`)
      assert.equal((await client.get('/').response()).body, 'world')
    }
  })

  it('beta-testing gives about one user in twenty the beta, always the same ones, and a tester always', async () => {
    const [stable, beta] = [await scriptedUpstream(ends, () => ok('s')), await scriptedUpstream(ends, () => ok('b'))]
    const { connect } = await run('beta-testing', { search: stable.port, 'search-beta': beta.port })
    const sides = async () => {
      const all: string[] = []
      let client = connect()
      for (let user = 0; user < 400; user++) {
        if (user % 25 === 0) client = connect()
        all.push((await client.get('/', `X-User-Id: user-${user}`).response()).body)
      }
      return all
    }
    const first = await sides()
    assert.deepEqual(await sides(), first)
    // 5 % of 400, with a standard deviation of 4.4.
    const count = first.filter((side) => side === 'b').length
    assert.ok(count > 2 && count < 42, `${count} of 400 users have the beta`)
    const stays = first.indexOf('s')
    assert.equal((await connect().get('/', `X-User-Id: user-${stays}`, 'X-Beta: 1').response()).body, 'b')
  })

  it('payment adds the token, sends no POST twice, opens its circuit and dials nobody else', async () => {
    let isDown = false
    const provider = await scriptedUpstream(ends, ({ socket }) => {
      if (!isDown) return ok('charged')
      socket.destroy()
      return null
    })
    const { connect } = await run('payment', { 'payment-provider': provider.port })
    const client = connect()
    assert.equal((await client.post('amount=1', 'Authorization: Bearer of-the-application').response()).body, 'charged')
    assert.equal((await provider.request(0)).field('Authorization'), 'Bearer example-token')
    isDown = true
    // The first one meets a connection that was in use before; that it breaks says nothing of the provider.
    for (let i = 1; i <= 4; i++) {
      assert.equal((await connect().post('amount=1').response()).status, 502)
      assert.equal(provider.requests.length, 1 + i)
    }
    const open = await connect().post('amount=1').response()
    assert.deepEqual([open.status, open.field('X-Ambassador-Reason')], [503, 'circuit_open'])
    assert.equal(provider.requests.length, 5)
  })

  it('payment dials nobody whom its list does not name', async () => {
    const elsewhere = await scriptedUpstream(ends, () => ok())
    const { connect } = await run('payment', { 'payment-provider': elsewhere.port }, '"payment-provider:80"')
    const refused = await connect().get('/').response()
    assert.deepEqual([refused.status, refused.field('X-Ambassador-Reason')], [502, 'egress_denied'])
    assert.equal(elsewhere.connections, 0)
  })
})
