import assert from 'node:assert/strict'
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { describe, getTestContext, it, type TestContext } from 'node:test'
import { programArgs } from '../../helpers/built.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { silentPort } from '../../helpers/silent-port.ts'
import { closedPort, tcpServer } from '../../helpers/tcp.ts'

const ROOT = join(import.meta.dirname, '../../..')

/** Ends something with the test that runs this, beside which others run: most of their time is waiting. */
const atEnd = (end: () => unknown): void => (getTestContext() as TestContext).after(async () => void (await end()))

/** `ambassador wait` as a process, with the ports of the sidecar in its environment, as in a pod. */
async function waiting(ports: { telemetry: number; admin: number }, ...args: string[]) {
  const child: ChildProcess = spawn(process.execPath, await programArgs(['cli/main.ts', 'wait', ...args]), {
    cwd: ROOT,
    env: {
      PATH: process.env['PATH'],
      AMBASSADOR_TELEMETRY_PORT: String(ports.telemetry),
      AMBASSADOR_ADMIN_PORT: String(ports.admin),
    },
    stdio: ['ignore', 'pipe', 'pipe'],
  })
  atEnd(() => child.kill('SIGKILL'))
  const said = { out: '', err: '' }
  child.stdout?.on('data', (chunk: Buffer) => (said.out += chunk))
  child.stderr?.on('data', (chunk: Buffer) => (said.err += chunk))
  const [code] = (await once(child, 'close')) as [number]
  return { code, ...said }
}

/** A sidecar whose one upstream is at this port. */
async function sidecar(ports: { telemetry: number; admin: number }, upstreamPort: number) {
  const proxy = await ProxyProcess.start({
    UPSTREAM_HOST: '127.0.0.1',
    UPSTREAM_PORT: String(upstreamPort),
    PROTOCOL: 'TCP',
    LISTEN_PORT: String(await freePort()),
    AMBASSADOR_TELEMETRY_PORT: String(ports.telemetry),
    AMBASSADOR_ADMIN_PORT: String(ports.admin),
  })
  atEnd(async () => {
    proxy.kill('SIGKILL')
    await proxy.exit
  })
  return proxy
}

const freePorts = async () => ({ telemetry: await freePort(), admin: await freePort() })

