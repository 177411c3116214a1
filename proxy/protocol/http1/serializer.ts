/** Writes heads for the other side: kept ranges of the head as it came, and between them what this hop changes. */
import { TRACEPARENT_BYTES, type Trace } from '../../tracing/trace-context.ts'
import type { FieldChanges } from './field-changes.ts'
import { BodyKind } from './framing.ts'
import type { RequestFacts, ResponseFacts } from './headers.ts'
import type { HeadParser } from './parser.ts'
import { Field, isName } from './tables.ts'

/** Most bytes that a request head can grow by beside the Host and the credential line. */
export const REQUEST_GROWTH = 256
/** Most bytes that a response head can grow by. */
export const RESPONSE_GROWTH = 128

const VERSION = Buffer.from(' HTTP/1.1\r\n')
const HOST = Buffer.from('Host: ')
const TE_TRAILERS = Buffer.from('TE: trailers\r\nConnection: TE\r\n')
const CONNECTION_UPGRADE = Buffer.from('Connection: Upgrade\r\n')
const CONNECTION_TE_UPGRADE = Buffer.from('TE: trailers\r\nConnection: TE, Upgrade\r\n')
const CONNECTION_CLOSE = Buffer.from('Connection: close\r\n')
const CONNECTION_KEEP_ALIVE = Buffer.from('Connection: keep-alive\r\n')
const TRACEPARENT = Buffer.from('traceparent: ')
const REQUEST_ID = Buffer.from('X-Request-ID: ')
const CHUNKED = Buffer.from('Transfer-Encoding: chunked\r\n')
const STATUS_LINE = Buffer.from('HTTP/1.1 ')
const CRLF = 0x0d0a

/** Copies of up to this many bytes are quicker in JavaScript than by a call into C++ (measured: 1.7 ns a byte against 40 ns). */
const SHORT = 20

/** Copies bytes [from, to) to `at`; returns the offset behind the copy. */
export function copy(source: Buffer, from: number, to: number, target: Buffer, at: number): number {
  if (to - from > SHORT) {
    source.copy(target, at, from, to)
    return at + to - from
  }
  while (from < to) target[at++] = source[from++]!
  return at
}

function append(text: Buffer, target: Buffer, at: number): number {
  return copy(text, 0, text.length, target, at)
}

/** Writes CR LF. */
export function endLine(target: Buffer, at: number): number {
  target[at] = CRLF >> 8
  target[at + 1] = CRLF & 0xff
  return at + 2
}

/** Writes the request id: 36 bytes at `at`. */
export type IdWriter = (target: Buffer, at: number) => void
const ID_BYTES = 36

/** Where in a written request head the parts are that another attempt may have to replace. */
export class RequestMarks {
  /** The value of Host. */
  hostStart = 0
  hostEnd = 0
  /** The credential's line; both 0 when there is none. */
  credentialStart = 0
  credentialEnd = 0
  /** The value of X-Request-ID. */
  idStart = 0
  idEnd = 0
  /** Behind the last empty line. */
  end = 0
}

/**
 * Writes the head of a request for the upstream from `target[0]` on. `target` must hold the head as it came, REQUEST_GROWTH, the
 * Host and the credential.
 * @param host the value of Host
 * @param path what is sent in place of the target as it came; null: that
 * @param changes of a route; null: none. `target` must hold its lines and the path, too
 * @param trace whose traceparent is sent in place of the one that came; null: that, untouched
 * @param credentialName in lower case: what the application sends under it is replaced by `credentialLine` (`Name: value` and line end)
 * @returns the offset behind the head
 */
