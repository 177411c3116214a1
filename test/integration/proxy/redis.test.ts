/** Protocol Redis in front of real servers: what applications do, what goes wrong, and what they must not notice. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { Pki } from '../../helpers/pki.ts'
import { freePort } from '../../helpers/ports.ts'
import { RedisServer, redisProxy } from '../../helpers/redis.ts'
import { TestClient, TestServer } from '../../helpers/tcp.ts'

const AUTH = { redis: { username: 'app', password: { secretKeyRef: { name: 'redis', key: 'password' } } } }
const ACL = ['user app on >first >second ~* &* +@all', 'user default off']
const at = (server: { readonly port: number }) => ({ endpoints: [{ host: '127.0.0.1', port: server.port }] })
const command = (...args: string[]) =>
  `*${args.length}\r\n${args.map((arg) => `$${Buffer.byteLength(arg)}\r\n${arg}\r\n`).join('')}`

describe('Redis with a credential of the sidecar', () => {
  let server: RedisServer
  let proxy: Awaited<ReturnType<typeof redisProxy>>
  const raw = () => new TestClient({ port: proxy.port })
  const cli = (...args: string[]) =>
    execFileSync('redis-cli', ['-p', String(proxy.port), ...args], { encoding: 'utf8', stdio: 'pipe' }).trim()
  /** Sends and resolves with what came, which must be exactly that. */
  const expectReply = async (client: TestClient, sent: string, reply: string) => {
    const before = client.length
    client.write(sent)
    assert.equal((await client.read(before + reply.length)).slice(before), reply)
  }

  before(async () => {
    server = await RedisServer.start(ACL)
    proxy = await redisProxy({ ...at(server), auth: AUTH }, {}, { redis: { password: 'first' } })
  })
  after(async () => {
    await proxy.stop()
    await server.stop()
  })

  it('serves redis-cli without a password, with any password, and in RESP3', () => {
    assert.equal(cli('SET', 'greeting', 'hello'), 'OK')
    assert.equal(cli('GET', 'greeting'), 'hello')
    assert.equal(cli('ACL', 'WHOAMI'), 'app')
    assert.equal(cli('-a', 'whatever', '--no-auth-warning', 'ACL', 'WHOAMI'), 'app')
    assert.equal(cli('--user', 'me', '-a', 'whatever', '--no-auth-warning', '-3', 'ACL', 'WHOAMI'), 'app')
  })

  it('answers AUTH, HELLO, SELECT and RESET as a server does, and stays logged in', async () => {
    const client = raw()
    await expectReply(client, command('AUTH', 'secret'), '+OK\r\n')
    await expectReply(client, command('AUTH', 'me', 'secret'), '+OK\r\n')
    await expectReply(client, command('auth'), "-ERR wrong number of arguments for 'auth' command\r\n")
    await expectReply(client, command('SELECT', '3'), '+OK\r\n')
    await expectReply(client, command('SELECT', '99'), '-ERR DB index is out of range\r\n')
    client.write(command('HELLO', '3', 'AUTH', 'me', 'secret', 'SETNAME', 'web'))
    const hello = await client.read(client.length + 100)
    assert.match(hello, /%\d+\r\n\$6\r\nserver\r\n/)
    const name = raw()
    await expectReply(name, `${command('RESET')}${command('ACL', 'WHOAMI')}`, '+RESET\r\n$3\r\napp\r\n')
    await expectReply(name, 'AUTH x\r\nPING\r\n\r\n"ECHO" "a b"\r\n', '+OK\r\n+PONG\r\n$3\r\na b\r\n')
    await expectReply(name, command('QUIT'), '+OK\r\n')
    await name.ended()
    name.socket.destroy()
    client.socket.destroy()
  })

  it('passes commands and replies that come in single bytes', async () => {
    const client = raw()
    const sent = `${command('SET', 'k', 'v')}${command('AUTH', 'x')}PING\r\n${command('RESET')}${command('GET', 'k')}`
    for (const byte of sent) {
      client.write(byte)
      await new Promise((resolve) => setImmediate(resolve))
    }
    const expected = '+OK\r\n+OK\r\n+PONG\r\n+RESET\r\n$1\r\nv\r\n'
    assert.equal(await client.read(expected.length), expected)
    client.socket.destroy()
  })

  it('serves ioredis: pipelines, transactions, scripts, blocking, channels', async () => {
    const client = new Redis({ port: proxy.port, password: 'none' })
    const other = new Redis({ port: proxy.port })
    const pipeline = client.pipeline()
    for (let i = 0; i < 5000; i++) pipeline.incr('counter')
    const results = await pipeline.exec()
    assert.equal(results?.at(-1)?.[1], 5000)
    const [, [, value]] = (await client.multi().set('a', '1').get('a').exec()) as [unknown, [unknown, string]]
    assert.equal(value, '1')
    assert.equal(await client.eval('return ARGV[1]', 0, 'x'), 'x')
    const popped = client.blpop('list', 10)
    await other.rpush('list', 'element')
    assert.deepEqual(await popped, ['list', 'element'])
    const heard = new Promise((resolve) => client.on('message', (_channel, message) => resolve(message)))
    await client.subscribe('news', 'more')
    await other.publish('news', 'hello')
    assert.equal(await heard, 'hello')
    await client.unsubscribe()
    assert.equal(await client.get('a'), '1')
    client.disconnect()
    other.disconnect()
  })

  it('serves node-redis in RESP3, with messages between replies', async () => {
    const client = createClient({ socket: { port: proxy.port, host: '127.0.0.1' }, RESP: 3 })
    client.on('error', () => {})
    await client.connect()
    const subscriber = client.duplicate()
    subscriber.on('error', () => {})
    await subscriber.connect()
    const heard: string[] = []
    await subscriber.subscribe('news', (message) => heard.push(message))
    await client.hSet('hash', { a: '1', b: '2' })
    assert.deepEqual({ ...(await client.hGetAll('hash')) }, { a: '1', b: '2' })
    await client.publish('news', 'one')
    assert.equal(await subscriber.ping(), 'PONG')
    while (heard.length === 0) await new Promise((resolve) => setTimeout(resolve, 5))
    assert.deepEqual(heard, ['one'])
    await subscriber.close()
    await client.close()
  })

  it('carries large values whole, both ways', async () => {
    const client = new Redis({ port: proxy.port })
    const value = Buffer.alloc(32 * 1024 * 1024, 'abcdefghij')
    await client.set('large', value)
    assert.ok((await client.getBuffer('large'))?.equals(value))
    await client.del('large')
    client.disconnect()
  })

  it('keeps CLIENT REPLY, MONITOR and WATCH as they are', async () => {
    const client = raw()
    await expectReply(
      client,
      `${command('CLIENT', 'REPLY', 'OFF')}${command('PING')}${command('CLIENT', 'REPLY', 'ON')}`,
      '+OK\r\n',
    )
    await expectReply(
      client,
      `${command('CLIENT', 'REPLY', 'SKIP')}${command('PING')}${command('ECHO', 'x')}`,
      '$1\r\nx\r\n',
    )
    await expectReply(
      client,
      command('WATCH', 'w') + command('MULTI') + command('SET', 'w', '1') + command('EXEC'),
      '+OK\r\n+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n',
    )
    const watcher = raw()
    // The logins of connections that are made ready are seen too.
    watcher.write(command('MONITOR'))
    assert.match(await watcher.read(5), /^\+OK\r\n/)
    await expectReply(client, command('GET', 'w'), '$1\r\n1\r\n')
    while (!watcher.received.includes('"GET" "w"')) await watcher.read(watcher.length + 1)
    client.socket.destroy()
    watcher.socket.destroy()
  })

  it('answers garbage and oversized lengths with an error that has the reason, and closes', async () => {
    for (const sent of ['*1\r\n$99999999999\r\n', '*99999999999\r\n', '*1\r\n+PING\r\n', '\x16\x03\x01\x02\x00']) {
      const client = raw()
      await expectReply(client, 'PING\r\n', '+PONG\r\n')
      client.write(Buffer.from(sent, 'latin1'))
      assert.match(await client.ended(), /^\+PONG\r\n-ERR ambassador: bad_request .*\r\n$/)
      client.socket.destroy()
    }
  })

  it('counts commands by name, and writes a line for each connection', async () => {
    cli('SET', 'x', '1')
    const { body } = await proxy.proxy.get('/metrics')
    assert.match(body, /ambassador_redis_commands_total\{ambassador="cache",command="set"\} \d+/)
    assert.doesNotMatch(body, /first|whatever/)
    const line = await proxy.proxy.logged('connection')
    assert.equal(line['upstream'], 'cache')
    assert.ok(Number(line['commands']) > 0)
  })

  it('logs in again on live connections when the credential is renewed', async () => {
    const client = raw()
    await expectReply(client, command('PING'), '+PONG\r\n')
    client.write(command('CLIENT', 'ID'))
    const id = /:(\d+)\r\n$/.exec(await client.read(client.length + 4))?.[1] ?? ''
    // What the server saw last on that connection.
    const last = () => / cmd=(\S+)/.exec(cli('CLIENT', 'LIST', 'ID', id))?.[1]
    assert.notEqual(last(), 'auth')
    proxy.volumes.secret('redis', { password: 'second' })
    while (last() !== 'auth') await new Promise((resolve) => setTimeout(resolve, 50))
    await expectReply(client, command('ACL', 'WHOAMI'), '$3\r\napp\r\n')
    client.socket.destroy()
  })
})

