/** Reads that go to the standbys of a real primary, over connections that clients share. */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import type pg from 'pg'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { connected, one, scope } from '../../helpers/postgres-client.ts'
import { MountedFiles, type PostgresSpec, postgresProxy } from '../../helpers/postgres-proxy.ts'

const CLIENTS = 12
const DIRECT = { host: '127.0.0.1', user: POSTGRES_USER, password: POSTGRES_PASSWORD }

it(
  'role Replica with pooling reads from standbys alone: one that stops costs no transaction, and one that comes back is used again',
  { timeout: 120_000 },
  scope(async (ends) => {
    const primary = await postgresServer({}, ends)
    const standbys = [
      await postgresServer({ follows: primary.port }, ends),
      await postgresServer({ follows: primary.port }, ends),
    ] as const
    const files = new MountedFiles()
    files.put('secrets', 'db', 'password', POSTGRES_PASSWORD)
    ends.push(() => files.remove())
    const spec = (queueTimeout: string): PostgresSpec => ({
      upstreams: [
        {
          name: 'readers',
          role: 'Replica',
          // The primary too: it is told from the others by what it says of itself.
          endpoints: [primary, ...standbys].map(({ port }) => ({ host: '127.0.0.1', port })),
          limits: { maxConnections: 6 },
          auth: { postgres: { username: POSTGRES_USER, password: { secretKeyRef: { name: 'db', key: 'password' } } } },
        },
      ],
      timeouts: { connect: queueTimeout },
      postgres: { pooling: { mode: 'Transaction', queueTimeout } },
    })
    const proxy = await postgresProxy(spec('60s'), files, ends)
    const clients = await Promise.all(Array.from({ length: CLIENTS }, () => connected(proxy.options, ends)))
    /** Where a transaction of each client ran, all at the same time. */
    const places = async (): Promise<number[]> => {
      const read = async (client: pg.Client): Promise<number> => {
        await client.query('begin')
        const sql = 'select inet_server_port() as port, pg_is_in_recovery() as standby, pg_sleep(0.05)'
        const { port, standby } = (await client.query(sql)).rows[0]
        await client.query('commit')
        assert.equal(standby, true)
        return port
      }
      return Promise.all(clients.map(read))
    }
    const ports = standbys.map(({ port }) => port)
    assert.deepEqual([...new Set(await places())].sort(), [...ports].sort())
    const stop = async (standby: (typeof standbys)[number]): Promise<void> => {
      const admin = await connected({ ...DIRECT, port: standby.port }, ends)
      const sql = "select count(*)::int from pg_stat_activity where backend_type = 'client backend'"
      const left = proxy.pooling.connections - (Number(await one(admin, sql)) - 1)
      await admin.end()
      await standby.stop('SIGINT')
      // The sidecar has heard of it: between transactions that costs nobody anything.
      while (proxy.pooling.connections > left) await new Promise((resolve) => setImmediate(resolve))
    }
    await stop(standbys[0])
    for (let n = 0; n < 3; n++) assert.deepEqual([...new Set(await places())], [ports[1]])
    await stop(standbys[1])
    proxy.update(spec('1s'))
    const failure = await one(clients[0]!, 'select 1').then(
      () => assert.fail('it was read'),
      (error: pg.DatabaseError) => error,
    )
    assert.match(
      `${failure.code} ${failure.hint}`,
      /^(?:57P03 ambassador: no_healthy_endpoint|08001 ambassador: connect_(?:refused|timeout))$/,
    )
    assert.equal(proxy.troubles.length > 0, true)
    await standbys[0].start()
    proxy.update(spec('60s'))
    assert.deepEqual([...new Set(await places())], [ports[0]])
  }),
)
