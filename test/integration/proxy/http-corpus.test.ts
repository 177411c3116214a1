/** Hostile, legal and truncated traffic in both directions, on raw sockets through the proxy as a container runs it. */
import assert from 'node:assert/strict'
import type { Socket } from 'node:net'
import { after, before, describe, it } from 'node:test'
import { setTimeout as wait } from 'node:timers/promises'
import type { Message } from '../../helpers/codec.ts'
import { HttpTestClient } from '../../helpers/http-client.ts'
import { llhttp } from '../../helpers/llhttp.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { type TestClient, type TestServer, tcpServer } from '../../helpers/tcp.ts'
import { type Passed, REQUESTS } from './corpus/requests.ts'
import { type Expected, RESPONSES, type ResponseCase } from './corpus/responses.ts'

const NEXT = 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nnext'
/** Time in which what was written apart arrives apart. */
const APART_MS = 3

interface Taken extends Message {
  readonly bytes: Buffer
}

let upstream: TestServer
let proxy: ProxyProcess
let port = 0
/** Whole requests that the upstream got since the case began, read by llhttp. */
let taken: Taken[] = []
const wake: (() => void)[] = []
let answer: (socket: Socket, message: Message) => void = () => {}

/** llhttp does not know every method; what the request says apart from it is read all the same. */
function readable(bytes: Buffer): Buffer {
  const text = bytes.toString('latin1')
  const method = /^[^ \r\n]* /.exec(text)?.[0] ?? ''
  return Buffer.from(`POST ${text.slice(method.length)}`, 'latin1')
}

function serve(socket: Socket): void {
  let pending = Buffer.alloc(0)
  socket.on('end', () => socket.end())
  socket.on('data', (data: Buffer) => {
    pending = Buffer.concat([pending, data])
    for (;;) {
      const length = wholeRequest(pending)
      if (length === 0) return
      const own = pending.subarray(0, length)
      pending = pending.subarray(length)
      const [message] = llhttp('request', readable(own)).messages
      const method = own.toString('latin1', 0, own.indexOf(' '))
      const request = { ...message!, start: message!.start.replace(/^POST/, method), bytes: own }
      taken.push(request)
      for (const each of wake.splice(0)) each()
      answer(socket, request)
    }
  })
}

/** Bytes of the first request, 0 when it is not complete. */
function wholeRequest(bytes: Buffer): number {
  const headEnd = bytes.indexOf('\r\n\r\n') + 4
  if (headEnd < 4) return 0
  const head = bytes.toString('latin1', 0, headEnd)
  if (/\r\ntransfer-encoding:/i.test(head)) {
    for (let end = bytes.indexOf('\r\n\r\n', headEnd - 2); end >= 0; end = bytes.indexOf('\r\n\r\n', end + 1)) {
      if (end + 4 > headEnd && llhttp('request', readable(bytes.subarray(0, end + 4))).messages[0]?.isComplete)
        return end + 4
    }
    return 0
  }
  const length = Number(/\r\ncontent-length:\s*(\d+)/i.exec(head)?.[1] ?? 0)
  return bytes.length >= headEnd + length ? headEnd + length : 0
}

before(async () => {
  upstream = await tcpServer(serve)
  port = await freePort()
  proxy = await ProxyProcess.start({
    UPSTREAM_HOST: '127.0.0.1',
    UPSTREAM_PORT: String(upstream.port),
    LISTEN_PORT: String(port),
    RETRY_MAX: '0',
  })
  await proxy.ready()
})
after(async () => {
  await proxy.end()
  await upstream.close()
})

function open(): HttpTestClient {
  return new HttpTestClient({ port })
}

async function send(client: TestClient, bytes: string | readonly string[]): Promise<void> {
  client.socket.setNoDelay(true)
  client.socket.on('error', () => {})
  for (const piece of typeof bytes === 'string' ? [bytes] : bytes) {
    client.write(Buffer.from(piece, 'latin1'))
    if (typeof bytes !== 'string') await wait(bytes.length > 20 ? 1 : APART_MS)
  }
}

async function requests(count: number): Promise<void> {
  while (taken.length < count) await new Promise<void>((resolve) => wake.push(resolve))
}

/** Fields as `Name: value`, and behind them the trailers, which llhttp does not tell. */
function lines({ fields }: { readonly fields: readonly (readonly [string, string])[] }, bytes: Buffer): string[] {
  const text = bytes.toString('latin1')
  const last = text.lastIndexOf('\r\n0\r\n')
  const trailers = last < 0 || !/\r\ntransfer-encoding:/i.test(text) ? '' : text.slice(last + 5)
  return [...fields.map(([name, value]) => `${name}: ${value}`), ...trailers.split('\r\n')]
}

function assertHas(all: readonly string[], wanted: readonly string[] = [], unwanted: readonly string[] = []): void {
  let at = 0
  for (const each of wanted) {
    const found = all.indexOf(each, at)
    assert.ok(found >= 0, `'${each}' is missing in ${JSON.stringify(all)}`)
    at = found + 1
  }
  for (const name of unwanted) {
    const found = all.find((each) => each.toLowerCase().startsWith(`${name}:`))
    assert.equal(found, undefined, `'${found}' is there`)
  }
}

function assertPassed(request: Taken, { start, has, lacks, body }: Passed): void {
  assert.equal(request.start, start)
  assert.equal(request.body, body ?? '')
  assertHas(lines(request, request.bytes), has, lacks)
  const hosts = request.fields.filter(([name]) => name.toLowerCase() === 'host')
  assert.deepEqual(
    hosts.map(([, value]) => value),
    [`127.0.0.1:${upstream.port}`],
  )
}