describe('Redis that goes wrong', () => {
  const ends: (() => Promise<unknown>)[] = []
  after(async () => {
    for (const end of ends.reverse()) await end()
  })
  const start = async (...args: Parameters<typeof redisProxy>) => {
    const proxy = await redisProxy(...args)
    ends.push(() => proxy.stop())
    return proxy
  }
  const answerOf = async (port: number) => {
    const client = new TestClient({ port })
    client.write(command('GET', 'a'))
    const answer = await client.ended()
    client.socket.destroy()
    return answer
  }

  it('says that nobody listens', async () => {
    const { port } = await start(at({ port: await freePort() }))
    assert.match(await answerOf(port), /^-ERR ambassador: connect_refused .*ECONNREFUSED\r\n$/)
  })

  it('says the words of a server that refuses the password, and reports them', async () => {
    const server = await RedisServer.start(ACL)
    ends.push(() => server.stop())
    const { port, proxy } = await start({ ...at(server), auth: AUTH }, {}, { redis: { password: 'wrong' } })
    assert.match(await answerOf(port), /^-WRONGPASS .*\(ambassador: auth_unavailable .*\)\r\n$/)
    const [report] = JSON.parse((await proxy.get('/configz')).body).ambassadors
    assert.equal(report.lastError.reason, 'auth_unavailable')
    assert.doesNotMatch(proxy.stdout, /wrong\b/)
  })

  it('recognises a server that is not Redis', async () => {
    const http = await new TestServer(
      createServer((socket) => socket.on('data', () => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))),
    ).listen()
    ends.push(() => http.close())
    const { port } = await start(at(http))
    assert.match(await answerOf(port), /^-ERR ambassador: upstream_reset .*which is not Redis\r\n$/)
  })

  it('recognises a Redis that takes the header of the PROXY protocol for a command, before its replies are out of step', async () => {
    const server = await RedisServer.start(ACL)
    ends.push(() => server.stop())
    for (const auth of [{}, { auth: AUTH }]) {
      const secrets = { redis: { password: 'first' } }
      const { port } = await start({ ...at(server), ...auth, proxyProtocol: 'V1' }, {}, secrets)
      const why = /^-ERR ambassador: no_healthy_endpoint .* does not know the PROXY protocol, remove proxyProtocol/
      assert.match(await answerOf(port), why)
    }
  })

  it('answers for a server that sends garbage later', async () => {
    const odd = await new TestServer(
      createServer((socket) => {
        socket.once('data', () => {
          socket.write('+PONG\r\n')
          socket.once('data', () => socket.write('$99999999999\r\n'))
        })
      }),
    ).listen()
    ends.push(() => odd.close())
    const { port } = await start(at(odd))
    assert.match(await answerOf(port), /^-ERR ambassador: upstream_reset .*\r\n$/)
  })

  it('tells whoever waits for a reply that the server is gone, and closes', async () => {
    const server = await RedisServer.start()
    ends.push(() => server.stop())
    const { port } = await start(at(server))
    const client = new TestClient({ port })
    client.write(command('PING'))
    await client.read(7)
    client.write(command('BLPOP', 'none', '0'))
    const blocked = () =>
      execFileSync('redis-cli', ['-p', String(server.port), 'INFO', 'clients'], { encoding: 'utf8' })
    while (!blocked().includes('blocked_clients:1')) {}
    await server.stop()
    assert.match(await client.ended(), /^\+PONG\r\n-ERR ambassador: upstream_reset .*\r\n$/)
    client.socket.destroy()
  })

  it('moves an idle connection to another server with its database and name, unseen', async () => {
    const [one, two] = [await RedisServer.start(), await RedisServer.start()]
    ends.push(
      () => one.stop(),
      () => two.stop(),
    )
    const proxy = await start(at(one))
    const client = new Redis({ port: proxy.port, db: 5, connectionName: 'web', retryStrategy: () => null })
    await client.set('where', 'one')
    execFileSync('redis-cli', ['-p', String(two.port), '-n', '5', 'SET', 'where', 'two'])
    proxy.update(at(two))
    while ((await client.get('where')) !== 'two') await new Promise((resolve) => setTimeout(resolve, 20))
    assert.equal(await client.client('GETNAME'), 'web')
    client.disconnect()
  })

  it('bounds connections, and refuses those that wait too long', async () => {
    const server = await RedisServer.start()
    ends.push(() => server.stop())
    const limits = { limits: { maxConnections: 1, maxPendingRequests: 1 } }
    const { port } = await start({ ...at(server), ...limits }, { timeouts: { connect: '2s' } })
    const first = new TestClient({ port })
    first.write('PING\r\n')
    await first.read(7)
    assert.match(await answerOf(port), /^-ERR ambassador: queue_full .*\r\n$/)
    first.socket.destroy()
  })

  it('says why there is no connection, also to an application that may rest for less time than that takes', async () => {
    const dns = { hostname: 'nobody.invalid', port: 6379 }
    const { port } = await start({ dns }, { timeouts: { connect: '3s', idle: '1500ms' } })
    assert.match(await answerOf(port), /^-ERR ambassador: dns_failed .*\r\n$/)
  })

  it('speaks TLS from the first byte, verified', async () => {
    const pki = new Pki()
    const authority = pki.authority()
    const leaf = authority.issue()
    const file = (name: string, text: string) => {
      const path = join(tmpdir(), `ambassador-redis-${process.pid}-${name}`)
      writeFileSync(path, text)
      return path
    }
    const [cert, key, ca] = [file('crt', leaf.cert), file('key', leaf.key), file('ca', authority.cert)]
    pki.remove()
    const settings = [`tls-cert-file ${cert}`, `tls-key-file ${key}`, `tls-ca-cert-file ${ca}`, 'tls-auth-clients no']
    const server = await RedisServer.start(settings, { isTls: true })
    ends.push(() => server.stop())
    const tls = { ca: { secretKeyRef: { name: 'ca', key: 'ca.crt' } } }
    const trusted = await start({ ...at(server), tls }, {}, { ca: { 'ca.crt': authority.cert } })
    const client = new Redis({ port: trusted.port })
    assert.equal(await client.set('a', 'x'.repeat(1_000_000)), 'OK')
    assert.equal((await client.get('a'))?.length, 1_000_000)
    client.disconnect()
    const untrusted = await start({ ...at(server), tls: {} })
    assert.match(await answerOf(untrusted.port), /^-ERR ambassador: tls_verify_failed .*\r\n$/)
  })

  it('leaves an endpoint that its checks find not to be the master, for one of a later priority that is', async () => {
    const master = await RedisServer.start(['requirepass first'])
    ends.push(() => master.stop())
    const replica = await RedisServer.start([
      'requirepass first',
      'masterauth first',
      `replicaof 127.0.0.1 ${master.port}`,
    ])
    ends.push(() => replica.stop())
    const endpoints = [replica, master].map((each, priority) => ({ host: '127.0.0.1', port: each.port, priority }))
    const healthCheck = { interval: '1s', timeout: '20s', unhealthyThreshold: 1 }
    const auth = { redis: { password: { secretKeyRef: { name: 'redis', key: 'password' } } } }
    const { port, proxy } = await start({ endpoints, healthCheck, auth }, {}, { redis: { password: 'first' } })
    const line = await proxy.line(({ msg }) => msg === 'endpoint is out of use while others are well')
    assert.equal(line['endpoint'], `127.0.0.1:${replica.port}`)
    assert.match(String(line['detail']), /is not the master, its role is 'slave'/)
    const client = new Redis({ port })
    assert.equal(await client.set('a', '1'), 'OK')
    client.disconnect()
    const metrics = await (await fetch(`http://127.0.0.1:${proxy.telemetryPort}/metrics`)).text()
    assert.match(metrics, new RegExp(`^ambassador_endpoint_health\\{.*127\\.0\\.0\\.1:${replica.port}".*\\} 2$`, 'm'))
    assert.match(metrics, new RegExp(`^ambassador_endpoint_health\\{.*127\\.0\\.0\\.1:${master.port}".*\\} 0$`, 'm'))
  })

  it('drains: idle connections end, a transaction is let go on', async () => {
    const server = await RedisServer.start()
    ends.push(() => server.stop())
    const { port, proxy } = await start(at(server))
    const [idle, refused, busy] = [new TestClient({ port }), new TestClient({ port }), new TestClient({ port })]
    idle.write('PING\r\n')
    await idle.read(7)
    refused.write(command('MULTI', 'x'))
    assert.match(await refused.read(14), /^-ERR wrong/)
    busy.write(command('MULTI') + command('SET', 'a', '1'))
    await busy.read('+OK\r\n+QUEUED\r\n'.length)
    proxy.kill('SIGTERM')
    await idle.ended()
    await refused.ended()
    busy.write(command('EXEC'))
    assert.equal(await busy.ended(), '+OK\r\n+QUEUED\r\n*1\r\n+OK\r\n')
    assert.equal(await proxy.exit, 0)
    for (const each of [idle, refused, busy]) each.socket.destroy()
  })
})
