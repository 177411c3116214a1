/** A request on its way to the upstream: its head as it is sent, its body as far as it must be kept, and what has been sent of it. */
import type { RequestSigner, SignedParts } from '../../policy/credential.ts'
import type { RawSocket } from '../../runtime/raw-socket.ts'
import type { Trace } from '../../tracing/trace-context.ts'
import { BodyPipe } from './body-pipe.ts'
import type { FieldChanges } from './field-changes.ts'
import { BodyKind, BodyReader } from './framing.ts'
import type { RequestFacts } from './headers.ts'
import type { HeadParser } from './parser.ts'
import { writeRequestId } from './request-id.ts'
import { REQUEST_GROWTH, RequestMarks, writeRequest } from './serializer.ts'

/** Of a buffer that is kept from one request to the next. */
const FIRST_CAPACITY = 2 * 1024
const MAX_KEPT_CAPACITY = 16 * 1024

/** Content that all requests together may keep for another attempt; a request beyond it is sent once. */
const MAX_REPLAY_BYTES = 32 * 1024 * 1024
let replayBytes = 0

/** Bytes of bodies that are kept now: of all that is replayable, nothing may stay behind its request. */
export function keptForReplay(): number {
  return replayBytes
}

const writeId = (target: Buffer, at: number): void => writeRequestId(target, at)

export class OutgoingRequest {
  readonly body = new BodyReader()
  readonly marks = new RequestMarks()
  /** Everything of the body that came is kept, so the request can be sent again from its begin. */
  isReplayable = true
  /** Nothing that came of the body is gone, be it only because none was sent yet: another attempt has all of it. */
  isKept = true
  #bytes = Buffer.allocUnsafeSlow(FIRST_CAPACITY)
  /** Of what is kept: the head, and the body or the part of it that waits for a connection. */
  #length = 0
  #counted = 0
  #limit = 0
  #host: Buffer | null = null
  #sink: RawSocket | null = null
  readonly #pipe = new BodyPipe()

  /**
   * Takes the head and what came of the body in the same read.
   * @param host of the endpoint that will probably be asked; send() corrects it
   * @param path what a route makes of the target; null: nothing
   * @param changes of a route to the fields; null: none
   * @param trace whose span the upstream is told; null: what the client said of one goes on as it came
   * @param replayLimit how much of the body may be kept
   * @returns the offset in `chunk` behind what belongs to the request; -1 when its body is not well-formed
   */
  begin(
    head: HeadParser,
    facts: RequestFacts,
    host: Buffer,
    credentialName: Uint8Array | null,
    credentialLine: Buffer | null,
    path: Buffer | null,
    changes: FieldChanges | null,
    trace: Trace | null,
    replayLimit: number,
    chunk: Buffer,
    next: number,
    end: number,
  ): number {
    let room = head.end - head.start + REQUEST_GROWTH + host.length + (credentialLine?.length ?? 0)
    if (path !== null) room += path.length
    if (changes !== null) room += changes.lines.length
    if (room > this.#bytes.length) this.#bytes = Buffer.allocUnsafeSlow(room)
    this.#host = host
    const { marks } = this
    const bytes = this.#bytes
    this.#length = writeRequest(
      head,
      facts,
      host,
      credentialName,
      credentialLine,
      path,
      changes,
      trace,
      writeId,
      bytes,
      marks,
    )
    this.#limit = replayLimit
    this.isKept = true
    this.isReplayable = facts.body !== BodyKind.length || facts.length <= replayLimit
    this.body.begin(facts.body, facts.length, false, facts.nominated)
    if (this.body.isDone || next === end) return next
    return this.#keep(chunk, next, end)
  }

  /** The body is complete, or there is none. */
  get isComplete(): boolean {
    return this.body.isDone
  }

