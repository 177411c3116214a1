/** A proxy in front of Sentinels and servers that a test starts one by one, and what its connections get. */
import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { endsOf } from './ends.ts'
import { RedisServer, redisProxy } from './redis.ts'
import { RedisWithSentinels, type SentinelOptions } from './sentinels.ts'
import { TestClient } from './tcp.ts'

export const HOST = '127.0.0.1'
/** What a test has started, which is ended with it. */
export class Started {
  readonly ends: (() => unknown)[]

  constructor(t: TestContext) {
    this.ends = endsOf(t)
  }

  async proxy(...args: Parameters<typeof redisProxy>) {
    const proxy = await redisProxy(...args)
    this.ends.push(() => proxy.stop())
    return proxy
  }

  async server(settings: readonly string[] = []) {
    const redis = await RedisServer.start(settings)
    this.ends.push(() => redis.stop())
    return redis
  }

  /** A master, replicas and Sentinels. */
  async cluster(options: SentinelOptions = {}) {
    const all = await RedisWithSentinels.start(options)
    this.ends.push(() => all.stop())
    return all
  }

  /** A Sentinel alone, which is its own majority. */
  async lone(master: number, settings: readonly string[] = [], quorum = 1, host = HOST) {
    const monitor = `sentinel monitor mymaster ${host} ${master} ${quorum}`
    const ahead = settings.filter((line) => line.startsWith('sentinel resolve') || line.startsWith('sentinel announce'))
    const rest = settings.filter((line) => !ahead.includes(line))
    const lines = [...ahead, monitor, 'sentinel down-after-milliseconds mymaster 60000', ...rest]
    const sentinel = await RedisServer.start(lines, { isSentinel: true })
    this.ends.push(() => sentinel.stop())
    return sentinel
  }
}

export const place = ({ port }: { readonly port: number }) => ({ host: HOST, port })
export const bySentinel = (sentinels: readonly { readonly port: number }[], more: object = {}) => ({
  sentinel: { masterName: 'mymaster', sentinels: sentinels.map(place), ...more },
})
export const command = (...args: string[]) =>
  `*${args.length}\r\n${args.map((arg) => `$${Buffer.byteLength(arg)}\r\n${arg}\r\n`).join('')}`

/** What a connection gets that sends PING, until it is closed. */
export async function answerOf(port: number): Promise<string> {
  const client = new TestClient({ port })
  client.write(command('PING'))
  await client.ended()
  client.socket.destroy()
  return client.text
}

export async function pong(port: number): Promise<void> {
  const client = new TestClient({ port })
  client.write(command('PING'))
  assert.equal(await client.read(7), '+PONG\r\n')
  client.socket.destroy()
}

/** For what is to fail soon. */
export const SHORT = { timeouts: { connect: '2s' } }

/** The same, or PONG. */
export async function answerOrPong(port: number): Promise<string> {
  const client = new TestClient({ port })
  client.write(command('PING'))
  const text = await client.read(7)
  client.socket.destroy()
  return text
}
