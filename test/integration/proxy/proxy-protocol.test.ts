/** The header of the PROXY protocol as HAProxy and nginx read it: every version, protocol and way to an endpoint. */
import assert from 'node:assert/strict'
import { connect, isIP } from 'node:net'
import { after, before, describe, it } from 'node:test'
import { Redis } from 'ioredis'
import { HttpTestClient } from '../../helpers/http-client.ts'
import { Pki } from '../../helpers/pki.ts'
import { freePort } from '../../helpers/ports.ts'
import { POSTGRES_PASSWORD, POSTGRES_USER, postgresServer } from '../../helpers/postgres.ts'
import { connected, one, scope } from '../../helpers/postgres-client.ts'
import { MountedFiles, type PostgresSpec, postgresProxy } from '../../helpers/postgres-proxy.ts'
import { type Reader, type Relay, startHaproxy, startNginx, type Way } from '../../helpers/proxy-protocol-readers.ts'
import { RedisServer, redisProxy } from '../../helpers/redis.ts'
import { renderedProxy } from '../../helpers/rendered-proxy.ts'
import { type TestServer, tcpServer } from '../../helpers/tcp.ts'
import { tcpProxy } from '../../helpers/tcp-proxy.ts'

type HttpSpec = Parameters<typeof renderedProxy>[0]

const VERSIONS = ['V1', 'V2'] as const
const WAYS: readonly Way[] = ['v4', 'v6', 'tls', 'unix']

const pki = new Pki()
const authority = pki.authority()
const leaf = authority.issue()
const mounts = new MountedFiles()
const lasting: (() => unknown)[] = []
let readers: readonly Reader[]
/** Ports of HAProxy, with a server of each protocol behind them. */
const relayed = { redis: 0, redisTls: 0, postgres: 0 }
/** What stands between HAProxy and these servers: who comes there has sent a header that HAProxy has read. */
let behind: Readonly<Record<'redis' | 'postgres', TestServer>>
const secrets = mounts.dirs.secrets

async function counted(port: number): Promise<TestServer> {
  const server = await tcpServer((socket) => {
    const onward = connect({ host: '127.0.0.1', port, allowHalfOpen: true })
    onward.on('error', () => socket.destroy())
    onward.on('close', () => socket.destroy())
    socket.on('close', () => onward.destroy())
    socket.pipe(onward).pipe(socket)
  })
  lasting.push(() => server.close())
  return server
}

before(async () => {
  mounts.put('secrets', 'ca', 'ca.pem', authority.cert)
  mounts.put('configMaps', 'ca', 'ca.pem', authority.cert)
  mounts.put('secrets', 'db', 'password', POSTGRES_PASSWORD)
  const redis = await RedisServer.start()
  lasting.push(() => redis.stop())
  const hba = ['hostssl all all 127.0.0.1/32 scram-sha-256']
  const postgres = await postgresServer({ tls: leaf, hba }, lasting)
  behind = { redis: await counted(redis.port), postgres: await counted(postgres.port) }
  for (const name of ['redis', 'redisTls', 'postgres'] as const) relayed[name] = await freePort()
  const relays = new Map<number, Relay>([
    [relayed.redis, { to: behind.redis.port, isTls: false }],
    [relayed.redisTls, { to: behind.redis.port, isTls: true }],
    // TLS of PostgreSQL is negotiated behind the header, with the server itself.
    [relayed.postgres, { to: behind.postgres.port, isTls: false }],
  ])
  readers = [await startHaproxy(leaf, lasting, relays), await startNginx(leaf, lasting)]
})
after(async () => {
  for (const end of lasting.reverse()) await end()
  pki.remove()
  mounts.remove()
})

const CA = { ca: { secretKeyRef: { name: 'ca', key: 'ca.pem' } } }

/** An upstream of HTTP that is this reader, reached this way. */
function upstreamOf({ ports, socket }: Reader, way: Way, version: 'V1' | 'V2', more: object = {}): HttpSpec {
  const where =
    way === 'unix'
      ? { unix: { path: socket } }
      : { endpoints: [{ host: way === 'v6' ? '::1' : '127.0.0.1', port: ports[way] }] }
  const upstream = { name: 'live', ...where, ...(way === 'tls' && { tls: CA }), proxyProtocol: version, ...more }
  return { upstreams: [upstream] } as unknown as HttpSpec
}

/** `[address, port]` of an end as a reader writes it. */
function endOf(text: string): [string, number] {
  const at = text.lastIndexOf(':')
  return [text.slice(0, at), Number(text.slice(at + 1))]
}

