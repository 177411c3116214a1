/** A pooled PostgreSQL primary that moves by its DNS records while applications write: nobody may notice. */
import assert from 'node:assert/strict'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { setTimeout as sleep } from 'node:timers/promises'
import type { DatabaseError } from 'pg'
import { Resolver } from '../../../proxy/upstream/dns/resolver.ts'
import { DnsServer } from '../../helpers/dns-server.ts'
import type { Ends } from '../../helpers/ends.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { connected, one, scope } from '../../helpers/postgres-client.ts'
import { MountedFiles, postgresProxy } from '../../helpers/postgres-proxy.ts'

const SRV_NAME = '_postgres._tcp.example'
const WRITERS = 8
const lasting: Ends = []
const ports: number[] = []

before(async () => {
  for (let n = 0; n < 2; n++) ports.push((await postgresServer({}, lasting)).port)
})

after(async () => {
  for (const end of lasting.reverse()) await end()
})

const direct = (port: number) => ({ host: '127.0.0.1', port, user: POSTGRES_USER, password: POSTGRES_PASSWORD })

/** A pooled proxy whose servers are those that the SRV records name. */
async function srvProxy(ends: Ends, maxConnections: number, drainDeadline?: string) {
  const dns = await DnsServer.start()
  ends.push(() => dns.close())
  const dir = mkdtempSync(join(tmpdir(), 'ambassador-postgres-move-'))
  ends.push(() => rmSync(dir, { recursive: true }))
  const resolvConf = join(dir, 'resolv.conf')
  writeFileSync(resolvConf, 'nameserver 127.0.0.1\n')
  const resolver = new Resolver({ resolvConf, hosts: '/nonexistent', port: dns.port, timeoutMs: 500 })
  dns.addresses('db.example', ['127.0.0.1'], 1)
  const name = (port: number) => dns.services(SRV_NAME, [[0, 1, port, 'db.example']], 1)
  name(ports[0]!)
  const files = new MountedFiles()
  ends.push(() => files.remove())
  files.put('secrets', 'db', 'password', POSTGRES_PASSWORD)
  const upstream = {
    name: 'primary',
    srv: { name: SRV_NAME },
    limits: { maxConnections },
    ...(drainDeadline && { drainDeadline }),
    auth: { postgres: { username: POSTGRES_USER, password: { secretKeyRef: { name: 'db', key: 'password' } } } },
  }
  const proxy = await postgresProxy(
    { upstreams: [upstream], postgres: { pooling: { mode: 'Transaction' } } },
    files,
    ends,
    resolver,
  )
  return { proxy, name }
}

describe('a pooled primary that its SRV records move', { timeout: 120_000 }, () => {
  it(
    'moves with no failed transaction, every row that was committed there, and no connection left at the old server',
    scope(async (ends) => {
      const { proxy, name } = await srvProxy(ends, 4)
      const servers = []
      for (const port of ports) {
        const server = await connected(direct(port), ends)
        await server.query('create table writes (client int, n int)')
        servers.push(server)
      }
      const [from, to] = servers as [(typeof servers)[0], (typeof servers)[0]]
      const count = (server: typeof from) => one(server, 'select count(*)::int from writes') as Promise<number>
      const failures: unknown[] = []
      const committed = new Array<number>(WRITERS).fill(0)
      let isOver = false
      const writer = async (n: number) => {
        const client = await connected(proxy.options, ends)
        while (!isOver) {
          try {
            await client.query('begin')
            await client.query('insert into writes values ($1, $2)', [n, committed[n]])
            await client.query('commit')
            committed[n]!++
          } catch (error) {
            failures.push(error)
            return
          }
        }
      }
      const writers = Array.from({ length: WRITERS }, (_, n) => writer(n))
      const everybodyWrote = async (more: number) => {
        const before = [...committed]
        while (failures.length === 0 && !committed.every((n, at) => n >= before[at]! + more)) await sleep(5)
      }
      await everybodyWrote(10)
      assert.equal(await count(to), 0)
      name(ports[1]!)
      // Free connections close when the record changes, the others when their transactions end: under load, with nobody leaving.
      const others = `select count(*)::int from pg_stat_activity
        where backend_type = 'client backend' and pid <> pg_backend_pid()`
      while (failures.length === 0 && ((await count(to)) === 0 || (await one(from, others)) !== 0)) await sleep(20)
      const stayed = await count(from)
      await everybodyWrote(10)
      isOver = true
      await Promise.all(writers)
      assert.deepEqual(failures, [])
      assert.equal(await count(from), stayed)
      const sum = committed.reduce((total, n) => total + n, 0)
      assert.equal(stayed + (await count(to)), sum)
      assert.equal(await one(from, others), 0)
      assert.deepEqual(proxy.troubles, [])
    }),
  )

  it(
    'lets a transaction that is open at the old server go on to its end there, and begins the next at the new one',
    scope(async (ends) => {
      const { proxy, name } = await srvProxy(ends, 2)
      const whereabouts = "select current_setting('port')::int"
      const [a, b] = [await connected(proxy.options, ends), await connected(proxy.options, ends)]
      await a.query('begin')
      assert.equal(await one(a, whereabouts), ports[0])
      name(ports[1]!)
      while ((await one(b, whereabouts)) !== ports[1]) await sleep(20)
      assert.equal(await one(a, whereabouts), ports[0])
      await a.query('commit')
      assert.equal(await one(a, whereabouts), ports[1])
      assert.deepEqual(proxy.troubles, [])
    }),
  )

  it(
    'ends a transaction that is open at the old server after drainDeadline, tells its client why, and rolls it back',
    scope(async (ends) => {
      const { proxy, name } = await srvProxy(ends, 1, '100ms')
      const admin = await connected(direct(ports[0]!), ends)
      const a = await connected(proxy.options, ends)
      const ended = new Promise<DatabaseError>((resolve) => a.once('error', resolve as (error: Error) => void))
      await a.query('begin')
      const pid = await one(a, 'select pg_backend_pid()')
      name(ports[1]!)
      const { code, detail, message } = await ended
      assert.equal(code, '08006')
      assert.match(`${message} ${detail}`, /its endpoint left discovery 100 ms ago, which is its drainDeadline/)
      const left = () => one(admin, 'select count(*)::int from pg_stat_activity where pid = $1', [pid])
      while ((await left()) !== 0) await sleep(20)
      const b = await connected(proxy.options, ends)
      assert.equal(await one(b, "select current_setting('port')::int"), ports[1])
    }),
  )
})
