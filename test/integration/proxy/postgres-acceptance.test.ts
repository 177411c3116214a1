/** What applications may do in every mode of pooling, seen from outside, before a real PostgreSQL. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import pg from 'pg'
import postgres from 'postgres'
import type { Ends } from '../../helpers/ends.ts'
import { type PooledSetup, pooledPostgres } from '../../helpers/pooled-postgres.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { connected, copyData, message, one, query, rawClient, refusal, scope } from '../../helpers/postgres-client.ts'
import { closedPort, TestClient, tcpServer } from '../../helpers/tcp.ts'

const lasting: Ends = []
const folder = mkdtempSync(join(tmpdir(), 'ambassador-psql-'))
let port = 0

before(async () => {
  port = (await postgresServer({}, lasting)).port
  const client = new pg.Client({ host: '127.0.0.1', port, user: POSTGRES_USER, password: POSTGRES_PASSWORD })
  await client.connect()
  await client.query('create table things (id int primary key, name text)')
  await client.end()
})

after(async () => {
  for (const end of lasting.reverse()) await end()
  rmSync(folder, { recursive: true, force: true })
})

const MODES = ['Transaction', 'Session', 'Disabled'] as const

/** A proxy with one connection to the server unless told otherwise. */
const proxyOf = (ends: Ends, mode: (typeof MODES)[number], setup: Partial<PooledSetup> = {}) =>
  pooledPostgres(
    {
      ports: [port],
      postgres: { pooling: { mode } },
      limits: { maxConnections: mode === 'Disabled' ? 4 : 1 },
      ...setup,
    },
    ends,
  )

const READY = /Z\0\0\0\x05I$/
const sync = message('S', '')
const flush = message('H', '')
const execute = (rows = 0) => message('E', `\0\0\0\0${String.fromCharCode(rows)}`)
const parse = (name: string, sql: string) => message('P', `${name}\0${sql}\0\0\0`)
const run = (name = '') => Buffer.concat([message('B', `\0${name}\0\0\0\0\0\0\0`), execute()])

