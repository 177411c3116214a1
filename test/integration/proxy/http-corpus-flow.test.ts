/** What happens between the bytes: replays, early answers, expectations, tunnels, truncation and clients that leave, through the proxy as a container runs it. */
import assert from 'node:assert/strict'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import type { Socket } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { afterEach, before, describe, it } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import type { Ambassador } from '../../../operator/api/ambassador.ts'
import { render } from '../../../operator/render/render.ts'
import { endsOfAll } from '../../helpers/ends.ts'
import { HttpTestClient } from '../../helpers/http-client.ts'
import { ok, type ReceivedRequest, type ScriptedUpstream, scriptedUpstream } from '../../helpers/http-upstream.ts'
import { onTime } from '../../helpers/on-time.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'

type Respond = (request: ReceivedRequest) => string | Buffer | null | undefined | Promise<string | null>
type OnHead = (request: Omit<ReceivedRequest, 'body'>) => boolean | undefined

const ends = endsOfAll()
let upstream: ScriptedUpstream
let proxy: ProxyProcess
let port = 0
let respond: Respond = () => ok()
let onHead: OnHead = () => undefined
/** Requests before the case. */
let base = 0
let clients: HttpTestClient[] = []

/** Servers that close each connection at its second request, and the one proxy in front of them, which knows them by their paths. */
const apart = (['fin', 'reset'] as const).flatMap((how) =>
  ['POST', 'PATCH', 'LOCK'].map((method) => ({
    how,
    method,
    path: `/${how}/${method}`,
    upstream: scriptedUpstream(ends, ({ index, socket }) => {
      if (index === 0) return ok()
      if (how === 'fin') socket.end()
      else socket.resetAndDestroy()
      return null
    }),
  })),
)
let apartPort = 0

async function startApart(): Promise<void> {
  apartPort = await freePort()
  const ports = await Promise.all(apart.map(async (each) => (await each.upstream).port))
  const upstreams = ports.map((each, i) => ({ name: `u${i}`, endpoints: [{ host: '127.0.0.1', port: each }] }))
  const routes = apart.map(({ path }, i) => ({ match: { path: { prefix: path } }, to: [{ upstream: `u${i}` }] }))
  const spec = { protocol: 'HTTP', listen: { port: apartPort }, upstreams, routes, retry: { maxRetries: 0 } }
  const { config, problems } = render({ ambassador: { metadata: { name: 'apart' }, spec } as unknown as Ambassador })
  assert.ok(config !== null, JSON.stringify(problems))
  const directory = mkdtempSync(join(tmpdir(), 'ambassador-flow-'))
  ends.push(() => rmSync(directory, { recursive: true }))
  writeFileSync(join(directory, 'config.json'), JSON.stringify(config))
  const started = await ProxyProcess.start({ AMBASSADOR_CONFIG: join(directory, 'config.json') })
  ends.push(() => started.end())
  await started.ready()
}

before(async () => {
  const isApart = startApart()
  upstream = await scriptedUpstream(ends, (request) => respond(request), { onHead: (request) => onHead(request) })
  port = await freePort()
  proxy = await ProxyProcess.start({
    UPSTREAM_HOST: '127.0.0.1',
    UPSTREAM_PORT: String(upstream.port),
    LISTEN_PORT: String(port),
    RETRY_MAX: '0',
  })
  ends.push(() => proxy.end())
  await proxy.ready()
  await isApart
})
afterEach(() => {
  for (const client of clients) client.socket.destroy()
  // No connection of one case is used in the next.
  for (const socket of upstream.server.sockets) socket.destroy()
  clients = []
  respond = () => ok()
  onHead = () => undefined
  base = upstream.requests.length
})

function open(at = port): HttpTestClient {
  const client = new HttpTestClient({ port: at })
  client.socket.setNoDelay(true)
  client.socket.on('error', () => {})
  clients.push(client)
  return client
}

/** Requests of this case so far. */
function seen(): readonly ReceivedRequest[] {
  return upstream.requests.slice(base)
}

async function closed(socket: Socket): Promise<void> {
  socket.resume()
  if (!socket.destroyed) await new Promise((resolve) => socket.once('close', resolve))
}

/** Every connection of the upstream is closed. */
async function freed(): Promise<void> {
  await Promise.all([...upstream.server.sockets].map(closed))
}

const lined = (method: string, ...lines: string[]): string =>
  `${method} HTTP/1.1\r\nHost: a\r\n${lines.map((line) => `${line}\r\n`).join('')}\r\n`

