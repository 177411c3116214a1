/** What is stored in a database (functions, procedures, triggers, views) and changes the session that it runs in, under pooling by transaction. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import pg from 'pg'
import { redact } from '../../../proxy/protocol/postgres/redact.ts'
import type { Ends } from '../../helpers/ends.ts'
import { type PooledSetup, pooledPostgres } from '../../helpers/pooled-postgres.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { connected, message, one, rawClient, resume, scope } from '../../helpers/postgres-client.ts'

const lasting: Ends = []
let port = 0

before(async () => {
  port = (await postgresServer({}, lasting)).port
  const client = new pg.Client(DIRECT())
  await client.connect()
  await client.query('create role other; create table plain (id int)')
  await client.end()
})

after(async () => {
  for (const end of lasting.reverse()) await end()
})

const DIRECT = () => ({ host: '127.0.0.1', port, user: POSTGRES_USER, password: POSTGRES_PASSWORD })

/** A proxy with one connection to the server unless told otherwise, so that clients follow each other on it. */
const pool = (
  ends: Ends,
  limits: PooledSetup['limits'] = { maxConnections: 1 },
  mode: 'Transaction' | 'Session' = 'Transaction',
) => pooledPostgres({ ports: [port], postgres: { pooling: { mode } }, limits }, ends)

const plpgsql = (name: string, body: string, returns = 'void') =>
  `create function ${name} returns ${returns} language plpgsql as $body$ begin ${body} end $body$`

const WORK_MEM = "select current_setting('work_mem')"
const TENANT = "select coalesce(current_setting('app.tenant', true), '')"
const LOCKS = "select count(*)::int from pg_locks where locktype = 'advisory' and pid = pg_backend_pid()"
const TABLES = "select count(*)::int from pg_class where relname = 'secret'"
const LISTENS = 'select count(*)::int from pg_listening_channels()'
const PREPARED = 'select count(*)::int from pg_prepared_statements where from_sql'
const WHO = 'select current_user::text'

/** Reason of the pin, what is stored, what the client runs, what must not be seen by another one, and what that sees instead. */
const READ: readonly (readonly [string, string, string, string, unknown])[] = [
  ['set', plpgsql('s1()', "perform set_config('work_mem', '7MB', false);"), 'select s1()', WORK_MEM, '4MB'],
  ['set', plpgsql('s2()', "set work_mem = '7MB';"), 'select s2()', WORK_MEM, '4MB'],
  ['set', plpgsql('s3()', "perform set_config('app.tenant', 'a', false);"), 'select s3()', TENANT, ''],
  [
    'set',
    "create function s4() returns text language sql begin atomic; select set_config('app.tenant', 'b', false); end",
    'select * from s4()',
    TENANT,
    '',
  ],
  [
    'set',
    `${plpgsql('s5()', "perform set_config('app.tenant', 'c', false);")}; create function s6() returns void language sql as 'select s5()'`,
    'select count(s6())',
    TENANT,
    '',
  ],
  [
    'set',
    `create procedure s7() language plpgsql as $$ begin commit; set app.tenant = 'd'; end $$`,
    'call s7()',
    TENANT,
    '',
  ],
  [
    'set',
    `${plpgsql('s8()', "perform set_config('app.tenant', 'e', false); return new;", 'trigger')};
     create table s8_rows (id int); create trigger t before insert on s8_rows for each row execute function s8()`,
    'insert into s8_rows values (1)',
    TENANT,
    '',
  ],
  [
    'set',
    `${plpgsql('s9()', "perform set_config('app.tenant', 'f', false); return old;", 'trigger')};
     create table s9_parents (id int primary key); create table s9_rows (parent int references s9_parents on delete cascade);
     insert into s9_parents values (1); insert into s9_rows values (1);
     create trigger t before delete on s9_rows for each row execute function s9()`,
    'delete from s9_parents',
    TENANT,
    '',
  ],
  ['advisory_lock', 'create view s10 as select pg_try_advisory_lock(42) as locked', 'select locked from s10', LOCKS, 0],
  [
    'advisory_lock',
    `${plpgsql('s11()', 'perform pg_advisory_lock(43); return 1;', 'int')}; create table s11_rows (id int default s11())`,
    'insert into s11_rows default values',
    LOCKS,
    0,
  ],
  ['temporary_table', plpgsql('s12()', 'create temp table secret as select 1;'), 'select s12()', TABLES, 0],
  ['listen', plpgsql('s13()', 'listen news;'), 'select s13()', LISTENS, 0],
  [
    'prepare',
    "create function s14() returns void language sql as 'prepare p as select 1'",
    'select s14()',
    PREPARED,
    0,
  ],
  ['role', plpgsql('s15()', 'set role other;'), 'select s15()', WHO, POSTGRES_USER],
]

