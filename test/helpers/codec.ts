/** Runs the HTTP/1.1 codec over bytes without sockets, as a connection does: head, facts, body, and the bytes for the other side. */
import { BodyKind, BodyReader } from '../../proxy/protocol/http1/framing.ts'
import { HeadReader } from '../../proxy/protocol/http1/head-reader.ts'
import { RequestFacts, ResponseFacts } from '../../proxy/protocol/http1/headers.ts'
import type { Fault } from '../../proxy/protocol/http1/parser.ts'
import {
  CHUNK_OVERHEAD,
  endLine,
  LAST_CHUNK,
  REQUEST_GROWTH,
  RESPONSE_GROWTH,
  RequestMarks,
  writeChunkSize,
  writeRequest,
  writeResponse,
} from '../../proxy/protocol/http1/serializer.ts'
import { nameBytes } from '../../proxy/protocol/http1/tables.ts'

/** What one message was understood as, to be compared with another parser. */
export interface Message {
  /** `POST /path` or the status. */
  readonly start: string
  readonly fields: readonly (readonly [name: string, value: string])[]
  body: string
  isComplete: boolean
}

export interface Relayed {
  /** The bytes for the other side. */
  readonly sent: string
  readonly messages: readonly Message[]
  /** Why the bytes were refused; null when they were not. */
  readonly refused: Fault | null
  /** In the middle of a head or body at the end of the bytes. */
  readonly isIncomplete: boolean
  /** Bytes came behind the last message that belong to none: a connection with such bytes is not used again. */
  readonly hasLeftover: boolean
}

export interface RequestOptions {
  /** Bytes per read. Default: all in one. */
  readonly chunkBytes?: number
  readonly host?: string
  /** A line with its end, as HeaderCredential has it. Default: none. */
  readonly credential?: string
}

/** Where heads and bodies are written; read out at once. */
const target = Buffer.alloc(1 << 18)

const ID = '00000000-0000-7000-8000-000000000000'

/** Feeds bytes in reads that overwrite each other, as the shared read buffer does. */
function* reads(bytes: Buffer, chunkBytes: number): Generator<{ chunk: Buffer; length: number }> {
  const chunk = Buffer.alloc(Math.max(1, Math.min(chunkBytes, bytes.length)) + 16)
  for (let at = 0; at < bytes.length; at += chunkBytes) {
    chunk.fill('~')
    yield { chunk, length: bytes.copy(chunk, 0, at, Math.min(bytes.length, at + chunkBytes)) }
  }
}

/** What becomes of requests, one after the other on one connection. */
export function relayRequests(bytes: Buffer, options: RequestOptions = {}): Relayed {
  const { chunkBytes = bytes.length || 1, host = 'upstream.example', credential } = options
  const line = credential === undefined ? null : Buffer.from(credential, 'latin1')
  const name = credential === undefined ? null : nameBytes(credential.split(':')[0]!.toLowerCase())
  const facts = new RequestFacts()
  const reader = new HeadReader('request')
  const body = new BodyReader()
  const content = new BodyReader()
  const marks = new RequestMarks()
  const messages: Message[] = []
  let sent = ''
  let inBody = false
  let isLast = false
  const result = (refused: Fault | null): Relayed => ({
    sent,
    messages,
    refused,
    isIncomplete: inBody || reader.isPartial,
    hasLeftover: false,
  })
  try {
    for (const { chunk, length } of reads(bytes, chunkBytes)) {
      let at = 0
      while (at < length) {
        // What follows the last request of a connection, or a request to speak another protocol, is no request.
        if (!inBody && isLast) return { ...result(null), hasLeftover: true }
        if (!inBody) {
          const found = reader.read(chunk, at, length)
          if (found === -1) return result(reader.head.fault)
          if (found === 0) break
          at = reader.next
          const { head } = reader
          const fault = facts.examine(head)
          if (fault !== null) return result(fault)
          const end = writeRequest(
            head,
            facts,
            Buffer.from(host),
            name,
            line,
            null,
            null,
            null,
            (t, i) => t.write(ID, i, 36, 'latin1'),
            target,
            marks,
          )
          if (end > head.end - head.start + REQUEST_GROWTH + host.length + (line?.length ?? 0))
            throw new Error('grew too much')
          sent += target.toString('latin1', 0, end)
          messages.push({
            start: `${head.bytes.toString('latin1', head.start, head.targetEnd)}`,
            fields: Array.from({ length: head.count }, (_, i) => [head.name(i), head.value(i)]),
            body: '',
            isComplete: false,
          })
          body.begin(facts.body, facts.length, false, facts.nominated)
          content.begin(facts.body, facts.length, true)
          reader.done()
          inBody = !body.isDone
          isLast = !facts.isPersistent || facts.isUpgrade
          if (!inBody) messages.at(-1)!.isComplete = true
          continue
        }
        const end = body.scan(chunk, at, length)
        if (end !== -1) messages.at(-1)!.body += decode(content, chunk, at, end, target)
        if (end === -1) return result(body.fault)
        sent += keep(body, chunk, at, end, target)
        at = end
        if (body.isDone) {
          if (body.trailer !== null) sent += body.trailer.toString('latin1')
          messages.at(-1)!.isComplete = true
          inBody = false
        }
      }
    }
    return result(null)
  } finally {
    // What it holds counts against all heads of the process.
    reader.done()
  }
}

