import assert from 'node:assert/strict'
import { createHash } from 'node:crypto'
import { connect } from 'node:net'
import { after, before, describe, it } from 'node:test'
import { createServer as createTlsServer } from 'node:tls'
import pg from 'pg'
import postgres from 'postgres'
import type { Ends } from '../../helpers/ends.ts'
import { type Leaf, Pki } from '../../helpers/pki.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { connected, refusal, scope } from '../../helpers/postgres-client.ts'
import { MountedFiles, type PostgresSpec, postgresProxy } from '../../helpers/postgres-proxy.ts'
import { closedPort, TestClient, TestServer, tcpServer } from '../../helpers/tcp.ts'

const pki = new Pki()
const mounts = new MountedFiles()
const lasting: (() => unknown)[] = []
let leaf: Leaf
const md5Hash = `md5${createHash('md5').update('oldpasswordold').digest('hex')}`
let plain = 0
let encrypted = 0

before(async () => {
  const authority = pki.authority()
  mounts.put('secrets', 'db', 'password', `${POSTGRES_PASSWORD}\n`)
  mounts.put('secrets', 'wrong', 'password', 'battery staple')
  mounts.put('secrets', 'old', 'password', 'oldpassword')
  mounts.put('configMaps', 'ca', 'ca.crt', authority.cert)
  const hba = ['host all old 127.0.0.1/32 md5', 'host all all 127.0.0.1/32 scram-sha-256']
  plain = (await postgresServer({ hba }, lasting)).port
  const hbaTls = [
    'hostssl all old 127.0.0.1/32 password',
    'hostssl all all 127.0.0.1/32 scram-sha-256',
    'hostnossl all old 127.0.0.1/32 password',
  ]
  leaf = authority.issue({ names: ['127.0.0.1'] })
  encrypted = (await postgresServer({ tls: leaf, hba: hbaTls }, lasting)).port
  for (const [port, ssl] of [
    [plain, false],
    [encrypted, { ca: authority.cert }],
  ] as const) {
    const client = new pg.Client({ host: '127.0.0.1', port, ssl, user: POSTGRES_USER, password: POSTGRES_PASSWORD })
    await client.connect()
    await client.query(`create role old login password '${md5Hash}'`)
    await client.end()
  }
})

after(async () => {
  for (const end of lasting) await end()
  pki.remove()
  mounts.remove()
})

interface Setup {
  readonly port: number
  /** Of more endpoints. */
  readonly others?: readonly number[]
  readonly role?: 'Primary' | 'Replica'
  readonly negotiation?: 'Direct'
  readonly tls?: boolean
  readonly user?: string
  readonly secret?: string
}

/** A listener as the operator renders it, for an application that knows no password. */
function proxy(setup: Setup, ends: Ends) {
  const upstream = {
    name: 'primary',
    endpoints: [setup.port, ...(setup.others ?? [])].map((port, priority) => ({ host: '127.0.0.1', port, priority })),
    ...(setup.role && { role: setup.role }),
    ...(setup.tls && {
      tls: {
        ca: { configMapKeyRef: { name: 'ca', key: 'ca.crt' } },
        ...(setup.negotiation && { negotiation: setup.negotiation }),
      },
    }),
    auth: {
      postgres: {
        username: setup.user ?? POSTGRES_USER,
        password: { secretKeyRef: { name: setup.secret ?? 'db', key: 'password' } },
      },
    },
  }
  return postgresProxy({ upstreams: [upstream] as unknown as PostgresSpec['upstreams'] }, mounts, ends)
}

const WHO = `select current_user::text as who, coalesce((select ssl from pg_stat_ssl where pid = pg_backend_pid()), false) as tls`

