/** An HTTP client of raw bytes: what is written is what is sent, and answers are read by llhttp, which is not ours. */
import type { NetConnectOpts } from 'node:net'
import { llhttp } from './llhttp.ts'
import { TestClient } from './tcp.ts'

export interface ReadResponse {
  readonly status: number
  readonly fields: readonly (readonly [name: string, value: string])[]
  readonly body: string
  /** Value of the first field of a name, in any case; null when there is none. */
  field(name: string): string | null
}

export class HttpTestClient {
  readonly tcp: TestClient
  #read = 0
  /** Final responses that were read, and interim ones before the last of them. */
  readonly interim: number[] = []

  constructor(options: NetConnectOpts & { port: number }) {
    this.tcp = new TestClient(options)
  }

  get socket() {
    return this.tcp.socket
  }

  write(data: string | Buffer): this {
    this.tcp.write(typeof data === 'string' ? Buffer.from(data, 'latin1') : data)
    return this
  }

  /** Sends a GET with the usual fields. */
  get(path = '/', ...lines: string[]): this {
    return this.write(`GET ${path} HTTP/1.1\r\nHost: localhost\r\n${lines.map((line) => `${line}\r\n`).join('')}\r\n`)
  }

  post(body: string, ...lines: string[]): this {
    const fields = ['Host: localhost', `Content-Length: ${Buffer.byteLength(body)}`, ...lines]
    return this.write(`POST / HTTP/1.1\r\n${fields.join('\r\n')}\r\n\r\n${body}`)
  }

  /** Reads the next final response. Fails when the connection ends before it is complete. */
  async response(options: { readonly isHead?: boolean } = {}): Promise<ReadResponse> {
    let isEnded = false
    for (;;) {
      const bytes = this.tcp.received.subarray(this.#read)
      const found = this.#parse(bytes, options.isHead ?? false, isEnded)
      if (found !== null) return found
      if (isEnded)
        throw new Error(
          `ended (${this.tcp.error}) in the middle of an answer: ${JSON.stringify(bytes.toString('latin1').slice(0, 300))}`,
        )
      isEnded = await this.#more()
    }
  }

  /** Waits for more bytes; true when the other side has ended. */
  async #more(): Promise<boolean> {
    const before = this.tcp.length
    const more = this.tcp.read(before + 1).then(
      () => false,
      () => true,
    )
    const ended = this.tcp.ended().then(() => this.tcp.length === before)
    return Promise.race([more, ended.then((isEnd) => (isEnd ? true : more))])
  }

  #parse(bytes: Buffer, isHead: boolean, isEnded: boolean): ReadResponse | null {
    const text = bytes.toString('latin1')
    let at = 0
    const interim: number[] = []
    for (;;) {
      const headEnd = text.indexOf('\r\n\r\n', at)
      if (headEnd < 0) return null
      const status = Number(text.slice(at + 9, at + 12))
      if (status >= 200 || status === 101) break
      interim.push(status)
      at = headEnd + 4
    }
    const rest = bytes.subarray(at)
    // A prefix of the bytes that is a whole message: llhttp says where it ends by completing it.
    const { messages, refused } = llhttp('response', rest, isHead, isEnded)
    const [message] = messages
    if (message === undefined || !message.isComplete) {
      if (refused !== null)
        throw new Error(`llhttp refuses the answer: ${refused}: ${JSON.stringify(text.slice(0, 300))}`)
      return null
    }
    this.#read += at + lengthOf(rest, isHead)
    this.interim.push(...interim)
    const { fields, body } = message
    return {
      status: Number(message.start),
      fields,
      body,
      field: (name) => fields.find(([each]) => each.toLowerCase() === name.toLowerCase())?.[1] ?? null,
    }
  }
}

/** How many bytes the first message of some takes: the shortest prefix that llhttp calls complete. */
function lengthOf(bytes: Buffer, isHead: boolean): number {
  const isWhole = (length: number): boolean =>
    llhttp('response', bytes.subarray(0, length), isHead).messages[0]?.isComplete === true
  if (!isWhole(bytes.length)) return bytes.length
  let low = 0
  let high = bytes.length
  while (high - low > 1) {
    const middle = (low + high) >> 1
    if (isWhole(middle)) high = middle
    else low = middle
  }
  return high
}
