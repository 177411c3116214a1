/** A primary that its administrator has made read-only: it is passed over at the login and by the check, and a user who is read-only is not mistaken for it. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import pg from 'pg'
import type { Ends } from '../../helpers/ends.ts'
import { type PooledSetup, pooledPostgres } from '../../helpers/pooled-postgres.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { connected, one, refusal, scope } from '../../helpers/postgres-client.ts'

const lasting: Ends = []
let first = 0
let second = 0
let fencedByCommand = 0
const POOLING = { pooling: { mode: 'Transaction' } } as const
const PORT = 'select inet_server_port()'
const IS_READ_ONLY = `select current_setting('default_transaction_read_only')`

/** Straight to a server, on a connection of its own. */
async function ask(port: number, sql: string): Promise<unknown> {
  const client = new pg.Client({ host: '127.0.0.1', port, user: POSTGRES_USER, password: POSTGRES_PASSWORD })
  await client.connect()
  try {
    return await one(client, sql)
  } finally {
    await client.end()
  }
}

/** By ALTER SYSTEM; resolves when new connections see it. */
async function fence(port: number, value: 'on' | 'off'): Promise<void> {
  await ask(port, `alter system set default_transaction_read_only = ${value}`)
  await ask(port, 'select pg_reload_conf()')
  while ((await ask(port, IS_READ_ONLY)) !== value);
}

/** Where a new client of a new sidecar ends up. */
async function reached(setup: Partial<PooledSetup>, ends: Ends): Promise<unknown> {
  const { options } = await pooledPostgres({ ports: [first, second], ...setup }, ends)
  return one(await connected(options, ends), PORT)
}

before(async () => {
  first = (await postgresServer({}, lasting)).port
  second = (await postgresServer({}, lasting)).port
  const settings = ['default_transaction_read_only=on']
  fencedByCommand = (await postgresServer({ settings }, lasting)).port
  await ask(first, `create role reader login password '${POSTGRES_PASSWORD}'`)
  await ask(first, 'alter role reader set default_transaction_read_only = on')
})
after(async () => {
  for (const end of lasting.reverse()) await end()
})

describe('a PostgreSQL that is read-only as a whole', () => {
  for (const [title, postgres] of [
    ['a client of its own connection', {}],
    ['a pool', POOLING],
  ] as const) {
    it(
      `is no Primary for ${title}, while it is fenced`,
      scope(async (ends) => {
        ends.push(() => fence(first, 'off'))
        assert.equal(await reached({ postgres }, ends), first)
        await fence(first, 'on')
        assert.equal(await reached({ postgres }, ends), second)
        assert.equal(await reached({ postgres, role: 'Any' }, ends), first)
        await fence(first, 'off')
        assert.equal(await reached({ postgres }, ends), first)
      }),
    )
  }

  it(
    'is no Primary when its command line says so, and no Replica either',
    scope(async (ends) => {
      assert.equal(await reached({ ports: [fencedByCommand, second] }, ends), second)
      for (const [role, what] of [
        [
          'Primary',
          /is read-only as a whole \(default_transaction_read_only is on\), and the role of the upstream is Primary/,
        ],
        ['Replica', /is not a standby, and the role of the upstream is Replica/],
      ] as const) {
        const timeouts = { connect: '2s' }
        const error = await refusal((await pooledPostgres({ ports: [fencedByCommand], role, timeouts }, ends)).options)
        assert.deepEqual([error.code, error.hint], ['57P03', 'ambassador: no_healthy_endpoint'])
        assert.match(error.message, what)
      }
    }),
  )

  it(
    'is not what a user or an application makes read-only for itself',
    scope(async (ends) => {
      assert.equal(await reached({ user: 'reader' }, ends), first)
      const { options } = await pooledPostgres({ ports: [first, second] }, ends)
      const asking = await connected({ ...options, options: '-c default_transaction_read_only=on' }, ends)
      assert.deepEqual([await one(asking, PORT), await one(asking, IS_READ_ONLY)], [first, 'on'])
    }),
  )
})
