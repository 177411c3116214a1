import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import pg from 'pg'
import postgres from 'postgres'
import { endsOfEach } from '../../helpers/ends.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { MountedFiles, type PostgresSpec, postgresProxy } from '../../helpers/postgres-proxy.ts'

const mounts = new MountedFiles()
const lasting: (() => unknown)[] = []
const ends = endsOfEach()
let port = 0
before(async () => {
  mounts.put('secrets', 'db', 'password', POSTGRES_PASSWORD)
  mounts.put('secrets', 'app', 'password', 'SECRETapp')
  port = (await postgresServer({}, lasting)).port
})
after(async () => {
  for (const end of lasting.reverse()) await end()
  mounts.remove()
})

const ref = (name: string) => ({ secretKeyRef: { name, key: 'password' } })
type Mode = 'Disabled' | 'Transaction'
const proxy = (
  queryLog: NonNullable<PostgresSpec['postgres']>['queryLog'],
  hasClientPassword = false,
  mode: Mode = 'Disabled',
) =>
  postgresProxy(
    {
      upstreams: [
        {
          name: 'db',
          endpoints: [{ host: '127.0.0.1', port }],
          auth: {
            postgres: {
              username: POSTGRES_USER,
              password: ref('db'),
              ...(hasClientPassword && { clientPassword: ref('app') }),
            },
          },
        },
      ],
      accessLog: { mode: 'Off' },
      postgres: { ...(queryLog && { queryLog }), pooling: { mode } },
    },
    mounts,
    ends,
  )

async function connected(options: pg.ClientConfig): Promise<pg.Client> {
  const client = new pg.Client(options)
  await client.connect()
  ends.push(() => client.end())
  return client
}

describe('postgres.queryLog', () => {
  for (const mode of ['Disabled', 'Transaction'] as const) {
    it(`writes a line for each statement of node-postgres, postgres.js and psql (pooling ${mode})`, async () => {
      const { options, lines } = await proxy({}, false, mode)
      const client = await connected(options)
      await client.query("select 'x' as one")
      await client.query({ name: 'sum', text: 'select $1::int + $2::int', values: [1, 2] })
      await client.query('select nope').catch(() => {})
      const sql = postgres({
        host: options.host,
        port: options.port,
        user: 'x',
        database: 'postgres',
        max: 1,
        fetch_types: false,
      })
      await sql`select generate_series(1, ${3}::int)`
      await sql.end()
      const env = { PATH: process.env['PATH'] }
      const args = ['-h', options.host, '-p', `${options.port}`, '-U', 'x', '-d', 'postgres', '-XAtc', "select 'psql'"]
      await promisify(execFile)('psql', args, { env })
      const shown = lines.map(({ protocol, statement, rows, code }) => [protocol, statement, rows, code])
      assert.deepEqual(shown, [
        ['simple', 'select ? as one', 1, undefined],
        ['extended', 'select $1::int + $2::int', 1, undefined],
        ['simple', 'select nope', undefined, '42703'],
        ['extended', 'select generate_series(?, $1::int)', 3, undefined],
        ['simple', 'select ?', 1, undefined],
      ])
      for (const line of lines) {
        assert.deepEqual(
          [line['level'], line['name'], line['ns'], line['ambassador'], line['database'], line['msg']],
          ['info', 'query', 'shop', 'orders', 'postgres', 'statement'],
        )
        assert.match(String(line['fingerprint']), /^[0-9a-f]{16}$/)
        assert.ok(Number(line['durationMs']) >= 0)
      }
    })
  }

  it('leaves out what is quicker than minDuration, and says how long the rest took', async () => {
    const { options, lines } = await proxy({ minDuration: '300ms' })
    const client = await connected(options)
    await client.query('select 1')
    await client.query('select pg_sleep(0.4)')
    const slow = lines.filter(({ statement }) => statement === 'select pg_sleep(?)')
    assert.equal(slow.length, 1)
    assert.ok(Number(slow[0]?.['durationMs']) >= 400)
    assert.ok(lines.every(({ durationMs }) => Number(durationMs) >= 300))
  })

  it('writes nothing without the block, and with a sample of 0 %', async () => {
    for (const queryLog of [undefined, { sample: '0%' }]) {
      const { options, lines } = await proxy(queryLog)
      await (await connected(options)).query('select 1')
      assert.deepEqual(lines, [])
    }
  })

  it('follows a config that changes, on connections that are open', async () => {
    const { options, lines, update } = await proxy({})
    const client = await connected(options)
    await client.query('select 1')
    assert.equal(lines.length, 1)
    update({
      upstreams: [
        {
          name: 'db',
          endpoints: [{ host: '127.0.0.1', port }],
          auth: { postgres: { username: POSTGRES_USER, password: ref('db') } },
        },
      ],
    })
    await client.query('select 2')
    assert.equal(lines.length, 1)
  })

  it('has no secret in it, wherever the application puts one', async () => {
    for (const [redactLiterals, mode] of [
      [true, 'Disabled'],
      [false, 'Disabled'],
      [true, 'Transaction'],
    ] as const) {
      const { options, lines } = await proxy({ redactLiterals }, true, mode)
      const client = await connected({ ...options, password: 'SECRETapp' })
      await client.query('create temporary table t (a text)')
      await client.query({ name: 'in', text: 'insert into t values ($1)', values: ['SECRETbound'] })
      await client.query('insert into t values ($1)', ['SECRETunnamed'])
      await client.query("create role bob password 'SECRETrole'")
      await client.query("alter role bob encrypted password E'SECRET\\'role'")
      await client.query('drop role bob')
      await client.query("select 'SECRET' || a::int from t").catch(() => {})
      const env = { PATH: process.env['PATH'], PGPASSWORD: 'SECRETapp' }
      const args = ['-h', options.host, '-p', `${options.port}`, '-U', 'x', '-d', 'postgres', '-X']
      const psql = promisify(execFile)('psql', args, { env })
      psql.child.stdin?.end(
        'create temporary table t (a text);\ncopy t from stdin;\nSECRETcopied\n\\.\ncopy t to stdout;\n',
      )
      assert.match((await psql).stdout, /SECRETcopied/)
      const text = JSON.stringify(
        redactLiterals ? lines : lines.filter(({ statement }) => !/'SECRET' \|\| a/.test(String(statement))),
      )
      assert.ok(lines.length >= 9)
      assert.doesNotMatch(text, /SECRET/)
      assert.doesNotMatch(text, new RegExp(POSTGRES_PASSWORD))
      const copied = lines.filter(({ statement }) => String(statement).startsWith('copy t'))
      assert.deepEqual(
        copied.map(({ rows }) => rows),
        [1, 1],
      )
    }
  })
})
