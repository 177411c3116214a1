/**
 * A server that closes connections when they have rested for a random time, without a word: ours beside HAProxy in one run.
 * `STALE_REQUESTS=20000 node --test test/integration/proxy/http-stale.test.ts` is the long mode.
 */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { it } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import { which } from '../../../build/machine/exec.ts'
import { SeededRandom } from '../../fuzz/random.ts'
import { endsOfAll } from '../../helpers/ends.ts'
import { HttpTestClient } from '../../helpers/http-client.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { tcpServer } from '../../helpers/tcp.ts'

/** Requests of each method through each proxy. */
const REQUESTS = Number(process.env['STALE_REQUESTS'] ?? 600)
const SEED = Number(process.env['STALE_SEED'] ?? Math.floor(Date.now() / 1000))
const CLIENTS = 12
/** A connection of the server rests up to this long; a client between two requests, too. */
const REST_MS = 50

const ends = endsOfAll()

/** How often each request came. */
const hits = new Map<string, number>()

function serve(socket: Socket, random: SeededRandom): void {
  let pending = ''
  let closing: NodeJS.Timeout | undefined
  socket.on('end', () => socket.end())
  socket.on('close', () => clearTimeout(closing))
  socket.on('data', (data) => {
    clearTimeout(closing)
    pending += data.toString('latin1')
    const headEnd = pending.indexOf('\r\n\r\n') + 4
    if (headEnd < 4) return
    const length = Number(/content-length: (\d+)/i.exec(pending)?.[1] ?? 0)
    if (pending.length < headEnd + length) return
    const target = pending.split(' ')[1]!
    pending = ''
    hits.set(target, (hits.get(target) ?? 0) + 1)
    socket.write('HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok')
    closing = setTimeout(() => socket.end(), random.below(REST_MS))
  })
}

/** Sends requests with rests between them; returns how many were not answered 200, and how many came twice. */
async function load(name: string, port: number, method: 'GET' | 'POST', random: SeededRandom) {
  let errors = 0
  let next = 0
  const client = async (): Promise<void> => {
    const open = (): HttpTestClient => {
      const opened = new HttpTestClient({ port })
      opened.socket.on('error', () => {})
      return opened
    }
    let connection = open()
    while (next < REQUESTS) {
      const target = `/${name}/${method}/${next++}`
      const body = method === 'POST' ? 'Content-Length: 5\r\n\r\nhello' : '\r\n'
      connection.write(`${method} ${target} HTTP/1.1\r\nHost: a\r\n${body}`)
      const response = await connection.response().catch(() => null)
      if (response?.status !== 200) errors++
      // Also so that what a client collects does not grow.
      if (response === null || next % 50 === 0 || response.field('connection') === 'close') {
        connection.socket.destroy()
        connection = open()
      }
      await wait(random.below(REST_MS))
    }
    connection.socket.destroy()
  }
  await Promise.all(Array.from({ length: CLIENTS }, client))
  const twice = [...hits].filter(([target, count]) => target.startsWith(`/${name}/${method}/`) && count > 1).length
  return { errors, twice }
}

/** One thread, connections shared between clients and every retry that does not repeat a POST. */
const haproxyConfig = (port: number, upstream: number): string => `
global
  nbthread 1
  maxconn 1000
defaults
  mode http
  timeout connect 5s
  timeout client 60s
  timeout server 60s
  http-reuse always
  retries 3
  retry-on conn-failure empty-response response-timeout
  option redispatch
frontend in
  bind 127.0.0.1:${port}
  http-request disable-l7-retry if METH_POST
  default_backend out
backend out
  server upstream 127.0.0.1:${upstream} maxconn 100
`

async function startHaproxy(upstream: number): Promise<number> {
  const port = await freePort()
  const directory = mkdtempSync(join(tmpdir(), 'stale-'))
  const file = join(directory, 'haproxy.cfg')
  writeFileSync(file, haproxyConfig(port, upstream))
  const child = spawn('haproxy', ['-db', '-f', file], { stdio: 'ignore' })
  ends.push(async () => {
    const closed = once(child, 'close')
    child.kill('SIGKILL')
    await closed
    rmSync(directory, { recursive: true })
  })
  for (;;) {
    const socket = connect(port, '127.0.0.1')
    const isOpen = await new Promise((resolve) => {
      socket.once('connect', () => resolve(true))
      socket.once('error', () => resolve(false))
    })
    socket.destroy()
    if (isOpen) return port
    if (child.exitCode !== null) throw new Error(`haproxy ended with ${child.exitCode}`)
    await wait(20)
  }
}

const isSkipped = which('haproxy') === undefined && process.env['CI'] !== 'true'

it(`no GET fails, no POST comes twice, and no more POSTs fail than with HAProxy (seed ${SEED})`, {
  timeout: 600_000,
  skip: isSkipped && 'haproxy is not installed: apt-get install haproxy',
}, async (t) => {
  const random = new SeededRandom(SEED)
  const upstream = await tcpServer((socket) => serve(socket, random))
  ends.push(() => upstream.close())
  const port = await freePort()
  const proxy = await ProxyProcess.start({
    UPSTREAM_HOST: '127.0.0.1',
    UPSTREAM_PORT: String(upstream.port),
    LISTEN_PORT: String(port),
  })
  ends.push(() => proxy.end())
  await proxy.ready()
  const theirPort = await startHaproxy(upstream.port)
  const results: Record<string, { errors: number; twice: number }> = {}
  for (const method of ['GET', 'POST'] as const) {
    // At the same time, so that the machine is as busy for one as for the other.
    const [ours, theirs] = await Promise.all([
      load('ours', port, method, random),
      load('haproxy', theirPort, method, random),
    ])
    results[`ours ${method}`] = ours
    results[`haproxy ${method}`] = theirs
  }
  for (const [name, { errors, twice }] of Object.entries(results)) {
    t.diagnostic(`${name}: ${errors} of ${REQUESTS} failed, ${twice} came more than once`)
  }
  assert.equal(results['ours GET']!.errors, 0)
  assert.equal(results['ours POST']!.twice, 0)
  assert.ok(results['ours POST']!.errors <= results['haproxy POST']!.errors + REQUESTS / 200)
})
