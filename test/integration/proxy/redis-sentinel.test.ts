/** Redis by Sentinel: what is learned and survived, what moves and what ends, and what each mistake is answered with. */
import assert from 'node:assert/strict'
import { writeFileSync } from 'node:fs'
import { createServer } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, it } from 'node:test'
import { Redis } from 'ioredis'
import { Pki } from '../../helpers/pki.ts'
import { RedisServer, redisProxy } from '../../helpers/redis.ts'
import { RedisWithSentinels } from '../../helpers/sentinels.ts'
import { closedPort, TestClient, TestServer, tcpServer } from '../../helpers/tcp.ts'

const HOST = '127.0.0.1'
const ends: (() => unknown)[] = []
afterEach(async () => {
  for (const end of ends.splice(0).reverse()) await end()
})

const place = ({ port }: { readonly port: number }) => ({ host: HOST, port })
const bySentinel = (sentinels: readonly { readonly port: number }[], more: object = {}) => ({
  sentinel: { masterName: 'mymaster', sentinels: sentinels.map(place), ...more },
})
const command = (...args: string[]) =>
  `*${args.length}\r\n${args.map((arg) => `$${Buffer.byteLength(arg)}\r\n${arg}\r\n`).join('')}`

async function start(...args: Parameters<typeof redisProxy>) {
  const proxy = await redisProxy(...args)
  ends.push(() => proxy.stop())
  return proxy
}

/** A Sentinel alone, which is its own majority. */
async function lone(master: number, settings: readonly string[] = [], quorum = 1, host = HOST) {
  const monitor = `sentinel monitor mymaster ${host} ${master} ${quorum}`
  const ahead = settings.filter((line) => line.startsWith('sentinel resolve') || line.startsWith('sentinel announce'))
  const rest = settings.filter((line) => !ahead.includes(line))
  const lines = [...ahead, monitor, 'sentinel down-after-milliseconds mymaster 3000', ...rest]
  const sentinel = await RedisServer.start(lines, { isSentinel: true })
  ends.push(() => sentinel.stop())
  return sentinel
}

async function server(settings: readonly string[] = []) {
  const redis = await RedisServer.start(settings)
  ends.push(() => redis.stop())
  return redis
}

/** What a connection gets that sends PING, until it is closed. */
async function answerOf(port: number): Promise<string> {
  const client = new TestClient({ port })
  client.write(command('PING'))
  await client.ended()
  client.socket.destroy()
  return client.text
}

async function pong(port: number): Promise<void> {
  const client = new TestClient({ port })
  client.write(command('PING'))
  assert.equal(await client.read(7), '+PONG\r\n')
  client.socket.destroy()
}

const SHORT = { timeouts: { connect: '500ms' } }

