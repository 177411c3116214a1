import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { RESTORABLE_PARAMETERS } from '../../../../../proxy/protocol/postgres/pins.ts'
import { SqlScanner } from '../../../../../proxy/protocol/postgres/sql.ts'
import { hashOf } from '../../../../../proxy/protocol/postgres/sql-words.ts'

/** What is found, read in pieces of every length, which must not matter. */
function found(text: string, isEscaping = false) {
  const bytes = Buffer.from(text)
  const scanner = new SqlScanner()
  let first: object | null = null
  for (const step of [bytes.length || 1, 1, 2, 3, 7]) {
    scanner.begin(isEscaping)
    for (let at = 0; at < bytes.length; at += step) scanner.feed(bytes, at, Math.min(bytes.length, at + step))
    scanner.end()
    const { pin, parameters, asksSequences, statements, isDeallocate } = scanner
    const names = RESTORABLE_PARAMETERS.filter((_, bit) => parameters & (1 << bit))
    const result = { pin, names, asksSequences, statements, isDeallocate }
    if (first === null) first = result
    else assert.deepEqual(result, first, `in pieces of ${step}: ${text}`)
  }
  return first as {
    pin: string | null
    names: string[]
    asksSequences: boolean
    statements: number
    isDeallocate: boolean
  }
}

const PINS: readonly (readonly [string, string])[] = [
  ['set', 'SET enable_seqscan = off'],
  ['set', 'set session work_mem to 5'],
  ['set', 'select 1; /* two */ SET work_mem = 1'],
  ['set', 'SET my.thing = 1'],
  ['set', "select set_config('work_mem', '1MB', false)"],
  ['set', "select pg_catalog.set_config('work_mem', $1, $2)"],
  ['set', "select \"set_config\"('a.b', 'c', false)"],
  ['set', "select set_config('a.b', (select true), true and false)"],
  ['set', "select set_config('Time' || 'Zone', 'UTC', false)"],
  ['set', "select set_config('timezone'\n'x', 'UTC', false)"],
  ['set', "select set_config('time''zone', 'UTC', false)"],
  ['set', "select set_config(lower('timezone', 'UTC'), 'UTC', false)"],
  ['set', "select set_config(setting_name => 'timezone', new_value => 'UTC', is_local => false)"],
  ['set', "select set_config('timezone', set_config('work_mem', '7MB', false), false)"],
  ['set', "select set_config((('timezone')), 'UTC', false)"],
  ['set', "update pg_settings set setting = 1 where name = 'work_mem'"],
  ['role', 'SET ROLE other'],
  ['role', 'set session role other'],
  ['role', '-- a comment\nSET SESSION AUTHORIZATION other'],
  ['role', 'SET "role" TO other'],
  ['role', "SET SESSION AUTHORIZATION 'default'"],
  ['role', 'SET SESSION AUTHORIZATION "default"; select 1'],
  ['role', 'set session_authorization = other; reset all'],
  ['prepare', 'PREPARE one AS SELECT 1'],
  ['prepare', 'prepare "two" (int) as select $1'],
  ['listen', 'LISTEN news'],
  ['listen', 'begin; listen "News"'],
  ['temporary_table', 'CREATE TEMP TABLE t (id int)'],
  ['temporary_table', 'create local temporary table t (id int)'],
  ['temporary_table', 'CREATE OR REPLACE TEMP VIEW v AS SELECT 1'],
  ['temporary_table', 'create temp table t (id int) on commit delete rows'],
  ['temporary_table', 'create temp table a (x int) on commit drop; create temp table b (x int)'],
  ['temporary_table', 'SELECT 1 AS one INTO TEMP t'],
  ['temporary_table', 'select * into temporary table t from x'],
  ['temporary_table', 'CREATE TABLE pg_temp.t (id int)'],
  ['temporary_table', 'create function "pg_temp".f() returns int language sql as $$ select 1 $$'],
  ['advisory_lock', 'SELECT pg_advisory_lock(1)'],
  ['advisory_lock', 'select pg_catalog.pg_try_advisory_lock_shared($1)'],
  ['cursor', 'DECLARE c CURSOR WITH HOLD FOR SELECT 1'],
  ['load', "LOAD 'auto_explain'"],
  ['dblink', "select dblink_connect('x', 'dbname=y')"],
  ['do', "DO 'begin null; end'"],
  ['do', "DO $$ begin execute 'set role x'; end $$"],
  ['role', 'DO $body$ BEGIN SET ROLE x; END $body$'],
  ['temporary_table', 'do language plpgsql $$ begin if true then create temp table t (id int); end if; end $$'],
  ['role', 'do $$ <<outer>> declare x int; begin set role y; end $$ language plpgsql'],
  ['role', 'do $$ declare language text; begin set role y; end $$'],
  ['language', 'do language plperl $$ $_SHARED{a} = 1 $$'],
  ['language', "do language 'plperl' $$ begin(); $$"],
  ['language', 'do language "plpython3u" $$ begin = GD $$'],
  ['language', 'do $$ $_SHARED{a} = 1; $$ language plperl'],
  ['language', "do $$ begin_it(); # don't\n $$ language plperl"],
  ['language', 'do $$ begin; $$ language pltcl'],
  ['language', "do $$ begin; $$ language 'pltcl'"],
  ['language', 'set work_mem = 1; do $$ GD["a"] = 1 $$ language plpython3u'],
  ['load', "set work_mem = 1; load 'plperl'; listen x"],
  ['other', 'select U&"set\\005fconfig"(1)'],
]

