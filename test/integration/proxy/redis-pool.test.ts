/** Connections that wait ready at a Redis server: how many, logged in as whom, and that none is left behind. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { connect, type Socket } from 'node:net'
import { it } from 'node:test'
import { endsOf } from '../../helpers/ends.ts'
import { RedisServer, redisProxy } from '../../helpers/redis.ts'
import { command, HOST } from '../../helpers/sentinel-proxy.ts'
import { TestClient, tcpServer } from '../../helpers/tcp.ts'

const AUTH = { redis: { username: 'app', password: { secretKeyRef: { name: 'redis', key: 'password' } } } }

/** Who is connected to a server as `app`, as it says itself. */
function connected({ port }: RedisServer) {
  const list = execFileSync('redis-cli', ['-p', String(port), 'CLIENT', 'LIST'], { encoding: 'utf8' })
    .trim()
    .split('\n')
  return list
    .map((line) => new Map(line.split(' ').map((field) => field.split('=', 2) as [string, string])))
    .filter((client) => client.get('user') === 'app')
}

const until = async (is: () => boolean) => {
  while (!is()) await new Promise((resolve) => setTimeout(resolve, 20))
}

it('keeps two connections ready that are logged in, gives one to whoever comes, renews them with the credential and leaves none behind', {
  timeout: 120_000,
}, async (t) => {
  const ends = endsOf(t)
  const server = await RedisServer.start(['user app on >first >second ~* &* +@all'])
  const other = await RedisServer.start(['user app on >second ~* &* +@all'])
  ends.push(
    () => server.stop(),
    () => other.stop(),
  )
  // What stands in front of the server holds new connections back when it is told to.
  let isHeld = false
  const held: Socket[] = []
  const front = await tcpServer((socket) => {
    if (isHeld) {
      held.push(socket)
      return
    }
    const behind = connect(server.port, HOST)
    socket.pipe(behind).pipe(socket)
    for (const each of [socket, behind]) each.on('error', () => {})
    socket.on('close', () => behind.destroy())
    behind.on('close', () => socket.destroy())
  })
  ends.push(() => front.close())
  const at = ({ port }: { readonly port: number }) => ({ endpoints: [{ host: HOST, port }], auth: AUTH })
  const proxy = await redisProxy(at(front), {}, { redis: { password: 'first' } })
  ends.push(() => proxy.stop())
  const open = () => {
    const client = new TestClient({ port: proxy.port })
    ends.push(() => client.socket.destroy())
    return client
  }
  assert.equal(connected(server).length, 0)
  const first = open()
  assert.equal(await first.write(command('PING')).read(7), '+PONG\r\n')
  await until(() => connected(server).length === 3)
  // Nothing new comes through, so that the first command of the next two cannot have waited for a login.
  isHeld = true
  for (const client of [open(), open()]) assert.equal(await client.write(command('PING')).read(7), '+PONG\r\n')
  assert.equal(connected(server).length, 3)
  isHeld = false
  for (const socket of held) socket.destroy()
  const fourth = open()
  await fourth.write(command('PING')).read(7)
  await until(() => connected(server).length === 6)
  const before = new Set(connected(server).map((client) => client.get('id')))

  proxy.volumes.secret('redis', { password: 'second' })
  const fresh = () => connected(server).filter((client) => !before.has(client.get('id')))
  await until(() => fresh().length === 2 && connected(server).length === 6)
  // Also while no application is connected.
  for (const { socket } of [first, fourth]) socket.destroy()

  proxy.update(at(other))
  await until(() => connected(server).length === 0)
  const last = open()
  assert.equal(await last.write(command('PING')).read(7), '+PONG\r\n')
  await until(() => connected(other).length === 3)
  const exit = once(proxy.proxy.child, 'exit')
  proxy.proxy.kill('SIGTERM')
  assert.deepEqual(await exit, [0, null])
  await until(() => connected(other).length === 0)
})