/** What cannot be read, and with an operator or a policy makes every statement of the database doubtful, so it comes last: what is stored, what the client runs, what must not be seen by another one, and what that sees instead. */
const UNREAD: readonly (readonly [string, string, string, unknown])[] = [
  [plpgsql('u1(text)', 'execute $1;'), `select u1('set work_mem = ''7MB''')`, WORK_MEM, '4MB'],
  [plpgsql('u2(text)', 'execute $1;'), `select u2('set app.tenant = ''g''')`, TENANT, ''],
  [plpgsql('u3(text)', 'execute $1;'), `select u3('create temp table secret as select 1')`, TABLES, 0],
  [plpgsql('u4(text)', 'execute $1;'), `select u4('listen news; prepare p as select 1')`, PREPARED, 0],
  [plpgsql('u5(text)', 'execute $1;'), `select u5('set role other')`, WHO, POSTGRES_USER],
  ['select 1', `select query_to_xml('select pg_advisory_lock(44)', true, true, '')`, LOCKS, 0],
  [
    "create function u7(text, text, boolean) returns text language internal as 'set_config_by_name'",
    "select u7('app.tenant', 'h', false)",
    TENANT,
    '',
  ],
  [
    `${plpgsql('u8(int, int)', "execute 'set app.tenant = ''i'''; return true;", 'boolean')};
     create operator public.=== (leftarg = int, rightarg = int, function = u8)`,
    'select 1 === 2',
    TENANT,
    '',
  ],
  [
    `${plpgsql('u9(text)', 'execute $1; return true;', 'boolean')}; create table u9_rows (id int);
     alter table u9_rows enable row level security, force row level security;
     create policy p on u9_rows using (u9('set app.tenant = ''j''')); insert into u9_rows values (1);
     create role u9_reader; grant select on u9_rows to u9_reader`,
    'begin; set local role u9_reader; select * from u9_rows; commit',
    TENANT,
    '',
  ],
]

