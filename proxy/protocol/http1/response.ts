/** A response on its way to the client: heads read and written, the body passed on, its end known. */
import { firstBytes, scratchFor } from '../../runtime/buffers.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import { BodyPipe, BULK_BYTES } from './body-pipe.ts'
import type { FieldChanges } from './field-changes.ts'
import { BodyKind, BodyReader } from './framing.ts'
import { HeadReader } from './head-reader.ts'
import { ResponseFacts } from './headers.ts'
import type { HeadParser } from './parser.ts'
import {
  CHUNK_OVERHEAD,
  endLine,
  LAST_CHUNK,
  RESPONSE_GROWTH,
  type ResponseShape,
  writeChunkSize,
  writeResponse,
} from './serializer.ts'

/** Interim responses before the final one; a server that sends more than this is broken or hostile. */
const MAX_INTERIM = 10

const NOTHING = Buffer.alloc(0)

type Mutable<T> = { -readonly [K in keyof T]: T[K] }

/** What a response is part of. Each call may end it: after one, the relay does nothing more with the read. */
export interface ResponseOwner {
  /** The whole head of an interim response is there; true: it is passed on. */
  onInterim(status: number): boolean
  /** The upstream takes up another protocol; `start` is where it begins in the read. */
  onSwitch(head: HeadParser, facts: ResponseFacts, chunk: Buffer, start: number, end: number): void
  /**
   * The final head is there. False: it is not passed on, and the owner has dealt with the connection.
   * @param isWhole the response is complete with this read, and nothing follows it
   */
  onFinalHead(head: HeadParser, facts: ResponseFacts, isWhole: boolean): boolean
  /** After onFinalHead: is this the last response on the client's connection? */
  closesClient(facts: ResponseFacts): boolean
  /** Bytes of the body moved. */
  onProgress(): void
  /** Everything has been written to the client. @param isReusable the upstream's connection is in order for the next request */
  onResponseEnd(isReusable: boolean): void
  /**
   * The upstream breaks a rule. Before the final head was passed on, `isStarted` is false.
   * @param isForeign what came does not even begin as an answer
   */
  onBadResponse(text: string, isForeign?: boolean): void
}

const facts = new ResponseFacts()
const shape: Mutable<ResponseShape> = { isOld: false, closes: false, isEncoded: false, changes: null }

export class ResponseRelay {
  readonly body = new BodyReader()
  /** The final head was passed on, so nothing else can be said to the client any more. */
  isStarted = false
  /** Some of the response came. */
  hasBegun = false
  /** Of the response that was passed on. */
  status = 0
  /** What came of the content with the head of an answer that may refuse a signature; only within onFinalHead. */
  begun: Buffer = NOTHING
  /** Of the upstream's `Keep-Alive: timeout`; -1: not said. */
  keepAliveSeconds = -1
  readonly #owner: ResponseOwner
  readonly #reader = new HeadReader('response')
  readonly #pipe = new BodyPipe()
  #interim = 0
  #isHead = false
  #isOld = false
  #isEncoded = false
  #isPersistent = false
  #changes: FieldChanges | null = null

  constructor(owner: ResponseOwner) {
    this.#owner = owner
  }

  /** The answer itself has begun; interim responses are none. */
  get isAnswering(): boolean {
    return this.isStarted || this.#reader.isPartial
  }

  /**
   * A request is sent, for the first time or again.
   * @param changes to the fields of the final response
   */
  begin(isHead: boolean, isOld: boolean, changes: FieldChanges | null): void {
    this.#reader.done()
    this.isStarted = false
    this.hasBegun = false
    this.status = 0
    this.#interim = 0
    this.#isHead = isHead
    this.#isOld = isOld
    this.#changes = changes
  }