describe('Redis by Sentinel, with what is wrong', () => {
  it('names the masters that the Sentinels know when masterName is another, also in /configz', async () => {
    const redis = await server()
    const sentinel = await lone(redis.port)
    const { port, proxy } = await start(bySentinel([sentinel], { masterName: 'other' }), SHORT)
    assert.equal(
      await answerOf(port),
      `-ERR ambassador: no_healthy_endpoint no Sentinel knows a master 'other'; Sentinel 127.0.0.1:${sentinel.port} monitors 'mymaster': correct sentinel.masterName\r\n`,
    )
    const configz = await (await fetch(`http://127.0.0.1:${proxy.telemetryPort}/configz`)).json()
    const { lastError } = (configz as { ambassadors: { lastError: { reason: string; message: string } }[] })
      .ambassadors[0]!
    assert.equal(lastError.reason, 'no_healthy_endpoint')
    assert.match(lastError.message, /correct sentinel\.masterName/)
  })

  it('does not choose between Sentinels that disagree', async () => {
    const [first, second] = [await server(), await server()]
    const sentinels = [await lone(first.port), await lone(second.port)]
    const { port } = await start(bySentinel(sentinels), SHORT)
    assert.match(
      await answerOf(port),
      /^-ERR ambassador: no_healthy_endpoint the Sentinels disagree on the master 'mymaster', .* and .*: 2 must agree\r\n$/,
    )
  })

  it('does not believe less than half of its Sentinels', async () => {
    const redis = await server()
    const sentinel = await lone(redis.port)
    const closed = { port: await closedPort() }
    const { port } = await start(bySentinel([sentinel, closed]), SHORT)
    assert.match(await answerOf(port), /of 2 Sentinels only 1 names the master .*: 2 must agree; .*ECONNREFUSED\r\n$/)
  })

  it('does not believe Sentinels that name a server which is no master', async () => {
    const [master, replica] = [await server(), await server()]
    const sentinel = await lone(replica.port)
    const cli = new Redis({ port: replica.port })
    await cli.replicaof(HOST, master.port)
    cli.disconnect()
    const { port } = await start(bySentinel([sentinel]), SHORT)
    assert.match(
      await answerOf(port),
      /no_healthy_endpoint master 'mymaster': .* is not the master, its role is 'slave'/,
    )
  })

  it('says which credential a Sentinel wants, uses it, and takes a new one', async () => {
    const redis = await server()
    const sentinel = await lone(redis.port, ['requirepass secret'])
    const without = await start(bySentinel([sentinel]), SHORT)
    assert.match(await answerOf(without.port), /needs a credential: set sentinel\.auth/)
    const auth = { redis: { password: { secretKeyRef: { name: 'sentinel', key: 'password' } } } }
    const { port, proxy, volumes } = await start(bySentinel([sentinel], { auth }), SHORT, {
      sentinel: { password: 'wrong' },
    })
    assert.match(await answerOf(port), /refused the credential: WRONGPASS/)
    assert.doesNotMatch(proxy.stdout, /'wrong'/)
    volumes.secret('sentinel', { password: 'secret' })
    while (!(await answerOrPong(port)).startsWith('+PONG')) {}
  })

  it('verifies TLS to a Sentinel', async () => {
    const pki = new Pki()
    const authority = pki.authority()
    const leaf = authority.issue()
    pki.remove()
    const file = (name: string, text: string) => {
      const path = join(tmpdir(), `ambassador-sentinel-${process.pid}-${name}`)
      writeFileSync(path, text)
      return path
    }
    const [cert, key, ca] = [file('crt', leaf.cert), file('key', leaf.key), file('ca', authority.cert)]
    const redis = await server()
    const sentinel = await RedisServer.start(
      [
        `tls-cert-file ${cert}`,
        `tls-key-file ${key}`,
        `tls-ca-cert-file ${ca}`,
        'tls-auth-clients no',
        `sentinel monitor mymaster 127.0.0.1 ${redis.port} 1`,
      ],
      { isSentinel: true, isTls: true },
    )
    ends.push(() => sentinel.stop())
    const tls = { ca: { secretKeyRef: { name: 'ca', key: 'ca.crt' } } }
    const trusted = await start(bySentinel([sentinel], { tls }), {}, { ca: { 'ca.crt': authority.cert } })
    await pong(trusted.port)
    const untrusted = await start(bySentinel([sentinel], { tls: {} }), SHORT)
    assert.match(await answerOf(untrusted.port), /no_healthy_endpoint none of 1 Sentinels answers; .*not trusted/)
  })

  it('recognises what is no Sentinel', async () => {
    const redis = await server()
    const plain = await start(bySentinel([redis]), SHORT)
    assert.match(
      await answerOf(plain.port),
      /is not a Sentinel, it answers: ERR unknown command.*; use the port of a Sentinel/,
    )
  })

  for (const [what, says, why] of [
    ['HTTP', 'HTTP/1.1 400 Bad Request\r\n\r\n', /which is not Redis/],
    ['a list without an end', '*999999999\r\n', /a length that Redis would not send/],
    ['a text without an end', `$${2 ** 31}\r\n`, /a length that Redis would not send/],
    ['lists in lists in lists', '*1\r\n'.repeat(100), /a length that Redis would not send/],
    ['answers to nothing that was asked', '+PONG\r\n:1\r\n:2\r\n:3\r\n:4\r\n', /answered with what no Sentinel says/],
  ] as const) {
    it(`recognises a server that answers with ${what}`, async () => {
      const odd = await new TestServer(createServer((socket) => socket.on('data', () => socket.write(says)))).listen()
      ends.push(() => odd.close())
      const { port } = await start(bySentinel([odd]), SHORT)
      const answer = await answerOf(port)
      assert.match(answer, /^-ERR ambassador: no_healthy_endpoint none of 1 Sentinels answers/)
      assert.match(answer, why)
    })
  }

  it('gives up on a Sentinel that accepts and says nothing', async () => {
    const mute = await tcpServer(() => {})
    ends.push(() => mute.close())
    const { port } = await start(bySentinel([mute]), { timeouts: { connect: '4s' } })
    assert.match(await answerOf(port), /none of 1 Sentinels answers; .*did not answer within \d+ ms/)
  })

  it('tells connections that no replica is there for role Replica', async () => {
    const redis = await server()
    const sentinel = await lone(redis.port)
    const { port } = await start(bySentinel([sentinel], { role: 'Replica' }), SHORT)
    assert.match(
      await answerOf(port),
      /no_healthy_endpoint master 'mymaster' \(127\.0\.0\.1:\d+\) has no replica that is up and linked to it: add one, or use role Master\r\n$/,
    )
  })

  it('holds connections to a dead master for as long as a connection may take, then says why', async () => {
    const redis = await RedisServer.start()
    // A quorum that one Sentinel cannot have: there is no failover.
    const sentinel = await lone(redis.port, [], 2)
    const { port } = await start(bySentinel([sentinel]), SHORT)
    await pong(port)
    const idle = new TestClient({ port })
    idle.write(command('PING'))
    await idle.read(7)
    await redis.stop()
    const startedAt = performance.now()
    assert.match(await answerOf(port), /no_healthy_endpoint master 'mymaster': .*ECONNREFUSED/)
    assert.ok(performance.now() - startedAt > 400)
    const again = await RedisServer.start([], { port: redis.port })
    ends.push(() => again.stop())
    // The connection that was idle is still there, and goes on with the server that came back.
    while (!(await answerOrPong(port)).startsWith('+PONG')) {}
    idle.write(command('PING'))
    assert.equal(await idle.read(14), '+PONG\r\n+PONG\r\n')
    idle.socket.destroy()
  })
})

