/** Responses as bytes: those that are never passed on, odd ones that reach the application as they came, and all that are cut short. */

export type Method = 'GET' | 'HEAD'

export interface BadResponse {
  readonly name: string
  readonly send: string
}

export interface GoodResponse {
  readonly name: string
  readonly send: string
  /** What the application gets. Default: what was sent. */
  readonly expect?: string
  /** Of the request. Default GET. */
  readonly method?: Method
  /** The upstream sends FIN behind it. */
  readonly ends?: boolean
  /** The application speaks HTTP/1.0 and keeps nothing alive: the connection ends behind the answer. */
  readonly isOld?: boolean
}

const head = (fields: string): string => `HTTP/1.1 200 OK\r\n${fields}${fields === '' ? '' : '\r\n'}\r\n`
const line = (text: string): string => head(`Content-Length: 2\r\n${text}`).concat('ok')
const chunked = (body: string): string => head('Transfer-Encoding: chunked').concat(body)
const status = (text: string): string => `${text}\r\nContent-Length: 2\r\n\r\nok`
const many = (count: number, text: (i: number) => string): string =>
  Array.from({ length: count }, (_, i) => text(i)).join('')
const hex = (code: number): string => `0x${code.toString(16).padStart(2, '0')}`
const controls = (name: string, make: (character: string) => string): Record<string, string> =>
  Object.fromEntries(
    [0x00, 0x01, 0x08, 0x0b, 0x0c, 0x1b, 0x7f].map((code) => [`${name} ${hex(code)}`, make(String.fromCharCode(code))]),
  )
const bad = (cases: Readonly<Record<string, string>>): BadResponse[] =>
  Object.entries(cases).map(([name, send]) => ({ name, send }))