describe('the header of the PROXY protocol', { timeout: 300_000 }, () => {
  for (const index of [0, 1]) {
    for (const version of VERSIONS) {
      for (const way of WAYS) {
        const title = `of ${version} is read by ${['HAProxy', 'nginx'][index]} over ${way}`
        it(
          `${title}, and tells the ends of the connection`,
          scope(async (ends) => {
            const reader = readers[index]!
            const proxy = await renderedProxy(upstreamOf(reader, way, version), ends, secrets)
            // Two connections, the first of them used twice.
            for (const client of [proxy.connect(), proxy.connect()]) {
              for (let i = 0; i < 2; i++) {
                const { status, body } = await client.get('/').response()
                assert.equal(status, 200, body)
                const [from = '', to = '', peer = ''] = body.split(' ')
                if (way === 'unix') {
                  // There are no ends that it could tell of: UNKNOWN, or LOCAL.
                  assert.equal(isIP(endOf(from)[0]), 0, body)
                  continue
                }
                const address = way === 'v6' ? '::1' : '127.0.0.1'
                assert.deepEqual([endOf(from), endOf(to)], [endOf(peer), [address, reader.ports[way]]])
                assert.equal(endOf(from)[0], address)
              }
            }
          }),
        )
      }
    }
  }

  for (const version of VERSIONS) {
    it(
      `of ${version} goes before the bytes of a TCP connection`,
      scope(async (ends) => {
        for (const reader of readers) {
          const { client } = await tcpProxy({ ports: [reader.ports.v4], cluster: { proxyProtocol: version } }, ends)
          const application = client()
          application.write('GET / HTTP/1.1\r\nHost: any\r\nConnection: close\r\n\r\n')
          const [, body = ''] = (await application.ended()).split('\r\n\r\n')
          const [from = '', , peer = ''] = body.split(' ')
          assert.deepEqual(endOf(from), endOf(peer))
        }
      }),
    )

    it(
      `of ${version} tells no ends for a check`,
      scope(async (ends) => {
        const [, nginx] = readers
        const check = (path: string) => ({
          healthCheck: {
            http: { path },
            interval: '1s',
            timeout: '20s',
            unhealthyThreshold: 1,
            healthyThreshold: 1,
          },
        })
        const proxy = await renderedProxy(upstreamOf(nginx!, 'v4', version, check('/with-ends')), ends, secrets)
        const [endpoint] = proxy.compiler.clusters[0]!.cluster.endpoints
        const until = async (isHealthy: boolean) => {
          while (endpoint!.isHealthy !== isHealthy) await new Promise((resolve) => setTimeout(resolve, 20))
        }
        await until(false)
        assert.equal(endpoint!.lastError?.detail, 'GET /with-ends was answered with 500')
        // The application's do: it is the only endpoint, so it is used all the same.
        assert.equal((await proxy.connect().get('/with-ends').response()).status, 200)
        proxy.update(upstreamOf(nginx!, 'v4', version, check('/')))
        await until(true)
      }),
    )

    for (const isTls of [false, true]) {
      it(
        `of ${version} goes before Redis${isTls ? ' over TLS' : ''}, its checks too`,
        scope(async (ends) => {
          const before = behind.redis.accepted
          const port = isTls ? relayed.redisTls : relayed.redis
          const sidecar = await redisProxy(
            {
              endpoints: [{ host: '127.0.0.1', port }],
              proxyProtocol: version,
              ...(isTls && { tls: CA }),
              healthCheck: { redis: {}, interval: '1s', timeout: '20s', unhealthyThreshold: 1 },
            },
            {},
            { ca: { 'ca.pem': authority.cert } },
          )
          ends.push(() => sidecar.stop())
          await behind.redis.connections(before + 1)
          const client = new Redis({ host: '127.0.0.1', port: sidecar.port, retryStrategy: () => null })
          client.on('error', () => {})
          ends.push(() => client.disconnect())
          assert.equal(await client.set(version, 'set'), 'OK')
          assert.equal(await client.get(version), 'set')
          const metric = /^ambassador_endpoints\{.*state="(\w+)".*\} 1$/m
          assert.equal(metric.exec((await sidecar.proxy.get('/metrics')).body)?.[1], 'available')
        }),
      )
    }

    for (const mode of ['Disabled', 'Transaction'] as const) {
      it(
        `of ${version} goes before the negotiation of TLS with PostgreSQL, with pooling ${mode}`,
        scope(async (ends) => {
          const upstream = {
            name: 'primary',
            endpoints: [{ host: '127.0.0.1', port: relayed.postgres }],
            proxyProtocol: version,
            tls: { ca: { configMapKeyRef: { name: 'ca', key: 'ca.pem' } } },
            auth: {
              postgres: { username: POSTGRES_USER, password: { secretKeyRef: { name: 'db', key: 'password' } } },
            },
            healthCheck: { postgres: {}, interval: '1s', timeout: '20s', unhealthyThreshold: 1 },
          }
          const spec = { upstreams: [upstream], postgres: { pooling: { mode } } } as unknown as PostgresSpec
          const before = behind.postgres.accepted
          const proxy = await postgresProxy(spec, mounts, ends)
          await behind.postgres.connections(before + 1)
          const client = await connected(proxy.options, ends)
          assert.equal(await one(client, 'select ssl from pg_stat_ssl where pid = pg_backend_pid()'), true)
          assert.deepEqual(proxy.told, [])
        }),
      )
    }
  }
})

it('of none is what both readers take for nothing: the tests above would fail without the header', async () => {
  for (const { ports } of readers) {
    const client = new HttpTestClient({ port: ports.v4 })
    const answer = await client
      .get('/')
      .response()
      .catch((error: Error) => error.message)
    assert.match(String(answer), /ended \(|400/)
    client.socket.destroy()
  }
})
