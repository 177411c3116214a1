/** What an application is answered through the sidecar, byte by byte, beside what the same server answers without it. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { splitInline } from '../../../proxy/protocol/redis/inline.ts'
import { RedisServer, redisProxy } from '../../helpers/redis.ts'
import { TestClient } from '../../helpers/tcp.ts'

/** Lines as a person types them, sent as drivers send them. */
const typed = (...lines: string[]) =>
  lines
    .map((line) => {
      const words = splitInline(line) ?? []
      return `*${words.length}\r\n${words.map((word) => `$${word.length}\r\n${word.toString('latin1')}\r\n`).join('')}`
    })
    .join('')

/** What is sent, then a half-close. */
const SCRIPTS: Readonly<Record<string, string>> = {
  strings: typed(
    'SET a 1 EX 100',
    'GET a',
    'GETEX a PERSIST',
    'TTL a',
    'APPEND a "\\x00\\r\\n\\xff"',
    'GETRANGE a 0 -1',
    'STRLEN a',
    'INCR a',
    'SET n 10',
    'INCRBYFLOAT n 0.5',
    'MSET x 1 y 2',
    'MGET x none y',
    'LCS x y',
    'SETRANGE z 5 end',
    'GETDEL z',
    'SET empty ""',
    'GET empty',
  ),
  hashes: typed(
    'HSET h f 1 g 2',
    'HGETALL h',
    'HMGET h f none',
    'HINCRBYFLOAT h f 1.5',
    'HSCAN h 0',
    'HRANDFIELD none 2',
  ),
  lists: typed(
    'RPUSH l a b c',
    'LRANGE l 0 -1',
    'LPOS l b',
    'LMPOP 1 l LEFT COUNT 2',
    'LINSERT l BEFORE x y',
    'LPOP none',
  ),
  sets: typed('SADD s 1 2 3', 'SMEMBERS s', 'SISMEMBER s 1', 'SMISMEMBER s 1 9', 'SSCAN s 0', 'SINTERCARD 1 s'),
  'sorted sets': typed(
    'ZADD z 1 a 2.5 b +inf c',
    'ZRANGE z 0 -1 WITHSCORES',
    'ZSCORE z c',
    'ZPOPMIN z 2',
    'ZRANK z none',
    'ZMPOP 1 z MAX',
  ),
  streams: typed(
    'XADD x 1-1 f v',
    'XADD x 1-1 f v',
    'XRANGE x - +',
    'XREAD COUNT 1 STREAMS x 0',
    'XREAD STREAMS x 9',
    'XGROUP CREATE x g 0',
    'XREADGROUP GROUP g c STREAMS x >',
    'XPENDING x g',
    'XINFO STREAM x',
  ),
  'places, bits and estimates': typed(
    'GEOADD p 13.36 38.11 a 15.08 37.50 b',
    'GEOSEARCH p FROMLONLAT 15 37 BYRADIUS 200 km ASC WITHCOORD WITHDIST',
    'SETBIT b 7 1',
    'BITFIELD b GET u8 0 SET u8 0 255 OVERFLOW FAIL INCRBY u8 0 1',
    'PFADD h a b c',
    'PFCOUNT h',
  ),
  'keys of every kind': typed(
    'SET a 1',
    'DUMP a',
    'TYPE a',
    'OBJECT ENCODING a',
    'COPY a b',
    'RENAME a c',
    'RENAME none c',
    'SCAN 0 COUNT 100',
    'SORT none',
    'EXPIRE c -1',
    'EXISTS b c',
    'RANDOMKEY',
    'TOUCH b',
    'RESTORE b 0 junk',
    'WAIT 0 10',
  ),
  scripts: typed(
    'EVAL "return {1,\'two\',{3},false,true}" 0',
    'EVAL "return redis.error_reply(\'MINE no\')" 0',
    'EVAL "return redis.call(\'none\')" 0',
    'EVAL "this is no lua" 0',
    'EVAL "return redis.status_reply(\'FINE\')" 0',
    'EVAL "redis.setresp(3); return {double=1.5}" 0',
    'EVALSHA ffffffffffffffffffffffffffffffffffffffff 0',
    'SCRIPT LOAD "return 1"',
    'SCRIPT EXISTS e0e1f9fabfc9d4800c877a703b823ac0578ff8db',
    'EVALSHA e0e1f9fabfc9d4800c877a703b823ac0578ff8db 0',
    'FUNCTION LIST',
    'FCALL none 0',
    'SCRIPT KILL',
  ),
  'what is wrong': typed(
    'GET',
    'NOSUCH a',
    'SET a',
    'LPUSH l a',
    'INCR l',
    'GET l',
    'CONFIG',
    'DEBUG',
    'OBJECT ENCODING none',
    'CLUSTER INFO',
  ),
  'a transaction': typed('MULTI', 'SET a 1', 'GET a', 'EXEC', 'GET a'),
  'a transaction with errors': typed(
    'MULTI',
    'NOSUCH',
    'SET a 1',
    'EXEC',
    'GET a',
    'MULTI',
    'LPUSH l 1',
    'GET l',
    'EXEC',
    'EXEC',
    'DISCARD',
  ),
  'a transaction that is given up': typed('MULTI', 'SET a 1', 'DISCARD', 'GET a', 'MULTI', 'MULTI', 'WATCH a', 'EXEC'),
  'a watched key': typed(
    'SET a 1',
    'WATCH a',
    'SET a 2',
    'MULTI',
    'GET a',
    'EXEC',
    'GET a',
    'WATCH a',
    'UNWATCH',
    'SET a 3',
    'MULTI',
    'GET a',
    'EXEC',
  ),
  'a transaction with everything': typed(
    'MULTI',
    'SELECT 3',
    'BLPOP none 0',
    'SUBSCRIBE news',
    'MONITOR',
    'CLIENT SETNAME x',
    'PING',
    'EXEC',
    'PING',
  ),
  databases: typed(
    'SELECT 3',
    'SET a 1',
    'SELECT 16',
    'SELECT x',
    'SELECT -1',
    'GET a',
    'SELECT 0',
    'GET a',
    'MOVE a 99',
    'SWAPDB 0 1',
  ),
  'HELLO in every form': typed(
    'HELLO',
    'HELLO 3',
    'HELLO 4',
    'HELLO x',
    'HELLO 3 SETNAME web',
    'CLIENT GETNAME',
    'HELLO 3 SETNAME "a b"',
    'HELLO 2 SETNAME',
    'HELLO 2 NOSUCH',
    'HELLO 2',
    'HELLO 3 AUTH x',
    'PING',
  ),
  RESET: typed(
    'SELECT 3',
    'CLIENT SETNAME web',
    'MULTI',
    'RESET',
    'CLIENT GETNAME',
    'CLIENT INFO x',
    'HELLO 3',
    'RESET',
    'GET a',
  ),
  'RESET while subscribed': typed('SUBSCRIBE a b', 'PSUBSCRIBE p*', 'RESET', 'GET a', 'PUBLISH a x'),
  'RESET while monitoring': typed('MONITOR', 'RESET', 'PING', 'GET a'),
  'RESET in silence': typed('CLIENT REPLY OFF', 'PING', 'RESET', 'PING', 'ECHO x'),
  'RESET that is skipped': typed('CLIENT REPLY SKIP', 'RESET', 'PING', 'ECHO x'),
  QUIT: typed('PING', 'QUIT', 'PING'),
  'QUIT in a transaction': typed('MULTI', 'QUIT'),
  'no replies': typed('CLIENT REPLY OFF', 'SET a 1', 'INCR a', 'CLIENT REPLY SKIP', 'PING', 'CLIENT REPLY ON', 'GET a'),
  'one reply skipped': typed(
    'CLIENT REPLY SKIP',
    'SET a 1',
    'GET a',
    'CLIENT REPLY SKIP',
    'CLIENT REPLY SKIP',
    'PING',
    'ECHO x',
  ),
  'wrong replies': typed('CLIENT REPLY', 'CLIENT REPLY MAYBE', 'CLIENT REPLY ON x', 'PING'),
  'a subscription in silence': typed(
    'CLIENT REPLY OFF',
    'SUBSCRIBE a',
    'PING',
    'CLIENT REPLY ON',
    'PING',
    'UNSUBSCRIBE',
    'PING',
  ),
  clients: typed(
    'CLIENT SETNAME web',
    'CLIENT GETNAME',
    'CLIENT NO-EVICT on',
    'CLIENT NO-EVICT off',
    'CLIENT NO-EVICT',
    'CLIENT SETNAME "with space"',
    'CLIENT SETNAME ""',
    'CLIENT GETNAME',
    'CLIENT KILL ID 999999',
    'CLIENT UNBLOCK 999999',
    'CLIENT TRACKINGINFO',
    'CLIENT CACHING yes',
    'CLIENT NOSUCH',
    'CLIENT',
    'CLIENT HELP',
  ),
  tracking: typed(
    'CLIENT TRACKING on',
    'SET a 1',
    'GET a',
    'SET a 2',
    'CLIENT TRACKINGINFO',
    'CLIENT TRACKING off',
    'CLIENT TRACKING on BCAST PREFIX a',
    'CLIENT GETREDIR',
  ),
  'tracking in a transaction': typed(
    'CLIENT TRACKING on',
    'SET a 1',
    'MGET a b',
    'MULTI',
    'SET a 2',
    'SET b 1',
    'GET b',
    'EXEC',
    'EVAL "redis.call(\'SET\', KEYS[1], 1); return {1}" 1 b',
    'PING',
  ),
  'many prefixes': typed(
    `CLIENT TRACKING on BCAST ${Array.from({ length: 40 }, (_, n) => `PREFIX p${n}:`).join(' ')}`,
    'SELECT 3',
    'CLIENT TRACKINGINFO',
    'SELECT 99',
  ),
  channels: typed(
    'SUBSCRIBE a b a',
    'PSUBSCRIBE n.*',
    'UNSUBSCRIBE b',
    'PING',
    'PING x',
    'GET a',
    'UNSUBSCRIBE',
    'PUNSUBSCRIBE',
    'UNSUBSCRIBE',
    'GET a',
  ),
  'channels of a shard': typed(
    'SSUBSCRIBE a b',
    'SUNSUBSCRIBE',
    'SUBSCRIBE',
    'PUBSUB CHANNELS',
    'PUBSUB NUMSUB a',
    'PUBSUB SHARDCHANNELS',
    'PING',
  ),
  'lists that look like messages': typed(
    'RPUSH l message a b',
    'LRANGE l 0 -1',
    'RPUSH k subscribe a 3',
    'LRANGE k 0 -1',
    'SUBSCRIBE a',
    'LRANGE l 0 -1',
    'UNSUBSCRIBE a',
    'LRANGE k 0 -1',
    'PING',
  ),
  'a wait that ends at once': typed(
    'RPUSH l a b',
    'BLPOP l 0',
    'BRPOP l 0',
    'BZPOPMIN z 0.01',
    'BLMPOP 0.01 1 l LEFT',
    'BLPOP l -1',
    'PING',
  ),
  'a wait without an end': typed('PING', 'BLPOP none 0', 'PING'),
  replication: typed(
    'REPLCONF ACK 1',
    'PING',
    'REPLCONF listening-port x',
    'REPLCONF capa eof',
    'REPLCONF',
    'ROLE',
    'REPLCONF GETACK *',
    'PING',
    'FAILOVER ABORT',
    'REPLICAOF NO ONE',
  ),
  'replication in a transaction': typed('MULTI', 'PSYNC ? -1', 'SYNC', 'EXEC', 'PING'),
  permissions: typed(
    'ACL SETUSER tester on nopass ~* &* +@all -get -subscribe -multi',
    'AUTH tester x',
    'GET a',
    'SUBSCRIBE a',
    'MULTI',
    'SET a 1',
    'SUBSCRIBE a',
    'PING',
  ),
  'AUTH in every form': typed(
    'AUTH',
    'AUTH x',
    'AUTH nobody x',
    'AUTH a b c',
    'HELLO 3 AUTH nobody x',
    'ACL WHOAMI',
    'AUTH app first',
    'ACL WHOAMI',
    'HELLO 2 AUTH app wrong',
    'ACL WHOAMI',
    'RESET',
    'ACL WHOAMI',
  ),
  'readers of a replica': typed(
    'READONLY',
    'READWRITE',
    'ASKING',
    'CLUSTER SLOTS',
    'DEBUG SLEEP 0',
    'DEBUG OBJECT none',
    'DEBUG PROTOCOL attrib',
    'DEBUG PROTOCOL push',
    'DEBUG PROTOCOL double',
    'DEBUG PROTOCOL map',
    'DEBUG PROTOCOL verbatim',
    'DEBUG PROTOCOL null',
    'DEBUG PROTOCOL bignum',
    'DEBUG PROTOCOL true',
    'PING',
  ),
  'a replication that is refused': typed('PSYNC x', 'RESET', 'GET', 'MGET a b'),
  'channels left in silence': typed(
    'CLIENT REPLY OFF',
    'UNSUBSCRIBE',
    'REPLCONF GETACK *',
    'SUNSUBSCRIBE',
    'RESET',
    'EXEC',
    'PING',
  ),
  'channels asked for with the reply skipped': typed('CLIENT REPLY SKIP', 'REPLCONF GETACK *', 'PSUBSCRIBE n* m*'),
  'channels of a transaction': typed('MULTI', 'PUNSUBSCRIBE', 'EXEC', 'PING', 'REPLCONF ACK 1', 'UNSUBSCRIBE a'),
  'replies switched off among channels': typed(
    'PSUBSCRIBE n*',
    'CLIENT REPLY SKIP',
    'REPLCONF GETACK *',
    'PING',
    'RESET',
    'GET',
  ),
  'an EXEC that is refused': typed('MULTI', 'EXEC x', 'REPLCONF GETACK *', 'SELECT 0', 'EXEC x', 'RESET x', 'PING'),
  'a RESET behind a SHUTDOWN that is refused': `${typed('SHUTDOWN x', 'RESET', 'READONLY')}*2\r\n$3\r\nGET\r\n$5\r\nab`,
  'commands while it monitors': typed('MONITOR', 'NOSUCH a b', 'CLIENT KILL x', 'MULTI', 'RESET', 'PING'),
  'a QUIT that is skipped': typed('CLIENT REPLY SKIP', 'QUIT', 'WAIT 0 1', 'RESET', 'CLIENT REPLY ON'),
  'commands of nothing':
    '*0\r\n*-1\r\n*-7\r\n\r\n\n  \r\n*1\r\n$4\r\nPING\r\n*1\r\n$0\r\n\r\n*2\r\n$3\r\nGET\r\n$0\r\n\r\n',
  'typed lines':
    'PING\nset a "b c\\x41\\n"\r\nGET a\r\n  ECHO \'it\\\'s\'  \r\nget\t"a"\r\nNOSUCH x\r\nAUTH\r\nSELECT 3\r\nCLIENT GETNAME\r\n',
  'a line with a quote too many': 'PING\r\nSET a "b\r\nPING\r\n',
  'names in odd letters': `${typed('pInG', 'GeT a', 'cLiEnT gEtNaMe', 'rEsEt', 'PI\\x0eNG', '"\\xe2\\x82\\xac" x', `${'n'.repeat(200)}`)}`,
  'half a command': `${typed('SET a 1', 'PING')}*3\r\n$3\r\nSET\r\n$1\r\na\r\n$10\r\n123`,
  'half a name': `${typed('PING')}*1\r\n$4\r\nPI`,
  'half a command that is looked at': `${typed('PING')}*2\r\n$4\r\nAUTH\r\n$10\r\nabc`,
}

