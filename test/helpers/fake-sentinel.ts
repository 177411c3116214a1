/** Not a Sentinel: a server that answers as one does, and sends the events that a test wants, one at a time, which no real one would. */
import type { Socket } from 'node:net'
import { encodeCommand, type Reply, ReplyReader } from '../../proxy/upstream/redis/resp.ts'
import { type TestServer, tcpServer } from './tcp.ts'

const ID = 'f'.repeat(40)

export class FakeSentinel {
  /** The port of the master that it names, on 127.0.0.1. */
  master: number
  /** Times that it was asked for the master. */
  asked = 0
  #server: TestServer | null = null
  readonly #listeners = new Map<string, Set<Socket>>()

  constructor(master: number) {
    this.master = master
  }

  async listen(): Promise<this> {
    this.#server = await tcpServer((socket) => {
      const reader = new ReplyReader()
      socket.on('error', () => {})
      socket.on('close', () => {
        for (const listeners of this.#listeners.values()) listeners.delete(socket)
      })
      socket.on('data', (chunk: Buffer) => {
        reader.feed(chunk, chunk.length)
        for (let said = reader.next(); said !== undefined; said = reader.next())
          socket.write(this.#answer(socket, said))
      })
    })
    return this
  }

  get port(): number {
    return this.#server?.port ?? 0
  }

  async close(): Promise<void> {
    await this.#server?.close()
  }

  /** How many connections listen to a channel. */
  listeners(channel: string): number {
    return this.#listeners.get(channel)?.size ?? 0
  }

  publish(channel: string, text: string): void {
    for (const socket of this.#listeners.get(channel) ?? []) socket.write(encodeCommand(['message', channel, text]))
  }

  #answer(socket: Socket, said: Reply): Buffer | string {
    const [name, word = '', ...rest] = (said as string[]).map(String)
    if (name === 'SUBSCRIBE') {
      const listeners = this.#listeners.get(word) ?? new Set()
      this.#listeners.set(word, listeners.add(socket))
      return `*3\r\n$9\r\nsubscribe\r\n$${word.length}\r\n${word}\r\n:1\r\n`
    }
    if (name !== 'SENTINEL') return '+PONG\r\n'
    if (word === 'MYID') return `$40\r\n${ID}\r\n`
    if (word !== 'GET-MASTER-ADDR-BY-NAME') return '*0\r\n'
    this.asked++
    return rest[0] === 'mymaster' ? encodeCommand(['127.0.0.1', String(this.master)]) : '*-1\r\n'
  }
}
