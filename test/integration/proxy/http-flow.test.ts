/** How bytes flow: Expect, early answers, large bodies and slow peers, tunnels, half-closes, draining and changes of the configuration. */
import assert from 'node:assert/strict'
import { createHash, randomBytes } from 'node:crypto'
import { once } from 'node:events'
import type { Socket } from 'node:net'
import { describe, it } from 'node:test'
import { endsOfEach } from '../../helpers/ends.ts'
import { httpProxy } from '../../helpers/http-proxy.ts'
import { ok, scriptedUpstream } from '../../helpers/http-upstream.ts'
import { onTime } from '../../helpers/on-time.ts'
import { tcpServer } from '../../helpers/tcp.ts'

const ends = endsOfEach()

const sleep = (ms: number): Promise<void> => new Promise((resolve) => setTimeout(resolve, ms))

async function until(holds: () => boolean): Promise<void> {
  while (!holds()) await new Promise((resolve) => setImmediate(resolve))
}

describe('Expect: 100-continue', () => {
  const HEAD = 'PUT / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n'

  it('is passed on, the upstream’s 100 comes back, and then the body goes', () =>
    onTime(400, async () => {
      let sendContinue: () => void = () => {}
      const upstream = await scriptedUpstream(ends, ({ body }) => ok(body), {
        onHead: ({ socket, head }) => {
          assert.match(head, /Expect: 100-continue/)
          sendContinue = () => socket.write('HTTP/1.1 100 Continue\r\n\r\n')
          return undefined
        },
      })
      const proxy = await httpProxy({ ports: [upstream.port] }, ends)
      const client = proxy.connect().write(HEAD)
      await upstream.server.connections(1)
      await sleep(50)
      assert.equal(client.tcp.length, 0, 'nobody says 100 in the upstream’s place')
      sendContinue()
      assert.equal(await client.tcp.read(25), 'HTTP/1.1 100 Continue\r\n\r\n')
      assert.equal((await client.write('hello').response()).body, 'hello')
      assert.deepEqual(client.interim, [100])
    }))

  it('is answered by the proxy after a second when the upstream says nothing', async () => {
    const upstream = await scriptedUpstream(ends, ({ body }) => ok(body))
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const started = performance.now()
    const client = proxy.connect().write(HEAD)
    assert.equal(await client.tcp.read(25), 'HTTP/1.1 100 Continue\r\n\r\n')
    const took = performance.now() - started
    assert.ok(took >= 990 && took < 20_000, String(took))
    assert.equal((await client.write('hello').response()).body, 'hello')
  })

  it('does not hold up a client that sends its body at once', async () => {
    const upstream = await scriptedUpstream(ends, ({ body }) => `HTTP/1.1 100 Continue\r\n\r\n${ok(body)}`)
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect().write(HEAD).write('hello')
    assert.equal((await client.response()).body, 'hello')
    assert.deepEqual(client.interim, [100])
  })

  it('lets a final answer come before the body, and closes behind it', async () => {
    const upstream = await scriptedUpstream(ends, () => null, {
      onHead: ({ socket }) => {
        socket.write('HTTP/1.1 417 Expectation Failed\r\nContent-Length: 0\r\n\r\n')
        return true
      },
    })
    const proxy = await httpProxy({ ports: [upstream.port], retry: {} }, ends)
    const client = proxy.connect().write(HEAD)
    const response = await client.response()
    assert.equal(response.status, 417)
    assert.equal(response.field('connection'), 'close')
    await client.tcp.ended()
    assert.equal(proxy.cluster.connections.used, 0)
  })
})

