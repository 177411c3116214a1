/** Questions to a Redis server or a Sentinel over a connection of the proxy's own, answered in order. */
import { now } from '../../runtime/clock.ts'
import { NO_HANDLER, type RawSocket, type SocketHandler } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'
import { encodeCommand, type Reply, ReplyReader } from './resp.ts'

export interface TalkOptions {
  /** The other side ended it, broke it, or answered with what is not Redis; not called after close() or release(). */
  readonly onEnd: (why: string) => void
  /** What came without a question: the messages of channels. */
  readonly onMessage?: (message: Reply) => void
}

export class Talk implements SocketHandler {
  readonly #raw: RawSocket
  readonly #options: TalkOptions
  readonly #reader = new ReplyReader()
  readonly #waiting: ((reply: Reply) => void)[] = []
  readonly #timer: CoarseTimer
  #timeoutMs = 0
  #isOver = false

  constructor(raw: RawSocket, options: TalkOptions) {
    this.#raw = raw
    this.#options = options
    this.#timer = new CoarseTimer(() => this.#end(`did not answer within ${Math.round(this.#timeoutMs)} ms`))
    raw.handler = this
  }

  /** Sends a command; `done` gets its reply, unless the talk ends before. */
  ask(command: readonly (string | Buffer)[] | Buffer, done: (reply: Reply) => void): void {
    if (this.#isOver) return
    this.#waiting.push(done)
    this.#raw.write(Buffer.isBuffer(command) ? command : encodeCommand(command))
  }

  /** Ends the talk unless everything asked so far, and until unlimited(), is answered by then. */
  within(ms: number): void {
    this.#timeoutMs = ms
    this.#timer.set(now() + ms)
  }

  unlimited(): void {
    this.#timer.clear()
  }

  /** Hands the connection back, with nothing under way on it. */
  release(): RawSocket {
    this.#isOver = true
    this.#timer.release()
    this.#raw.handler = NO_HANDLER
    return this.#raw
  }

  /** Ends it. Idempotent. */
  close(): void {
    this.release().destroy()
  }

  onData(chunk: Buffer, length: number): void {
    this.#reader.feed(chunk, length)
    for (;;) {
      const reply = this.#reader.next()
      if (reply === undefined) break
      const isMessage = Array.isArray(reply) && (reply[0] === 'message' || reply[0] === 'pmessage')
      if (isMessage) this.#options.onMessage?.(reply)
      else this.#waiting.shift()?.(reply)
      if (this.#isOver) return
    }
    if (this.#reader.failure !== null) this.#end(this.#reader.failure)
  }

  onEnd(): void {
    this.#end('closed the connection')
  }

  onDrain(): void {}

  onClose(error: Error | null): void {
    const code = (error as NodeJS.ErrnoException | null)?.code
    this.#end(`broke the connection${code === undefined ? '' : ` (${code})`}`)
  }

  #end(why: string): void {
    if (this.#isOver) return
    this.close()
    this.#options.onEnd(why)
  }
}