describe('ambassador wait', { concurrency: 3 }, () => {
  it('waits for a sidecar that starts later, and ends with 0', async () => {
    const ports = await freePorts()
    const waited = waiting(ports)
    await new Promise((resolve) => setTimeout(resolve, 400))
    await sidecar(ports, await closedPort())
    assert.deepEqual(await waited, { code: 0, out: 'ready\n', err: '' })
    // It listens; whether the upstream is there was not asked.
    assert.deepEqual(await waiting(ports, '--timeout', '0s', '-q'), { code: 0, out: '', err: '' })
  })

  it('ends with 1 when nobody answers in time, and says on which port', async () => {
    const ports = await freePorts()
    const { code, err } = await waiting(ports, '--timeout', '0s')
    assert.equal(code, 1)
    assert.equal(
      err,
      `ambassador wait: no sidecar answers on 127.0.0.1:${ports.telemetry}, start it or name its port\n`,
    )
  })

  it('waits with --upstream until an endpoint takes connections, and says what it waited for', async () => {
    const ports = await freePorts()
    const port = await closedPort()
    await (await sidecar(ports, port)).ready()
    const early = await waiting(ports, '--upstream', 'upstream', '--timeout', '0s')
    assert.equal(early.code, 1)
    assert.equal(
      early.err,
      `ambassador wait: ambassador 'default': upstream 'upstream': no endpoint takes a connection: 127.0.0.1:${port} (ECONNREFUSED)\n`,
    )
    const waited = waiting(ports, '--upstream', 'default/upstream', '--upstream', 'default')
    await new Promise((resolve) => setTimeout(resolve, 400))
    const server = await tcpServer((socket) => socket.end(), port)
    atEnd(() => server.close())
    assert.deepEqual(await waited, { code: 0, out: 'ready\n', err: '' })
  })

  it('does not wait for an upstream that there is not', async () => {
    const ports = await freePorts()
    await (await sidecar(ports, await closedPort())).ready()
    const startedAt = performance.now()
    const { code, err } = await waiting(ports, '--upstream', 'live')
    assert.equal(code, 1)
    assert.equal(err, "ambassador wait: there is no upstream 'live', use one of default/upstream\n")
    assert.ok(performance.now() - startedAt < 30_000)
  })

  it('is not ready while the sidecar drains', async () => {
    const ports = await freePorts()
    const proxy = await (await sidecar(ports, await closedPort())).ready()
    await proxy.admin('POST', '/drain')
    const { code, err } = await waiting(ports, '--timeout', '0s')
    assert.deepEqual([code, err], [1, 'ambassador wait: draining\n'])
  })

  it('dials the endpoints side by side, and ends in time when all are silent', async () => {
    const ports = await freePorts()
    const ends: (() => unknown)[] = []
    atEnd(() => {
      for (const end of ends.reverse()) end()
    })
    const silent = await silentPort(ends, false, '0.0.0.0')
    const endpoints = Array.from({ length: 12 }, (_, i) => `{ host: 127.0.0.${i + 2}, port: ${silent} }`)
    const directory = mkdtempSync(join(tmpdir(), 'ambassador-wait-'))
    atEnd(() => rmSync(directory, { recursive: true }))
    const file = join(directory, 'silent.yaml')
    writeFileSync(
      file,
      `apiVersion: ambassador.dev/v1alpha1
kind: Ambassador
metadata: { name: silent }
spec:
  protocol: TCP
  listen: { port: ${await freePort()} }
  upstreams: [ { name: live, endpoints: [ ${endpoints.join(', ')} ] } ]
`,
    )
    const own = { AMBASSADOR_TELEMETRY_PORT: String(ports.telemetry), AMBASSADOR_ADMIN_PORT: String(ports.admin) }
    const proxy = await ProxyProcess.start({ AMBASSADOR_CONFIG: file, ...own })
    atEnd(() => proxy.kill('SIGKILL'))
    await proxy.ready()
    const startedAt = performance.now()
    const { code, err } = await waiting(ports, '--timeout', '1s', '--upstream', 'live')
    assert.equal(code, 1)
    assert.match(err, /no endpoint takes a connection: (127\.0\.0\.\d+:\d+ \(no answer\)(, )?){10} and 2 more$/m)
    // One after the other they took 24 s and more.
    assert.ok(performance.now() - startedAt < 15_000)
  })

  it('knows another program by its answer', async () => {
    const ports = await freePorts()
    await (await sidecar(ports, await closedPort())).ready()
    const says = (port: number) =>
      `ambassador wait: what answers on 127.0.0.1:${port} is no sidecar, or an older one: name the ports of the sidecar\n`
    const { admin, telemetry } = ports
    assert.deepEqual(await waiting({ telemetry: admin, admin }, '--timeout', '0s'), {
      code: 1,
      out: '',
      err: says(admin),
    })
    const both = { telemetry, admin: telemetry }
    const { code, err } = await waiting(both, '--timeout', '0s', '--upstream', 'upstream')
    assert.deepEqual([code, err], [1, says(telemetry)])
  })

  it('refuses arguments that it does not understand', async () => {
    const ports = await freePorts()
    for (const [args, message] of [
      [['--timeout', '5'], "--timeout: '5' is not a duration: use a number with a unit"],
      [['--admin-port', 'x'], "--admin-port: 'x' is not a port, use 1 to 65535"],
    ] as const) {
      const { code, err } = await waiting(ports, ...args)
      assert.equal(code, 2)
      assert.ok(err.startsWith(`ambassador wait: ${message}`), err)
    }
  })
})