/** Each is answered with 502 in the upstream's place. */
export const HOSTILE: readonly BadResponse[] = bad({
  'Content-Length before Transfer-Encoding': head('Content-Length: 2\r\nTransfer-Encoding: chunked').concat(
    '2\r\nok\r\n0\r\n\r\n',
  ),
  'Transfer-Encoding before Content-Length': head('Transfer-Encoding: chunked\r\nContent-Length: 2').concat(
    '2\r\nok\r\n0\r\n\r\n',
  ),
  'Content-Length twice, different': head('Content-Length: 2\r\nContent-Length: 3').concat('ok!'),
  'Content-Length twice, the same': head('Content-Length: 2\r\nContent-Length: 2').concat('ok'),
  'a list of lengths': head('Content-Length: 2, 2').concat('ok'),
  'Content-Length with plus': head('Content-Length: +2').concat('ok'),
  'Content-Length with minus': head('Content-Length: -2').concat('ok'),
  'Content-Length in hex': head('Content-Length: 0x2').concat('ok'),
  'Content-Length empty': head('Content-Length:').concat('ok'),
  'Content-Length with letters': head('Content-Length: 2x').concat('ok'),
  'Content-Length with a space inside': head('Content-Length: 1 0').concat('ok'),
  'Content-Length of 2^53': head('Content-Length: 9007199254740992').concat('ok'),
  'Content-Length of 2^64+2': head('Content-Length: 18446744073709551618').concat('ok'),
  'Transfer-Encoding twice': head('Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked').concat(
    '2\r\nok\r\n0\r\n\r\n',
  ),
  'Transfer-Encoding xchunked': head('Transfer-Encoding: xchunked').concat('2\r\nok\r\n0\r\n\r\n'),
  'Transfer-Encoding identity': head('Transfer-Encoding: identity').concat('ok'),
  'Transfer-Encoding "chunked, chunked"': head('Transfer-Encoding: chunked, chunked').concat('2\r\nok\r\n0\r\n\r\n'),
  'Transfer-Encoding "chunked, gzip"': head('Transfer-Encoding: chunked, gzip').concat('2\r\nok\r\n0\r\n\r\n'),
  'Transfer-Encoding ",chunked"': head('Transfer-Encoding: ,chunked').concat('2\r\nok\r\n0\r\n\r\n'),
  'Transfer-Encoding empty': head('Transfer-Encoding:').concat('ok'),
  'Transfer-Encoding with vertical tab': head('Transfer-Encoding: \x0bchunked').concat('2\r\nok\r\n0\r\n\r\n'),
  'Transfer-Encoding with a space before the colon': head('Transfer-Encoding : chunked').concat('2\r\nok\r\n0\r\n\r\n'),
  'Transfer-Encoding on HTTP/1.0': 'HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nok\r\n0\r\n\r\n',
  'Content-Length nominated by Connection': line('Connection: content-length'),
  'Set-Cookie nominated by Connection': line('Connection: Set-Cookie\r\nSet-Cookie: a=b'),
  'bare LF throughout': 'HTTP/1.1 200 OK\nContent-Length: 2\n\nok',
  'a bare LF behind the status line': 'HTTP/1.1 200 OK\nContent-Length: 2\r\n\r\nok',
  'a bare LF behind a field': 'HTTP/1.1 200 OK\r\nX: y\nContent-Length: 2\r\n\r\nok',
  'a bare LF for the last line end': 'HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\nok',
  'a bare CR in a value': line('X: a\rb'),
  'a bare CR in the reason': status('HTTP/1.1 200 O\rK'),
  'a folded value': line('X: a\r\n b'),
  'a folded value with a tab': line('X: a\r\n\tb'),
  'a space before the colon': line('X : y'),
  'a space before the first name': 'HTTP/1.1 200 OK\r\n Content-Length: 2\r\n\r\nok',
  'a line without colon': line('X'),
  'an empty name': line(': y'),
  'a name with a space': line('X Y: z'),
  'a name with a byte above ASCII': line('X\xe9: y'),
  ...controls('a value with', (c) => line(`X: a${c}b`)),
  ...controls('a name with', (c) => line(`X${c}: b`)),
  ...controls('a reason with', (c) => status(`HTTP/1.1 200 O${c}K`)),
  'HTTP/1.2': status('HTTP/1.2 200 OK'),
  'HTTP/2.0': status('HTTP/2.0 200 OK'),
  'HTTP/0.9': status('HTTP/0.9 200 OK'),
  'a version in lower case': status('http/1.1 200 OK'),
  'a version with two digits': status('HTTP/1.10 200 OK'),
  'another protocol in the status line': status('ICY 200 OK'),
  'two spaces before the status': status('HTTP/1.1  200 OK'),
  'a tab before the status': status('HTTP/1.1\t200 OK'),
  'a space before the version': status(' HTTP/1.1 200 OK'),
  'a status of two digits': status('HTTP/1.1 20 OK'),
  'a status of four digits': status('HTTP/1.1 2000 OK'),
  'a status with letters': status('HTTP/1.1 2xx OK'),
  'a status of 000': status('HTTP/1.1 000 OK'),
  'a status of 099': status('HTTP/1.1 099 OK'),
  'a negative status': status('HTTP/1.1 -20 OK'),
  'no status': status('HTTP/1.1'),
  'empty lines before the status line': `\r\n${line('X: y')}`,
  'bytes of SSH': 'SSH-2.0-OpenSSH_9.2\r\n',
  'bytes of TLS': '\x15\x03\x01\x00\x02\x02\x46',
  'a request': 'GET / HTTP/1.1\r\nHost: a\r\n\r\n',
  'a body without a head': '<html><body>hello</body></html>\r\n\r\n',
  '101 fields': `HTTP/1.1 200 OK\r\nContent-Length: 2\r\n${many(100, (i) => `X${i}: y\r\n`)}\r\nok`,
  'a field of 20 KB': line(`X: ${'y'.repeat(20_000)}`),
  'a head of 70 KB': line(many(70, (i) => `X${i}: ${'y'.repeat(1000)}\r\n`).slice(0, -2)),
  'a field that never ends': `HTTP/1.1 200 OK\r\nX: ${'y'.repeat(70_000)}`,
  'a reason that never ends': `HTTP/1.1 200 ${'y'.repeat(70_000)}`,
  'an interim response with Transfer-Encoding': `HTTP/1.1 103 Early Hints\r\nTransfer-Encoding: chunked\r\n\r\n${line('X: y')}`,
  'an interim response with two lengths': `HTTP/1.1 103 Early Hints\r\nContent-Length: 1\r\nContent-Length: 2\r\n\r\n${line('X: y')}`,
  'eleven interim responses': `${many(11, () => 'HTTP/1.1 103 Early Hints\r\n\r\n')}${line('X: y')}`,
  'a hundred interim responses': `${many(100, () => 'HTTP/1.1 102 Processing\r\n\r\n')}${line('X: y')}`,
  'a switch that nobody asked for':
    'HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\r\n',
  'a bad Content-Length on 204': 'HTTP/1.1 204 No Content\r\nContent-Length: x\r\n\r\n',
  'a bad Content-Length on 304': 'HTTP/1.1 304 Not Modified\r\nContent-Length: 1, 2\r\n\r\n',
  'both framings on 204': 'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\nTransfer-Encoding: chunked\r\n\r\n',
})

