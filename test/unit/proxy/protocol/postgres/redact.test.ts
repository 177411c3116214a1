import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { outline, redact } from '../../../../../proxy/protocol/postgres/redact.ts'

describe('SQL without literals', () => {
  const cases: [text: string, expected: string | string[]][] = [
    ["select * from users where name = 'Ann' and age > 21", 'select * from users where name = ? and age > ?'],
    ["select 'it''s', E'a\\'b', B'101', x'ff', N'n', U&'d\\0061t' from t", 'select ? from t'],
    ['select $1, $2 from a1 where b2 = $3', 'select $1, $2 from a1 where b2 = $3'],
    ['select $$it is$$, $tag$ $$ inside $tag$ as x', 'select ? as x'],
    ['select -1.5e-10, .5, 0x1F, 1_000', 'select -?'],
    ['select 1 -- a comment\n, "Column 1"', 'select ?, "Column 1"'],
    ['select /* one /* two */ three */ a\n\tfrom   b', 'select a from b'],
    ['select * from t where id in (1, 2,3 , 4)', 'select * from t where id in (?)'],
    ["insert into t (a, b) values (1, 'x'), (2, 'y'), (3, null)", 'insert into t (a, b) values (?), (?, null)'],
    ["select 'a'\n'b'", 'select ?'],
    ['begin; insert into t values (1);; commit;', ['begin', 'insert into t values (?)', 'commit']],
    ["select ';' ; select 2", ['select ?', 'select ?']],
    ["select 'without end", 'select ?'],
    ['select $$without end', 'select ?'],
    ['select "without end', 'select ?'],
    ["select 'a\\' or secret", 'select ?'],
    ['select /* without end', 'select'],
    [' ; \n', []],
    ['', []],
    ["alter role bob password 'hunter2'", 'alter role bob password ?'],
    ["select interval '1 day', date '2020-01-01', a::text", 'select interval ?, date ?, a::text'],
    ['select U&"d\\0061t" from tä where naïve = \'ü\'', 'select U&"d\\0061t" from tä where naïve = ?'],
  ]
  for (const [text, expected] of cases) {
    it(`of ${JSON.stringify(text)}`, () => {
      assert.deepEqual(redact(text), Array.isArray(expected) ? expected : [expected])
    })
  }

  it('never shows a secret that stands in a literal or a comment, wherever in a statement', () => {
    const secret = fc.stringMatching(/^SECRET[A-Za-z0-9 ,;()=<>*+./-]{0,20}END$/)
    const quoted = secret.map((text) => `'${text}'`)
    const forms = fc.oneof(
      quoted,
      secret.map((text) => `E'\\'${text}\\\\'`),
      secret.map((text) => `'it''s ${text}'''`),
      secret.map((text) => `$$ ' ${text} $$`),
      secret.map((text) => `$q$ $$ ${text} " $q$`),
      secret.map((text) => `/* ${text.replaceAll('*', '').replaceAll('/', '')} */`),
      secret.map((text) => `-- ${text} '\n`),
      secret.map((text) => `U&'${text}'`),
      secret.map((text) => `'\\\\${text}'`),
    )
    const noise = fc.constantFrom(
      'select',
      ' ',
      'from t',
      ',',
      '(',
      ')',
      '"a""b"',
      '$1',
      '1.5',
      ';',
      '::text',
      'E',
      'x',
      '\n',
      "''",
      '-',
    )
    fc.assert(
      fc.property(fc.array(fc.oneof(noise, forms), { maxLength: 12 }), (parts) => {
        const shown = redact(parts.join(' ')).join('; ')
        assert.ok(!shown.includes('SECRET'), shown)
      }),
      { numRuns: 3000, seed: 42 },
    )
  })

  it('takes time in proportion to the length of a text', () => {
    const rows = Array.from({ length: 20_000 }, (_, n) => `(${n}, 'x${n}', now())`).join(',')
    const startedAt = performance.now()
    const [shape] = redact(`insert into t values ${rows}`)
    // 700 KB, of which a proxy never looks at more than the begin; squared it would take minutes.
    assert.ok(performance.now() - startedAt < 10_000)
    assert.ok(shape?.startsWith('insert into t values (?, now()), (?, now())'))
  })

  it('ends for every text', () => {
    fc.assert(
      fc.property(fc.string({ maxLength: 60 }), (text) => Array.isArray(redact(text))),
      { numRuns: 1000, seed: 7 },
    )
  })
})

describe('the outline of a statement', () => {
  const shown = (text: string): string => {
    const bytes = Buffer.from(`x${text}`)
    return outline(bytes.subarray(1))
  }
  for (const [text, expected] of [
    ["select set_config('app.key', 'hunter2', false)", 'select set_config(?, false)'],
    ['begin; set local role bob', 'begin; set local role bob'],
    ['SET session app.key = hunter2', 'SET session app.key = ?'],
    ['set "my key" to hunter2, hunter3', 'set "my key" to ?'],
    ['set app.key=hunter2', 'set app.key= ?'],
    ['alter role bob set app.key to hunter2', 'alter role bob set app.key to ?'],
    ['update t set a = f() where b = 1', 'update t set a = f() where b = ?'],
    ["do $$ begin perform 'hunter2'; end $$", 'do ?'],
    ['listen news\0\0hunter2', 'listen news'],
    [`select '${'x'.repeat(2000)}', hunter2`, 'select ?'],
    [`select ${'a, '.repeat(300)}b`, `select ${'a, '.repeat(300)}`.slice(0, 200)],
    ['', ''],
  ] as const) {
    it(`of ${JSON.stringify(text.slice(0, 60))} is ${JSON.stringify(expected.slice(0, 60))}`, () => {
      assert.equal(shown(text), expected)
    })
  }
})
