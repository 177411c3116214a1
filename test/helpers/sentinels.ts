/** A real Redis with a master, replicas and Sentinels on free ports of loopback, ready for a failover. */
import { execFile, execFileSync } from 'node:child_process'
import { promisify } from 'node:util'
import { RedisServer } from './redis.ts'

export interface SentinelOptions {
  readonly replicas?: number
  readonly sentinels?: number
  /** Lines of the redis.conf of every server. */
  readonly settings?: readonly string[]
  /** Lines of the sentinel.conf of every Sentinel, behind `sentinel monitor`. */
  readonly sentinelSettings?: readonly string[]
  /** For redis-cli to the servers, such as `-a password`. */
  readonly serverArgs?: readonly string[]
  readonly sentinelArgs?: readonly string[]
  readonly downAfterMs?: number
}

/**
 * Looks at servers and tells other Sentinels more often than by default (10 s and 2 s), so that tests need not wait for it; and does
 * not stop its work for half a minute (TILT) because the machine stood still for two seconds.
 */
const DEBUG = ['info-period', '1000', 'publish-period', '500', 'tilt-trigger', '60000']

export class RedisWithSentinels {
  readonly servers: RedisServer[] = []
  readonly sentinels: RedisServer[] = []
  readonly #options: SentinelOptions

  private constructor(options: SentinelOptions) {
    this.#options = options
  }

  static async start(options: SentinelOptions = {}): Promise<RedisWithSentinels> {
    const all = new RedisWithSentinels(options)
    const { replicas = 2, sentinels = 3, settings = [] } = options
    // A replica is synchronized at once, not after the seconds that a busy master waits for others.
    const own = ['repl-diskless-sync-delay 0', 'repl-ping-replica-period 1', ...settings]
    const master = await RedisServer.start(own)
    all.servers.push(master)
    for (let i = 0; i < replicas; i++) {
      all.servers.push(await RedisServer.start([...own, `replicaof 127.0.0.1 ${master.port}`]))
    }
    // A Sentinel that sees a replica before it is linked looks at it again only much later.
    await all.linked()
    for (let i = 0; i < sentinels; i++) await all.addSentinel()
    await all.settled()
    return all
  }

  async addSentinel(port?: number): Promise<RedisServer> {
    const { downAfterMs = 3000, sentinelSettings = [] } = this.#options
    const { length } = this.sentinels
    const settings = [
      `sentinel monitor mymaster 127.0.0.1 ${this.masterPort()} ${Math.min(2, length + 1)}`,
      `sentinel down-after-milliseconds mymaster ${downAfterMs}`,
      'sentinel failover-timeout mymaster 20000',
      ...sentinelSettings,
    ]
    const sentinel = await RedisServer.start(settings, { isSentinel: true, ...(port !== undefined && { port }) })
    this.sentinelCli(sentinel.port, 'SENTINEL', 'DEBUG', ...DEBUG)
    this.sentinels.push(sentinel)
    return sentinel
  }

  /** Waits until the first server has all of its replicas up to date. */
  async linked(replicas = this.#options.replicas ?? 2): Promise<void> {
    const { port } = this.servers[0]!
    for (;;) {
      const online = this.cli(port, 'INFO', 'replication').match(/^slave\d+:.*state=online/gm)?.length ?? 0
      if (online >= replicas) return
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  /** Asks a Sentinel for a failover, as a person would, until it is willing. */
  async failOver(sentinel = this.sentinels[0]!): Promise<void> {
    while (this.sentinelCli(sentinel.port, 'SENTINEL', 'FAILOVER', 'mymaster') !== 'OK') {
      await new Promise((resolve) => setTimeout(resolve, 200))
    }
  }

  /** Waits until every Sentinel knows all the others and every replica, with its link up. */
  async settled(replicas = this.#options.replicas ?? 2): Promise<void> {
    for (;;) {
      const are = await Promise.all(
        this.sentinels.map(async ({ port }) => {
          const known = fieldsOf(await this.#asks(port, 'SENTINEL', 'MASTER', 'mymaster'))
          const others = Number(known.get('num-other-sentinels'))
          const up = (await this.#asks(port, 'SENTINEL', 'REPLICAS', 'mymaster')).match(/^ok$/gm)?.length ?? 0
          return others === this.sentinels.length - 1 && up >= replicas && known.get('flags') === 'master'
        }),
      )
      if (are.every((isSettled) => isSettled)) return
      await new Promise((resolve) => setTimeout(resolve, 300))
    }
  }

  get addresses() {
    return this.sentinels.map(({ port }) => ({ host: '127.0.0.1', port }))
  }

  cli(port: number, ...args: string[]): string {
    return redisCli(port, [...(this.#options.serverArgs ?? []), ...args])
  }

  sentinelCli(port: number, ...args: string[]): string {
    return redisCli(port, [...(this.#options.sentinelArgs ?? []), ...args])
  }

  /** The same without holding up what else the test does, for what is asked again and again. */
  async #asks(port: number, ...args: string[]): Promise<string> {
    const all = ['-p', String(port), '--no-auth-warning', ...(this.#options.sentinelArgs ?? []), ...args]
    const { stdout } = await promisify(execFile)('redis-cli', all)
    return stdout.trim()
  }

  /** As the first Sentinel says; the first server while there is none. */
  masterPort(): number {
    const [sentinel] = this.sentinels
    if (sentinel === undefined) return this.servers[0]!.port
    return Number(this.sentinelCli(sentinel.port, 'SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'mymaster').split('\n')[1])
  }

  serverAt(port: number): RedisServer {
    const found = this.servers.find((each) => each.port === port)
    if (found === undefined) throw new Error(`no server listens on ${port}`)
    return found
  }

  /** Waits until every one of the Sentinels names another master than `before`. Returns its port. */
  async switched(before: number, among: readonly RedisServer[] = this.sentinels): Promise<number> {
    for (;;) {
      const answers = await Promise.all(
        among
          .filter(({ child }) => child.exitCode === null && child.signalCode === null)
          .map(({ port }) => this.#asks(port, 'SENTINEL', 'GET-MASTER-ADDR-BY-NAME', 'mymaster')),
      )
      const ports = new Set(answers.map((answer) => answer.split('\n')[1]))
      const [port] = ports
      if (ports.size === 1 && Number(port) !== before) return Number(port)
      await new Promise((resolve) => setTimeout(resolve, 50))
    }
  }

  async stop(): Promise<void> {
    for (const each of [...this.sentinels, ...this.servers]) await each.stop()
  }
}

function fieldsOf(answer: string): Map<string, string> {
  const lines = answer.split('\n')
  const fields = new Map<string, string>()
  for (let at = 0; at + 1 < lines.length; at += 2) fields.set(lines[at]!, lines[at + 1]!)
  return fields
}

function redisCli(port: number, args: readonly string[]): string {
  return execFileSync('redis-cli', ['-p', String(port), '--no-auth-warning', ...args], {
    encoding: 'utf8',
    stdio: 'pipe',
  }).trim()
}
