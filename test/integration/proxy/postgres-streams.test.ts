/** The same bytes sent to a PostgreSQL directly and through each mode of pooling: the answers are the same, message by message. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { pooledPostgres } from '../../helpers/pooled-postgres.ts'
import { postgresServer } from '../../helpers/postgres.ts'
import { copyData, type Ends, message, query, scope } from '../../helpers/postgres-client.ts'
import {
  atEnd,
  type Conversation,
  cat,
  isReady,
  LOGIN,
  none,
  sqls,
  steps,
  talk,
  upTo,
} from '../../helpers/postgres-conversation.ts'
import {
  answersTo,
  bind,
  callFunction,
  closePortal,
  closeStatement,
  copyDone,
  copyFail,
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

before(async () => {
  const hba = ['host all all 127.0.0.1/32 trust']
  const settings = ['max_prepared_transactions=4']
  port = (await postgresServer({ hba, settings }, lasting)).port
  const admin = await new StreamClient({ port }).begin(LOGIN)
  admin.write(query(SCHEMA))
  assert.deepEqual((await admin.until(isReady(1))).at(-1), 'Z "I"')
  admin.socket.destroy()
})

after(async () => {
  for (const end of lasting.reverse()) await end()
})

const SCHEMA = `
create role other; create table things (id int primary key, name text); create table numbers (n int); create sequence counter;
create function tell() returns void language plpgsql as $$ begin raise notice 'hello'; raise warning 'oh'; end $$;
create function prepares() returns int language plpgsql as $$ begin execute 'prepare inner1 as select 1'; return 1; end $$`
const MODES = ['Transaction', 'Session', 'Disabled'] as const

/** Empties what a conversation may have filled. */
async function reset(): Promise<void> {
  const admin = await new StreamClient({ port }).begin(LOGIN)
  admin.write(query('truncate things, numbers; alter sequence counter restart'))
  await admin.until(isReady(1))
  admin.socket.destroy()
}

