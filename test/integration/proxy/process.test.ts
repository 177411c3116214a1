import assert from 'node:assert/strict'
import { execFileSync, spawn, spawnSync } from 'node:child_process'
import { once } from 'node:events'
import {
  closeSync,
  linkSync,
  mkdtempSync,
  openSync,
  readdirSync,
  readFileSync,
  renameSync,
  rmSync,
  writeFileSync,
  writeSync,
} from 'node:fs'
import { type AddressInfo, connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, getTestContext, it, type TestContext } from 'node:test'
import { createServer as createTlsServer } from 'node:tls'
import { which } from '../../../build/machine/exec.ts'
import { plainConfig } from '../../../proxy/config/plain.ts'
import { programArgs } from '../../helpers/built.ts'
import { Pki } from '../../helpers/pki.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { Volumes, writeVolume } from '../../helpers/volume.ts'

let echo: Server
let echoPort: string
const volumes = new Volumes()

before(async () => {
  echo = createServer((socket) => socket.pipe(socket).on('error', () => socket.destroy())).listen(0, '127.0.0.1')
  await once(echo, 'listening')
  echoPort = String((echo.address() as { port: number }).port)
})
after(() => {
  echo.close()
  volumes.remove()
})

/** The test that runs this. */
const testContext = (): TestContext => getTestContext() as TestContext

/** Ends a process with the test that started it, beside which others run: most of their time is waiting. */
function endsWithTest(proxy: ProxyProcess): ProxyProcess {
  testContext().after(async () => {
    await proxy.end()
  })
  return proxy
}

async function start(env: Readonly<Record<string, string>>, args?: readonly string[]): Promise<ProxyProcess> {
  return endsWithTest(await ProxyProcess.start(env, args))
}

/** A plain container that relays TCP to the echo server, ready; its port for the application is a free one. */
async function plain(env: Readonly<Record<string, string>> = {}) {
  const port = await freePort()
  const base = { UPSTREAM_HOST: '127.0.0.1', UPSTREAM_PORT: echoPort, PROTOCOL: 'TCP', LISTEN_PORT: String(port) }
  const proxy = await (await start({ ...base, ...env })).ready()
  return { proxy, port }
}

async function application(port: number): Promise<Socket> {
  const socket = connect(port, '127.0.0.1')
  testContext().after(() => socket.destroy())
  await once(socket, 'connect')
  return socket
}

/** The first connection to a port that nobody may listen on yet. Rejects when the process ends. */
async function untilAccepted(proxy: ProxyProcess, port: number): Promise<Socket> {
  let isOver = false
  void proxy.exit.then(() => (isOver = true))
  for (;;) {
    try {
      return await application(port)
    } catch (error) {
      if (isOver) throw error
    }
    await new Promise((resolve) => setTimeout(resolve, 5))
  }
}

/** Sends a word and waits until it has come back. */
async function echoes(socket: Socket, word: string): Promise<void> {
  socket.write(word)
  const [chunk] = (await once(socket, 'data')) as [Buffer]
  assert.equal(chunk.toString(), word)
}

const refused = (port: number) => assert.rejects(application(port), { code: 'ECONNREFUSED' })

