/** The largest value that Redis takes, both ways through the sidecar, which never has more than pieces of it. */
import assert from 'node:assert/strict'
import { execFileSync } from 'node:child_process'
import { once } from 'node:events'
import { readFileSync } from 'node:fs'
import { connect } from 'node:net'
import { it } from 'node:test'
import { endsOf } from '../../helpers/ends.ts'
import { RedisServer, redisProxy } from '../../helpers/redis.ts'
import { HOST } from '../../helpers/sentinel-proxy.ts'

const MIB = 1 << 20
/** `proto-max-bulk-len` of a server, unless its configuration says more. */
const LENGTH = 512 * MIB
const PIECE = MIB
/** Anonymous memory that the sidecar may come to hold for it, in MiB. */
const BOUND = 24

/** The most anonymous memory that a process had since the last look. */
function watchMemory(pid: number) {
  const anonymous = () => Number(/RssAnon:\s+(\d+) kB/.exec(readFileSync(`/proc/${pid}/status`, 'latin1'))?.[1]) / 1024
  const before = anonymous()
  let most = before
  const timer = setInterval(() => {
    most = Math.max(most, anonymous())
  }, 10)
  return () => {
    clearInterval(timer)
    return Math.max(most, anonymous()) - before
  }
}

it('carries a value of 512 MiB to the server and back in pieces', { timeout: 180_000 }, async (t) => {
  const ends = endsOf(t)
  const server = await RedisServer.start()
  ends.push(() => server.stop())
  const proxy = await redisProxy({ endpoints: [{ host: HOST, port: server.port }] })
  ends.push(() => proxy.stop())
  // No two places of a piece look the same, so that what is left out or comes twice is seen.
  const piece = Buffer.alloc(2 * PIECE)
  for (let at = 0; at < 2 * PIECE; at += 4) piece.writeUInt32LE(at % PIECE, at)
  const socket = connect(proxy.port, HOST)
  ends.push(() => socket.destroy())
  const pid = proxy.proxy.child.pid ?? 0
  socket.write('PING\r\n')
  await once(socket, 'data')

  const stored = watchMemory(pid)
  socket.write(`*3\r\n$3\r\nSET\r\n$5\r\nlarge\r\n$${LENGTH}\r\n`)
  for (let sent = 0; sent < LENGTH; sent += PIECE) {
    if (!socket.write(piece.subarray(0, PIECE))) await once(socket, 'drain')
  }
  socket.write('\r\n')
  assert.equal(String((await once(socket, 'data'))[0]), '+OK\r\n')
  const storing = stored()

  const fetched = watchMemory(pid)
  const head = `$${LENGTH}\r\n`
  let received = -head.length
  let isSame = true
  const done = new Promise<void>((resolve) => {
    socket.on('data', (chunk: Buffer) => {
      const value = received < 0 ? chunk.subarray(Math.min(chunk.length, -received)) : chunk
      const from = Math.max(received, 0)
      const wanted = Math.min(value.length, LENGTH - from)
      if (wanted > 0) isSame &&= value.compare(piece, from % PIECE, (from % PIECE) + wanted, 0, wanted) === 0
      received += chunk.length
      if (received === LENGTH + 2) resolve()
    })
  })
  socket.write('GET large\r\n')
  await done
  const fetching = fetched()
  assert.ok(isSame)
  const length = execFileSync('redis-cli', ['-p', String(server.port), 'STRLEN', 'large'], { encoding: 'utf8' })
  assert.equal(Number(length), LENGTH)
  t.diagnostic(`the sidecar grew by ${storing.toFixed(1)} MiB for SET and ${fetching.toFixed(1)} MiB for GET`)
  assert.ok(storing < BOUND && fetching < BOUND, `${storing} and ${fetching} MiB, less than ${BOUND} are expected`)
})