  /** Takes more of the body. Returns the offset behind what belongs to it; -1 when it is not well-formed. */
  accept(client: RawSocket, chunk: Buffer, start: number, end: number): number {
    const sink = this.#sink
    if (sink === null) {
      const behind = this.#keep(chunk, start, end)
      // More would have to be kept only because nobody takes it yet.
      if (!this.isReplayable) client.pause()
      return behind
    }
    if (this.isReplayable) {
      const from = this.#length
      const behind = this.#keep(chunk, start, end)
      if (behind === -1) return -1
      if (this.#length > from && !sink.write(this.#bytes.subarray(from, this.#length))) client.pause()
      this.#forget()
      return behind
    }
    const behind = this.body.scan(chunk, start, end)
    if (behind === -1) return -1
    this.#pipe.forward(this.body, client, sink, chunk, start, behind)
    const { trailer } = this.body
    if (this.body.isDone) {
      if (trailer !== null) sink.write(Buffer.from(trailer))
      this.#pipe.end(client)
    }
    return behind
  }

  /** Appends what belongs to the body, whether it can be sent again or only waits to be sent at all. */
  #keep(chunk: Buffer, start: number, end: number): number {
    const { body } = this
    const behind = body.scan(chunk, start, end)
    if (behind === -1) return -1
    const trailer = body.isDone ? body.trailer : null
    const bytes = body.keptBytes(start, behind) + (trailer?.length ?? 0)
    this.#reserve(this.#length + bytes)
    this.#length = body.copyKept(chunk, start, behind, this.#bytes, this.#length)
    if (trailer !== null) this.#length += trailer.copy(this.#bytes, this.#length)
    const kept = this.#length - this.marks.end
    replayBytes += kept - this.#counted
    this.#counted = kept
    // The bound is of the content, however it is cut into chunks; all that is kept counts for what requests keep together.
    if (body.contentBytes > this.#limit || replayBytes > MAX_REPLAY_BYTES) this.isReplayable = false
    return behind
  }

  #reserve(length: number): void {
    if (length <= this.#bytes.length) return
    // The old memory may be in the hands of a socket; it is not touched again.
    const larger = Buffer.allocUnsafeSlow(Math.max(length, 2 * this.#bytes.length))
    this.#bytes.copy(larger, 0, 0, this.#length)
    this.#bytes = larger
  }

  /** Sends everything that is kept; what comes later follows. */
  send(sink: RawSocket, host: Buffer, client: RawSocket): void {
    if (host !== this.#host && !host.equals(this.#host as Buffer)) this.#setHost(host)
    this.#sink = sink
    const isTaken = sink.write(this.#bytes.subarray(0, this.#length))
    if (isTaken && client.isPaused) client.resume()
    this.#forget()
  }

  /** What is sent and cannot be sent again need not be kept. */
  #forget(): void {
    if (this.isReplayable || this.#sink === null) return
    this.isKept = false
    this.#length = this.marks.end
    replayBytes -= this.#counted
    this.#counted = 0
    // The head is all that is still asked for, and an upload may take long.
    if (this.#bytes.length > MAX_KEPT_CAPACITY) {
      const head = Buffer.allocUnsafeSlow(Math.max(this.#length, FIRST_CAPACITY))
      this.#bytes.copy(head, 0, 0, this.#length)
      this.#bytes = head
    }
  }

  /** The attempt is over; another one may follow when isReplayable. */
  unsend(client: RawSocket): void {
    this.#sink = null
    this.#pipe.abandon(client)
  }

  /** The upstream has taken everything: the client may go on, and be it only with its FIN. */
  onDrain(client: RawSocket): void {
    client.resume()
  }

  #setHost(host: Buffer): void {
    const { marks } = this
    const growth = host.length - (marks.hostEnd - marks.hostStart)
    const bytes = Buffer.allocUnsafeSlow(this.#length + growth + REQUEST_GROWTH)
    this.#bytes.copy(bytes, 0, 0, marks.hostStart)
    host.copy(bytes, marks.hostStart)
    this.#bytes.copy(bytes, marks.hostStart + host.length, marks.hostEnd, this.#length)
    this.#bytes = bytes
    this.#host = host
    this.#length += growth
    const moved = marks.hostEnd
    marks.hostEnd += growth
    marks.end += growth
    for (const mark of ['credentialStart', 'credentialEnd', 'idStart', 'idEnd'] as const) {
      if (marks[mark] >= moved) marks[mark] += growth
    }
  }

  /** Puts another credential line where the one of begin() is, before the request is sent for the first time or again. */
  setCredential(line: Buffer): void {
    const { marks } = this
    const { credentialStart: start, credentialEnd: end } = marks
    const growth = line.length - (end - start)
    const bytes = Buffer.allocUnsafeSlow(this.#length + growth + REQUEST_GROWTH)
    this.#bytes.copy(bytes, 0, 0, start)
    line.copy(bytes, start)
    this.#bytes.copy(bytes, start + line.length, end, this.#length)
    this.#bytes = bytes
    this.#length += growth
    marks.credentialEnd += growth
    marks.end += growth
    for (const mark of ['hostStart', 'hostEnd', 'idStart', 'idEnd'] as const) {
      if (marks[mark] >= end) marks[mark] += growth
    }
  }

  /** Has the request signed for a host as it is now, and puts the signature where the credential is. */
  sign(signer: RequestSigner, host: Buffer): void {
    if (host !== this.#host && !host.equals(this.#host as Buffer)) this.#setHost(host)
    this.setCredential(signer.sign({ ...this.parts(), content: this.content() }))
  }

  /** The head as it is sent, without the credential, as text of one character for each byte. */
  parts(): Omit<SignedParts, 'content'> {
    const { credentialStart, credentialEnd, end } = this.marks
    const text = (from: number, to: number): string => this.#bytes.toString('latin1', from, to)
    const [line = '', ...lines] = `${text(0, credentialStart)}${text(credentialEnd, end)}`.split('\r\n')
    const [method = '', target = ''] = line.split(' ')
    const fields = lines
      .filter((each) => each !== '')
      .map((each) => [each.slice(0, each.indexOf(':')), each.slice(each.indexOf(':') + 1)] as const)
    return { method, target, fields }
  }

  /** What is kept of the body, with its framing, in memory that the next request writes over. */
  get keptBody(): Buffer {
    return this.#bytes.subarray(this.marks.end, this.#length)
  }

  /** What came of the body without its framing; null when not all of it is kept. */
  content(): Buffer | null {
    if (!this.isComplete || !this.isReplayable) return null
    const kept = this.keptBody
    if (this.body.kind !== BodyKind.chunked) return kept
    const reader = new BodyReader()
    reader.begin(BodyKind.chunked, 0, true)
    const behind = reader.scan(kept, 0, kept.length)
    const content = Buffer.allocUnsafeSlow(kept.length)
    return content.subarray(0, reader.copyKept(kept, 0, behind, content, 0))
  }

  /** The exchange is over. @param isHeld a socket may still write from the memory */
  end(isHeld: boolean): void {
    this.#sink = null
    this.#pipe.abandon(null)
    replayBytes -= this.#counted
    this.#counted = 0
    if (isHeld || this.#bytes.length > MAX_KEPT_CAPACITY) this.#bytes = Buffer.allocUnsafeSlow(FIRST_CAPACITY)
  }

  get requestId(): string {
    return this.#bytes.toString('latin1', this.marks.idStart, this.marks.idEnd)
  }

  /** The protocols that the client offers to switch to, in lower case. */
  get offered(): readonly string[] {
    const head = this.#bytes.toString('latin1', 0, this.marks.end)
    const lines = [...head.matchAll(/^upgrade:(.*)$/gim)]
    return lines.flatMap(([, list = '']) => protocols(list))
  }

  get method(): string {
    return this.#bytes.toString('latin1', 0, this.#bytes.indexOf(0x20))
  }

  /** The path without the query, which may hold secrets. */
  get path(): string {
    const start = this.#bytes.indexOf(0x20) + 1
    let end = start
    while (this.#bytes[end] !== 0x20 && this.#bytes[end] !== 0x3f) end++
    return this.#bytes.toString('latin1', start, end)
  }
}

/** The protocols of an Upgrade field, in lower case. */
export function protocols(list: string): string[] {
  return list
    .toLowerCase()
    .split(',')
    .map((each) => each.trim())
    .filter((each) => each !== '')
}
