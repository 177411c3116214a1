/** A sidecar that may open no more files: it says so itself, and holds nothing against the upstream. */
import assert from 'node:assert/strict'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, it } from 'node:test'
import { configHash } from '../../../common/config-hash.ts'
import { proxyConfig } from '../../../common/proxy-config.ts'
import { plainConfig } from '../../../proxy/config/plain.ts'
import { HttpTestClient } from '../../helpers/http-client.ts'
import { ok, scriptedUpstream } from '../../helpers/http-upstream.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { echo, tcpServer } from '../../helpers/tcp.ts'

const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

const FILES = 120

const circuitBreaker = {
  consecutiveFailures: 1,
  failureRate: null,
  openMs: 60_000,
  maxOpenMs: 60_000,
  halfOpenRequests: 1,
}
const healthCheck = {
  probe: { kind: 'tcp' as const },
  port: null,
  intervalMs: 20,
  timeoutMs: 5_000,
  unhealthyThreshold: 1,
  // Once it is unhealthy it stays so.
  healthyThreshold: 1000,
}

/** A process that may have FILES files open. */
async function confined(upstreamPort: number, more: object, protocol: 'HTTP' | 'TCP' = 'HTTP') {
  const listenPort = await freePort()
  const { hash: _, ...plain } = plainConfig({
    namespace: '',
    host: '127.0.0.1',
    port: upstreamPort,
    listenPort,
    protocol,
    maxRetries: 0,
    tls: null,
  })
  const config = {
    ...plain,
    accessLog: { mode: 'All' as const, sample: 0 },
    clusters: plain.clusters.map((each) => ({ ...each, ...more })),
  }
  const directory = mkdtempSync(join(tmpdir(), 'ambassador-files-'))
  ends.push(() => rmSync(directory, { recursive: true }))
  const file = join(directory, 'config.json')
  writeFileSync(file, JSON.stringify(proxyConfig.parse({ ...config, hash: configHash(config) })))
  const proxy = await ProxyProcess.start(
    { AMBASSADOR_CONFIG: file, AMBASSADOR_MAX_CLIENT_CONNECTIONS: '1000' },
    ['proxy/main.ts'],
    ['sh', '-c', `ulimit -n ${FILES} && exec "$@"`, 'sh'],
  )
  ends.push(async () => {
    proxy.kill('SIGKILL')
    await proxy.exit
  })
  await proxy.ready()
  const idle: Socket[] = []
  ends.push(() => {
    for (const socket of idle) socket.destroy()
  })
  // A file that was open before the limit was set has a number above it.
  const open = (): number => readdirSync(`/proc/${proxy.child.pid}/fd`).filter((fd) => Number(fd) < FILES).length
  return {
    proxy,
    listenPort,
    open,
    /** For HTTP. */
    client: () => {
      const client = new HttpTestClient({ port: listenPort })
      ends.push(() => client.socket.destroy())
      return client
    },
    /** Adds connections until the process has every file open that it may. */
    exhaust: async () => {
      while (open() < FILES) {
        idle.push(connect(listenPort, '127.0.0.1').on('error', () => {}))
        await new Promise((resolve) => setTimeout(resolve, 1))
      }
    },
    /** Ends them. */
    release: async () => {
      for (const socket of idle.splice(0)) socket.destroy()
      while (open() > FILES / 2) await new Promise((resolve) => setTimeout(resolve, 5))
    },
  }
}

/** Whether a connection of the application gets as far as the upstream, which speaks first. */
const served = (app: Socket): Promise<boolean> =>
  new Promise((resolve) => {
    app.on('error', () => {})
    app.once('data', () => resolve(true)).once('close', () => resolve(false))
  })

const exhausted = (metrics: string): number => Number(/^ambassador_exhausted_dials_total (\d+)$/m.exec(metrics)?.[1])

