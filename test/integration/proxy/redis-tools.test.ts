/** What people run against Redis, through a sidecar that does for it what an application need not: TLS, an ACL user, Sentinels with both. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { writeFileSync } from 'node:fs'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { Pki } from '../../helpers/pki.ts'
import { RedisServer, redisProxy } from '../../helpers/redis.ts'
import { command, HOST, place } from '../../helpers/sentinel-proxy.ts'
import { TestClient } from '../../helpers/tcp.ts'
import { Volumes } from '../../helpers/volume.ts'

const run = promisify(execFile)
const secret = (name: string) => ({ secretKeyRef: { name, key: 'password' } })
const TLS = { ca: { secretKeyRef: { name: 'ca', key: 'ca.crt' } } }

describe('Redis by a Sentinel, both with TLS and a login', { timeout: 120_000 }, () => {
  const ends: (() => unknown)[] = []
  let redis: RedisServer
  let proxy: Awaited<ReturnType<typeof redisProxy>>

  before(async () => {
    const files = new Volumes()
    ends.push(() => files.remove())
    const pki = new Pki()
    const authority = pki.authority()
    const leaf = authority.issue()
    pki.remove()
    const lines = Object.entries({ 'cert-file': leaf.cert, 'key-file': leaf.key, 'ca-cert-file': authority.cert }).map(
      ([name, text]) => {
        const path = join(files.secretsDir, name)
        writeFileSync(path, text)
        return `tls-${name} ${path}`
      },
    )
    const tls = [...lines, 'tls-auth-clients no', 'tls-replication yes']
    const acl = ['user app on >first ~* &* +@all', 'user sentinel on >second ~* &* +@all', 'user default off']
    redis = await RedisServer.start([...tls, ...acl], { isTls: true })
    ends.push(() => redis.stop())
    const sentinel = await RedisServer.start(
      [
        ...tls,
        'user watcher on >third ~* &* +@all',
        'user default off',
        `sentinel monitor mymaster ${HOST} ${redis.port} 1`,
        'sentinel auth-user mymaster sentinel',
        'sentinel auth-pass mymaster second',
        'sentinel down-after-milliseconds mymaster 60000',
      ],
      { isSentinel: true, isTls: true },
    )
    ends.push(() => sentinel.stop())
    const upstream = {
      sentinel: {
        masterName: 'mymaster',
        sentinels: [place(sentinel)],
        auth: { redis: { username: 'watcher', password: secret('sentinels') } },
        tls: TLS,
      },
      auth: { redis: { username: 'app', password: secret('redis') } },
      tls: TLS,
    }
    const secrets = { redis: { password: 'first' }, sentinels: { password: 'third' }, ca: { 'ca.crt': authority.cert } }
    proxy = await redisProxy(upstream, { timeouts: { connect: '30s' } }, secrets)
    ends.push(() => proxy.stop())
  })
  after(async () => {
    for (const end of ends.reverse()) await end()
  })

  it('serves redis-cli, its pipe mode too, without a password', async () => {
    const cli = async (...args: string[]) => (await run('redis-cli', ['-p', String(proxy.port), ...args])).stdout.trim()
    assert.equal(await cli('ACL', 'WHOAMI'), 'app')
    assert.equal(await cli('-3', '--no-raw', 'HGETALL', 'none'), '(empty hash)')
    const piped = run('redis-cli', ['-p', String(proxy.port), '--pipe'])
    piped.child.stdin?.end(Array.from({ length: 10_000 }, (_, n) => command('SET', `pipe-${n % 100}`, 'x')).join(''))
    assert.match((await piped).stdout, /errors: 0, replies: 10000/)
    assert.equal(await cli('--scan', '--pattern', 'pipe-1?').then((text) => text.split('\n').length), 10)
  })

  it('serves redis-benchmark: one by one, in a pipeline and with many connections', async () => {
    for (const args of [
      ['-c', '4'],
      ['-c', '4', '-P', '16', '-3'],
      ['-c', '50', '-P', '4', '-d', '2000'],
    ]) {
      const all = ['-p', String(proxy.port), '-n', '2000', '-q', '--csv', '-t', 'ping,set,get,lpush,zadd', ...args]
      const { stdout, stderr } = await run('redis-benchmark', all)
      assert.doesNotMatch(stdout + stderr, /ERR|error/i, args.join(' '))
      assert.deepEqual(
        stdout.match(/^"[A-Z_]+(?=")/gm),
        ['PING_INLINE', 'PING_MBULK', 'SET', 'GET', 'LPUSH', 'ZADD'].map((name) => `"${name}`),
      )
    }
  })

  it('serves ioredis and node-redis, in both protocols, with channels', async () => {
    const io = new Redis({ port: proxy.port, db: 2, username: 'ignored', password: 'ignored' })
    ends.push(() => io.disconnect())
    const value = Buffer.alloc(300_000, 'xyz')
    assert.equal(await io.set('large', value), 'OK')
    assert.ok((await io.getBuffer('large'))?.equals(value))
    for (const RESP of [2, 3] as const) {
      const node = createClient({ socket: { port: proxy.port, host: HOST }, RESP, database: 2, name: 'web' })
      node.on('error', () => {})
      await node.connect()
      assert.equal((await node.get('large'))?.length, value.length)
      assert.equal(await node.clientGetName(), 'web')
      const subscriber = node.duplicate()
      subscriber.on('error', () => {})
      await subscriber.connect()
      const heard = new Promise(
        (resolve) => void subscriber.subscribe('news', resolve).then(() => io.publish('news', 'hello')),
      )
      assert.equal(await heard, 'hello')
      subscriber.destroy()
      node.destroy()
    }
  })

  it('counts a bounded set of commands, whatever they are called and however they are written', async () => {
    const client = new TestClient({ port: proxy.port })
    ends.push(() => client.socket.destroy())
    const odd = ['gEt', 'GET', 'get', 'a"b\\c\n', '\x00\xff', '{x="1"}', '', 'x'.repeat(5000)]
    const invented = Array.from({ length: 1000 }, (_, n) => `invented-${n}`)
    const known =
      'append bitcount bitpos copy dbsize decr decrby del dump echo eval exists expire expiretime geoadd geohash getbit getdel ' +
      'getex getrange getset hdel hexists hget hgetall hincrby hkeys hlen hmget hset hsetnx hstrlen hvals incr incrby incrbyfloat ' +
      'keys lcs lindex linsert llen lpop lpos lpush lpushx lrange lrem lset ltrim mget move mset msetnx object persist pexpire ' +
      'pfadd pfcount psetex pttl randomkey rename restore rpop rpush sadd scard sdiff setbit setex setnx sinter smembers sort spop'
    const all = [...odd, ...invented, ...known.split(' ')]
    client.write(Buffer.from(all.map((name) => `*1\r\n$${name.length}\r\n${name}\r\n`).join(''), 'latin1'))
    client.write(command('ECHO', 'the end'))
    while (!client.text.endsWith('the end\r\n')) await client.read(client.length + 1)
    const { body } = await proxy.proxy.get('/metrics')
    const series = [
      ...body.matchAll(/^ambassador_redis_commands_total\{ambassador="cache",command="([^"]*)"\} (\d+)$/gm),
    ]
    const counts = new Map(series.map(([, name, count]) => [name, Number(count)]))
    assert.equal(series.length, body.match(/^ambassador_redis_commands_total\{/gm)?.length)
    assert.equal(counts.size, 64)
    assert.ok((counts.get('other') ?? 0) >= 1000 + odd.length - 3, String(counts.get('other')))
    assert.ok((counts.get('get') ?? 0) >= 3)
    for (const name of counts.keys()) assert.match(String(name), /^[a-z_.]+$/)
    const bytes = (direction: string) =>
      Number(new RegExp(`^ambassador_redis_bytes_total\\{.*direction="${direction}"\\} (\\d+)$`, 'm').exec(body)?.[1])
    assert.ok(bytes('in') > 1_000_000 && bytes('out') > 1_000_000)
  })
})