const CONVERSATIONS: Readonly<Record<string, readonly Conversation[]>> = {
  'simple queries, one and many in a message': [
    sqls('select 1', '', ';', 'select 1; select 2', 'selec', 'select 1/0', "select 'a'::text, null, 3.5"),
    sqls('begin; insert into numbers values (1); select 1/0; commit', 'rollback', 'commit', 'rollback'),
    sqls("begin; insert into things values (1, 'a'); commit; select * from things; begin", 'select 5', 'end'),
    sqls('insert into numbers values (2); select 1/0; insert into numbers values (3)', 'select * from numbers'),
    sqls('select 1; begin; select 2', 'commit', 'begin; begin', 'rollback', 'select 1; rollback', 'commit'),
    sqls('begin', 'selec', 'select 1', 'commit', 'begin; select 1; end; begin; select 2; end;'),
  ],
  'transactions: savepoints, two phases, chains, isolation': [
    sqls('begin', 'savepoint a', 'selec', 'rollback to a', 'select 1', 'release a', 'commit', 'savepoint x'),
    sqls(
      ...['begin', 'insert into numbers values (1)', "prepare transaction 'tx'", 'select * from numbers'],
      ...["commit prepared 'tx'", 'select * from numbers', "commit prepared 'tx'"],
    ),
    sqls('begin', 'commit and chain', 'select 1', 'rollback and chain', 'rollback'),
    sqls('begin isolation level repeatable read', 'show transaction_isolation', 'commit', 'show transaction_isolation'),
    sqls('set session characteristics as transaction isolation level serializable', 'show transaction_isolation'),
    sqls('begin read only', 'insert into numbers values (1)', 'rollback', 'vacuum numbers', 'begin; vacuum numbers'),
  ],
  'notices, notifications, cursors, locks, sequences and temporary tables': [
    sqls('select tell()', "do $$ begin raise notice 'x'; raise info 'y'; end $$", 'drop table if exists nosuch'),
    sqls('listen news', "notify news, 'a'", 'begin', "notify news, 'b'", 'commit', 'unlisten news', "notify news, 'c'"),
    sqls('declare c cursor with hold for select generate_series(1, 5)', 'fetch 2 from c', 'select 1', 'fetch c'),
    sqls('begin', 'declare d cursor for select 1', 'fetch d', 'commit', 'fetch d', 'close d'),
    sqls('select pg_advisory_lock(5)', 'select pg_advisory_unlock(5)', 'select pg_advisory_unlock(5)'),
    sqls('select pg_advisory_xact_lock(7)', 'select pg_advisory_unlock(7)'),
    sqls("select currval('counter')", 'select lastval()', "select nextval('counter')", 'discard sequences'),
    sqls("select nextval('counter'), currval('counter'), lastval()"),
    sqls('create temp table tt (a int)', 'insert into tt values (1)', 'select a from tt', 'discard temp', 'table tt'),
    sqls('begin; create temp table t3 (a int) on commit drop; insert into t3 values (4)', 'commit', 'table t3'),
  ],
  'parameters and roles': [
    sqls(
      'begin',
      "set local work_mem = '9MB'",
      'show work_mem',
      'commit',
      'show work_mem',
      "set local work_mem = '9MB'",
    ),
    sqls('begin', "set local timezone = 'Asia/Tokyo'", 'show timezone', 'commit', 'show timezone'),
    sqls(
      'begin',
      "set timezone = 'Asia/Tokyo'",
      'rollback',
      'show timezone',
      "set timezone = 'Asia/Tokyo'",
      'reset all',
    ),
    sqls("set work_mem = '9MB'", 'discard all', 'show work_mem', 'begin', 'discard all', 'rollback', 'discard plans'),
    sqls("select set_config('my.x', '1', false)", "select current_setting('my.x')", 'reset all'),
    sqls('begin', "select set_config('my.z', '1', true)", "select current_setting('my.z')", 'commit'),
    sqls('set role other', 'select current_user', 'reset role', 'select current_user', 'begin', 'set local role other'),
    sqls(
      'set session authorization other',
      'select session_user',
      'reset session authorization',
      'select session_user',
    ),
    sqls("set client_encoding = 'latin1'", "select '\xe9'", "set names 'utf8'", "set client_encoding = 'nosuch'"),
    sqls('set standard_conforming_strings = off', "select '\\'; set work_mem = 5; --'", "select 'a\\'b'"),
    {
      login: 'user\0postgres\0database\0postgres\0options\0-c statement_timeout=77s -c search_path=pg_catalog\0\0',
      steps: ['show statement_timeout', 'show search_path', 'reset statement_timeout', 'show statement_timeout'].map(
        query,
      ),
    },
    {
      login: 'user\0postgres\0database\0postgres\0work_mem\x005MB\0my.app\0x\0\0',
      steps: ['show my.app', "set work_mem = '6MB'", 'reset work_mem', 'show work_mem', 'discard all'].map(query),
    },
  ],
  'prepared statements': [
    steps(cat(parse('a', 'select 1'), sync), cat(parse('a', 'select 2'), sync), cat(bind('', 'a'), execute(), sync)),
    steps(cat(parse('a', 'select $1::int'), sync), cat(bind('', 'a'), sync), cat(bind('', 'a', '1', '2'), sync)),
    steps(cat(parse('a', 'select $1::int'), sync), cat(bind('', 'a', 'x'), execute(), sync)),
    steps(cat(bind('', 'none'), sync), cat(describeStatement('none'), sync), cat(describePortal('none'), sync)),
    steps(cat(closeStatement('none'), closePortal('none'), sync), cat(execute('none'), sync)),
    steps(cat(parse('', 'select 1'), sync), cat(bind('', ''), execute(), sync), query(''), cat(bind('', ''), sync)),
    steps(cat(parse('', 'select 1'), sync), cat(closeStatement(''), sync), cat(bind('', ''), execute(), sync)),
    steps(cat(parse('', 'select 1'), sync), query('begin'), query('commit'), cat(bind('', ''), execute(), sync)),
    // What is behind the error is passed over, the Close too.
    steps(
      cat(parse('a', 'select 1'), sync),
      cat(parse('', 'selec'), closeStatement('a'), sync),
      cat(bind('', 'a'), execute(), sync),
      cat(parse('', 'selec'), closeStatement('a'), parse('a', 'select 2'), sync),
      cat(bind('', 'a'), execute(), sync),
      cat(parse('', 'selec'), parse('b', 'select 2'), sync),
      cat(bind('', 'b'), execute(), sync),
    ),
    steps(cat(parse('a', 'select 1'), sync), query('deallocate a'), cat(bind('', 'a'), execute(), sync)),
    steps(cat(parse('A', 'select 1'), sync), query('deallocate prepare "A"'), query('deallocate nosuch')),
    steps(cat(parse('a', 'select 1'), sync), query('deallocate all'), cat(bind('', 'a'), execute(), sync)),
    steps(
      cat(parse('a', 'select 3'), sync),
      ...['begin', 'selec', 'deallocate a', 'rollback'].map(query),
      cat(bind('', 'a'), execute(), sync),
    ),
    steps(query('prepare p as select $1::int'), query('execute p(3)'), cat(bind('', 'p', '4'), execute(), sync)),
    steps(query('select prepares()'), query('execute inner1'), query('select prepares()'), query('deallocate inner1')),
    steps(
      cat(parse('', 'select $1::int, $2::text'), describeStatement(''), sync),
      cat(parse('', ''), describeStatement(''), bind('', ''), describePortal(''), execute(), sync),
    ),
    // More than a connection keeps.
    steps(
      cat(...Array.from({ length: 210 }, (_, n) => cat(parse(`n${n}`, `select ${n}`), sync))),
      cat(...Array.from({ length: 210 }, (_, n) => cat(bind('', `n${n}`), execute(), sync))),
    ),
  ],
  'pipelines and portals': [
    steps(cat(run('select 1'), run('selec'), run('select 2'), query('select 3'), run('begin'), run('commit'))),
    steps(cat(run('insert into numbers values (5)'), parse('', 'select 1/0'), bind('', ''), execute(), sync, sync)),
    steps(
      cat(parse('', 'insert into numbers values (6)'), bind('', ''), execute(), parse('', 'select 1/0'), bind('', '')),
      cat(execute(), parse('', 'select 2'), bind('', ''), execute(), sync),
      query('select * from numbers'),
    ),
    steps(
      [cat(parse('', 'select generate_series(1, 3)'), flush), upTo('1')],
      [cat(bind('', ''), flush), upTo('2')],
      [cat(execute('', 1), flush), upTo('s')],
      [cat(execute('', 5), flush), upTo('C')],
      sync,
      [cat(parse('f', 'selec'), flush), upTo('E')],
      [cat(parse('f', 'select 1'), flush), none],
      sync,
    ),
    steps(
      query('begin'),
      cat(parse('g', 'select generate_series(1, 9)'), bind('p', 'g'), bind('q', 'g'), execute('p', 3), sync),
      cat(execute('p', 3), execute('q', 0), sync),
      cat(bind('p', 'g'), sync),
      query('rollback'),
      cat(execute('p', 3), sync),
    ),
    steps(cat(bind('', 'g'), sync), cat(parse('g', 'select 1'), bind('', 'g'), execute('', 1), closePortal(''), sync)),
    steps(
      [cat(parse('', 'insert into numbers values (1)'), bind('', ''), execute(), flush), upTo('C')],
      query('table numbers'),
    ),
    steps(callFunction(1397, '-5'), query('begin'), callFunction(99_999), callFunction(1397, '-6'), query('rollback')),
  ],
  COPY: [
    steps([query('copy numbers from stdin'), upTo('G')], [cat(copyData('1\n'), copyDone), isReady(1)]),
    steps([query('copy numbers from stdin'), upTo('G')], [cat(copyData('1\n'), copyFail('no')), isReady(1)]),
    steps([query('copy numbers from stdin'), upTo('G')], [cat(copyData('x\n'), copyDone), isReady(1)]),
    steps(cat(query('copy numbers from stdin'), copyData('5\n'), copyDone, query('table numbers'))),
    steps(
      [query('copy numbers from stdin; select 1; copy numbers from stdin; select 2'), upTo('G')],
      [cat(copyData('1\n'), copyDone), upTo('G')],
      [cat(copyData('2\n'), copyDone), isReady(1)],
    ),
    steps(cat(parse('', 'copy numbers from stdin'), bind('', ''), execute(), copyData('8\n'), copyDone, sync)),
    steps(
      [cat(parse('', 'copy numbers from stdin'), bind('', ''), execute(), flush), upTo('G')],
      cat(copyData('7\n'), copyFail('x'), sync),
    ),
    steps(
      query('insert into numbers values (1), (2)'),
      query('copy numbers to stdout; select 1'),
      run('copy numbers to stdout'),
    ),
    steps([query('copy numbers from stdin'), upTo('G')], [query('select 1'), atEnd]),
  ],
  'what is wrong in a message': [
    steps(message('Q', 'select 1'), message('Q', 'select 1\0more\0'), message('Q', '')),
    ...['abc', 'abc\0select 1', 'abc\0select 1\0', 'abc\0select 1\0\0\x05'].map((body) =>
      steps(cat(message('P', body), sync)),
    ),
    ...['abc', '\0abc', '\0\0', '\0\0\0\0\0\0'].map((body) => steps(cat(message('B', body), sync))),
    ...['', 'X\0', 'S', 'Sabc'].flatMap((body) => ['D', 'C'].map((type) => steps(cat(message(type, body), sync)))),
    ...['', 'a\0'].map((body) => steps(cat(message('E', body), sync))),
    steps(message('S', 'abc')),
  ],
  'statements that were prepared by the protocol, named in SQL': [
    steps(
      cat(parse('p', 'select $1::int'), sync),
      query('execute p(5)'),
      query('EXECUTE /* mine */ "p" (6) -- and no more'),
      query('begin; execute p(1); commit; execute p(2)'),
      cat(query('execute p(1)'), query('execute nosuch'), query('execute p(2)')),
      run('execute p(7)'),
      cat(parse('e', 'execute p(9)'), sync),
      cat(bind('', 'e'), describePortal(''), execute(), sync),
      query('begin'),
      cat(bind('', 'e'), describePortal(''), execute(), sync, query('execute p(10)')),
      query('commit'),
      cat(parse('', 'deallocate p'), bind('', ''), execute(), parse('', 'select 5'), bind('', ''), execute(), sync),
      query('execute p(1)'),
      cat(parse('p', "select 'another'"), sync),
      query('execute p; deallocate prepare p; select 1'),
      cat(parse('p', 'select 6'), bind('', 'p'), execute(), sync),
      query('begin; selec'),
      cat(query('execute p'), run('deallocate p')),
      query('rollback; execute p; deallocate all'),
      query('execute p'),
    ),
    steps(
      cat(parse('Q', 'select 1'), parse('all', 'select 2'), sync),
      query('execute Q'),
      query('execute "Q"; execute "all"'),
      query('deallocate "all"; execute "Q"'),
      run('deallocate all'),
      query('execute "Q"'),
    ),
  ],
  'texts that are longer than what is kept': [
    steps(query(`select length('${'x'.repeat(200_000)}')`), query("select repeat('y', 300000)")),
    steps(
      cat(parse('long', `select length($1), '${'z'.repeat(100_000)}'`), sync),
      cat(bind('', 'long', 'q'.repeat(150_000)), execute(), sync),
      cat(parse('', `select length('${'z'.repeat(100_000)}')`), bind('', ''), execute(), sync),
    ),
  ],
}