describe('PostgreSQL', () => {
  for (const [title, setup] of [
    ['SCRAM', { user: POSTGRES_USER, secret: 'db' }],
    ['MD5', { user: 'old', secret: 'old' }],
  ] as const) {
    it(
      `logs in by ${title} for an application without a password`,
      scope(async (ends) => {
        const { options } = await proxy({ port: plain, ...setup }, ends)
        const client = await connected(options, ends)
        assert.deepEqual((await client.query(WHO)).rows, [{ who: setup.user, tls: false }])
      }),
    )
  }

  for (const [title, setup] of [
    ['SCRAM', { user: POSTGRES_USER, secret: 'db' }],
    ['a password in clear text', { user: 'old', secret: 'old' }],
  ] as const) {
    it(
      `logs in by ${title} inside TLS that begins with an SSLRequest`,
      scope(async (ends) => {
        const { options } = await proxy({ port: encrypted, tls: true, ...setup }, ends)
        const client = await connected(options, ends)
        assert.deepEqual((await client.query(WHO)).rows, [{ who: setup.user, tls: true }])
      }),
    )
  }

  it(
    'does not send a password in clear text without TLS',
    scope(async (ends) => {
      const { options } = await proxy({ port: encrypted, user: 'old', secret: 'old' }, ends)
      const error = await refusal(options)
      assert.equal(error.code, '08006')
      assert.match(error.message, /asks for the password in clear text on a connection without TLS: add tls/)
    }),
  )

  it(
    'answers a request for TLS with N, and keeps startup parameters',
    scope(async (ends) => {
      const { port, options } = await proxy({ port: encrypted, tls: true }, ends)
      const asked = new TestClient({ port })
      ends.push(() => asked.socket.destroy())
      asked.write(Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f]))
      assert.equal(await asked.read(1), 'N')
      asked.write(Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x30]))
      assert.equal(await asked.read(2), 'NN')
      const given = { ...options, application_name: 'shop', options: '-c statement_timeout=4321' }
      const client = await connected(given, ends)
      const { rows } = await client.query(
        `select current_setting('application_name') as name, current_setting('statement_timeout') as timeout`,
      )
      assert.deepEqual(rows, [{ name: 'shop', timeout: '4321ms' }])
    }),
  )

  it(
    'carries 8 MB each way, prepared statements and LISTEN with postgres.js and node-postgres',
    scope(async (ends) => {
      const { options } = await proxy({ port: encrypted, tls: true }, ends)
      const sql = postgres({ host: options.host, port: options.port, user: 'x', database: 'postgres', max: 2 })
      ends.push(() => sql.end())
      const large = 'äb'.repeat(4 << 20)
      const [row] = await sql`select ${large}::text as echo, length(${large}::text) as length`
      assert.equal(row?.['length'], large.length)
      assert.equal(row?.['echo'] === large, true)
      await sql`create temporary table if not exists unused (id int)`
      const heard = new Promise<string>((resolve) => {
        void sql.listen('news', resolve, () => sql.notify('news', 'hello'))
      })
      assert.equal(await heard, 'hello')
      const client = await connected(options, ends)
      const named = { name: 'sum', text: 'select $1::int + $2::int as sum' }
      for (const [a, b] of [
        [1, 2],
        [3, 4],
      ] as const) {
        assert.equal((await client.query({ ...named, values: [a, b] })).rows[0].sum, a + b)
      }
    }),
  )

  it(
    'hands the SQLSTATE of a refused login on, with a hint where to look',
    scope(async (ends) => {
      const { options } = await proxy({ port: plain, secret: 'wrong' }, ends)
      const error = await refusal(options)
      assert.equal(error.code, '28P01')
      assert.match(error.hint ?? '', /ambassador: auth_unavailable: .*Secret 'wrong', key 'password'/)
      assert.doesNotMatch(JSON.stringify(error), /battery staple/)
    }),
  )

  it(
    'hands the SQLSTATE of a database that does not exist on as it is',
    scope(async (ends) => {
      const { options } = await proxy({ port: plain }, ends)
      const error = await refusal({ ...options, database: 'nowhere' })
      assert.equal(error.code, '3D000')
      assert.equal(error.hint, undefined)
    }),
  )

  it(
    'says with 08001 that the server is down, does not offer TLS, or is not PostgreSQL',
    scope(async (ends) => {
      const down = await proxy({ port: await closedPort() }, ends)
      const refused = await refusal(down.options)
      assert.deepEqual([refused.code, refused.hint], ['08001', 'ambassador: connect_refused'])
      const withoutTls = await refusal((await proxy({ port: plain, tls: true }, ends)).options)
      assert.equal(withoutTls.code, '08001')
      assert.match(withoutTls.message, /does not offer TLS/)
      const web = await tcpServer((socket) => socket.end('HTTP/1.1 400 Bad Request\r\n\r\n'))
      ends.push(() => web.close())
      const other = await refusal((await proxy({ port: web.port }, ends)).options)
      assert.match(other.message, /does not speak the protocol of PostgreSQL/)
    }),
  )

  it(
    'refuses a server that sends bytes behind the S before TLS begins',
    scope(async (ends) => {
      const liar = await tcpServer((socket) => socket.once('data', () => socket.write('SZ')))
      ends.push(() => liar.close())
      const { options } = await proxy({ port: liar.port, tls: true }, ends)
      const error = await refusal(options)
      assert.equal(error.hint, 'ambassador: tls_verify_failed')
      assert.match(error.message, /somebody may be between/)
    }),
  )

  it(
    'refuses garbage and a startup packet of 10 MB with 08P01',
    scope(async (ends) => {
      const { port } = await proxy({ port: plain }, ends)
      for (const bytes of [Buffer.from('GET / HTTP/1.1\r\n\r\n'), Buffer.from([0, 0x98, 0x96, 0x80, 0, 3, 0, 0])]) {
        const client = new TestClient({ port })
        ends.push(() => client.socket.destroy())
        client.write(bytes)
        assert.match(await client.ended(), /C08P01/)
      }
    }),
  )

  it(
    'takes a startup packet in single bytes',
    scope(async (ends) => {
      const { port } = await proxy({ port: plain }, ends)
      const client = new TestClient({ port })
      ends.push(() => client.socket.destroy())
      client.socket.setNoDelay(true)
      const text = Buffer.from('user\0a\0database\0postgres\0\0')
      const packet = Buffer.concat([Buffer.from([0, 0, 0, 8 + text.length, 0, 3, 0, 0]), text])
      for (const byte of packet) client.write(Buffer.from([byte]))
      const query = Buffer.from('select 42\0')
      client.write(Buffer.concat([Buffer.from([0x51, 0, 0, 0, 4 + query.length]), query]))
      client.end()
      assert.match(await client.ended(), /42C\0\0\0\rSELECT 1\0Z\0\0\0\x05I$/)
    }),
  )

  it(
    'cancels the query of the connection that asks, inside TLS too',
    scope(async (ends) => {
      const { options } = await proxy({ port: encrypted, tls: true }, ends)
      const sql = postgres({ host: options.host, port: options.port, user: 'x', database: 'postgres', max: 2 })
      ends.push(() => sql.end())
      const other = sql`select pg_sleep(0.5), 1 as one`.execute()
      const sleep = sql`select pg_sleep(60)`.execute()
      const ended = sleep.then(
        () => assert.fail('not cancelled'),
        (error: postgres.PostgresError) => error.code,
      )
      const watcher = await connected(options, ends)
      for (;;) {
        const { rows } = await watcher.query(
          `select 1 from pg_stat_activity where query like '%pg_sleep(60)%' and pid <> pg_backend_pid()`,
        )
        if (rows.length > 0) break
      }
      sleep.cancel()
      assert.equal(await ended, '57014')
      assert.equal((await other)[0]?.['one'], 1)
    }),
  )

  it(
    'begins TLS with the first byte where it is told so (a TLS server before a real PostgreSQL stands for one of version 17)',
    scope(async (ends) => {
      for (const [protocol, expected] of [
        ['postgresql', null],
        ['http/1.1', 'ambassador: upstream_reset'],
        [null, 'ambassador: tls_verify_failed'],
      ] as const) {
        const front = createTlsServer(
          { cert: leaf.cert, key: leaf.key, ...(protocol && { ALPNProtocols: [protocol] }) },
          (socket) => {
            const inner = connect(plain, '127.0.0.1')
            for (const each of [socket, inner]) each.on('error', () => {})
            socket.pipe(inner).pipe(socket)
          },
        )
        const server = await new TestServer(front).listen()
        ends.push(() => server.close())
        const { options } = await proxy({ port: server.port, tls: true, negotiation: 'Direct' }, ends)
        if (expected !== null) assert.equal((await refusal(options)).hint, expected)
        else assert.equal((await (await connected(options, ends)).query('select 1 as one')).rows[0].one, 1)
      }
    }),
  )

  it(
    'passes over a server that has not the role, until it is promoted',
    scope(async (ends) => {
      const { port: primary } = await postgresServer({}, ends)
      const { port: standby } = await postgresServer({ follows: primary }, ends)
      const recovery = async (options: pg.ClientConfig): Promise<boolean> => {
        const client = await connected(options, ends)
        return (await client.query('select pg_is_in_recovery() as is')).rows[0].is
      }
      const writer = await proxy({ port: standby, others: [primary], role: 'Primary' }, ends)
      const reader = await proxy({ port: primary, others: [standby], role: 'Replica' }, ends)
      for (let n = 0; n < 3; n++) {
        assert.equal(await recovery(writer.options), false)
        assert.equal(await recovery(reader.options), true)
      }
      const wrong = await proxy({ port: standby, role: 'Primary' }, ends)
      const error = await refusal(wrong.options)
      assert.deepEqual([error.code, error.hint], ['57P03', 'ambassador: no_healthy_endpoint'])
      assert.match(error.message, /is a standby .* and the role of the upstream is Primary/)
      const admin = new pg.Client({
        port: standby,
        host: '127.0.0.1',
        user: POSTGRES_USER,
        password: POSTGRES_PASSWORD,
      })
      await admin.connect()
      await admin.query('select pg_promote()')
      await admin.end()
      assert.equal(await recovery(wrong.options), false)
    }),
  )
})
