import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { connect, createServer, type Server, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, afterEach, before, describe, it } from 'node:test'
import { NODE_FLAGS } from '../../../cli/proxy-process.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'

const root = mkdtempSync(join(tmpdir(), 'ambassador-run-'))
const processes: ProxyProcess[] = []
const sockets: Socket[] = []
let echo: Server
let echoPort: number

before(async () => {
  echo = createServer((socket) => socket.pipe(socket).on('error', () => socket.destroy())).listen(0, '127.0.0.1')
  await once(echo, 'listening')
  echoPort = (echo.address() as { port: number }).port
})
after(() => {
  echo.close()
  rmSync(root, { recursive: true })
})
afterEach(async () => {
  for (const socket of sockets.splice(0)) socket.destroy()
  for (const each of processes.splice(0)) {
    await each.end()
  }
})

let files = 0

/** Writes a file of Ambassadors and returns its path. */
function file(text: string, path = join(root, `${++files}.yaml`)): string {
  writeFileSync(path, text)
  return path
}

const tcp = (name: string, port: number, extra = ''): string => `
apiVersion: ambassador.dev/v1alpha1
kind: Ambassador
metadata: { name: ${name} }
spec:
  protocol: TCP
  listen: { port: ${port} }
  upstreams:
  - name: live
    endpoints: [ { host: 127.0.0.1, port: ${echoPort} } ]
${extra}`

async function run(args: readonly string[], env: Readonly<Record<string, string>> = {}): Promise<ProxyProcess> {
  const own = ['--telemetry-port', String(await freePort()), '--admin-port', String(await freePort())]
  const started = await ProxyProcess.start(env, ['cli/main.ts', 'run', ...args, ...own])
  processes.push(started)
  return started
}

async function answers(port: number): Promise<boolean> {
  const socket = connect(port, '127.0.0.1')
  sockets.push(socket)
  try {
    await once(socket, 'connect')
    socket.write('hello')
    const [chunk] = (await once(socket, 'data')) as [Buffer]
    return chunk.toString() === 'hello'
  } catch {
    return false
  } finally {
    socket.destroy()
  }
}