  /** A read of the upstream's connection. */
  onData(chunk: Buffer, length: number, upstream: RawSocket, client: RawSocket): void {
    if (this.isStarted) {
      this.#forward(chunk, length, upstream, client)
      return
    }
    this.hasBegun = true
    let at = 0
    while (at < length) {
      const result = this.#reader.read(chunk, at, length)
      if (result === 0) return
      const { head } = this.#reader
      if (result === -1) {
        this.#owner.onBadResponse(head.fault?.text ?? '', this.#interim === 0 && !this.#reader.beginsWith('HTTP/'))
        return
      }
      at = this.#reader.next
      const fault = facts.examine(head, this.#isHead)
      if (fault !== null) {
        this.#owner.onBadResponse(fault.text)
        return
      }
      if (head.status >= 200) {
        this.#final(head, chunk, at, length, upstream, client)
        return
      }
      if (head.status === 101) {
        this.#owner.onSwitch(head, facts, chunk, at, length)
        this.#reader.done()
        return
      }
      if (++this.#interim > MAX_INTERIM) {
        this.#owner.onBadResponse(`it sent more than ${MAX_INTERIM} interim responses`)
        return
      }
      if (this.#owner.onInterim(head.status)) this.writeHead(head, facts, client, false)
      this.#reader.done()
    }
  }

  /** Passes on a head alone. */
  writeHead(head: HeadParser, its: ResponseFacts, client: RawSocket, closes: boolean): void {
    const out = scratchFor(head.end - head.start + RESPONSE_GROWTH)
    shape.isOld = this.#isOld
    shape.closes = closes
    shape.isEncoded = false
    shape.changes = null
    const length = writeResponse(head, its, shape, out)
    client.lend(firstBytes(out, length), out)
  }

  /** The final head, and the begin of the body when it came along: one write. */
  #final(head: HeadParser, chunk: Buffer, start: number, end: number, upstream: RawSocket, client: RawSocket): void {
    const { body } = this
    const isOld = this.#isOld
    body.begin(facts.body, facts.length, isOld, facts.nominated)
    let behind = start
    if (!body.isDone && end > start) {
      behind = body.scan(chunk, start, end)
      if (behind === -1) {
        this.#owner.onBadResponse(body.fault?.text ?? '')
        return
      }
    }
    const isWhole = body.isDone && behind === end
    if (head.status === 400 || head.status === 403) this.begun = chunk.subarray(start, behind)
    const isPassedOn = this.#owner.onFinalHead(head, facts, isWhole)
    this.begun = NOTHING
    if (!isPassedOn) {
      this.#reader.done()
      return
    }
    this.status = head.status
    this.#isEncoded = facts.body === BodyKind.untilClose && !isOld
    this.#isPersistent = facts.isPersistent
    this.keepAliveSeconds = facts.keepAliveSeconds
    shape.isOld = isOld
    shape.closes = this.#owner.closesClient(facts)
    shape.isEncoded = this.#isEncoded
    shape.changes = this.#changes
    const trailer = body.isDone ? body.trailer : null
    const growth = RESPONSE_GROWTH + (this.#changes?.lines.length ?? 0)
    const room = head.end - head.start + growth + behind - start + CHUNK_OVERHEAD + (trailer?.length ?? 0)
    const out = scratchFor(room)
    let at = writeResponse(head, facts, shape, out)
    if (behind > start) {
      if (this.#isEncoded) {
        at = writeChunkSize(behind - start, out, at)
        at += chunk.copy(out, at, start, behind)
        at = endLine(out, at)
      } else at = body.copyKept(chunk, start, behind, out, at)
    }
    if (trailer !== null) at += trailer.copy(out, at)
    this.#reader.done()
    this.isStarted = true
    if (!client.lend(firstBytes(out, at), out) && !body.isDone) upstream.pause()
    if (body.isDone) this.#owner.onResponseEnd(this.#isPersistent && isWhole)
    else {
      if (!this.#isEncoded && (end - start >= BULK_BYTES || facts.length >= BULK_BYTES)) {
        this.#pipe.expectBulk(upstream, body)
      }
      this.#owner.onProgress()
    }
  }

  #forward(chunk: Buffer, length: number, upstream: RawSocket, client: RawSocket): void {
    const { body } = this
    const behind = body.scan(chunk, 0, length)
    if (behind === -1) {
      this.#owner.onBadResponse(body.fault?.text ?? '')
      return
    }
    if (this.#isEncoded) this.#pipe.encode(upstream, client, chunk, 0, behind)
    else this.#pipe.forward(body, upstream, client, chunk, 0, behind)
    if (!body.isDone) {
      this.#owner.onProgress()
      return
    }
    const { trailer } = body
    if (trailer !== null) client.write(Buffer.from(trailer))
    this.#pipe.end(upstream)
    this.#owner.onResponseEnd(this.#isPersistent && behind === length)
  }

  /**
   * The end of the upstream's connection is the end of the body. Over TLS it has to be one that the upstream has said: RFC 9112 section
   * 9.8.
   */
  get mayEndWithConnection(): boolean {
    return this.isStarted && this.body.kind === BodyKind.untilClose
  }

  /** The upstream has ended its connection in that way. */
  endWithConnection(client: RawSocket): void {
    if (this.#isEncoded) client.write(LAST_CHUNK)
  }

  /** The exchange or the attempt is over before the response was. */
  abandon(upstream: RawSocket | null): void {
    this.#reader.done()
    this.#pipe.abandon(upstream)
  }
}
