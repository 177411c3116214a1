/** A sidecar that may open no more files: it says so itself, and holds nothing against the upstream. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it } from 'node:test'
import { confinedProxy } from '../../helpers/confined-proxy.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { HttpTestClient } from '../../helpers/http-client.ts'
import { ok, scriptedUpstream } from '../../helpers/http-upstream.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { query, rawClient, WireClient } from '../../helpers/postgres-client.ts'
import { echo, tcpServer } from '../../helpers/tcp.ts'

const ends = endsOfEach()

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

const CIRCUIT_CLOSED = /^ambassador_circuit_state\{.*\} 0$/m
/** What a person reads, whatever the protocol that carries it. */
const REMEDY = /was not dialled: .*raise the limit of open files.* \(EMFILE\)/

/** Whether a connection of the application gets as far as the upstream, which speaks first. */
const served = (app: Socket): Promise<boolean> =>
  new Promise((resolve) => {
    app.on('error', () => {})
    app.once('data', () => resolve(true)).once('close', () => resolve(false))
  })

it('answers 503 overloaded with the remedy, and the breaker does not hear of it', { timeout: 60_000 }, async () => {
  // Each connection serves one request, so that the next one needs a file.
  const upstream = await scriptedUpstream(ends, () => ok('hello', 'Connection: close'))
  const { proxy, port, exhaust, release, metrics, exhaustedDials } = await confinedProxy(
    { protocol: 'HTTP', upstreamPort: upstream.port, cluster: { circuitBreaker } },
    ends,
  )
  const client = new HttpTestClient({ port })
  ends.push(() => client.socket.destroy())
  assert.equal((await client.get().response()).status, 200)
  while (!/^ambassador_connections\{.*side="upstream",state="open"\} 0$/m.test(await metrics()));
  await exhaust()
  const refused = await client.get('/refused').response()
  assert.equal(refused.status, 503)
  assert.equal(refused.field('x-ambassador-reason'), 'overloaded')
  assert.match(JSON.parse(refused.body).detail, REMEDY)
  assert.equal((await proxy.line(({ path }) => path === '/refused'))['reason'], 'overloaded')
  await release()
  assert.equal((await client.get().response()).status, 200)
  assert.match(await metrics(), CIRCUIT_CLOSED)
  assert.equal(await exhaustedDials(), 1)
})

it('leaves endpoints healthy that it cannot check', { timeout: 60_000 }, async () => {
  const upstream = await scriptedUpstream(ends, () => ok('hello'))
  const { exhaust, release, metrics, exhaustedDials } = await confinedProxy(
    { protocol: 'HTTP', upstreamPort: upstream.port, cluster: { healthCheck } },
    ends,
  )
  while (!((await exhaustedDials()) > 0)) {
    await exhaust()
    await new Promise((resolve) => setTimeout(resolve, 2 * healthCheck.intervalMs))
    await release()
  }
  assert.match(await metrics(), /^ambassador_endpoint_health\{.*\} 0$/m)
})

it('answers a Redis command by an error with the remedy, and serves the next client', { timeout: 60_000 }, async () => {
  const upstream = await tcpServer((socket) => socket.on('data', () => socket.write('+PONG\r\n')))
  ends.push(() => upstream.close())
  const { proxy, port, exhaust, release, metrics, exhaustedDials } = await confinedProxy(
    { protocol: 'Redis', upstreamPort: upstream.port, cluster: { circuitBreaker } },
    ends,
  )
  const ping = (client: WireClient): Promise<string> => client.write('PING\r\n').readUntil(/\r\n$/)
  const begin = (): WireClient => {
    const client = new WireClient({ port })
    ends.push(() => client.socket.destroy())
    return client
  }
  // They are let in, and have no connection to the server before their first command.
  const clients = [begin(), begin(), begin()]
  assert.equal(await ping(begin()), '+PONG\r\n')
  let said = ''
  for (const client of clients) {
    await exhaust()
    said = await ping(client)
    // Something that was open for a moment when the last file was taken may have left one.
    if (said !== '+PONG\r\n') break
  }
  assert.match(said, /^-ERR ambassador: overloaded .*\r\n$/)
  assert.match(said, REMEDY)
  assert.equal((await proxy.line(({ reason }) => reason !== undefined))['reason'], 'overloaded')
  await release()
  assert.equal(await ping(begin()), '+PONG\r\n')
  assert.match(await metrics(), CIRCUIT_CLOSED)
  assert.ok((await exhaustedDials()) > 0)
})

