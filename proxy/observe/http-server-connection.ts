/** One connection to a port of the sidecar's own: requests one after the other, each answered at once when it is complete. */
import { BodyReader } from '../protocol/http1/framing.ts'
import { HeadReader } from '../protocol/http1/head-reader.ts'
import { RequestFacts } from '../protocol/http1/headers.ts'
import type { Fault, HeadParser } from '../protocol/http1/parser.ts'
import { statusText } from '../protocol/http1/status-text.ts'
import { refreshClock } from '../runtime/clock.ts'
import type { Accepted } from '../runtime/listen.ts'
import { adopt, type RawSocket, type SocketHandler } from '../runtime/raw-socket.ts'
import { CoarseTimer } from '../runtime/timers.ts'
import type { Answer, Asked, Handler, HttpServerOptions, Method } from './http-server.ts'

const MAX_HEAD_BYTES = 8 * 1024
const MAX_BODY_BYTES = 1024
/** A request is complete this long after its first byte, and the next one begins this long after an answer. */
const WAIT_MS = 5_000
/** An answer that is not taken. */
const SLOW_READER_MS = 30_000
/** How long what still comes is read and thrown away after a last answer, so that a reset does not overtake it. */
const LINGER_MS = 1_000

/** Answers of this server are for programs and for the person who asked, never for a cache or a frame. */
const COMMON_HEADERS = { 'cache-control': 'no-store', 'x-content-type-options': 'nosniff' } as const

const CONTINUE = Buffer.from('HTTP/1.1 100 Continue\r\n\r\n')

/** Holds for as long as a head is looked at, which nothing interrupts. */
const facts = new RequestFacts()

/** A request whose body is being read. */
interface Pending {
  readonly isHead: boolean
  readonly isOld: boolean
  readonly isPersistent: boolean
  readonly query: string
  readonly accept: string
  /** What its body is given to, or the answer that it gets whatever its body is. */
  readonly then: Handler | Answer
}

export class HttpServerConnection implements SocketHandler {
  readonly #raw: RawSocket
  readonly #options: HttpServerOptions
  readonly #onGone: () => void
  readonly #reader = new HeadReader('request')
  readonly #body = new BodyReader()
  readonly #timer = new CoarseTimer(() => this.#onTimer())
  #headBytes = 0
  #pending: Pending | null = null
  #content = ''
  /** The last answer has been given. */
  #isClosing = false

  /** @param onGone the connection has ended */
  constructor(socket: Accepted, options: HttpServerOptions, onGone: () => void) {
    this.#options = options
    this.#onGone = onGone
    this.#raw = adopt(socket, this)
    this.#timer.set(refreshClock() + WAIT_MS)
  }

  destroy(): void {
    this.#raw.destroy()
  }

  onData(chunk: Buffer, length: number): void {
    let at = 0
    while (at < length && !this.#isClosing) {
      if (this.#pending !== null) at = this.#readBody(this.#pending, chunk, at, length)
      else if (this.#raw.backlog > 0) {
        // Asks on and on and does not read: whoever pipelines must reckon with an end (RFC 9112 section 9.3.2).
        this.#close()
        return
      } else at = this.#readHead(chunk, at, length)
    }
  }

  onEnd(): void {
    this.#close()
  }

  onDrain(): void {
    if (!this.#isClosing) this.#timer.set(refreshClock() + WAIT_MS)
  }

  onClose(): void {
    this.#timer.release()
    this.#reader.done()
    this.#onGone()
  }

  #readHead(chunk: Buffer, start: number, end: number): number {
    const reader = this.#reader
    if (!reader.isPartial) {
      this.#headBytes = 0
      this.#timer.set(refreshClock() + WAIT_MS)
    }
    const result = reader.read(chunk, start, end)
    this.#headBytes += (result === 1 ? reader.next : end) - start
    if (this.#headBytes > MAX_HEAD_BYTES) {
      this.#refuse({ status: 431, text: `the head is longer than ${MAX_HEAD_BYTES} bytes` })
      return end
    }
    if (result === 0) return end
    const { head } = reader
    const fault = result === -1 ? head.fault : facts.examine(head)
    // TRACE and CONNECT are methods like others here: nobody may use them.
    if (fault !== null && fault.status !== 405) {
      this.#refuse(fault)
      return end
    }
    this.#pending = this.#begin(head, fault === null)
    this.#content = ''
    const behind = reader.next
    reader.done()
    if (fault !== null) this.#answer(this.#pending)
    else {
      this.#body.begin(facts.body, facts.length, true)
      if (facts.expectsContinue) this.#raw.write(CONTINUE)
      if (this.#body.isDone) this.#answer(this.#pending)
    }
    return behind
  }

  /** @param isMethodOffered false: the head was not examined further */
  #begin(head: HeadParser, isMethodOffered: boolean): Pending {
    const { bytes } = head
    const method = bytes.toString('latin1', head.start, head.methodEnd)
    const target = isMethodOffered ? targetOf(head) : bytes.toString('latin1', head.targetStart, head.targetEnd)
    const [path = '', query = ''] = target.split('?', 2)
    const asked = new AskedHead(method, head)
    const accept = asked.field('accept') ?? ''
    const refusal = this.#options.guard?.(asked)
    const then = refusal ?? this.#route(method, path)
    const isPersistent = isMethodOffered && facts.isPersistent
    return { isHead: method === 'HEAD', isOld: head.minorVersion === 0, isPersistent, query, accept, then }
  }

  #route(method: string, path: string): Handler | Answer {
    const { routes } = this.#options
    const methods = Object.hasOwn(routes, path) ? routes[path] : undefined
    if (methods === undefined) {
      return { status: 404, body: `no such path, use one of ${Object.keys(routes).join(' ')}\n` }
    }
    const wanted = method === 'HEAD' ? 'GET' : method
    const handler = Object.hasOwn(methods, wanted) ? methods[wanted as Method] : undefined
    if (handler !== undefined) return handler
    const allowed = Object.keys(methods).flatMap((each) => (each === 'GET' ? ['GET', 'HEAD'] : [each]))
    return {
      status: 405,
      headers: { allow: allowed.join(', ') },
      body: `${method} is not allowed here, use ${allowed.join(' or ')}\n`,
    }
  }