describe('the process', { concurrency: 3 }, () => {
  it('serves a plain container from its variables alone', async () => {
    const { proxy, port } = await plain()
    await echoes(await application(port), 'hello')
    assert.deepEqual(await proxy.get('/readyz'), { status: 200, body: 'ok\n' })
    const metrics = (await proxy.get('/metrics')).body
    assert.match(metrics, /^ambassador_config_info\{ambassador="default",hash="[0-9a-f]{16}",generation="0"\} 1$/m)
  })

  it('ends with 2 and one sentence for a variable that cannot be used, before it listens', async () => {
    const proxy = await start({ UPSTREAM_HOST: 'a', UPSTREAM_PORT: '70000' })
    assert.equal(await proxy.exit, 2)
    assert.equal(proxy.stderr, "UPSTREAM_PORT: '70000' is not allowed, use a whole number from 1 to 65535\n")
    assert.equal(proxy.stdout, '')
  })

  it('ends with 2 and the remedy when AMBASSADOR_CONFIG cannot be used', async () => {
    const none = await start({ AMBASSADOR_CONFIG: '/nowhere/config.json' })
    assert.equal(await none.exit, 2)
    assert.equal(
      none.stderr,
      "AMBASSADOR_CONFIG: config file '/nowhere/config.json' does not exist, wait for the operator or create it\n",
    )
    const path = join(volumes.root, 'ambassador.yaml')
    writeFileSync(path, 'apiVersion: ambassador.dev/v1alpha1\nkind: Ambassador\n')
    // The sidecar alone, from its sources: the program of the image, which has it inside, would serve the file.
    const yaml = await start({ AMBASSADOR_CONFIG: path }, ['./proxy/main.ts'])
    assert.equal(await yaml.exit, 2)
    assert.match(yaml.stderr, /is not JSON: .*; for a file with Ambassadors use `ambassador run -f FILE`\n$/)
  })

  it('serves the config of a file, and what is edited in it', async () => {
    const [from, to] = [await freePort(), await freePort()]
    const path = join(volumes.root, 'config.json')
    const write = (listenPort: number) =>
      writeFileSync(
        path,
        JSON.stringify({
          ...plainConfig({
            namespace: '',
            host: '127.0.0.1',
            port: Number(echoPort),
            listenPort,
            protocol: 'TCP',
            tls: null,
          }),
          // Whoever edits the file by hand leaves this alone.
          hash: 'by hand',
        }),
      )
    write(from)
    const proxy = await (await start({ AMBASSADOR_CONFIG: path })).ready()
    await echoes(await application(from), 'from')
    proxy.forget()
    write(to)
    await proxy.ready()
    await echoes(await application(to), 'to')
  })

  it('listens before it reads certificates, and serves who has connected meanwhile', async () => {
    const pki = new Pki()
    testContext().after(() => pki.remove())
    const ca = pki.authority()
    const secure = createTlsServer(ca.issue(), (socket) => socket.pipe(socket)).listen(0, '127.0.0.1')
    await once(secure, 'listening')
    testContext().after(() => secure.close())
    // Reading this stops the process until somebody writes it.
    const [path, other] = [join(volumes.root, 'slow-ca.pem'), join(volumes.root, 'slow-ca.other')]
    execFileSync('mkfifo', [path])
    linkSync(path, other)
    const port = await freePort()
    const file = join(volumes.root, 'slow-ca.json')
    const upstream = { host: '127.0.0.1', port: (secure.address() as AddressInfo).port }
    const plainOne = plainConfig({ namespace: '', ...upstream, listenPort: port, protocol: 'TCP', tls: null })
    const tls = { serverName: 'localhost', ca: { kind: 'file', path }, clientCertificate: null, minVersion: 'TLSv1.2' }
    const clusters = plainOne.clusters.map((cluster) => ({ ...cluster, tls }))
    writeFileSync(file, JSON.stringify({ ...plainOne, clusters, hash: 'by hand' }))
    const proxy = await start({ AMBASSADOR_CONFIG: file })
    const early = await untilAccepted(proxy, port)
    assert.deepEqual(proxy.log, [])
    // What is read again later is a file like any other.
    writeFileSync(`${path}.new`, ca.cert)
    renameSync(`${path}.new`, path)
    const writer = openSync(other, 'r+')
    writeSync(writer, ca.cert)
    closeSync(writer)
    await echoes(early, 'early')
    await proxy.ready()
  })

  it('serves a file with Ambassadors as well, in the image, where they can be rendered', async () => {
    const port = await freePort()
    const path = join(volumes.root, 'image.yaml')
    const text = `apiVersion: ambassador.dev/v1alpha1
kind: Ambassador
metadata: { name: echo }
spec:
  protocol: TCP
  listen: { port: ${port} }
  upstreams: [ { name: live, endpoints: [ { host: 127.0.0.1, port: ${echoPort} } ] } ]
`
    writeFileSync(path, text)
    const proxy = await (await start({ AMBASSADOR_CONFIG: path }, ['cli/image.ts'])).ready()
    await echoes(await application(port), 'hello')
    writeFileSync(path, text.replace('TCP', 'UDP'))
    await proxy.logged('the files are not usable, the last good version goes on')
    const refused = await start({ AMBASSADOR_CONFIG: path }, ['cli/image.ts'])
    assert.equal(await refused.exit, 2)
    const [what, outcome, ...rest] = refused.stderr.split('\n')
    assert.ok(what?.startsWith(`${path}:5: Ambassador 'echo': spec.protocol: 'UDP' is not known, use one of HTTP, TCP`))
    assert.equal(outcome, `AMBASSADOR_CONFIG: '${path}' cannot be used, correct what is said above`)
    assert.deepEqual(rest, [''])
  })

  it('is the same without that in the image', async () => {
    const port = await freePort()
    const env = { UPSTREAM_HOST: '127.0.0.1', UPSTREAM_PORT: echoPort, PROTOCOL: 'TCP', LISTEN_PORT: String(port) }
    await (await start(env, ['cli/image.ts'])).ready()
    await echoes(await application(port), 'hello')
  })

  it('ends with 3 and a sentence when its port belongs to another process', async () => {
    const taken = Number(echoPort)
    const sentence = 'is in use by another process of this pod'
    const data = await start({
      UPSTREAM_HOST: '127.0.0.1',
      UPSTREAM_PORT: '1',
      PROTOCOL: 'TCP',
      LISTEN_PORT: String(taken),
    })
    assert.equal(await data.exit, 3)
    assert.equal(
      data.stderr,
      `ambassador 'default': port ${taken} on 127.0.0.1 ${sentence}, give one of the two another port\n`,
    )
    const own = await start({
      UPSTREAM_HOST: '127.0.0.1',
      UPSTREAM_PORT: '1',
      PROTOCOL: 'TCP',
      AMBASSADOR_ADMIN_PORT: String(taken),
    })
    assert.equal(await own.exit, 3)
    assert.equal(own.stderr, `admin: port ${taken} ${sentence}, use another port\n`)
  })

  it('serves the Ambassadors of a pod from mounted volumes, and changes them live', async () => {
    const port = await freePort()
    const base = plainConfig({
      namespace: 'shop',
      host: '127.0.0.1',
      port: Number(echoPort),
      listenPort: port,
      protocol: 'TCP',
      tls: null,
    })
    const config = (generation: number) => ({ ...base, ambassador: { namespace: 'shop', name: 'orders', generation } })
    volumes.config('orders', config(1))
    const proxy = await start({
      ...volumes.env('orders'),
      AMBASSADOR_SIDECAR_MODE: 'Native',
      POD_NAME: 'pod-1',
      POD_NAMESPACE: 'shop',
    })
    await proxy.ready()
    await echoes(await application(port), 'hello')
    const startedAt = performance.now()
    volumes.config('orders', config(2))
    const generation = async () => JSON.parse((await proxy.get('/configz')).body).ambassadors[0].generation
    while ((await generation()) !== 2) assert.ok(performance.now() - startedAt < 20_000, 'a change takes effect')
  })

  it('is told its log level while it runs', async () => {
    const { proxy, port } = await plain()
    assert.equal((await proxy.admin('PUT', '/loglevel', 'error')).status, 200)
    const upstreams = JSON.parse((await proxy.admin('GET', '/upstreams')).body)
    assert.equal(upstreams.logLevel, 'error')
    assert.deepEqual(upstreams.ambassadors[0].listening, [`127.0.0.1:${port}`, `[::1]:${port}`])
  })

  it('never has a port of the application on another address than loopback', async () => {
    const { port, proxy } = await plain()
    const listening = ['tcp', 'tcp6'].flatMap((table) =>
      readFileSync(`/proc/${proxy.child.pid}/net/${table}`, 'utf8')
        .split('\n')
        .slice(1)
        .map((line) => line.trim().split(/\s+/))
        // Column 3 is the state; 0A is LISTEN.
        .filter((columns) => columns[3] === '0A')
        .map((columns) => columns[1] ?? ''),
    )
    const hex = port.toString(16).toUpperCase().padStart(4, '0')
    const ours = listening.filter((address) => address.endsWith(`:${hex}`)).sort()
    assert.deepEqual(ours, [`00000000000000000000000001000000:${hex}`, `0100007F:${hex}`])
  })
})

