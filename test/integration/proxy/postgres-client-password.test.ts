import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import pg from 'pg'
import postgres from 'postgres'
import { endsOfEach } from '../../helpers/ends.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { MountedFiles, postgresProxy } from '../../helpers/postgres-proxy.ts'
import { TestClient } from '../../helpers/tcp.ts'

const mounts = new MountedFiles()
const lasting: (() => unknown)[] = []
const ends = endsOfEach()
let port = 0
before(async () => {
  mounts.put('secrets', 'db', 'password', POSTGRES_PASSWORD)
  mounts.put('secrets', 'app', 'password', 'pässword of the app\n')
  port = (await postgresServer({}, lasting)).port
})
after(async () => {
  for (const end of lasting.reverse()) await end()
  mounts.remove()
})

const ref = (name: string) => ({ secretKeyRef: { name, key: 'password' } })
const proxy = () =>
  postgresProxy(
    {
      upstreams: [
        {
          name: 'db',
          endpoints: [{ host: '127.0.0.1', port }],
          auth: { postgres: { username: POSTGRES_USER, password: ref('db'), clientPassword: ref('app') } },
        },
      ],
    },
    mounts,
    ends,
  )

async function who(options: pg.ClientConfig): Promise<string> {
  const client = new pg.Client(options)
  await client.connect()
  try {
    return (await client.query('select current_user::text as who')).rows[0].who
  } finally {
    await client.end()
  }
}

describe('auth.postgres.clientPassword', () => {
  it('lets in who knows it, as any user: node-postgres, postgres.js and psql', async () => {
    const { options } = await proxy()
    const password = 'pässword of the app'
    assert.equal(await who({ ...options, password }), POSTGRES_USER)
    const sql = postgres({ host: options.host, port: options.port, user: 'x', database: 'postgres', password, max: 1 })
    ends.push(() => sql.end())
    assert.equal((await sql`select current_user::text as who`)[0]?.['who'], POSTGRES_USER)
    const env = { PATH: process.env['PATH'], PGPASSWORD: password, PGCONNECT_TIMEOUT: '30' }
    const args = ['-h', options.host, '-p', `${options.port}`, '-U', 'x', '-d', 'postgres', '-XAtc', 'select 42']
    assert.equal((await promisify(execFile)('psql', args, { env })).stdout, '42\n')
  })

  it('refuses a wrong one, and that of the server, with 28P01 and a hint', async () => {
    const { options } = await proxy()
    for (const password of ['wrong', POSTGRES_PASSWORD, '']) {
      const error = await who({ ...options, password: password || ' ' }).then(
        () => assert.fail('let in'),
        (reason: pg.DatabaseError) => reason,
      )
      assert.equal(error.code, '28P01')
      assert.equal(error.message, 'password authentication failed for user "anybody"')
      assert.match(error.hint ?? '', /auth\.postgres\.clientPassword \(Secret 'app', key 'password'\)/)
    }
  })

  it('is asked for anew of each connection when it changes', async () => {
    const { options, compiler } = await proxy()
    mounts.put('secrets', 'app', 'password', 'another')
    compiler.refresh()
    assert.equal(await who({ ...options, password: 'another' }), POSTGRES_USER)
    await assert.rejects(who({ ...options, password: 'pässword of the app' }), { code: '28P01' })
    mounts.put('secrets', 'app', 'password', 'pässword of the app\n')
  })

  it('lets nobody past who leaves out the proof, or sends it in another form', async () => {
    const { port: own } = await proxy()
    const startup = Buffer.from('\0\0\0\0\0\x03\0\0user\0a\0database\0postgres\0\0', 'latin1')
    startup[3] = startup.length
    const query = Buffer.from('Q\0\0\0\x0dselect 1\0', 'latin1')
    const cleartext = Buffer.from('p\0\0\0\x18pässword of the app\0', 'latin1')
    for (const bytes of [query, cleartext, Buffer.from('p\x7f\xff\xff\xff', 'latin1')]) {
      const client = new TestClient({ port: own })
      ends.push(() => client.socket.destroy())
      client.write(Buffer.concat([startup, bytes]))
      const answer = await client.ended()
      assert.match(answer, /^R\0\0\0\x17\0\0\0\nSCRAM-SHA-256\0\0E.*C08P01/s)
      assert.doesNotMatch(answer, /Z\0\0\0\x05/)
    }
  })

  it('is proved byte by byte too', async () => {
    const { Scram } = await import('../../../proxy/protocol/postgres/scram.ts')
    const { port: own } = await proxy()
    const client = new TestClient({ port: own })
    ends.push(() => client.socket.destroy())
    client.socket.setNoDelay(true)
    const slowly = (bytes: Buffer) => {
      for (const byte of bytes) client.write(Buffer.from([byte]))
    }
    const message = (...parts: Buffer[]) => {
      const body = Buffer.concat(parts)
      const head = Buffer.from([0x70, 0, 0, 0, 0])
      head.writeInt32BE(4 + body.length, 1)
      return Buffer.concat([head, body])
    }
    const startup = Buffer.from('\0\0\0\0\0\x03\0\0user\0a\0database\0postgres\0\0', 'latin1')
    startup[3] = startup.length
    slowly(startup)
    await client.read(24)
    const scram = new Scram('pässword of the app', null)
    const first = scram.first()
    slowly(message(Buffer.from('SCRAM-SHA-256\0'), Buffer.from([0, 0, 0, first.length]), first))
    const asked = (await client.read(24 + 9 + 84)).slice(24 + 9)
    slowly(message(await scram.final(Buffer.from(asked))))
    client.write(Buffer.from('X\0\0\0\x04', 'latin1')).end()
    assert.match(await client.ended(), /v=[A-Za-z0-9+/=]+R\0\0\0\x08\0\0\0\0.*Z\0\0\0\x05I/s)
  })
})
