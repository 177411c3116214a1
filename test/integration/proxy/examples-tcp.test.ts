/** The examples of TCP, DNS and Compose as a person runs them; hosts and ports are stand-ins, all else is as it stands. */
import assert from 'node:assert/strict'
import { spawn } from 'node:child_process'
import { once } from 'node:events'
import { chmodSync, mkdirSync, mkdtempSync, readFileSync, readlinkSync, rmSync, writeFileSync } from 'node:fs'
import { createServer as createHttpServer } from 'node:http'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { createServer, type TLSSocket } from 'node:tls'
import { load } from 'js-yaml'
import { parseRuntime } from '../../../build/image-runtime.ts'
import { parseDocuments } from '../../../cli/documents.ts'
import type { Ambassador } from '../../../operator/api/ambassador.ts'
import { render } from '../../../operator/render/render.ts'
import { discover } from '../../../proxy/upstream/discovery/discover.ts'
import { Resolver } from '../../../proxy/upstream/dns/resolver.ts'
import { built } from '../../helpers/built.ts'
import { DnsServer } from '../../helpers/dns-server.ts'
import { endsOfEach } from '../../helpers/ends.ts'
import { HttpTestClient } from '../../helpers/http-client.ts'
import { ok, scriptedUpstream } from '../../helpers/http-upstream.ts'
import { Pki } from '../../helpers/pki.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { closedPort, TestClient, TestServer, tcpServer } from '../../helpers/tcp.ts'
import { tcpProxy } from '../../helpers/tcp-proxy.ts'

const EXAMPLES = join(import.meta.dirname, '../../../examples')
const pki = new Pki()
after(() => pki.remove())
const ends = endsOfEach()

const example = (name: string, file = 'ambassador.yaml') => readFileSync(join(EXAMPLES, name, file), 'utf8')

function folder(): string {
  const root = mkdtempSync(join(tmpdir(), 'ambassador-example-'))
  ends.push(() => rmSync(root, { recursive: true }))
  return root
}

/** What a container of the image runs: its ENTRYPOINT and CMD, on the files that go into it. `program`: the command `ambassador`. */
async function imageCommand() {
  const { dist } = await built()
  const dockerfile = readFileSync(join(EXAMPLES, '../Dockerfile.proxy'), 'utf8')
  const { flags, env } = parseRuntime(dockerfile)
  const [, cmd = ''] = /^CMD (\[.*\])$/m.exec(dockerfile) ?? []
  const inImage = (path: string) => path.replace('/app/', `${dist}/`)
  // Which is a link into /app in the image.
  const program = inImage(readlinkSync(join(dist, 'bin/ambassador')))
  return { command: [...flags, ...(JSON.parse(cmd) as string[]).map(inImage)], env, program }
}

/** Starts a sidecar process that is ended with the test. */
async function started(env: Readonly<Record<string, string>>, args?: readonly string[]) {
  const proxy = await ProxyProcess.start(env, args)
  ends.push(() => proxy.end())
  return await proxy.ready()
}

/** `ambassador run` with an example in which each `host, port` of the list is a port of this machine. */
async function run(name: string, places: Readonly<Record<string, number>>, root = folder()) {
  const port = await freePort()
  let text = example(name)
  for (const [place, own] of Object.entries(places)) {
    assert.ok(text.includes(place), `${name} has no '${place}'`)
    text = text.replaceAll(place, `host: 127.0.0.1, port: ${own}`)
  }
  text = text.replace(/(listen:\s+port: )\d+/, `$1${port}`)
  const file = join(root, 'ambassador.yaml')
  writeFileSync(file, text)
  const own = ['--telemetry-port', `${await freePort()}`, '--admin-port', `${await freePort()}`, '--secrets', root]
  const proxy = await started({}, ['cli/main.ts', 'run', '-f', file, ...own])
  const client = () => {
    const made = new TestClient({ port })
    ends.push(() => made.socket.destroy())
    return made
  }
  return { proxy, client }
}

