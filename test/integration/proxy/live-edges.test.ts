/** Large and many-sided changes of what `ambassador run` serves: nothing that is not named by them notices. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, readdirSync, rmSync, writeFileSync } from 'node:fs'
import { connect, type Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, describe, it } from 'node:test'
import { createServer } from 'node:tls'
import { HttpTestClient } from '../../helpers/http-client.ts'
import { Pki } from '../../helpers/pki.ts'
import { freePort } from '../../helpers/ports.ts'
import { scope } from '../../helpers/postgres-client.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { echo, TestServer, tcpServer } from '../../helpers/tcp.ts'

const pki = new Pki()
after(() => pki.remove())

const COUNT = 50

const tcpTo = (name: string, port: number, to: number): string => `
apiVersion: ambassador.dev/v1alpha1
kind: Ambassador
metadata: { name: ${name} }
spec:
  protocol: TCP
  listen: { port: ${port} }
  upstreams: [ { name: live, endpoints: [ { host: 127.0.0.1, port: ${to} } ] } ]
---`

/** `ambassador run` with a file that a test edits; `ends` gets what ends it. */
async function running(text: string, ends: (() => unknown)[]) {
  const root = mkdtempSync(join(tmpdir(), 'ambassador-live-'))
  ends.push(() => rmSync(root, { recursive: true }))
  const file = join(root, 'all.yaml')
  writeFileSync(file, text)
  const [telemetry, admin] = [await freePort(), await freePort()]
  const proxy = await ProxyProcess.start(
    { AMBASSADOR_TELEMETRY_PORT: String(telemetry), AMBASSADOR_ADMIN_PORT: String(admin) },
    ['cli/main.ts', 'run', '-f', file, '--telemetry-port', String(telemetry), '--admin-port', String(admin)],
  )
  ends.push(async () => {
    proxy.kill('SIGKILL')
    await proxy.exit
  })
  await proxy.ready()
  return { proxy, edit: (to: string) => writeFileSync(file, to), root }
}

/** A connection, or null when it is refused. */
async function connected(port: number, ends: (() => unknown)[]): Promise<Socket | null> {
  const socket = connect(port, '127.0.0.1')
  ends.push(() => socket.destroy())
  return await new Promise((resolve) => {
    socket.once('connect', () => resolve(socket))
    socket.once('error', () => resolve(null))
  })
}

/** Nobody listens there any more. */
async function refused(port: number): Promise<void> {
  await until(async () => {
    const ends: (() => unknown)[] = []
    const socket = await connected(port, ends)
    for (const end of ends) end()
    return socket === null
  })
}

async function echoes(socket: Socket, text: string): Promise<void> {
  const heard = once(socket, 'data')
  socket.write(text)
  assert.equal(String((await heard)[0]), text)
}

async function until(condition: () => boolean | Promise<boolean>): Promise<void> {
  while (!(await condition())) await new Promise((resolve) => setTimeout(resolve, 20))
}

describe('one change of what is served', { timeout: 120_000, concurrency: 2 }, () => {
  it(
    `adds ${COUNT} ports and takes them away again, and leaves nothing of them behind`,
    scope(async (ends) => {
      const server = await tcpServer(echo)
      ends.push(() => server.close())
      const port = await freePort()
      const steady = tcpTo('steady', port, server.port)
      const { proxy, edit } = await running(steady, ends)
      const old = (await connected(port, ends))!
      await echoes(old, 'first')
      const files = () => readdirSync(`/proc/${proxy.child.pid}/fd`).length
      const before = files()
      const ports: number[] = []
      for (let i = 0; i < COUNT; i++) ports.push(await freePort())
      let held: Socket[] = []
      for (const [round, some] of [
        ['one', ports],
        ['two', ports.slice(0, 5)],
      ] as const) {
        edit(steady + some.map((each, i) => tcpTo(`more-${i}`, each, server.port)).join(''))
        const made: Socket[] = []
        for (const each of some) {
          let socket: Socket | null = null
          await until(async () => (socket = await connected(each, ends)) !== null)
          made.push(socket!)
        }
        for (const [i, socket] of made.entries()) await echoes(socket, `${round} ${i}`)
        await echoes(old, round)
        edit(steady)
        for (const each of some) await refused(each)
        // A connection that is open runs to its end, as when its endpoint has left.
        for (const socket of made) await echoes(socket, 'goes on')
        held = [...held, ...made]
      }
      for (const socket of held) socket.destroy()
      await until(() => files() <= before + 5)
      await echoes(old, 'last')
      await until(async () => !(await proxy.get('/metrics')).body.includes('more-'))
      const { ambassadors } = JSON.parse((await proxy.get('/configz')).body)
      assert.deepEqual(
        ambassadors.map(({ name }: { name: string }) => name),
        ['steady'],
      )
    }),
  )

  it(
    'moves the protocol, the port, the name of the upstream, its TLS and its balancing at once',
    scope(async (ends) => {
      const server = await tcpServer(echo)
      ends.push(() => server.close())
      const authority = pki.authority()
      const secure = await new TestServer(
        createServer({ ...authority.issue() }, (socket) => {
          socket.on('error', () => {})
          socket.on('data', () => socket.write('HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nsecure'))
        }),
        'secureConnection',
      ).listen()
      ends.push(() => secure.close())
      const [from, to] = [await freePort(), await freePort()]
      const { proxy, edit, root } = await running(tcpTo('orders', from, server.port), ends)
      const old = (await connected(from, ends))!
      await echoes(old, 'before')
      writeFileSync(join(root, 'ca.pem'), authority.cert)
      edit(`
apiVersion: ambassador.dev/v1alpha1
kind: Ambassador
metadata: { name: orders }
spec:
  protocol: HTTP
  listen: { port: ${to} }
  upstreams:
  - name: other
    endpoints: [ { host: localhost, port: ${secure.port} }, { host: 127.0.0.1, port: ${secure.port} } ]
    tls: { ca: { file: ./ca.pem } }
    loadBalancing: { policy: RoundRobin }
`)
      await until(async () => (await connected(to, ends)) !== null)
      const client = new HttpTestClient({ port: to })
      ends.push(() => client.socket.destroy())
      for (let i = 0; i < 4; i++) assert.equal((await client.get().response()).body, 'secure')
      await echoes(old, 'after')
      const { ambassadors } = JSON.parse((await proxy.admin('GET', '/upstreams')).body)
      assert.deepEqual(
        ambassadors[0].upstreams.map(({ name }: { name: string }) => name),
        ['other'],
      )
      const metrics = (await proxy.get('/metrics')).body
      assert.equal(/^.*upstream="live".*$/m.exec(metrics)?.[0], undefined)
      assert.ok(metrics.includes('upstream="other"'))
    }),
  )
})
