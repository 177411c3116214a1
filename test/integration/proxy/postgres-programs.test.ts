/** The programs of PostgreSQL itself in every mode of pooling: a dump, its restoration by several jobs, and what looks after a database. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdtempSync, rmSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import { pooledPostgres } from '../../helpers/pooled-postgres.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { connected, type Ends, one, scope } from '../../helpers/postgres-client.ts'

const lasting: Ends = []
const folder = mkdtempSync(join(tmpdir(), 'ambassador-programs-'))
let port = 0
const direct = (database: string, ends: Ends) => {
  return connected({ host: '127.0.0.1', port, user: POSTGRES_USER, password: POSTGRES_PASSWORD, database }, ends)
}
const CONTENT = "select md5(string_agg(id || name, ',' order by id)) from parts.things"

before(async () => {
  port = (await postgresServer({}, lasting)).port
  const client = await direct('postgres', lasting)
  await client.query(`
    create schema parts; create sequence parts.counter;
    create table parts.things (id int primary key default nextval('parts.counter'), name text not null);
    insert into parts.things (name) select repeat('thing ', n % 50) || n from generate_series(1, 2000) n;
    create table parts.more as select * from parts.things; create index on parts.more (name);
    create table parts.links (id int references parts.things (id)); insert into parts.links select id from parts.things;
    create view parts.named as select name from parts.things where id < 10;
    create function parts.twice(int) returns int language sql as 'select $1 * 2'`)
})

after(async () => {
  for (const end of lasting.reverse()) await end()
  rmSync(folder, { recursive: true, force: true })
})

describe('the programs of PostgreSQL', { timeout: 240_000 }, () => {
  for (const mode of ['Transaction', 'Session', 'Disabled'] as const) {
    it(
      `dump, restore by three jobs, vacuum, reindex and ask whether a server is there (pooling ${mode})`,
      scope(async (ends) => {
        const proxy = await pooledPostgres(
          { ports: [port], postgres: { pooling: { mode } }, limits: { maxConnections: 6 } },
          ends,
        )
        const run = async (program: string, ...args: readonly string[]): Promise<string> => {
          const to = ['-h', '127.0.0.1', '-p', `${proxy.port}`, ...(program === 'pg_isready' ? [] : ['-U', 'x'])]
          const { stdout, stderr } = await promisify(execFile)(program, [...to, ...args], {
            env: { PATH: process.env['PATH'], PGSSLMODE: 'disable' },
          })
          assert.equal(stderr.replaceAll(/^(?:vacuumdb|reindexdb): .*\n/gm, ''), '', program)
          return stdout
        }
        const name = `restored_${mode.toLowerCase()}`
        const file = join(folder, name)
        assert.match(await run('pg_isready', '-d', 'postgres'), /accepting connections/)
        await run('createdb', '--maintenance-db', 'postgres', name)
        await run('pg_dump', '-Fc', '-f', file, 'postgres')
        await run('pg_restore', '-j', '3', '-d', name, file)
        const [original, restored] = [await direct('postgres', ends), await direct(name, ends)]
        assert.equal(await one(restored, CONTENT), await one(original, CONTENT))
        assert.equal(
          await one(restored, "select nextval('parts.counter')"),
          await one(original, "select nextval('parts.counter')"),
        )
        await original.query("select setval('parts.counter', 2000)")
        await run('vacuumdb', '-z', '-j', '2', '-q', '-d', name)
        await run('reindexdb', '-q', '-d', name)
        const plain = await run('pg_dump', '--inserts', '-t', 'parts.links', name)
        assert.equal(plain.match(/^INSERT INTO parts\.links/gm)?.length, 2000)
        assert.equal(await run('psql', '-d', name, '-XAtqc', 'select parts.twice(21)'), '42\n')
        await restored.end()
        if (mode === 'Disabled') await run('dropdb', '--maintenance-db', 'postgres', name)
      }),
    )
  }
})
