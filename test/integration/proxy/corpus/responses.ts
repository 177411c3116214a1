/** What an upstream may answer, and what the application has to see of it: decided from RFC 9110, RFC 9112 and docs/http.md. */

/** How the upstream goes on behind its bytes. */
export type Ending = 'stays' | 'fin' | 'reset'

export interface ResponseCase {
  readonly title: string
  /** Latin-1, or pieces that are sent one after the other. */
  readonly answer: string | readonly string[]
  /** Default: it stays. */
  readonly ending?: Ending
  /** Default: GET of HTTP/1.1. */
  readonly request?: 'GET' | 'HEAD' | 'POST' | 'old' | 'old-keeps' | 'upgrade'
  /**
   * `refused`: 502 of the proxy. `cut`: the head passes and the end can be seen to be missing. `either`: one of the two, as the bytes
   * happen to come. Otherwise the answer that passes.
   */
  readonly expected: 'refused' | 'cut' | 'either' | Expected
}

export interface Expected {
  readonly status: number
  readonly interim?: readonly number[]
  /** Lines in this order and spelling. */
  readonly has?: readonly string[]
  /** Names in lower case. */
  readonly lacks?: readonly string[]
  readonly body?: string
  /** The application's connection ends with it. Default false. */
  readonly closes?: boolean
  /** The status line as it has to come. */
  readonly line?: string
}

const ok = (fields: string, body = ''): string => `HTTP/1.1 200 OK\r\n${fields}\r\n${body}`
const sized = (body: string, fields = ''): string => ok(`Content-Length: ${body.length}\r\n${fields}`, body)
const CHUNKED = 'Transfer-Encoding: chunked\r\n'
const chunked = (body: string, fields = ''): string => ok(`${CHUNKED}${fields}`, body)
const hello = (fields: string): string => sized('hello', fields)
const line = (text: string): string => `${text}\r\nContent-Length: 0\r\n\r\n`

const bad = (title: string, answer: string, ending: Ending = 'stays'): ResponseCase => ({
  title,
  answer,
  ending,
  expected: 'refused',
})
const good = (
  title: string,
  answer: string | readonly string[],
  expected: Expected,
  more: Partial<ResponseCase> = {},
): ResponseCase => ({
  title,
  answer,
  expected,
  ...more,
})
const cut = (
  title: string,
  answer: string | readonly string[],
  ending: Ending,
  more: Partial<ResponseCase> = {},
): ResponseCase => ({
  title,
  answer,
  ending,
  expected: 'cut',
  ...more,
})
const HELLO: Expected = { status: 200, body: 'hello' }

