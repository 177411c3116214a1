/** Applications of PostgreSQL: node-postgres, and a client of which a test writes and reads the bytes. */
import pg from 'pg'
import type { Ends } from './ends.ts'
import { TestClient } from './tcp.ts'

export type { Ends }

/** Runs with what is started ended behind it. */
export function scope(work: (ends: Ends) => Promise<void>): () => Promise<void> {
  return async () => {
    const ends: Ends = []
    try {
      await work(ends)
    } finally {
      for (const end of ends.reverse()) await end()
    }
  }
}

export async function connected(options: pg.ClientConfig, ends: Ends): Promise<pg.Client> {
  const client = new pg.Client(options)
  client.on('error', () => {})
  await client.connect()
  ends.push(() => client.end().catch(() => {}))
  return client
}

/** The first column of the first row. */
export async function one(client: pg.Client, sql: string, values?: unknown[]): Promise<unknown> {
  const { rows } = await client.query({ text: sql, values, rowMode: 'array' } as pg.QueryArrayConfig)
  return (rows[0] as unknown[] | undefined)?.[0]
}

/** Lets a process of the server go on that was stopped; one that has ended meanwhile needs nothing. */
export function resume(pid: number): void {
  try {
    process.kill(pid, 'SIGCONT')
  } catch (error) {
    if ((error as NodeJS.ErrnoException).code !== 'ESRCH') throw error
  }
}

/** What a login that fails is told. */
export async function refusal(options: pg.ClientConfig): Promise<pg.DatabaseError> {
  const client = new pg.Client(options)
  try {
    await client.connect()
  } catch (error) {
    return error as pg.DatabaseError
  } finally {
    await client.end().catch(() => {})
  }
  throw new Error('the client was let in')
}

/** The bytes of a message whose body is given byte for byte. */
export function message(letter: string, body: string): Buffer {
  const bytes = Buffer.from(body, 'latin1')
  const head = Buffer.alloc(5)
  head.write(letter)
  head.writeInt32BE(4 + bytes.length, 1)
  return Buffer.concat([head, bytes])
}

export const query = (sql: string): Buffer => message('Q', `${sql}\0`)
export const copyData = (text: string): Buffer => message('d', text)

/** @param minor of protocol version 3 */
export function startup(minor: number, parameters: string | Buffer): Buffer {
  const text = typeof parameters === 'string' ? Buffer.from(parameters) : parameters
  const head = Buffer.alloc(8)
  head.writeInt32BE(8 + text.length)
  head.writeInt32BE((3 << 16) + minor, 4)
  return Buffer.concat([head, text])
}

/** A client of which a test reads answer after answer. */
export class WireClient extends TestClient {
  #seen = 0

  /** What came since the last call, as soon as it matches. */
  async readUntil(pattern: RegExp): Promise<string> {
    for (;;) {
      const text = this.received.subarray(this.#seen).toString('latin1')
      if (pattern.test(text)) {
        this.#seen += text.length
        return text
      }
      await this.read(this.length + 1)
    }
  }
}

/** A client that was let in. */
export async function rawClient(port: number, ends: Ends): Promise<WireClient> {
  const client = new WireClient({ port })
  ends.push(() => client.socket.destroy())
  client.write(startup(0, 'user\0x\0database\0postgres\0\0'))
  await client.readUntil(/Z\0\0\0\x05I$/)
  return client
}
