/** A connection that is one too many: whatever it asks is answered with 503, and it is closed. */
import { now } from '../../runtime/clock.ts'
import type { RawSocket, SocketHandler } from '../../runtime/raw-socket.ts'
import { CoarseTimer } from '../../runtime/timers.ts'

/** How long a request is waited for, and then the client's end: a reset would take the answer from under it. */
const WAIT_MS = 2_000

const HEAD = Buffer.from('HEAD ')

/** Writes the answer. @param isHead it may have no body */
export type AnswerWriter = (isHead: boolean) => Buffer

export class TurnedAway implements SocketHandler {
  readonly raw: RawSocket
  readonly #answer: AnswerWriter
  readonly #onEnd: (its: TurnedAway) => void
  #isAnswered = false
  readonly #timer = new CoarseTimer(() => this.raw.destroy())

  /** @param onEnd told once, when the connection is closed */
  constructor(open: (handler: SocketHandler) => RawSocket, answer: AnswerWriter, onEnd: (its: TurnedAway) => void) {
    this.#answer = answer
    this.#onEnd = onEnd
    this.raw = open(this)
    this.#timer.set(now() + WAIT_MS)
  }

  onData(chunk: Buffer, length: number): void {
    if (this.#isAnswered) return
    this.#isAnswered = true
    this.raw.write(this.#answer(length >= HEAD.length && HEAD.compare(chunk, 0, HEAD.length) === 0))
    this.raw.end()
    this.#timer.set(now() + WAIT_MS)
  }

  onEnd(): void {
    this.raw.end()
  }

  onDrain(): void {}

  onClose(): void {
    this.#timer.release()
    this.#onEnd(this)
  }
}