const BAD_HEADS: readonly (readonly [title: string, answer: string])[] = [
  ['a length and chunks', ok(`Content-Length: 5\r\n${CHUNKED}`, '0\r\n\r\n')],
  ['chunks and a length', ok(`${CHUNKED}Content-Length: 5\r\n`, '0\r\n\r\n')],
  ['two equal lengths', ok('Content-Length: 5\r\nContent-Length: 5\r\n', 'hello')],
  ['two lengths', ok('Content-Length: 5\r\nContent-Length: 6\r\n', 'hello!')],
  ['a list of lengths', ok('Content-Length: 5, 5\r\n', 'hello')],
  ['a length with a sign', ok('Content-Length: +5\r\n', 'hello')],
  ['a negative length', ok('Content-Length: -5\r\n', 'hello')],
  ['a length in hexadecimal', ok('Content-Length: 0x5\r\n', 'hello')],
  ['an empty length', ok('Content-Length:\r\n', 'hello')],
  ['a length of 2^64 + 5', ok('Content-Length: 18446744073709551621\r\n', 'hello')],
  ['a length of letters', ok('Content-Length: five\r\n', 'hello')],
  ['a length with a NUL', ok('Content-Length: 5\x00\r\n', 'hello')],
  ['a folded length', ok('Content-Length:\r\n 5\r\n', 'hello')],
  ['xchunked', ok('Transfer-Encoding: xchunked\r\n', '0\r\n\r\n')],
  ['chunked twice', ok('Transfer-Encoding: chunked, chunked\r\n', '0\r\n\r\n')],
  ['two codings', ok(`${CHUNKED}${CHUNKED}`, '0\r\n\r\n')],
  ['chunked that is not the last', ok('Transfer-Encoding: chunked, identity\r\n', '0\r\n\r\n')],
  ['identity', ok('Transfer-Encoding: identity\r\n', 'hello')],
  ['a coding with a vertical tab', ok('Transfer-Encoding: \x0bchunked\r\n', '0\r\n\r\n')],
  ['a coding with a space before its colon', ok('Transfer-Encoding : chunked\r\n', '0\r\n\r\n')],
  ['an empty coding', ok('Transfer-Encoding:\r\n', 'hello')],
  ['a folded coding', ok('Transfer-Encoding:\r\n chunked\r\n', '0\r\n\r\n')],
  ['chunks in HTTP/1.0', `HTTP/1.0 200 OK\r\n${CHUNKED}\r\n0\r\n\r\n`],
  ['a bare LF in the head', 'HTTP/1.1 200 OK\r\nX: y\nContent-Length: 0\r\n\r\n'],
  ['a bare LF behind the status', 'HTTP/1.1 200 OK\nContent-Length: 0\r\n\r\n'],
  ['LF alone', 'HTTP/1.1 200 OK\nContent-Length: 0\n\n'],
  ['a bare LF at the end of the head', 'HTTP/1.1 200 OK\r\nContent-Length: 0\r\n\n'],
  ['a bare CR in a value', ok('X: y\rz\r\nContent-Length: 0\r\n')],
  ['a bare CR that splits', ok('X: y\rSet-Cookie: evil=1\r\nContent-Length: 0\r\n')],
  ['NUL in a value', ok('X: y\x00\r\nContent-Length: 0\r\n')],
  ['NUL in a name', ok('X\x00: y\r\nContent-Length: 0\r\n')],
  ['a control character in a value', ok('X: \x01\r\nContent-Length: 0\r\n')],
  ['DEL in a value', ok('X: \x7f\r\nContent-Length: 0\r\n')],
  ['a folded line', ok('X: y\r\n z\r\nContent-Length: 0\r\n')],
  ['a space before a colon', ok('X : y\r\nContent-Length: 0\r\n')],
  ['an empty name', ok(': y\r\nContent-Length: 0\r\n')],
  ['a line without a colon', ok('X\r\nContent-Length: 0\r\n')],
  ['a space before the first field', ok(' X: y\r\nContent-Length: 0\r\n')],
  ['Latin-1 in a name', ok('\xe4: y\r\nContent-Length: 0\r\n')],
  ['a status of two digits', line('HTTP/1.1 20 OK')],
  ['a status of four digits', line('HTTP/1.1 2000 OK')],
  ['status 1000', line('HTTP/1.1 1000 Big')],
  ['status 000', line('HTTP/1.1 000 Zero')],
  ['status 099', line('HTTP/1.1 099 Low')],
  ['a negative status', line('HTTP/1.1 -20 OK')],
  ['a status of letters', line('HTTP/1.1 abc OK')],
  ['a status with a letter', line('HTTP/1.1 20x OK')],
  ['a status with a sign', line('HTTP/1.1 +200 OK')],
  ['no status', line('HTTP/1.1')],
  ['two spaces before the status', line('HTTP/1.1  200 OK')],
  ['a tab before the status', line('HTTP/1.1\t200 OK')],
  ['nothing between status and reason', line('HTTP/1.1 200OK')],
  ['a space before the version', line(' HTTP/1.1 200 OK')],
  ['NUL in the reason', line('HTTP/1.1 200 O\x00K')],
  ['a CR in the reason', line('HTTP/1.1 200 O\rK')],
  ['HTTP/2.0', line('HTTP/2.0 200 OK')],
  ['HTTP/1.2', line('HTTP/1.2 200 OK')],
  ['HTTP/0.9', line('HTTP/0.9 200 OK')],
  ['a version in lower case', line('http/1.1 200 OK')],
  ['a version of three digits', line('HTTP/1.10 200 OK')],
  ['another protocol', line('ICY 200 OK')],
  ['a greeting of SMTP', '220 mail ESMTP\r\n'],
  ['a greeting of SSH', 'SSH-2.0-OpenSSH_9\r\n'],
  ['HTML', '<html><body>hello</body></html>'],
  ['a request', 'GET / HTTP/1.1\r\nHost: a\r\n\r\n'],
  ['TLS', '\x15\x03\x03\x00\x02\x02\x0a'],
  ['an empty line', `\n${hello('')}`],
  ['a field line of 20 KiB', hello(`X: ${'a'.repeat(20_000)}\r\n`)],
  ['a head over 64 KiB', hello(`X: ${'a'.repeat(8000)}\r\n`.repeat(9))],
  ['200 fields', hello('X: y\r\n'.repeat(200))],
  ['Connection that names Set-Cookie', hello('Connection: Set-Cookie\r\nSet-Cookie: a=b\r\n')],
  ['Connection that names Content-Length', hello('Connection: Content-Length\r\n')],
  ['a coding in an interim response', `HTTP/1.1 103 x\r\n${CHUNKED}\r\n${hello('')}`],
  ['eleven interim responses', `${'HTTP/1.1 103 x\r\n\r\n'.repeat(11)}`],
  [
    '101 that nobody asked for',
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n',
  ],
]