/** Each breaks in the body: 502 while nothing was passed on, otherwise an answer that is visibly not complete. */
export const BROKEN_BODIES: readonly BadResponse[] = bad({
  'a chunk size that is no number': chunked('zz\r\nhello\r\n0\r\n\r\n'),
  'an empty chunk size': chunked('\r\nhello\r\n0\r\n\r\n'),
  'a chunk size in 0x': chunked('0x5\r\nhello\r\n0\r\n\r\n'),
  'a negative chunk size': chunked('-5\r\nhello\r\n0\r\n\r\n'),
  'a chunk size with a space': chunked('5 \r\nhello\r\n0\r\n\r\n'),
  'a chunk size of 17 digits': chunked('00000000000000005\r\nhello\r\n0\r\n\r\n'),
  'a chunk size of 2^64+5': chunked('10000000000000005\r\nhello\r\n0\r\n\r\n'),
  'a chunk size of 2^53': chunked('20000000000000\r\nhello\r\n0\r\n\r\n'),
  'a chunk size line that ends with LF': chunked('5\nhello\r\n0\r\n\r\n'),
  'a chunk that ends with LF': chunked('5\r\nhello\n0\r\n\r\n'),
  'a chunk that is longer than its size': chunked('4\r\nhello\r\n0\r\n\r\n'),
  'a chunk that is shorter than its size': chunked('6\r\nhello\r\n0\r\n\r\n'),
  'a bad second chunk': chunked('5\r\nhello\r\nx\r\nworld\r\n0\r\n\r\n'),
  'a last chunk line that ends with LF': chunked('5\r\nhello\r\n0\n\r\n'),
  'a last empty line that is LF': chunked('5\r\nhello\r\n0\r\n\n'),
  'an extension with a bare CR': chunked('5;a\rb\r\nhello\r\n0\r\n\r\n'),
  'an extension with NUL': chunked('5;a\x00\r\nhello\r\n0\r\n\r\n'),
  'an extension of 100 KB': chunked(`5;${'a'.repeat(100_000)}\r\nhello\r\n0\r\n\r\n`),
  'a trailer without colon': chunked('5\r\nhello\r\n0\r\nX\r\n\r\n'),
  'a trailer with NUL': chunked('5\r\nhello\r\n0\r\nX: \x00\r\n\r\n'),
  'a trailer that is folded': chunked('5\r\nhello\r\n0\r\nX: y\r\n z\r\n\r\n'),
  'Content-Length in the trailers': chunked('5\r\nhello\r\n0\r\nContent-Length: 5\r\n\r\n'),
  'Transfer-Encoding in the trailers': chunked('5\r\nhello\r\n0\r\nTransfer-Encoding: chunked\r\n\r\n'),
  'a response for the trailer section': chunked('5\r\nhello\r\n0\r\nHTTP/1.1 200 OK\r\n\r\n'),
  'trailers of 10 KB': chunked(`5\r\nhello\r\n0\r\n${many(10, (i) => `X${i}: ${'y'.repeat(1000)}\r\n`)}\r\n`),
})

const same = (cases: Readonly<Record<string, string>>): GoodResponse[] =>
  Object.entries(cases).map(([name, send]) => ({ name, send }))
const changed = (cases: Readonly<Record<string, readonly [send: string, expect: string]>>): GoodResponse[] =>
  Object.entries(cases).map(([name, [send, expect]]) => ({ name, send, expect }))
