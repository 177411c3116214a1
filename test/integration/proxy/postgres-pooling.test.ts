import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import pg from 'pg'
import postgres from 'postgres'
import { Exposition } from '../../../proxy/observe/exposition.ts'
import { writePostgres } from '../../../proxy/observe/postgres-metrics.ts'
import type { Served } from '../../../proxy/served.ts'
import { Pki } from '../../helpers/pki.ts'
import { type PooledSetup, pooledPostgres } from '../../helpers/pooled-postgres.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import {
  connected,
  copyData,
  message,
  one,
  query,
  rawClient,
  refusal,
  resume,
  scope,
  startup,
  WireClient,
} from '../../helpers/postgres-client.ts'

const pki = new Pki()
const lasting: (() => unknown)[] = []
let port = 0
let ca = ''

before(async () => {
  const authority = pki.authority()
  ca = authority.cert
  port = (await postgresServer({ tls: authority.issue({ names: ['127.0.0.1'] }) }, lasting)).port
  const client = new pg.Client(DIRECT())
  await client.connect()
  await client.query('create role other; create sequence numbers; create table things (id int primary key, name text)')
  await client.end()
})

after(async () => {
  for (const end of lasting.reverse()) await end()
  pki.remove()
})

const DIRECT = () => ({ host: '127.0.0.1', port, user: POSTGRES_USER, password: POSTGRES_PASSWORD })

/** A proxy with one connection to the server unless told otherwise, so that clients follow each other on it. */
function pool(ends: (() => unknown)[], setup: Partial<PooledSetup> = {}) {
  return pooledPostgres(
    { ports: [port], postgres: { pooling: { mode: 'Transaction' } }, limits: { maxConnections: 1 }, ...setup },
    ends,
  )
}

