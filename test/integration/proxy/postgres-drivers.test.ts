/** What the drivers of many languages and their frameworks send, byte for byte: the answers are those of the server, no connection is kept in vain, and nothing is left behind. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { pooledPostgres } from '../../helpers/pooled-postgres.ts'
import { postgresServer } from '../../helpers/postgres.ts'
import { copyData, type Ends, message, query, scope } from '../../helpers/postgres-client.ts'
import { type Conversation, cat, isReady, LOGIN, steps, talk, upTo } from '../../helpers/postgres-conversation.ts'
import {
  bind,
  closePortal,
  closeStatement,
  copyDone,
  describePortal,
  describeStatement,
  execute,
  flush,
  parse,
  run,
  StreamClient,
  sync,
} from '../../helpers/postgres-stream.ts'

const lasting: Ends = []
let port = 0

const SCHEMA = `
create table things (id int primary key, name text);
insert into things select n, 'thing ' || n from generate_series(1, 100) n;
create table copied (id int, name text);
create extension pg_trgm`

before(async () => {
  const hba = ['host all all 127.0.0.1/32 trust']
  port = (await postgresServer({ hba, settings: ['wal_level=logical'] }, lasting)).port
  const admin = await new StreamClient({ port }).begin(LOGIN)
  admin.write(query(SCHEMA))
  assert.deepEqual((await admin.until(isReady(1))).at(-1), 'Z "I"')
  admin.socket.destroy()
})

after(async () => {
  for (const end of lasting.reverse()) await end()
})

const MODES = ['Transaction', 'Session', 'Disabled'] as const

interface Driver {
  readonly conversations: readonly Conversation[]
  /** Why its clients keep their connections by transaction, with how often. Default: they do not. */
  readonly pins?: Readonly<Record<string, number>>
}

/** A login with parameters beside user and database. */
const login = (parameters: Readonly<Record<string, string>>, each: Conversation): Conversation => {
  const more = Object.entries(parameters).map(([name, value]) => `${name}\0${value}\0`)
  return { ...each, login: Buffer.from(`${LOGIN.slice(0, -1)}${more.join('')}\0`, 'latin1') }
}
const texts = (...each: readonly string[]): Conversation => steps(...each.map(query))
/** By the extended protocol, one round each. */
const rounds = (...each: readonly string[]): Conversation => steps(...each.map((text) => run(text)))
/** Parse and Describe first, then the rounds that use it, as most drivers cache statements. */
const prepared = (name: string, sql: string, ...values: readonly (readonly string[])[]): Buffer[] => [
  cat(parse(name, sql), describeStatement(name), sync),
  ...values.map((each) => cat(bind('', name, ...each), execute(), sync)),
]
const named = (name: string, ...values: readonly string[]): Buffer =>
  cat(bind('', name, ...values), describePortal(''), execute(), sync)
const one = (sql: string, ...values: readonly string[]): Buffer =>
  cat(parse('', sql), bind('', '', ...values), execute())

const JDBC = {
  client_encoding: 'UTF8',
  DateStyle: 'ISO',
  TimeZone: 'Europe/Berlin',
  extra_float_digits: '2',
}
const jdbc = (...each: readonly (Buffer | Conversation['steps'][number])[]): Conversation =>
  login(JDBC, { steps: each })