const to = (method: Method, cases: readonly GoodResponse[]): GoodResponse[] =>
  cases.map((each) => ({ ...each, method }))
const ends = (cases: readonly GoodResponse[]): GoodResponse[] => cases.map((each) => ({ ...each, ends: true }))
const old = (cases: readonly GoodResponse[]): GoodResponse[] => cases.map((each) => ({ ...each, isOld: true }))
const PLAIN = head('Content-Length: 2').concat('ok')

export const LEGAL: readonly GoodResponse[] = [
  ...same({
    'the plainest response': PLAIN,
    'an empty body': head('Content-Length: 0'),
    'names in odd case': line('x-LOWER: 1\r\nX-UPPER: 2\r\nX-mIxEd: 3'),
    'duplicates in order': line('Set-Cookie: a=1\r\nX: y\r\nset-cookie: b=2\r\nSet-Cookie: a=3'),
    'empty values and odd spaces': line('A:\r\nB:   \r\nC:d\r\nE:\t f \t'),
    'values with bytes above ASCII': line('X: caf\xe9 \xff\r\nContent-Disposition: attachment; filename="\xc3\xa9"'),
    'names of odd token characters': line("!#$%&'*+-.^_`|~09: y\r\nX_Y: z"),
    'a Location of any form': line('Location: http://other/a b?c#d'),
    'fields of other hops': line('Via: 1.1 x\r\nServer: y\r\nX-Powered-By: z\r\nDate: yesterday\r\nAge: -1'),
    'a WWW-Authenticate': status('HTTP/1.1 401 Unauthorized\r\nWWW-Authenticate: Basic realm="a", Bearer'),
    'fields like those of the proxy': line(
      'X-Ambassador-Reason: mine\r\nProxy-Status: mine; error=x\r\nX-Request-ID: mine',
    ),
    'an empty reason': status('HTTP/1.1 200 '),
    'a reason of many words': status('HTTP/1.1 200 Everything is (very) fine, "thanks"'),
    'a reason with bytes above ASCII': status('HTTP/1.1 200 d\xe9j\xe0 vu'),
    'a reason with a tab': status('HTTP/1.1 200 O\tK'),
    '201': status('HTTP/1.1 201 Created'),
    '205 with a body': status('HTTP/1.1 205 Reset Content'),
    '206 of several ranges': status('HTTP/1.1 206 Partial Content\r\nContent-Type: multipart/byteranges; boundary=x'),
    '302': status('HTTP/1.1 302 Found\r\nLocation: /x'),
    '404': status('HTTP/1.1 404 Not Found'),
    '418': status("HTTP/1.1 418 I'm a teapot"),
    '429 with Retry-After': status('HTTP/1.1 429 Too Many Requests\r\nRetry-After: 1'),
    '451': status('HTTP/1.1 451 Unavailable For Legal Reasons'),
    '500': status('HTTP/1.1 500 Internal Server Error'),
    '503 with a date': status('HTTP/1.1 503 Service Unavailable\r\nRetry-After: Fri, 31 Dec 1999 23:59:59 GMT'),
    '599': status('HTTP/1.1 599 Whatever'),
    '600, which no class has': status('HTTP/1.1 600 Odd'),
    '999, which no class has': status('HTTP/1.1 999 Request Denied'),
    '204': 'HTTP/1.1 204 No Content\r\nX: y\r\n\r\n',
    '304 with Content-Length': 'HTTP/1.1 304 Not Modified\r\nContent-Length: 1000\r\nETag: "x"\r\n\r\n',
    'Content-Length with leading zeros': head('Content-Length: 0002').concat('ok'),
    'Content-Length in odd case and spaces': head('cOnTent-length:  2  ').concat('ok'),
    'a body of every byte': head('Content-Length: 256').concat(many(256, (i) => String.fromCharCode(i))),
    'a body that looks like a response': head(`Content-Length: ${PLAIN.length}`).concat(PLAIN),
    'a body of 200 KB': head('Content-Length: 200000').concat('z'.repeat(200_000)),
    'a gzip body': head('Content-Encoding: gzip\r\nContent-Length: 4').concat('\x1f\x8b\x08\x00'),
    'a body that is not what Content-Encoding says': head('Content-Encoding: br\r\nContent-Length: 5').concat('hello'),
    'a chunked body': chunked('5\r\nhello\r\n0\r\n\r\n'),
    'an empty chunked body': chunked('0\r\n\r\n'),
    'Chunked in odd case': head('transfer-encoding: Chunked').concat('5\r\nhello\r\n0\r\n\r\n'),
    'chunk sizes in both cases': chunked(`A\r\n${'x'.repeat(10)}\r\nb\r\n${'x'.repeat(11)}\r\n0\r\n\r\n`),
    'a chunk that holds a last chunk': chunked('5\r\n0\r\n\r\n\r\n0\r\n\r\n'),
    'many chunks': chunked(`${many(30, (i) => `1\r\n${i % 10}\r\n`)}0\r\n\r\n`),
    'a chunk of 200 KB': chunked(`30d40\r\n${'z'.repeat(200_000)}\r\n0\r\n\r\n`),
    'a trailer': head('Trailer: X-Sum\r\nTransfer-Encoding: chunked').concat(
      '5\r\nhello\r\n0\r\nX-Sum: a\r\nx-other:b\r\n\r\n',
    ),
    'trailers of gRPC-Web kind': chunked('0\r\ngrpc-status: 0\r\ngrpc-message: OK\r\n\r\n'),
    'Server-Sent Events': head('Content-Type: text/event-stream\r\nTransfer-Encoding: chunked').concat(
      '8\r\ndata: x\n\r\n0\r\n\r\n',
    ),
    '99 fields': `HTTP/1.1 200 OK\r\nContent-Length: 2\r\n${many(98, (i) => `X${i}: y\r\n`)}\r\nok`,
    'a field of 12 KB': line(`X: ${'y'.repeat(12_000)}`),
    'a head of 50 KB': line(many(50, (i) => `X${i}: ${'y'.repeat(990)}\r\n`).slice(0, -2)),
    '102 before': `HTTP/1.1 102 Processing\r\n\r\n${PLAIN}`,
    '103 before': `HTTP/1.1 103 Early Hints\r\nLink: </a.css>; rel=preload\r\nlink: </b.js>\r\n\r\n${PLAIN}`,
    'ten interim responses': `${many(10, (i) => `HTTP/1.1 103 Early Hints\r\nX: ${i}\r\n\r\n`)}${PLAIN}`,
    'an interim response of an unknown kind': `HTTP/1.1 199 Odd\r\nX: y\r\n\r\n${PLAIN}`,
    'a 100 that nobody waits for': `HTTP/1.1 100 Continue\r\n\r\n${PLAIN}`,
  }),
  ...changed({
    'no reason and no space': [status('HTTP/1.1 200'), status('HTTP/1.1 200 ')],
    'HTTP/1.0 with a length': ['HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\nok', PLAIN],
    'HTTP/1.0 with keep-alive': ['HTTP/1.0 200 OK\r\nConnection: keep-alive\r\nContent-Length: 2\r\n\r\nok', PLAIN],
    'Connection: close': [line('Connection: close'), PLAIN],
    'Connection and Keep-Alive': [line('Connection: Keep-Alive\r\nKeep-Alive: timeout=5, max=100'), PLAIN],
    'a nominated field': [line('Connection: X-S, close\r\nX-S: 1\r\nx-s: 2'), PLAIN],
    'a nominated field before Connection': [line('X-S: 1\r\nX: y\r\nConnection: x-s'), line('X: y')],
    'Proxy-Connection': [line('Proxy-Connection: keep-alive'), PLAIN],
    'Proxy-Authenticate': [line('Proxy-Authenticate: Basic realm="x"'), PLAIN],
    'Upgrade as an offer': [line('Upgrade: h2c\r\nConnection: Upgrade'), PLAIN],
    '426 with what to upgrade to': [
      status('HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nConnection: Upgrade'),
      'HTTP/1.1 426 Upgrade Required\r\nUpgrade: websocket\r\nContent-Length: 2\r\nConnection: Upgrade\r\n\r\nok',
    ],
    '204 with Content-Length': [
      'HTTP/1.1 204 No Content\r\nContent-Length: 0\r\n\r\n',
      'HTTP/1.1 204 No Content\r\n\r\n',
    ],
    '204 with chunked': [
      'HTTP/1.1 204 No Content\r\nTransfer-Encoding: chunked\r\nX: y\r\n\r\n',
      'HTTP/1.1 204 No Content\r\nX: y\r\n\r\n',
    ],
    '103 with Content-Length': [
      `HTTP/1.1 103 Early Hints\r\nContent-Length: 5\r\nX: y\r\n\r\n${PLAIN}`,
      `HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n${PLAIN}`,
    ],
    '103 with fields of its hop': [
      `HTTP/1.1 103 Early Hints\r\nConnection: X-S\r\nX-S: 1\r\nKeep-Alive: timeout=5\r\nX: y\r\n\r\n${PLAIN}`,
      `HTTP/1.1 103 Early Hints\r\nX: y\r\n\r\n${PLAIN}`,
    ],
    'chunk extensions': [chunked('5;a;b=c;d="e;\\"f"\r\nhello\r\n0;last\r\n\r\n'), chunked('5\r\nhello\r\n0\r\n\r\n')],
    'leading zeros in chunk sizes': [chunked('00005\r\nhello\r\n0000\r\n\r\n'), chunked('5\r\nhello\r\n0\r\n\r\n')],
    'trailers that may not be there are dropped': [
      chunked('5\r\nhello\r\n0\r\nX: 1\r\nSet-Cookie: a\r\nCache-Control: no-store\r\nY: 2\r\n\r\n'),
      chunked('5\r\nhello\r\n0\r\nX: 1\r\nY: 2\r\n\r\n'),
    ],
    'bytes behind a whole response': [`${PLAIN}${line('X: poison')}`, PLAIN],
    'bytes behind a last chunk': [`${chunked('0\r\n\r\n')}${PLAIN}`, chunked('0\r\n\r\n')],
    'a body of 204': [`HTTP/1.1 204 No Content\r\n\r\nbody`, 'HTTP/1.1 204 No Content\r\n\r\n'],
    'a body of 304': [
      `HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\nbody`,
      'HTTP/1.1 304 Not Modified\r\nContent-Length: 4\r\n\r\n',
    ],
  }),
  ...to('HEAD', [
    ...same({
      'Content-Length of an answer to HEAD': head('Content-Length: 1000'),
      'Transfer-Encoding of an answer to HEAD': head('Transfer-Encoding: chunked'),
      'no framing of an answer to HEAD': head(''),
      '404 to HEAD': 'HTTP/1.1 404 Not Found\r\nContent-Length: 9\r\n\r\n',
    }),
    ...changed({ 'a body of an answer to HEAD': [PLAIN, head('Content-Length: 2')] }),
  ]),
  ...ends(
    changed({
      'a body up to the end': [
        head('X: y').concat('hello'),
        head('X: y\r\nTransfer-Encoding: chunked').concat('5\r\nhello\r\n0\r\n\r\n'),
      ],
      'an empty body up to the end': [head('X: y'), head('X: y\r\nTransfer-Encoding: chunked').concat('0\r\n\r\n')],
      'a body up to the end of HTTP/1.0': [
        'HTTP/1.0 200 OK\r\n\r\nhello',
        head('Transfer-Encoding: chunked').concat('5\r\nhello\r\n0\r\n\r\n'),
      ],
      'a body up to the end in spite of keep-alive': [
        head('Connection: keep-alive').concat('hello'),
        head('Transfer-Encoding: chunked').concat('5\r\nhello\r\n0\r\n\r\n'),
      ],
      'a whole body and the end': [PLAIN, PLAIN],
      'a whole chunked body and the end': [chunked('5\r\nhello\r\n0\r\n\r\n'), chunked('5\r\nhello\r\n0\r\n\r\n')],
    }),
  ),
  ...old([
    ...changed({
      'a length for HTTP/1.0': [PLAIN, head('Content-Length: 2\r\nConnection: close').concat('ok')],
      'chunks for HTTP/1.0': [
        chunked('5\r\nhello\r\n6;x\r\n world\r\n0\r\nX: y\r\n\r\n'),
        head('Connection: close').concat('hello world'),
      ],
      'chunks and announced trailers for HTTP/1.0': [
        head('Trailer: X\r\nTransfer-Encoding: chunked\r\nY: z').concat('5\r\nhello\r\n0\r\nX: y\r\n\r\n'),
        head('Y: z\r\nConnection: close').concat('hello'),
      ],
      'interim responses for HTTP/1.0': [
        `HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 103 Early Hints\r\n\r\n${PLAIN}`,
        head('Content-Length: 2\r\nConnection: close').concat('ok'),
      ],
      '204 for HTTP/1.0': ['HTTP/1.1 204 No Content\r\n\r\n', 'HTTP/1.1 204 No Content\r\nConnection: close\r\n\r\n'],
    }),
    ...ends(
      changed({
        'a body up to the end for HTTP/1.0': [head('').concat('hello'), head('Connection: close').concat('hello')],
      }),
    ),
  ]),
]

