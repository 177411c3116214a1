/** What servers from 17 and 18 on speak, before a real one of version 18. */
import assert from 'node:assert/strict'
import { execFile } from 'node:child_process'
import { after, before, describe, it } from 'node:test'
import { promisify } from 'node:util'
import pg from 'pg'
import { endsOfEach } from '../../helpers/ends.ts'
import { Pki } from '../../helpers/pki.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { MountedFiles, postgresProxy } from '../../helpers/postgres-proxy.ts'
import { TestClient } from '../../helpers/tcp.ts'

const pki = new Pki()
const mounts = new MountedFiles()
const lasting: (() => unknown)[] = []
const ends = endsOfEach()
let port = 0
before(async () => {
  const authority = pki.authority()
  mounts.put('secrets', 'db', 'password', POSTGRES_PASSWORD)
  mounts.put('configMaps', 'ca', 'ca.crt', authority.cert)
  const hba = ['hostssl all all 127.0.0.1/32 scram-sha-256']
  const tls = authority.issue({ names: ['127.0.0.1'] })
  port = (await postgresServer({ version: 'newest', tls, hba }, lasting)).port
})
after(async () => {
  for (const end of lasting.reverse()) await end()
  pki.remove()
  mounts.remove()
})

const proxy = (negotiation: 'SSLRequest' | 'Direct') =>
  postgresProxy(
    {
      upstreams: [
        {
          name: 'db',
          endpoints: [{ host: '127.0.0.1', port }],
          tls: { ca: { configMapKeyRef: { name: 'ca', key: 'ca.crt' } }, negotiation },
          auth: {
            postgres: {
              username: POSTGRES_USER,
              password: { secretKeyRef: { name: 'db', key: 'password' } },
            },
          },
        },
      ],
    },
    mounts,
    ends,
  )

describe('PostgreSQL 18', () => {
  for (const negotiation of ['SSLRequest', 'Direct'] as const) {
    it(`lets node-postgres and psql in over TLS that begins by ${negotiation}`, async () => {
      const { options } = await proxy(negotiation)
      const client = new pg.Client(options)
      await client.connect()
      ends.push(() => client.end())
      const { rows } = await client.query(
        `select current_setting('server_version_num')::int / 10000 as version, ssl from pg_stat_ssl where pid = pg_backend_pid()`,
      )
      assert.deepEqual(rows, [{ version: 18, ssl: true }])
      const args = ['-h', options.host, '-p', `${options.port}`, '-U', 'x', '-d', 'postgres', '-XAtc', 'select 42']
      const { stdout } = await promisify(execFile)('psql', args, { env: { PATH: process.env['PATH'] } })
      assert.equal(stdout, '42\n')
    })
  }

  it('speaks protocol 3.2 with an application that does: its longer key cancels', async () => {
    const { port: own } = await proxy('Direct')
    const client = new TestClient({ port: own })
    ends.push(() => client.socket.destroy())
    const startup = Buffer.from('\0\0\0\0\0\x03\0\x02user\0a\0database\0postgres\0\0', 'latin1')
    startup[3] = startup.length
    client.write(startup)
    let text = ''
    while (!text.endsWith('Z\0\0\0\x05I')) text = await client.read(text.length + 1)
    const at = text.indexOf('K\0\0')
    const length = Buffer.from(text, 'latin1').readInt32BE(at + 1)
    assert.ok(length > 12, `a key of ${length - 8} bytes is one of protocol 3.0`)
    const key = Buffer.from(text, 'latin1').subarray(at + 5, at + 1 + length)
    const query = Buffer.from('select pg_sleep(60)\0')
    client.write(Buffer.concat([Buffer.from([0x51, 0, 0, 0, 4 + query.length]), query]))
    const before = text.length
    const cancel = async (): Promise<void> => {
      const asking = new TestClient({ port: own })
      ends.push(() => asking.socket.destroy())
      const head = Buffer.from([0, 0, 0, 12 - 4 + key.length, 0x04, 0xd2, 0x16, 0x2e])
      asking.write(Buffer.concat([head, key]))
      await asking.ended()
    }
    const answered = client.read(before + 40)
    let isOver = false
    void answered.then(() => {
      isOver = true
    })
    // The server hears of a cancel that comes before its query, and forgets it.
    while (!isOver) {
      await cancel()
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    await client.read(before + 100)
    assert.match(client.received.toString('latin1', before), /E\0\0\0.*C57014/s)
  })
})
