/** One sidecar process under steady HTTP load while everything around it changes: no request may fail. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { Agent, createServer, request } from 'node:http'
import { createServer as createTlsServer } from 'node:https'
import type { AddressInfo, Server } from 'node:net'
import { after, afterEach, before, describe, it } from 'node:test'
import { configHash } from '../../../common/config-hash.ts'
import type { ClusterConfig, ProxyConfig } from '../../../common/proxy-config.ts'
import { plainConfig } from '../../../proxy/config/plain.ts'
import { Lateness } from '../../helpers/on-time.ts'
import { type Leaf, Pki } from '../../helpers/pki.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { Volumes } from '../../helpers/volume.ts'

/** 100 requests a second, from 5 connections that are kept open. */
const RATE = 100

let upstream: Server
let upstreamPort: number
/** Authorization fields that arrived, newest last. */
let tokens: string[] = []
/** Gives the answers to `/held`. */
let letGo = Promise.withResolvers<void>()
let volumes: Volumes
const processes: ProxyProcess[] = []

before(async () => {
  const server = createServer((incoming, answer) => {
    tokens.push(incoming.headers.authorization ?? '')
    if (incoming.url === '/held') void letGo.promise.then(() => answer.end('hello'))
    else answer.end('hello')
  }).listen(0, '127.0.0.1')
  await once(server, 'listening')
  upstream = server
  upstreamPort = (server.address() as AddressInfo).port
})
after(() => upstream.close())
afterEach(async () => {
  for (const each of processes.splice(0)) {
    await each.end()
  }
  volumes.remove()
})

interface Options {
  readonly generation?: number
  readonly cluster?: Partial<ClusterConfig>
  readonly change?: Partial<ProxyConfig>
  readonly upstreamPort?: number
}

function config(
  port: number,
  { generation = 1, cluster, change, upstreamPort: to = upstreamPort }: Options = {},
): ProxyConfig {
  const base = plainConfig({
    namespace: 'shop',
    host: '127.0.0.1',
    port: to,
    listenPort: port,
    protocol: 'HTTP',
    tls: null,
  })
  const content = {
    ...base,
    ambassador: { namespace: 'shop', name: 'payments', generation },
    clusters: base.clusters.map((each) => ({ ...each, ...cluster })),
    ...change,
  }
  return { ...content, hash: configHash(content) }
}

async function sidecar(env: Readonly<Record<string, string>> = {}): Promise<ProxyProcess> {
  const proxy = await ProxyProcess.start({
    ...volumes.env('payments'),
    AMBASSADOR_SIDECAR_MODE: 'Native',
    POD_NAMESPACE: 'shop',
    ...env,
  })
  processes.push(proxy)
  return proxy.ready()
}

