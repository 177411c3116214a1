import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { message } from '../../../../../proxy/protocol/postgres/messages.ts'
import { QueryLog, type QueryRecord } from '../../../../../proxy/protocol/postgres/query-log.ts'

const ALL = { minDurationMs: 0, redactLiterals: true, sample: 1 }

function setup(config: typeof ALL | null = ALL, random = () => 0) {
  const records: QueryRecord[] = []
  const log = new QueryLog({ database: 'shop', config: () => config, onQuery: (each) => records.push(each), random })
  return {
    log,
    records,
    /** Without what differs in time. */
    told: () => records.map(({ protocol, statement, rows, code }) => `${protocol} ${statement} ${rows} ${code}`),
    client: (...messages: Buffer[]) => log.onRead(Buffer.concat(messages), Buffer.concat(messages).length),
    server: (...messages: Buffer[]) => log.onWrite(Buffer.concat(messages)),
  }
}

const letter = (text: string): number => text.charCodeAt(0)
const bytes = (...values: number[]): Buffer => Buffer.from(values)
const query = (text: string) => message(letter('Q'), text)
const parse = (name: string, text: string) => message(letter('P'), name, text, bytes(0, 0))
const bind = (portal: string, name: string, ...values: string[]) =>
  message(
    letter('B'),
    portal,
    name,
    bytes(0, 0, 0, values.length),
    ...values.flatMap((value) => [Buffer.byteLength(value), Buffer.from(value)]),
    bytes(0, 0),
  )
const describeStatement = (name: string) => message(letter('D'), bytes(letter('S')), name)
const describePortal = (name: string) => message(letter('D'), bytes(letter('P')), name)
const execute = (portal: string) => message(letter('E'), portal, 0)
const close = (name: string) => message(letter('C'), bytes(letter('S')), name)
const sync = message(letter('S'))
const tag = (text: string) => message(letter('C'), text)
const ready = message(letter('Z'), bytes(letter('I')))
const row = (value: string) => message(letter('D'), bytes(0, 1), Buffer.byteLength(value), Buffer.from(value))
const columns = message(letter('T'), bytes(0, 0))
const failure = (code: string, text: string) =>
  message(letter('E'), 'SERROR', 'VERROR', `C${code}`, `M${text}`, bytes(0))
const done = (code: string) => message(letter(code))

