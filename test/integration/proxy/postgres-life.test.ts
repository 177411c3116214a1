/** What happens to the connections of a pool in the life of a server: time-outs of its own, no room, another password, a rule against us. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import pg from 'pg'
import { pooledPostgres } from '../../helpers/pooled-postgres.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { connected, type Ends, one, refusal, scope } from '../../helpers/postgres-client.ts'

const lasting: Ends = []
let port = 0
const direct = (ends: Ends) => {
  return connected(
    { host: '127.0.0.1', port, user: POSTGRES_USER, password: POSTGRES_PASSWORD, database: 'postgres' },
    ends,
  )
}

before(async () => {
  const hba = ['host forbidden all 127.0.0.1/32 reject', 'host all all 127.0.0.1/32 scram-sha-256']
  // Three of them are the superuser's.
  port = (await postgresServer({ hba, settings: ['max_connections=8'] }, lasting)).port
  const ends: Ends = []
  const admin = await direct(ends)
  await admin.query("create role app login password 'first'")
  await admin.query("create role impatient login password 'first'")
  await admin.query("alter role impatient set idle_session_timeout = '300ms'")
  await admin.query('create database forbidden')
  await ends[0]!()
})

after(async () => {
  for (const end of lasting.reverse()) await end()
})

const pool = (user: string, maxConnections: number, ends: Ends, queueTimeout = '60s', connect = '5s') => {
  const postgres = { pooling: { mode: 'Transaction' as const, queueTimeout } }
  const timeouts = { connect }
  return pooledPostgres(
    { ports: [port], user, password: 'first', timeouts, postgres, limits: { maxConnections } },
    ends,
  )
}
const turn = (): Promise<void> => new Promise((resolve) => setImmediate(resolve))

describe('a PostgreSQL server under a pool', { timeout: 120_000 }, () => {
  it(
    'that ends free connections by idle_session_timeout costs no client a word',
    scope(async (ends) => {
      const proxy = await pool('impatient', 2, ends)
      const client = await connected(proxy.options, ends)
      const errors: Error[] = []
      client.on('error', (error) => errors.push(error))
      client.on('notice', (notice) => errors.push(notice as unknown as Error))
      for (let n = 0; n < 3; n++) {
        assert.equal(await one(client, 'select $1::int', [n]), n)
        while (proxy.pooling.connections > 0) await turn()
      }
      assert.deepEqual(errors, [])
    }),
  )

  it(
    'that ends a transaction by its time-out tells so who had it, in its own words, and nobody else',
    scope(async (ends) => {
      const proxy = await pool('app', 2, ends)
      const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
      const told = new Promise<pg.DatabaseError>((resolve) =>
        a.on('error', (error) => resolve(error as pg.DatabaseError)),
      )
      await a.query("begin; set local idle_in_transaction_session_timeout = '100ms'")
      assert.equal((await told).code, '25P03')
      assert.equal(await one(b, 'select 1'), 1)
    }),
  )

  it(
    'that has no room is asked again while a client waits, and is heard when it never has',
    scope(async (ends) => {
      const proxy = await pool('app', 6, ends)
      const client = await connected(proxy.options, ends)
      await client.query('begin')
      const hogs: pg.Client[] = []
      const login = { host: '127.0.0.1', port, user: 'app', password: 'first', database: 'postgres' }
      for (;;) {
        const hog = new pg.Client(login)
        hog.on('error', () => {})
        const failure = await hog.connect().then(
          () => null,
          (error: pg.DatabaseError) => error.code,
        )
        if (failure === null) hogs.push(hog)
        else if (failure === '53300') break
        else assert.fail(failure)
      }
      ends.push(async () => {
        for (const hog of hogs) await hog.end().catch(() => {})
      })
      const waiting = await connected(proxy.options, ends)
      const answer = one(waiting, 'select 5')
      const impatient = await pool('app', 1, ends, '1s', '2s')
      assert.equal((await refusal(impatient.options)).code, '53300')
      await hogs.pop()?.end()
      assert.equal(await answer, 5)
      await client.query('commit')
    }),
  )

  it(
    'whose password changes goes on with what is open, says so to what comes, and takes the new one from the Secret',
    scope(async (ends) => {
      const admin = await direct(ends)
      ends.push(() => admin.query("alter role app password 'first'"))
      const proxy = await pool('app', 2, ends)
      const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
      assert.equal(await one(a, 'select 1'), 1)
      await admin.query("alter role app password 'second'")
      await a.query('begin')
      const { code, hint } = (await b.query('select 2').catch((error) => error)) as pg.DatabaseError
      assert.equal(code, '28P01')
      assert.match(`${hint}`, /auth_unavailable.*auth\.postgres/)
      proxy.files.put('secrets', 'db', 'password', 'second')
      const postgres = { pooling: { mode: 'Transaction' as const, queueTimeout: '60s' } }
      proxy.change({ ports: [port], user: 'app', postgres, limits: { maxConnections: 2 } })
      assert.equal(await one(b, 'select 3'), 3)
      assert.equal(await one(a, 'select 4'), 4)
      await a.query('commit')
    }),
  )

  it(
    'that rejects the user by pg_hba.conf is heard with its own words',
    scope(async (ends) => {
      const proxy = await pool('app', 1, ends)
      const { code, message } = await refusal({ ...proxy.options, database: 'forbidden' })
      assert.equal(code, '28000')
      assert.match(message, /pg_hba\.conf rejects connection/)
    }),
  )
})