describe('PostgreSQL pooling by transaction', () => {
  it(
    'gives clients the same connection one after the other, and none between transactions',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
      const pid = await one(a, 'select pg_backend_pid()')
      assert.equal(await one(b, 'select pg_backend_pid()'), pid)
      await a.query('begin')
      const waits = one(b, 'select 2')
      while (proxy.waiting === 0) await new Promise((resolve) => setImmediate(resolve))
      assert.equal(await one(a, 'select 1'), 1)
      assert.equal(proxy.waiting, 1)
      await a.query('commit')
      assert.equal(await waits, 2)
      assert.deepEqual([proxy.pooling.connections, proxy.pooling.free], [1, 1])
    }),
  )

  it(
    'serves 100 clients by 5 connections',
    scope(async (ends) => {
      const proxy = await pool(ends, { limits: { maxConnections: 5 } })
      const clients = await Promise.all(Array.from({ length: 100 }, () => connected(proxy.options, ends)))
      const pids = await Promise.all(
        clients.map(async (client, n) => {
          await client.query('begin')
          const pid = await one(client, 'select pg_backend_pid()')
          assert.equal(await one(client, 'select $1::int', [n]), n)
          await client.query('commit')
          return pid
        }),
      )
      assert.equal(new Set(pids).size, 5)
    }),
  )

  for (const [reason, statement, outline, question, answer] of [
    [
      'set',
      "set vacuum_cost_delay = '17ms'",
      'set vacuum_cost_delay = ?',
      "select current_setting('vacuum_cost_delay')",
      '0',
    ],
    [
      'set',
      "select set_config('work_mem', '7MB', false)",
      'select set_config(?, false)',
      "select current_setting('work_mem')",
      '4MB',
    ],
    ['role', 'set role other', 'set role other', 'select current_user::text', POSTGRES_USER],
    [
      'temporary_table',
      'create temp table secret as select 1',
      'create temp table secret as select ?',
      "select count(*)::int from pg_class where relname = 'secret'",
      0,
    ],
    [
      'advisory_lock',
      'select pg_advisory_lock(42)',
      'select pg_advisory_lock(?)',
      "select count(*)::int from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()",
      0,
    ],
    ['listen', 'listen news', 'listen news', 'select count(*)::int from pg_listening_channels()', 0],
    [
      'prepare',
      'prepare p as select 1',
      'prepare p as select ?',
      'select count(*)::int from pg_prepared_statements where from_sql',
      0,
    ],
    [
      'cursor',
      'declare c cursor with hold for select 1',
      'declare c cursor with hold for select ?',
      "select count(*)::int from pg_cursors where name = 'c'",
      0,
    ],
  ] as const) {
    it(
      `keeps the connection for a client that says ${statement}, and cleans it for the next one`,
      scope(async (ends) => {
        const proxy = await pool(ends)
        const a = await connected(proxy.options, ends)
        const b = await connected(proxy.options, ends)
        const before = await one(a, question)
        assert.deepEqual(before, answer)
        await a.query(statement)
        assert.notDeepEqual(await one(a, question), answer, 'the client finds again what it did')
        assert.deepEqual(proxy.pooling.pinned, { [reason]: 1 })
        assert.equal(proxy.logged.length, 1)
        const { fields, text } = proxy.logged[0]!
        assert.equal(text, 'a client keeps its connection to the server')
        const { reason: told, statement: shown } = fields as Record<string, unknown>
        assert.deepEqual([told, shown], [reason, outline])
        assert.doesNotMatch(JSON.stringify(proxy.logged), /17ms|7MB|42/)
        const waits = one(b, question)
        assert.equal(proxy.waiting, 0)
        await new Promise((resolve) => setImmediate(resolve))
        await a.end()
        assert.deepEqual(await waits, answer)
        assert.equal(proxy.pooling.connections, 1)
      }),
    )
  }

  it(
    'gives nobody a connection on which the parameters of one that vanished are still being set',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const other = await connected(proxy.options, ends)
      const zone = await one(other, "select current_setting('TimeZone')")
      const pid = Number(await one(other, 'select pg_backend_pid()'))
      const seen = async (condition: () => boolean) => {
        while (!condition()) await new Promise((resolve) => setImmediate(resolve))
      }
      await seen(() => proxy.pooling.free === 1)
      process.kill(pid, 'SIGSTOP')
      try {
        const gone = new WireClient({ port: proxy.port })
        gone.write(startup(0, 'user\0x\0database\0postgres\0timezone\0Asia/Tokyo\0\0'))
        await seen(() => proxy.pooling.free === 0)
        gone.socket.destroy()
        await seen(() => proxy.driver.open === 1)
        const answer = one(other, "select current_setting('TimeZone')")
        await seen(() => proxy.pooling.free === 0)
        process.kill(pid, 'SIGCONT')
        assert.equal(await answer, zone)
      } finally {
        resume(pid)
      }
    }),
  )

  it(
    'reports to each client the parameters that it gave at its begin, and refuses wrong ones',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const psql = async (env: Record<string, string>, ...args: string[]) => {
        const { options } = proxy
        const where = ['-h', options.host, '-p', String(options.port), '-U', 'x', '-d', 'postgres', '-X', '-At']
        return promisify(execFile)('psql', [...where, ...args], {
          env: { PATH: process.env['PATH'], PGSSLMODE: 'disable', ...env },
        })
      }
      const { stdout } = await psql(
        { PGTZ: 'Asia/Tokyo', PGCLIENTENCODING: 'latin1' },
        '-c',
        'show timezone',
        '-c',
        '\\encoding',
      )
      assert.equal(stdout, 'Asia/Tokyo\nLATIN1\n')
      const wrong = await psql({ PGTZ: 'Nowhere' }, '-c', 'select 1').catch((error: { stderr: string }) => error.stderr)
      assert.match(String(wrong), /FATAL: {2}invalid value for parameter "TimeZone": "Nowhere"/)
      assert.equal((await psql({}, '-c', 'select 1')).stdout, '1\n')
    }),
  )

  it(
    'answers a statement that cannot be parsed as the server does, and lets the name be used again',
    scope(async (ends) => {
      const { options } = await pool(ends)
      const sql = postgres({ host: options.host, port: options.port, user: 'x', database: 'postgres', max: 1 })
      ends.push(() => sql.end())
      await assert.rejects(sql`selec 1`, { code: '42601' })
      assert.equal((await sql`select ${7}::int as x`)[0]?.['x'], 7)
      const a = await connected(options, ends)
      await assert.rejects(a.query({ name: 'n', text: 'selec 1' }), { code: '42601' })
      assert.equal((await a.query({ name: 'n', text: 'select 1 as x' })).rows[0].x, 1)
      await assert.rejects(a.query({ name: 'm', text: 'select 1 / $1::int as x', values: [0] }), { code: '22012' })
      assert.equal((await a.query({ name: 'm', text: 'select 1 / $1::int as x', values: [1] })).rows[0].x, 1)
    }),
  )

  it(
    'carries 8 MB each way, transactions and COPY with postgres.js',
    scope(async (ends) => {
      const { options } = await pool(ends, { limits: { maxConnections: 2 }, ca })
      const sql = postgres({ host: options.host, port: options.port, user: 'x', database: 'postgres', max: 4 })
      ends.push(() => sql.end())
      const large = 'äb'.repeat(4 << 20)
      const [row] = await sql`select ${large}::text as echo, length(${large}::text) as length`
      assert.equal(row?.['length'], large.length)
      assert.equal(row?.['echo'] === large, true)
      await Promise.all(
        Array.from({ length: 20 }, (_, n) =>
          sql.begin(async (tx) => {
            await tx`insert into things values (${n}, ${`thing ${n}`})`
            assert.equal((await tx`select name from things where id = ${n}`)[0]?.['name'], `thing ${n}`)
          }),
        ),
      )
      const written = await sql`copy things from stdin`.writable()
      const ended = new Promise((resolve, reject) => written.once('finish', resolve).once('error', reject))
      for (let n = 100; n < 20_000; n++) written.write(`${n}\tcopied ${n}\n`)
      written.end()
      await ended
      let bytes = 0
      for await (const chunk of await sql`copy (select * from things order by id) to stdout`.readable()) {
        bytes += (chunk as Buffer).length
      }
      assert.ok(bytes > 300_000, `${bytes} bytes`)
      assert.equal((await sql`select count(*)::int as n from things`)[0]?.['n'], 19_920)
      await sql`truncate things`
    }),
  )

  it(
    'rolls back for a client that vanishes in a transaction',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const a = await connected(proxy.options, ends)
      const b = await connected(proxy.options, ends)
      await a.query('begin')
      await a.query("insert into things values (1, 'lost')")
      ;(a as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy()
      assert.equal(await one(b, 'select count(*)::int from things'), 0)
      assert.equal(await one(b, 'select txid_current_if_assigned()'), null)
      assert.equal(proxy.pooling.connections, 1)
    }),
  )

  it(
    'cancels what the server does for a client that vanishes',
    scope(async (ends) => {
      const proxy = await pool(ends, { limits: { maxConnections: 2 } })
      const a = await connected(proxy.options, ends)
      const b = await connected(proxy.options, ends)
      const count = `select count(*)::int from pg_stat_activity where query = 'select pg_sleep(61)'`
      a.query('select pg_sleep(61)').catch(() => {})
      while ((await one(b, count)) !== 1) await new Promise((resolve) => setImmediate(resolve))
      ;(a as unknown as { connection: { stream: { destroy(): void } } }).connection.stream.destroy()
      const active = `select count(*)::int from pg_stat_activity where query = 'select pg_sleep(61)' and state = 'active'`
      while ((await one(b, active)) !== 0) await new Promise((resolve) => setImmediate(resolve))
    }),
  )

  it(
    'gives no connection to ten messages that are not whole',
    scope(async (ends) => {
      const proxy = await pool(ends, { limits: { maxConnections: 5 } })
      const whole = query('select 1')
      const parse = Buffer.from('P\0\0\0\x10\0select 1\0\0\0', 'latin1')
      for (let n = 0; n < 10; n++) {
        const client = await rawClient(proxy.port, ends)
        client.write(n % 2 === 0 ? whole.subarray(0, whole.length - 1 - n) : parse)
      }
      const a = await connected(proxy.options, ends)
      assert.equal(await one(a, 'select 3'), 3)
      assert.deepEqual([proxy.pooling.connections, proxy.waiting], [1, 0])
    }),
  )

  it(
    'takes requests in single bytes, and answers those that are pipelined in their order',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const client = await rawClient(proxy.port, ends)
      client.socket.setNoDelay(true)
      const text = Buffer.concat([query('select 41'), query('selec'), query('select 43')])
      for (const byte of text) client.write(Buffer.from([byte]))
      const answer = await client.readUntil(/43C\0\0\0\rSELECT 1\0Z\0\0\0\x05I$/)
      assert.match(answer, /41C\0\0\0\rSELECT 1\0Z.*42601.*Z\0\0\0\x05I.*43C/s)
      client.write(Buffer.concat([text, query('select 44')]))
      client.end()
      assert.match(await client.ended(), /41C.*42601.*43C.*44C\0\0\0\rSELECT 1\0Z\0\0\0\x05I$/s)
    }),
  )

  it(
    'answers a query that is pipelined behind CopyDone, by the simple and the extended protocol',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const data = Buffer.concat([copyData('1\tone\n'), copyData('2\ttwo\n'), Buffer.from('c\0\0\0\x04', 'latin1')])
      const simple = await rawClient(proxy.port, ends)
      simple.write(Buffer.concat([query('copy things from stdin'), data, query('select 51')]))
      assert.match(await simple.readUntil(/51C\0\0\0\rSELECT 1\0Z\0\0\0\x05I$/), /COPY 2\0Z\0\0\0\x05I/)
      const extended = await rawClient(proxy.port, ends)
      const sync = Buffer.from('S\0\0\0\x04', 'latin1')
      const begin = Buffer.concat([
        message('P', '\0delete from things\0\0\0'),
        message('B', '\0\0\0\0\0\0\0\0'),
        message('E', '\0\0\0\0\0'),
        message('P', '\0copy things from stdin\0\0\0'),
        message('B', '\0\0\0\0\0\0\0\0'),
        message('E', '\0\0\0\0\0'),
        sync,
      ])
      extended.write(begin)
      await extended.readUntil(/G\0\0\0/)
      extended.write(Buffer.concat([data, sync, query('select 52')]))
      assert.match(await extended.readUntil(/52C\0\0\0\rSELECT 1\0Z\0\0\0\x05I$/), /COPY 2\0Z\0\0\0\x05I/)
      // All of it at once: the Sync behind the Execute is read by the COPY.
      extended.write(Buffer.concat([begin, data, sync, query('select 53')]))
      assert.match(await extended.readUntil(/53C\0\0\0\rSELECT 1\0Z\0\0\0\x05I$/), /COPY 2\0Z\0\0\0\x05I/)
      const other = await connected(proxy.options, ends)
      assert.equal(await one(other, 'select count(*)::int from things'), 2)
      await other.query('truncate things')
      assert.deepEqual(proxy.pooling.pinned, {})
    }),
  )

  it(
    'fails what waits too long with 53300, and lets the client go on',
    scope(async (ends) => {
      const proxy = await pool(ends, {
        postgres: { pooling: { mode: 'Transaction', queueTimeout: '300ms' } },
        limits: { maxConnections: 1, maxPendingRequests: 1 },
      })
      const [a, b, c] = [
        await connected(proxy.options, ends),
        await connected(proxy.options, ends),
        await connected(proxy.options, ends),
      ]
      await a.query('begin')
      const late = assert.rejects(one(b, 'select 1'), {
        code: '53300',
        severity: 'ERROR',
        hint: 'ambassador: queue_full',
      })
      while (proxy.waiting === 0) await new Promise((resolve) => setImmediate(resolve))
      await assert.rejects(one(c, 'select $1::int', [1]), { code: '53300' })
      await late
      await a.query('commit')
      assert.equal(await one(b, 'select 5'), 5)
      assert.equal(await one(c, 'select $1::int', [6]), 6)
    }),
  )

  it(
    'tells a client that waits why by one notice, and serves it when a connection becomes free',
    scope(async (ends) => {
      const proxy = await pool(ends, { postgres: { pooling: { mode: 'Transaction', queueTimeout: '6s' } } })
      const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
      await a.query('begin')
      const notices: { readonly severity: string | undefined; readonly text: string | undefined }[] = []
      const told = new Promise<void>((resolve) => {
        b.on('notice', ({ severity, message: text }) => {
          notices.push({ severity, text })
          resolve()
        })
      })
      const waits = one(b, 'select 7')
      await Promise.race([told, waits])
      await a.query('commit')
      assert.equal(await waits, 7)
      const text = "waiting for one of the 1 connections of upstream 'primary'"
      assert.deepEqual(notices, [{ severity: 'NOTICE', text }])
    }),
  )

  it(
    'closes connections that nobody has used for the idle time-out, and makes another when one is needed',
    scope(async (ends) => {
      const direct = await connected(DIRECT(), ends)
      const proxy = await pool(ends, { postgres: { pooling: { mode: 'Transaction', idleTimeout: '1s' } } })
      const a = await connected({ ...proxy.options, application_name: 'idler' }, ends)
      const pid = await one(a, 'select pg_backend_pid()')
      const isThere = () => one(direct, 'select count(*)::int from pg_stat_activity where pid = $1', [pid])
      while ((await isThere()) !== 0) await new Promise((resolve) => setTimeout(resolve, 20))
      assert.deepEqual([proxy.pooling.connections, proxy.pooling.free, proxy.driver.open], [0, 0, 1])
      assert.notEqual(await one(a, 'select pg_backend_pid()'), pid)
      assert.equal(proxy.pooling.connections, 1)
    }),
  )

  it(
    'replaces a connection that is in use all the time when its lifetime is over, between transactions',
    scope(async (ends) => {
      const direct = await connected(DIRECT(), ends)
      const proxy = await pool(ends, { postgres: { pooling: { mode: 'Transaction', maxLifetime: '300ms' } } })
      const a = await connected(proxy.options, ends)
      await a.query('begin')
      const pid = await one(a, 'select pg_backend_pid()')
      const isOld = () =>
        one(a, `select clock_timestamp() - backend_start > '500ms' from pg_stat_activity where pid = $1`, [pid])
      while ((await isOld()) !== true) await new Promise((resolve) => setTimeout(resolve, 20))
      assert.equal(await one(a, 'select pg_backend_pid()'), pid)
      await a.query('commit')
      assert.notEqual(await one(a, 'select pg_backend_pid()'), pid)
      const isThere = () => one(direct, 'select count(*)::int from pg_stat_activity where pid = $1', [pid])
      while ((await isThere()) !== 0) await new Promise((resolve) => setTimeout(resolve, 20))
      assert.equal(proxy.pooling.connections, 1)
    }),
  )

  it(
    'shows no sequence of another client',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
      await a.query("select nextval('numbers')")
      await assert.rejects(b.query("select currval('numbers')"), { code: '55000' })
      await b.query('begin')
      await b.query("select nextval('numbers')")
      const value = await one(b, "select nextval('numbers')")
      assert.equal(await one(b, 'select lastval()'), value)
      await b.query('commit')
      await a.query("select nextval('numbers')")
      await assert.rejects(b.query('select lastval()'), { code: '55000' })
    }),
  )

  it(
    'keeps the unnamed statement of each client',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const [a, b] = [await rawClient(proxy.port, ends), await rawClient(proxy.port, ends)]
      const sync = message('S', '')
      const run = Buffer.concat([message('B', '\0\0\0\0\0\0\0\0'), message('E', '\0\0\0\0\0'), sync])
      a.write(Buffer.concat([message('P', '\0select 71\0\0\0'), sync]))
      await a.readUntil(/Z\0\0\0\x05I$/)
      b.write(run)
      assert.match(await b.readUntil(/Z\0\0\0\x05I$/), /C26000/)
      b.write(Buffer.concat([message('P', '\0select 72\0\0\0'), sync]))
      await b.readUntil(/Z\0\0\0\x05I$/)
      a.write(run)
      assert.match(await a.readUntil(/Z\0\0\0\x05I$/), /2\0\0\0\x04D.*71C/s)
      b.write(run)
      assert.match(await b.readUntil(/Z\0\0\0\x05I$/), /2\0\0\0\x04D.*72C/s)
    }),
  )

  it(
    'speaks protocol 3.2 with a long key, and says what it does not know',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const client = new WireClient({ port: proxy.port })
      ends.push(() => client.socket.destroy())
      client.write(startup(2, 'user\0x\0database\0postgres\0\0'))
      const welcome = await client.readUntil(/Z\0\0\0\x05I$/)
      assert.match(welcome, /^R\0\0\0\x08\0\0\0\0S.*K\0\0\0\x28/s)
      const newer = new WireClient({ port: proxy.port })
      ends.push(() => newer.socket.destroy())
      newer.write(startup(9999, 'user\0x\0database\0postgres\0_pq_.grease\x001\0\0'))
      const answer = await newer.readUntil(/Z\0\0\0\x05I$/)
      assert.match(answer, /^v\0\0\0\x18\0\x03\0\x02\0\0\0\x01_pq_\.grease\0R/)
    }),
  )

  it(
    'ends clients between transactions when it drains, and waits for those in one',
    scope(async (ends) => {
      const proxy = await pool(ends, { limits: { maxConnections: 2 } })
      const idle = await connected(proxy.options, ends)
      const busy = await connected(proxy.options, ends)
      await busy.query('begin')
      const ended = new Promise<pg.DatabaseError>((resolve) => idle.once('error', resolve as (error: Error) => void))
      const drained = proxy.driver.drain()
      assert.equal((await ended).code, '57P01')
      assert.equal(await one(busy, 'select 1'), 1)
      await busy.query('commit')
      await drained
      assert.equal(proxy.driver.open, 0)
    }),
  )

  it(
    'closes free connections beyond a bound that was lowered',
    scope(async (ends) => {
      const setup = { ports: [port], postgres: { pooling: { mode: 'Transaction' } } } as const
      const proxy = await pool(ends, { limits: { maxConnections: 4 } })
      const clients = await Promise.all([0, 1, 2, 3].map(() => connected(proxy.options, ends)))
      for (const client of clients) await client.query('begin')
      assert.equal(proxy.pooling.connections, 4)
      for (const client of clients.slice(0, 3)) await client.query('commit')
      // They are made clean first.
      while (proxy.pooling.free < 3) await new Promise((resolve) => setImmediate(resolve))
      proxy.change({ ...setup, limits: { maxConnections: 2 } })
      assert.deepEqual([proxy.pooling.connections, proxy.pooling.free], [2, 1])
    }),
  )

  it(
    'moves to changed settings at the next transaction',
    scope(async (ends) => {
      const direct = await connected(DIRECT(), ends)
      await direct.query(`create role second login superuser password '${POSTGRES_PASSWORD}'`)
      const proxy = await pool(ends)
      const a = await connected(proxy.options, ends)
      await a.query("set timezone = 'Asia/Tokyo'")
      await a.query('begin')
      const setup = { ports: [port], postgres: { pooling: { mode: 'Transaction' } } } as const
      proxy.change({ ...setup, limits: { maxConnections: 1 }, user: 'second' })
      assert.equal(await one(a, 'select current_user::text'), POSTGRES_USER)
      await a.query('commit')
      assert.equal(await one(a, 'select current_user::text'), 'second')
      assert.equal(await one(a, "select current_setting('timezone')"), 'Asia/Tokyo')
      assert.equal(proxy.pooling.connections, 1)
    }),
  )

  it(
    'makes another connection when the server has ended one, and ends the client whose transaction it was',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const a = await connected(proxy.options, ends)
      const direct = await connected(DIRECT(), ends)
      const pid = await one(a, 'select pg_backend_pid()')
      await direct.query('select pg_terminate_backend($1, 5000)', [pid])
      while (proxy.pooling.connections > 0) await new Promise((resolve) => setImmediate(resolve))
      assert.notEqual(await one(a, 'select pg_backend_pid()'), pid)
      await a.query('begin')
      const ended = new Promise<pg.DatabaseError>((resolve) => a.once('error', resolve as (error: Error) => void))
      await direct.query('select pg_terminate_backend($1, 5000)', [await one(a, 'select pg_backend_pid()')])
      assert.equal((await ended).code, '57P01')
      const b = await connected(proxy.options, ends)
      assert.equal(await one(b, 'select 8'), 8)
    }),
  )

  it(
    'gives the connection of one database to another one that waits, and tells of a database that does not exist',
    scope(async (ends) => {
      const direct = await connected(DIRECT(), ends)
      await direct.query('create database second')
      const proxy = await pool(ends)
      const a = await connected(proxy.options, ends)
      const b = await connected({ ...proxy.options, database: 'second' }, ends)
      for (let round = 0; round < 2; round++) {
        assert.equal(await one(a, 'select current_database()'), 'postgres')
        assert.equal(await one(b, 'select current_database()'), 'second')
      }
      await a.query('begin')
      const waits = one(b, 'select current_database()')
      while (proxy.waiting === 0) await new Promise((resolve) => setImmediate(resolve))
      await a.query('commit')
      assert.equal(await waits, 'second')
      const nowhere = new pg.Client({ ...proxy.options, database: 'nowhere' })
      await assert.rejects(nowhere.connect(), { code: '3D000' })
      assert.equal(await one(a, 'select 1'), 1)
      await b.end()
    }),
  )

  it(
    'hands the SQLSTATE of a refused login on, with a hint where to look',
    scope(async (ends) => {
      const proxy = await pool(ends, { password: 'battery staple' })
      const error = await refusal(proxy.options)
      assert.equal(error.code, '28P01')
      assert.match(error.hint ?? '', /Secret 'db', key 'password'/)
    }),
  )

  it(
    'tells of a wrong password as it does without a pool: in the log, and as the last error',
    scope(async (ends) => {
      const [pooled, single] = await Promise.all(
        (['Transaction', 'Disabled'] as const).map(async (mode) => {
          const proxy = await pool(ends, { password: 'battery staple', postgres: { pooling: { mode } } })
          assert.equal((await refusal(proxy.options)).code, '28P01')
          const [{ reason, detail, endpoint, attempts } = {}] = proxy.lines
          return { troubles: proxy.troubles, reason, detail, endpoint, attempts }
        }),
      )
      assert.deepEqual(pooled, single)
      const [trouble, ...others] = pooled!.troubles
      assert.match(trouble!, /^auth_unavailable: the server refused the login: 28P01 /)
      assert.deepEqual([others, pooled?.reason, pooled?.attempts], [[], 'auth_unavailable', 1])
    }),
  )

  it(
    'does not share connections between clients whose startup parameters cannot be set later',
    scope(async (ends) => {
      const proxy = await pool(ends, { limits: { maxConnections: 2 } })
      const a = await connected({ ...proxy.options, options: '-c search_path=pg_catalog -c work_mem=5MB' }, ends)
      const b = await connected(proxy.options, ends)
      const show = `select current_setting('search_path') || '|' || current_setting('work_mem')`
      for (let round = 0; round < 2; round++) {
        assert.equal(await one(a, show), 'pg_catalog|5MB')
        assert.equal(await one(b, show), '"$user", public|4MB')
      }
    }),
  )

  it(
    'reads a text without a name that comes again once more when a backslash means something else by then',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const a = await connected(proxy.options, ends)
      const text = "select '\\', set_config($1, $2, false) --', $1::text, $2::text"
      const ask = () => a.query({ text, values: ['work_mem', '64kB'] })
      await a.query('set standard_conforming_strings = off')
      for (let n = 0; n < 3; n++) await ask()
      assert.deepEqual(proxy.pooling.pinned, {})
      await a.query('set standard_conforming_strings = on')
      await ask()
      assert.deepEqual(proxy.pooling.pinned, { set: 1 })
      assert.equal(await one(a, 'show work_mem'), '64kB')
    }),
  )

  it(
    'sends texts longer than it keeps as they come: reads what they do, and keeps the connection for long prepared ones',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const a = await connected(proxy.options, ends)
      const long = `'${'x'.repeat(300_000)}'`
      assert.equal(await one(a, `select length(${long})`), 300_000)
      assert.deepEqual(proxy.pooling.pinned, {})
      await a.query(`select length(${long}); set role other`)
      assert.deepEqual(proxy.pooling.pinned, { role: 1 })
      await a.end()
      const b = await connected(proxy.options, ends)
      assert.equal(await one(b, 'select current_user::text'), POSTGRES_USER)
      const named = { name: 'long', text: `select length(${long}) as n, $1::text as t` }
      for (const t of ['y'.repeat(200_000), 'z']) {
        assert.deepEqual((await b.query({ ...named, values: [t] })).rows, [{ n: 300_000, t }])
      }
      assert.deepEqual(proxy.pooling.pinned, { role: 1, large_statement: 1 })
    }),
  )

  it(
    'keeps a connection for replication to itself',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const where = `host=127.0.0.1 port=${proxy.port} user=x dbname=postgres sslmode=disable replication=database`
      const { stdout } = await promisify(execFile)('psql', [where, '-X', '-At', '-c', 'IDENTIFY_SYSTEM'])
      assert.match(stdout, /^\d+\|1\|/)
      assert.deepEqual(proxy.pooling.pinned, { replication: 1 })
      const a = await connected(proxy.options, ends)
      assert.equal(await one(a, 'select 1'), 1)
    }),
  )

  it(
    'takes a connection back that DISCARD ALL has cleaned',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
      await a.query('listen news')
      await a.query('discard all')
      assert.equal(await one(b, 'select 1'), 1)
      assert.equal(await one(a, 'select 2'), 2)
    }),
  )

  it(
    'answers DEALLOCATE of a statement that the client prepared by the protocol',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const a = await connected(proxy.options, ends)
      await a.query({ name: 'One', text: 'select 1' })
      assert.equal((await a.query('deallocate "One"')).command, 'DEALLOCATE')
      await assert.rejects(a.query('deallocate "One"'), { code: '26000' })
    }),
  )

  it(
    'tells of statements in the query log as it does without a pool',
    scope(async (ends) => {
      const proxy = await pool(ends, {
        postgres: { pooling: { mode: 'Transaction' }, queryLog: { minDuration: '0s' } },
      })
      const a = await connected(proxy.options, ends)
      await a.query({ name: 'n', text: "select $1::text || 'secret' as x", values: ['hidden'] })
      await a.query("select 'secret' from pg_class limit 3")
      const [extended, simple] = proxy.lines as Record<string, unknown>[]
      assert.equal(proxy.lines.length, 2)
      assert.match(String(extended?.['statement']), /^select \$1::text \|\| \? as x$/i)
      assert.deepEqual([extended?.['rows'], simple?.['rows']], [1, 3])
      assert.doesNotMatch(JSON.stringify(proxy.lines), /secret|hidden/)
    }),
  )

  it(
    'shows the metrics of the pool',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const a = await connected(proxy.options, ends)
      await a.query('listen news')
      const out = new Exposition()
      const served = { name: 'orders', config: { postgres: { pooling: {} } }, driver: proxy.driver }
      writePostgres(out, [served as unknown as Served])
      const text = out.text()
      assert.match(text, /^ambassador_postgres_pinned_total\{ambassador="orders",reason="listen"\} 1$/m)
      assert.match(text, /^ambassador_postgres_server_connections\{ambassador="orders",state="busy"\} 1$/m)
      assert.match(text, /^ambassador_postgres_assignments_total\{ambassador="orders"\} 2$/m)
    }),
  )

  for (const protocol of ['simple', 'extended', 'prepared']) {
    it(
      `serves pgbench by the ${protocol} protocol, 8 clients on 2 connections with TLS and SCRAM`,
      scope(async (ends) => {
        const proxy = await pool(ends, { ca, limits: { maxConnections: 2 } })
        const where = ['-h', '127.0.0.1', '-U', 'x']
        const env = { PATH: process.env['PATH'], PGSSLMODE: 'disable', PGPASSWORD: POSTGRES_PASSWORD }
        const direct = ['-h', '127.0.0.1', '-p', String(port), '-U', POSTGRES_USER, '-i', '-q', 'postgres']
        await promisify(execFile)('pgbench', direct, { env })
        // A thread for each client: one that prepares waits for its answer, and would keep others from ending their transactions.
        const load = ['-M', protocol, '-c', '8', '-j', '8', '-t', '40']
        const args = [...where, '-p', String(proxy.port), '-n', ...load, 'postgres']
        const { stdout } = await promisify(execFile)('pgbench', args, { env })
        assert.match(stdout, /number of transactions actually processed: 320\/320/)
        assert.match(stdout, /number of failed transactions: 0/)
        assert.deepEqual(proxy.pooling.pinned, {})
      }),
    )
  }
})

describe('PostgreSQL pooling by session', () => {
  it(
    'gives a client one connection until it ends, and the next client the same one, clean',
    scope(async (ends) => {
      const proxy = await pool(ends, { postgres: { pooling: { mode: 'Session' } } })
      const a = await connected(proxy.options, ends)
      const pid = await one(a, 'select pg_backend_pid()')
      await a.query("set work_mem = '7MB'; create temp table t (id int); prepare p as select 1; listen news")
      await a.query({ name: 'named', text: 'select 1' })
      assert.equal(await one(a, 'execute p'), 1)
      const waits = connected(proxy.options, ends)
      while (proxy.waiting === 0) await new Promise((resolve) => setImmediate(resolve))
      await a.query('begin')
      await a.end()
      const b = await waits
      assert.equal(await one(b, 'select pg_backend_pid()'), pid)
      const left = `select concat_ws('|', current_setting('work_mem'), (select count(*) from pg_prepared_statements), to_regclass('pg_temp.t')::text, (select count(*) from pg_listening_channels()))`
      assert.equal(await one(b, left), '4MB|0|0')
      assert.deepEqual(proxy.pooling.pinned, {})
    }),
  )
})