describe('a connection that its server closes as a request comes', () => {
  /** The first request of each connection is answered; the second meets the close. */
  function closesAtSecond(how: 'fin' | 'reset'): void {
    const used = new Set<number>()
    respond = ({ connection, socket, body, method }) => {
      if (!used.has(connection)) {
        used.add(connection)
        return method === 'HEAD' ? 'HTTP/1.1 200 OK\r\nContent-Length: 1\r\n\r\n' : ok(`got ${body.length}`)
      }
      if (how === 'fin') socket.end()
      else socket.resetAndDestroy()
      return null
    }
  }

  for (const how of ['fin', 'reset'] as const) {
    for (const [method, ...more] of [
      ['GET'],
      ['HEAD'],
      ['OPTIONS'],
      ['DELETE'],
      ['PUT'],
      ['POST', 'Idempotency-Key: k'],
    ] as const) {
      const name = `${method}${more.map((line) => ` with ${line}`).join('')}`
      it(`by ${how}: ${name} is sent once more`, async () => {
        closesAtSecond(how)
        const client = open()
        client.get('/first')
        assert.equal((await client.response()).status, 200)
        client.write(lined(`${method} /second`, 'Content-Length: 5', ...more)).write('hello')
        const response = await client.response({ isHead: method === 'HEAD' })
        assert.equal(response.status, 200)
        if (method !== 'HEAD') assert.equal(response.body, 'got 5')
        assert.equal(seen().filter(({ target }) => target === '/second').length, 2)
      })
    }
  }

  // How long a connection rests before one of these is trusted to it follows from the closes that its server was seen to make, and
  // from how late: each case has a server of its own.
  for (const { how, method, path, upstream: own } of apart) {
    it(`by ${how}: ${method} is not sent twice`, async () => {
      const client = open(apartPort)
      client.get(`${path}/first`)
      assert.equal((await client.response()).status, 200)
      client.write(lined(`${method} ${path}/second`, 'Content-Length: 5')).write('hello')
      const response = await client.response()
      assert.equal(response.status, 502)
      assert.equal(response.field('x-ambassador-reason'), 'upstream_reset')
      const { requests } = await own
      assert.deepEqual(
        requests.map(({ target }) => target),
        [`${path}/first`, `${path}/second`],
      )
    })
  }

  it('by fin: a body in chunks is sent once more as it was', async () => {
    closesAtSecond('fin')
    const client = open()
    client.get('/first')
    await client.response()
    // In one piece: what is not known to be short enough to be kept is not trusted to a connection that rested.
    client.write(`${lined('PUT /second', 'Transfer-Encoding: chunked')}5\r\nhello\r\n0\r\nX: y\r\n\r\n`)
    assert.equal((await client.response()).status, 200)
    const bodies = seen().map(({ body }) => body)
    assert.deepEqual(bodies.slice(1), Array(2).fill('5\r\nhello\r\n0\r\nX: y\r\n\r\n'))
  })

  it('a second close is an error, and there is no third try', async () => {
    let isFirst = true
    respond = ({ socket }) => {
      if (isFirst) {
        isFirst = false
        return ok()
      }
      socket.end()
      return null
    }
    const client = open()
    await client.get('/first').response()
    assert.equal((await client.get('/second').response()).status, 502)
    assert.equal(seen().filter(({ target }) => target === '/second').length, 2)
  })

  it('on a new connection it is an error at once', async () => {
    respond = ({ socket }) => {
      socket.end()
      return null
    }
    assert.equal((await open().get().response()).status, 502)
    assert.equal(seen().length, 1)
  })

  it('behind the first bytes of an answer it is an error at once', async () => {
    let isFirst = true
    respond = ({ socket }) => {
      if (isFirst) {
        isFirst = false
        return ok()
      }
      socket.end('HTTP/1.1 200 OK\r\nContent-Le')
      return null
    }
    const client = open()
    await client.get('/first').response()
    assert.equal((await client.get('/second').response()).status, 502)
    assert.equal(seen().length, 2)
  })

  it('while it rests costs nobody anything, POST neither', async () => {
    respond = ({ socket }) => {
      setTimeout(() => socket.end(), 5)
      return ok()
    }
    const client = open()
    for (let i = 0; i < 20; i++) {
      assert.equal((await client.post('hello').response()).status, 200)
      await closed(seen().at(-1)!.socket)
    }
    assert.equal(seen().length, 20)
  })

  it('right behind each answer costs no GET anything', async () => {
    respond = ({ socket }) => {
      setImmediate(() => socket.end())
      return ok()
    }
    const client = open()
    for (let i = 0; i < 200; i++) assert.equal((await client.get().response()).status, 200)
  })

  it('with Connection: close it is not used again', async () => {
    respond = ({ socket }) => {
      socket.end(ok('ok', 'Connection: close'))
      return null
    }
    const client = open()
    for (let i = 0; i < 20; i++) assert.equal((await client.post('x').response()).status, 200)
    assert.equal(new Set(seen().map(({ connection }) => connection)).size, 20)
  })
})

