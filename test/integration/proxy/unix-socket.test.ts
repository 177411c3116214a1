/** An upstream that is a Unix socket, over HTTP, TCP and TLS, and as `ambassador run` is told of it. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { createServer, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { createServer as createTlsServer } from 'node:tls'
import { TlsContexts } from '../../../proxy/tls/contexts.ts'
import { UnixDiscovery } from '../../../proxy/upstream/discovery/unix.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { HttpTestClient } from '../../helpers/http-client.ts'
import { type HttpProxySetup, httpProxy } from '../../helpers/http-proxy.ts'
import { Pki } from '../../helpers/pki.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { echo, TestServer } from '../../helpers/tcp.ts'
import { type TcpProxySetup, tcpProxy } from '../../helpers/tcp-proxy.ts'

const dir = mkdtempSync(join(tmpdir(), 'amb-unix-'))
const pki = new Pki()
after(() => {
  rmSync(dir, { recursive: true })
  pki.remove()
})
const ends = endsOfEach()

let sockets = 0
const socketPath = () => join(dir, `${++sockets}.sock`)

async function unixServer(serve: (socket: Socket) => void): Promise<{ path: string; server: TestServer }> {
  const path = socketPath()
  const server = new TestServer(createServer({ allowHalfOpen: true }, serve))
  server.server.listen(path)
  await once(server.server, 'listening')
  ends.push(() => server.close())
  return { path, server }
}

const tcp = (path: string, setup: TcpProxySetup = {}) =>
  tcpProxy({ ...setup, discovery: new UnixDiscovery({ path }) }, ends)
const http = (path: string, setup: HttpProxySetup = {}) =>
  httpProxy({ ...setup, discovery: new UnixDiscovery({ path }) }, ends)

describe('TCP to a Unix socket', () => {
  it('carries bytes both ways, also a half-close, and names the path', async () => {
    const { path } = await unixServer(echo)
    const { client, record } = await tcp(path)
    const sent = 'x'.repeat(300_000)
    assert.equal(await client().end(sent).ended(), sent)
    const { end, endpoint, bytesIn, bytesOut } = await record()
    assert.deepEqual([end, endpoint, bytesIn, bytesOut], ['client_closed', path, 300_000, 300_000])
  })

  it('ends at the server when the application breaks the connection', async () => {
    const { path, server } = await unixServer((socket) => {
      socket.write('hello')
      // No reset goes through a Unix socket, only an end.
      socket.on('end', () => socket.destroy()).resume()
    })
    const { client, record } = await tcp(path)
    const app = client()
    await app.read(5)
    app.socket.resetAndDestroy()
    assert.equal((await record()).end, 'client_gone')
    while (server.sockets.size > 0) await new Promise((resolve) => setTimeout(resolve, 5))
  })

  it('is refused with the path when nobody listens, and when there is no such file', async () => {
    const path = socketPath()
    const { client, record } = await tcp(path)
    assert.equal(await client().closed(), 'ECONNRESET')
    const { end, detail } = await record()
    assert.deepEqual([end, detail], ['connect_refused', `socket '${path}' cannot be connected to: ENOENT`])
  })

  it('lets TLS be verified by a name', async () => {
    const authority = pki.authority()
    const { cert, key } = authority.issue()
    const path = socketPath()
    const server = new TestServer(
      createTlsServer({ cert, key }, (socket) => socket.end(`hello ${socket.getProtocol()}`)),
      'secureConnection',
    )
    server.server.listen(path)
    await once(server.server, 'listening')
    ends.push(() => server.close())
    const contexts = new TlsContexts({
      read: () => ({ state: 'Found', bytes: Buffer.from(authority.cert) }),
      name: () => 'the file',
    })
    const tls = contexts.open({
      serverName: 'localhost',
      ca: { kind: 'file', path: 'ca' },
      clientCertificate: null,
      minVersion: 'TLSv1.3',
    })
    const { client } = await tcp(path, { tls })
    assert.equal(await client().end().ended(), 'hello TLSv1.3')
  })

  it('goes on when another config takes its place, and is cut at the deadline', async () => {
    const { path } = await unixServer(echo)
    const { client, cluster, record } = await tcp(path, { cluster: { drainDeadlineMs: 100 } })
    const app = client().write('a')
    await app.read(1)
    cluster.close()
    assert.equal(await app.closed(), 'ECONNRESET')
    assert.equal((await record()).end, 'endpoint_left')
  })
})

describe('HTTP to a Unix socket', () => {
  it('says Host: localhost and keeps the connection', async () => {
    const { path, server } = await unixServer((socket) => {
      socket.on('data', (data) => {
        const host = /^host: (.*)\r$/im.exec(data.toString())?.[1] ?? ''
        socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${host.length}\r\n\r\n${host}`)
      })
    })
    const app = (await http(path)).connect()
    for (let i = 0; i < 3; i++) assert.equal((await app.get().response()).body, 'localhost')
    assert.equal(server.accepted, 1)
  })

  it('is checked by GET', async () => {
    const path = socketPath()
    const healthCheck = { port: null, intervalMs: 20, timeoutMs: 1000, unhealthyThreshold: 1, healthyThreshold: 1 }
    const { cluster } = await http(path, {
      cluster: { healthCheck: { ...healthCheck, probe: { kind: 'http', path: '/ready', statuses: null } } },
    })
    const [endpoint] = [...cluster.endpoints]
    while (endpoint?.isHealthy) await new Promise((resolve) => setTimeout(resolve, 5))
    const asked: string[] = []
    const server = createHttpServer((incoming, answer) => {
      asked.push(`${incoming.headers.host}${incoming.url}`)
      answer.end()
    }).listen(path)
    ends.push(() => server.close())
    while (!endpoint?.isHealthy) await new Promise((resolve) => setTimeout(resolve, 5))
    assert.equal(asked[0], 'localhost/ready')
  })
})

describe('ambassador run', () => {
  it('takes the path of a Unix socket for an upstream', async () => {
    const { path } = await unixServer((socket) => {
      socket.on('data', () => socket.write('HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nunix'))
    })
    const port = await freePort()
    const file = join(dir, 'ambassador.yaml')
    writeFileSync(
      file,
      `apiVersion: ambassador.dev/v1alpha1
kind: Ambassador
metadata: { name: api }
spec:
  protocol: HTTP
  listen: { port: ${port} }
  upstreams: [ { name: api, unix: { path: ${path} }, healthCheck: { tcp: {} } } ]
  egress: { allow: [nobody.example] }
`,
    )
    const own = ['--telemetry-port', `${await freePort()}`, '--admin-port', `${await freePort()}`]
    const proxy = await ProxyProcess.start({}, ['cli/main.ts', 'run', '-f', file, ...own])
    ends.push(() => proxy.end())
    await proxy.ready()
    const client = new HttpTestClient({ port })
    ends.push(() => client.socket.destroy())
    assert.equal((await client.get().response()).body, 'unix')
  })
})