async function assertRefused(client: HttpTestClient, statuses: readonly number[], isHead = false): Promise<void> {
  const refused = await client.response({ isHead })
  assert.ok(statuses.includes(refused.status), `${refused.status} is not ${statuses.join(' or ')}`)
  assert.equal(refused.field('connection'), 'close')
  assert.equal(refused.field('x-ambassador-reason'), 'bad_request')
  assert.equal(refused.field('content-type'), 'application/problem+json')
  assert.match(refused.field('proxy-status') ?? '', /^ambassador; error=/)
  await client.tcp.ended()
}

describe('requests', () => {
  for (const { title, send: bytes, refused, passed, thenRefused } of REQUESTS) {
    it(`${title} ${refused === undefined ? 'passes' : 'is refused'}`, { timeout: 60_000 }, async () => {
      taken = []
      answer = (socket) => socket.write(NEXT)
      const client = open()
      await send(client.tcp, bytes)
      if (refused !== undefined) {
        await assertRefused(client, refused)
        assert.deepEqual(taken, [])
        return
      }
      for (const [index, expected] of passed!.entries()) {
        await requests(index + 1)
        assertPassed(taken[index]!, expected)
        assert.equal((await client.response({ isHead: expected.start.startsWith('HEAD') })).status, 200)
      }
      if (thenRefused !== undefined) await assertRefused(client, thenRefused)
      else await wait(5)
      assert.equal(taken.length, passed!.length)
      client.socket.destroy()
    })
  }
})

const ASKS: Record<NonNullable<ResponseCase['request']>, string> = {
  GET: 'GET /case HTTP/1.1\r\nHost: a\r\n\r\n',
  HEAD: 'HEAD /case HTTP/1.1\r\nHost: a\r\n\r\n',
  POST: 'POST /case HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\n\r\nhi',
  old: 'GET /case HTTP/1.0\r\n\r\n',
  'old-keeps': 'GET /case HTTP/1.0\r\nConnection: keep-alive\r\n\r\n',
  upgrade: 'GET /case HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\r\n',
}

/** @param hasBegun some of the answer has reached the client */
async function answerWith(socket: Socket, one: ResponseCase, hasBegun: () => Promise<unknown>): Promise<void> {
  const { answer: bytes, ending = 'stays', expected } = one
  socket.setNoDelay(true)
  const pieces = typeof bytes === 'string' ? [bytes] : bytes
  for (const [index, piece] of pieces.entries()) {
    if (socket.destroyed) return
    if (piece !== '') socket.write(Buffer.from(piece, 'latin1'))
    // What breaks an answer that is under way must not come in one read with its head.
    if (index + 1 < pieces.length && index === 0 && expected === 'cut') await hasBegun()
    else if (index + 1 < pieces.length) await wait(APART_MS)
  }
  if (ending === 'fin') socket.end()
  if (ending !== 'reset') return
  if (expected === 'refused') await wait(APART_MS)
  else await hasBegun()
  socket.resetAndDestroy()
}

async function assertAnswer(client: HttpTestClient, expected: Expected, isHead: boolean): Promise<void> {
  if (expected.status === 101) {
    await client.tcp.read(12)
    while (!client.tcp.received.includes('\r\n\r\n')) await client.tcp.read(client.tcp.length + 1)
    assertHas(client.tcp.received.toString('latin1').split('\r\n'), expected.has)
    client.socket.destroy()
    return
  }
  const received = await client.response({ isHead })
  assert.equal(received.status, expected.status)
  assert.equal(received.body, expected.body ?? '')
  assert.deepEqual(client.interim, expected.interim ?? [])
  assertHas(lines(received, client.tcp.received), expected.has, expected.lacks)
  const text = client.tcp.received.toString('latin1')
  if (expected.line !== undefined) assert.equal(text.slice(0, text.indexOf('\r\n')), expected.line)
  if (expected.closes === true) {
    await client.tcp.ended()
    return
  }
  // What belongs to nobody must not be the answer to the next request, of this client or of another.
  await wait(2 * APART_MS)
  for (const each of [client, open()]) {
    each.get('/next')
    assert.equal((await each.response()).body, 'next')
    each.socket.destroy()
  }
}

describe('responses', () => {
  for (const one of RESPONSES) {
    const { title, request = 'GET', expected } = one
    const outcome =
      typeof expected === 'string'
        ? { refused: 'becomes 502', cut: 'is cut', either: 'becomes 502 or is cut' }[expected]
        : 'passes'
    it(`${title} (${request}) ${outcome}`, { timeout: 60_000 }, async () => {
      taken = []
      const client = open()
      answer = (socket, { start }) => {
        if (start.endsWith('/case')) answerWith(socket, one, () => client.tcp.read(12)).catch(() => {})
        else socket.write(NEXT)
      }
      client.socket.on('error', () => {})
      client.write(ASKS[request])
      if (typeof expected !== 'string') {
        await assertAnswer(client, expected, request === 'HEAD')
        return
      }
      if (expected === 'refused') {
        const refused = await client.response({ isHead: request === 'HEAD' })
        assert.equal(refused.status, 502)
        assert.equal(refused.field('x-ambassador-reason'), 'upstream_reset')
        assert.equal((await client.get('/next').response()).body, 'next')
        client.socket.destroy()
        return
      }
      await client.tcp.read(12)
      const status = client.tcp.received.toString('latin1', 9, 12)
      if (expected === 'either' && status === '502') {
        client.socket.destroy()
        return
      }
      await client.tcp.ended()
      const { messages } = llhttp('response', client.tcp.received, false, client.tcp.error === null)
      client.socket.destroy()
      assert.equal(status, '200')
      assert.ok(
        !messages[0]?.isComplete,
        `it looks complete: ${JSON.stringify(client.tcp.received.toString('latin1'))}`,
      )
    })
  }
})
