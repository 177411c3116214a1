/** Ambassadors that listen on a Unix socket beside their port: real clients, changes under way, and the file's life. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { type EventEmitter, once } from 'node:events'
import { existsSync, mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { Redis } from 'ioredis'
import pg from 'pg'
import { configHash } from '../../../common/config-hash.ts'
import { plainConfig } from '../../../proxy/config/plain.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { HttpTestClient } from '../../helpers/http-client.ts'
import { freePort } from '../../helpers/ports.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { RedisServer } from '../../helpers/redis.ts'
import { echo, TestClient, TestServer, tcpServer } from '../../helpers/tcp.ts'
import { Volumes } from '../../helpers/volume.ts'

const run = promisify(execFile)

const dir = mkdtempSync(join(tmpdir(), 'amb-unix-'))
after(() => rmSync(dir, { recursive: true }))
const ends = endsOfEach()

let sockets = 0
const freePath = () => join(dir, `${++sockets}.sock`)

function tcp(path: string): TestClient {
  const client = new TestClient({ path } as never)
  ends.push(() => client.socket.destroy())
  return client
}

function http(path: string): HttpTestClient {
  const client = new HttpTestClient({ path } as never)
  ends.push(() => client.socket.destroy())
  return client
}

/** Answers what it is asked, and /slow never; `gone` counts clients that left before an answer. */
async function httpUpstream(name = '') {
  const asked: string[] = []
  const server = await tcpServer((socket: Socket) => {
    socket.on('data', (data) => {
      const path = data.toString().split(' ')[1] ?? ''
      asked.push(path)
      const body = path + name
      if (path !== '/slow') socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n\r\n${body}`)
    })
    socket.on('end', () => socket.end())
  })
  ends.push(() => server.close())
  return { port: server.port, server, asked }
}

describe('ambassador run with listen.unix', () => {
  const lasting: (() => unknown)[] = []
  let proxy: ProxyProcess
  const path = {
    tcp: join(dir, 'tcp.sock'),
    redis: join(dir, 'redis.sock'),
    postgres: join(dir, '.s.PGSQL.5432'),
    pooled: join(dir, '.s.PGSQL.6432'),
  }
  before(async () => {
    const echoing = await tcpServer(echo)
    const redis = await RedisServer.start(['requirepass secret'])
    const database = await postgresServer({}, lasting)
    lasting.push(
      () => echoing.close(),
      () => redis.stop(),
    )
    // The server's own socket is for its user alone.
    const bridge = freePath()
    const bridging = new TestServer(
      createServer((socket) => {
        const to = connect(database.port, '127.0.0.1')
        socket.on('error', () => to.destroy()).pipe(to)
        to.on('error', () => socket.destroy()).pipe(socket)
      }),
    )
    bridging.server.listen(bridge)
    lasting.push(() => bridging.close())
    const endpoints = `endpoints: [ { host: 127.0.0.1, port: ${database.port} } ]`
    const postgres = (name: string, socket: string, port: number, upstream: string, pooling: string) => `
kind: Ambassador
apiVersion: ambassador.dev/v1alpha1
metadata: { name: ${name} }
spec:
  protocol: PostgreSQL
  listen: { port: ${port}, unix: { path: ${socket} } }
  upstreams:
  - name: db
    ${upstream}
    auth: { postgres: { username: ${POSTGRES_USER}, password: { secretKeyRef: { env: DB_PASSWORD } } } }
${pooling}
`
    const text = `
apiVersion: ambassador.dev/v1alpha1
kind: Ambassador
metadata: { name: lines }
spec:
  protocol: TCP
  listen: { port: ${await freePort()}, unix: { path: ${path.tcp} } }
  upstreams: [ { name: echo, endpoints: [ { host: 127.0.0.1, port: ${echoing.port} } ] } ]
---
apiVersion: ambassador.dev/v1alpha1
kind: Ambassador
metadata: { name: cache }
spec:
  protocol: Redis
  listen: { port: ${await freePort()}, unix: { path: ${path.redis} } }
  upstreams:
  - name: cache
    endpoints: [ { host: 127.0.0.1, port: ${redis.port} } ]
    auth: { redis: { password: { secretKeyRef: { env: REDIS_PASSWORD } } } }
---${postgres('orders', path.postgres, await freePort(), `unix: { path: ${bridge} }`, '')}---${postgres('pooled', path.pooled, await freePort(), endpoints, '  postgres: { pooling: { mode: Transaction } }')}`
    const file = join(dir, 'ambassadors.yaml')
    writeFileSync(file, text)
    const own = ['--telemetry-port', `${await freePort()}`, '--admin-port', `${await freePort()}`]
    const env = { DB_PASSWORD: POSTGRES_PASSWORD, REDIS_PASSWORD: 'secret' }
    proxy = await ProxyProcess.start(env, ['cli/main.ts', 'run', '-f', file, ...own])
    lasting.push(() => proxy.end())
    await proxy.line(({ msg, ambassador }) => msg === 'config in force' && ambassador === 'pooled')
  })
  after(async () => {
    for (const end of lasting.reverse()) await end()
  })

  it('carries bytes both ways, also a half-close', async () => {
    const sent = 'x'.repeat(300_000)
    const client = tcp(path.tcp).end(sent)
    const received = await client.ended()
    assert.deepEqual({ length: received.length, error: client.error }, { length: sent.length, error: null })
    assert.ok(received === sent)
  })

  it('serves Redis: ioredis and redis-cli', async () => {
    const client = new Redis({ path: path.redis })
    ends.push(() => client.disconnect())
    await client.set('key', 'value')
    assert.equal(await client.get('key'), 'value')
    const { stdout } = await run('redis-cli', ['-s', path.redis, 'GET', 'key'])
    assert.equal(stdout, 'value\n')
  })

  for (const [what, port] of [
    ['each connection its own, from a Unix socket to another', 5432],
    ['connections shared', 6432],
  ] as const) {
    it(`serves PostgreSQL to who names the directory, ${what}: node-postgres and psql`, async () => {
      const client = new pg.Client({ host: dir, port, user: 'anybody', database: 'postgres' })
      await client.connect()
      const { rows } = await client.query('select current_user::text as who, $1::int + 1 as sum', [41])
      assert.deepEqual(rows, [{ who: POSTGRES_USER, sum: 42 }])
      await client.end()
      const { stdout } = await run('psql', [
        '-h',
        dir,
        '-p',
        `${port}`,
        '-U',
        'x',
        '-d',
        'postgres',
        '-Atc',
        'select 7',
      ])
      assert.equal(stdout, '7\n')
    })

    it(`cancels a statement that came by a socket, ${what}`, async () => {
      // Another text each time: a connection that goes back to the pool still shows its last one.
      const text = `select pg_sleep(60), ${port}`
      const options = { host: dir, port, user: 'anybody', database: 'postgres' }
      const client = new pg.Client(options)
      await client.connect()
      const query = new pg.Query(text)
      const failed = once(query as unknown as EventEmitter, 'error')
      client.query(query)
      const watcher = new pg.Client(options)
      await watcher.connect()
      for (;;) {
        const { rows } = await watcher.query(
          `select 1 from pg_stat_activity where query = '${text}' and state = 'active'`,
        )
        if (rows.length > 0) break
      }
      const canceller = new pg.Client(options) as unknown as { cancel(client: pg.Client, query: pg.Query): void }
      canceller.cancel(client, query)
      assert.equal((await failed)[0].code, '57014')
      await client.end()
      await watcher.end()
    })
  }

  it('removes its files when it is told to stop', async () => {
    proxy.kill('SIGINT')
    assert.equal(await proxy.exit, 0)
    assert.deepEqual(
      Object.values(path).filter((each) => existsSync(each)),
      [],
    )
  })
})

describe('a sidecar with listen.unix', () => {
  const volumes = new Volumes()
  after(() => volumes.remove())

  let generation = 0
  function publish(port: number, upstreamPort: number, unix: string | undefined, name = 'payments'): number {
    const base = plainConfig({
      namespace: 'shop',
      host: '127.0.0.1',
      port: upstreamPort,
      listenPort: port,
      protocol: 'HTTP',
      tls: null,
    })
    const content = {
      ...base,
      ambassador: { namespace: 'shop', name, generation: ++generation },
      listener: { port, ...(unix !== undefined && { unix }) },
    }
    volumes.config(name, { ...content, hash: configHash(content) })
    return generation
  }

  async function sidecar(names = 'payments'): Promise<ProxyProcess> {
    const proxy = await ProxyProcess.start({
      ...volumes.env(names),
      POD_NAMESPACE: 'shop',
    })
    ends.push(() => proxy.end())
    return proxy
  }

  const reported = async (proxy: ProxyProcess) => JSON.parse((await proxy.get('/configz')).body).ambassadors[0]
  const listening = async (proxy: ProxyProcess) =>
    JSON.parse((await proxy.admin('GET', '/upstreams')).body).ambassadors[0].listening

  it('answers there as on its port, follows a change of the path, and goes when the path goes', async () => {
    const { port: upstreamPort } = await httpUpstream()
    const port = await freePort()
    const [first, second] = [freePath(), freePath()]
    publish(port, upstreamPort, first)
    const proxy = await (await sidecar()).ready()
    const kept = http(first)
    assert.equal((await kept.get('/a').response()).body, '/a')
    assert.deepEqual(await listening(proxy), [`127.0.0.1:${port}`, `[::1]:${port}`, `unix:${first}`])

    proxy.forget()
    publish(port, upstreamPort, second)
    await proxy.ready()
    assert.equal((await http(second).get('/b').response()).body, '/b')
    assert.equal(existsSync(first), false)
    assert.equal((await kept.get('/c').response()).body, '/c')

    proxy.forget()
    publish(port, upstreamPort, undefined)
    await proxy.ready()
    assert.equal(existsSync(second), false)
    assert.deepEqual(await listening(proxy), [`127.0.0.1:${port}`, `[::1]:${port}`])
  })

  it('keeps its last good config where the directory is not mounted, and makes sockets again after it was killed', async () => {
    const { port: upstreamPort } = await httpUpstream()
    const port = await freePort()
    const path = freePath()
    const before = publish(port, upstreamPort, path)
    const proxy = await (await sidecar()).ready()
    const directory = join(dir, 'unmounted')
    const wanted = publish(port, upstreamPort, join(directory, 'a.sock'))
    await proxy.logged('config not in force, the last good one is kept')
    const { generation: inForce, rejected } = await reported(proxy)
    assert.deepEqual(
      [inForce, rejected.generation, rejected.reason, rejected.message],
      [
        before,
        wanted,
        'NotMounted',
        `socket '${directory}/a.sock' cannot be made: there is no directory '${directory}' in this pod, restart it`,
      ],
    )
    assert.equal((await http(path).get('/a').response()).body, '/a')

    await proxy.end()
    assert.equal(existsSync(path), true)
    publish(port, upstreamPort, path)
    await (await sidecar()).ready()
    assert.equal((await http(path).get('/again').response()).body, '/again')
  })

  it('refuses the socket that another Ambassador of the pod has, and takes it when that one has left it', async () => {
    const { port: upstreamPort } = await httpUpstream()
    const path = freePath()
    const [a, b] = [await freePort(), await freePort()]
    publish(a, upstreamPort, path)
    publish(b, upstreamPort, path, 'other')
    const proxy = await sidecar('payments,other')
    const { detail } = await proxy.line(
      ({ msg, ambassador }) => msg === 'config not in force' && ambassador === 'other',
    )
    assert.equal(
      detail,
      `socket '${path}' is that of Ambassador 'payments' of this pod, give one of the two another path`,
    )
    publish(a, upstreamPort, undefined)
    await proxy.line(({ msg, ambassador }) => msg === 'config in force' && ambassador === 'other')
    assert.equal((await http(path).get('/mine').response()).body, '/mine')
  })

  it('exchanges its socket with that of another Ambassador of the pod', async () => {
    const [{ port: up1 }, { port: up2 }] = [await httpUpstream('one'), await httpUpstream('two')]
    const [first, second] = [freePath(), freePath()]
    const [a, b] = [await freePort(), await freePort()]
    publish(a, up1, first)
    publish(b, up2, second, 'other')
    const proxy = await sidecar('payments,other')
    await proxy.line(({ msg, ambassador }) => msg === 'config in force' && ambassador === 'other')
    const says = async (path: string) => (await http(path).get('/').response()).body
    assert.deepEqual([await says(first), await says(second)], ['/one', '/two'])
    proxy.forget()
    const swapped = [publish(a, up1, second), publish(b, up2, first, 'other')]
    for (const generation of swapped) {
      await proxy.line(({ msg, generation: inForce }) => msg === 'config in force' && inForce === generation)
    }
    assert.deepEqual([await says(first), await says(second)], ['/two', '/one'])
  })

  it('answers an application that half-closed, and frees the upstream of one that is gone', async () => {
    const { port: upstreamPort, server, asked } = await httpUpstream()
    const path = freePath()
    publish(await freePort(), upstreamPort, path)
    await (await sidecar()).ready()
    const half = http(path).get('/half')
    half.socket.end()
    assert.equal((await half.response()).body, '/half')
    // Its answer does not come, and while it only half-closed it may still wait for it.
    const waiting = http(path).get('/slow')
    waiting.socket.end()
    const leaving = http(path).get('/slow')
    while (asked.filter((each) => each === '/slow').length < 2) await new Promise((resolve) => setTimeout(resolve, 5))
    const open = server.sockets.size
    leaving.socket.destroy()
    while (server.sockets.size >= open) await new Promise((resolve) => setTimeout(resolve, 5))
    assert.equal(waiting.socket.destroyed || waiting.socket.readableEnded, false)
  })
})

describe('two processes', () => {
  it('cannot have one socket: the second says who has it', async () => {
    const path = freePath()
    const server = new TestServer(createServer())
    server.server.listen(path)
    ends.push(() => server.close())
    const file = join(dir, 'second.yaml')
    writeFileSync(
      file,
      `apiVersion: ambassador.dev/v1alpha1
kind: Ambassador
metadata: { name: second }
spec:
  protocol: TCP
  listen: { port: ${await freePort()}, unix: { path: ${path} } }
  upstreams: [ { name: a, endpoints: [ { host: 127.0.0.1, port: 9 } ] } ]
`,
    )
    const own = ['--telemetry-port', `${await freePort()}`, '--admin-port', `${await freePort()}`]
    const proxy = await ProxyProcess.start({}, ['cli/main.ts', 'run', '-f', file, ...own])
    assert.notEqual(await proxy.exit, 0)
    assert.match(
      proxy.stderr,
      /ambassador 'second': socket '.*' cannot be made: another process listens there, give one of the two another path/,
    )
    assert.equal(existsSync(path), true)
  })
})