describe('readiness', () => {
  it('UpstreamHealthy follows the checks of the upstream, down and up; the startup probe and liveness do not', async () => {
    const port = await freePort()
    const upstreamPort = await freePort()
    const base = plainConfig({
      namespace: 'shop',
      host: '127.0.0.1',
      port: upstreamPort,
      listenPort: port,
      protocol: 'TCP',
      tls: null,
    })
    const healthCheck = {
      probe: { kind: 'tcp' as const },
      port: null,
      intervalMs: 50,
      timeoutMs: 1000,
      unhealthyThreshold: 2,
      healthyThreshold: 2,
    }
    volumes.config('orders', {
      ...base,
      ambassador: { namespace: 'shop', name: 'orders', generation: 1 },
      clusters: base.clusters.map((each) => ({ ...each, healthCheck })),
    })
    const proxy = await start({
      AMBASSADOR_NAMES: 'orders',
      AMBASSADOR_CONFIG_DIR: volumes.configDir,
      AMBASSADOR_READINESS: 'UpstreamHealthy',
    })
    await proxy.logged('endpoint is out of use while others are well')
    const { status, body } = await proxy.get('/readyz')
    assert.equal(status, 503)
    assert.equal(
      body,
      "ambassador 'orders': upstream 'upstream': no endpoint is available by its circuit breaker, its checks and its attempts, last error health_check\n",
    )
    // The operator repeats it in the condition Ready.
    const told = async () => JSON.parse((await proxy.get('/configz')).body).ambassadors[0].unready
    assert.deepEqual(await told(), [body.trimEnd().slice("ambassador 'orders': ".length)])
    assert.deepEqual(await proxy.get('/readyz?startup'), { status: 200, body: 'ok\n' })
    assert.equal((await proxy.get('/readyz?startup&upstream=orders')).status, 503)
    assert.equal((await proxy.get('/livez')).status, 200)
    const server = createServer((socket) => socket.end()).listen(upstreamPort, '127.0.0.1')
    await proxy.logged('endpoint is healthy again')
    assert.equal((await proxy.get('/readyz')).status, 200)
    assert.deepEqual(await told(), [])
    assert.equal((await proxy.get('/readyz?startup&upstream=orders')).status, 200)
    server.close()
    await proxy.line(() => proxy.log.filter(({ msg }) => String(msg).startsWith('endpoint is out of use')).length === 2)
    assert.equal((await proxy.get('/readyz')).status, 503)
  })
})