describe('the query log', () => {
  it('tells of each statement of a simple query, with its rows', () => {
    const { client, server, told } = setup()
    client(query("begin; insert into t values (1, 'a'), (2, 'b'); commit"))
    server(tag('BEGIN'), tag('INSERT 0 2'), tag('COMMIT'), ready)
    client(query(''))
    server(done('I'), ready)
    client(query('select 1'))
    server(columns, row('1'), tag('SELECT 1'), ready)
    assert.deepEqual(told(), [
      'simple begin null null',
      'simple insert into t values (?) 2 null',
      'simple commit null null',
      'simple select ? 1 null',
    ])
  })

  it('tells of prepared statements by what was prepared, each time they are executed', () => {
    const { client, server, told } = setup()
    client(parse('s1', 'select name from users where id = $1'), describeStatement('s1'), sync)
    server(done('1'), message(letter('t'), bytes(0, 0)), columns, ready)
    for (const value of ['42', '43']) {
      client(bind('', 's1', value), execute(''), sync)
      server(done('2'), row('Ann'), row('Bob'), tag('SELECT 2'), ready)
    }
    client(close('s1'), parse('', 'update t set a = $1'), bind('', '', 'x'), describePortal(''), execute(''), sync)
    server(done('3'), done('1'), done('2'), done('n'), tag('UPDATE 7'), ready)
    assert.deepEqual(told(), [
      'extended select name from users where id = $1 2 null',
      'extended select name from users where id = $1 2 null',
      'extended update t set a = $1 7 null',
    ])
  })

  it('tells of what failed with its SQLSTATE, and finds its place again behind Sync', () => {
    const { client, server, told } = setup()
    client(query('select 1; select no; select 3'))
    server(tag('SELECT 1'), failure('42703', 'column no'), ready)
    client(
      parse('', 'select nope'),
      bind('', ''),
      execute(''),
      parse('', 'select 2'),
      execute(''),
      sync,
      query('select 5'),
    )
    server(failure('42703', 'nope'), ready, tag('SELECT 1'), ready)
    client(parse('', 'select $1'), bind('', '', 'bad'), execute(''), sync)
    server(done('1'), failure('22P02', 'invalid input: bad'), ready)
    assert.deepEqual(told(), [
      'simple select ? 1 null',
      'simple select no null 42703',
      'extended select nope null 42703',
      'simple select ? 1 null',
      'extended select $1 null 22P02',
    ])
  })

  it('gives statements that differ in literals, case and space one fingerprint', () => {
    const { client, server, records } = setup()
    for (const text of [
      "select * from t where a = 'x'",
      'SELECT  * FROM t\nWHERE a = 5',
      'select * from u where a = 1',
    ]) {
      client(query(text))
      server(tag('SELECT 0'), ready)
    }
    const [one, two, three] = records.map(({ fingerprint }) => fingerprint)
    assert.match(one ?? '', /^[0-9a-f]{16}$/)
    assert.equal(one, two)
    assert.notEqual(one, three)
  })

  it('shows literals where that is wanted, and those of statements about passwords never', () => {
    const { client, server, told } = setup({ ...ALL, redactLiterals: false })
    for (const text of ["select 'shown'", "alter role a password 'hidden'", "select 'a'; select 'b'"]) {
      client(query(text))
      server(tag('SELECT 1'), ready)
    }
    assert.deepEqual(told(), [
      "simple select 'shown' 1 null",
      'simple alter role a password ? 1 null',
      'simple select ? 1 null',
    ])
  })

  it('samples, and is still where the config has none any more', () => {
    const { client, server, records } = setup(
      { ...ALL, sample: 0.5 },
      (() => {
        let n = 0
        return () => (n++ % 2 === 0 ? 0.4 : 0.6)
      })(),
    )
    for (let n = 0; n < 10; n++) {
      client(query('select 1'))
      server(tag('SELECT 1'), ready)
    }
    assert.equal(records.length, 5)
    const off = setup(null)
    off.client(query('select 1'))
    off.server(tag('SELECT 1'), ready)
    assert.equal(off.records.length, 0)
  })

  it('reads the same wherever the bytes are split', () => {
    const conversation: ['client' | 'server', Buffer][] = [
      ['client', query('begin; select 1')],
      ['server', Buffer.concat([tag('BEGIN'), columns, row('x'.repeat(300)), tag('SELECT 1'), ready])],
      ['client', Buffer.concat([parse('ä', 'select $1'), bind('p', 'ä', 'v'.repeat(500)), execute('p'), sync])],
      ['server', Buffer.concat([done('1'), done('2'), row('1'), tag('SELECT 1'), ready])],
      ['client', query(`select '${'y'.repeat(20_000)}'`)],
      ['server', Buffer.concat([failure('57014', 'z'.repeat(1000)), ready])],
    ]
    const run = (size: number) => {
      const { log, told } = setup()
      for (const [from, all] of conversation) {
        for (let at = 0; at < all.length; at += size) {
          // What a socket reads is overwritten by its next read.
          const piece = Buffer.from(all.subarray(at, at + size))
          if (from === 'client') log.onRead(piece, piece.length)
          else log.onWrite(piece)
          piece.fill(0xff)
        }
      }
      return told()
    }
    const whole = run(1 << 20)
    assert.equal(whole.length, 4)
    for (const size of [1, 2, 3, 4, 5, 6, 7, 11, 64, 255, 4096]) assert.deepEqual(run(size), whole, `pieces of ${size}`)
  })

  it('never shows what is bound, copied or given as a password, and outlives whatever comes', () => {
    const secret = fc.stringMatching(/^SECRET[a-z0-9]{1,8}$/)
    const fromClient = secret.chain((hidden) =>
      fc.constantFrom(
        bind('', '', hidden),
        bind('p', 's', hidden, hidden),
        message(letter('d'), Buffer.from(`${hidden}\t${hidden}\n`)),
        message(letter('p'), hidden),
        message(letter('f'), hidden),
        message(letter('F'), Buffer.from(hidden)),
        query(`copy t from stdin /* ${hidden} */`),
        query(`select '${hidden}', $$${hidden}$$ -- ${hidden}`),
        query(`alter role x password '${hidden}'`),
        parse('s', `select E'\\'${hidden}', $1`),
        parse('', `set x.token to '${hidden}`),
        execute('p'),
        execute(''),
        sync,
        done('c'),
      ),
    )
    const fromServer = secret.chain((hidden) =>
      fc.constantFrom(
        failure('23505', hidden),
        row(hidden),
        tag('INSERT 0 1'),
        tag(hidden),
        ready,
        columns,
        done('1'),
        done('2'),
        done('s'),
        message(letter('N'), `M${hidden}`, bytes(0)),
        message(letter('A'), 1, 'channel', hidden),
        message(letter('S'), 'application_name', hidden),
      ),
    )
    const step = fc.oneof(
      fc.tuple(fc.constant('client' as const), fromClient),
      fc.tuple(fc.constant('server' as const), fromServer),
      fc.tuple(fc.constantFrom('client' as const, 'server' as const), fc.uint8Array({ maxLength: 8 }).map(Buffer.from)),
    )
    fc.assert(
      fc.property(fc.array(step, { maxLength: 30 }), fc.boolean(), (steps, redactLiterals) => {
        const { log, records } = setup({ ...ALL, redactLiterals })
        for (const [from, piece] of steps) {
          if (from === 'client') log.onRead(Buffer.from(piece), piece.length)
          else log.onWrite(Buffer.from(piece))
        }
        const shown = records.map((each) => ({ ...each, statement: redactLiterals ? each.statement : '' }))
        assert.doesNotMatch(JSON.stringify(shown), /SECRET/)
      }),
      { numRuns: 3000, seed: 11 },
    )
  })
})