describe('PostgreSQL pooling by transaction, and what is stored in the database', () => {
  for (const [reason, stored, statement, question, answer] of READ) {
    it(
      `keeps the connection for who runs ${statement}, and cleans it for the next one (${reason})`,
      scope(async (ends) => {
        const direct = await connected(DIRECT(), ends)
        await direct.query(stored)
        const proxy = await pool(ends)
        const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
        await a.query(statement)
        assert.notDeepEqual(await one(a, question), answer, 'the client finds again what it did')
        assert.deepEqual(proxy.pooling.pinned, { [reason]: 1 })
        const [{ fields } = { fields: {} }] = proxy.logged
        const { detail, statement: shown } = fields as Record<string, string>
        assert.match(detail!, /, in a stored function$/)
        assert.equal(shown, redact(statement).join('; '))
        const waits = one(b, question)
        await a.end()
        assert.deepEqual(await waits, answer)
        assert.equal(proxy.pooling.connections, 1)
      }),
    )
  }

  it(
    'undoes what a function did that is gone again when its transaction ends',
    scope(async (ends) => {
      const proxy = await pool(ends)
      const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
      const made = (body: string): string => plpgsql('fleeting()', `${body}; return true;`, 'boolean')
      const question = `select current_setting('work_mem') || (select count(*) from pg_locks where locktype = 'advisory')`
      for (const [body, end] of [
        ["perform set_config('work_mem', '7MB', false)", 'drop function fleeting(); commit'],
        // Its name is known by now, as that of nothing.
        ["perform set_config('work_mem', '7MB', false)", 'drop function fleeting(); commit'],
        ['perform pg_advisory_lock(9)', 'rollback'],
      ] as const) {
        await a.query(`begin; ${made(body)}; select fleeting(); ${end}`)
        assert.equal(await one(b, question), '4MB0', body)
      }
    }),
  )

  it(
    'sees it by the extended protocol, with a name and without, and by a function call',
    scope(async (ends) => {
      const direct = await connected(DIRECT(), ends)
      await direct.query(plpgsql('e1(text)', 'execute $1;'))
      const oid = Number(await one(direct, "select 'e1'::regproc::oid"))
      const proxy = await pool(ends)
      const b = await connected(proxy.options, ends)
      const a = await connected(proxy.options, ends)
      for (const name of ['', 'named']) {
        await a.query({ ...(name && { name }), text: 'select e1($1)', values: ["set app.tenant = 'x'"] })
        assert.equal(await one(b, TENANT), '')
      }
      const raw = await rawClient(proxy.port, ends)
      const argument = "set app.tenant = 'y'"
      const call = Buffer.alloc(12)
      call.writeInt32BE(oid)
      call.writeInt16BE(1, 6)
      call.writeInt32BE(argument.length, 8)
      raw.write(message('F', `${call.toString('latin1')}${argument}\0\0`))
      await raw.readUntil(/V\0\0\0.*Z\0\0\0\x05I$/s)
      assert.equal(await one(b, TENANT), '')
    }),
  )

  it(
    'takes a function that does nothing of the kind for what it is',
    scope(async (ends) => {
      const direct = await connected(DIRECT(), ends)
      await direct.query(
        plpgsql('h1(int)', "perform set_config('app.tenant', 'x', true); update plain set id = $1; return $1;", 'int'),
      )
      await direct.query(
        plpgsql('h2()', 'create temp table h2_rows (id int) on commit drop; perform pg_advisory_xact_lock(1);'),
      )
      const proxy = await pool(ends)
      const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
      await b.query({ name: 'kept', text: 'select 1' })
      assert.equal(await one(a, 'select h1(5)'), 5)
      await a.query('select h2()')
      assert.equal(await one(b, "select count(*)::int from pg_prepared_statements where statement = 'select 1'"), 1)
      assert.deepEqual(proxy.pooling.pinned, {})
    }),
  )

  it(
    'hears of a function that is made, and of one that is made anew by somebody else',
    scope(async (ends) => {
      const direct = await connected(DIRECT(), ends)
      const proxy = await pool(ends)
      const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
      await a.query(plpgsql('n1()', 'perform 1;'))
      await a.query('select n1()')
      // By a client of the pool: at once.
      await a.query(
        plpgsql('n1()', "perform set_config('app.tenant', 'x', false);").replace('create', 'create or replace'),
      )
      await b.query('select n1()')
      assert.deepEqual(proxy.pooling.pinned, { set: 1 })
      await b.end()
      assert.equal(await one(a, TENANT), '')
      // By somebody else: a name that was not heard before is asked about before the connection is another client's.
      await direct.query(plpgsql('n2()', "perform set_config('app.tenant', 'y', false);"))
      await a.query('select n2()')
      assert.equal(await one(a, TENANT), 'y')
      assert.deepEqual(proxy.pooling.pinned, { set: 2 })
    }),
  )

  it(
    'shows no sequence of another client to a function',
    scope(async (ends) => {
      const direct = await connected(DIRECT(), ends)
      await direct.query('create sequence q1_numbers')
      await direct.query("create function q1() returns bigint language sql as 'select lastval()'")
      const proxy = await pool(ends)
      const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
      await b.query('select 1 as q1')
      await a.query("select nextval('q1_numbers')")
      await assert.rejects(b.query('select q1()'), { code: '55000' })
    }),
  )

  for (const [mode, reason] of [
    ['Transaction', { language: 1 }],
    ['Session', {}],
  ] as const) {
    it(
      `gives nobody a connection in which another language may have kept variables (pooling ${mode})`,
      scope(async (ends) => {
        const direct = await connected(DIRECT(), ends)
        // It stands for PL/Perl and the like, which are not on every machine: the name counts, not who runs it.
        await direct.query('create language plother handler plpgsql_call_handler')
        ends.push(async () => {
          const last = await connected(DIRECT(), ends)
          await last.query('drop language plother cascade')
        })
        await direct.query("create function l1() returns int language plother as 'begin return 1; end'")
        const proxy = await pool(ends, { maxConnections: 1 }, mode)
        const a = await connected(proxy.options, ends)
        const pid = await one(a, 'select pg_backend_pid()')
        await a.query('set lock_timeout = 77')
        await a.query('select l1()')
        assert.equal(await one(a, 'select pg_backend_pid()'), pid, 'the client finds again what it kept')
        await a.end()
        const b = await connected(proxy.options, ends)
        assert.notEqual(await one(b, 'select pg_backend_pid()'), pid)
        assert.equal(proxy.pooling.pinned.language, reason.language)
      }),
    )
  }

  it(
    'gives back locks that an unreadable function has taken, when its client does nothing more',
    scope(async (ends) => {
      const direct = await connected(DIRECT(), ends)
      await direct.query(plpgsql('g1(text)', 'execute $1;'))
      const proxy = await pool(ends)
      const a = await connected(proxy.options, ends)
      await a.query("select g1('select pg_advisory_lock(77)')")
      await direct.query('select pg_advisory_lock(77)')
    }),
  )

  it(
    'has a client find its parameters again when its connection is just being cleaned',
    scope(async (ends) => {
      const direct = await connected(DIRECT(), ends)
      await direct.query(plpgsql('g2(text)', 'execute $1;'))
      const proxy = await pool(ends)
      const a = await connected(proxy.options, ends)
      await a.query("set timezone = 'Asia/Tokyo'")
      const pid = Number(await one(a, 'select pg_backend_pid()'))
      await a.query("select g2('select 1')")
      process.kill(pid, 'SIGSTOP')
      try {
        // Behind a second without a word the connection is cleaned, which waits in the server now.
        await new Promise((resolve) => setTimeout(resolve, 2200))
        const answer = one(a, "select current_setting('timezone')")
        await new Promise((resolve) => setTimeout(resolve, 50))
        process.kill(pid, 'SIGCONT')
        assert.equal(await answer, 'Asia/Tokyo')
      } finally {
        resume(pid)
      }
    }),
  )

  it(
    'asks nothing more and resets nothing once the words of statements are known',
    scope(async (ends) => {
      const direct = await connected(DIRECT(), ends)
      await direct.query('create table k1_rows (id int)')
      const proxy = await pool(ends)
      const clients = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
      const work = async () => {
        for (const [n, client] of clients.entries()) {
          await client.query('insert into k1_rows values (1)')
          await client.query({ name: 'k1', text: 'select count(*) from k1_rows where id = $1', values: [n] })
        }
      }
      const kept = 'select prepare_time::text from pg_prepared_statements'
      for (let n = 0; n < 2; n++) await work()
      const prepared = await one(clients[0]!, kept)
      const question = await one(clients[0]!, 'select count(*)::int from k1_rows')
      for (let n = 0; n < 20; n++) await work()
      assert.equal(await one(clients[1]!, kept), prepared, 'a reset would have prepared it anew')
      assert.equal(question, 4)
      assert.deepEqual(proxy.pooling.pinned, {})
    }),
  )

  it(
    'goes on by the text of statements alone where the server has another catalogue, and says so once',
    scope(async (ends) => {
      const direct = await connected(DIRECT(), ends)
      await direct.query('create database alien')
      const admin = await connected({ ...DIRECT(), database: 'alien' }, ends)
      await admin.query(
        "set allow_system_table_mods = on; update pg_proc set proname = 'gone' where proname = 'concat_ws'",
      )
      const proxy = await pool(ends)
      const options = { ...proxy.options, database: 'alien' }
      const [a, b] = [await connected(options, ends), await connected(options, ends)]
      await a.query({ name: 'kept', text: 'select 1' })
      await b.query('select 2')
      await a.query('listen news')
      await a.end()
      assert.equal(await one(b, LISTENS), 0)
      assert.equal(proxy.pooling.connections, 1)
      const warnings = proxy.logged.filter(({ text }) => text.startsWith('the server does not tell'))
      assert.equal(warnings.length, 1)
      assert.match(JSON.stringify(warnings[0]?.fields), /42883/)
    }),
  )

  for (const [stored, statement, question, answer] of UNREAD) {
    it(
      `undoes what ${statement} has left, before another client comes`,
      scope(async (ends) => {
        const direct = await connected(DIRECT(), ends)
        await direct.query(stored)
        const proxy = await pool(ends)
        const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
        await a.query({ name: 'named', text: 'select 1' })
        await a.query("set timezone = 'Asia/Tokyo'")
        // In one text: a second without a word is enough for what is left to be undone.
        const results = (await a.query({ text: `${statement}; ${question}`, rowMode: 'array' })) as unknown
        const [[seen]] = (results as { rows: unknown[][] }[]).at(-1)!.rows as [[unknown]]
        assert.notDeepEqual(seen, answer, 'it has left something')
        assert.deepEqual(await one(b, question), answer)
        assert.equal((await a.query({ name: 'named', text: 'select 1' })).rowCount, 1)
        assert.equal(await one(a, "select current_setting('timezone')"), 'Asia/Tokyo')
        assert.deepEqual([proxy.pooling.connections, proxy.pooling.pinned], [1, {}])
      }),
    )
  }
})
