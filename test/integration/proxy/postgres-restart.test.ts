/** A PostgreSQL that is stopped and started again under a pool: what is in flight fails, what waits is served behind it, and what was acknowledged is there. */
import assert from 'node:assert/strict'
import { after, it } from 'node:test'
import pg from 'pg'
import type { Ends } from '../../helpers/ends.ts'
import { pooledPostgres } from '../../helpers/pooled-postgres.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'

const ends: Ends = []
after(async () => {
  for (const end of ends.reverse()) await end()
})

const CLIENTS = 8
const CONNECTIONS = 3

it('a restart under a pool fails only the transactions in flight, and loses no row that was acknowledged', {
  timeout: 120_000,
}, async (t) => {
  const server = await postgresServer({}, ends)
  const ask = async (sql: string): Promise<pg.QueryResult> => {
    const login = { host: '127.0.0.1', port: server.port, user: POSTGRES_USER, password: POSTGRES_PASSWORD }
    const client = new pg.Client(login)
    await client.connect()
    try {
      return await client.query(sql)
    } finally {
      await client.end()
    }
  }
  await ask('create table orders (id uuid primary key default gen_random_uuid())')
  const proxy = await pooledPostgres(
    {
      ports: [server.port],
      limits: { maxConnections: CONNECTIONS },
      timeouts: { connect: '60s' },
      postgres: { pooling: { mode: 'Transaction', queueTimeout: '60s' } },
    },
    ends,
  )
  let isOver = false
  const acknowledged: string[] = []
  const counts = Array<number>(CLIENTS).fill(0)
  const codes: string[] = []
  const write = async (index: number): Promise<void> => {
    const client = new pg.Client(proxy.options)
    let farewell: pg.DatabaseError | null = null
    client.on('error', (error) => {
      farewell ??= error as pg.DatabaseError
    })
    await client.connect()
    while (!isOver) {
      try {
        const { rows } = await client.query('insert into orders default values returning id')
        acknowledged.push(rows[0].id)
        counts[index] = (counts[index] ?? 0) + 1
      } catch (error) {
        // What came right behind an answer is told as an event; the next statement then fails without a word of the server's.
        const { code, message } = farewell ?? (error as pg.DatabaseError)
        codes.push(code ?? `none: ${message}`)
        // The words of the server were its last: the connection is of no use behind them.
        break
      }
    }
    await client.end().catch(() => {})
    // An application connects again.
    if (!isOver) await write(index)
  }
  const writers = counts.map((_, index) => write(index))
  const until = async (isReached: () => boolean): Promise<void> => {
    while (!isReached()) await new Promise((resolve) => setTimeout(resolve, 10))
  }
  await until(() => counts.every((count) => count >= 5))
  const inFlight = new pg.Client(proxy.options)
  const farewell = new Promise<pg.DatabaseError>((resolve) => {
    inFlight.on('error', (error) => resolve(error as pg.DatabaseError))
  })
  await inFlight.connect()
  await inFlight.query('begin')
  const lost = (await inFlight.query('insert into orders default values returning id')).rows[0].id
  await server.stop('SIGINT')
  // Whoever was in flight knows by now; all the others wait.
  assert.match((await farewell).code ?? '', /^(?:08|57)/)
  await server.start()
  const before = [...counts]
  await until(() => counts.every((count, index) => count >= before[index]! + 5))
  isOver = true
  await Promise.all(writers)
  t.diagnostic(`${codes.length} failed: ${codes.join(' ')}; ${acknowledged.length} acknowledged`)
  assert.ok(codes.length <= CONNECTIONS, `${codes}`)
  for (const code of codes) assert.match(code, /^(?:08|57)/)
  const { rows } = await ask('select id from orders')
  const found = new Set(rows.map(({ id }) => id))
  assert.equal(found.has(lost), false)
  assert.deepEqual(
    acknowledged.filter((id) => !found.has(id)),
    [],
  )
  assert.equal(new Set(acknowledged).size, acknowledged.length)
})
