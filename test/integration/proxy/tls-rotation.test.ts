/** Certificates and CAs that are replaced, as kubelet replaces them, under load: the process, its mounted volumes, real handshakes. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { connect } from 'node:net'
import { after, before, describe, it } from 'node:test'
import { createServer, type TLSSocket } from 'node:tls'
import { Env } from '../../../common/names.ts'
import type { Ambassador } from '../../../operator/api/ambassador.ts'
import { render } from '../../../operator/render/render.ts'
import { HttpTestClient } from '../../helpers/http-client.ts'
import { type Leaf, Pki } from '../../helpers/pki.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { TestServer } from '../../helpers/tcp.ts'
import { Volumes } from '../../helpers/volume.ts'

/** ROTATION=long: every 2 s for a minute, as a person would try it. */
const IS_LONG = process.env['ROTATION'] === 'long'
const EVERY_MS = IS_LONG ? 2000 : 400
const LAST_MS = IS_LONG ? 60_000 : 12_000

const ends: (() => unknown)[] = []
after(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

const pki = new Pki()
ends.push(() => pki.remove())
const authorities = [pki.authority('First CA'), pki.authority('Second CA')] as const
const servers = authorities.map((authority) => authority.issue())
/** Pairs of the application, signed by one and the other. */
const clients = [0, 1, 2, 3].map((i) => authorities[i % 2]!.issue({ commonName: `shop-${i}`, names: [] }))
const both = authorities.map(({ cert }) => cert).join('')
const expired = authorities[0].issue({ names: [], notBefore: new Date('2020-01-01'), notAfter: new Date('2021-01-01') })

const volumes = new Volumes()
ends.push(() => volumes.remove())

/** A server that wants a certificate of one of the two CAs, and counts the handshakes that went wrong. */
async function upstream(serve: (socket: TLSSocket) => void) {
  const seen = { broken: [] as string[], names: new Set<string>(), reused: 0 }
  const server = createServer(
    { ...servers[0]!, ca: both, requestCert: true, rejectUnauthorized: true, allowHalfOpen: true },
    (socket) => {
      seen.names.add(String(socket.getPeerCertificate().subject?.CN))
      if (socket.isSessionReused()) seen.reused++
      socket.on('error', () => {})
      serve(socket)
    },
  )
  server.on('tlsClientError', ({ message }) => seen.broken.push(message))
  const made = await new TestServer(server, 'secureConnection').listen()
  ends.push(() => made.close())
  return { port: made.port, server, made, seen, use: (leaf: Leaf) => server.setSecureContext({ ...leaf, ca: both }) }
}

const pair = ({ cert, key }: Leaf) => ({ 'tls.crt': cert, 'tls.key': key })

describe('certificates that are replaced under load', () => {
  let http: Awaited<ReturnType<typeof upstream>>
  let tcp: Awaited<ReturnType<typeof upstream>>
  let proxy: ProxyProcess
  const ports = { web: 0, raw: 0 }

  before(async () => {
    // Each answer ends its connection, so that each request is a handshake.
    http = await upstream((socket) =>
      socket.on('data', () => socket.end('HTTP/1.1 200 OK\r\ncontent-length: 2\r\nconnection: close\r\n\r\nok')),
    )
    tcp = await upstream((socket) => socket.pipe(socket))
    volumes.secret('pair', pair(clients[0]!))
    volumes.secret('other', { token: 'one' })
    volumes.configMap('ca', { 'ca.pem': authorities[0].cert })
    for (const [name, protocol, { port }] of [
      ['web', 'HTTP', http],
      ['raw', 'TCP', tcp],
    ] as const) {
      ports[name] = await freePort()
      const upstreams = [
        {
          name: 'live',
          endpoints: [{ host: 'localhost', port }],
          tls: { ca: { configMapKeyRef: { name: 'ca', key: 'ca.pem' } }, clientCertificate: { secretName: 'pair' } },
          ...(protocol === 'HTTP' && { auth: { bearer: { secretKeyRef: { name: 'other', key: 'token' } } } }),
        },
      ]
      const spec = { protocol, listen: { port: ports[name] }, upstreams, retry: undefined }
      const { config, problems } = render({ ambassador: { metadata: { name }, spec } as unknown as Ambassador })
      assert.ok(config !== null, JSON.stringify(problems))
      volumes.config(name, config)
    }
    proxy = await ProxyProcess.start({
      [Env.ambassadors]: 'web,raw',
      [Env.configDir]: volumes.configDir,
      [Env.secretsDir]: volumes.secretsDir,
      [Env.configMapsDir]: volumes.configMapsDir,
    })
    ends.push(() => {
      proxy.kill('SIGKILL')
      return proxy.exit
    })
    for (const name of ['web', 'raw'])
      await proxy.line((line) => line['ambassador'] === name && line['msg'] === 'config in force')
  })

  async function request(): Promise<string> {
    const client = new HttpTestClient({ port: ports.web })
    try {
      const { status, body } = await client.get().response()
      return `${status} ${status === 200 ? body : body.slice(0, 300)}`
    } finally {
      client.socket.destroy()
    }
  }

  async function exchange(): Promise<string> {
    const socket = connect(ports.raw, '127.0.0.1')
    let text = ''
    socket.on('data', (chunk: Buffer) => (text += chunk))
    socket.end('hello')
    await once(socket, 'close')
    return text
  }

  /** Changes what is mounted, and waits until the log says this of both upstreams. */
  async function told(change: () => void, message: string): Promise<Record<string, unknown>> {
    proxy.forget()
    change()
    return await proxy
      .line(() => proxy.log.filter(({ msg }) => msg === message).length === 2)
      .then(() => {
        return proxy.log.find(({ msg }) => msg === message)!
      })
  }

  const replaced = 'TLS files replaced'
  const again = 'TLS files are usable again'
  const kept = 'TLS files are not usable, the last good ones are kept'
  const metric = async (name: string) => {
    const { body } = await proxy.get('/metrics')
    return [...body.matchAll(new RegExp(`^${name}(?:\\{.*\\})? (.*)$`, 'gm'))].map(([, value]) => Number(value))
  }

  it('lose no handshake and no request: pairs, CAs and the certificates of the servers in turn', async (t) => {
    const failures: string[] = []
    let isOver = false
    const counts = { http: 0, tcp: 0, swaps: 0 }
    const load = async (one: () => Promise<string>, right: string, count: 'http' | 'tcp') => {
      while (!isOver) {
        const answer = await one().catch((error: Error) => error.message)
        counts[count]++
        if (answer !== right) failures.push(`${count}: ${answer}`)
        // A hundred handshakes a second or two, and processor time for what runs beside this.
        await new Promise((resolve) => setTimeout(resolve, 15))
      }
    }
    const loads = [0, 1].flatMap(() => [load(request, '200 ok', 'http'), load(exchange, 'hello', 'tcp')])
    const endsAt = performance.now() + LAST_MS
    for (let turn = 0; performance.now() < endsAt; turn++) {
      const next = (turn + 1) % 2
      // As a CA is replaced in life: first both are trusted, then the servers change, then the old one goes.
      for (const step of [
        () => volumes.configMap('ca', { 'ca.pem': both }),
        () => volumes.secret('pair', pair(clients[(turn + 1) % clients.length]!)),
        () => volumes.configMap('ca', { 'ca.pem': authorities[next]!.cert }),
      ]) {
        const startedAt = performance.now()
        await told(step, replaced)
        if (counts.swaps++ % 3 === 1) for (const { use } of [http, tcp]) use(servers[next]!)
        await new Promise((resolve) => setTimeout(resolve, EVERY_MS - (performance.now() - startedAt)))
      }
    }
    isOver = true
    await Promise.all(loads)
    const full = http.made.accepted + tcp.made.accepted - http.seen.reused - tcp.seen.reused
    t.diagnostic(
      `${counts.swaps} replacements, ${counts.http} requests and ${counts.tcp} connections, ${full} whole handshakes, ${failures.length} failed`,
    )
    assert.deepEqual(failures, [])
    assert.deepEqual([...http.seen.broken, ...tcp.seen.broken], [])
    assert.ok(counts.swaps >= 6 && counts.http >= 50 && counts.tcp >= 50, JSON.stringify(counts))
    assert.deepEqual(http.seen.names.size > 1 && tcp.seen.names.size > 1, true)
    assert.deepEqual(await metric('ambassador_tls_reload_failures_total'), [0])
  })

  const bad: [title: string, files: Record<string, string>, detail: string][] = [
    [
      'a key of another certificate',
      { 'tls.crt': clients[0]!.cert, 'tls.key': clients[1]!.key },
      "Secret 'pair', key 'tls.key' does not match the certificate of CN=shop-0, store the two of one pair",
    ],
    [
      'a certificate that is cut off',
      { 'tls.crt': clients[0]!.cert.slice(0, 300), 'tls.key': clients[0]!.key },
      "Secret 'pair', key 'tls.crt' its certificate (line 1) has no END line, copy it whole",
    ],
    [
      'a key that is cut off',
      { 'tls.crt': clients[0]!.cert, 'tls.key': clients[0]!.key.slice(0, 100) },
      "Secret 'pair', key 'tls.key' has a private key without its END line, copy it whole",
    ],
    [
      'an expired certificate',
      pair(expired),
      "Secret 'pair', key 'tls.crt': CN=nobody has expired (valid from 2020-01-01T00:00:00Z to 2021-01-01T00:00:00Z), renew it",
    ],
    ['a Secret without the key', { 'tls.crt': clients[0]!.cert }, "Secret 'pair' has no key 'tls.key', add it"],
  ]
  for (const [index, [title, files, detail]] of bad.entries()) {
    it(`keep the last good pair over ${title}, say so, and take the next good one`, async () => {
      const name = title.replaceAll(' ', '-')
      const good = authorities[1].issue({ commonName: name, names: [] })
      // The same CAs once more are others than before, as far as the sidecar can tell.
      await told(() => volumes.configMap('ca', { 'ca.pem': both.repeat(2 + (index % 2)) }), replaced)
      const before = (await metric('ambassador_tls_reload_failures_total'))[0] ?? 0
      const line = await told(() => volumes.secret('pair', files), kept)
      assert.deepEqual([line['level'], line['detail']], ['warn', `tls.clientCertificate: ${detail}`])
      assert.deepEqual(await metric('ambassador_tls_reload_failing'), [1, 1])
      assert.ok(((await metric('ambassador_tls_reload_failures_total'))[0] ?? 0) > before)
      assert.deepEqual([await request(), await exchange()], ['200 ok', 'hello'])
      const { ambassadors } = JSON.parse((await proxy.get('/configz')).body)
      const states = ambassadors[0].refs.map(({ state }: { state: string }) => state)
      assert.equal(states.filter((state: string) => state !== 'Found').length, 1)
      http.seen.names.clear()
      await told(() => volumes.secret('pair', pair(good)), replaced)
      assert.deepEqual(await metric('ambassador_tls_reload_failing'), [0, 0])
      assert.equal(await request(), '200 ok')
      assert.deepEqual([...http.seen.names], [name])
    })
  }

  it('name the bad certificate of a bundle and keep the bundle that was good', async () => {
    const good = `${both}# good\n`
    await told(() => volumes.configMap('ca', { 'ca.pem': good }), replaced)
    const lines = authorities[0].cert.split('\n').length
    const damaged = authorities[1].cert.replace(/MII[A-Za-z0-9+/]{20}/, '')
    const line = await told(
      () => volumes.configMap('ca', { 'ca.pem': `${authorities[0].cert}${damaged}${authorities[1].cert}` }),
      kept,
    )
    assert.equal(
      line['detail'],
      `tls.ca: ConfigMap 'ca', key 'ca.pem' certificate 2 of 3 (line ${lines}) does not parse, replace it or remove it`,
    )
    assert.deepEqual([await request(), await exchange()], ['200 ok', 'hello'])
    await told(() => volumes.configMap('ca', { 'ca.pem': good }), again)
    assert.deepEqual(await metric('ambassador_tls_reload_failing'), [0, 0])
  })

  it('are resumed over changes that have nothing to do with them', async () => {
    for (let i = 0; i < 3; i++) await request()
    const before = { reused: http.seen.reused, accepted: http.made.accepted }
    assert.ok(before.reused > 0)
    // Another Secret of the same Ambassador, and the same bundle written again.
    volumes.secret('other', { token: 'two' })
    volumes.configMap('ca', { 'ca.pem': `${both}# good\n` })
    const startedAt = performance.now()
    while (performance.now() - startedAt < 500) assert.equal(await request(), '200 ok')
    assert.equal(http.seen.reused - before.reused, http.made.accepted - before.accepted)
  })
})
