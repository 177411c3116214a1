/** The paths whose cost is counted: what an Ambassador says, what a client asks, and what an upstream answers. */
import type { AmbassadorSpec } from '../../operator/api/ambassador.ts'
import { message, query, startup } from '../helpers/postgres-client.ts'

type Upstream = AmbassadorSpec['upstreams'][number]

export interface Path {
  readonly name: string
  readonly protocol: AmbassadorSpec['protocol']
  readonly hasTls?: boolean
  /** Of the upstream. */
  readonly settings?: Partial<Upstream>
  /** Of the Ambassador. */
  readonly spec?: Partial<AmbassadorSpec>
  /** Sent once, and answered with what ends in `end`. */
  readonly greeting?: { readonly request: Buffer; readonly answer: Buffer; readonly end: Buffer }
  readonly request: Buffer
  /** The upstream's. What a client gets may be longer. */
  readonly answer: Buffer
  /** A connection for each request, which the upstream ends behind its answer. Default: one for all of them. */
  readonly isBrief?: boolean
  /** How many answers the upstream owes for what has come in one read. Default: one. */
  readonly owed?: (chunk: Buffer) => number
}

const REQUEST = Buffer.from(`GET /v1/charges?limit=10 HTTP/1.1\r
Host: api.example.com\r
Accept: application/json\r
Accept-Encoding: gzip, deflate, br\r
Accept-Language: en\r
Authorization: Bearer 0123456789abcdef\r
User-Agent: shop/1.4.2\r
X-Correlation-Id: 7c1f3a52\r
Cookie: session=0123456789abcdef\r
\r
`)

const ANSWER = Buffer.from(`HTTP/1.1 200 OK\r
Date: Thu, 01 Jan 2026 00:00:00 GMT\r
Content-Type: application/json\r
Content-Length: 100\r
Cache-Control: no-store\r
ETag: "0123456789abcdef"\r
Server: upstream\r
Strict-Transport-Security: max-age=31536000\r
Vary: Accept-Encoding\r
X-Frame-Options: DENY\r
\r
${'x'.repeat(100)}`)

/** With a body that is kept for another try. */
const POST = Buffer.from(`POST /v1/charges HTTP/1.1\r
Host: api.example.com\r
Content-Type: application/json\r
Content-Length: 1000\r
Idempotency-Key: 7c1f3a52\r
\r
${'y'.repeat(1000)}`)

const READY = message('Z', 'I')
const WELCOME = Buffer.concat([
  message('R', '\0\0\0\0'),
  message('S', 'server_version\x0018.0\0'),
  message('S', 'client_encoding\0UTF8\0'),
  message('K', '\0\0\0\x01\0\0\0\x02'),
  READY,
])
const ROW = Buffer.concat([
  message('T', '\0\x01sum\0\0\0\0\0\0\0\0\0\0\x17\0\x04\xff\xff\xff\xff\0\0'),
  message('D', '\0\x01\0\0\0\x0212'),
  message('C', 'SELECT 1\0'),
  READY,
])

const GET = Buffer.from('*2\r\n$3\r\nGET\r\n$7\r\nkey:123\r\n')
const BULK = Buffer.from(`$100\r\n${'x'.repeat(100)}\r\n`)
const times = (count: number, bytes: Buffer): Buffer => Buffer.concat(Array.from({ length: count }, () => bytes))

/** With everything on that a production Ambassador has. */
const HTTP: Pick<Path, 'protocol' | 'settings' | 'spec' | 'request' | 'answer'> = {
  protocol: 'HTTP',
  settings: { circuitBreaker: {} as Upstream['circuitBreaker'] },
  spec: {
    retry: { maxRetries: 3, on: ['ConnectFailure', 'Reset', '5xx'] } as AmbassadorSpec['retry'],
    rateLimit: { requests: 1_000_000, per: '1s' } as AmbassadorSpec['rateLimit'],
  },
  request: REQUEST,
  answer: ANSWER,
}

const BYTES: Pick<Path, 'protocol' | 'request' | 'answer'> = { protocol: 'TCP', request: REQUEST, answer: ANSWER }

const messages = (chunk: Buffer): number => {
  let count = 0
  for (let at = 0; at < chunk.length; at += 1 + chunk.readInt32BE(at + 1)) count++
  return count
}

const POSTGRES: Pick<Path, 'protocol' | 'settings' | 'greeting' | 'request' | 'answer' | 'owed'> = {
  protocol: 'PostgreSQL',
  settings: {
    auth: { postgres: { username: 'shop', password: { secretKeyRef: { name: 'db', key: 'password' } } } },
  } as Partial<Upstream>,
  greeting: { request: startup(0, 'user\0shop\0database\0shop\0\0'), answer: WELCOME, end: READY },
  request: query('select a + b as sum from things where id = 1234'),
  answer: ROW,
  owed: messages,
}

export const PATHS: readonly Path[] = [
  { name: 'http', ...HTTP },
  { name: 'http-post', ...HTTP, request: POST },
  { name: 'https', ...HTTP, hasTls: true },
  { name: 'tcp', ...BYTES },
  { name: 'tls', ...BYTES, hasTls: true },
  { name: 'redis', protocol: 'Redis', request: GET, answer: BULK },
  { name: 'redis-16', protocol: 'Redis', request: times(16, GET), answer: times(16, BULK) },
  { name: 'postgres', ...POSTGRES },
  {
    name: 'postgres-pooled',
    ...POSTGRES,
    spec: { postgres: { pooling: { mode: 'Transaction' } } as AmbassadorSpec['postgres'] },
  },
  { name: 'tcp-connect', ...BYTES, isBrief: true },
  { name: 'tls-connect', ...BYTES, hasTls: true, isBrief: true },
]
