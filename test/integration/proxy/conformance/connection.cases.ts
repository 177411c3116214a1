/** What happens on connections: each case is a conversation with the proxy from both sides. */
import assert from 'node:assert/strict'
import type { Bench, UpstreamWire, Wire } from './wire.ts'

export interface ConnectionCase {
  readonly name: string
  readonly run: (bench: Bench) => Promise<void>
}

const get = (path = '/', ...lines: string[]): string =>
  `GET ${path} HTTP/1.1\r\nHost: a\r\n${lines.map((each) => `${each}\r\n`).join('')}\r\n`
const post = (body: string, ...lines: string[]): string =>
  `POST / HTTP/1.1\r\nHost: a\r\nContent-Length: ${body.length}\r\n${lines.map((each) => `${each}\r\n`).join('')}\r\n${body}`
const ok = (body: string, ...lines: string[]): string =>
  `HTTP/1.1 200 OK\r\nContent-Length: ${body.length}\r\n${lines.map((each) => `${each}\r\n`).join('')}\r\n${body}`
const path = (request: string): string => request.split(' ')[1]!
const UPGRADE = get('/chat', 'Upgrade: websocket', 'Connection: Upgrade')
const SWITCH = 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n'
const CONTINUE = 'HTTP/1.1 100 Continue\r\n\r\n'
/** Of a server that waited for a request too long. */
const GIVEN_UP = 'HTTP/1.1 408 Request Timeout\r\nConnection: close\r\nContent-Length: 0\r\n\r\n'

/** Answers each request with its path. */
const echo = (wire: UpstreamWire, request: string): void => void wire.send(ok(path(request)))

/** A request that was answered, so that an idle connection is behind the proxy. */
async function warm(bench: Bench): Promise<{ client: Wire; wire: UpstreamWire }> {
  const client = bench.client()
  await client.send(get('/warm'))
  const wire = await bench.upstream.wire()
  await wire.request()
  await wire.send(ok('warm'))
  await client.has(/warm$/)
  return { client, wire }
}

async function tunnel(bench: Bench, behind = ''): Promise<{ client: Wire; wire: UpstreamWire }> {
  const client = bench.client()
  await client.send(UPGRADE)
  const wire = await bench.upstream.wire()
  await wire.request()
  await wire.send(SWITCH + behind)
  await client.until('the switch', () => client.isOver || client.length >= SWITCH.length + behind.length)
  assert.equal(client.text, SWITCH + behind)
  return { client, wire }
}

const conversation = (cases: Readonly<Record<string, (bench: Bench) => Promise<void>>>): ConnectionCase[] =>
  Object.entries(cases).map(([name, run]) => ({ name, run }))

const isProblem = (text: string, status: number, reason: string): void => {
  assert.match(text, new RegExp(`^HTTP/1\\.1 ${status} `))
  assert.match(text, new RegExp(`\r\nX-Ambassador-Reason: ${reason}\r\n`))
}