const BAD_CHUNKS: readonly (readonly [title: string, body: string])[] = [
  ['0x', '0x5\r\nhello\r\n0\r\n\r\n'],
  ['a sign', '+5\r\nhello\r\n0\r\n\r\n'],
  ['a minus', '-5\r\nhello\r\n0\r\n\r\n'],
  ['a space before the size', ' 5\r\nhello\r\n0\r\n\r\n'],
  ['a space behind the size', '5 \r\nhello\r\n0\r\n\r\n'],
  ['no size', '\r\nhello\r\n0\r\n\r\n'],
  ['2^64 + 5', '10000000000000005\r\nhello\r\n0\r\n\r\n'],
  ['2^64 - 1', 'ffffffffffffffff\r\nhello\r\n0\r\n\r\n'],
  ['a bare LF behind the size', '5\nhello\r\n0\r\n\r\n'],
  ['a bare LF behind the data', '5\r\nhello\n0\r\n\r\n'],
  ['nothing behind the data', '5\r\nhello0\r\n\r\n'],
  ['too much data', '5\r\nhello!\r\n0\r\n\r\n'],
  ['a bare LF in an extension', '5;a\nb\r\nhello\r\n0\r\n\r\n'],
  ['an endless extension', `5;${'a'.repeat(100_000)}`],
  ['a trailer without a colon', '5\r\nhello\r\n0\r\nabc\r\n\r\n'],
  ['a folded trailer', '5\r\nhello\r\n0\r\na: b\r\n c\r\n\r\n'],
  ['a length in the trailers', '5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n'],
  ['a coding in the trailers', '5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n'],
  ['text', 'hello'],
]

const NOT_TRAILERS = [
  'Set-Cookie: a=b',
  'Content-Type: text/evil',
  'Content-Encoding: gzip',
  'Content-Range: bytes 0-1/2',
  'Cache-Control: no-store',
  'Connection: close',
  'Keep-Alive: timeout=1',
  'Upgrade: h2c',
  'WWW-Authenticate: Basic',
  'Proxy-Authenticate: Basic',
  'Location: /evil',
  'Date: Sat, 21 Nov 2026 00:00:00 GMT',
  'Expires: 0',
  'Vary: *',
  'Age: 1',
  'Retry-After: 1',
  'Trailer: X',
]

