/** What pooling by transaction needs of a server, before real ones of two versions: the system's and the newest. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import postgres from 'postgres'
import { Pki } from '../../helpers/pki.ts'
import { type PooledSetup, pooledPostgres } from '../../helpers/pooled-postgres.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { connected, copyData, one, query, rawClient, scope } from '../../helpers/postgres-client.ts'

for (const version of [undefined, 'newest'] as const) {
  describe(`PostgreSQL pooling by transaction, ${version ?? 'the version of the system'}`, () => {
    const lasting: (() => unknown)[] = []
    const pki = new Pki()
    let port = 0
    let ca = ''
    before(async () => {
      const authority = pki.authority()
      ca = authority.cert
      const tls = authority.issue({ names: ['127.0.0.1'] })
      port = (await postgresServer({ tls, ...(version && { version }) }, lasting)).port
      const direct = await connected(DIRECT(), lasting)
      await direct.query('create table things (id int primary key, name text)')
      await direct.query(
        "create function impatient() returns void language plpgsql as $$ begin set statement_timeout = '1min'; end $$",
      )
      await direct.query(
        "create function tenant() returns void language plpgsql as $$ begin set app.tenant = 'a'; end $$",
      )
    })
    after(async () => {
      for (const end of lasting.reverse()) await end()
      pki.remove()
    })

    const DIRECT = () => ({ host: '127.0.0.1', port, user: POSTGRES_USER, password: POSTGRES_PASSWORD })

    /** A proxy with one connection to the server unless told otherwise, so that clients follow each other on it. */
    const pool = (ends: (() => unknown)[], setup: Partial<PooledSetup> = {}) =>
      pooledPostgres(
        { ports: [port], postgres: { pooling: { mode: 'Transaction' } }, limits: { maxConnections: 1 }, ...setup },
        ends,
      )

    it(
      'restores search_path, time-outs and what else clients set when they connect, be it reported or not',
      scope(async (ends) => {
        const proxy = await pool(ends)
        const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
        const names = ['search_path', 'statement_timeout', 'client_min_messages', 'default_transaction_isolation']
        const show = `select concat_ws('|', ${names.map((name) => `current_setting('${name}')`).join()})`
        const initial = '"$user", public|0|notice|read committed'
        const check = async (own: string, why: string): Promise<void> => {
          assert.equal(await one(b, show), initial, `another client after ${why}`)
          assert.equal(await one(a, show), own, why)
          assert.equal(await one(a, show), own, `${why}, once more`)
        }
        await check(initial, 'nothing')
        await a.query("set search_path = pg_catalog, public; set statement_timeout = '17s'")
        await check('pg_catalog, public|17s|notice|read committed', 'SET')
        await a.query({ text: 'set client_min_messages to warning', name: 'prepared' })
        await a.query('set session characteristics as transaction isolation level serializable')
        await check('pg_catalog, public|17s|warning|serializable', 'SET by the extended protocol')
        await a.query({ text: "select set_config('statement_timeout', '70s', false)", name: 'configured' })
        await check('pg_catalog, public|70s|warning|serializable', 'set_config()')
        await a.query('begin')
        await a.query('set search_path to x')
        await a.query("set local statement_timeout = '5s'")
        await a.query('rollback')
        await check('pg_catalog, public|70s|warning|serializable', 'ROLLBACK')
        await assert.rejects(a.query("set client_min_messages to error; set statement_timeout to '1s'; select 1/0"))
        await check('pg_catalog, public|70s|warning|serializable', 'an error')
        await a.query('begin; set client_min_messages to error; set search_path to default')
        await a.query('select 1')
        await a.query('commit')
        await check('"$user", public|70s|error|serializable', 'COMMIT')
        await a.query('reset statement_timeout')
        await check('"$user", public|0|error|serializable', 'RESET')
        await a.query('select impatient()')
        await check('"$user", public|1min|error|serializable', 'a function')
        await a.query('reset all')
        await check(initial, 'RESET ALL')
        await a.query("set statement_timeout = '18s'; set search_path = pg_catalog")
        await a.query('discard all')
        await check(initial, 'DISCARD ALL')
        const raw = await rawClient(proxy.port, ends)
        raw.write(Buffer.concat([query('discard all'), query("set statement_timeout = '19s'")]))
        await raw.readUntil(/SET\0Z\0\0\0\x05I$/)
        await check(initial, 'a client that sets one behind DISCARD ALL')
        raw.write(query('show statement_timeout'))
        await raw.readUntil(/19s/)
        raw.write(query('begin; set statement_timeout = 7'))
        await raw.readUntil(/Z\0\0\0\x05T$/)
        raw.socket.destroy()
        await check(initial, 'a client that vanishes')
        assert.deepEqual(proxy.pooling.pinned, {})
        assert.equal(proxy.pooling.connections, 1)
      }),
    )

    it(
      'lets nobody suffer from the shortest statement_timeout of another client',
      scope(async (ends) => {
        const proxy = await pool(ends, { limits: { maxConnections: 2 } })
        const b = await connected(proxy.options, ends)
        for (let n = 0; n < 20; n++) {
          const a = await connected(proxy.options, ends)
          await a.query('set statement_timeout = 1')
          assert.equal(await one(b, 'show statement_timeout'), '0')
          const late = await connected({ ...proxy.options, application_name: `late ${n}` }, ends)
          assert.equal(await one(late, 'show statement_timeout'), '0')
          await late.end()
          await a.end()
        }
      }),
    )

    for (const [reason, statement, question, answer] of [
      ['set', "set vacuum_cost_delay = '17ms'", 'show vacuum_cost_delay', '0'],
      ['set', 'select tenant()', "select coalesce(current_setting('app.tenant', true), '')", ''],
      [
        'temporary_table',
        'create temp table t as select 1',
        "select count(*)::int from pg_class where relname = 't'",
        0,
      ],
      ['listen', 'listen news', 'select count(*)::int from pg_listening_channels()', 0],
      ['prepare', 'prepare p as select 1', 'select count(*)::int from pg_prepared_statements where from_sql', 0],
    ] as const) {
      it(
        `keeps the connection for a client that says ${statement}, and cleans it for the next one`,
        scope(async (ends) => {
          const proxy = await pool(ends)
          const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
          assert.deepEqual(await one(a, question), answer)
          await a.query(statement)
          assert.notDeepEqual(await one(a, question), answer, 'the client finds again what it did')
          assert.deepEqual(proxy.pooling.pinned, { [reason]: 1 })
          const waits = one(b, question)
          await a.end()
          assert.deepEqual(await waits, answer)
          assert.equal(proxy.pooling.connections, 1)
        }),
      )
    }

    it(
      'restores parameters that the server reports for each client',
      scope(async (ends) => {
        const proxy = await pool(ends)
        const a = await connected({ ...proxy.options, application_name: 'shop' }, ends)
        const b = await connected({ ...proxy.options, options: undefined }, ends)
        const show = `select concat_ws('|', current_setting('TimeZone'), current_setting('DateStyle'), current_setting('application_name'))`
        const initial = (await one(b, show)) as string
        await a.query("set timezone = 'Asia/Tokyo'")
        await a.query("select set_config('DateStyle', 'german', false)")
        assert.equal(await one(a, show), 'Asia/Tokyo|German, DMY|shop')
        assert.equal(await one(b, show), initial)
        assert.equal(await one(a, show), 'Asia/Tokyo|German, DMY|shop')
        await a.query('begin')
        await a.query("set application_name to 'o''brien \\\\'")
        await a.query('rollback')
        assert.equal(await one(a, show), 'Asia/Tokyo|German, DMY|shop')
        await a.query('reset all')
        assert.equal(await one(b, show), initial)
        assert.equal(await one(a, "select current_setting('application_name')"), 'shop')
        assert.deepEqual(proxy.pooling.pinned, {})
        assert.equal(proxy.pooling.connections, 1)
      }),
    )

    it(
      'shares prepared statements of the same text, and keeps those of the same name apart',
      scope(async (ends) => {
        const proxy = await pool(ends)
        const [a, b, c] = [
          await connected(proxy.options, ends),
          await connected(proxy.options, ends),
          await connected(proxy.options, ends),
        ]
        for (let n = 0; n < 3; n++) {
          for (const [client, text, expected] of [
            [a, 'select $1::int + 1 as x', n + 1],
            [b, 'select $1::int + 1 as x', n + 1],
            [c, 'select $1::int * 2 as x', n * 2],
          ] as const) {
            assert.equal((await client.query({ name: 'same', text, values: [n] })).rows[0].x, expected)
          }
        }
        assert.equal(await one(a, 'select count(*)::int from pg_prepared_statements'), 2)
        assert.deepEqual(proxy.pooling.pinned, {})
      }),
    )

    it(
      'prepares again on another connection, and what gave way to other statements',
      scope(async (ends) => {
        const proxy = await pool(ends, {
          limits: { maxConnections: 2 },
          postgres: { pooling: { mode: 'Transaction', maxPreparedStatements: 2 } },
        })
        const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
        const run = (n: number) => a.query({ name: `n${n}`, text: `select ${n} as x, pg_backend_pid() as pid` })
        const pids = new Set<number>()
        for (let round = 0; round < 2; round++) {
          for (let n = 0; n < 5; n++) pids.add((await run(n)).rows[0].pid)
          await b.query('begin')
          for (let n = 0; n < 5; n++) {
            const { x, pid } = (await run(n)).rows[0]
            assert.equal(x, n)
            pids.add(pid)
          }
          await b.query('commit')
        }
        assert.equal(pids.size, 2)
        const count = (await one(b, 'select count(*)::int from pg_prepared_statements')) as number
        assert.ok(count <= 2, `${count} statements`)
      }),
    )

    it(
      'hears once that a table has changed under a prepared statement, and then prepares it anew',
      scope(async (ends) => {
        const proxy = await pool(ends)
        const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
        await b.query('create table changing (id int); insert into changing values (1)')
        const query = { name: 'all', text: 'select * from changing' }
        assert.deepEqual((await a.query(query)).rows, [{ id: 1 }])
        await b.query('alter table changing add column name text')
        await assert.rejects(a.query(query), { code: '0A000' })
        assert.deepEqual((await a.query(query)).rows, [{ id: 1, name: null }])
        assert.deepEqual((await b.query(query)).rows, [{ id: 1, name: null }])
        await b.query('drop table changing')
      }),
    )

    it(
      'cancels the query of the client that asks, and never that of another one',
      scope(async (ends) => {
        const proxy = await pool(ends, { ca })
        const { options } = proxy
        const sql = postgres({ host: options.host, port: options.port, user: 'x', database: 'postgres', max: 1 })
        ends.push(() => sql.end())
        const b = await connected(options, ends)
        const sleep = sql`select pg_sleep(62)`.execute()
        const ended = sleep.then(
          () => assert.fail('not cancelled'),
          (error: postgres.PostgresError) => error.code,
        )
        const direct = await connected(DIRECT(), ends)
        const running = `select count(*)::int from pg_stat_activity where query like '%pg_sleep(62)%' and pid <> pg_backend_pid()`
        while ((await one(direct, running)) !== 1) await new Promise((resolve) => setImmediate(resolve))
        const other = one(b, 'select pg_sleep(0.2)')
        sleep.cancel()
        assert.equal(await ended, '57014')
        await other
        // One that waits for a connection is cancelled too; one that does nothing hears nothing.
        await b.query('begin')
        const waits = sql`select 1`.execute()
        while (proxy.waiting === 0) await new Promise((resolve) => setImmediate(resolve))
        waits.cancel()
        await assert.rejects(waits, { code: '57014' })
        await b.query('commit')
        assert.equal((await sql`select 2 as x`)[0]?.['x'], 2)
      }),
    )

    it(
      'drops what is left of a COPY that failed, and goes on',
      scope(async (ends) => {
        const proxy = await pool(ends)
        const client = await rawClient(proxy.port, ends)
        client.write(query('copy things from stdin'))
        await client.readUntil(/G\0\0\0/)
        client.write(copyData('not a number\tx\n'))
        client.write(copyData('3\tx\n'))
        await client.readUntil(/22P02.*Z\0\0\0\x05I$/s)
        client.write(copyData('4\tx\n'.repeat(30_000)))
        client.write(Buffer.concat([Buffer.from('c\0\0\0\x04', 'latin1'), query('select 61')]))
        await client.readUntil(/61C\0\0\0\rSELECT 1\0Z\0\0\0\x05I$/)
      }),
    )
  })
}