for (const mode of MODES) {
  describe(`PostgreSQL with pooling ${mode}`, { concurrency: true, timeout: 120_000 }, () => {
    it(
      'answers everything that was sent before a half-close',
      scope(async (ends) => {
        const { port: own } = await proxyOf(ends, mode)
        const client = await rawClient(own, ends)
        client.write(Buffer.concat([query('select pg_sleep(0.1), 11'), query('select 12')]))
        client.end()
        assert.match(await client.ended(), /12C\0\0\0\rSELECT 1\0Z\0\0\0\x05I$/)
      }),
    )

    it(
      'passes over what follows an error in a pipeline, up to the Sync, and not what is behind it',
      scope(async (ends) => {
        const { port: own } = await proxyOf(ends, mode)
        const client = await rawClient(own, ends)
        const broken = [parse('', 'selec'), run(), parse('n', 'select 1'), run('n'), sync]
        client.write(Buffer.concat([...broken, parse('n', 'select 21'), run('n'), sync]))
        const answer = await client.readUntil(/21C\0\0\0\rSELECT 1\0Z\0\0\0\x05I$/)
        assert.equal(answer.match(/42601/g)?.length, 1)
      }),
    )

    it(
      'hands rows out in portions, with a Flush between them',
      scope(async (ends) => {
        const { port: own } = await proxyOf(ends, mode)
        const client = await rawClient(own, ends)
        const bind = message('B', '\0\0\0\0\0\0\0\0')
        client.write(Buffer.concat([parse('', 'select generate_series(1, 5)'), bind, execute(2), flush]))
        await client.readUntil(/s\0\0\0\x04$/)
        client.write(Buffer.concat([execute(2), flush]))
        await client.readUntil(/s\0\0\0\x04$/)
        client.write(Buffer.concat([execute(2), sync]))
        assert.match(await client.readUntil(READY), /5C\0\0\0\rSELECT 1\0/)
      }),
    )

    it(
      'runs a script of psql: COPY both ways, \\gexec, a cursor, a large value',
      scope(async (ends) => {
        const { port: own } = await proxyOf(ends, mode)
        const script = join(folder, `${mode}.sql`)
        const lines = [
          'truncate things;',
          'copy things from stdin;',
          '1\tone',
          '2\ttwo',
          '\\.',
          'copy things to stdout;',
          "select 'select ' || id + 40 from things order by id\\gexec",
          'begin; declare c cursor for select 5; fetch c; rollback;',
          "select length(repeat('x', 3000000)), md5(repeat('x', 3000000)) = md5(:'large'::text);",
        ]
        const large = 'x'.repeat(100_000)
        writeFileSync(script, `\\set large ${large}\n${lines.join('\n')}\n`)
        const args = ['-h', '127.0.0.1', '-p', `${own}`, '-U', 'x', '-d', 'postgres', '-XAtqf', script]
        const env = { PATH: process.env['PATH'], PGSSLMODE: 'prefer' }
        const { stdout, stderr } = await promisify(execFile)('psql', args, { env })
        assert.deepEqual([stdout, stderr], ['1\tone\n2\ttwo\n41\n42\n5\n3000000|f\n', ''])
      }),
    )

    it(
      'ends a COPY that the application gives up, and goes on',
      scope(async (ends) => {
        const { port: own } = await proxyOf(ends, mode)
        const client = await rawClient(own, ends)
        client.write(query('copy things from stdin'))
        await client.readUntil(/G\0\0\0/)
        client.write(Buffer.concat([copyData('9\tx\n'), message('f', 'given up\0')]))
        assert.match(await client.readUntil(READY), /57014/)
        client.write(query('select 31'))
        await client.readUntil(/31C\0\0\0\rSELECT 1\0Z\0\0\0\x05I$/)
      }),
    )

    it(
      'ends a COPY that the application can end no more: it has said goodbye, or sends nothing more',
      scope(async (ends) => {
        const { port: own, options } = await proxyOf(ends, mode)
        const extended = [parse('', 'copy things from stdin'), message('B', '\0\0\0\0\0\0\0\0'), execute(), sync]
        for (const copy of [query('copy things from stdin'), Buffer.concat(extended)]) {
          for (const isPolite of [true, false]) {
            const client = await rawClient(own, ends)
            client.write(isPolite ? Buffer.concat([copy, message('X', '')]) : copy)
            if (!isPolite) client.end()
            await client.ended()
            const next = await connected(options, ends)
            assert.equal(await one(next, 'select 33'), 33)
            await next.end()
          }
        }
      }),
    )

    it(
      'tells what is wrong with the upstream: no server, no PostgreSQL, no replica',
      scope(async (ends) => {
        const web = await tcpServer((socket) => {
          socket.on('error', () => {})
          socket.end('HTTP/1.1 400 Bad Request\r\n\r\n')
        })
        ends.push(() => web.close())
        const timeouts = { connect: '2s' }
        const down = await closedPort()
        const found = await Promise.all(
          [{ ports: [down] }, { ports: [web.port] }, { role: 'Replica' as const }].map(async (setup) => {
            const proxy = await proxyOf(ends, mode, { timeouts, ...setup })
            const { code, hint } = await refusal(proxy.options)
            return [code, hint, proxy.troubles.at(-1)?.split(':')[0]]
          }),
        )
        assert.deepEqual(found, [
          ['08001', 'ambassador: connect_refused', 'connect_refused'],
          ['08006', 'ambassador: upstream_reset', 'upstream_reset'],
          ['57P03', 'ambassador: no_healthy_endpoint', 'no_healthy_endpoint'],
        ])
      }),
    )
  })
}