describe('SIGTERM in the native order', { concurrency: 3 }, () => {
  it('ends an idle process in less than a second with code 0', async () => {
    const { proxy } = await plain({ AMBASSADOR_SIDECAR_MODE: 'Native' })
    const startedAt = performance.now()
    proxy.kill('SIGTERM')
    assert.equal(await proxy.exit, 0)
    const tookMs = performance.now() - startedAt
    // It would wait for half a minute.
    assert.ok(tookMs < 10_000, `took ${tookMs} ms`)
  })

  it('waits for what is in flight, takes nothing new, and ends with code 0', async () => {
    const { proxy, port } = await plain({ AMBASSADOR_SIDECAR_MODE: 'Native' })
    const socket = await application(port)
    await echoes(socket, 'before')
    proxy.kill('SIGTERM')
    await proxy.logged('draining')
    assert.equal((await proxy.get('/readyz')).status, 503)
    await echoes(socket, 'after')
    await refused(port)
    socket.end()
    assert.equal(await proxy.exit, 0)
  })

  it('cuts what does not end within the drain time, and ends with code 0', async () => {
    const { proxy, port } = await plain({ AMBASSADOR_SIDECAR_MODE: 'Native', AMBASSADOR_DRAIN_SECONDS: '1' })
    const socket = await application(port)
    await echoes(socket, 'before')
    socket.on('error', () => {})
    const closed = new Promise((resolve) => socket.on('close', resolve))
    const startedAt = performance.now()
    proxy.kill('SIGTERM')
    assert.equal(await proxy.exit, 0)
    await closed
    const tookMs = performance.now() - startedAt
    assert.ok(tookMs > 900 && tookMs < 20_000, `took ${tookMs} ms`)
  })
})