  #readBody(pending: Pending, chunk: Buffer, start: number, end: number): number {
    const body = this.#body
    const behind = body.scan(chunk, start, end)
    if (behind === -1) {
      this.#refuse(body.fault as Fault)
      return end
    }
    if (body.contentBytes > MAX_BODY_BYTES) {
      this.#refuse({ status: 413, text: `the body has more than ${MAX_BODY_BYTES} bytes, send less` })
      return end
    }
    const kept = Buffer.allocUnsafe(body.keptBytes(start, behind))
    body.copyKept(chunk, start, behind, kept, 0)
    this.#content += kept.toString('latin1')
    if (body.isDone) this.#answer(pending)
    return behind
  }

  #answer({ then, query, accept, isHead, isOld, isPersistent }: Pending): void {
    this.#pending = null
    // Kept as latin1, since a read may end in the middle of a character.
    const answer =
      typeof then === 'function' ? then(Buffer.from(this.#content, 'latin1').toString('utf8'), query, accept) : then
    this.#write(answer, isHead, isPersistent ? (isOld ? 'keep-alive' : null) : 'close')
    if (isPersistent) this.#timer.set(refreshClock() + (this.#raw.backlog > 0 ? SLOW_READER_MS : WAIT_MS))
    else this.#close()
  }

  /** Nothing behind a request that breaks a rule can be trusted, so the connection ends with the answer. */
  #refuse({ status, text }: Fault): void {
    this.#pending = null
    this.#write({ status, body: `${text}\n` }, false, 'close')
    this.#close()
  }

  #write(answer: Answer, isHead: boolean, connection: 'close' | 'keep-alive' | null): void {
    const fields: Record<string, string | number> = {
      'content-type': answer.type ?? 'text/plain; charset=utf-8',
      'content-length': Buffer.byteLength(answer.body),
      date: new Date().toUTCString(),
      ...COMMON_HEADERS,
      ...answer.headers,
      ...(connection === null ? {} : { connection }),
      ...(connection === 'close' ? {} : { 'keep-alive': `timeout=${WAIT_MS / 1000}` }),
    }
    const lines = Object.entries(fields).map(([name, value]) => `${name}: ${value}\r\n`)
    const head = `HTTP/1.1 ${answer.status} ${statusText(answer.status)}\r\n${lines.join('')}\r\n`
    this.#raw.write(Buffer.from(isHead ? head : head + answer.body))
  }

  #close(): void {
    if (this.#isClosing) return
    this.#isClosing = true
    this.#raw.end()
    this.#timer.set(refreshClock() + (this.#raw.backlog > 0 ? SLOW_READER_MS : LINGER_MS))
  }

  #onTimer(): void {
    if (this.#isClosing || this.#raw.backlog > 0) this.#raw.destroy()
    else if (this.#pending !== null || this.#reader.isPartial) {
      this.#refuse({ status: 408, text: `the request was not complete within ${WAIT_MS} ms` })
    } else this.#close()
  }
}

/** The target of the examined head: its path and query, whatever its form was. */
function targetOf({ bytes, targetEnd }: HeadParser): string {
  const { targetPrefix, pathStart } = facts
  return (targetPrefix === 0 ? '' : String.fromCharCode(targetPrefix)) + bytes.toString('latin1', pathStart, targetEnd)
}

/** Reads fields while the head is there. */
class AskedHead implements Asked {
  readonly method: string
  readonly #head: HeadParser

  constructor(method: string, head: HeadParser) {
    this.method = method
    this.#head = head
  }

  field(name: string): string | undefined {
    const values: string[] = []
    for (let i = 0; i < this.#head.count; i++) {
      if (this.#head.name(i).toLowerCase() === name) values.push(this.#head.value(i))
    }
    return values.length === 0 ? undefined : values.join(', ')
  }
}