it('fails a PostgreSQL statement with 53000 and the remedy, and runs the next', { timeout: 60_000 }, async () => {
  const server = await postgresServer({}, ends)
  const directory = mkdtempSync(join(tmpdir(), 'ambassador-password-'))
  ends.push(() => rmSync(directory, { recursive: true }))
  const path = join(directory, 'password')
  writeFileSync(path, POSTGRES_PASSWORD)
  const pooling = {
    mode: 'Transaction' as const,
    queueTimeoutMs: 500,
    idleTimeoutMs: null,
    maxLifetimeMs: null,
    maxPreparedStatements: 1,
  }
  const auth = { kind: 'postgres' as const, username: POSTGRES_USER, password: { kind: 'file' as const, path } }
  const { port, exhaust, release, metrics, exhaustedDials } = await confinedProxy(
    {
      protocol: 'PostgreSQL',
      upstreamPort: server.port,
      cluster: { circuitBreaker, auth },
      config: { postgres: { pooling } },
    },
    ends,
  )
  const idle = /Z\0\0\0\x05I$/
  const waiter = await rawClient(port, ends)
  let said = ''
  while (!said.startsWith('E')) {
    await release()
    // Whatever connection is free is taken by another client, so that the statement needs one more.
    const holder = await rawClient(port, ends)
    await holder.write(query('begin')).readUntil(/Z\0\0\0\x05T$/)
    await exhaust()
    said = await waiter.write(query('select 1')).readUntil(idle)
  }
  assert.match(said, /\0C53000\0/)
  assert.match(said, REMEDY)
  assert.match(said, /\0Hambassador: overloaded\0/)
  await release()
  assert.match(await waiter.write(query('select 41 + 1')).readUntil(idle), /\x0242/)
  assert.match(await metrics(), CIRCUIT_CLOSED)
  assert.ok((await exhaustedDials()) > 0)
})

it('ends a TCP connection that cannot be dialled as overloaded, and the breaker does not hear of it', {
  timeout: 60_000,
}, async () => {
  const upstream = await tcpServer((socket) => {
    socket.write('!')
    echo(socket)
  })
  ends.push(() => upstream.close())
  const { proxy, port, files, open, metrics, exhaustedDials } = await confinedProxy(
    { protocol: 'TCP', upstreamPort: upstream.port, cluster: { circuitBreaker } },
    ends,
  )
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
    const app = connect(port, '127.0.0.1')
    if (await served(app)) {
      apps.push(app)
      continue
    }
    // Either of two: its line, or every file open again.
    while (refused() === undefined && open() < files) await new Promise((resolve) => setTimeout(resolve, 1))
    if (refused() !== undefined) break
    apps.pop()?.destroy()
    while (files - open() < 2) await new Promise((resolve) => setTimeout(resolve, 1))
    extra.push(connect(proxy.telemetryPort, '127.0.0.1').on('error', () => {}))
    while (files - open() > 1) await new Promise((resolve) => setTimeout(resolve, 1))
  }
  assert.match(String(refused()!['detail']), REMEDY)
  assert.ok(apps.length > 10, 'those that were open stay so')
  assert.ok(apps.every(({ closed }) => !closed))
  const before = open()
  for (const app of apps.splice(0)) app.destroy()
  while (open() > before / 2) await new Promise((resolve) => setTimeout(resolve, 5))
  const again = connect(port, '127.0.0.1')
  apps.push(again)
  assert.equal(await served(again), true)
  assert.ok((await exhaustedDials()) > 0)
  const text = await metrics()
  assert.match(text, CIRCUIT_CLOSED)
  assert.match(text, /^ambassador_tcp_connections_total\{.*end="overloaded"\} [1-9]/m)
})