describe('the example', () => {
  it('haproxy-tcp goes to the standby when the first database is down, and no connection fails', async () => {
    const primary = await tcpServer((socket) => socket.end('a'))
    const standby = await tcpServer((socket) => socket.end('b'))
    ends.push(() => standby.close())
    const { client } = await run('haproxy-tcp', {
      'host: db-a.prod.example.com, port: 5432': primary.port,
      'host: db-b.prod.example.com, port: 5432': standby.port,
    })
    assert.equal(await client().end().ended(), 'a')
    await primary.close()
    for (let i = 0; i < 10; i++) assert.equal(await client().end().ended(), 'b')
  })

  it('tls-stunnel speaks TLS for an application that does not, with a verified name and a client certificate', async () => {
    const authority = pki.authority()
    const leaf = authority.issue({ names: ['secure.example.com'] })
    const shown = Promise.withResolvers<string>()
    const options = { cert: leaf.cert, key: leaf.key, ca: authority.cert, requestCert: true, rejectUnauthorized: true }
    const server = createServer(options, (socket: TLSSocket) => {
      shown.resolve(String(socket.getPeerCertificate().subject?.CN))
      socket.on('error', () => {})
      socket.pipe(socket)
    })
    const upstream = await new TestServer(server, 'secureConnection').listen()
    ends.push(() => upstream.close())
    const root = folder()
    const own = authority.issue({ names: ['legacy'], usage: 'clientAuth', commonName: 'legacy' })
    mkdirSync(join(root, 'secure-ca'))
    writeFileSync(join(root, 'secure-ca', 'ca.pem'), authority.cert)
    mkdirSync(join(root, 'legacy-client'))
    writeFileSync(join(root, 'legacy-client', 'tls.crt'), own.cert)
    writeFileSync(join(root, 'legacy-client', 'tls.key'), own.key)
    const { client } = await run('tls-stunnel', { 'host: secure.example.com, port: 7443': upstream.port }, root)
    assert.equal(await client().write('plain words').read(11), 'plain words')
    assert.equal(await shown.promise, 'legacy')
  })

  it('dns-srv-migration follows the records, and keeps the last targets when they vanish', async () => {
    const dns = await DnsServer.start()
    ends.push(() => dns.close())
    const resolvConf = join(folder(), 'resolv.conf')
    writeFileSync(resolvConf, 'nameserver 127.0.0.1\n')
    const resolver = new Resolver({ resolvConf, hosts: '/nonexistent', port: dns.port })
    const ambassador = parseDocuments(example('dns-srv-migration'), 'ambassador.yaml')[0]?.value as Ambassador
    const { config } = render({ ambassador })
    const cluster = config?.clusters[0]
    assert.ok(cluster !== undefined)
    const name = '_redis._tcp.prod.example.com'
    const servers = await Promise.all(['old', 'new'].map((word) => tcpServer((socket) => socket.end(word))))
    for (const each of servers) ends.push(() => each.close())
    const [before, behind] = servers
    dns.addresses('redis.prod.example.com', ['127.0.0.1'], 1)
    dns.services(name, [[0, 1, before!.port, 'redis.prod.example.com']], 1)
    const { client } = await tcpProxy({ discovery: discover(cluster.discovery, resolver) }, ends)
    assert.equal(await client().end().ended(), 'old')
    dns.services(name, [[0, 1, behind!.port, 'redis.prod.example.com']], 1)
    const changedAt = performance.now()
    while ((await client().end().ended()) !== 'new') {
      assert.ok(performance.now() - changedAt < 30_000)
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
    dns.services(name, [], 1)
    const gone = dns.queries.length
    while (!dns.queries.slice(gone).some(({ type }) => type === 'SRV')) {
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
    assert.equal(await client().end().ended(), 'new')
  })

  it('zookeeper-file follows the registry, and keeps the last list when that fails or says nothing', async () => {
    const [old, next] = await Promise.all(['old', 'new'].map((word) => tcpServer((socket) => socket.end(word))))
    for (const each of [old, next]) ends.push(() => each!.close())
    const root = folder()
    // A stand-in for the client of ZooKeeper: it prints what the real one does.
    const answer = join(root, 'answer')
    const zookeeperSays = (...children: string[]) => writeFileSync(answer, `WATCHER::\n\n[${children.join(', ')}]\n`)
    const bin = join(root, 'bin')
    mkdirSync(bin)
    writeFileSync(
      join(bin, 'zkCli.sh'),
      `#!/bin/sh\n[ "$*" = "-server zk:2181 ls /services/orders" ] && cat '${answer}'\n`,
    )
    chmodSync(join(bin, 'zkCli.sh'), 0o755)
    zookeeperSays(`127.0.0.1:${old!.port}`)
    mkdirSync(join(root, 'orders-endpoints'))
    const list = join(root, 'orders-endpoints', 'endpoints')
    const scripts = join(EXAMPLES, 'zookeeper-file')
    const follower = spawn(
      join(scripts, 'follow.sh'),
      ['0.1', list, join(scripts, 'zookeeper.sh'), 'zk:2181', '/services/orders'],
      { env: { PATH: `${bin}:${process.env['PATH']}` }, stdio: ['ignore', 'pipe', 'pipe'] },
    )
    const gone = once(follower, 'exit')
    ends.push(async () => {
      follower.kill('SIGTERM')
      assert.deepEqual(await gone, [0, null])
    })
    let said = ''
    for (const stream of [follower.stdout, follower.stderr]) stream.on('data', (text) => (said += text))
    const heard = async (what: string) => {
      while (!said.includes(what)) await new Promise((resolve) => setTimeout(resolve, 20))
    }
    await heard(`endpoints: 127.0.0.1:${old!.port}`)
    const { client } = await run('zookeeper-file', {}, root)
    const asks = async (word: string) => {
      while ((await client().end().ended()) !== word) await new Promise((resolve) => setTimeout(resolve, 20))
    }
    await asks('old')
    zookeeperSays()
    await new Promise((resolve) => setTimeout(resolve, 300))
    assert.equal(readFileSync(list, 'utf8'), `127.0.0.1:${old!.port}\n`)
    rmSync(answer)
    await heard('the registry cannot be asked')
    await asks('old')
    zookeeperSays(`127.0.0.1:${next!.port}`)
    await asks('new')
  })

  it('zookeeper-file writes a ConfigMap where it is told to', async () => {
    const root = folder()
    // A stand-in for kubectl: it shows what it was asked for, and what came.
    writeFileSync(
      join(root, 'kubectl'),
      '#!/bin/sh\necho "$@" >> "$0.log"\n[ "$1" = apply ] && cat > /dev/null\nexit 0\n',
    )
    chmodSync(join(root, 'kubectl'), 0o755)
    const follower = spawn(
      join(EXAMPLES, 'zookeeper-file', 'follow.sh'),
      ['0.1', 'configmap/orders-endpoints', 'echo', 'db.example:5432 weight=3'],
      { env: { PATH: `${root}:${process.env['PATH']}` }, stdio: ['ignore', 'pipe', 'inherit'] },
    )
    ends.push(() => follower.kill('SIGTERM'))
    const [text] = await once(follower.stdout, 'data')
    assert.equal(String(text), 'endpoints: db.example:5432 weight=3 \n')
    assert.match(
      readFileSync(join(root, 'kubectl.log'), 'utf8'),
      /^create configmap orders-endpoints --from-file=endpoints=\S+ --dry-run=client -o yaml\napply -f -\n$|^apply -f -\ncreate/,
    )
  })
  for (const order of [
    ['orders', 'customers'],
    ['customers', 'orders'],
  ] as const) {
    it(`cross-link connects two workloads with each other, ${order[0]} first`, async () => {
      const local = { orders: { own: await freePort(), port: 8091 }, customers: { own: await freePort(), port: 8092 } }
      const serving = { orders: await freePort(), customers: await freePort() }
      const other = { orders: 'customers', customers: 'orders' } as const
      const ask = async (from: 'orders' | 'customers', path: string) => {
        const client = new HttpTestClient({ port: local[from].own })
        ends.push(() => client.socket.destroy())
        const { status, body } = await client.get(path).response()
        return `${status} ${body}`
      }
      /** Application and sidecar of one side; asked for both, the application asks the other side before it answers. */
      const start = async (name: 'orders' | 'customers') => {
        const { own, port } = local[name]
        const text = example('cross-link', `${name}.yaml`)
        assert.ok(text.includes(`port: ${port}`))
        const file = join(folder(), 'side.yaml')
        writeFileSync(file, text.replaceAll(String(port), String(own)))
        const service = `${other[name]}=127.0.0.1:${serving[other[name]]}`
        const ports = ['--telemetry-port', `${await freePort()}`, '--admin-port', `${await freePort()}`]
        const server = createHttpServer((request, response) => {
          if (request.url !== '/both') response.end(name)
          else void ask(name, '/').then((answer) => response.end(`${name}, ${answer}`))
        })
        server.listen(serving[name], '127.0.0.1')
        await once(server, 'listening')
        ends.push(() => {
          server.closeAllConnections()
          server.close()
        })
        await started({}, ['cli/main.ts', 'run', '-f', file, '--service', service, ...ports])
      }
      const [first, second] = order
      await start(first)
      // The other side does not exist yet.
      const early = ask(first, '/')
      await new Promise((resolve) => setTimeout(resolve, 300))
      await start(second)
      assert.equal(await early, `200 ${second}`)
      assert.equal(await ask(first, '/both'), `200 ${second}, 200 ${first}`)
      assert.equal(await ask(second, '/both'), `200 ${first}, 200 ${second}`)
    })
  }

  it('compose is a file of services of which the sidecar shares the network, and its variables are enough', async () => {
    const compose = load(example('compose', 'compose.yaml')) as {
      services: Record<string, { image: string; network_mode?: string; environment?: Record<string, string> }>
    }
    const { ambassador, ...others } = compose.services
    assert.ok(ambassador !== undefined)
    const [, shared] = /^service:(.+)$/.exec(ambassador.network_mode ?? '') ?? []
    assert.ok(shared !== undefined && Object.hasOwn(others, shared))
    const { UPSTREAM_HOST = '', UPSTREAM_PORT, ...rest } = ambassador.environment ?? {}
    assert.ok(Object.hasOwn(others, UPSTREAM_HOST))
    assert.equal(UPSTREAM_PORT, '80')
    for (const value of Object.values(ambassador.environment ?? {})) assert.equal(typeof value, 'string')
    // It has no command of its own, so it is what the image starts, with the files of the image and its environment.
    assert.deepEqual(Object.keys(ambassador).sort(), ['environment', 'image', 'network_mode'])
    const { command, env } = await imageCommand()
    const api = await scriptedUpstream(ends, () => ok('api'))
    const port = await freePort()
    const places = { UPSTREAM_HOST: '127.0.0.1', UPSTREAM_PORT: `${api.port}`, LISTEN_PORT: `${port}` }
    await started({ ...env, ...rest, ...places }, command)
    const client = new HttpTestClient({ port })
    ends.push(() => client.socket.destroy())
    assert.equal((await client.get().response()).body, 'api')
  })

  it('the Compose file of docs/lifecycle.md starts the image, and its check waits for the upstream', async () => {
    const text = /In Compose[^:]*:\n\n((?: {4}.*\n)+)/.exec(
      readFileSync(join(EXAMPLES, '../docs/lifecycle.md'), 'utf8'),
    )?.[1]
    const { ambassador, app } = load(text ?? '') as Record<
      string,
      {
        environment: Record<string, string>
        healthcheck: { test: string[] }
        network_mode: string
        depends_on: object
      }
    >
    assert.deepEqual(
      [app?.network_mode, app?.depends_on],
      ['service:ambassador', { ambassador: { condition: 'service_healthy' } }],
    )
    const { command, env, program } = await imageCommand()
    const upstreamPort = await freePort()
    const places = { UPSTREAM_HOST: '127.0.0.1', UPSTREAM_PORT: `${upstreamPort}`, LISTEN_PORT: `${await freePort()}` }
    const proxy = await started({ ...env, ...ambassador!.environment, ...places }, command)
    const [kind, name, ...args] = ambassador!.healthcheck.test
    assert.deepEqual([kind, name], ['CMD', 'ambassador'])
    // As Docker runs it: in the container, by its name, for the exit code.
    const check = async () => {
      const ports = { AMBASSADOR_TELEMETRY_PORT: `${proxy.telemetryPort}`, AMBASSADOR_ADMIN_PORT: `${proxy.adminPort}` }
      const child = spawn(process.execPath, [program, ...args], { env: ports, stdio: 'ignore' })
      return ((await once(child, 'exit')) as [number])[0]
    }
    assert.equal(await check(), 1)
    const server = await tcpServer((socket) => socket.end(), upstreamPort)
    ends.push(() => server.close())
    assert.equal(await check(), 0)
  })

  it('compose says which variable is wrong, and ends', async () => {
    const proxy = await ProxyProcess.start({ UPSTREAM_HOST: 'api', UPSTREAM_PORT: `${await closedPort()}x` })
    assert.notEqual(await proxy.exit, 0)
    assert.match(proxy.stdout + proxy.stderr, /UPSTREAM_PORT/)
  })
})
