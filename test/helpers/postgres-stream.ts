/** What a PostgreSQL server says to a client, message by message, so that two ways to it can be compared. */
import { message, startup } from './postgres-client.ts'
import { TestClient } from './tcp.ts'

const HEAD_BYTES = 5

const int16 = (value: number): string => String.fromCharCode((value >> 8) & 255, value & 255)
const int32 = (value: number): string => int16(value >> 16) + int16(value & 0xffff)

/** Messages of a client. Texts are latin1. */
export const parse = (name: string, sql: string): Buffer => message('P', `${name}\0${sql}\0\0\0`)
export const bind = (portal: string, name: string, ...values: readonly string[]): Buffer => {
  const given = values.map((value) => int32(value.length) + value).join('')
  return message('B', `${portal}\0${name}\0\0\0${int16(values.length)}${given}\0\0`)
}
export const execute = (portal = '', rows = 0): Buffer => message('E', `${portal}\0${int32(rows)}`)
export const describeStatement = (name: string): Buffer => message('D', `S${name}\0`)
export const describePortal = (name: string): Buffer => message('D', `P${name}\0`)
export const closeStatement = (name: string): Buffer => message('C', `S${name}\0`)
export const closePortal = (name: string): Buffer => message('C', `P${name}\0`)
export const callFunction = (oid: number, ...values: readonly string[]): Buffer => {
  const given = values.map((value) => int32(value.length) + value).join('')
  return message('F', `${int32(oid)}\0\0${int16(values.length)}${given}\0\0`)
}
export const sync: Buffer = message('S', '')
export const flush: Buffer = message('H', '')
export const copyDone: Buffer = message('c', '')
export const copyFail = (why: string): Buffer => message('f', `${why}\0`)
/** A whole round of the extended protocol. */
export const run = (sql: string, ...values: readonly string[]): Buffer =>
  Buffer.concat([parse('', sql), bind('', '', ...values), describePortal(''), execute(), sync])

/** A client that keeps every message that it gets, in words. */
export class StreamClient extends TestClient {
  #at = 0
  #messages: string[] = []

  /** Lets itself in, and forgets what it was told meanwhile. */
  async begin(parameters: string | Buffer, minor = 0): Promise<this> {
    this.write(startup(minor, parameters))
    await this.until((messages) => messages.at(-1)?.startsWith('Z') === true)
    return this
  }

  /** The messages since the last call, as soon as they are what is waited for or the server has ended the connection: then `END` is the last. */
  async until(isEnough: (messages: readonly string[]) => boolean): Promise<string[]> {
    for (;;) {
      this.#take()
      if (isEnough(this.#messages)) break
      const length = this.length
      await Promise.race([this.read(length + 1).catch(() => ''), this.ended()])
      if (this.length > length) continue
      this.#messages.push('END')
      break
    }
    const taken = this.#messages
    this.#messages = []
    return taken
  }

  #take(): void {
    const { received } = this
    while (received.length - this.#at >= HEAD_BYTES) {
      const behind = this.#at + 1 + received.readInt32BE(this.#at + 1)
      if (received.length < behind) return
      const letter = String.fromCharCode(received[this.#at]!)
      this.#messages.push(wordsOf(letter, received.subarray(this.#at + HEAD_BYTES, behind)))
      this.#at = behind
    }
  }
}

/** Without what differs from run to run: numbers of processes and tables, lines of the source of the server. */
function wordsOf(letter: string, body: Buffer): string {
  const text = body.toString('latin1')
  if (letter === 'E' || letter === 'N') {
    const fields = text.split('\0').filter((field) => field !== '' && !/^[FLR]/.test(field))
    return `${letter} ${fields.join('|')}`
  }
  if (letter === 'A') return `A ${text.slice(4).replaceAll('\0', '.')}`
  if (letter === 'K') return `K of ${body.length} bytes`
  if (letter !== 'T') return `${letter} ${JSON.stringify(text)}`
  const columns: string[] = []
  for (let at = 2; at < body.length; ) {
    const end = body.indexOf(0, at)
    columns.push(`${body.toString('latin1', at, end)}:${body.readInt32BE(end + 7)}:${body.readInt16BE(end + 17)}`)
    at = end + 19
  }
  return `T ${columns.join()}`
}

/** How many of a client's messages are answered by ReadyForQuery, if nothing is wrong with them. */
export function answersTo(bytes: Buffer): number {
  let answers = 0
  for (let at = 0; at < bytes.length; at += 1 + bytes.readInt32BE(at + 1)) {
    if ('QSF'.includes(String.fromCharCode(bytes[at]!))) answers++
  }
  return answers
}