describe('SIGTERM in the legacy order', { concurrency: 3 }, () => {
  it('goes on taking connections until the application is gone, then ends with code 0', async () => {
    const { proxy, port } = await plain({ AMBASSADOR_SIDECAR_MODE: 'Legacy', AMBASSADOR_DRAIN_SECONDS: '40' })
    const first = await application(port)
    await echoes(first, 'before')
    const startedAt = performance.now()
    proxy.kill('SIGTERM')
    await proxy.logged('stopping')
    // An application that shuts down for a while and opens connections that it had not before.
    for (let i = 0; i < 20; i++) {
      const late = await application(port)
      await echoes(late, `late ${i}`)
      late.destroy()
    }
    await echoes(first, 'still here')
    first.destroy()
    assert.equal(await proxy.exit, 0)
    const tookMs = performance.now() - startedAt
    // Two seconds of quiet, and less than the whole drain time.
    assert.ok(tookMs >= 1900 && tookMs < 30_000, `took ${tookMs} ms`)
  })

  it('ends in time with code 0 over an application that never goes', async () => {
    const { proxy, port } = await plain({ AMBASSADOR_SIDECAR_MODE: 'Legacy', AMBASSADOR_DRAIN_SECONDS: '1' })
    const socket = await application(port)
    socket.on('error', () => {})
    await echoes(socket, 'before')
    const startedAt = performance.now()
    proxy.kill('SIGTERM')
    assert.equal(await proxy.exit, 0)
    const tookMs = performance.now() - startedAt
    assert.ok(tookMs > 800 && tookMs < 20_000, `took ${tookMs} ms`)
  })
})

/** A pid namespace of its own, as a container has: by root, or in a user namespace. */
const UNSHARE = [
  'unshare',
  '--pid',
  '--fork',
  '--kill-child',
  ...(process.getuid?.() === 0 ? [] : ['--user', '--map-root-user']),
]
const mayUnshare = spawnSync(UNSHARE[0] ?? '', [...UNSHARE.slice(1), 'true']).status === 0
const skip = !mayUnshare && process.env['CI'] !== 'true' && 'this machine allows no pid namespace'

