/** Real Redis servers on free ports of loopback, and the proxy as a process in front of them. */
import { type ChildProcess, spawn } from 'node:child_process'
import { once } from 'node:events'
import { mkdtempSync, rmSync, writeFileSync } from 'node:fs'
import { connect } from 'node:net'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import type { Ambassador, AmbassadorSpec } from '../../operator/api/ambassador.ts'
import { render } from '../../operator/render/render.ts'
import { freePort } from './ports.ts'
import { ProxyProcess } from './proxy-process.ts'
import { Volumes } from './volume.ts'

/** A redis-server, or a Sentinel, until `stop()`. */
export class RedisServer {
  readonly port: number
  readonly child: ChildProcess
  readonly #directory: string
  said = ''

  private constructor(child: ChildProcess, port: number, directory: string) {
    this.child = child
    this.port = port
    this.#directory = directory
    for (const stream of [child.stdout, child.stderr]) stream?.on('data', (text) => (this.said += text))
  }

  /** `settings` are lines of redis.conf, or of sentinel.conf. */
  static async start(
    settings: readonly string[] = [],
    options: { readonly port?: number; readonly isTls?: boolean; readonly isSentinel?: boolean } = {},
  ) {
    const port = options.port ?? (await freePort())
    const directory = mkdtempSync(join(tmpdir(), 'ambassador-redis-'))
    const file = join(directory, 'redis.conf')
    const ports = options.isTls ? `port 0\ntls-port ${port}` : `port ${port}`
    const own = options.isSentinel ? [] : ['save ""', 'appendonly no']
    writeFileSync(file, `${[ports, 'bind 127.0.0.1', `dir ${directory}`, ...own, ...settings].join('\n')}\n`)
    const args = options.isSentinel ? [file, '--sentinel'] : [file]
    const server = new RedisServer(spawn('redis-server', args), port, directory)
    await server.#listens()
    return server
  }

  async #listens(): Promise<void> {
    for (;;) {
      if (this.child.exitCode !== null) throw new Error(`redis-server has ended: ${this.said}`)
      const socket = connect(this.port, '127.0.0.1')
      const isUp = await new Promise<boolean>((resolve) => {
        socket.once('connect', () => resolve(true))
        socket.once('error', () => resolve(false))
      })
      socket.destroy()
      if (isUp) return
      await new Promise((resolve) => setTimeout(resolve, 20))
    }
  }

  async stop(signal: NodeJS.Signals = 'SIGKILL'): Promise<void> {
    const exit = this.child.exitCode === null && this.child.signalCode === null ? once(this.child, 'close') : null
    this.child.kill(signal)
    await exit
    rmSync(this.#directory, { recursive: true, force: true })
  }
}

/** The proxy as a process that serves one upstream of Redis as the operator renders it. */
export async function redisProxy(
  upstream: object,
  spec: object = {},
  secrets: Readonly<Record<string, Record<string, string>>> = {},
) {
  const volumes = new Volumes()
  const port = await freePort()
  const configOf = (given: object) => {
    const whole = {
      protocol: 'Redis',
      listen: { port },
      upstreams: [{ name: 'cache', ...given }],
      accessLog: { mode: 'All' },
      ...spec,
    } as unknown as AmbassadorSpec
    const rendered = render({
      ambassador: { metadata: { name: 'cache', namespace: 'shop' }, spec: whole } as unknown as Ambassador,
    })
    if (rendered.config === null) throw new Error(JSON.stringify(rendered.problems))
    return rendered.config
  }
  for (const [name, data] of Object.entries(secrets)) volumes.secret(name, data)
  volumes.config('cache', configOf(upstream))
  const proxy = await ProxyProcess.start({
    ...volumes.env('cache'),
    // It drains as soon as it is told to stop, and has time for that.
    AMBASSADOR_SIDECAR_MODE: 'Native',
    AMBASSADOR_DRAIN_SECONDS: '20',
    POD_NAMESPACE: 'shop',
  })
  await proxy.line((line) => String(line['msg']).startsWith('config in force'))
  return {
    proxy,
    port,
    volumes,
    update: (given: object) => volumes.config('cache', configOf(given)),
    stop: async () => {
      await proxy.end()
      volumes.remove()
    },
  }
}