export function writeRequest(
  head: HeadParser,
  facts: RequestFacts,
  host: Buffer,
  credentialName: Uint8Array | null,
  credentialLine: Buffer | null,
  path: Buffer | null,
  changes: FieldChanges | null,
  trace: Trace | null,
  writeId: IdWriter,
  target: Buffer,
  marks: RequestMarks,
): number {
  const { bytes, count, known } = head
  const { dropped } = facts
  let at: number
  let runStart: number
  if (path === null && facts.targetPrefix === 0 && facts.pathStart === head.targetStart && head.minorVersion === 1) {
    // The request line stays as it is, so the first run begins with it.
    runStart = head.start
    at = 0
  } else {
    at = copy(bytes, head.start, head.targetStart, target, 0)
    if (path !== null) at = append(path, target, at)
    else {
      if (facts.targetPrefix !== 0) target[at++] = facts.targetPrefix
      at = copy(bytes, facts.pathStart, head.targetEnd, target, at)
    }
    at = append(VERSION, target, at)
    runStart = head.lineEnd(-1)
  }
  marks.credentialStart = 0
  marks.credentialEnd = 0
  marks.idEnd = 0
  if (!head.has(Field.host)) {
    at = copy(bytes, runStart, head.lineEnd(-1), target, at)
    runStart = head.lineEnd(-1)
    at = append(HOST, target, at)
    at = writeHost(host, target, at, marks)
    at = endLine(target, at)
  }
  const credentialLength = credentialName === null ? -1 : credentialName.length
  // What is said of a trace that nobody can read belongs to no trace (Trace Context section 4.3).
  const isNewTrace = trace !== null && !trace.hasParent
  for (let i = 0; i < count; i++) {
    const nameStart = head.nameStart(i)
    if (known[i] === Field.host) {
      at = copy(bytes, runStart, head.valueStart(i), target, at)
      at = writeHost(host, target, at, marks)
      runStart = head.valueEnd(i)
    } else if (head.nameEnd(i) - nameStart === credentialLength && isName(bytes, nameStart, credentialName!)) {
      at = copy(bytes, runStart, nameStart, target, at)
      runStart = head.lineEnd(i)
      if (marks.credentialEnd === 0) at = writeCredential(credentialLine!, target, at, marks)
    } else if (known[i] === Field.maxForwards && facts.maxForwards > 0 && dropped[i] === 0) {
      at = copy(bytes, runStart, head.valueStart(i), target, at)
      at += target.write(String(facts.maxForwards - 1), at, 'latin1')
      runStart = head.valueEnd(i)
    } else if (known[i] === Field.traceparent && trace?.hasParent) {
      at = copy(bytes, runStart, head.valueStart(i), target, at)
      at = copy(trace.field, 0, TRACEPARENT_BYTES, target, at)
      runStart = head.valueEnd(i)
    } else if (
      dropped[i] === 1 ||
      (isNewTrace && (known[i] === Field.traceparent || known[i] === Field.tracestate)) ||
      (known[i] === Field.requestId && head.valueEnd(i) === head.valueStart(i)) ||
      changes?.removes(bytes, nameStart, head.nameEnd(i))
    ) {
      at = copy(bytes, runStart, nameStart, target, at)
      runStart = head.lineEnd(i)
    } else if (known[i] === Field.requestId && marks.idEnd === 0) {
      // It is copied with the run that it is in.
      marks.idStart = at + head.valueStart(i) - runStart
      marks.idEnd = at + head.valueEnd(i) - runStart
    }
  }
  at = copy(bytes, runStart, head.lineEnd(count - 1), target, at)
  if (changes !== null) at = append(changes.lines, target, at)
  if (credentialLine !== null && marks.credentialEnd === 0) at = writeCredential(credentialLine, target, at, marks)
  if (marks.idEnd === 0) {
    at = append(REQUEST_ID, target, at)
    marks.idStart = at
    writeId(target, at)
    at += ID_BYTES
    marks.idEnd = at
    at = endLine(target, at)
  }
  if (isNewTrace) {
    at = append(TRACEPARENT, target, at)
    at = copy(trace.field, 0, TRACEPARENT_BYTES, target, at)
    at = endLine(target, at)
  }
  if (facts.isUpgrade) at = append(facts.wantsTrailers ? CONNECTION_TE_UPGRADE : CONNECTION_UPGRADE, target, at)
  else if (facts.wantsTrailers) at = append(TE_TRAILERS, target, at)
  at = endLine(target, at)
  marks.end = at
  return at
}