const DRIVERS: Readonly<Record<string, Driver>> = {
  'Rails: PG adapter of ActiveRecord': {
    conversations: [
      texts(
        "SET client_min_messages TO 'warning'",
        'SET standard_conforming_strings = on',
        "SET SESSION timezone TO 'UTC'",
        "SET SESSION intervalstyle = 'iso_8601'",
        'SHOW max_identifier_length',
        "SELECT t.oid, t.typname FROM pg_type as t WHERE t.typname IN ('int4', 'text') ORDER BY 1",
        'SELECT 1',
        'SHOW client_min_messages',
        'SHOW intervalstyle',
      ),
      texts(
        "SET client_min_messages TO 'warning'",
        "SET SESSION statement_timeout TO '15s'",
        "SET SESSION lock_timeout TO '5s'",
        'SET search_path TO public, pg_catalog',
        'BEGIN',
        'SELECT "things".* FROM "things" WHERE "things"."id" = 1 LIMIT 1',
        'SAVEPOINT active_record_1',
        'SELECT nosuch',
        'ROLLBACK TO SAVEPOINT active_record_1',
        'COMMIT',
        'SHOW statement_timeout',
        'SHOW lock_timeout',
        'SHOW search_path',
      ),
      steps(
        query("SET client_min_messages TO 'warning'"),
        cat(parse('a1', 'SELECT * FROM things WHERE id = $1 LIMIT $2'), sync),
        named('a1', '1', '1'),
        named('a1', '2', '1'),
        query('BEGIN'),
        named('a1', '3', '1'),
        query('COMMIT'),
        query('DEALLOCATE a1'),
        cat(parse('a1', 'SELECT 1'), sync),
        named('a1'),
      ),
      texts("SET client_min_messages TO 'panic'", "SET client_min_messages TO 'warning'", 'RESET client_min_messages'),
    ],
  },
  'Rails: migrations, which take a lock for the session': {
    pins: { advisory_lock: 1 },
    conversations: [
      texts('SELECT pg_try_advisory_lock(42)', 'BEGIN', 'SELECT 1', 'COMMIT', 'SELECT pg_advisory_unlock(42)'),
    ],
  },
  'Sequelize and Knex': {
    conversations: [
      texts(
        "SET standard_conforming_strings=on;SET client_min_messages TO warning;SET TIME ZONE INTERVAL '+00:00' HOUR TO MINUTE",
        'SHOW SERVER_VERSION',
        'START TRANSACTION;',
        'SET TRANSACTION ISOLATION LEVEL REPEATABLE READ',
        'select id from things limit 1',
        'COMMIT;',
        'SHOW timezone',
      ),
      login({ client_encoding: 'UTF8' }, rounds('select version()', 'BEGIN;', 'select 1', 'COMMIT;', 'ROLLBACK')),
    ],
  },
  'Django: psycopg 2 and 3': {
    conversations: [
      login(
        { client_encoding: 'UTF8', application_name: 'manage.py' },
        texts(
          "SELECT set_config('TimeZone', 'UTC', false)",
          'BEGIN',
          'DECLARE "_django_curs_1_sync_1" NO SCROLL CURSOR WITHOUT HOLD FOR SELECT id FROM things ORDER BY id',
          'FETCH FORWARD 3 FROM "_django_curs_1_sync_1"',
          'CLOSE "_django_curs_1_sync_1"',
          'SAVEPOINT "s1_x1"',
          'SELECT 1/0',
          'ROLLBACK TO SAVEPOINT "s1_x1"',
          'RELEASE SAVEPOINT "s1_x1"',
          'COMMIT',
          'SELECT 1',
        ),
      ),
      texts(
        "SET default_transaction_isolation TO 'SERIALIZABLE'",
        'BEGIN',
        'SHOW transaction_isolation',
        'COMMIT',
        'SET default_transaction_isolation TO DEFAULT',
        'SHOW default_transaction_isolation',
      ),
    ],
  },
  'Django: iterator() outside of a transaction': {
    pins: { cursor: 1 },
    conversations: [
      texts(
        'DECLARE "_django_curs_2_sync_1" NO SCROLL CURSOR WITH HOLD FOR SELECT id FROM things ORDER BY id',
        'FETCH FORWARD 2 FROM "_django_curs_2_sync_1"',
        'FETCH FORWARD 2 FROM "_django_curs_2_sync_1"',
        'CLOSE "_django_curs_2_sync_1"',
      ),
    ],
  },
  'psycopg 3: pipeline, prepared statements, transactions of its own': {
    conversations: [
      steps(
        cat(
          one('BEGIN ISOLATION LEVEL SERIALIZABLE READ ONLY'),
          parse('_pg3_0', 'select $1::int'),
          bind('', '_pg3_0', '5'),
        ),
        [cat(describePortal(''), execute(), sync), isReady(1)],
        cat(one('COMMIT'), sync),
        cat(closeStatement('_pg3_0'), sync),
      ),
      steps(
        cat(one('BEGIN'), one('select 1'), one('select 1/0'), one('select 2'), sync),
        run('select 3'),
        run('ROLLBACK'),
        run('select 4'),
      ),
      steps(
        [cat(one('select $1::text', 'a'), flush), (all) => all.at(-1)?.startsWith('C') === true],
        [cat(one('select $1::text', 'b'), flush), (all) => all.at(-1)?.startsWith('C') === true],
        sync,
      ),
    ],
  },
  SQLAlchemy: {
    conversations: [
      texts(
        'BEGIN',
        'select pg_catalog.version()',
        'select current_schema()',
        'show standard_conforming_strings',
        'ROLLBACK',
        'BEGIN',
        'SELECT 1',
        'ROLLBACK',
      ),
      texts(
        'SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL REPEATABLE READ',
        'BEGIN',
        'SHOW transaction_isolation',
        'COMMIT',
        'SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY',
        'insert into things values (1000)',
        'SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE, ISOLATION LEVEL READ COMMITTED, NOT DEFERRABLE',
        'SHOW transaction_read_only',
      ),
    ],
  },
  asyncpg: {
    conversations: [
      steps(
        [
          cat(parse('__asyncpg_stmt_1__', 'select $1::int + 1'), describeStatement('__asyncpg_stmt_1__'), flush),
          upTo('T'),
        ],
        cat(bind('', '__asyncpg_stmt_1__', '4'), execute(), sync),
        query('BEGIN;'),
        [cat(parse('', 'select id from things order by id'), describeStatement(''), flush), upTo('T')],
        cat(bind('cur_1', ''), sync),
        cat(execute('cur_1', 3), sync),
        cat(execute('cur_1', 3), sync),
        query('COMMIT;'),
        query('SELECT pg_advisory_unlock_all();\nCLOSE ALL;\nUNLISTEN *;\nRESET ALL;'),
      ),
      steps(
        query('truncate copied'),
        [cat(parse('', 'SELECT id FROM copied LIMIT 1'), describeStatement(''), flush), upTo('T')],
        [query('COPY copied(id, name) FROM STDIN'), upTo('G')],
        [cat(copyData('1\ta\n'), copyData('2\tb\n'), copyDone), isReady(1)],
        query('COPY copied TO STDOUT'),
      ),
      steps(
        [cat(parse('', 'selec'), describeStatement(''), flush), upTo('E')],
        sync,
        [cat(parse('', 'select 2'), describeStatement(''), flush), upTo('T')],
        query('select 3'),
        sync,
        query('select 4'),
      ),
    ],
  },
  'asyncpg: listens': {
    pins: { listen: 1 },
    conversations: [
      steps(query('LISTEN "ch"'), query("NOTIFY ch, 'hello'"), query('UNLISTEN "ch"'), query('SELECT 1')),
    ],
  },
  pgjdbc: {
    conversations: [
      jdbc(
        cat(one('SET extra_float_digits = 3'), sync),
        cat(one("SET application_name = 'PostgreSQL JDBC Driver'"), sync),
        cat(parse('', ''), bind('', ''), describePortal(''), execute('', 1), sync),
        run('SHOW extra_float_digits'),
        run('select id, name from things where id = $1', '7'),
        run('SHOW TRANSACTION ISOLATION LEVEL'),
        query('SHOW extra_float_digits'),
      ),
      jdbc(
        cat(one('BEGIN'), parse('S_1', 'select id from things order by id'), bind('C_2', 'S_1'), describePortal('C_2')),
        [cat(execute('C_2', 7), sync), isReady(1)],
        cat(execute('C_2', 7), sync),
        cat(closePortal('C_2'), sync),
        cat(one('COMMIT'), sync),
        cat(closeStatement('S_1'), sync),
      ),
      jdbc(
        cat(one('BEGIN'), query('SAVEPOINT PGJDBC_AUTOSAVE'), run('select 1')),
        cat(query('SAVEPOINT PGJDBC_AUTOSAVE'), run('select 1/0')),
        query('ROLLBACK TO SAVEPOINT PGJDBC_AUTOSAVE'),
        cat(query('RELEASE SAVEPOINT PGJDBC_AUTOSAVE'), run('select 2')),
        cat(one('COMMIT'), sync),
      ),
      jdbc(
        cat(one('SET SESSION CHARACTERISTICS AS TRANSACTION READ ONLY'), sync),
        cat(one('SET SESSION CHARACTERISTICS AS TRANSACTION ISOLATION LEVEL SERIALIZABLE'), sync),
        cat(one("SET SESSION search_path TO 'public'"), sync),
        cat(one('BEGIN READ ONLY'), parse('', 'SHOW transaction_isolation'), bind('', ''), execute(), sync),
        cat(one('ROLLBACK'), sync),
        run('SHOW search_path'),
        cat(one('SET SESSION CHARACTERISTICS AS TRANSACTION READ WRITE'), sync),
        run('SHOW transaction_read_only'),
      ),
      jdbc(
        cat(
          parse('S_1', 'select $1::int'),
          ...['1', '2', '3', '4'].map((n) => cat(bind('', 'S_1', n), execute())),
          sync,
        ),
        cat(bind('', 'S_1', 'x'), execute(), bind('', 'S_1', '5'), execute(), sync),
        cat(bind('', 'S_1', '6'), execute(), sync),
        query('DEALLOCATE ALL'),
        cat(bind('', 'S_1', '6'), execute(), sync),
        query('DISCARD ALL'),
        query('SHOW TimeZone'),
      ),
    ],
  },
  'HikariCP, c3p0 and Tomcat over pgjdbc': {
    conversations: [
      jdbc(
        cat(one("SET statement_timeout = '30s'"), sync),
        cat(parse('', ''), bind('', ''), execute(), sync),
        run('SELECT 1'),
        run('SHOW statement_timeout'),
        cat(one('BEGIN'), one('select 1'), sync),
        cat(one('ROLLBACK'), sync),
        query(''),
      ),
      login(
        { ...JDBC, search_path: 'pg_catalog,public', application_name: 'hikari' },
        rounds('SHOW search_path', 'SELECT 1'),
      ),
    ],
  },
  Npgsql: {
    conversations: [
      steps(
        cat(one('select 1'), one('select 2'), one('select 3'), sync),
        cat(query('DISCARD ALL'), run('select 4')),
        cat(query('BEGIN TRANSACTION ISOLATION LEVEL READ COMMITTED'), run('select 5')),
        query('COMMIT'),
      ),
      steps(
        cat(parse('_p1', 'select $1::int'), describeStatement('_p1'), sync),
        cat(bind('', '_p1', '1'), execute(), bind('', '_p1', '2'), execute(), sync),
        query(
          'CLOSE ALL;UNLISTEN *;SELECT pg_advisory_unlock_all();DISCARD SEQUENCES;DISCARD TEMP;SET SESSION AUTHORIZATION DEFAULT;RESET ALL',
        ),
        cat(bind('', '_p1', '3'), execute(), sync),
        cat(closeStatement('_p1'), sync),
      ),
      steps(
        // One command that fails among many: those in front of it have run, those behind are passed over.
        cat(one('select 1'), sync, one('select 1/0'), sync, one('select 3'), sync),
        cat(one('select 1'), one('select 1/0'), one('select 3'), sync, one('select 4'), sync),
      ),
    ],
  },
  pgx: {
    conversations: [
      login(
        { client_encoding: 'UTF8', application_name: 'go' },
        {
          steps: [
            query('-- ping'),
            ...prepared('stmtcache_1', 'select id from things where id = $1', ['1'], ['2'], ['3']),
            cat(
              parse('stmtcache_2', 'select 1'),
              describeStatement('stmtcache_2'),
              parse('stmtcache_3', 'select $1::int'),
            ),
            [cat(describeStatement('stmtcache_3'), sync), isReady(1)],
            cat(
              ...[bind('', 'stmtcache_2'), describePortal(''), execute()],
              ...[bind('', 'stmtcache_3', '9'), describePortal(''), execute(), sync],
            ),
            cat(closeStatement('stmtcache_1'), closeStatement('stmtcache_2'), sync),
            query('deallocate "stmtcache_3"'),
            query('begin isolation level serializable read only'),
            query('rollback'),
            query('deallocate all'),
            query(';'),
          ],
        },
      ),
      steps(
        ...prepared('c1', 'select * from copied limit 1', []),
        query('alter table copied add more int'),
        cat(bind('', 'c1'), execute(), sync),
        cat(closeStatement('c1'), sync),
        ...prepared('c2', 'select * from copied limit 1', []),
        query('alter table copied drop more'),
        query('select 1'),
      ),
    ],
  },
  'lib/pq, tokio-postgres, sqlx, Diesel, Postgrex': {
    conversations: [
      login(
        { extra_float_digits: '2', DateStyle: 'ISO, MDY' },
        {
          steps: [
            cat(parse('', 'select $1::int'), describeStatement(''), sync),
            cat(bind('', '', '1'), execute(), sync),
            cat(closeStatement(''), sync),
            query(';'),
          ],
        },
      ),
      steps(
        ...prepared('s0', 'select $1::text', ['a'], ['b']),
        cat(closeStatement('s0'), sync),
        query('BEGIN'),
        query('COMMIT'),
      ),
      login(
        { TimeZone: 'UTC', DateStyle: 'ISO, MDY', client_encoding: 'UTF8', extra_float_digits: '2' },
        {
          steps: [...prepared('sqlx_s_1', 'select id from things where id = $1', ['1'], ['2']), query('')],
        },
      ),
      steps(
        query("SET TIME ZONE 'UTC'"),
        query("SET CLIENT_ENCODING TO 'UTF8'"),
        ...prepared('__diesel_stmt_0', 'select 1', []),
      ),
      steps(
        [cat(parse('ecto_1', 'select $1::int'), describeStatement('ecto_1'), flush), upTo('T')],
        cat(bind('', 'ecto_1', '1'), execute(), sync),
        cat(bind('', 'ecto_1', '2'), execute(), sync),
        cat(closeStatement('ecto_1'), flush, sync),
      ),
    ],
  },
  Prisma: {
    conversations: [
      steps(
        query('SET search_path = "public"'),
        cat(parse('s0', 'SELECT 1'), describeStatement('s0'), sync),
        named('s0'),
        query('BEGIN'),
        query('SHOW search_path'),
        query('COMMIT'),
      ),
      steps(
        query('DEALLOCATE ALL'),
        query('BEGIN'),
        cat(parse('', 'SELECT id FROM things WHERE id = $1'), describeStatement(''), sync),
        cat(bind('', '', '5'), execute(), sync),
        query('COMMIT'),
      ),
    ],
  },
  'PDO, Laravel and Doctrine': {
    conversations: [
      steps(
        cat(parse('pdo_stmt_1', "set names 'utf8'"), sync),
        named('pdo_stmt_1'),
        query('DEALLOCATE pdo_stmt_1'),
        cat(parse('pdo_stmt_2', "set time zone 'UTC'"), sync),
        named('pdo_stmt_2'),
        query('DEALLOCATE pdo_stmt_2'),
        cat(parse('pdo_stmt_3', 'set search_path to "public"'), sync),
        named('pdo_stmt_3'),
        query('DEALLOCATE pdo_stmt_3'),
        query('SHOW search_path'),
        query('BEGIN'),
        cat(parse('pdo_stmt_4', 'select id from things where id = $1'), sync),
        named('pdo_stmt_4', '4'),
        query('COMMIT'),
        query('DEALLOCATE pdo_stmt_4'),
      ),
      texts("SET NAMES 'utf8'", 'SET client_encoding TO UTF8', 'SHOW client_encoding', 'SELECT 1'),
    ],
  },
  'psqlodbc and postgres_fdw': {
    conversations: [
      texts(
        "SET DateStyle = 'ISO';SET extra_float_digits = 2;show transaction_isolation",
        'BEGIN;SAVEPOINT _EXEC_SVP_1',
        'select 1/0',
        'ROLLBACK TO _EXEC_SVP_1; RELEASE _EXEC_SVP_1',
        'COMMIT',
        'SHOW extra_float_digits',
      ),
      steps(
        query('SET search_path = pg_catalog'),
        query("SET timezone = 'GMT'"),
        query('SET datestyle = ISO'),
        query('SET intervalstyle = postgres'),
        query('SET extra_float_digits = 3'),
        query('START TRANSACTION ISOLATION LEVEL REPEATABLE READ'),
        query('DECLARE c1 CURSOR FOR SELECT id FROM public.things ORDER BY id'),
        query('FETCH 3 FROM c1'),
        query('CLOSE c1'),
        cat(parse('pgsql_fdw_prep_1', 'select $1::int'), sync),
        named('pgsql_fdw_prep_1', '1'),
        query('COMMIT TRANSACTION'),
        query('DEALLOCATE ALL'),
        query('SHOW search_path'),
      ),
    ],
  },
  pg_dump: {
    conversations: [
      texts(
        "SELECT pg_catalog.set_config('search_path', '', false);",
        'SET DATESTYLE = ISO',
        'SET INTERVALSTYLE = POSTGRES',
        'SET extra_float_digits TO 3',
        'SET statement_timeout = 0',
        'SET lock_timeout = 0',
        'SET idle_in_transaction_session_timeout = 0',
        'SET row_security = off',
        'BEGIN',
        'SET TRANSACTION ISOLATION LEVEL REPEATABLE READ, READ ONLY',
        'LOCK TABLE public.things IN ACCESS SHARE MODE',
        'COPY public.things (id, name) TO stdout;',
        'COMMIT',
        'SHOW search_path',
      ),
    ],
  },
  'pg_dump: reads tables one behind the other on disk': {
    pins: { set: 1 },
    conversations: [texts('SET synchronize_seqscans TO off', 'SHOW synchronize_seqscans')],
  },
  'GoodJob, Que and Oban': {
    pins: { listen: 1, advisory_lock: 1 },
    conversations: [
      texts('LISTEN good_job', 'SELECT 1', "NOTIFY good_job, '{}'", 'UNLISTEN *', 'SELECT 2'),
      texts('SELECT pg_try_advisory_lock(7)', 'SELECT pg_advisory_unlock(7)', 'SELECT 3'),
    ],
  },
  Debezium: {
    pins: { replication: 1 },
    conversations: [
      login(
        { replication: 'database' },
        texts('SHOW wal_level', 'SELECT count(*) FROM things', 'DROP_REPLICATION_SLOT nosuch'),
      ),
    ],
  },
  'Flyway and Liquibase as another role': {
    pins: { role: 1 },
    conversations: [
      texts("SET ROLE 'pg_read_all_data'", 'SELECT current_user', 'RESET ROLE', 'SELECT current_user'),
      texts("SELECT set_config('role', 'none', true)", 'SET SESSION AUTHORIZATION DEFAULT', 'SELECT session_user'),
    ],
  },
  'a name and a database that are not UTF-8': {
    conversations: [
      login({ application_name: 'b\xfcro' }, texts('SHOW application_name')),
      login({ application_name: 'Gr\xc3\xb6\xc3\x9fe' }, texts('SHOW application_name')),
      login(
        { client_encoding: 'LATIN1', application_name: '\xe9t\xe9' },
        texts("SELECT '\xe9'", 'SHOW client_encoding'),
      ),
    ],
  },
}