describe('as process 1 of a container', { skip, concurrency: 3 }, () => {
  async function first(env: Readonly<Record<string, string>> = {}) {
    const port = await freePort()
    const base = { UPSTREAM_HOST: '127.0.0.1', UPSTREAM_PORT: echoPort, PROTOCOL: 'TCP', LISTEN_PORT: String(port) }
    const proxy = endsWithTest(await ProxyProcess.start({ ...base, ...env }, ['proxy/main.ts'], UNSHARE))
    await proxy.ready()
    const { pid } = proxy.child
    const [inner] = readFileSync(`/proc/${pid}/task/${pid}/children`, 'utf8').trim().split(' ')
    const status = readFileSync(`/proc/${inner}/status`, 'utf8')
    assert.equal(/^NSpid:.*\t(\d+)$/m.exec(status)?.[1], '1')
    return { proxy, port, pid: Number(inner) }
  }

  it('ends with 0 by each signal that a runtime or a person sends, and in order', async () => {
    for (const signal of ['SIGTERM', 'SIGINT'] as const) {
      const { proxy, port, pid } = await first({ AMBASSADOR_SIDECAR_MODE: 'Native' })
      const socket = await application(port)
      await echoes(socket, 'before')
      process.kill(pid, signal)
      await proxy.logged('draining')
      await echoes(socket, 'after')
      socket.end()
      assert.equal(await proxy.exit, 0)
    }
  })

  it('goes on over signals that have no meaning for it', async () => {
    const { proxy, port, pid } = await first()
    for (const signal of ['SIGHUP', 'SIGQUIT', 'SIGUSR2', 'SIGPIPE', 'SIGALRM'] as const) process.kill(pid, signal)
    const socket = await application(port)
    await echoes(socket, 'still here')
    socket.end()
    await once(socket, 'close')
    process.kill(pid, 'SIGINT')
    assert.equal(await proxy.exit, 0)
  })

  it('has no child that it would have to wait for', async () => {
    const { port, pid } = await first()
    await echoes(await application(port), 'hello')
    const tasks = readdirSync(`/proc/${pid}/task`)
    const children = tasks.map((task) => readFileSync(`/proc/${pid}/task/${task}/children`, 'utf8').trim())
    assert.deepEqual(
      children.filter((each) => each !== ''),
      [],
    )
  })
})

const hasNoTerminal = which('script') === undefined && process.env['CI'] !== 'true'
const skipTerminal = hasNoTerminal && 'script is not installed: apt-get install bsdutils'