export interface CutResponse {
  readonly name: string
  /** What comes before the end; whether the head of it is complete decides between 502 and a cut answer. */
  readonly send: string
}

const cuts = (name: string, whole: string, points: Readonly<Record<string, number>>): CutResponse[] =>
  Object.entries(points).map(([point, length]) => ({ name: `${name}, ${point}`, send: whole.slice(0, length) }))
const HEAD_CL = head('Content-Length: 11')
const HEAD_CH = head('Transfer-Encoding: chunked')
const CH = HEAD_CH.length
const WHOLE_CH = HEAD_CH.concat('5\r\nhello\r\n6\r\n world\r\n0\r\nX: y\r\n\r\n')

/** Each ends by FIN and by RST where it stands; none is complete. */
export const CUT: readonly CutResponse[] = [
  ...cuts('Content-Length', HEAD_CL.concat('hello world'), {
    'before any byte': 0,
    'in the version': 5,
    'in the status': 11,
    'behind the status line': 17,
    'in a name': 20,
    'in a value': 33,
    'before the last line end': HEAD_CL.length - 1,
    'behind the head': HEAD_CL.length,
    'behind one byte': HEAD_CL.length + 1,
    'in the middle': HEAD_CL.length + 5,
    'one byte before the end': HEAD_CL.length + 10,
  }),
  ...cuts('chunked', WHOLE_CH, {
    'behind the head': CH,
    'in a size line': CH + 1,
    'behind a CR': CH + 2,
    'behind a size line': CH + 3,
    'in a chunk': CH + 5,
    'behind the data of a chunk': CH + 8,
    'in the line end behind a chunk': CH + 9,
    'behind a chunk': CH + 10,
    'behind all chunks': WHOLE_CH.indexOf('0\r\nX'),
    'in the last size line': WHOLE_CH.indexOf('0\r\nX') + 1,
    'behind the last size line': WHOLE_CH.indexOf('X: y'),
    'in a trailer': WHOLE_CH.indexOf('X: y') + 2,
    'before the last empty line': WHOLE_CH.length - 2,
    'in the last empty line': WHOLE_CH.length - 1,
  }),
  { name: 'behind an interim response', send: 'HTTP/1.1 103 Early Hints\r\n\r\n' },
  { name: 'in a gzip body', send: head('Content-Encoding: gzip\r\nContent-Length: 20').concat('\x1f\x8b\x08\x00') },
  { name: 'a body of 100 KB, half', send: head('Content-Length: 100000').concat('z'.repeat(50_000)) },
  { name: 'a chunk of 100 KB, half', send: HEAD_CH.concat('186a0\r\n', 'z'.repeat(50_000)) },
]

/** Bodies up to the end of the connection: complete with a FIN, cut short with a RST. */
export const ENDLESS: readonly CutResponse[] = [
  { name: 'without framing', send: head('X: y').concat('hello') },
  { name: 'without framing and without a byte', send: head('X: y') },
  { name: 'of HTTP/1.0', send: 'HTTP/1.0 200 OK\r\n\r\nhello' },
  { name: 'of 100 KB', send: head('').concat('z'.repeat(100_000)) },
]
