/** Somebody between the sidecar and a PostgreSQL who has a certificate that the sidecar trusts: the password is bound to the TLS of the real server. */
import assert from 'node:assert/strict'
import { connect } from 'node:net'
import { after, before, describe, it } from 'node:test'
import { createServer, connect as tlsConnect } from 'node:tls'
import type { Ends } from '../../helpers/ends.ts'
import { Pki } from '../../helpers/pki.ts'
import { pooledPostgres } from '../../helpers/pooled-postgres.ts'
import { postgresServer } from '../../helpers/postgres.ts'
import { connected, one, refusal, scope } from '../../helpers/postgres-client.ts'
import { TestServer, tcpServer } from '../../helpers/tcp.ts'

const pki = new Pki()
const authority = pki.authority()
const lasting: Ends = []
let port = 0
const SSL_REQUEST = Buffer.from([0, 0, 0, 8, 0x04, 0xd2, 0x16, 0x2f])

before(async () => {
  const hba = ['hostssl all all 127.0.0.1/32 scram-sha-256']
  port = (await postgresServer({ tls: authority.issue({ names: ['127.0.0.1'] }), hba }, lasting)).port
})
after(async () => {
  for (const end of lasting.reverse()) await end()
  pki.remove()
})

/**
 * Ends the TLS of whoever connects with a certificate of its own, and passes all on in TLS of its own.
 * @param onServer what the server says, which it may change
 */
async function hop(ends: Ends, onServer: (bytes: Buffer) => Buffer) {
  const { cert, key } = authority.issue({ names: ['127.0.0.1'] })
  const inside = await new TestServer(
    createServer({ cert, key }, (client) => {
      const raw = connect(port, '127.0.0.1', () => raw.write(SSL_REQUEST))
      for (const each of [client, raw]) each.on('error', () => {})
      raw.once('data', () => {
        const server = tlsConnect({ socket: raw, rejectUnauthorized: false })
        server.on('error', () => {})
        client.pipe(server)
        server.on('data', (bytes: Buffer) => client.write(onServer(bytes)))
        server.on('end', () => client.end())
      })
    }),
  ).listen()
  ends.push(() => inside.close())
  const front = await tcpServer((socket) => {
    socket.on('error', () => {})
    socket.once('data', () => {
      socket.pause()
      const inner = connect(inside.port, '127.0.0.1', () => {
        socket.write('S')
        socket.pipe(inner).pipe(socket)
      })
      inner.on('error', () => {})
    })
  })
  ends.push(() => front.close())
  return front.port
}

describe('somebody with a trusted certificate before a PostgreSQL', () => {
  it(
    'is found out by the binding of the login to the TLS channel, whom a login without it would let through',
    scope(async (ends) => {
      const straight = await pooledPostgres({ ports: [port], ca: authority.cert }, ends)
      assert.equal(await one(await connected(straight.options, ends), 'select 1'), 1)
      let offered = ''
      const bound = await hop(ends, (bytes) => {
        offered += bytes.toString('latin1')
        return bytes
      })
      const error = await refusal((await pooledPostgres({ ports: [bound], ca: authority.cert }, ends)).options)
      assert.match(offered, /SCRAM-SHA-256-PLUS/)
      assert.match(error.message, /channel binding/i)
      assert.match(error.code ?? '', /^28/)
    }),
  )

  it(
    'is found out when it takes the binding out of what the server offers',
    scope(async (ends) => {
      // Of the same length as the name that it replaces, so that the message is as long as it says.
      const stripped = await hop(ends, (bytes) =>
        Buffer.from(bytes.toString('latin1').replace('SCRAM-SHA-256-PLUS\0', 'SCRAM-SHA-256-NONE\0'), 'latin1'),
      )
      const error = await refusal((await pooledPostgres({ ports: [stripped], ca: authority.cert }, ends)).options)
      assert.match(error.code ?? '', /^28/)
      assert.match(error.message, /channel binding/i)
    }),
  )
})
