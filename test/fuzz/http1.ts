/** Makes HTTP/1.1 messages, most of them slightly wrong, and compares what the codec takes with what llhttp takes. */
import { type Message, type Relayed, relayRequests, relayResponse } from '../helpers/codec.ts'
import { LLHTTP_METHODS, llhttp, type OracleResult } from '../helpers/llhttp.ts'
import { SeededRandom } from './random.ts'

export interface Disagreement {
  readonly seed: number
  readonly side: 'request' | 'response'
  readonly bytes: string
  readonly why: string
}

export interface FuzzReport {
  inputs: number
  /** Messages that the codec took, and that were compared. */
  accepted: number
  /** Inputs that the codec refused, and of those the ones that llhttp takes. */
  refused: number
  stricter: number
  readonly disagreements: Disagreement[]
}

const METHODS = [
  'GET',
  'POST',
  'PUT',
  'DELETE',
  'HEAD',
  'OPTIONS',
  'PATCH',
  'PURGE',
  'PURGEX',
  'get',
  'CONNECT',
  'TRACE',
]
const TARGETS = [
  '/',
  '/a/../b?c=%2f',
  '*',
  'http://a/x',
  'http://a:80',
  'https://a/',
  '/#f',
  '//x',
  'a:80',
  '/\x80',
  '/a b',
]
const VERSIONS = [
  'HTTP/1.1',
  'HTTP/1.1',
  'HTTP/1.1',
  'HTTP/1.0',
  'HTTP/1.2',
  'HTTP/2.0',
  'HTTP/0.9',
  'HTTP/1.10',
  'http/1.1',
]
const NAMES = [
  'Host',
  'Content-Length',
  'Transfer-Encoding',
  'Connection',
  'X-A',
  'TE',
  'Upgrade',
  'Expect',
  'Trailer',
  'X_A',
]
const VALUES: Record<string, readonly string[]> = {
  Host: ['a', 'a:80', 'a b/c', '', '[::1]:8080', 'a,b', 'user@a', 'A'],
  'Content-Length': [
    '0',
    '3',
    '5',
    '+5',
    '0x5',
    '5,5',
    '5, 5',
    '',
    '-1',
    '18446744073709551618',
    '9007199254740993',
    '05',
    '5 5',
  ],
  'Transfer-Encoding': [
    'chunked',
    'Chunked',
    'xchunked',
    'chunked, identity',
    'gzip, chunked',
    ',chunked',
    '\x0bchunked',
    'identity',
  ],
  Connection: ['close', 'keep-alive', 'Upgrade', 'X-A', 'close, X-A', 'Host', ', ,', 'te'],
  Upgrade: ['websocket', 'h2c', 'a/1, b'],
  Expect: ['100-continue', 'x'],
}
const OTHER = ['', 'v', ' v ', 'a\tb', '\x80\xff', 'v\x00w', 'v\x01', 'v\rw', 'v\nw', 'v\r\n w', '"q"']
const BODIES = [
  '',
  'abc',
  'hello',
  'hello world',
  '5\r\nhello\r\n0\r\n\r\n',
  '3\r\nabc\r\n2;x=y\r\nde\r\n0\r\nX-T: 1\r\n\r\n',
  '0\r\n\r\n',
]
const CHUNKS = [
  '5\r\nhello\r\n',
  '05\r\nhello\r\n',
  '5;a\r\nhello\r\n',
  '5;a="b;\\"c"\r\nhello\r\n',
  '5 \r\nhello\r\n',
  '0x5\r\nhello\r\n',
]
const ENDS = [
  '0\r\n\r\n',
  '00\r\n\r\n',
  '0\r\nX-T: 1\r\n\r\n',
  '0;x\r\n\r\n',
  '0\r\nContent-Length: 3\r\n\r\n',
  '0\r\n',
  '-1\r\n\r\n',
  '0\n\n',
]
const PIECES = [
  '\r',
  '\n',
  '\r\n',
  ' ',
  '\t',
  ':',
  ',',
  ';',
  '\0',
  '\x7f',
  '\x80',
  '0',
  '5',
  'f',
  '"',
  '\\',
  '=',
  '#',
  '/',
  'chunked',
  '\r\n ',
]
const STATUSES = [
  '200 OK',
  '204 No Content',
  '304 Not Modified',
  '404',
  '500 ',
  '100 Continue',
  '099 x',
  '20 x',
  '2000 x',
  '200OK',
  '599 \x80',
]

function field(random: SeededRandom): string {
  const name = random.pick(NAMES)
  const value = random.pick(random.below(4) === 0 ? OTHER : (VALUES[name] ?? OTHER))
  const colon = random.below(20) === 0 ? random.pick([' :', ':', '']) : ': '
  return `${random.below(12) === 0 ? name.toLowerCase() : name}${colon}${value}\r\n`
}

function body(random: SeededRandom): string {
  if (random.below(2) === 0) return random.pick(BODIES)
  let text = ''
  for (let i = random.below(4); i > 0; i--) text += random.pick(CHUNKS)
  return text + random.pick(ENDS)
}