describe('other ways to end', { concurrency: 3 }, () => {
  it('SIGINT of a person drains at once, whatever the order', async () => {
    const { proxy } = await plain({ AMBASSADOR_SIDECAR_MODE: 'Legacy' })
    const startedAt = performance.now()
    proxy.kill('SIGINT')
    assert.equal(await proxy.exit, 0)
    // The order of old would wait for two seconds of quiet.
    assert.ok(performance.now() - startedAt < 10_000)
    assert.ok(proxy.log.some(({ msg, detail }) => msg === 'stopping' && detail === 'Native'))
  })

  it('SIGHUP ends nothing: what is open goes on, and files are read again', async () => {
    const { proxy, port } = await plain()
    const socket = await application(port)
    await echoes(socket, 'before')
    proxy.kill('SIGHUP')
    proxy.kill('SIGHUP')
    assert.equal((await proxy.logged('signal received'))['detail'], 'SIGHUP')
    await echoes(socket, 'after')
    const other = await application(port)
    await echoes(other, 'new')
    for (const each of [socket, other]) each.on('error', () => {})
    proxy.kill('SIGTERM')
    proxy.kill('SIGINT')
    assert.equal(await proxy.exit, 0)
  })

  it('SIGHUP of a terminal that is closed ends ambassador run as SIGINT does', { skip: skipTerminal }, async () => {
    const directory = mkdtempSync(join(tmpdir(), 'ambassador-terminal-'))
    const file = join(directory, 'x.yaml')
    const [listen, telemetry, admin] = [await freePort(), await freePort(), await freePort()]
    writeFileSync(
      file,
      `{ apiVersion: ambassador.dev/v1alpha1, kind: Ambassador, metadata: { name: x }, spec: { protocol: TCP, listen: { port: ${listen} }, upstreams: [ { name: live, endpoints: [ { host: 127.0.0.1, port: ${echoPort} } ] } ] } }`,
    )
    const args = ['run', '-f', file, '--telemetry-port', `${telemetry}`, '--admin-port', `${admin}`]
    const command = [process.execPath, ...(await programArgs(['cli/main.ts', ...args]))]
      .map((word) => `'${word}'`)
      .join(' ')
    // A terminal of its own, whose exit code is that of the command. It has the process itself for its child.
    const terminal = spawn('script', ['-qec', `exec ${command}`, '/dev/null'], { stdio: ['pipe', 'pipe', 'ignore'] })
    let said = ''
    terminal.stdout.setEncoding('utf8').on('data', (text: string) => (said += text))
    const ended = once(terminal, 'close')
    try {
      while (!said.includes('page for people')) await once(terminal.stdout, 'data')
      const [pid] = readFileSync(`/proc/${terminal.pid}/task/${terminal.pid}/children`, 'utf8').trim().split(' ')
      process.kill(Number(pid), 'SIGHUP')
      assert.deepEqual(await ended, [0, null])
    } finally {
      terminal.kill('SIGKILL')
      rmSync(directory, { recursive: true })
    }
  })

  it('a second signal ends at once', async () => {
    const { proxy, port } = await plain({ AMBASSADOR_SIDECAR_MODE: 'Legacy', AMBASSADOR_DRAIN_SECONDS: '60' })
    const socket = await application(port)
    socket.on('error', () => {})
    await echoes(socket, 'before')
    proxy.kill('SIGTERM')
    await proxy.logged('stopping')
    proxy.kill('SIGTERM')
    assert.equal(await proxy.exit, 0)
  })

  it('POST /quitquitquit, as the application of a Job does, ends with code 0', async () => {
    const { proxy } = await plain({ AMBASSADOR_SIDECAR_MODE: 'Legacy' })
    const startedAt = performance.now()
    assert.equal((await proxy.admin('POST', '/quitquitquit')).status, 202)
    assert.equal(await proxy.exit, 0)
    assert.ok(performance.now() - startedAt < 10_000)
  })

  it('the end of the application, which the pod is annotated with, ends a sidecar that kubelet does not end', async () => {
    const directory = join(volumes.root, 'pod')
    writeVolume(directory, { 'application-ended': '' })
    const { proxy, port } = await plain({
      AMBASSADOR_SIDECAR_MODE: 'Legacy',
      AMBASSADOR_ENDED_FILE: join(directory, 'application-ended'),
    })
    const socket = await application(port)
    await echoes(socket, 'still at work')
    // Another annotation of the pod changes: kubelet writes the volume again.
    writeVolume(directory, { 'application-ended': '' })
    await echoes(socket, 'still at work')
    socket.destroy()
    const startedAt = performance.now()
    writeVolume(directory, { 'application-ended': '2026-11-21T09:00:00Z' })
    assert.equal(await proxy.exit, 0)
    assert.ok(performance.now() - startedAt < 20_000)
    const line = proxy.log.find(({ msg }) => msg === 'the application has ended')
    assert.equal(line?.['detail'], '2026-11-21T09:00:00Z')
    const late = await start({
      UPSTREAM_HOST: '127.0.0.1',
      UPSTREAM_PORT: echoPort,
      AMBASSADOR_ENDED_FILE: join(directory, 'application-ended'),
    })
    assert.equal(await late.exit, 0)
  })

  it('a fault that nobody caught is logged and ends it with code 1, so that kubelet starts it anew', async () => {
    for (const fault of ['throw new Error(`broken`)', 'Promise.reject(new Error(`broken`))']) {
      const later = `data:text/javascript,process.once('SIGUSR2', () => { ${fault} })`
      const env = { UPSTREAM_HOST: '127.0.0.1', UPSTREAM_PORT: echoPort, LISTEN_PORT: String(await freePort()) }
      const proxy = await start(env, ['--import', later, 'proxy/main.ts'])
      await proxy.ready()
      proxy.kill('SIGUSR2')
      assert.equal(await proxy.exit, 1)
      const line = proxy.log.find((each) => each['msg'] === 'unexpected fault, the process ends')
      assert.equal((line?.['err'] as { message: string } | undefined)?.message, 'broken')
    }
  })

  it('POST /drain does not end the process: telemetry answers, the application is refused', async () => {
    const { proxy, port } = await plain()
    assert.equal((await proxy.admin('POST', '/drain')).status, 202)
    await proxy.logged('draining')
    assert.deepEqual(await proxy.get('/readyz'), { status: 503, body: 'draining\n' })
    assert.equal((await proxy.get('/livez')).status, 200)
    await refused(port)
    proxy.kill('SIGTERM')
    assert.equal(await proxy.exit, 0)
  })
})