/** What a session may leave behind, in one row. */
const TRACES = `select md5(string_agg(name || '=' || coalesce(setting, ''), ',' order by name)),
 (select count(*) from pg_prepared_statements where from_sql), (select count(*) from pg_listening_channels()),
 (select count(*) from pg_cursors where is_holdable), (select count(*) from pg_class where relpersistence = 't'), current_user,
 (select count(*) from pg_locks where locktype = 'advisory') from pg_settings`

async function traces(at: number): Promise<string[]> {
  const client = await new StreamClient({ port: at }).begin(LOGIN)
  try {
    client.write(query(TRACES))
    return await client.until(isReady(1))
  } finally {
    client.write(message('X', ''))
    await client.ended()
    client.socket.destroy()
  }
}

describe('PostgreSQL applications', { timeout: 240_000 }, () => {
  for (const [title, { conversations, pins = {} }] of Object.entries(DRIVERS)) {
    it(
      title,
      scope(async (ends) => {
        const clean = await traces(port)
        for (const mode of MODES) {
          const limits = { maxConnections: mode === 'Disabled' ? 3 : 1 }
          const proxy = await pooledPostgres({ ports: [port], postgres: { pooling: { mode } }, limits }, ends)
          for (const [n, conversation] of conversations.entries()) {
            const direct = await talk(port, conversation, null)
            assert.deepEqual(await talk(proxy.port, conversation, direct), direct, `${mode}, conversation ${n}`)
            assert.deepEqual(await traces(proxy.port), clean, `${mode}, what conversation ${n} leaves behind`)
          }
          if (mode === 'Transaction') assert.deepEqual(proxy.pooling.pinned, pins)
        }
      }),
    )
  }
})