describe('PostgreSQL clients that share a connection', () => {
  it(
    'begin with their own parameters, not with those of who was there before',
    scope(async (ends) => {
      const proxy = await proxyOf(ends, 'Transaction')
      const a = await connected(proxy.options, ends)
      await a.query("set timezone = 'Asia/Tokyo'")
      const connection = { DateStyle: 'German' } as unknown as { application_name: string }
      const sql = postgres({ host: '127.0.0.1', port: proxy.port, user: 'x', database: 'postgres', max: 1, connection })
      ends.push(() => sql.end())
      const [row] = await sql`select current_setting('TimeZone') as zone, current_setting('DateStyle') as style`
      assert.notEqual(row?.['zone'], 'Asia/Tokyo')
      assert.match(String(row?.['style']), /German/)
      assert.equal(await one(a, "select current_setting('TimeZone')"), 'Asia/Tokyo')
    }),
  )

  it(
    'begin with the bytes that they gave, in letters of any language and with quotes',
    scope(async (ends) => {
      const proxy = await proxyOf(ends, 'Transaction')
      const sql = "select current_setting('application_name')"
      const server = { host: '127.0.0.1', port, user: POSTGRES_USER, password: POSTGRES_PASSWORD }
      // The last one has a quote in its lower byte.
      for (const application_name of ['Größe', "it's\\", 'ħ']) {
        const direct = await connected({ ...server, application_name }, ends)
        const client = await connected({ ...proxy.options, application_name }, ends)
        assert.equal(await one(client, sql), await one(direct, sql), application_name)
      }
    }),
  )

  it(
    'close and make statements anew under a name, each its own',
    scope(async (ends) => {
      const proxy = await proxyOf(ends, 'Transaction')
      const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
      const named = (value: string) => ({ name: 's', text: 'select $1 as x', values: [value] })
      await a.query(named('1'))
      await b.query(named('1'))
      await a.query('deallocate all')
      await assert.rejects(a.query(named('2')), { code: '26000' })
      assert.equal((await b.query(named('3'))).rows[0].x, '3')
      const raw = await rawClient(proxy.port, ends)
      raw.write(Buffer.concat([parse('n', 'select 41'), message('C', 'Sn\0'), sync, run('n'), sync]))
      assert.match(await raw.readUntil(/Z\0\0\0\x05I.*Z\0\0\0\x05I$/s), /26000/)
      raw.write(Buffer.concat([parse('n', 'select 42'), message('D', 'Sn\0'), run('n'), sync]))
      assert.match(await raw.readUntil(READY), /42C\0\0\0\rSELECT 1/)
      raw.write(Buffer.concat([parse('n', 'select 43'), sync]))
      assert.match(await raw.readUntil(READY), /42P05/)
    }),
  )

  it(
    'wait while a transaction goes on behind COMMIT AND CHAIN',
    scope(async (ends) => {
      const proxy = await proxyOf(ends, 'Transaction')
      const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
      await a.query('begin')
      await a.query('commit and chain')
      const waits = one(b, 'select 5')
      while (proxy.waiting === 0) await new Promise((resolve) => setImmediate(resolve))
      await a.query('rollback')
      assert.equal(await waits, 5)
    }),
  )

  it(
    'get the connection of one that vanishes in the middle of a COPY to it',
    scope(async (ends) => {
      const proxy = await proxyOf(ends, 'Transaction')
      const gone = await rawClient(proxy.port, ends)
      gone.write(query('copy (select generate_series(1, 2000000)) to stdout'))
      await gone.readUntil(/H\0\0\0/)
      gone.socket.destroy()
      assert.equal(await one(await connected(proxy.options, ends), 'select 32'), 32)
    }),
  )

  it(
    'get the connection of one that asks before the Sync that an error waits for, and says goodbye',
    scope(async (ends) => {
      const proxy = await proxyOf(ends, 'Transaction')
      const client = await rawClient(proxy.port, ends)
      client.write(Buffer.concat([parse('', 'selec'), flush]))
      await client.readUntil(/42601/)
      // The server passes over the query, and answers nothing but the Sync.
      client.write(Buffer.concat([query('select 51'), sync]))
      assert.doesNotMatch(await client.readUntil(READY), /51/)
      client.write(message('X', ''))
      assert.equal(await one(await connected(proxy.options, ends), 'select 52'), 52)
    }),
  )

  it(
    'are refused with 08P01 for lengths that cannot be, and nobody else hears of it',
    scope(async (ends) => {
      const proxy = await proxyOf(ends, 'Transaction')
      const other = await connected(proxy.options, ends)
      for (const length of [0, 3, -1, 0x7fffffff]) {
        const client = await rawClient(proxy.port, ends)
        const head = Buffer.from('Q\0\0\0\0')
        head.writeInt32BE(length, 1)
        client.write(Buffer.concat([head, Buffer.alloc(70_000)]))
        assert.match(await client.ended(), /C08P01/, `${length}`)
        assert.equal(await one(other, 'select 1'), 1)
      }
      for (const packet of [
        [0, 0x98, 0x96, 0x80, 0, 3, 0, 0],
        [0, 0, 0, 12, 0, 3, 0, 0, 97, 98, 99, 100],
      ]) {
        const client = new TestClient({ port: proxy.port })
        ends.push(() => client.socket.destroy())
        client.write(Buffer.from(packet))
        assert.match(await client.ended(), /C08P01/)
      }
    }),
  )
})
