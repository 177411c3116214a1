/** The examples of PostgreSQL as a person runs them, before real servers; hosts, ports and what is mounted are stand-ins. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { promisify } from 'node:util'
import type { Ends } from '../../helpers/ends.ts'
import { Pki } from '../../helpers/pki.ts'
import { freePort } from '../../helpers/ports.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, type PostgresServer, postgresServer } from '../../helpers/postgres.ts'
import { connected, one, scope } from '../../helpers/postgres-client.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'

const EXAMPLES = join(import.meta.dirname, '../../../examples')
const execute = promisify(execFile)

const asAdmin = ({ port }: PostgresServer) => ({
  host: '127.0.0.1',
  port,
  user: POSTGRES_USER,
  password: POSTGRES_PASSWORD,
  database: 'postgres',
})

/** A server whose user `orders` has this password, and a table that says which one it is. */
async function ordersServer(password: string, ends: Ends, tls?: Parameters<typeof postgresServer>[0]['tls']) {
  const server = await postgresServer(tls ? { tls, hba: ['hostssl all all 127.0.0.1/32 scram-sha-256'] } : {}, ends)
  const admin = await connected({ ...asAdmin(server), ...(tls && { ssl: { rejectUnauthorized: false } }) }, ends)
  await admin.query(`create role orders login password '${password}'`)
  await admin.query('create database orders owner orders')
  return { port: server.port, admin }
}

/** `ambassador run` with the file of an example, in which the place of its server is a port of this machine. */
async function run(name: string, place: string, server: number, mounts: Readonly<Record<string, string>>, ends: Ends) {
  const root = mkdtempSync(join(tmpdir(), 'ambassador-example-'))
  ends.push(() => rmSync(root, { recursive: true }))
  for (const [path, text] of Object.entries(mounts)) {
    mkdirSync(join(root, path, '..'), { recursive: true })
    writeFileSync(join(root, path), text)
  }
  const text = readFileSync(join(EXAMPLES, name, 'ambassador.yaml'), 'utf8')
  assert.ok(text.includes(place), `${name} has no '${place}'`)
  const port = await freePort()
  const file = join(root, 'ambassador.yaml')
  const here = text.replace(place, `host: 127.0.0.1, port: ${server}`)
  writeFileSync(file, here.replace(/listen: \{ port: \d+, hostnames: [^}]*\}/, `listen: { port: ${port} }`))
  const own = ['--telemetry-port', `${await freePort()}`, '--admin-port', `${await freePort()}`, '--secrets', root]
  const proxy = await ProxyProcess.start({}, ['cli/main.ts', 'run', '-f', file, ...own])
  ends.push(() => proxy.end())
  await proxy.ready()
  return { host: '127.0.0.1', port, user: 'anybody', database: 'orders' }
}

describe('the example', () => {
  it(
    'staging-production serves one application by one file, with the password of where it runs',
    scope(async (ends) => {
      for (const stage of ['staging', 'production']) {
        const { port, admin } = await ordersServer(`${stage} horse`, ends)
        await admin.query(`alter role orders set application_name = '${stage}'`)
        const secrets = { 'orders-db/password': `${stage} horse` }
        const options = await run('staging-production', 'host: orders-db, port: 5432', port, secrets, ends)
        const client = await connected(options, ends)
        assert.equal(await one(client, 'show application_name'), stage)
        assert.equal(await one(client, 'select current_user::text'), 'orders')
      }
    }),
  )

  it(
    'pgbouncer serves pgbench over TLS, with more clients than connections and none failed',
    scope(async (ends) => {
      const pki = new Pki()
      ends.push(() => pki.remove())
      const authority = pki.authority()
      const { port, admin } = await ordersServer('correct', ends, authority.issue({ names: ['127.0.0.1'] }))
      const mounts = { 'orders-db/password': 'correct', 'orders-ca/ca.crt': authority.cert }
      const options = await run('pgbouncer', 'host: orders.example.com, port: 5432', port, mounts, ends)
      const where = ['-h', options.host, '-p', String(options.port), '-U', options.user]
      const env = { PATH: process.env['PATH'], PGSSLMODE: 'disable' }
      await execute('pgbench', [...where, '-i', '-q', options.database], { env, timeout: 60_000 })
      // Not prepared: a thread of pgbench that prepares waits for the answer, and keeps its other clients from ending their transactions.
      const load = ['-n', '-M', 'extended', '-c', '40', '-j', '2', '-t', '5']
      const { stdout } = await execute('pgbench', [...where, ...load, options.database], { env, timeout: 60_000 })
      assert.match(stdout, /number of transactions actually processed: 200\/200/)
      assert.match(stdout, /number of failed transactions: 0/)
      const { rows } = await admin.query(
        "select count(*)::int as n, bool_and(ssl) as tls from pg_stat_activity join pg_stat_ssl using (pid) where usename = 'orders'",
      )
      const [{ n, tls }] = rows
      assert.ok(n > 0 && n <= 20, `${n} connections to the server`)
      assert.equal(tls, true)
    }),
  )
})
