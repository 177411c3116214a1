/** Commands as bytes, and replies as values, for conversations that the proxy has itself: short ones, gathered whole. */

/** A command as an array of bulk strings. */
export function encodeCommand(args: readonly (string | Buffer)[]): Buffer {
  const parts: Buffer[] = [Buffer.from(`*${args.length}\r\n`)]
  for (const arg of args) {
    const bytes = typeof arg === 'string' ? Buffer.from(arg) : arg
    parts.push(Buffer.from(`$${bytes.length}\r\n`), bytes, Buffer.from('\r\n'))
  }
  return Buffer.concat(parts)
}

/** An error that the server answered with: `WRONGPASS invalid username-password pair`. */
export class ReplyError {
  readonly text: string

  constructor(text: string) {
    this.text = text
  }

  /** Its first word. */
  get code(): string {
    return this.text.slice(0, `${this.text} `.indexOf(' '))
  }
}

export type Reply = string | number | null | ReplyError | readonly Reply[]

/** No answer to a question of ours is longer: the state of a master with its sentinels and replicas. */
const MAX_BYTES = 1024 * 1024
const MAX_DEPTH = 8
const MAX_ELEMENTS = 10_000

/** Gathers replies of RESP2 from pieces. */
export class ReplyReader {
  #text = ''
  #at = 0
  #need = 0
  /** What is wrong with what came; null while it was RESP. */
  failure: string | null = null

  feed(chunk: Buffer, length: number): void {
    this.#text = this.#text.slice(this.#at) + chunk.toString('latin1', 0, length)
    this.#at = 0
    if (this.#text.length > MAX_BYTES) this.failure = `answered with more than ${MAX_BYTES} bytes`
  }

  /** The next reply; undefined when it is not complete or there is a failure. */
  next(): Reply | undefined {
    // What was incomplete is not read again before enough came to be complete.
    if (this.failure !== null || this.#text.length - this.#at < this.#need) return undefined
    const start = this.#at
    const reply = this.#read(0)
    if (reply === undefined) {
      this.#need = this.failure === null ? this.#text.length - start + 1 : 0
      this.#at = start
      return undefined
    }
    this.#need = 0
    return reply
  }

  #read(depth: number): Reply | undefined {
    const end = this.#text.indexOf('\r\n', this.#at)
    const type = this.#text[this.#at]
    if (type !== undefined && !'+-:$*'.includes(type)) {
      const line = this.#text.slice(this.#at, this.#at + 40).replace(/[^ -~].*$/s, '')
      this.failure = `answered with '${line}', which is not Redis`
      return undefined
    }
    if (end < 0) return undefined
    const line = this.#text.slice(this.#at + 1, end)
    if (type === '+') return this.#past(end + 2, Buffer.from(line, 'latin1').toString())
    if (type === '-') return this.#past(end + 2, new ReplyError(Buffer.from(line, 'latin1').toString()))
    const count = /^-?\d{1,15}$/.test(line) ? Number(line) : Number.NaN
    if (type === ':') return Number.isNaN(count) ? this.#fail() : this.#past(end + 2, count)
    if (count === -1) return this.#past(end + 2, null)
    if (!(count >= 0 && count <= MAX_BYTES)) return this.#fail()
    if (type === '$') {
      const from = end + 2
      if (this.#text.length < from + count + 2) return undefined
      return this.#past(from + count + 2, Buffer.from(this.#text.slice(from, from + count), 'latin1').toString())
    }
    if (depth === MAX_DEPTH || count > MAX_ELEMENTS) return this.#fail()
    this.#at = end + 2
    const list: Reply[] = []
    for (let i = 0; i < count; i++) {
      const element = this.#read(depth + 1)
      if (element === undefined) return undefined
      list.push(element)
    }
    return list
  }

  #past<T extends Reply>(at: number, reply: T): T {
    this.#at = at
    return reply
  }

  #fail(): undefined {
    this.failure = 'answered with a length that Redis would not send'
    return undefined
  }
}