export const KEEP_ALIVE: readonly ConnectionCase[] = conversation({
  'a client connection takes request after request, on one upstream connection': async (bench) => {
    bench.upstream.respond = echo
    const client = bench.client()
    let expected = ''
    for (let i = 0; i < 20; i++) {
      await client.send(get(`/${i}`))
      expected += ok(`/${i}`)
      await client.until(`answer ${i}`, () => client.length >= expected.length || client.isOver)
      assert.equal(client.text, expected)
    }
    assert.equal(bench.upstream.wires.length, 1)
  },
  'twenty pipelined requests are answered in order': async (bench) => {
    bench.upstream.respond = echo
    const client = bench.client()
    const paths = Array.from({ length: 20 }, (_, i) => `/${i}`)
    await client.send(paths.map((each) => get(each)).join(''))
    const expected = paths.map((each) => ok(each)).join('')
    await client.until('all answers', () => client.length >= expected.length || client.isOver)
    assert.equal(client.text, expected)
  },
  'three thousand pipelined requests are answered in order': async (bench) => {
    bench.upstream.respond = echo
    const client = bench.client()
    const paths = Array.from({ length: 3000 }, (_, i) => `/${i}`)
    await client.send(paths.map((each) => get(each)).join(''))
    const expected = paths.map((each) => ok(each)).join('')
    await client.until('all answers', () => client.length >= expected.length || client.isOver)
    assert.equal(client.text === expected, true)
    assert.equal(bench.upstream.wires.length, 1)
  },
  'pipelined requests byte by byte are answered in order': async (bench) => {
    bench.upstream.respond = echo
    const client = bench.client()
    await client.send(get('/1') + post('hello') + get('/2'), 'bytewise')
    const expected = ok('/1') + ok('/') + ok('/2')
    await client.until('all answers', () => client.length >= expected.length || client.isOver)
    assert.equal(client.text, expected)
  },
  'pipelined requests with bodies of both kinds are told apart': async (bench) => {
    const bodies: string[] = []
    bench.upstream.respond = (wire, request) => {
      bodies.push(request.slice(request.indexOf('\r\n\r\n') + 4))
      echo(wire, request)
    }
    const client = bench.client()
    const chunks = 'POST /c HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n'
    await client.send(post('GET /x HTTP/1.1\r\n\r\n') + chunks + get('/d'))
    await client.has(/\/d$/)
    assert.deepEqual(bodies, ['GET /x HTTP/1.1\r\n\r\n', '5\r\nhello\r\n0\r\n\r\n', ''])
  },
  'a slow first answer holds the second one back': async (bench) => {
    const client = bench.client()
    await client.send(get('/1') + get('/2'))
    const wire = await bench.upstream.wire()
    await wire.request()
    assert.equal(bench.upstream.wires.length, 1)
    assert.equal(wire.text.includes('/2'), false, 'the second request waits')
    await wire.send(ok('one'))
    await wire.request(1)
    await wire.send(ok('two'))
    await client.has(/two$/)
    assert.equal(client.text, ok('one') + ok('two'))
  },
  'nothing is answered behind a request that says close': async (bench) => {
    bench.upstream.respond = echo
    const client = bench.client()
    await client.send(get('/1', 'Connection: close') + get('/2'))
    const text = await client.over()
    assert.equal(text, 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nConnection: close\r\n\r\n/1')
    assert.equal(bench.upstream.requests.length, 1)
  },
  'a pipelined request that is hostile is answered behind the good one': async (bench) => {
    bench.upstream.respond = echo
    const client = bench.client()
    await client.send(`${get('/1')}GET / HTTP/1.1\r\n\r\n${get('/3')}`)
    const text = await client.over()
    assert.ok(text.startsWith(ok('/1')))
    isProblem(text.slice(ok('/1').length), 400, 'bad_request')
    assert.equal(bench.upstream.requests.length, 1)
  },
  'bytes behind the body of a request are the next one, not part of it': async (bench) => {
    bench.upstream.respond = echo
    const client = bench.client()
    await client.send(`${post('hello')}garbage\r\n\r\n`)
    const text = await client.over()
    assert.ok(text.startsWith(ok('/')))
    isProblem(text.slice(ok('/').length), 400, 'bad_request')
    assert.match(bench.upstream.requests[0]!, /\r\n\r\nhello$/)
  },
  'Connection: close of the upstream does not end the client connection': async (bench) => {
    bench.upstream.respond = (wire, request) => {
      void wire.send(ok(path(request), 'Connection: close'))
      wire.end()
    }
    const client = bench.client()
    for (const each of ['/1', '/2', '/3']) {
      await client.send(get(each))
      await client.has(new RegExp(`${each}$`))
    }
    assert.equal(client.text, ok('/1') + ok('/2') + ok('/3'))
    assert.equal(bench.upstream.wires.length, 3)
  },
  'Connection: close of the client does not end the upstream connection': async (bench) => {
    bench.upstream.respond = echo
    for (const each of ['/1', '/2']) {
      const client = bench.client()
      await client.send(get(each, 'Connection: close'))
      await client.over()
    }
    assert.equal(bench.upstream.wires.length, 1)
  },
  'a connection of HTTP/1.0 ends behind its answer': async (bench) => {
    bench.upstream.respond = echo
    const client = bench.client()
    await client.send('GET /1 HTTP/1.0\r\n\r\n')
    assert.match(await client.over(), /Connection: close\r\n\r\n\/1$/)
  },
  'a connection of HTTP/1.0 with keep-alive goes on, and says so': async (bench) => {
    bench.upstream.respond = echo
    const client = bench.client()
    for (const each of ['/1', '/2']) {
      await client.send(`GET ${each} HTTP/1.0\r\nConnection: keep-alive\r\n\r\n`)
      await client.has(new RegExp(`Connection: keep-alive\r\n\r\n${each}$`, 'i'))
    }
  },
  'a connection of HTTP/1.0 with keep-alive ends behind a body of unknown length': async (bench) => {
    bench.upstream.respond = (wire) =>
      void wire.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n')
    const client = bench.client()
    await client.send('GET / HTTP/1.0\r\nConnection: keep-alive\r\n\r\n')
    assert.equal(await client.over(), 'HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nok')
  },
  'HTTP/1.0 of the upstream without keep-alive is not used again': async (bench) => {
    bench.upstream.respond = (wire, request) =>
      void wire.send(`HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n${path(request)}`)
    const client = bench.client()
    for (const each of ['/1', '/2']) {
      await client.send(get(each))
      await client.has(new RegExp(`${each}$`))
    }
    assert.equal(bench.upstream.wires.length, 2)
    await bench.upstream.wires[0]!.over()
  },
  'HTTP/1.0 of the upstream with keep-alive is used again': async (bench) => {
    bench.upstream.respond = (wire, request) =>
      void wire.send(`HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\n${path(request)}`)
    const client = bench.client()
    for (const each of ['/1', '/2']) {
      await client.send(get(each))
      await client.has(new RegExp(`${each}$`))
    }
    assert.equal(bench.upstream.wires.length, 1)
  },
  'answers to HEAD, 204 and 304 leave both connections in order': async (bench) => {
    const answers: Record<string, string> = {
      '/head': 'HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n',
      '/chunked': 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n',
      '/204': 'HTTP/1.1 204 No Content\r\n\r\n',
      '/304': 'HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n',
    }
    bench.upstream.respond = (wire, request) => void wire.send(answers[path(request)] ?? ok('end'))
    const client = bench.client()
    const head = (each: string): string => get(each).replace('GET', 'HEAD')
    await client.send(head('/head') + get('/204') + head('/chunked') + get('/304') + get('/end'))
    await client.has(/end$/)
    assert.equal(
      client.text,
      answers['/head']! + answers['/204']! + answers['/chunked']! + answers['/304']! + ok('end'),
    )
    assert.equal(bench.upstream.wires.length, 1)
  },
  'a refusal of HEAD behind an empty line has no body, however the request comes': async (bench) => {
    const client = bench.client()
    await client.send('\r\nHEAD / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n', 'bytewise')
    const [other, text] = [bench.client(), await client.over()]
    assert.match(text, /^HTTP\/1\.1 400 .*\r\n\r\n$/s)
    await other.send('\r\nHEAD / HTT')
    await new Promise((resolve) => setTimeout(resolve, 20))
    await other.send('P/1.1\r\nHost: a\r\nHost: b\r\n\r\n')
    assert.match(await other.over(), /^HTTP\/1\.1 400 .*\r\n\r\n$/s)
  },
  'an empty line between requests is skipped': async (bench) => {
    bench.upstream.respond = echo
    const client = bench.client()
    await client.send(`${post('hello')}\r\n${get('/2')}`)
    await client.has(/\/2$/)
    assert.equal(client.text, ok('/') + ok('/2'))
  },
})

export const STALE: readonly ConnectionCase[] = conversation({
  'an idle upstream connection that ended is not used': async (bench) => {
    const { client, wire } = await warm(bench)
    wire.end()
    await wire.closed()
    bench.upstream.respond = echo
    await client.send(post('x'))
    await client.has(/\/$/)
    assert.equal(bench.upstream.wires.length, 2)
  },
  'bytes on an idle upstream connection end it, and nobody sees them': async (bench) => {
    const { client, wire } = await warm(bench)
    await wire.send(ok('poison'))
    await wire.over()
    bench.upstream.respond = echo
    await client.send(get('/next'))
    await client.has(/next$/)
    assert.equal(client.text.includes('poison'), false)
  },
  'one byte behind a response ends the upstream connection': async (bench) => {
    const client = bench.client()
    await client.send(get('/1'))
    const wire = await bench.upstream.wire()
    await wire.request()
    await wire.send(`${ok('one')}x`)
    await client.has(/one$/)
    await wire.over()
    assert.equal(client.text, ok('one'))
  },
  'a GET on a connection that dies as it is sent is sent again on a new one': async (bench) => {
    const { client, wire } = await warm(bench)
    await client.send(get('/again'))
    await wire.request(1)
    bench.upstream.respond = echo
    wire.reset()
    await client.has(/again$/)
    assert.equal(bench.upstream.requests.length, 1)
  },
  'a PUT with a body on a connection that dies is sent again whole': async (bench) => {
    const { client, wire } = await warm(bench)
    await client.send(post('hello').replace('POST', 'PUT'))
    await wire.request(1)
    bench.upstream.respond = echo
    wire.end()
    await client.has(/\/$/)
    assert.match(bench.upstream.requests[0]!, /^PUT .*\r\n\r\nhello$/s)
  },
  'a POST with an Idempotency-Key on a connection that dies is sent again': async (bench) => {
    const { client, wire } = await warm(bench)
    await client.send(post('twice', 'Idempotency-Key: k'))
    await wire.request(1)
    bench.upstream.respond = echo
    wire.reset()
    await client.has(/\/$/)
    assert.match(bench.upstream.requests[0]!, /Idempotency-Key: k\r\n.*twice$/s)
  },
  'a first byte of the answer is the end of all replays': async (bench) => {
    const { client, wire } = await warm(bench)
    const before = client.length
    await client.send(get('/x'))
    await wire.request(1)
    await wire.send('H')
    wire.end()
    await client.until('the answer', () => client.text.endsWith('}\n'))
    isProblem(client.text.slice(before), 502, 'upstream_reset')
  },
  'a fresh connection that dies is not replayed': async (bench) => {
    const client = bench.client()
    await client.send(get('/x'))
    const wire = await bench.upstream.wire()
    await wire.request()
    wire.reset()
    await client.until('the answer', () => client.text.endsWith('}\n'))
    isProblem(client.text, 502, 'upstream_reset')
    assert.equal(bench.upstream.wires.length, 1)
  },
  'bytes that came on an idle connection before the next GET are no answer to it': async (bench) => {
    const { client, wire } = await warm(bench)
    await bench.frozen(async () => {
      await wire.send(ok('poison'))
      await client.send(get('/next'))
    })
    bench.upstream.respond = echo
    await client.has(/next$/)
    assert.equal(client.text.includes('poison'), false)
  },
  'bytes that came on an idle connection before the next POST are no answer to it': async (bench) => {
    const { client, wire } = await warm(bench)
    await bench.frozen(async () => {
      await wire.send(GIVEN_UP)
      wire.end()
      await client.send(post('once'))
    })
    bench.upstream.respond = echo
    await client.has(/\/$/)
    assert.equal(client.text.includes('408'), false)
    assert.equal(bench.upstream.requests.length, 1)
  },
  'a 408 that meets the next GET is not the answer to it, but is to a POST': async (bench) => {
    const { client, wire } = await warm(bench)
    await client.send(get('/again'))
    await wire.request(1)
    bench.upstream.respond = echo
    await wire.send(GIVEN_UP)
    await client.has(/again$/)
    assert.equal(client.text.includes('408'), false)
    bench.upstream.respond = (each) => void each.send(GIVEN_UP)
    await client.send(post('once'))
    await client.has(/ 408 /)
    assert.equal(bench.upstream.requests.length, 2)
  },
  'a 408 on a new connection is the answer': async (bench) => {
    bench.upstream.respond = (wire) => void wire.send(GIVEN_UP)
    const client = bench.client()
    await client.send(get('/new'))
    await client.has(/ 408 /)
    assert.equal(bench.upstream.requests.length, 1)
  },
  'a FIN that came before the next POST is noticed': async (bench) => {
    const { client, wire } = await warm(bench)
    await bench.frozen(async () => {
      wire.end()
      await client.send(post('once'))
    })
    bench.upstream.respond = echo
    await client.has(/\/$/)
    assert.equal(bench.upstream.requests.length, 1)
    assert.equal(wire.text.includes('once'), false)
  },
  'a FIN that comes right behind the next POST is noticed before it is sent': async (bench) => {
    const { client, wire } = await warm(bench)
    await bench.frozen(async () => {
      await client.send(post('once'))
      await new Promise((resolve) => setTimeout(resolve, 20))
      wire.end()
    })
    bench.upstream.respond = echo
    await client.has(/\/$/)
    assert.equal(bench.upstream.requests.length, 1)
    assert.equal(wire.text.includes('once'), false)
  },
  'a FIN that comes right behind a PUT too large to be kept is noticed before it is sent': async (bench) => {
    const { client, wire } = await warm(bench)
    const body = 'z'.repeat(100_000)
    await bench.frozen(async () => {
      await client.send(post(body).replace('POST', 'PUT'))
      await new Promise((resolve) => setTimeout(resolve, 20))
      wire.end()
    })
    bench.upstream.respond = echo
    await client.has(/\/$/)
    assert.equal(bench.upstream.requests.length, 1)
    assert.ok(bench.upstream.requests[0]!.endsWith(body))
    assert.equal(wire.text.includes('PUT'), false)
  },
  'fifty answers with an unannounced FIN cost no POST': async (bench) => {
    bench.upstream.respond = (wire) => {
      void wire.send(ok('ok'))
      wire.end()
    }
    const client = bench.client()
    for (let i = 1; i <= 50; i++) {
      await client.send(post(String(i)))
      await client.until(`answer ${i}`, () => client.length >= i * ok('ok').length || client.isOver)
    }
    assert.equal(client.text, ok('ok').repeat(50))
    assert.equal(bench.upstream.requests.length, 50)
  },
  'Keep-Alive: timeout=1 is too short for another request': async (bench) => {
    bench.upstream.respond = (wire) => void wire.send(ok('ok', 'Keep-Alive: timeout=1'))
    const client = bench.client()
    await client.send(get())
    await client.has(/ok$/)
    await bench.upstream.wires[0]!.over()
  },
  'Keep-Alive: timeout=2 closes an idle connection a second before the server does': async (bench) => {
    bench.upstream.respond = (wire) => void wire.send(ok('ok', 'Keep-Alive: timeout=2, max=100'))
    const client = bench.client()
    const started = performance.now()
    await client.send(get())
    await client.has(/ok$/)
    await bench.upstream.wires[0]!.over()
    const took = performance.now() - started
    // Without the server's word it would rest for four seconds.
    assert.ok(took >= 990 && took < 3900, String(took))
  },
})

export const FLOW: readonly ConnectionCase[] = conversation({
  'Expect is passed on, and the 100 of the upstream lets the body go': async (bench) => {
    const client = bench.client()
    await client.send('POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n')
    const wire = await bench.upstream.wire()
    await wire.has(/Expect: 100-continue\r\n.*\r\n\r\n$/s)
    assert.equal(client.length, 0)
    await wire.send(CONTINUE)
    await client.has(/\r\n\r\n$/)
    assert.equal(client.text, CONTINUE)
    await client.send('hello')
    await wire.has(/hello$/)
    await wire.send(ok('thanks'))
    await client.has(/thanks$/)
    assert.equal(client.text, CONTINUE + ok('thanks'))
  },
  'Expect is answered after a second when the upstream says nothing, and its own 100 is then left out': async (
    bench,
  ) => {
    const client = bench.client()
    const started = performance.now()
    await client.send('POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n')
    await client.has(/\r\n\r\n$/)
    const took = performance.now() - started
    assert.ok(took >= 990 && took < 10_000, String(took))
    await client.send('hello')
    const wire = await bench.upstream.wire()
    await wire.has(/hello$/)
    await wire.send(CONTINUE + ok('thanks'))
    await client.has(/thanks$/)
    assert.equal(client.text, CONTINUE + ok('thanks'))
  },
  '417 goes to the client, whose connection ends because the body did not come': async (bench) => {
    const client = bench.client()
    await client.send('POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n')
    const wire = await bench.upstream.wire()
    await wire.has(/\r\n\r\n$/)
    await wire.send('HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\n\r\nno')
    assert.equal(
      await client.over(),
      'HTTP/1.1 417 Expectation Failed\r\nContent-Length: 2\r\nConnection: close\r\n\r\nno',
    )
    await wire.over()
  },
  'a second request is never taken for the body that an expectation held back': async (bench) => {
    const client = bench.client()
    await client.send('POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 50\r\n\r\n')
    const wire = await bench.upstream.wire()
    await wire.has(/\r\n\r\n$/)
    await wire.send('HTTP/1.1 401 Unauthorized\r\nContent-Length: 0\r\n\r\n')
    await client.has(/\r\n\r\n$/)
    await client.send(get('/second'))
    await client.over()
    assert.equal(bench.upstream.wires.length, 1)
    assert.equal(wire.text.includes('/second'), false)
  },
  'an answer that comes while the request is sent goes through at once, and ends the connection': async (bench) => {
    const client = bench.client()
    await client.send('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 100000\r\n\r\nsome')
    const wire = await bench.upstream.wire()
    await wire.has(/some$/)
    await wire.send('HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig')
    assert.equal(await client.over(), 'HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig')
    await wire.over()
  },
  'an early answer survives an upstream that resets the upload': async (bench) => {
    const client = bench.client()
    await client.send('POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 10000000\r\n\r\nsome')
    const wire = await bench.upstream.wire()
    await wire.has(/some$/)
    await wire.send('HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\n\r\nbig')
    wire.end()
    for (let i = 0; i < 100 && !client.isOver; i++) await client.send('z'.repeat(10_000))
    assert.equal(await client.over(), 'HTTP/1.1 413 Too Large\r\nContent-Length: 3\r\nConnection: close\r\n\r\nbig')
  },
  'an answer may stream while the request streams': async (bench) => {
    const client = bench.client()
    await client.send('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n')
    const wire = await bench.upstream.wire()
    await wire.has(/\r\n\r\n$/)
    await wire.send('HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n')
    await client.has(/\r\n\r\n$/)
    for (const letter of ['a', 'b', 'c']) {
      await client.send(`1\r\n${letter}\r\n`)
      await wire.has(new RegExp(`1\r\n${letter}\r\n$`))
      await wire.send(`1\r\n${letter.toUpperCase()}\r\n`)
      await client.has(new RegExp(`1\r\n${letter.toUpperCase()}\r\n$`))
    }
    await client.send('0\r\n\r\n')
    await wire.has(/0\r\n\r\n$/)
    await wire.send('0\r\n\r\n')
    await client.has(/C\r\n0\r\n\r\n$/)
  },
  'a body goes on byte by byte, without waiting for the rest': async (bench) => {
    const client = bench.client()
    await client.send(get())
    const wire = await bench.upstream.wire()
    await wire.request()
    await wire.send('HTTP/1.1 200 OK\r\nContent-Length: 3\r\n\r\n')
    for (const letter of ['a', 'b', 'c']) {
      await wire.send(letter)
      await client.has(new RegExp(`${letter}$`))
    }
  },
  'a close-delimited body goes on piece by piece': async (bench) => {
    const client = bench.client()
    await client.send(get())
    const wire = await bench.upstream.wire()
    await wire.request()
    await wire.send('HTTP/1.1 200 OK\r\n\r\n')
    for (const word of ['one', 'two']) {
      await wire.send(word)
      await client.has(new RegExp(`3\r\n${word}\r\n$`))
    }
    wire.end()
    await client.has(/\r\n0\r\n\r\n$/)
    assert.equal(client.isOver, false, 'the client connection goes on')
  },
  'a 103 goes on before the final answer is there': async (bench) => {
    const client = bench.client()
    await client.send(get())
    const wire = await bench.upstream.wire()
    await wire.request()
    await wire.send('HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n')
    await client.has(/\r\n\r\n$/)
    await wire.send(ok('end'))
    await client.has(/end$/)
    assert.equal(client.text, `HTTP/1.1 103 Early Hints\r\nLink: <a>\r\n\r\n${ok('end')}`)
  },
  'a client that leaves before the answer frees the upstream': async (bench) => {
    const client = bench.client()
    await client.send(get())
    const wire = await bench.upstream.wire()
    await wire.request()
    client.destroy()
    await wire.over()
  },
  'a client that resets before the answer frees the upstream': async (bench) => {
    const client = bench.client()
    await client.send(get())
    const wire = await bench.upstream.wire()
    await wire.request()
    client.reset()
    await wire.over()
  },
  'a client that leaves within its body frees the upstream, which has no whole request': async (bench) => {
    const client = bench.client()
    await client.send('POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n')
    const wire = await bench.upstream.wire()
    await wire.has(/hello\r\n$/)
    client.end()
    assert.match(await wire.over(), /hello\r\n$/)
  },
  'a client that leaves within the answer frees the upstream': async (bench) => {
    const client = bench.client()
    await client.send(get())
    const wire = await bench.upstream.wire()
    await wire.request()
    await wire.send('HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\nsome')
    await client.has(/some$/)
    client.destroy()
    await wire.over()
  },
  'a client that half-closes behind its request gets the answer': async (bench) => {
    const client = bench.client()
    await client.send(get())
    client.end()
    const wire = await bench.upstream.wire()
    await wire.request()
    await wire.send(ok('late'))
    await client.over()
    assert.match(client.text, /late$/)
    assert.equal(await client.closed(), null)
  },
  'a client that half-closes within a head gets nothing': async (bench) => {
    const client = bench.client()
    await client.send('GET / HTTP/1.1\r\nHo')
    client.end()
    assert.equal(await client.over(), '')
  },
  'a client that says nothing and half-closes is let go': async (bench) => {
    const client = bench.client()
    client.end()
    assert.equal(await client.over(), '')
    assert.equal(await client.closed(), null)
  },
  'a body of 5 MB arrives as it was sent, both ways': async (bench) => {
    const body = Buffer.alloc(5_000_000, 'abcdefghijklmnopqrstuvwxyz0123456789').toString('latin1')
    const client = bench.client()
    await client.send(post(body))
    const wire = await bench.upstream.wire()
    await wire.until('all of it', () => wire.length > body.length && wire.text.endsWith(body.slice(-100)))
    assert.equal(wire.text.slice(wire.text.indexOf('\r\n\r\n') + 4) === body, true)
    await wire.send(ok(body))
    await client.until('all of it', () => client.length >= ok(body).length || client.isOver)
    assert.equal(client.text === ok(body), true)
  },
})

export const TUNNELS: readonly ConnectionCase[] = conversation({
  'an upgrade becomes a tunnel, both ways, any bytes': async (bench) => {
    const { client, wire } = await tunnel(bench)
    await client.send('\x00\xff\r\n\r\nGET / HTTP/1.1\r\n\r\n')
    await wire.has(/\x00\xff\r\n\r\nGET \/ HTTP\/1\.1\r\n\r\n$/)
    await wire.send('\x81\x05hello')
    await client.has(/\x81\x05hello$/)
  },
  'bytes right behind the 101 arrive': async (bench) => {
    const { client, wire } = await tunnel(bench, '\x81\x05first')
    await wire.send('second')
    await client.has(/firstsecond$/)
  },
  'a 101 byte by byte with bytes behind it arrives': async (bench) => {
    const client = bench.client()
    await client.send(UPGRADE, 'bytewise')
    const wire = await bench.upstream.wire()
    await wire.request()
    await wire.send(`${SWITCH}HTTP/1.1 500 x`, 'bytewise')
    await client.until('all', () => client.length >= SWITCH.length + 14)
    assert.equal(client.text, `${SWITCH}HTTP/1.1 500 x`)
  },
  'bytes that the client sent before the 101 arrive behind the request': async (bench) => {
    const client = bench.client()
    await client.send(`${UPGRADE}early`)
    const wire = await bench.upstream.wire()
    await wire.request()
    await wire.send(SWITCH)
    await wire.has(/\r\n\r\nearly$/)
  },
  'a tunnel passes the half-close of the client': async (bench) => {
    const { client, wire } = await tunnel(bench)
    await client.send('last')
    client.end()
    assert.match(await wire.over(), /last$/)
    await wire.send('still')
    await client.has(/still$/)
    wire.end()
    assert.equal(await client.closed(), null)
  },
  'a tunnel passes the half-close of the upstream': async (bench) => {
    const { client, wire } = await tunnel(bench)
    await wire.send('last')
    wire.end()
    assert.match(await client.over(), /last$/)
    await client.send('still')
    await wire.has(/still$/)
    client.end()
    assert.equal(await wire.closed(), null)
  },
  'a tunnel passes the reset of the client': async (bench) => {
    const { client, wire } = await tunnel(bench)
    client.reset()
    assert.equal(await wire.closed(), 'ECONNRESET')
  },
  'a tunnel passes the reset of the upstream': async (bench) => {
    const { client, wire } = await tunnel(bench)
    wire.reset()
    assert.equal(await client.closed(), 'ECONNRESET')
  },
  'an upgrade that is refused leaves ordinary connections': async (bench) => {
    bench.upstream.respond = (wire, request) => void wire.send(ok(path(request)))
    const client = bench.client()
    await client.send(UPGRADE)
    await client.has(/chat$/)
    await client.send(get('/next'))
    await client.has(/next$/)
    assert.equal(client.text, ok('/chat') + ok('/next'))
    assert.equal(bench.upstream.wires.length, 1)
  },
  'an interim answer before the 101 goes through': async (bench) => {
    const client = bench.client()
    await client.send(UPGRADE)
    const wire = await bench.upstream.wire()
    await wire.request()
    await wire.send(`HTTP/1.1 103 Early Hints\r\n\r\n${SWITCH}behind`)
    await client.has(/behind$/)
    assert.equal(client.text, `HTTP/1.1 103 Early Hints\r\n\r\n${SWITCH}behind`)
  },
  'a 101 to a request without Upgrade is refused': async (bench) => {
    const client = bench.client()
    await client.send(get())
    const wire = await bench.upstream.wire()
    await wire.request()
    await wire.send(SWITCH)
    await client.until('the answer', () => client.text.endsWith('}\n'))
    isProblem(client.text, 502, 'upstream_reset')
  },
  'a 101 to an offer of h2c is refused, for it was never made': async (bench) => {
    const client = bench.client()
    await client.send(
      get('/', 'Connection: Upgrade, HTTP2-Settings', 'Upgrade: h2c', 'HTTP2-Settings: AAMAAABkAAQAAP__'),
    )
    const wire = await bench.upstream.wire()
    await wire.request()
    await wire.send('HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n')
    await client.until('the answer', () => client.text.endsWith('}\n'))
    isProblem(client.text, 502, 'upstream_reset')
  },
  'another protocol than websocket': async (bench) => {
    const client = bench.client()
    await client.send(get('/', 'Connection: upgrade', 'Upgrade: myproto/2'))
    const wire = await bench.upstream.wire()
    assert.match(await wire.request(), /\r\nUpgrade: myproto\/2\r\n/)
    await wire.send('HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: myproto/2\r\n\r\nhi')
    await client.has(/\r\n\r\nhi$/)
  },
})

/**
 * Needs a proxy that has seen no connection close: how long a connection rests before a POST is trusted to it follows from how late
 * the closes of other cases were seen, which a busy machine decides.
 */
export const POST_ON_STALE: ConnectionCase = {
  name: 'a POST on a connection that dies is never sent twice',
  run: async (bench) => {
    const { client, wire } = await warm(bench)
    const before = client.length
    await client.send(post('once'))
    await wire.request(1)
    wire.reset()
    await client.until('the answer', () => client.text.endsWith('}\n'))
    isProblem(client.text.slice(before), 502, 'upstream_reset')
    assert.equal(bench.upstream.wires.length, 1)
  },
}

/** Takes its time, so it runs beside the others: 408 after ten seconds of a head that does not end. */
export const SLOWLORIS = {
  name: 'a head that comes a byte a second is answered with 408 after ten seconds',
  run: async (bench: Bench): Promise<void> => {
    const client = bench.client()
    const started = performance.now()
    const bytes = 'GET / HTTP/1.1\r\nHost: a\r\nX: y'
    let at = 0
    const timer = setInterval(() => void client.send(bytes[at++] ?? 'y'), 1000)
    await client.send('G')
    at++
    try {
      await client.over(40_000)
    } finally {
      clearInterval(timer)
    }
    const took = performance.now() - started
    // A byte that put it off would put it off for ever.
    assert.ok(took > 9_500 && took < 30_000, String(took))
    isProblem(client.text, 408, 'bad_request')
  },
}
