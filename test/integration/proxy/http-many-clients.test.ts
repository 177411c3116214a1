/** More clients than there is room for: the ones that rest give way, the others are told, and heads that never end hold a bounded piece of memory. */
import assert from 'node:assert/strict'
import { it } from 'node:test'
import { heldByHeads, MAX_HELD_BYTES } from '../../../proxy/protocol/http1/head-reader.ts'
import { defaultMaxClients } from '../../../proxy/protocol/http1/room.ts'
import { endsOfAll } from '../../helpers/ends.ts'
import { httpProxy } from '../../helpers/http-proxy.ts'
import { ok, scriptedUpstream } from '../../helpers/http-upstream.ts'

const ends = endsOfAll()

it('closes the connection that has rested longest for one that is too many, and no other', async () => {
  const upstream = await scriptedUpstream(ends, () => ok())
  const proxy = await httpProxy({ ports: [upstream.port], maxClients: 3 }, ends)
  const [first, second, third] = [proxy.connect(), proxy.connect(), proxy.connect()]
  for (const client of [first, second, third]) await client.get().response()
  // The first one is the oldest, the second one rests longest.
  await first.get().response()
  const fourth = proxy.connect()
  assert.equal((await fourth.get().response()).status, 200)
  await second.tcp.ended()
  for (const client of [first, third, fourth]) assert.equal((await client.get().response()).status, 200)
  assert.equal(proxy.driver.open, 3)
})

it('tells a client that there is no room for it while all others are at work', async () => {
  const waiting: (() => void)[] = []
  const upstream = await scriptedUpstream(ends, ({ target }) => {
    return target === '/slow' ? new Promise((resolve) => waiting.push(() => resolve(ok()))) : ok()
  })
  const proxy = await httpProxy({ ports: [upstream.port], maxClients: 2 }, ends)
  const busy = [proxy.connect().get('/slow'), proxy.connect().get('/slow')]
  await upstream.request(1)
  const extra = proxy.connect().get()
  const answer = await extra.response()
  assert.equal(answer.status, 503)
  assert.equal(answer.field('x-ambassador-reason'), 'overloaded')
  assert.equal(answer.field('connection'), 'close')
  assert.equal(answer.field('retry-after'), '1')
  const { detail } = JSON.parse(answer.body)
  assert.equal(detail, 'the application has 2 connections open to this port, and none of them rests')
  await extra.tcp.ended()
  const head = proxy.connect().write('HEAD / HTTP/1.1\r\nHost: a\r\n\r\n')
  const { status, body } = await head.response({ isHead: true })
  assert.deepEqual([status, body], [503, ''])
  await head.tcp.ended()
  assert.match(head.tcp.received.toString(), /\r\n\r\n$/)
  assert.equal(proxy.cells.reasons.overloaded, 2)
  const logged = await proxy.recorded(2)
  assert.deepEqual(
    logged.map(({ reason, status }) => [reason, status]),
    [
      ['overloaded', 503],
      ['overloaded', 503],
    ],
  )
  for (const end of waiting) end()
  for (const client of busy) assert.equal((await client.response()).status, 200)
  assert.equal((await proxy.connect().get().response()).status, 200)
})

it('never closes a connection for another one whose head is not complete or whose answer is on its way', async () => {
  const upstream = await scriptedUpstream(ends, ({ target }) => ok(target === '/large' ? 'x'.repeat(16 << 20) : ''))
  const proxy = await httpProxy({ ports: [upstream.port], maxClients: 2 }, ends)
  const partial = proxy.connect()
  await partial.get().response()
  partial.write('GET / HT')
  const slow = proxy.connect()
  slow.socket.pause()
  slow.get('/large')
  await upstream.request(1)
  // The proxy read the bytes of the first before it asked the upstream for the second.
  const extra = proxy.connect().get()
  assert.equal((await extra.response()).status, 503)
  slow.socket.resume()
  await slow.tcp.read(16 << 20)
  partial.write('TP/1.1\r\nHost: a\r\n\r\n')
  assert.equal((await partial.response()).status, 200)
})

it('bounds what all heads that are not complete hold together, and gives it back', { timeout: 60_000 }, async () => {
  const upstream = await scriptedUpstream(ends, () => ok())
  const proxy = await httpProxy({ ports: [upstream.port] }, ends)
  const line = `X: ${'y'.repeat(15_000)}\r\n`
  const part = `GET / HTTP/1.1\r\nHost: a\r\n${line.repeat(4)}`
  const clients = Array.from({ length: 300 }, () => proxy.connect().write(part))
  // 256 of 64 KiB have room.
  const answer = await Promise.any(clients.map((client) => client.response()))
  assert.equal(answer.status, 503)
  assert.equal(answer.field('x-ambassador-reason'), 'overloaded')
  assert.equal(answer.field('connection'), 'close')
  assert.ok(heldByHeads() <= MAX_HELD_BYTES, `${heldByHeads()} bytes`)
  // What comes in one piece needs none.
  assert.equal((await proxy.connect().get().response()).status, 200)
  for (const { socket } of clients) socket.destroy()
  await proxy.driver.drain()
  assert.equal(heldByHeads(), 0)
})

it('reads a long head that comes in any pieces', { timeout: 60_000 }, async () => {
  const upstream = await scriptedUpstream(ends, () => ok())
  const proxy = await httpProxy({ ports: [upstream.port] }, ends)
  const lines = Array.from({ length: 90 }, (_, i) => `X-${i}: ${'v'.repeat(i * 3)}`)
  const head = `GET /long HTTP/1.1\r\nHost: a\r\n${lines.join('\r\n')}\r\n\r\n`
  for (const size of [97, 1000, 4095, 4096, 4097, head.length - 1]) {
    const client = proxy.connect()
    client.socket.setNoDelay(true)
    for (let at = 0; at < head.length; at += size) {
      client.write(head.slice(at, at + size))
      await new Promise((resolve) => setImmediate(resolve))
    }
    assert.equal((await client.response()).status, 200, `pieces of ${size}`)
    const seen = upstream.requests.at(-1)?.head ?? ''
    assert.deepEqual(
      lines.filter((each) => !seen.includes(`\r\n${each}\r\n`)),
      [],
    )
  }
  assert.equal(heldByHeads(), 0)
})

it('has room for as many connections as the memory of the container, and its open files', () => {
  assert.equal(defaultMaxClients(128 * 1024 * 1024, null), 4096)
  assert.equal(defaultMaxClients(32 * 1024 * 1024, 1_048_576), 1024)
  assert.equal(defaultMaxClients(4 * 1024 * 1024, null), 256)
  assert.equal(defaultMaxClients(64 * 1024 ** 3, null), 16_384)
  assert.equal(defaultMaxClients(null, null), 16_384)
  assert.equal(defaultMaxClients(null, 1024), 720)
  assert.equal(defaultMaxClients(4 * 1024 * 1024, 60), 1)
})