describe('an answer during an upload', () => {
  it('is passed on at once and can be read, though the client goes on sending', async () => {
    const upstream = await scriptedUpstream(ends, () => null, {
      onHead: ({ socket }) => {
        socket.end('HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig')
        return true
      },
    })
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect().write('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 20000000\r\n\r\n')
    const piece = Buffer.alloc(64 * 1024)
    let sent = 0
    client.socket.on('error', () => {})
    while (sent < 4_000_000 && !client.socket.destroyed) {
      sent += piece.length
      if (!client.socket.write(piece)) await Promise.race([once(client.socket, 'drain'), once(client.socket, 'close')])
    }
    const response = await client.response()
    assert.equal(response.status, 413)
    assert.equal(response.body, 'big')
    assert.equal(response.field('connection'), 'close')
    assert.equal(client.tcp.error, null)
  })

  it('may stream while the request streams', async () => {
    const upstream = await tcpServer((socket) => {
      let seen = ''
      socket.on('data', (data) => {
        if (seen === '') socket.write('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
        const before = seen.length
        seen += data.toString()
        const body = seen.slice(Math.max(before, seen.indexOf('\r\n\r\n') + 4))
        if (body !== '') socket.write(body)
      })
    })
    ends.push(() => upstream.close())
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect().write('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n')
    await client.tcp.read(60)
    for (const word of ['one', 'two', 'six']) {
      const before = client.tcp.length
      client.write(`3\r\n${word}\r\n`)
      assert.match(await client.tcp.read(before + 8), new RegExp(`3\r\n${word}\r\n$`))
    }
    client.write('0\r\n\r\n')
    assert.equal((await client.response()).body, 'onetwosix')
  })
})

describe('large bodies', () => {
  const BODY = randomBytes(3_000_000)
  const SHA = createHash('sha256').update(BODY).digest('hex')
  const sha = (text: string): string => createHash('sha256').update(Buffer.from(text, 'latin1')).digest('hex')

  it('arrive as they were sent, by length and in chunks, up and down', async () => {
    const upstream = await scriptedUpstream(ends, ({ body, target, head }) => {
      const sent = head.includes('chunked') ? dechunk(body) : body
      assert.equal(sha(sent), SHA)
      if (target === '/length')
        return Buffer.concat([Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${BODY.length}\r\n\r\n`), BODY])
      return Buffer.concat([Buffer.from('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n'), chunks(BODY)])
    })
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    for (const target of ['/length', '/chunked']) {
      const head = target === '/length' ? `Content-Length: ${BODY.length}` : 'Transfer-Encoding: chunked'
      client.write(`PUT ${target} HTTP/1.1\r\nHost: a\r\n${head}\r\n\r\n`)
      client.write(target === '/length' ? BODY : chunks(BODY))
      await until(() => proxy.records.length === (target === '/length' ? 1 : 2))
    }
    const last = Buffer.from('0\r\n\r\n')
    while (!client.tcp.received.subarray(-last.length).equals(last)) await client.tcp.read(client.tcp.length + 1)
    const received = client.tcp.received.toString('latin1')
    const first = received.slice(received.indexOf('\r\n\r\n') + 4)
    assert.equal(sha(first.slice(0, BODY.length)), SHA)
    const second = first.slice(BODY.length)
    assert.equal(sha(dechunk(second.slice(second.indexOf('\r\n\r\n') + 4))), SHA)
    assert.deepEqual(
      proxy.records.map(({ requestBytes, responseBytes }) => [requestBytes, responseBytes]),
      [
        [BODY.length, BODY.length],
        [BODY.length, BODY.length],
      ],
    )
  })

  it('wait for a client that does not read, with bounded memory', async () => {
    const size = 64 << 20
    const upstream = await scriptedUpstream(ends, ({ socket }) => {
      socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`)
      const piece = Buffer.alloc(1 << 20, 'x')
      for (let i = 0; i < size >> 20; i++) socket.write(piece)
      return null
    })
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    client.socket.pause()
    client.get()
    const { socket } = await upstream.request(0)
    let taken = -1
    while (taken !== socket.bytesWritten - socket.writableLength) {
      taken = socket.bytesWritten - socket.writableLength
      await sleep(100)
    }
    assert.ok(taken < size / 2, `the upstream got rid of ${taken} bytes`)
    let got = 0
    client.socket.removeAllListeners('data')
    client.socket.on('data', (data: Buffer) => {
      got += data.length
    })
    client.socket.resume()
    await until(() => got > size)
    assert.equal((await proxy.recorded(1))[0]?.responseBytes, size)
  })

  it('are not cut for a client that reads slowly, and are for one that does not read', () =>
    onTime(250, async () => {
      const size = 12 << 20
      const upstream = await scriptedUpstream(ends, () =>
        Buffer.concat([Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`), Buffer.alloc(size, 'x')]),
      )
      const proxy = await httpProxy({ ports: [upstream.port], timeouts: { idleMs: 600 } }, ends)
      const slow = proxy.connect()
      let got = 0
      slow.socket.removeAllListeners('data')
      slow.socket.on('data', (data: Buffer) => {
        got += data.length
        slow.socket.pause()
        setTimeout(() => slow.socket.resume(), 10)
      })
      slow.get()
      const stuck = proxy.connect()
      stuck.socket.pause()
      stuck.get()
      const [first] = await proxy.recorded(1)
      assert.equal(first?.reason, 'client_gone')
      assert.match(first?.detail ?? '', /the application does not take the body of the answer: no byte for 600 ms/)
      await until(() => got > size)
      assert.equal((await proxy.recorded(2))[1]?.reason, null)
    }))

  it('leave their connection in order for the next request, though the client has not read the end', async () => {
    const size = 9_000_000
    const upstream = await scriptedUpstream(ends, ({ target }) =>
      target === '/next'
        ? ok('next')
        : Buffer.concat([Buffer.from(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`), Buffer.alloc(size, 'x')]),
    )
    const proxy = await httpProxy({ ports: [upstream.port], timeouts: { requestMs: 3000 } }, ends)
    for (let i = 0; i < 12; i++) {
      const slow = proxy.connect()
      slow.socket.on('data', () => {
        slow.socket.pause()
        setImmediate(() => slow.socket.resume())
      })
      slow.get()
      await proxy.recorded(2 * i + 1)
      assert.equal((await proxy.connect().get('/next').response()).body, 'next')
      slow.socket.destroy()
    }
  })

  it('of a client that asks on and on and reads nothing are not asked for, and all come when it reads', {
    timeout: 60_000,
  }, async () => {
    const count = 800
    const body = Buffer.alloc(64 * 1024, 'x')
    const upstream = await scriptedUpstream(ends, ({ target }) =>
      Buffer.concat([
        Buffer.from(`HTTP/1.1 200 OK\r\nX-Number: ${target}\r\nContent-Length: ${body.length}\r\n\r\n`),
        body,
      ]),
    )
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    client.socket.pause()
    for (let i = 0; i < count; i++) client.get(`/${i}`)
    // The end of its requests is known while most of them still wait.
    client.tcp.end()
    await upstream.request(0)
    let asked = -1
    while (asked !== upstream.requests.length) {
      asked = upstream.requests.length
      await sleep(100)
    }
    assert.ok(asked < count / 2, `${asked} requests were sent on`)
    client.socket.resume()
    const text = await client.tcp.ended()
    const numbers = [...text.matchAll(/^X-Number: \/(\d+)\r$/gm)].map(([, number]) => Number(number))
    assert.deepEqual(
      numbers,
      Array.from({ length: count }, (_, i) => i),
    )
  })

  it('wait for an upstream that does not read', async () => {
    let upstreamSocket: Socket | null = null
    let got = 0
    const upstream = await tcpServer((socket) => {
      upstreamSocket = socket
      socket.pause()
      socket.on('data', (data: Buffer) => {
        got += data.length
      })
      socket.pause()
    })
    ends.push(() => upstream.close())
    const size = 48 << 20
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect().write(`POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${size}\r\n\r\n`)
    const piece = Buffer.alloc(1 << 20)
    for (let i = 0; i < size >> 20; i++) client.socket.write(piece)
    let left = -1
    while (left !== client.socket.writableLength) {
      left = client.socket.writableLength
      await sleep(100)
    }
    assert.ok(left > size / 2, `${left} bytes are still with the client`)
    upstreamSocket!.resume()
    await until(() => got > size)
    upstreamSocket!.write(ok('done'))
    assert.equal((await client.response()).body, 'done')
  })
})

describe('a client that half-closes', () => {
  it('gets the answer that it waits for', async () => {
    const upstream = await scriptedUpstream(ends, async () => {
      await sleep(60)
      return ok('late')
    })
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    client.tcp.end('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    const response = await client.response()
    assert.equal(response.body, 'late')
    assert.equal(response.field('connection'), 'close')
    await client.tcp.ended()
    await until(() => proxy.driver.open === 0)
  })

  it('gets the answers to all that it sent before', async () => {
    const upstream = await scriptedUpstream(ends, async ({ target }) => {
      await sleep(20)
      return ok(target)
    })
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    const post = 'POST /3 HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi'
    client.tcp.end(`GET /1 HTTP/1.1\r\nHost: a\r\n\r\nGET /2 HTTP/1.1\r\nHost: a\r\n\r\n${post}`)
    for (const path of ['/1', '/2', '/3']) assert.equal((await client.response()).body, path)
    await client.tcp.ended()
  })

  it('in the middle of a request is gone', async () => {
    const upstream = await scriptedUpstream(ends, () => ok())
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    client.tcp.end('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 5\r\n\r\nhel')
    await client.tcp.ended()
    assert.equal((await proxy.recorded(1))[0]?.reason, 'client_gone')
    assert.equal(upstream.requests.length, 0)
  })

  it('frees the upstream when it goes away while it waits', async () => {
    const upstream = await scriptedUpstream(ends, () => null)
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    client.tcp.end('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    const { socket } = await upstream.request(0)
    const closed = once(socket, 'close')
    await sleep(100)
    assert.equal(proxy.records.length, 0)
    client.socket.destroy()
    await closed
    assert.equal((await proxy.recorded(1))[0]?.reason, 'client_gone')
  })
})

describe('an upgrade', () => {
  const ASK = 'GET /ws HTTP/1.1\r\nHost: a\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Key: k\r\n\r\n'
  const SWITCH =
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Accept: s\r\n\r\n'

  it('becomes a tunnel, with the bytes right behind the 101 and behind the request', async () => {
    const upstream = await scriptedUpstream(ends, () => null, {
      onHead: ({ socket, head }) => {
        assert.match(head, /Upgrade: websocket\r\n/)
        assert.match(head, /Connection: Upgrade\r\n/)
        socket.write(`${SWITCH}hello`)
        socket.on('data', (data: Buffer) => socket.write(Buffer.concat([Buffer.from('<'), data, Buffer.from('>')])))
        return true
      },
    })
    const proxy = await httpProxy({ ports: [upstream.port], limits: { maxConnections: 1 } }, ends)
    const client = proxy.connect().write(`${ASK}early`)
    const expected =
      'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nSec-WebSocket-Accept: s\r\nConnection: Upgrade\r\n\r\nhello'
    assert.equal(await client.tcp.read(expected.length + 7), `${expected}<early>`)
    client.write('\x00\xff')
    assert.equal((await client.tcp.read(expected.length + 11)).slice(-4), '<\x00\xff>')
    assert.equal(proxy.cells.upgrades, 1)
    assert.equal(proxy.cluster.connections.used, 1)
    client.tcp.end()
    await client.tcp.ended()
    await until(() => proxy.cluster.connections.used === 0 && proxy.driver.open === 0)
  })

  it('passes half-closes and resets', async () => {
    const upstream = await scriptedUpstream(ends, () => null, {
      onHead: ({ socket, target }) => {
        socket.write(SWITCH)
        if (target === '/reset') setTimeout(() => socket.resetAndDestroy(), 30)
        else socket.removeAllListeners('end').on('end', () => socket.end('bye'))
        return true
      },
    })
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect().write(ASK)
    await client.tcp.read(80)
    client.tcp.end()
    assert.match(await client.tcp.ended(), /bye$/)
    const other = proxy.connect().write(ASK.replace('/ws', '/reset'))
    assert.equal(await other.tcp.closed(), 'ECONNRESET')
  })

  it('is recorded when it ends, with the bytes both ways, which are counted while it is open', async () => {
    const upstream = await scriptedUpstream(ends, () => null, {
      onHead: ({ socket }) => {
        socket.write(`${SWITCH}hello`)
        socket.on('data', (data: Buffer) => socket.write(Buffer.concat([data, data])))
        return true
      },
    })
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect().write(`${ASK}early`)
    await until(() => client.tcp.text.endsWith('earlyearly'))
    client.write('four')
    await until(() => client.tcp.text.endsWith('fourfour'))
    assert.deepEqual(proxy.cells.bytes, { request: 9, response: 5 + 18 })
    assert.equal(proxy.records.length, 0, 'it is not over')
    client.tcp.end()
    const [record] = await proxy.recorded(1)
    assert.equal(record?.status, 101)
    assert.equal(record?.reason, null)
    assert.equal(record?.detail, null)
    assert.equal(record?.requestBytes, 9)
    assert.equal(record?.responseBytes, 23)
    assert.ok(record.totalMs >= record.ttfbMs!)
    assert.deepEqual(proxy.cells.bytes, { request: 9, response: 23 })
    assert.equal(proxy.cells.byStatus[101]?.count, 1)
  })

  it('that is broken or idle is recorded with who was it', async () => {
    const upstream = await scriptedUpstream(ends, () => null, {
      onHead: ({ socket, target }) => {
        socket.write(SWITCH)
        socket.on('data', () => target === '/upstream' && socket.resetAndDestroy())
        return true
      },
    })
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const impatient = await httpProxy({ ports: [upstream.port], timeouts: { idleMs: 100 } }, ends)
    for (const who of ['upstream', 'client']) {
      const client = proxy.connect().write(ASK.replace('/ws', `/${who}`))
      await until(() => client.tcp.text.endsWith('\r\n\r\n'))
      if (who === 'upstream') client.write('x')
      else client.socket.resetAndDestroy()
      await until(() => proxy.cells.tunnels.size === 0)
    }
    impatient.connect().write(ASK)
    const [idle] = await impatient.recorded(1)
    const endpoint = `127.0.0.1:${upstream.port}`
    assert.deepEqual(
      [...proxy.records, idle!].map(({ path, status, reason, detail }) => [path, status, reason, detail]),
      [
        ['/upstream', 101, 'upstream_reset', `endpoint ${endpoint} broke the connection: ECONNRESET`],
        ['/client', 101, 'client_gone', 'the application broke the connection: ECONNRESET'],
        ['/ws', 101, null, 'no byte moved for 100 ms'],
      ],
    )
    assert.equal(proxy.cells.reasons.upstream_reset, 1)
    assert.equal(proxy.cells.reasons.client_gone, 1)
  })

  it('that is refused is an ordinary answer, and the connection goes on', async () => {
    const upstream = await scriptedUpstream(ends, ({ target }) => ok(target))
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    assert.equal((await client.write(ASK).response()).body, '/ws')
    assert.equal((await client.get('/next').response()).body, '/next')
  })
})

describe('draining', () => {
  it('closes idle connections at once and busy ones behind their answer, which says so', async () => {
    let answer: (text: string) => void = () => {}
    const upstream = await scriptedUpstream(ends, ({ target }) =>
      target === '/slow' ? new Promise<string>((resolve) => (answer = resolve)) : ok(target),
    )
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const idle = proxy.connect()
    await idle.get('/a').response()
    const busy = proxy.connect().get('/slow')
    await upstream.request(1)
    assert.deepEqual([proxy.driver.open, proxy.driver.busy], [2, 1])
    let isDrained = false
    const drained = proxy.driver.drain().then(() => {
      isDrained = true
    })
    await idle.tcp.ended()
    const late = proxy.connect().get('/late')
    assert.equal((await late.response()).field('connection'), 'close')
    assert.equal(isDrained, false)
    answer(ok('/slow'))
    const response = await busy.response()
    assert.equal(response.body, '/slow')
    assert.equal(response.field('connection'), 'close')
    await busy.tcp.ended()
    for (const client of [idle, busy, late]) client.tcp.end()
    await drained
  })
})

describe('a retry while draining', () => {
  it('is still made, for the application waits for its answer', async () => {
    let fail: () => void = () => {}
    const upstream = await scriptedUpstream(ends, ({ index, socket }) => {
      fail = () => socket.destroy()
      return index === 0 ? null : ok('second')
    })
    const proxy = await httpProxy({ ports: [upstream.port], retry: {} }, ends)
    const client = proxy.connect().get()
    await upstream.request(0)
    void proxy.driver.drain()
    fail()
    assert.equal((await client.response()).body, 'second')
  })
})

describe('a changed configuration', () => {
  it('serves the next request of a connection that lives on', async () => {
    const upstream = await scriptedUpstream(ends, () => ok())
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    await client.get().response()
    const line = Buffer.from('X-Key: new\r\n')
    const { upstream: before } = proxy.snapshot
    proxy.driver.update({
      ...proxy.snapshot,
      upstream: { ...before, credential: { name: 'x-key', line, failure: null }, credentialName: Buffer.from('x-key') },
    })
    await client.get().response()
    assert.deepEqual(
      upstream.requests.map((request) => request.field('x-key')),
      [null, 'new'],
    )
    assert.equal(upstream.connections, 1)
  })
})

describe('idle connections', () => {
  it('are closed before the server’s own time-out', async () => {
    const upstream = await scriptedUpstream(ends, () => ok('x', 'Keep-Alive: timeout=2, max=100'))
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const started = performance.now()
    const response = await proxy.connect().get().response()
    assert.equal(response.field('keep-alive'), null)
    const { socket } = upstream.requests[0]!
    if (!socket.readableEnded) await once(socket, 'end')
    const took = performance.now() - started
    // Without the server's word it would rest for four seconds.
    assert.ok(took >= 990 && took < 3900, String(took))
    assert.equal(proxy.cluster.connections.used, 0)
  })

  it('are not kept when the server says so, by field or by version', async () => {
    const answers = [ok('x', 'Connection: close'), ok().replace('1.1', '1.0'), ok('x', 'Keep-Alive: timeout=1')]
    const upstream = await scriptedUpstream(ends, ({ index }) => answers[index])
    const proxy = await httpProxy({ ports: [upstream.port] }, ends)
    const client = proxy.connect()
    for (const _ of answers) await client.get().response()
    assert.equal(upstream.connections, 3)
    assert.equal(proxy.cluster.connections.used, 0)
  })

  it('of an endpoint that discovery does not name any more are closed', async () => {
    const one = await scriptedUpstream(ends, () => ok('one'))
    const two = await scriptedUpstream(ends, () => ok('two'))
    const proxy = await httpProxy({ ports: [one.port] }, ends)
    const client = proxy.connect()
    await client.get().response()
    const closed = once(one.requests[0]!.socket, 'end')
    proxy.found([two.port])
    await closed
    assert.equal((await client.get().response()).body, 'two')
  })
})

function chunks(body: Buffer): Buffer {
  const pieces: Buffer[] = []
  for (let at = 0, i = 0; at < body.length; i++) {
    const piece = body.subarray(at, at + [1, 100_000, 17, 5000][i % 4]!)
    pieces.push(
      Buffer.from(`${piece.length.toString(16)}${i % 3 === 0 ? ';ext="a b"' : ''}\r\n`),
      piece,
      Buffer.from('\r\n'),
    )
    at += piece.length
  }
  return Buffer.concat([...pieces, Buffer.from('0\r\n\r\n')])
}

function dechunk(text: string): string {
  let content = ''
  for (let at = 0; ; ) {
    const lineEnd = text.indexOf('\r\n', at)
    const size = Number.parseInt(text.slice(at, lineEnd), 16)
    assert.ok(/^[0-9a-f]+$/i.test(text.slice(at, lineEnd)), 'no extension is passed on')
    if (size === 0) return content
    content += text.slice(lineEnd + 2, lineEnd + 2 + size)
    at = lineEnd + 2 + size + 2
  }
}