async function answerOrPong(port: number): Promise<string> {
  const client = new TestClient({ port })
  client.write(command('PING'))
  const text = await client.read(7)
  client.socket.destroy()
  return text
}

describe('Redis by Sentinel, as it comes and goes', () => {
  it('follows names that Sentinels announce in place of addresses', async () => {
    const redis = await server()
    const settings = ['sentinel resolve-hostnames yes', 'sentinel announce-hostnames yes']
    const sentinel = await lone(redis.port, settings, 1, 'localhost')
    const { port, proxy } = await start(bySentinel([sentinel]))
    await pong(port)
    const text = await (await fetch(`http://127.0.0.1:${proxy.adminPort}/upstreams`)).text()
    assert.match(text, /"host":\s*"localhost"/)
  })

  it('holds what follows a READONLY of the master, until somebody is one again', async () => {
    const [redis, other] = [await server(), await server()]
    const sentinel = await lone(redis.port)
    const { port } = await start(bySentinel([sentinel]))
    const client = new TestClient({ port })
    client.write(command('SET', 'a', '1'))
    await client.read(5)
    const cli = new Redis({ port: redis.port })
    await cli.replicaof(HOST, other.port)
    client.write(command('SET', 'a', '2'))
    assert.match(await client.read(14), /^\+OK\r\n-READONLY/)
    // The sidecar asks the server for its role, and sends it nothing more.
    while (!(await isHeld(port))) {}
    const { text } = client
    client.write(command('SET', 'a', '3'))
    assert.ok(await isHeld(port))
    assert.equal(client.text, text)
    await cli.replicaof('NO', 'ONE')
    cli.disconnect()
    while (!client.text.endsWith('+OK\r\n')) await new Promise((resolve) => setTimeout(resolve, 20))
    assert.equal(client.text.match(/READONLY/g)?.length, 1)
    client.socket.destroy()
  })
})

/** Whether a new connection is held: nothing comes for a moment. */
async function isHeld(port: number): Promise<boolean> {
  const client = new TestClient({ port })
  client.write(command('PING'))
  await new Promise((resolve) => setTimeout(resolve, 300))
  client.socket.destroy()
  return client.length === 0
}