export interface ResponseOptions {
  readonly chunkBytes?: number
  /** The request was HEAD. */
  readonly isHead?: boolean
  /** The client speaks HTTP/1.0. */
  readonly isOld?: boolean
  readonly closes?: boolean
  /** The upstream sends FIN behind the bytes. */
  readonly ends?: boolean
}

/** What becomes of the response to one request, interim ones before it included. */
export function relayResponse(bytes: Buffer, options: ResponseOptions = {}): Relayed {
  const { chunkBytes = bytes.length || 1, isHead = false, isOld = false, closes = false, ends = false } = options
  const facts = new ResponseFacts()
  const reader = new HeadReader('response')
  const body = new BodyReader()
  const content = new BodyReader()
  const messages: Message[] = []
  let sent = ''
  let inBody = false
  let isOver = false
  let isEncoded = false
  let hasLeftover = false
  for (const { chunk, length } of reads(bytes, chunkBytes)) {
    let at = 0
    hasLeftover ||= isOver
    while (at < length && !isOver) {
      if (!inBody) {
        const found = reader.read(chunk, at, length)
        if (found === -1) return { sent, messages, refused: reader.head.fault, isIncomplete: true, hasLeftover: false }
        if (found === 0) break
        at = reader.next
        const { head } = reader
        const fault = facts.examine(head, isHead)
        if (fault !== null) return { sent, messages, refused: fault, isIncomplete: true, hasLeftover: false }
        isEncoded = facts.body === BodyKind.untilClose && !isOld
        const end = writeResponse(head, facts, { isOld, closes, isEncoded, changes: null }, target)
        if (end > head.end - head.start + RESPONSE_GROWTH) throw new Error('grew too much')
        sent += target.toString('latin1', 0, end)
        messages.push({
          start: String(head.status),
          fields: Array.from({ length: head.count }, (_, i) => [head.name(i), head.value(i)]),
          body: '',
          isComplete: false,
        })
        body.begin(facts.body, facts.length, isOld, facts.nominated)
        content.begin(facts.body, facts.length, true)
        reader.done()
        const { status } = head
        inBody = !body.isDone
        if (!inBody) messages.at(-1)!.isComplete = true
        isOver = body.isDone && status >= 200
        continue
      }
      const end = body.scan(chunk, at, length)
      if (end !== -1) messages.at(-1)!.body += decode(content, chunk, at, end, target)
      if (end === -1) return { sent, messages, refused: body.fault, isIncomplete: true, hasLeftover: false }
      if (isEncoded) sent += encode(chunk, at, end)
      else sent += keep(body, chunk, at, end, target)
      at = end
      if (body.isDone) {
        if (body.trailer !== null) sent += body.trailer.toString('latin1')
        messages.at(-1)!.isComplete = true
        isOver = true
      }
    }
    hasLeftover ||= at < length && isOver
  }
  if (ends && inBody && body.kind === BodyKind.untilClose) {
    if (isEncoded) sent += LAST_CHUNK.toString('latin1')
    messages.at(-1)!.isComplete = true
    isOver = true
  }
  return { sent, messages, refused: null, isIncomplete: !isOver, hasLeftover }
}

function keep(body: BodyReader, chunk: Buffer, start: number, end: number, target: Buffer): string {
  const length = body.copyKept(chunk, start, end, target, 0)
  if (length !== body.keptBytes(start, end)) throw new Error('cut bytes do not add up')
  return target.toString('latin1', 0, length)
}

function decode(content: BodyReader, chunk: Buffer, start: number, end: number, target: Buffer): string {
  if (content.scan(chunk, start, end) !== end) throw new Error('two readers of one body disagree')
  return target.toString('latin1', 0, content.copyKept(chunk, start, end, target, 0))
}

function encode(chunk: Buffer, start: number, end: number): string {
  const target = Buffer.alloc(end - start + CHUNK_OVERHEAD)
  let at = writeChunkSize(end - start, target, 0)
  at += chunk.copy(target, at, start, end)
  return target.toString('latin1', 0, endLine(target, at))
}