function fields(random: SeededRandom, text: string): string {
  // Half of them are framed as the body is, so that bodies are reached at all.
  if (random.below(2) === 0)
    return random.below(2) === 0 ? 'Transfer-Encoding: chunked\r\n' : `Content-Length: ${text.length}\r\n`
  let lines = ''
  for (let i = random.below(4); i > 0; i--) lines += field(random)
  return lines
}

function mutate(random: SeededRandom, text: string): string {
  for (let i = random.pick([0, 0, 0, 1, 1, 2, 4]); i > 0; i--) {
    const at = random.below(text.length + 1)
    const span = random.below(3)
    const piece =
      random.below(4) === 0 ? '' : random.below(3) === 0 ? String.fromCharCode(random.below(256)) : random.pick(PIECES)
    text = text.slice(0, at) + piece + text.slice(at + span)
  }
  return random.below(10) === 0 ? text.slice(0, random.below(text.length + 1)) : text
}

function request(random: SeededRandom): string {
  const text = body(random)
  const host = random.below(8) === 0 ? '' : 'Host: a\r\n'
  const usual = random.below(3) > 0
  const line = usual
    ? `${random.pick(['GET', 'POST'])} / HTTP/1.1`
    : `${random.pick(METHODS)} ${random.pick(TARGETS)} ${random.pick(VERSIONS)}`
  return `${line}\r\n${host}${fields(random, text)}\r\n${text}`
}

function response(random: SeededRandom): string {
  const text = body(random)
  const line = `${random.below(3) > 0 ? 'HTTP/1.1' : random.pick(VERSIONS)} ${random.below(3) > 0 ? '200 OK' : random.pick(STATUSES)}`
  return `${line}\r\n${fields(random, text)}\r\n${text}`
}

const isLength = ([name]: readonly [string, string]): boolean => name.toLowerCase() === 'content-length'

function asksForUpgrade({ fields }: Message): boolean {
  const has = (name: string, word: string): boolean =>
    fields.some(([each, value]) => each.toLowerCase() === name && value.toLowerCase().includes(word))
  return has('upgrade', '') && has('connection', 'upgrade')
}

/** Compares one input; what the codec took must be what llhttp took. Null: they agree. */
export function compare(ours: Relayed, oracle: OracleResult, side: 'request' | 'response'): string | null {
  for (const [i, message] of ours.messages.entries()) {
    if (side === 'request' && !LLHTTP_METHODS.has(message.start.split(' ')[0]!)) return null
    const other = oracle.messages[i]
    // Behind a request for another protocol it reads no more, whichever protocol that is; we pass h2c on as an ordinary request.
    if (other === undefined && i > 0 && asksForUpgrade(ours.messages[i - 1]!)) return null
    if (other === undefined) return `message ${i} is not seen by llhttp (${oracle.refused})`
    if (message.start !== other.start) return `message ${i} begins '${message.start}', to llhttp '${other.start}'`
    if (JSON.stringify(message.fields) !== JSON.stringify(other.fields)) return `fields of message ${i} differ`
    // Against RFC 9112 section 6.3, it reads a body of an interim response; we do not, and drop the length.
    if (side === 'response' && message.start.startsWith('1') && message.fields.some(isLength)) return null
    if (!message.isComplete) continue
    if (!other.isComplete) return `message ${i} is complete, to llhttp it is not (${oracle.refused})`
    if (message.body !== other.body) return `body of message ${i} differs`
  }
  const isTaken = ours.refused === null && !ours.isIncomplete && !ours.hasLeftover
  if (isTaken && oracle.refused !== null) return `taken, llhttp says ${oracle.refused}`
  return null
}

/** So many are tried in any case: a machine that stands still for the time must not leave nothing tried. */
const LEAST_INPUTS = 1024

/** Runs `inputs` inputs from `seed`, or until `deadline` (performance.now()). Stops at ten disagreements. */
export function fuzz(seed: number, inputs: number, deadline = Number.POSITIVE_INFINITY): FuzzReport {
  const report: FuzzReport = { inputs: 0, accepted: 0, refused: 0, stricter: 0, disagreements: [] }
  for (let i = 0; i < inputs && report.disagreements.length < 10; i++) {
    if ((i & 255) === 0 && i >= LEAST_INPUTS && performance.now() > deadline) break
    const inputSeed = (seed + i) >>> 0
    const random = new SeededRandom(inputSeed)
    const side = random.below(3) === 0 ? 'response' : 'request'
    let text = side === 'request' ? request(random) : response(random)
    if (side === 'request' && random.below(3) === 0) text += request(random)
    const bytes = Buffer.from(mutate(random, text), 'latin1')
    const chunkBytes = random.pick([1, 2, 7, 1 << 20])
    const ends = side === 'response' && random.below(2) === 0
    const ours = side === 'request' ? relayRequests(bytes, { chunkBytes }) : relayResponse(bytes, { chunkBytes, ends })
    const oracle = llhttp(side, bytes, false, ends)
    report.inputs++
    report.accepted += ours.messages.filter((m: Message) => m.isComplete).length
    if (ours.refused !== null) {
      report.refused++
      if (oracle.refused === null) report.stricter++
    }
    const why = compare(ours, oracle, side)
    if (why !== null)
      report.disagreements.push({ seed: inputSeed, side, bytes: JSON.stringify(bytes.toString('latin1')), why })
  }
  return report
}