describe('ambassador run', () => {
  it('serves every Ambassador of every file, and passes over other objects', async () => {
    const [a, b, c] = [await freePort(), await freePort(), await freePort()]
    const other = 'apiVersion: v1\nkind: Secret\nmetadata: { name: x }\n'
    const proxy = await run(['-f', file([tcp('a', a), other, tcp('b', b)].join('\n---\n')), '-f', file(tcp('c', c))])
    for (const name of ['a', 'b', 'c']) {
      await proxy.line((line) => line['ambassador'] === name && line['msg'] === 'config in force')
    }
    for (const port of [a, b, c]) assert.equal(await answers(port), true)
  })

  it('runs a pattern that backtracks for ever in linear time, though it was checked before', {
    timeout: 60_000,
  }, async () => {
    const port = await freePort()
    const routes = '  routes:\n  - { match: { path: { regex: "/(a+)+b" } }, to: [ { upstream: live } ] }\n'
    const text = tcp('a', port, routes).replace('protocol: TCP', 'protocol: HTTP')
    await (await run(['-f', file(text)])).ready()
    const client = connect(port, '127.0.0.1')
    sockets.push(client)
    client.write(`GET /${'a'.repeat(60)} HTTP/1.1\r\nHost: a\r\n\r\n`)
    const [answer] = (await once(client, 'data')) as [Buffer]
    // The echo is no HTTP server.
    assert.match(answer.toString(), /^HTTP\/1\.1 502 /)
  })

  it('takes over what is edited, added and removed, and keeps the last good version over a slip', async () => {
    const [a, b] = [await freePort(), await freePort()]
    const path = file(tcp('a', a))
    const proxy = await (await run(['-f', path])).ready()
    assert.equal(await answers(a), true)
    file(tcp('a', a).replace('protocol: TCP', 'protocol: UDP'), path)
    const slip = await proxy.logged('the files are not usable, the last good version goes on')
    assert.match(
      String(slip['detail']),
      /^.*\.yaml:6: Ambassador 'a': spec\.protocol: 'UDP' is not known, use one of HTTP, TCP, /,
    )
    assert.equal(await answers(a), true)
    proxy.forget()
    file(tcp('b', b), path)
    await proxy.ready()
    assert.equal(await answers(b), true)
    while (await answers(a)) await new Promise((resolve) => setImmediate(resolve))
  })

  it('runs with the flags of Node that the image has, in the process that was started', async () => {
    const proxy = await (await run(['-f', file(tcp('a', await freePort()))])).ready()
    const line = readFileSync(`/proc/${proxy.child.pid}/cmdline`, 'utf8').split('\0')
    assert.deepEqual(
      NODE_FLAGS.filter((flag) => !line.includes(flag)),
      [],
    )
    const environment = readFileSync(`/proc/${proxy.child.pid}/environ`, 'utf8').split('\0')
    assert.ok(environment.includes('MALLOC_ARENA_MAX=1'))
  })

  it('ends with 0 on Ctrl-C', async () => {
    const proxy = await (await run(['-f', file(tcp('a', await freePort()))])).ready()
    proxy.kill('SIGINT')
    assert.equal(await proxy.exit, 0)
  })

  it('looks references up under --secrets, and refuses to start when one is not there', async () => {
    const secrets = join(root, 'secrets')
    mkdirSync(join(secrets, 'tls'), { recursive: true })
    const path = file(tcp('a', await freePort(), '    tls: { ca: { configMapKeyRef: { name: tls, key: ca.crt } } }\n'))
    const none = await run(['-f', path])
    assert.equal(await none.exit, 1)
    assert.equal(
      none.stderr,
      `${path}:8: Ambassador 'a': spec.upstreams: refers to a Secret or ConfigMap, use --secrets DIR, or { file: PATH } or { env: NAME } in its place\n`,
    )
    const missing = await run(['-f', path, '--secrets', secrets])
    assert.equal(await missing.exit, 1)
    assert.equal(
      missing.stderr,
      `Ambassador 'a': upstream 'live': tls.ca: ConfigMap 'tls', key 'ca.crt': file '${secrets}/tls/ca.crt' does not exist, create it\n`,
    )
    writeFileSync(join(secrets, 'tls', 'ca.crt'), 'x')
    const invalid = await run(['-f', path, '--secrets', secrets])
    assert.equal(await invalid.exit, 1)
    assert.equal(
      invalid.stderr,
      "Ambassador 'a': upstream 'live': tls.ca: ConfigMap 'tls', key 'ca.crt' has no certificate, put one there in PEM form\n",
    )
  })

  const slips: readonly (readonly [string, (port: number) => string, RegExp])[] = [
    ['a file that is not YAML', () => 'a: [', /^.*\.yaml:1: is not YAML: .*\n$/],
    ['a file without an Ambassador', () => 'kind: Pod\n', /^.*\.yaml: there is no Ambassador in it\n$/],
    [
      'an unknown field',
      (port) => tcp('a', port).replace('endpoints:', 'endpoint:'),
      /^.*\.yaml:9: Ambassador 'a': spec\.upstreams\[0\]: an upstream needs exactly one of endpoints, dns, srv, sentinel, service, file, unix, fromHeader, and has none\n.*\.yaml:10: Ambassador 'a': spec\.upstreams\[0\]\.endpoint: is not a field, did you mean endpoints\?\n$/s,
    ],
    [
      'two Ambassadors with one port',
      (port) => `${tcp('a', port)}---${tcp('b', port)}`,
      /^.*\.yaml:17: Ambassador 'b': spec\.listen\.port: port \d+ is that of the Ambassador at .*\.yaml:7 too, change one of the two\n$/,
    ],
    [
      'two Ambassadors with one name',
      (port) => `${tcp('a', port)}---${tcp('a', port + 1)}`,
      /^.*\.yaml:14: Ambassador 'a': metadata\.name: the name 'a' is that of the Ambassador at .*\.yaml:4 too, change one of the two\n$/,
    ],
  ]
  for (const [what, text, message] of slips) {
    it(`refuses ${what} with the place`, async () => {
      const proxy = await run(['-f', file(text(await freePort()))])
      assert.equal(await proxy.exit, 1)
      assert.match(proxy.stderr, message)
    })
  }

  it('refuses arguments that it does not understand', async () => {
    for (const [args, message] of [
      [[], 'no file is named: use -f FILE, or -f - for the standard input'],
      [['-f', 'x', '--log-level', 'loud'], "--log-level: 'loud' is not a level, use debug, info, warn, error"],
    ] as const) {
      const proxy = await run(args)
      assert.equal(await proxy.exit, 2)
      assert.equal(proxy.stderr.split('\n')[0], `ambassador run: ${message}`)
    }
  })
})