it('answers 503 overloaded with the remedy, and the breaker does not hear of it', { timeout: 60_000 }, async () => {
  // Each connection serves one request, so that the next one needs a file.
  const upstream = await scriptedUpstream(ends, () => ok('hello', 'Connection: close'))
  const { proxy, client: connected, exhaust, release } = await confined(upstream.port, { circuitBreaker })
  const client = connected()
  const scrape = async (): Promise<string> => (await proxy.get('/metrics')).body
  assert.equal((await client.get().response()).status, 200)
  while (!/^ambassador_connections\{.*side="upstream",state="open"\} 0$/m.test(await scrape()));
  await exhaust()
  const refused = await client.get('/refused').response()
  assert.equal(refused.status, 503)
  assert.equal(refused.field('x-ambassador-reason'), 'overloaded')
  assert.match(JSON.parse(refused.body).detail, /was not dialled: .*raise the limit of open files.* \(EMFILE\)$/)
  assert.equal((await proxy.line(({ path }) => path === '/refused'))['reason'], 'overloaded')
  await release()
  assert.equal((await client.get().response()).status, 200)
  const text = (await proxy.get('/metrics')).body
  assert.match(text, /^ambassador_circuit_state\{.*\} 0$/m)
  assert.equal(exhausted(text), 1)
})

it('leaves endpoints healthy that it cannot check', { timeout: 60_000 }, async () => {
  const upstream = await scriptedUpstream(ends, () => ok('hello'))
  const { proxy, exhaust, release } = await confined(upstream.port, { healthCheck })
  let text = ''
  while (!(exhausted(text) > 0)) {
    await exhaust()
    await new Promise((resolve) => setTimeout(resolve, 2 * healthCheck.intervalMs))
    await release()
    text = (await proxy.get('/metrics')).body
  }
  assert.match(text, /^ambassador_endpoint_health\{.*\} 0$/m)
})

it('ends a TCP connection that cannot be dialled as overloaded, and the breaker does not hear of it', {
  timeout: 60_000,
}, async () => {
  const upstream = await tcpServer((socket) => {
    socket.write('!')
    echo(socket)
  })
  ends.push(() => upstream.close())
  const { proxy, listenPort, open } = await confined(upstream.port, { circuitBreaker }, 'TCP')
  const apps: Socket[] = []
  ends.push(() => {
    for (const app of apps) app.destroy()
  })
  const refused = () => proxy.log.find(({ reason }) => reason === 'overloaded')
  // A connection needs two files. With one left it is accepted and not dialled; with none it is not even accepted.
  const extra: Socket[] = []
  ends.push(() => {
    for (const socket of extra) socket.destroy()
  })
  while (refused() === undefined) {
    const app = connect(listenPort, '127.0.0.1')
    if (await served(app)) {
      apps.push(app)
      continue
    }
    // Either of two: its line, or every file open again.
    while (refused() === undefined && open() < FILES) await new Promise((resolve) => setTimeout(resolve, 1))
    if (refused() !== undefined) break
    apps.pop()?.destroy()
    while (FILES - open() < 2) await new Promise((resolve) => setTimeout(resolve, 1))
    extra.push(connect(proxy.telemetryPort, '127.0.0.1').on('error', () => {}))
    while (FILES - open() > 1) await new Promise((resolve) => setTimeout(resolve, 1))
  }
  assert.match(String(refused()!['detail']), /was not dialled: .*raise the limit of open files.* \(EMFILE\)$/)
  assert.ok(apps.length > 10, 'those that were open stay so')
  assert.ok(apps.every(({ closed }) => !closed))
  const before = open()
  for (const app of apps.splice(0)) app.destroy()
  while (open() > before / 2) await new Promise((resolve) => setTimeout(resolve, 5))
  const again = connect(listenPort, '127.0.0.1')
  apps.push(again)
  assert.equal(await served(again), true)
  const text = (await proxy.get('/metrics')).body
  assert.match(text, /^ambassador_circuit_state\{.*\} 0$/m)
  assert.ok(exhausted(text) > 0)
  assert.match(text, /^ambassador_tcp_connections_total\{.*end="overloaded"\} 1$/m)
})