describe('Redis with three Sentinels', () => {
  let all: RedisWithSentinels
  before(async () => {
    all = await RedisWithSentinels.start()
  })
  after(() => all?.stop())

  it('balances role Replica over the replicas that are linked, and leaves one that dies', async () => {
    const { port, proxy } = await start(bySentinel(all.addresses, { role: 'Replica' }))
    const ports = new Set<string>()
    const own = all.servers.filter((each) => each.port !== all.masterPort())
    for (let i = 0; i < 50 && ports.size < 2; i++) {
      const client = new Redis({ port })
      const [role] = (await client.role()) as string[]
      assert.equal(role, 'slave')
      ports.add(/tcp_port:(\d+)/.exec(await client.info('server'))?.[1] ?? '')
      client.disconnect()
    }
    assert.deepEqual([...ports].sort(), own.map((each) => String(each.port)).sort())
    const metrics = await (await fetch(`http://127.0.0.1:${proxy.telemetryPort}/metrics`)).text()
    assert.match(metrics, /^ambassador_endpoints\{.*state="available"\} 2$/m)
    const writer = new Redis({ port })
    await assert.rejects(writer.set('a', '1'), /READONLY/)
    // What a replica says of itself is no reason to leave it.
    assert.equal(await writer.get('a'), null)
    writer.disconnect()
    own[0]!.child.kill('SIGSTOP')
    try {
      for (;;) {
        const text = await (await fetch(`http://127.0.0.1:${proxy.telemetryPort}/metrics`)).text()
        if (/^ambassador_endpoints\{.*state="available"\} 1$/m.test(text)) break
        await new Promise((resolve) => setTimeout(resolve, 200))
      }
      const client = new Redis({ port })
      assert.match(await client.info('server'), new RegExp(`tcp_port:${own[1]!.port}\\b`))
      client.disconnect()
    } finally {
      own[0]!.child.kill('SIGCONT')
    }
    await all.settled()
  })

  it('ends transactions, WATCH, channels and blocking commands at a switch, and carries on what is idle in RESP3', async () => {
    const { port } = await start(bySentinel(all.addresses))
    const open = async (...commands: string[][]) => {
      const client = new TestClient({ port })
      for (const each of commands) {
        const from = client.text.length
        client.write(command(...each))
        while (client.text.length === from) await new Promise((resolve) => setTimeout(resolve, 5))
      }
      return client
    }
    const multi = await open(['MULTI'], ['SET', 'a', '1'])
    const watching = await open(['WATCH', 'a'])
    const subscribed = await open(['SUBSCRIBE', 'news'])
    const blocked = await open(['PING'])
    blocked.write(command('BLPOP', 'nothing', '0'))
    const idle = await open(['HELLO', '3'], ['SELECT', '5'], ['CLIENT', 'SETNAME', 'web'])
    const master = all.masterPort()
    all.sentinelCli(all.sentinels[0]!.port, 'SENTINEL', 'FAILOVER', 'mymaster')
    for (const each of [multi, watching, subscribed, blocked]) await each.ended()
    assert.match(blocked.text, /-ERR ambassador: upstream_reset the server is no longer the one to talk to\r\n$/)
    assert.doesNotMatch(multi.text, /READONLY/)
    await all.switched(master)
    const from = idle.text.length
    idle.write(command('CLIENT', 'INFO'))
    while (!idle.text.slice(from).includes('cmd=')) await new Promise((resolve) => setTimeout(resolve, 5))
    assert.match(idle.text.slice(from), /name=web .*db=5 .*resp=3/s)
    for (const each of [multi, watching, subscribed, blocked, idle]) each.socket.destroy()
    await all.settled()
  })

  it('learns the Sentinels that one knows, and goes on when that one is lost and comes back', async () => {
    const [first] = all.sentinels
    const { port } = await start(bySentinel([first!]))
    await pong(port)
    await first!.stop()
    const rest = all.sentinels.slice(1)
    const master = all.masterPort.call({ sentinels: rest, sentinelCli: all.sentinelCli.bind(all) } as never)
    const writer = new Redis({ port, maxRetriesPerRequest: 0 })
    writer.on('error', () => {})
    await writer.set('before', '1')
    all.sentinelCli(rest[0]!.port, 'SENTINEL', 'FAILOVER', 'mymaster')
    const promoted = await all.switched(master)
    for (;;) {
      const text = await writer.info('server')
      if (text.includes(`tcp_port:${promoted}\r`)) break
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    await writer.set('after', '1')
    writer.disconnect()
    all.sentinels.shift()
    await all.addSentinel(first!.port)
    await all.settled()
    await pong(port)
  })

  it('ends a reply that never comes when the master hangs and is replaced', async () => {
    const { port } = await start(bySentinel(all.addresses), { timeouts: { connect: '2s' } })
    const client = new TestClient({ port })
    client.write(command('PING'))
    await client.read(7)
    const master = all.masterPort()
    const { child } = all.serverAt(master)
    child.kill('SIGSTOP')
    try {
      client.write(command('SET', 'a', '1'))
      await client.ended()
      assert.match(client.text, /-ERR ambassador: upstream_reset /)
      await all.switched(master)
      const after = new TestClient({ port })
      after.write(command('SET', 'a', '1'))
      assert.equal(await after.read(5), '+OK\r\n')
      after.socket.destroy()
    } finally {
      child.kill('SIGCONT')
      client.socket.destroy()
    }
  })
})
