/** The unnamed statement of a client, which its connection to the server may have lost, or never had. */
import { Front, HEAD_BYTES } from './messages.ts'
import { out } from './outgoing.ts'
import type { Server } from './server.ts'
import type { Statement, StatementEffects } from './statements.ts'

/** Gives each unnamed statement of any client a number of its own. */
let made = 0

const NONE: readonly Statement[] = []
const EMPTY_NAME = Buffer.from([0])
const CLOSE_UNNAMED = Buffer.from([Front.close, 0, 0, 0, 6, 0x53, 0])

export class UnnamedStatement {
  /** What stands behind the name in its Parse: bytes [0, length); null: it is not kept. */
  body: Buffer | null = null
  length = 0
  /** Of that text, beside what has made the client keep the connection; null: none. */
  effects: StatementEffects | null = null
  /** Others that it executes by their names on the connection to the server. */
  uses: readonly Statement[] = NONE
  /** 0: there is none. */
  #number = 0
  /** Of the lexicon by which nothing was found in it that the session would have to know; -1: something was. */
  #plainVersion = -1

  /** The text may mean something else by now. */
  doubt(): void {
    this.#plainVersion = -1
  }

  /**
   * It is parsed anew with the same text, as drivers do for each execution: that was read and kept the last time.
   * @param version of the lexicon
   */
  isAgain(version: number, bytes: Buffer, from: number, to: number): boolean {
    const { body } = this
    if (this.#plainVersion !== version || body === null || to - from !== this.length) return false
    for (let at = from; at < to; at++) if (bytes[at] !== body[at - from]) return false
    return true
  }

  /** @param plainVersion of the lexicon, when nothing was found in it that the session would have to know; else -1 */
  keep(bytes: Buffer, from: number, to: number, effects: StatementEffects | null, plainVersion: number): void {
    this.uses = NONE
    this.length = to - from
    if (this.body === null || this.body.length < this.length) this.body = Buffer.allocUnsafe(this.length)
    bytes.copy(this.body, 0, from, to)
    this.effects = effects
    this.#plainVersion = plainVersion
  }

  /** It is too long to be kept. */
  drop(): void {
    this.body = null
    this.length = 0
    this.effects = null
    this.uses = NONE
  }

  /** The server gets a Parse of the client's own. */
  parse(server: Server): void {
    this.#number = ++made
    server.sentParse(null, null, 'client')
    server.unnamed = this.#number
  }

  /** There is none any more: the client closes it, or sends a simple query, with which it goes. */
  end(server: Server): void {
    this.#number = 0
    server.unnamed = 0
  }

  /** Has the unnamed statement of the server be this one, be it none. */
  ensure(server: Server): void {
    if (server.unnamed === this.#number) return
    const { body } = this
    if (this.#number === 0 || body === null) {
      server.unnamed = 0
      out.add(CLOSE_UNNAMED, 0, CLOSE_UNNAMED.length)
      server.sentClose(true)
      return
    }
    server.unnamed = this.#number
    out.head(Front.parse, HEAD_BYTES + 1 + this.length)
    out.add(EMPTY_NAME, 0, 1)
    out.add(body, 0, this.length)
    server.sentParse(null, null, 'ours')
  }
}