const PATIENCE_MS = 20_000

/** What differs from one connection to the next. */
const shown = (answer: string) =>
  answer
    .replace(/(\$2\r\nid\r\n:)\d+/g, '$1N')
    // Of MONITOR, which sees the logins of connections that are made ready too.
    .replace(/^\+\d+\.\d+ \[.*\r\n/gm, '')

describe('Redis through the sidecar, beside the same server without it', { timeout: 120_000 }, () => {
  let server: RedisServer
  let own: Awaited<ReturnType<typeof redisProxy>>
  let injecting: Awaited<ReturnType<typeof redisProxy>>

  before(async () => {
    server = await RedisServer.start([
      'user default on nopass ~* &* +@all',
      'user app on >first ~* &* +@all',
      'enable-debug-command yes',
    ])
    const endpoints = [{ host: '127.0.0.1', port: server.port }]
    const auth = { redis: { username: 'app', password: { secretKeyRef: { name: 'redis', key: 'password' } } } }
    own = await redisProxy({ endpoints })
    injecting = await redisProxy({ endpoints, auth }, {}, { redis: { password: 'first' } })
  })
  after(async () => {
    await own?.stop()
    await injecting?.stop()
    await server?.stop()
  })

  /** All that comes on a connection to a server without keys. @param pieces how long each write is */
  async function answerOf(port: number, script: string, pieces = script.length): Promise<string> {
    const control = new TestClient({ port: server.port })
    control.write(typed('FLUSHALL', 'SCRIPT FLUSH', 'ACL DELUSER tester'))
    await control.read('+OK\r\n+OK\r\n:0\r\n'.length)
    control.socket.destroy()
    const client = new TestClient({ port })
    client.socket.setNoDelay(true)
    for (let from = 0; from < script.length; from += pieces) {
      client.socket.write(script.slice(from, from + pieces), 'latin1')
      if (pieces < script.length) await new Promise((resolve) => setImmediate(resolve))
    }
    client.end()
    // One that is never ended is told from the others, and does not hold them up.
    let end = ''
    const patience = setTimeout(() => {
      end = 'and it is never ended'
      client.socket.destroy()
    }, PATIENCE_MS)
    await client.closed()
    clearTimeout(patience)
    return shown(client.text) + end
  }

  for (const [what, script] of Object.entries(SCRIPTS)) {
    it(`answers as the server does: ${what}`, async () => {
      for (const version of ['', typed('HELLO 3')]) {
        const whole = version + script
        const expected = await answerOf(server.port, whole)
        assert.equal(await answerOf(own.port, whole), expected, 'without a credential')
        // What comes after the server has closed resets the connection, and with it goes what was not read, without the sidecar too.
        const isClosed = /^QUIT|a quote too many/.test(what)
        if (!isClosed) assert.equal(await answerOf(own.port, whole, 5), expected, 'in pieces')
        if (!/AUTH|WHOAMI|ACL/.test(script)) assert.equal(await answerOf(injecting.port, whole), expected, 'with one')
      }
    })
  }
})