const FREE: readonly string[] = [
  '',
  ';;',
  'SELECT abalance FROM pgbench_accounts WHERE aid = 4711;',
  'BEGIN',
  'START TRANSACTION ISOLATION LEVEL SERIALIZABLE',
  'SET LOCAL statement_timeout = 5',
  'SET SESSION AUTHORIZATION DEFAULT; RESET ALL',
  'set session_authorization to default',
  'SET TRANSACTION READ ONLY',
  'set constraints all deferred',
  "select set_config('a.b', 'c', true)",
  "select set_config('a.b', lower('C'), true), 1",
  "PREPARE TRANSACTION 'two'",
  'UPDATE t SET role = 1, statement_timeout = 2',
  "select 'SET ROLE x; LISTEN y; pg_advisory_lock(1)'",
  "select 'it''s; SET ROLE x'",
  "select E'\\'; SET ROLE x; --'",
  'select "SET ROLE x; "',
  'select $$; SET ROLE x;$$, $tag$ $$ ; LISTEN x; $tag$, $1',
  '/* ; SET ROLE x; /* nested */ ; LISTEN x */ select 1 -- ; LISTEN y',
  'select pg_advisory_xact_lock(1)',
  'CREATE TABLE temp (id int)',
  'create temp table t (id int) on commit drop',
  'CREATE TEMP TABLE t ON COMMIT DROP AS SELECT 1; select 1',
  'insert into temp values (1)',
  'DECLARE c CURSOR WITHOUT HOLD FOR SELECT 1',
  'select temp, temporary from t',
  'CREATE FUNCTION f() RETURNS void LANGUAGE plpgsql SET search_path = x AS $$ begin set role y; end $$',
  'ALTER ROLE x SET work_mem = 1',
  'RESET ALL',
  'DISCARD ALL',
  'UNLISTEN *',
  'NOTIFY news',
  'do $$ begin perform 1; update t set role = 1; end $$',
  'select a-b, a/b, 1.5e3, x$y from t',
]