function writeHost(host: Buffer, target: Buffer, at: number, marks: RequestMarks): number {
  marks.hostStart = at
  marks.hostEnd = append(host, target, at)
  return marks.hostEnd
}

function writeCredential(line: Buffer, target: Buffer, at: number, marks: RequestMarks): number {
  marks.credentialStart = at
  marks.credentialEnd = append(line, target, at)
  return marks.credentialEnd
}

/** Writes the size line of a chunk of `length` bytes (1 or more). */
export function writeChunkSize(length: number, target: Buffer, at: number): number {
  let digits = 1
  for (let rest = length >>> 4; rest > 0; rest >>>= 4) digits++
  for (let i = digits - 1, rest = length; i >= 0; i--, rest >>>= 4) target[at + i] = HEX_DIGITS[rest & 15]!
  return endLine(target, at + digits)
}

/** Most bytes of a size line and the CR LF behind the data. */
export const CHUNK_OVERHEAD = 12
/** The end of a chunked body without trailers. */
export const LAST_CHUNK = Buffer.from('0\r\n\r\n')
const HEX_DIGITS = Buffer.from('0123456789abcdef')

/** How a response is framed for the client, and whether the connection goes on. */
export interface ResponseShape {
  /** The client speaks HTTP/1.0. */
  readonly isOld: boolean
  /** Said to the client: it is the last response on its connection. */
  readonly closes: boolean
  /** The body ends with the upstream's connection and is chunked for the client. */
  readonly isEncoded: boolean
  /** Of a route; null: none. */
  readonly changes: FieldChanges | null
}

/**
 * Writes the head of a response for the client from `target[0]` on. `target` must hold the head as it came, RESPONSE_GROWTH
 * and the lines of the changes.
 * @returns the offset behind the head
 */
export function writeResponse(head: HeadParser, facts: ResponseFacts, shape: ResponseShape, target: Buffer): number {
  const { bytes, count, known, status } = head
  const { dropped } = facts
  let at = 0
  let runStart = head.start
  if (head.minorVersion === 0 || bytes[head.statusEnd] !== 0x20) {
    at = append(STATUS_LINE, target, at)
    at = copy(bytes, head.statusEnd - 3, head.statusEnd, target, at)
    if (bytes[head.statusEnd] !== 0x20) target[at++] = 0x20
    runStart = head.statusEnd
  }
  // A client of HTTP/1.0 gets a body without chunks, to which neither the coding nor the list of trailers belongs.
  const dropsChunks = shape.isOld
  const dropsTrailer = shape.isOld || facts.body !== BodyKind.chunked
  const { changes } = shape
  for (let i = 0; i < count; i++) {
    const field = known[i]!
    const isDropped =
      dropped[i] === 1 ||
      (field === Field.transferEncoding && dropsChunks) ||
      (field === Field.trailer && dropsTrailer && facts.body !== BodyKind.none) ||
      changes?.removes(bytes, head.nameStart(i), head.nameEnd(i))
    if (!isDropped) continue
    at = copy(bytes, runStart, head.nameStart(i), target, at)
    runStart = head.lineEnd(i)
  }
  at = copy(bytes, runStart, head.lineEnd(count - 1), target, at)
  if (changes !== null) at = append(changes.lines, target, at)
  if (shape.isEncoded) at = append(CHUNKED, target, at)
  if (status === 101 || status === 426) at = append(CONNECTION_UPGRADE, target, at)
  else if (status >= 200) {
    if (shape.closes) at = append(CONNECTION_CLOSE, target, at)
    else if (shape.isOld) at = append(CONNECTION_KEEP_ALIVE, target, at)
  }
  return endLine(target, at)
}