describe('a client of PostgreSQL gets the answers of the server', { timeout: 240_000 }, () => {
  for (const [title, conversations] of Object.entries(CONVERSATIONS)) {
    it(
      title,
      scope(async (ends) => {
        const proxies = new Map<string, number>()
        for (const mode of MODES) {
          const limits = { maxConnections: 2 }
          const proxy = await pooledPostgres({ ports: [port], postgres: { pooling: { mode } }, limits }, ends)
          proxies.set(mode, proxy.port)
        }
        for (const conversation of conversations) {
          await reset()
          const direct = await talk(port, conversation, null)
          for (const [mode, at] of proxies) {
            await reset()
            assert.deepEqual(await talk(at, conversation, direct), direct, mode)
          }
        }
      }),
    )
  }
})

describe('clients that share a connection', () => {
  const pooled = async (ends: Ends, mode: (typeof MODES)[number] = 'Transaction') => {
    return (
      await pooledPostgres({ ports: [port], postgres: { pooling: { mode } }, limits: { maxConnections: 1 } }, ends)
    ).port
  }
  const clientOf = async (at: number, ends: Ends, login = LOGIN): Promise<StreamClient> => {
    const client = await new StreamClient({ port: at }).begin(login)
    ends.push(() => client.socket.destroy())
    return client
  }
  const answer = async (client: StreamClient, bytes: Buffer): Promise<string[]> => {
    client.write(bytes)
    return client.until(isReady(answersTo(bytes)))
  }
  /** The only row of a result of one column. */
  const value = async (client: StreamClient, bytes: Buffer): Promise<string> => {
    const row = (await answer(client, bytes)).find((each) => each.startsWith('D')) ?? 'D "none"'
    return (JSON.parse(row.slice(2)) as string).slice(6)
  }
  const inZone = (zone: string): string => LOGIN.replace(/\0$/, `TimeZone\0${zone}\0\0`)

  it(
    'prepare the same text for themselves where a parameter decides how its constants are read',
    scope(async (ends) => {
      const at = await pooled(ends)
      const [one, other] = [await clientOf(at, ends, inZone('UTC')), await clientOf(at, ends, inZone('Asia/Tokyo'))]
      const prepare = cat(parse('s', "select '2026-06-01 00:00'::timestamptz"), sync)
      const use = cat(bind('', 's'), execute(), sync)
      await answer(one, prepare)
      await answer(other, prepare)
      assert.equal(await value(one, use), '2026-06-01 00:00:00+00')
      assert.equal(await value(other, use), '2026-06-01 00:00:00+09')
      // By one that is in another zone meanwhile, on a connection that does not know the statement any more.
      await answer(one, query("set timezone = 'Europe/Paris'"))
      const locker = await clientOf(at, ends, inZone('UTC'))
      await answer(locker, query('set work_mem = 5000'))
      await answer(locker, query('discard all'))
      await value(one, use)
      await answer(locker, prepare)
      assert.equal(await value(locker, use), '2026-06-01 00:00:00+00')
    }),
  )

  it(
    'execute by SQL what they prepared by the protocol, on a connection that does not know it any more',
    scope(async (ends) => {
      const at = await pooled(ends)
      const [one, other] = [await clientOf(at, ends), await clientOf(at, ends)]
      await answer(other, query('create table passing (n int)'))
      await answer(one, cat(parse('p', 'select $1::int'), parse('t', 'select n from passing'), sync))
      await answer(one, cat(parse('e', 'execute p(8)'), sync))
      const forget = async (): Promise<void> => {
        await answer(other, query('deallocate all'))
      }
      await forget()
      assert.equal(await value(one, query('execute p(7)')), '7')
      await forget()
      assert.equal(await value(one, cat(bind('', 'e'), execute(), sync)), '8')
      await forget()
      assert.equal(await value(one, run('execute p(9)')), '9')
      // The other one has prepared the same, and goes on with it when this one does not need it any more.
      await answer(other, cat(parse('mine', 'select $1::int'), sync))
      await answer(one, query('select 1; deallocate p'))
      assert.equal(await value(other, cat(bind('', 'mine', '5'), execute(), sync)), '5')
      await answer(other, query('drop table passing'))
      await forget()
      const told = await answer(one, query('execute t; select 3'))
      assert.deepEqual([told.length, /42P01/.test(told[0] ?? ''), told[1]], [2, true, 'Z "I"'])
      assert.equal(await value(one, query('select 4')), '4')
      // What it does to the session counts as if it had been executed by the protocol.
      await answer(one, cat(parse('l', 'listen passing'), sync))
      await answer(one, query('execute l'))
      await answer(one, cat(parse('s', "select set_config('work_mem', '7MB', false)"), sync))
      await answer(one, query('execute s'))
      one.write(message('X', ''))
      await one.ended()
      assert.equal(await value(other, query('show work_mem')), '4MB')
    }),
  )

  it(
    'prepare a text of their own that names the present, or that follows a change of parameters in one pipeline',
    scope(async (ends) => {
      const at = await pooled(ends)
      const [one, other] = [await clientOf(at, ends), await clientOf(at, ends)]
      const prepare = cat(parse('s', "select 'now'::timestamptz"), sync)
      const use = cat(bind('', 's'), execute(), sync)
      await answer(one, prepare)
      const first = await value(one, use)
      await answer(other, prepare)
      assert.notEqual(await value(other, use), first)
      const dated = cat(parse('d', "select '01/02/2026'::date::text"), sync)
      await answer(one, cat(query("set datestyle = 'ISO, DMY'"), dated))
      await answer(other, dated)
      assert.equal(await value(one, cat(bind('', 'd'), execute(), sync)), '2026-02-01')
      assert.equal(await value(other, cat(bind('', 'd'), execute(), sync)), '2026-01-02')
    }),
  )

  for (const mode of ['Transaction', 'Session'] as const) {
    it(
      `find what they began with again behind RESET and DEFAULT, in a transaction too (pooling ${mode})`,
      scope(async (ends) => {
        const at = await pooled(ends, mode)
        const client = await clientOf(at, ends, inZone('Asia/Tokyo'))
        const show = query('show timezone')
        for (const undo of ['reset timezone', 'set timezone to default', 'set time zone local', 'reset all']) {
          await answer(client, query("set timezone = 'Europe/Paris'"))
          const told = await answer(client, query(undo))
          assert.equal(await value(client, show), 'Asia/Tokyo', undo)
          await answer(client, query("begin; set timezone = 'Europe/Paris'"))
          await answer(client, query(undo))
          assert.equal(await value(client, show), 'Asia/Tokyo', `${undo} in a transaction`)
          await answer(client, query('rollback'))
          assert.equal(await value(client, show), 'Asia/Tokyo', `${undo} rolled back`)
          if (mode === 'Session') assert.ok(told.includes('S "TimeZone\\u0000Asia/Tokyo\\u0000"'), told.join())
        }
        await answer(client, query('discard all'))
        assert.equal(await value(client, show), 'Asia/Tokyo')
        // What was set and not reset stays.
        await answer(client, query("set timezone = 'Etc/UTC'"))
        await answer(client, query('reset statement_timeout'))
        assert.equal(await value(client, show), 'Etc/UTC')
      }),
    )
  }

  it(
    'are told of a reset as by a connection of their own: what has changed, once, and before it is ready',
    scope(async (ends) => {
      const client = await clientOf(await pooled(ends), ends, inZone('Asia/Tokyo'))
      const tokyo = 'S "TimeZone\\u0000Asia/Tokyo\\u0000"'
      for (const undo of ['reset timezone', 'set timezone to default', 'discard all']) {
        assert.ok(!(await answer(client, query(undo))).join().includes('TimeZone'), `${undo}, when nothing was set`)
        await answer(client, query("set timezone = 'Europe/Paris'"))
        const told = await answer(client, query(undo))
        assert.deepEqual(told.slice(-2), [tokyo, 'Z "I"'], undo)
        assert.equal(told.join().match(/TimeZone/g)?.length, 1, undo)
      }
      assert.equal(await value(client, query('show timezone')), 'Asia/Tokyo')
    }),
  )

  for (const mode of MODES) {
    it(
      `are answered what they asked before they said goodbye (pooling ${mode})`,
      scope(async (ends) => {
        const client = await clientOf(await pooled(ends, mode), ends)
        client.write(cat(query('select 41'), query('select 42'), message('X', '')))
        const told = await client.until(atEnd)
        assert.equal(told.filter((each) => each.startsWith('D')).length, 2)
        assert.deepEqual(told.slice(-2), ['Z "I"', 'END'])
      }),
    )
  }

  for (const [title, bytes, told] of [
    ['a type that there is not', message('y', 'abc'), /a message of type 121 \('y'\), which no client sends/],
    ['HTTP', Buffer.from('GET / HTTP/1.1\r\nHost: x\r\n\r\n'), /a message of type 71 \('G'\)/],
    ['a password that nobody asked for', message('p', 'abc\0'), /a message of type 112 \('p'\)/],
    [
      'a length of 2 GB',
      Buffer.from('Q\x7f\xff\xff\xff', 'latin1'),
      /a message of 2147483647 bytes, it has 4 to 1073741824/,
    ],
  ] as const) {
    it(
      `are told at once that they do not speak PostgreSQL: ${title}`,
      scope(async (ends) => {
        const at = await pooled(ends)
        const client = await clientOf(at, ends)
        client.write(bytes)
        const [error = '', end] = await client.until(atEnd)
        assert.match(error, /^E SFATAL\|VFATAL\|C08P01\|Mthe application does not speak the protocol of PostgreSQL: /)
        assert.match(error, told)
        assert.match(error, /\|Hambassador: bad_request$/)
        assert.equal(end, 'END')
      }),
    )
  }
})