describe('a connection that rests', () => {
  for (const [title, bytes] of [
    ['an answer', 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil'],
    ['408 of a server that gives up', 'HTTP/1.1 408 Request Timeout\r\nContent-Length: 0\r\nConnection: close\r\n\r\n'],
    ['an empty line', '\r\n'],
    ['one byte', 'H'],
  ] as const) {
    it(`is closed when ${title} comes on it`, async () => {
      respond = ({ target }) => ok(target)
      const client = open()
      await client.get('/one').response()
      const [{ socket } = { socket: null as never }] = seen()
      socket.write(bytes)
      await closed(socket)
      assert.equal((await client.get('/two').response()).body, '/two')
      assert.equal(seen().length, 2)
    })
  }

  it('is used again, newest first', async () => {
    const client = open()
    for (let i = 0; i < 5; i++) await client.get().response()
    assert.equal(new Set(seen().map(({ connection }) => connection)).size, 1)
  })

  for (const fields of [['Keep-Alive: timeout=0'], ['Keep-Alive: timeout=1'], ['Connection: close']]) {
    it(`is not used again after '${fields}'`, async () => {
      respond = () => ok('ok', ...fields)
      const client = open()
      for (let i = 0; i < 3; i++) await client.get().response()
      assert.equal(new Set(seen().map(({ connection }) => connection)).size, 3)
    })
  }

  it('is closed a second before its server would, by Keep-Alive: timeout=2', () =>
    onTime(500, async () => {
      respond = () => ok('ok', 'Keep-Alive: timeout=2, max=100')
      const client = open()
      await client.get().response()
      const started = performance.now()
      await wait(100)
      await client.get().response()
      const [first, second] = seen().slice(-2)
      assert.equal(first!.connection, second!.connection)
      await closed(first!.socket)
      const took = performance.now() - started
      // Without the field it would rest for four seconds.
      assert.ok(took > 900 && took < 3500, String(took))
    }))

  it('with a server of HTTP/1.0 is one only when it says so', async () => {
    respond = () => 'HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok'
    const client = open()
    await client.get().response()
    await client.get().response()
    respond = () => 'HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok'
    await client.get().response()
    await client.get().response()
    const connections = seen().map(({ connection }) => connection)
    assert.equal(new Set(connections).size, 3)
    assert.equal(connections[2], connections[3])
  })
})

describe('an answer during an upload', () => {
  const TOO_LARGE = 'HTTP/1.1 413 Content Too Large\r\nContent-Length: 3\r\n'

  /** Sends up to 10 MB until it cannot. */
  async function upload(client: HttpTestClient, isChunked: boolean): Promise<void> {
    const framing = isChunked ? 'Transfer-Encoding: chunked' : 'Content-Length: 10485760'
    client.write(lined('POST /', framing))
    const piece = Buffer.alloc(1 << 16, 'x')
    for (let i = 0; i < 160 && !client.socket.destroyed; i++) {
      if (isChunked) client.write('10000\r\n')
      client.write(piece)
      if (isChunked) client.write('\r\n')
      if (client.socket.writableNeedDrain) {
        await Promise.race([once(client.socket, 'drain'), once(client.socket, 'close')])
      }
    }
    if (isChunked) client.write('0\r\n\r\n')
  }

  for (const isChunked of [false, true]) {
    for (const [title, answer] of [
      ['and closes', (socket: Socket) => socket.end(`${TOO_LARGE}Connection: close\r\n\r\nbig`)],
      ['and reads on', (socket: Socket) => socket.write(`${TOO_LARGE}\r\nbig`)],
      ['and reads nothing more', (socket: Socket) => socket.pause() && socket.write(`${TOO_LARGE}\r\nbig`)],
      [
        'and resets',
        (socket: Socket) => {
          socket.write(`${TOO_LARGE}\r\nbig`)
          setTimeout(() => socket.resetAndDestroy(), 50)
        },
      ],
    ] as const) {
      it(`arrives whole, 10 MB ${isChunked ? 'in chunks' : 'by length'}: the server answers ${title}`, async () => {
        onHead = ({ socket }) => {
          answer(socket)
          return true
        }
        const client = open()
        const sent = upload(client, isChunked)
        const response = await client.response()
        assert.equal(response.status, 413)
        assert.equal(response.body, 'big')
        assert.equal(response.field('connection'), 'close')
        await client.tcp.ended()
        assert.equal(client.tcp.error, null)
        client.socket.destroy()
        await sent
        await freed()
      })
    }
  }

  it('does not become the answer to what the client sends next', async () => {
    onHead = ({ socket, target }) => {
      if (target === '/next') return undefined
      socket.write(`${TOO_LARGE}\r\nbig`)
      return true
    }
    const client = open().write(lined('POST /', 'Content-Length: 5')).write('he')
    assert.equal((await client.response()).status, 413)
    client.write(`llo${lined('GET /next')}`)
    const all = await client.tcp.ended()
    assert.equal(all.match(/HTTP\/1\.1 /g)?.length, 1)
    assert.equal(seen().length, 0)
  })
})

describe('an error of ours during an upload', () => {
  /** Sends on as long as it can, then reads what came. */
  async function sends(client: HttpTestClient, head: string, piece: Buffer): Promise<void> {
    client.write(head)
    for (let i = 0; i < 160 && !client.socket.destroyed; i++) {
      client.write(piece)
      if (client.socket.writableNeedDrain) {
        await Promise.race([once(client.socket, 'drain'), once(client.socket, 'close'), wait(3000)])
      }
    }
  }

  const PIECE = Buffer.alloc(1 << 16, 'x')
  const CASES: readonly (readonly [title: string, status: number, head: string, piece: Buffer, onHead: OnHead])[] = [
    [
      'the server ends in the middle of it',
      502,
      lined('POST /', 'Content-Length: 10485760'),
      PIECE,
      ({ socket }) => socket.end() !== null,
    ],
    [
      'the server resets in the middle of it',
      502,
      lined('POST /', 'Content-Length: 10485760'),
      PIECE,
      ({ socket }) => socket.resetAndDestroy() !== null,
    ],
    [
      'the server answers nonsense in the middle of it',
      502,
      lined('POST /', 'Content-Length: 10485760'),
      PIECE,
      ({ socket }) => socket.write('nonsense\r\n\r\n') || true,
    ],
    ['a head without end', 431, 'GET / HTTP/1.1\r\nHost: a\r\nX: ', PIECE, () => undefined],
    ['fields without end', 431, lined('GET /').slice(0, -2), Buffer.from('X: y\r\n'.repeat(10_000)), () => undefined],
    ['a target without end', 414, 'GET /', PIECE, () => undefined],
    ['chunks that are none', 400, lined('POST /', 'Transfer-Encoding: chunked'), PIECE, () => undefined],
    ['a refused method', 405, lined('TRACE /', 'Content-Length: 10485760'), PIECE, () => undefined],
    [
      'a refused framing',
      400,
      lined('POST /', 'Content-Length: 10485760', 'Transfer-Encoding: chunked'),
      PIECE,
      () => undefined,
    ],
  ]
  for (const [title, status, head, piece, handler] of CASES) {
    it(`can be read: ${title}`, async () => {
      onHead = handler
      const client = open()
      const sent = sends(client, head, piece)
      const response = await client.response()
      assert.equal(response.status, status)
      assert.equal(response.field('connection'), 'close')
      await client.tcp.ended()
      assert.equal(client.tcp.error, null)
      client.socket.destroy()
      await sent
      assert.equal(seen().length, 0)
    })
  }

  it('to HEAD has no body', async () => {
    respond = ({ socket }) => {
      socket.end()
      return null
    }
    const client = open().write(lined('HEAD /')).write(lined('HEAD /'))
    for (let i = 0; i < 2; i++) {
      const response = await client.response({ isHead: true })
      assert.equal(response.status, 502)
      assert.ok(Number(response.field('content-length')) > 0)
    }
    client.write('HEAD / HTTP/1.1\r\n\r\n')
    assert.equal((await client.response({ isHead: true })).status, 400)
    assert.match(await client.tcp.ended(), /\r\n\r\n$/)
  })

  it('to HTTP/1.0 ends its connection, or says that it goes on', async () => {
    respond = ({ socket }) => {
      socket.end()
      return null
    }
    const one = open().write('GET / HTTP/1.0\r\n\r\n')
    assert.equal((await one.response()).field('connection'), 'close')
    await one.tcp.ended()
    const other = open().write('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')
    assert.equal((await other.response()).field('connection'), 'keep-alive')
    respond = () => ok()
    other.write('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')
    assert.equal((await other.response()).status, 200)
  })

  it('is what an answer without end of its head becomes', async () => {
    respond = ({ socket }) => {
      socket.on('error', () => {})
      const more = (): void => {
        while (!socket.destroyed && socket.write(PIECE)) {}
      }
      socket.write('HTTP/1.1 200 OK\r\nX: ')
      socket.on('drain', more)
      more()
      return null
    }
    const client = open().get()
    assert.equal((await client.response()).status, 502)
    await freed()
  })
})

describe('Expect: 100-continue', () => {
  const WAITS = lined('PUT /', 'Expect: 100-continue', 'Content-Length: 5')
  const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n'

  for (const status of [200, 401, 403, 413, 417, 500]) {
    it(`${status} before the body is the answer, and the connection ends`, async () => {
      onHead = ({ socket }) => {
        socket.write(`HTTP/1.1 ${status} x\r\nContent-Length: 2\r\n\r\nno`)
        return true
      }
      const client = open().write(WAITS)
      const response = await client.response()
      assert.equal(response.status, status)
      assert.equal(response.body, 'no')
      assert.equal(response.field('connection'), 'close')
      assert.deepEqual(client.interim, [])
      await client.tcp.ended()
    })
  }

  it('a body that follows an early final answer is not a request', async () => {
    onHead = ({ socket }) => {
      socket.write('HTTP/1.1 417 x\r\nContent-Length: 0\r\n\r\n')
      return true
    }
    const smuggled = lined('GET /evil')
    const client = open().write(lined('PUT /', 'Expect: 100-continue', `Content-Length: ${smuggled.length}`))
    assert.equal((await client.response()).status, 417)
    client.write(smuggled)
    const all = await client.tcp.ended()
    assert.equal(all.match(/HTTP\/1\.1 /g)?.length, 1)
    assert.equal(seen().length, 0)
  })

  it('100 and 103 pass in order', async () => {
    onHead = ({ socket }) => {
      onHead = () => undefined
      socket.write(`HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n${CONTINUE}`)
      return undefined
    }
    const client = open().write(WAITS)
    await client.tcp.read(CONTINUE.length + 40)
    client.write('hello')
    assert.equal((await client.response()).status, 200)
    assert.deepEqual(client.interim, [103, 100])
    assert.equal(seen()[0]?.body, 'hello')
  })

  it('a server that says nothing for a second gets the body all the same, and its later 100 is not passed on', async () => {
    respond = () => `${CONTINUE}${ok('done')}`
    const client = open().write(WAITS)
    assert.equal(await client.tcp.read(CONTINUE.length), CONTINUE)
    client.write('hello')
    assert.equal((await client.response()).body, 'done')
    assert.deepEqual(client.interim, [100])
  })

  it('is not case-sensitive, holds for chunks, and nothing of the body goes before the 100', async () => {
    let early = ''
    onHead = ({ socket }) => {
      onHead = () => undefined
      socket.on('data', (data) => (early += data))
      setTimeout(() => {
        assert.equal(early, '')
        socket.write(CONTINUE)
      }, 100)
      return undefined
    }
    const client = open().write(lined('PUT /', 'expect: 100-Continue', 'Transfer-Encoding: chunked'))
    await client.tcp.read(CONTINUE.length)
    client.write('5\r\nhello\r\n0\r\n\r\n')
    assert.equal((await client.response()).status, 200)
    assert.equal(seen()[0]?.body, '5\r\nhello\r\n0\r\n\r\n')
  })

  it('without a body is nothing to wait for', async () => {
    // It would wait for a second each time; a machine that stands still does so now and then.
    let tookMs = Number.POSITIVE_INFINITY
    for (let i = 0; i < 5 && tookMs >= 900; i++) {
      const started = performance.now()
      assert.equal((await open().get('/', 'Expect: 100-continue').response()).status, 200)
      tookMs = performance.now() - started
    }
    assert.ok(tookMs < 900, String(tookMs))
  })

  it('of HTTP/1.0 is ignored', async () => {
    const client = open().write('PUT / HTTP/1.0\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n')
    await wait(1200)
    assert.equal(client.tcp.length, 0)
    client.write('hello')
    assert.equal((await client.response()).status, 200)
    assert.deepEqual(client.interim, [])
    assert.equal(seen()[0]?.field('expect'), null)
  })

  it('that nobody knows is for the server to refuse', async () => {
    respond = ({ field }) => (field('expect') === 'magic' ? 'HTTP/1.1 417 x\r\nContent-Length: 0\r\n\r\n' : ok())
    assert.equal((await open().post('hello', 'Expect: magic').response()).status, 417)
  })

  it('a client that leaves while it waits frees the upstream', async () => {
    let socket: Socket | null = null
    onHead = (request) => {
      socket = request.socket
      return true
    }
    const client = open().write(WAITS)
    while (socket === null) await wait(2)
    client.socket.destroy()
    await closed(socket)
  })
})

describe('a tunnel', () => {
  const ASK = lined('GET /ws', 'Connection: keep-alive, Upgrade', 'Upgrade: WebSocket', 'Sec-WebSocket-Version: 13')
  const SWITCHED = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n'

  /** Whatever comes goes back. */
  function echoes(first = ''): void {
    onHead = ({ socket, target }) => {
      if (target !== '/ws') return undefined
      socket.write(Buffer.from(`${SWITCHED}${first}`, 'latin1'))
      socket.removeAllListeners('end')
      socket.pipe(socket)
      return true
    }
  }

  async function behindHead(client: HttpTestClient, length: number): Promise<string> {
    for (;;) {
      const text = client.tcp.received.toString('latin1')
      const end = text.indexOf('\r\n\r\n') + 4
      if (end >= 4 && text.length >= end + length) return text.slice(end)
      await client.tcp.read(text.length + 1)
    }
  }

  it('has the bytes right behind the 101', async () => {
    echoes('\x81\x05hello')
    assert.equal(await behindHead(open().write(ASK), 7), '\x81\x05hello')
  })

  it('has the bytes right behind the request, and they are not read as a request', async () => {
    echoes()
    const evil = lined('GET /evil')
    assert.equal(await behindHead(open().write(`${ASK}${evil}`), evil.length), evil)
    assert.equal(seen().length, 0)
  })

  it('carries megabytes both ways at once', async () => {
    echoes()
    const client = open().write(ASK)
    await behindHead(client, 0)
    const size = 5 << 20
    client.write(Buffer.alloc(size, 'x'))
    await client.tcp.read(size)
    await behindHead(client, size)
  })

  it('passes a half-close on, and what comes afterwards', async () => {
    onHead = ({ socket }) => {
      socket.removeAllListeners('end')
      socket.write(SWITCHED)
      socket.on('end', () => socket.end('bye'))
      return true
    }
    const client = open().write(ASK)
    await behindHead(client, 0)
    client.tcp.end()
    assert.match(await client.tcp.ended(), /bye$/)
  })

  it('is cut by a reset of the server', async () => {
    onHead = ({ socket }) => {
      socket.write(SWITCHED)
      setTimeout(() => socket.resetAndDestroy(), 50)
      return true
    }
    const client = open().write(ASK)
    await behindHead(client, 0)
    await client.tcp.ended()
  })

  it('is cut at the server when the client leaves', async () => {
    echoes()
    const client = open().write(ASK)
    await behindHead(client, 0)
    client.socket.resetAndDestroy()
    await freed()
  })

  it('is none when the server answers otherwise, and the next request is served', async () => {
    respond = ({ target }) => (target === '/ws' ? 'HTTP/1.1 403 x\r\nContent-Length: 0\r\n\r\n' : ok(target))
    const client = open().write(`${ASK}${lined('GET /next')}`)
    assert.equal((await client.response()).status, 403)
    assert.equal((await client.response()).body, '/next')
  })
})

describe('OPTIONS that may not be passed on', () => {
  it('is answered with what is offered, and nobody else gets it', async () => {
    const client = open()
      .write(lined('OPTIONS *', 'Max-Forwards: 0', 'Content-Length: 2'))
      .write('hi')
    const response = await client.response()
    assert.equal(response.status, 200)
    assert.match(response.field('allow') ?? '', /GET, .*OPTIONS/)
    assert.equal(response.field('connection'), 'close')
    await client.tcp.ended()
    assert.equal(seen().length, 0)
  })
})

describe('pipelined requests', () => {
  it('are answered in order, whoever is quicker', async () => {
    respond = async ({ target }) => {
      await wait(target === '/0' ? 80 : 1)
      return ok(target)
    }
    const client = open().write(Array.from({ length: 20 }, (_, i) => lined(`GET /${i}`)).join(''))
    for (let i = 0; i < 20; i++) assert.equal((await client.response()).body, `/${i}`)
  })

  it('behind answers without a body', async () => {
    respond = ({ target, method }) => {
      if (target === '/204') return 'HTTP/1.1 204 x\r\n\r\n'
      if (target === '/304') return 'HTTP/1.1 304 x\r\nContent-Length: 9\r\n\r\n'
      return method === 'HEAD' ? 'HTTP/1.1 200 x\r\nContent-Length: 9\r\n\r\n' : ok(target)
    }
    const client = open().write(
      `${lined('GET /204')}${lined('HEAD /h')}${lined('GET /304')}${lined('GET /1')}${lined('HEAD /h')}${lined('GET /2')}`,
    )
    assert.equal((await client.response()).status, 204)
    assert.equal((await client.response({ isHead: true })).status, 200)
    assert.equal((await client.response()).status, 304)
    assert.equal((await client.response()).body, '/1')
    await client.response({ isHead: true })
    assert.equal((await client.response()).body, '/2')
  })

  it('are not served behind an answer that was cut', async () => {
    respond = ({ socket, target }) => {
      if (target === '/1') {
        socket.end('HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf')
        return null
      }
      return ok(target)
    }
    const client = open().write(`${lined('GET /1')}${lined('GET /2')}`)
    assert.match(await client.tcp.ended(), /half$/)
    assert.equal(seen().length, 1)
  })

  it('go on behind an error of ours', async () => {
    respond = ({ socket, target }) => {
      if (target === '/1') socket.end()
      return target === '/1' ? null : ok(target)
    }
    const client = open().write(`${lined('POST /1', 'Content-Length: 0')}${lined('GET /2')}`)
    assert.equal((await client.response()).status, 502)
    assert.equal((await client.response()).body, '/2')
  })

  it('wait while the client reads nothing, with a bound', async () => {
    respond = () => ok('x'.repeat(1 << 16))
    const client = open()
    client.socket.pause()
    const all = lined('GET /').repeat(4000)
    client.write(all)
    let before = -1
    while (before !== seen().length) {
      before = seen().length
      await wait(300)
    }
    assert.ok(before < 2000, `${before} were asked for though nobody reads`)
  })
})

describe('a request that is cut short', () => {
  const WHOLE = `${lined('POST /', 'Content-Length: 5')}hello`
  const CHUNKED = `${lined('POST /', 'Transfer-Encoding: chunked')}5\r\nhello\r\n0\r\n\r\n`
  for (const [title, bytes] of [
    ['by length', WHOLE],
    ['in chunks', CHUNKED],
  ] as const) {
    for (const how of ['fin', 'reset'] as const) {
      it(`${title}, at each byte, by ${how}: never reaches the upstream as a whole`, async () => {
        const cuts = Array.from({ length: bytes.length - 1 }, (_, i) => i + 1)
        await Promise.all(
          cuts.map(async (length) => {
            const client = open()
            await once(client.socket, 'connect')
            client.write(bytes.slice(0, length))
            if (how === 'fin') {
              client.tcp.end()
              await client.tcp.ended()
            } else {
              await wait(20)
              client.socket.resetAndDestroy()
            }
          }),
        )
        await wait(50)
        assert.deepEqual(
          seen().map(({ body }) => body),
          [],
        )
        assert.equal((await open().get('/alive').response()).status, 200)
      })
    }
  }
})

describe('a client that half-closes behind its request', () => {
  it('gets a late answer', async () => {
    respond = async () => {
      await wait(300)
      return ok('late')
    }
    const client = open()
    client.tcp.end(lined('GET /'))
    assert.equal((await client.response()).body, 'late')
    await client.tcp.ended()
    assert.equal(client.tcp.error, null)
  })

  for (const framing of ['length', 'chunks', 'the end of the connection'] as const) {
    it(`gets all of 8 MB by ${framing}`, async () => {
      const size = 8 << 20
      const body = Buffer.alloc(size, 'x')
      respond = ({ socket }) => {
        if (framing === 'length') socket.write(`HTTP/1.1 200 OK\r\nContent-Length: ${size}\r\n\r\n`)
        else if (framing === 'chunks') socket.write(`HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n800000\r\n`)
        else socket.write('HTTP/1.1 200 OK\r\n\r\n')
        socket.write(body)
        if (framing === 'chunks') socket.write('\r\n0\r\n\r\n')
        if (framing === 'the end of the connection') socket.end()
        return null
      }
      const client = open()
      client.tcp.end(lined('GET /'))
      await client.tcp.ended()
      assert.equal(client.tcp.error, null)
      assert.ok(client.tcp.length > size)
      assert.equal((await client.response()).body.length, size)
    })
  }

  it('gets the answer to a body that it sent whole', async () => {
    respond = ({ body }) => ok(body)
    const client = open()
    client.tcp.end(`${lined('POST /', 'Content-Length: 5')}hello`)
    assert.equal((await client.response()).body, 'hello')
  })
})

describe('a client that leaves', () => {
  const STATES: readonly (readonly [title: string, send: string, respond: Respond, onHead: OnHead])[] = [
    ['while it waits', lined('GET /'), () => null, () => undefined],
    [
      'in the middle of an answer',
      lined('GET /'),
      () => 'HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\nhalf',
      () => undefined,
    ],
    [
      'in the middle of chunks',
      lined('GET /'),
      () => 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n4\r\nhalf\r\n',
      () => undefined,
    ],
    ['in the middle of its body', `${lined('POST /', 'Content-Length: 9')}half`, () => null, () => true],
    ['behind an interim answer', lined('GET /'), () => 'HTTP/1.1 103 x\r\n\r\n', () => undefined],
  ]
  for (const [title, bytes, answer, head] of STATES) {
    for (const how of ['close', 'reset'] as const) {
      it(`${title}, by ${how}, frees the upstream at once`, async () => {
        respond = answer
        let socket: Socket | null = null
        onHead = (request) => {
          socket = request.socket
          return head(request)
        }
        const client = open().write(bytes)
        while (socket === null) await wait(2)
        await wait(50)
        const started = performance.now()
        if (how === 'close') client.socket.destroy()
        else client.socket.resetAndDestroy()
        await closed(socket)
        assert.ok(performance.now() - started < 10_000, String(performance.now() - started))
      })
    }
  }
})

describe('a client that leaves unseen, for nothing is read from it', () => {
  for (const how of ['close', 'reset'] as const) {
    it(`because its upload is not taken, frees the upstream within seconds after a ${how}`, async () => {
      let socket: Socket | null = null
      onHead = (request) => {
        socket = request.socket.pause()
        return true
      }
      const client = open().write(lined('POST /', 'Content-Length: 100000000'))
      const piece = Buffer.alloc(1 << 20)
      for (let i = 0; i < 64; i++) client.write(piece)
      while (socket === null) await wait(2)
      let taken = -1
      while (taken !== client.socket.bytesWritten - client.socket.writableLength) {
        taken = client.socket.bytesWritten - client.socket.writableLength
        await wait(200)
      }
      proxy.forget()
      if (how === 'close') client.socket.destroy()
      else client.socket.resetAndDestroy()
      // Of the close of a connection that it does not read the upstream would hear nothing.
      await proxy.line((line) => line['reason'] === 'client_gone')
      await closed(socket)
    })
  }

  it('because it sent requests far ahead, frees the upstream within seconds', async () => {
    respond = () => null
    const client = open().write(lined('GET /').repeat(4000))
    while (seen().length === 0) await wait(2)
    const [{ socket } = { socket: null as never }] = seen()
    await wait(200)
    client.socket.destroy()
    await closed(socket)
    assert.equal(seen().length, 1)
  })
})

describe('large answers that are cut', () => {
  for (const how of ['fin', 'reset'] as const) {
    for (const [framing, head] of [
      ['length', 'Content-Length: 10485760'],
      ['chunks', 'Transfer-Encoding: chunked'],
    ] as const) {
      it(`by ${framing} and ${how}, are seen as cut, with what came before`, async () => {
        const half = Buffer.alloc(5 << 20, 'x')
        respond = ({ socket }) => {
          socket.write(`HTTP/1.1 200 OK\r\n${head}\r\n\r\n`)
          if (framing === 'chunks') socket.write('500000\r\n')
          socket.write(half, () => {
            if (how === 'fin') socket.end()
            else setTimeout(() => socket.resetAndDestroy(), 300)
          })
          return null
        }
        const client = open().get()
        const text = await client.tcp.ended()
        assert.doesNotMatch(text.slice(-20), /\r\n0\r\n\r\n/)
        assert.ok(text.length < 10 << 20)
        assert.ok(text.length > 5 << 20 || client.tcp.error !== null, `${text.length} bytes`)
      })
    }
  }
})
