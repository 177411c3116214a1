/** A primary that dies under 200 writes a second and a standby that is promoted: what fails, for how long, and that nothing acknowledged is lost. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import pg from 'pg'
import { pooledPostgres } from '../../helpers/pooled-postgres.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { connected, type Ends, one, scope } from '../../helpers/postgres-client.ts'

const WRITERS = 10
/** Of each: together 200 a second, where the machine is fast enough. */
const PAUSE_MS = 50
/** There is no primary for at least this time. */
const HELD_MS = 400

/** A primary and a standby that has everything that the primary has acknowledged. */
async function pair(ends: Ends) {
  const primary = await postgresServer({}, ends)
  const standby = await postgresServer({ follows: primary.port }, ends)
  const login = { host: '127.0.0.1', user: POSTGRES_USER, password: POSTGRES_PASSWORD }
  const admin = await connected({ ...login, port: primary.port }, ends)
  await admin.query("alter system set synchronous_standby_names = '*'")
  await admin.query('select pg_reload_conf()')
  while ((await one(admin, 'select count(*)::int from pg_stat_replication where sync_state = $1', ['sync'])) !== 1);
  // Acknowledged when the standby has it.
  await admin.query('create table orders (id uuid primary key default gen_random_uuid())')
  return { primary, standby, promoter: await connected({ ...login, port: standby.port }, ends) }
}

interface Failure {
  readonly code: string
  /** Whether it was sent before the primary died. */
  readonly wasInFlight: boolean
}

describe('a standby of PostgreSQL that is promoted under 200 writes a second', { timeout: 240_000 }, () => {
  for (const mode of ['Transaction', 'Disabled'] as const) {
    it(`costs only what is in flight, meets no write before, and has all that was acknowledged (pooling ${mode})`, (t) =>
      scope(async (ends) => {
        const { primary, standby, promoter } = await pair(ends)
        const { options, logged } = await pooledPostgres(
          {
            ports: [primary.port, standby.port],
            role: 'Primary',
            limits: { maxConnections: mode === 'Disabled' ? 2 * WRITERS : 4 },
            timeouts: { connect: '60s' },
            postgres: { pooling: { mode, ...(mode === 'Transaction' && { queueTimeout: '60s' }) } },
          },
          ends,
        )
        const acknowledged: string[] = []
        const failures: Failure[] = []
        const counts = Array<number>(WRITERS).fill(0)
        /** Whether each waits for an answer. */
        const waits = Array<boolean>(WRITERS).fill(false)
        let [isOver, isDead, lastBefore, firstBehind] = [false, false, 0, 0]
        const write = async (n: number): Promise<void> => {
          let client: pg.Client | null = null
          let farewell: pg.DatabaseError | null = null
          while (!isOver) {
            const wasInFlight = !isDead
            waits[n] = true
            try {
              if (client === null) {
                client = new pg.Client(options)
                farewell = null
                client.on('error', (error) => {
                  farewell ??= error as pg.DatabaseError
                })
                await client.connect()
              }
              acknowledged.push((await client.query('insert into orders default values returning id')).rows[0].id)
              counts[n]!++
              waits[n] = false
              if (!isDead) lastBefore = performance.now()
              else if (firstBehind === 0) firstBehind = performance.now()
              await new Promise((resolve) => setTimeout(resolve, PAUSE_MS))
            } catch (error) {
              // What came right behind an answer is told as an event; the next statement then fails without a word of the server's.
              const { code, message } = (farewell ?? error) as pg.DatabaseError
              failures.push({ code: code ?? message, wasInFlight })
              await client?.end().catch(() => {})
              client = null
            }
          }
          await client?.end().catch(() => {})
        }
        const startedAt = performance.now()
        const writers = counts.map((_, n) => write(n))
        const until = async (isReached: () => boolean): Promise<void> => {
          while (!isReached()) await new Promise((resolve) => setTimeout(resolve, 5))
        }
        await until(() => counts.every((count) => count >= 5))
        const rate = Math.round((acknowledged.length * 1000) / (performance.now() - startedAt))
        await primary.stop('SIGQUIT')
        isDead = true
        // Each has a write that is held, and is tried again: the standby takes connections, and no writes.
        await until(() => waits.every(Boolean))
        await new Promise((resolve) => setTimeout(resolve, HELD_MS))
        assert.ok(waits.every(Boolean))
        const before = [...counts]
        const promotedFrom = performance.now()
        await promoter.query('select pg_promote()')
        const promotionMs = performance.now() - promotedFrom
        await until(() => counts.every((count, n) => count >= before[n]! + 5))
        isOver = true
        await Promise.all(writers)
        const found = new Set((await promoter.query('select id from orders')).rows.map(({ id }) => id))
        const lost = acknowledged.filter((id) => !found.has(id))
        t.diagnostic(
          `${acknowledged.length} writes acknowledged at ${rate}/s before, ${lost.length} of them lost; ${failures.length} failed: ` +
            `${failures.map(({ code }) => code).join(' ')}; no write for ${Math.round(firstBehind - lastBefore)} ms, ` +
            `the promotion itself took ${Math.round(promotionMs)} ms`,
        )
        assert.deepEqual(lost, [])
        for (const { code } of failures) assert.match(code, /^(?:08|57|ECONNRESET|EPIPE|Connection terminated)/)
        // A connection of its own is lost by each application once; of shared ones, what was under way.
        assert.ok(failures.length <= (mode === 'Disabled' ? WRITERS : 4), JSON.stringify(failures))
        if (mode === 'Transaction')
          assert.ok(
            failures.every(({ wasInFlight }) => wasInFlight),
            JSON.stringify(failures),
          )
        assert.ok(firstBehind >= promotedFrom)
        assert.equal(JSON.stringify(logged).includes('25006'), false)
      })())
  }
})