describe('SqlScanner', () => {
  for (const [pin, text] of PINS) it(`finds ${pin} in ${text}`, () => assert.equal(found(text).pin, pin))
  for (const text of FREE) it(`finds nothing in ${text}`, () => assert.equal(found(text).pin, null))

  it('names the parameters that the server reports', () => {
    const text = "SET TIME ZONE 'UTC'; set names 'latin1'; SET SESSION application_name = 'x'; set DateStyle to iso"
    assert.deepEqual(
      [found(text).pin, found(text).names.sort()],
      [null, ['application_name', 'client_encoding', 'datestyle', 'timezone']],
    )
    const calls = "select set_config('TimeZone', 'UTC', false), pg_catalog.set_config( 'application_name' , $1, $2)"
    assert.deepEqual([found(calls).pin, found(calls).names.sort()], [null, ['application_name', 'timezone']])
  })

  it('reads a backslash as the server does', () => {
    const text = "select '\\'; SET ROLE x; --'"
    assert.equal(found(text, false).pin, 'role')
    assert.equal(found(text, true).pin, null)
  })

  it('sees that a statement may change what is stored', () => {
    const isChange = (text: string): boolean => {
      const scanner = new SqlScanner()
      const bytes = Buffer.from(text)
      scanner.begin(false)
      scanner.feed(bytes, 0, bytes.length)
      scanner.end()
      return scanner.isChange
    }
    for (const text of ['create function f() …', 'select 1; DROP VIEW v', 'alter table t …', 'do $$ begin end $$']) {
      assert.equal(isChange(text), true, text)
    }
    for (const text of ['select 1 as drop', 'create temp table t (id int)', 'insert into t values (1)']) {
      assert.equal(isChange(text), false, text)
    }
    assert.equal(isChange('create view v as select 1; create temp table t (id int)'), true)
  })

  it('sees that parameters go back to what the session began with', () => {
    const scanner = new SqlScanner()
    const resets = (text: string): boolean => {
      const bytes = Buffer.from(text)
      scanner.begin(false)
      scanner.feed(bytes, 0, bytes.length)
      scanner.end()
      return scanner.resets
    }
    for (const text of ['reset timezone', 'select 1; RESET ALL', 'set timezone to default', 'SET TIME ZONE LOCAL']) {
      assert.equal(resets(text), true, text)
    }
    for (const text of [
      "set timezone = 'default'",
      'set local timezone to default',
      'select 1 as reset',
      'insert into t values (default)',
      'set work_mem to default',
    ]) {
      assert.equal(resets(text), false, text)
    }
  })

  it('sees that functions are made, changed or dropped', () => {
    const scanner = new SqlScanner()
    const defines = (text: string): boolean => {
      const bytes = Buffer.from(text)
      scanner.begin(false)
      scanner.feed(bytes, 0, bytes.length)
      scanner.end()
      return scanner.defines
    }
    for (const text of [
      'create or replace function f() …',
      'select 1; DROP PROCEDURE p',
      'alter routine f() rename to g',
      'drop schema s cascade',
      'create extension if not exists e',
    ]) {
      assert.equal(defines(text), true, text)
    }
    for (const text of ['alter table t add a int', 'create trigger t after insert on u execute function f()']) {
      assert.equal(defines(text), false, text)
    }
  })

  it('asks about every word that may name something, and not about those that are new each time', () => {
    const asked = (text: string): string[] => {
      const words = ['select', 'savepoint', 's1', 'leak', 'Quoted', 'say"so', 'declare', 'c1', 'cursor', 'for', 'sum']
      const seen: string[] = []
      const scanner = new SqlScanner()
      scanner.words = {
        effectsOf: (hash) => {
          seen.push(words.find((word) => hashOf(word) === hash) ?? '?')
          return null
        },
      }
      const bytes = Buffer.from(text)
      scanner.begin(false)
      scanner.feed(bytes, 0, bytes.length)
      scanner.end()
      return seen
    }
    assert.deepEqual(asked(`SELECT Leak('text', 1, $1), "Quoted"(), "say""so"()`), [
      'select',
      'leak',
      'Quoted',
      'say"so',
    ])
    assert.deepEqual(asked('SAVEPOINT s1; select sum(1)'), ['select', 'sum'])
    assert.deepEqual(asked('declare c1 cursor for select leak()'), ['declare', 'cursor', 'for', 'select', 'leak'])
  })

  it('sees that a statement asks for a sequence, and a DEALLOCATE', () => {
    assert.equal(found("select currval('s')").asksSequences, true)
    assert.equal(found("select nextval('s')").asksSequences, false)
    assert.deepEqual([found('DEALLOCATE x').isDeallocate, found('DEALLOCATE x').statements], [true, 1])
    assert.equal(found('select 1; deallocate x; ').statements, 2)
  })
})