/** Milliseconds until the sidecar reports this generation. */
async function reports(proxy: ProxyProcess, generation: number): Promise<number> {
  const startedAt = performance.now()
  for (;;) {
    const [ambassador] = JSON.parse((await proxy.get('/configz')).body).ambassadors
    if (ambassador.generation === generation) return performance.now() - startedAt
    assert.ok(performance.now() - startedAt < 30_000, JSON.stringify(ambassador))
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

interface Got {
  readonly status: number
  readonly failure: string | null
}

/** Without an agent: on a connection of its own. */
function get(port: number, agent: Agent | undefined, path = '/'): Promise<Got> {
  return new Promise((resolve) => {
    const outgoing = request({ host: '127.0.0.1', port, path, agent: agent ?? false }, (answer) => {
      answer.resume()
      const status = answer.statusCode ?? 0
      const reason = String(answer.headers['x-ambassador-reason'] ?? '')
      answer.on('end', () => resolve({ status, failure: status === 200 ? null : `${status} ${reason}` }))
      answer.on('error', (error) => resolve({ status, failure: error.message }))
    })
    outgoing.on('error', (error) => resolve({ status: 0, failure: error.message }))
    outgoing.setTimeout(10_000, () => outgoing.destroy(new Error('no answer within 10 s')))
    outgoing.end()
  })
}

/** Sends RATE requests a second until stop(); `port` may be moved meanwhile. */
class Load {
  port: number
  readonly #agent = new Agent({ keepAlive: true, maxSockets: 5 })
  readonly #pending = new Set<Promise<unknown>>()
  readonly #timer: NodeJS.Timeout
  sent = 0
  readonly failures: string[] = []

  constructor(port: number) {
    this.port = port
    this.#timer = setInterval(() => {
      this.sent++
      const one = get(this.port, this.#agent).then(({ failure }) => {
        if (failure !== null) this.failures.push(failure)
        this.#pending.delete(one)
      })
      this.#pending.add(one)
    }, 1000 / RATE)
  }

  async stop(): Promise<void> {
    clearInterval(this.#timer)
    await Promise.all(this.#pending)
    this.#agent.destroy()
  }
}

const TOKEN = { kind: 'secret', name: 'token', key: 'token' } as const

describe('under 100 requests a second', { timeout: 240_000 }, () => {
  it('twenty changes of the config are in force, each within 2 s, and no request fails', async (t) => {
    volumes = new Volumes()
    const port = await freePort()
    volumes.config('payments', config(port))
    const proxy = await sidecar()
    const load = new Load(port)
    const tookMs: number[] = []
    const lateness = new Lateness()
    for (let generation = 2; generation <= 21; generation++) {
      const change = { timeouts: { connectMs: 1000 + generation, requestMs: 15_000, idleMs: 60_000 } }
      const cluster = {
        circuitBreaker:
          generation % 2 === 0
            ? null
            : { consecutiveFailures: 5, failureRate: null, openMs: 1000, maxOpenMs: 1000, halfOpenRequests: 1 },
      }
      volumes.config('payments', config(port, { generation, change, cluster }))
      tookMs.push(await reports(proxy, generation))
    }
    await load.stop()
    assert.deepEqual(load.failures, [])
    assert.ok(load.sent > 50, `${load.sent} requests`)
    const slowest = Math.max(...tookMs)
    // Less what this process, which asks, was late itself; the sidecar may stand still beside it.
    assert.ok(
      slowest < 2000 + 4 * lateness.worstMs,
      `the slowest took ${slowest} ms, this process was ${lateness.worstMs} ms late`,
    )
    lateness.stop()
    t.diagnostic(
      `${load.sent} requests, no failure; 20 changes in ${Math.round(Math.min(...tookMs))} to ${Math.round(slowest)} ms each`,
    )
  })

  it('invalid changes between valid ones disturb nothing', async () => {
    volumes = new Volumes()
    const port = await freePort()
    volumes.config('payments', config(port))
    const proxy = await sidecar()
    const load = new Load(port)
    const broken = [
      '{',
      '[]',
      JSON.stringify({ ...config(port), protocol: 'x' }),
      JSON.stringify(config(port, { generation: 9, cluster: { auth: { kind: 'bearer', token: TOKEN } } })),
    ]
    for (const [index, text] of broken.entries()) {
      volumes.config('payments', text)
      const rejections = async () =>
        /^ambassador_config_loads_total\{result="rejected"\} (\d+)$/m.exec((await proxy.get('/metrics')).body)?.[1]
      while (Number(await rejections()) !== index + 1) await new Promise((resolve) => setTimeout(resolve, 5))
      volumes.config(
        'payments',
        config(port, { generation: 10 + index, change: { accessLog: { mode: 'All', sample: index / 10 } } }),
      )
      await reports(proxy, 10 + index)
    }
    await load.stop()
    assert.deepEqual(load.failures, [])
  })

  it('a token is rotated twenty times, the newest is sent, and no request fails or goes without one', async () => {
    volumes = new Volumes()
    tokens = []
    const port = await freePort()
    volumes.secret('token', { token: 'token-0\n' })
    volumes.config('payments', config(port, { cluster: { auth: { kind: 'bearer', token: TOKEN } } }))
    await sidecar()
    const load = new Load(port)
    for (let i = 1; i <= 20; i++) {
      volumes.secret('token', { token: `token-${i}\n` })
      const startedAt = performance.now()
      while (tokens.at(-1) !== `Bearer token-${i}`) {
        assert.ok(performance.now() - startedAt < 20_000, `token ${i} is sent`)
        await new Promise((resolve) => setTimeout(resolve, 5))
      }
    }
    await load.stop()
    assert.deepEqual(load.failures, [])
    assert.ok(tokens.every((token) => /^Bearer token-\d+$/.test(token)))
  })

  it('the CA and the certificate of the upstream are rotated ten times, and no request fails', async () => {
    volumes = new Volumes()
    const pki = new Pki()
    const authorities = Array.from({ length: 11 }, (_, i) => pki.authority(`CA ${i}`))
    const leaves: Leaf[] = authorities.map((authority) => authority.issue())
    pki.remove()
    const [first] = leaves as [Leaf]
    const secure = createTlsServer({ cert: first.cert, key: first.key }, (_incoming, answer) => answer.end('hello'))
    // So that connections are made all the time.
    secure.maxRequestsPerSocket = 3
    secure.listen(0, '127.0.0.1')
    await once(secure, 'listening')
    const port = await freePort()
    const ca = { kind: 'configMap', name: 'ca', key: 'ca.crt' } as const
    const tls = { serverName: 'localhost', ca, clientCertificate: null, minVersion: 'TLSv1.2' } as const
    const bundle = (...indices: number[]) => indices.map((i) => authorities[i]?.cert ?? '').join('')
    volumes.configMap('ca', { 'ca.crt': bundle(0) })
    const to = (secure.address() as AddressInfo).port
    volumes.config('payments', config(port, { cluster: { tls }, upstreamPort: to }))
    const proxy = await sidecar()
    const load = new Load(port)
    for (let i = 1; i <= 10; i++) {
      // As one rotates a CA: first both are trusted, then the new certificate is shown, then the old CA goes.
      proxy.forget()
      volumes.configMap('ca', { 'ca.crt': bundle(i - 1, i) })
      await proxy.logged('TLS files replaced')
      const leaf = leaves[i] as Leaf
      secure.setSecureContext({ cert: leaf.cert, key: leaf.key })
      proxy.forget()
      volumes.configMap('ca', { 'ca.crt': bundle(i) })
      await proxy.logged('TLS files replaced')
    }
    await load.stop()
    secure.close()
    secure.closeAllConnections()
    assert.deepEqual(load.failures, [])
  })

  it('the TLS settings and the endpoints change ten times, and no request fails', async () => {
    volumes = new Volumes()
    const pki = new Pki()
    const authority = pki.authority()
    const leaf = authority.issue()
    pki.remove()
    const secure = [0, 1].map(() =>
      createTlsServer({ cert: leaf.cert, key: leaf.key }, (_incoming, answer) => answer.end('hello')),
    )
    for (const server of secure) await once(server.listen(0, '127.0.0.1'), 'listening')
    const ports = secure.map((server) => (server.address() as AddressInfo).port)
    const port = await freePort()
    volumes.configMap('ca', { 'ca.crt': authority.cert })
    const ca = { kind: 'configMap', name: 'ca', key: 'ca.crt' } as const
    const version = (generation: number) =>
      config(port, {
        generation,
        upstreamPort: ports[generation % 2] ?? 0,
        cluster: {
          tls: {
            serverName: generation % 3 === 0 ? null : 'localhost',
            ca,
            clientCertificate: null,
            minVersion: generation % 2 === 0 ? 'TLSv1.2' : 'TLSv1.3',
          },
        },
      })
    volumes.config('payments', version(1))
    const proxy = await sidecar()
    const load = new Load(port)
    for (let generation = 2; generation <= 11; generation++) {
      volumes.config('payments', version(generation))
      await reports(proxy, generation)
    }
    await load.stop()
    for (const server of secure) {
      server.close()
      server.closeAllConnections()
    }
    assert.deepEqual(load.failures, [])
    assert.ok(load.sent > 20, `${load.sent} requests`)
  })

  it('the port moves; the application that follows sees no failure', async () => {
    volumes = new Volumes()
    const [from, to] = [await freePort(), await freePort()]
    volumes.config('payments', config(from))
    const proxy = await sidecar()
    const load = new Load(from)
    volumes.config('payments', config(to, { generation: 2 }))
    // The application follows when it has heard of it, which may be later than the sidecar moves.
    await reports(proxy, 2)
    for (const { sent } = load; load.sent < sent + 20; ) await new Promise((resolve) => setTimeout(resolve, 10))
    load.port = to
    for (const { sent } = load; load.sent < sent + 50; ) await new Promise((resolve) => setTimeout(resolve, 10))
    await load.stop()
    assert.deepEqual(load.failures, [])
    while ((await get(from, undefined)).failure === null) await new Promise((resolve) => setTimeout(resolve, 50))
    assert.equal((await get(to, undefined)).failure, null)
  })
})

describe('SIGTERM over HTTP', { timeout: 120_000 }, () => {
  it('in the native order answers what is in flight, closes what is idle, and ends with code 0', async () => {
    volumes = new Volumes()
    const port = await freePort()
    volumes.config('payments', config(port))
    const proxy = await sidecar()
    const agent = new Agent({ keepAlive: true })
    await get(port, agent)
    letGo = Promise.withResolvers()
    const inFlight = get(port, new Agent(), '/held')
    while (JSON.parse((await proxy.admin('GET', '/upstreams')).body).ambassadors[0].connections.busy === 0)
      await new Promise((resolve) => setTimeout(resolve, 5))
    const startedAt = performance.now()
    proxy.kill('SIGTERM')
    await proxy.logged('draining')
    letGo.resolve()
    assert.deepEqual(await inFlight, { status: 200, failure: null })
    assert.equal(await proxy.exit, 0)
    const tookMs = performance.now() - startedAt
    // The idle connection would hold it up for half a minute.
    assert.ok(tookMs < 15_000, `took ${tookMs} ms`)
    agent.destroy()
  })

  it('in the legacy order serves the application until it is gone: no request of it fails', async () => {
    volumes = new Volumes()
    const port = await freePort()
    volumes.config('payments', config(port))
    const proxy = await sidecar({ AMBASSADOR_SIDECAR_MODE: 'Legacy', AMBASSADOR_DRAIN_SECONDS: '8' })
    const load = new Load(port)
    proxy.kill('SIGTERM')
    await proxy.logged('stopping')
    const { sent } = load
    while (load.sent < sent + 60) await new Promise((resolve) => setTimeout(resolve, 10))
    await load.stop()
    assert.deepEqual(load.failures, [])
    assert.equal(await proxy.exit, 0)
  })
})