const SIZED = hello('')
const IN_CHUNKS = chunked('5\r\nhello\r\n0\r\n\r\n')

export const RESPONSES: readonly ResponseCase[] = [
  ...BAD_HEADS.map(([title, answer]) => bad(title, answer)),
  ...BAD_CHUNKS.map(
    ([title, body]): ResponseCase => ({ title: `chunks: ${title}`, answer: chunked(body), expected: 'either' }),
  ),
  ...BAD_CHUNKS.map(
    ([title, body]): ResponseCase => ({
      title: `chunks behind the head: ${title}`,
      answer: [chunked(''), body],
      expected: 'cut',
    }),
  ),

  good('a length', SIZED, HELLO),
  good('a length of nothing', sized(''), { status: 200 }),
  good('chunks', IN_CHUNKS, HELLO),
  good('chunks with extensions and zeros', chunked('005;a="b\\"c"\r\nhello\r\n000;x\r\n\r\n'), HELLO),
  good('chunks byte by byte', [...IN_CHUNKS], HELLO),
  good('a length byte by byte', [...SIZED], HELLO),
  good(
    'up to the end of the connection',
    ok('', 'hello'),
    { ...HELLO, has: ['Transfer-Encoding: chunked'] },
    { ending: 'fin' },
  ),
  good('up to the end of the connection, of nothing', ok(''), { status: 200 }, { ending: 'fin' }),
  good('up to the end of the connection, in pieces', [ok(''), 'he', 'llo'], HELLO, { ending: 'fin' }),
  good(
    'Connection: close with a length',
    hello('Connection: close\r\n'),
    { ...HELLO, lacks: ['connection'] },
    { ending: 'fin' },
  ),
  good('Connection: close of a server that stays', hello('Connection: close\r\n'), { ...HELLO, lacks: ['connection'] }),
  good(
    'a server of HTTP/1.0',
    'HTTP/1.0 200 OK\r\n\r\nhello',
    { ...HELLO, line: 'HTTP/1.1 200 OK' },
    { ending: 'fin' },
  ),
  good(
    'a server of HTTP/1.0 with a length',
    'HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello',
    { ...HELLO, line: 'HTTP/1.1 200 OK' },
    { ending: 'fin' },
  ),
  good('no reason', 'HTTP/1.1 200 \r\nContent-Length: 5\r\n\r\nhello', HELLO),
  good('no reason and no space', 'HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello', { ...HELLO, line: 'HTTP/1.1 200 ' }),
  good('a reason of Latin-1', 'HTTP/1.1 200 \xe4\xf6 (x)\tOK\r\nContent-Length: 5\r\n\r\nhello', {
    ...HELLO,
    line: 'HTTP/1.1 200 \xe4\xf6 (x)\tOK',
  }),
  ...[201, 206, 226, 299, 300, 301, 399, 400, 404, 418, 425, 429, 431, 451, 499, 500, 501, 503, 507, 511, 599].map(
    (status) =>
      good(`status ${status}`, `HTTP/1.1 ${status} Its Own Words\r\nContent-Length: 5\r\n\r\nhello`, {
        status,
        body: 'hello',
        line: `HTTP/1.1 ${status} Its Own Words`,
      }),
  ),
  ...[600, 999].map((status) =>
    good(`status ${status}, which has no meaning`, `HTTP/1.1 ${status} x\r\nContent-Length: 5\r\n\r\nhello`, {
      status,
      body: 'hello',
    }),
  ),
  good(
    'case, order and duplicates',
    hello('b: 1\r\nA: 2\r\nB: 3\r\nSERVER: x\r\nDate: Sat, 21 Nov 2026 00:00:00 GMT\r\n'),
    { ...HELLO, has: ['b: 1', 'A: 2', 'B: 3', 'SERVER: x', 'Date: Sat, 21 Nov 2026 00:00:00 GMT'] },
  ),
  good(
    'many cookies',
    hello(
      Array.from({ length: 60 }, (_, i) => `Set-Cookie: c${i}=1; Expires=Sat, 21 Nov 2026 00:00:00 GMT\r\n`).join(''),
    ),
    {
      ...HELLO,
      has: Array.from({ length: 60 }, (_, i) => `Set-Cookie: c${i}=1; Expires=Sat, 21 Nov 2026 00:00:00 GMT`),
    },
  ),
  good('nothing is added', hello(''), {
    ...HELLO,
    lacks: ['via', 'server', 'date', 'connection', 'x-request-id', 'proxy-status'],
  }),
  good('100 fields', hello('X: y\r\n'.repeat(99)), { ...HELLO, has: Array(99).fill('X: y') }),
  good('bytes above ASCII', hello('X: \x80\xff\r\n'), { ...HELLO, has: ['X: \x80\xff'] }),
  good('an encoded body is not touched', hello('Content-Encoding: gzip\r\n'), {
    ...HELLO,
    has: ['Content-Encoding: gzip'],
  }),
  good(
    'fields of the connection',
    hello(
      'Connection: keep-alive, X-Hop\r\nKeep-Alive: timeout=5, max=9\r\nX-Hop: 1\r\nProxy-Connection: x\r\nProxy-Authenticate: y\r\nTE: trailers\r\nUpgrade: h2c\r\n',
    ),
    {
      ...HELLO,
      lacks: ['connection', 'keep-alive', 'x-hop', 'proxy-connection', 'proxy-authenticate', 'te', 'upgrade'],
    },
  ),

  good('trailers', chunked('5\r\nhello\r\n0\r\nX-Sum: 1\r\nx-sum: 2\r\n\r\n', 'Trailer: X-Sum\r\n'), {
    ...HELLO,
    has: ['X-Sum: 1', 'x-sum: 2'],
  }),
  good('trailers in pieces', [chunked('5\r\nhello\r\n0\r\nX-S'), 'um: 1\r', '\n\r', '\n'], {
    ...HELLO,
    has: ['X-Sum: 1'],
  }),
  ...NOT_TRAILERS.map((field) =>
    good(`'${field}' in the trailers is not passed on`, chunked(`5\r\nhello\r\n0\r\n${field}\r\nX-Ok: 1\r\n\r\n`), {
      ...HELLO,
      has: ['X-Ok: 1'],
      lacks: [field.slice(0, field.indexOf(':')).toLowerCase()],
    }),
  ),

  good(
    'HEAD with a length',
    ok('Content-Length: 1000\r\n'),
    { status: 200, has: ['Content-Length: 1000'] },
    { request: 'HEAD' },
  ),
  good('HEAD with chunks', chunked(''), { status: 200 }, { request: 'HEAD' }),
  good('HEAD without framing', ok('X: y\r\n'), { status: 200, has: ['X: y'] }, { request: 'HEAD' }),
  good('HEAD with a body all the same', SIZED, { status: 200, has: ['Content-Length: 5'] }, { request: 'HEAD' }),
  good('HEAD with chunks all the same', IN_CHUNKS, { status: 200 }, { request: 'HEAD' }),
  {
    title: 'HEAD with a length and chunks',
    answer: ok(`Content-Length: 5\r\n${CHUNKED}`),
    request: 'HEAD',
    expected: 'refused',
  },
  good('204', 'HTTP/1.1 204 No Content\r\n\r\n', { status: 204 }),
  good('204 with a length', 'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n', {
    status: 204,
    lacks: ['content-length'],
  }),
  good('204 with a length and a body', 'HTTP/1.1 204 No Content\r\nContent-Length: 5\r\n\r\nhello', {
    status: 204,
    lacks: ['content-length'],
  }),
  good('204 with chunks', 'HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n', {
    status: 204,
    lacks: ['transfer-encoding'],
  }),
  good('304', 'HTTP/1.1 304 Not Modified\r\nETag: "x"\r\n\r\n', { status: 304, has: ['ETag: "x"'] }),
  good('304 with a length', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\n\r\n', {
    status: 304,
    has: ['Content-Length: 1000'],
  }),
  good('304 with a body', 'HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\nhello', { status: 304 }),
  good('304 with chunks', 'HTTP/1.1 304 Not Modified\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', {
    status: 304,
    lacks: ['transfer-encoding'],
  }),
  good('205 of nothing', 'HTTP/1.1 205 Reset Content\r\nContent-Length: 0\r\n\r\n', { status: 205 }),
  good('205 in chunks of nothing', 'HTTP/1.1 205 Reset Content\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n', {
    status: 205,
  }),
  good('205 with a body', 'HTTP/1.1 205 Reset Content\r\nContent-Length: 5\r\n\r\nhello', {
    status: 205,
    body: 'hello',
  }),

  good('103 and then the answer', `HTTP/1.1 103 Early Hints\r\nLink: </a>; rel=preload\r\n\r\n${SIZED}`, {
    ...HELLO,
    interim: [103],
  }),
  good('103 alone, then the answer', ['HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\n', SIZED], {
    ...HELLO,
    interim: [103],
  }),
  good('102, 103 and 199', `HTTP/1.1 102 x\r\n\r\nHTTP/1.1 103 y\r\n\r\nHTTP/1.1 199 z\r\n\r\n${SIZED}`, {
    ...HELLO,
    interim: [102, 103, 199],
  }),
  good('100 that nobody asked for', `HTTP/1.1 100 Continue\r\n\r\n${SIZED}`, { ...HELLO, interim: [100] }),
  good('ten interim responses', `${'HTTP/1.1 103 x\r\n\r\n'.repeat(10)}${SIZED}`, {
    ...HELLO,
    interim: Array(10).fill(103),
  }),
  good('a length in an interim response', `HTTP/1.1 103 x\r\nContent-Length: 5\r\n\r\n${SIZED}`, {
    ...HELLO,
    interim: [103],
  }),
  good(
    'interim responses are not for HTTP/1.0',
    `HTTP/1.1 103 x\r\n\r\n${SIZED}`,
    { ...HELLO, interim: [], closes: true },
    { request: 'old' },
  ),
  { title: 'only an interim response', answer: 'HTTP/1.1 103 x\r\n\r\n', ending: 'fin', expected: 'refused' },

  good('HTTP/1.0 with a length', SIZED, { ...HELLO, closes: true }, { request: 'old' }),
  good(
    'HTTP/1.0 with a length, which keeps its connection',
    SIZED,
    { ...HELLO, has: ['Connection: keep-alive'] },
    { request: 'old-keeps' },
  ),
  good(
    'HTTP/1.0 gets no chunks',
    IN_CHUNKS,
    { ...HELLO, closes: true, lacks: ['transfer-encoding'] },
    { request: 'old' },
  ),
  good(
    'HTTP/1.0 that would keep its connection gets no chunks',
    IN_CHUNKS,
    { ...HELLO, closes: true, lacks: ['transfer-encoding'] },
    { request: 'old-keeps' },
  ),
  good(
    'HTTP/1.0 gets no trailers',
    chunked('5\r\nhello\r\n0\r\nX: y\r\n\r\n', 'Trailer: X\r\n'),
    { ...HELLO, closes: true, lacks: ['transfer-encoding', 'trailer', 'x'] },
    { request: 'old' },
  ),
  good(
    'HTTP/1.0 up to the end of the connection',
    ok('', 'hello'),
    { ...HELLO, closes: true, lacks: ['transfer-encoding'] },
    { request: 'old', ending: 'fin' },
  ),
  good(
    'HTTP/1.0 with 304',
    'HTTP/1.1 304 x\r\n\r\n',
    { status: 304, has: ['Connection: keep-alive'] },
    { request: 'old-keeps' },
  ),

  good('bytes behind an answer', `${SIZED}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`, HELLO),
  good('bytes behind chunks', `${IN_CHUNKS}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`, HELLO),
  good('bytes behind 204', 'HTTP/1.1 204 x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil', { status: 204 }),
  good('bytes behind 304', 'HTTP/1.1 304 x\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil', { status: 304 }),
  good(
    'bytes behind an answer to HEAD',
    `${ok('Content-Length: 5\r\n')}HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil`,
    { status: 200 },
    { request: 'HEAD' },
  ),
  good('bytes behind an answer, later', [SIZED, 'HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nevil'], HELLO),
  good('an empty line behind an answer', `${SIZED}\r\n`, HELLO),
  good('a reset behind an answer', SIZED, HELLO, { ending: 'reset' }),

  ...(['fin', 'reset'] as const).flatMap((ending): ResponseCase[] => [
    { title: `nothing, then ${ending}`, answer: '', ending, expected: 'refused' },
    ...Array.from(
      { length: SIZED.indexOf('\r\n\r\n') + 3 },
      (_, i): ResponseCase => ({
        title: `${i + 1} bytes of the head, then ${ending}`,
        answer: SIZED.slice(0, i + 1),
        ending,
        expected: 'refused',
      }),
    ),
    cut(`no byte of the length, then ${ending}`, SIZED.slice(0, -5), ending),
    cut(`a part of the length, then ${ending}`, SIZED.slice(0, -1), ending),
    cut(`a part of the length in pieces, then ${ending}`, [SIZED.slice(0, -5), 'he'], ending),
    ...[1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12, 13, 14].map((less) =>
      cut(`chunks less ${less} bytes, then ${ending}`, IN_CHUNKS.slice(0, -less), ending),
    ),
    cut(`chunks less their last, later, then ${ending}`, [IN_CHUNKS.slice(0, -5), ''], ending),
    cut(`chunks with half a trailer, then ${ending}`, chunked('5\r\nhello\r\n0\r\nX: y\r\n'), ending),
    cut(`chunks for HTTP/1.0, then ${ending}`, IN_CHUNKS.slice(0, -5), ending, { request: 'old' }),
    cut(`a length for HTTP/1.0, then ${ending}`, SIZED.slice(0, -1), ending, { request: 'old' }),
  ]),
  cut('up to the end of the connection, which is reset', [ok('', 'hello'), ''], 'reset'),
  cut('up to the end of the connection, which is reset, for HTTP/1.0', [ok('', 'hello'), ''], 'reset', {
    request: 'old',
  }),

  good(
    '101 that was asked for',
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n',
    { status: 101, has: ['Upgrade: websocket', 'Connection: Upgrade'] },
    { request: 'upgrade' },
  ),
  good('no 101 although it was asked for', SIZED, HELLO, { request: 'upgrade' }),
  good(
    '426',
    'HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade\r\nContent-Length: 0\r\n\r\n',
    { status: 426, has: ['Upgrade: websocket', 'Connection: Upgrade'] },
  ),
  {
    title: '101 to another protocol than was asked for',
    answer: 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: evil\r\nConnection: Upgrade\r\n\r\n',
    request: 'upgrade',
    expected: 'refused',
  },
  {
    title: '101 to h2c',
    answer: 'HTTP/1.1 101 Switching Protocols\r\nUpgrade: h2c\r\nConnection: Upgrade\r\n\r\n',
    request: 'upgrade',
    expected: 'refused',
  },
  {
    title: '101 that does not say to what',
    answer: 'HTTP/1.1 101 Switching Protocols\r\nConnection: Upgrade\r\n\r\n',
    request: 'upgrade',
    expected: 'refused',
  },
]
