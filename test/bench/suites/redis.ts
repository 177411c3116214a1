/** Redis to Redis without TLS: GET and SET of 100 bytes, one at a time and in pipelines of 16. */

import { run } from '../../../build/machine/exec.ts'
import { envoy } from '../contenders/envoy.ts'
import { haproxy } from '../contenders/haproxy.ts'
import { ours } from '../contenders/ours.ts'
import { relay } from '../contenders/relay.ts'
import { CONNECTIONS, type Load, type LoadOptions } from '../load.ts'
import { freePort, start } from '../process.ts'
import type { Suite } from './suite.ts'

const VALUE_BYTES = 100
/** Enough to know how many more make up the seconds. */
const FIRST = 20_000

interface Shape {
  readonly command: 'get' | 'set'
  readonly pipeline: number
}

/** Loads one port for about so many seconds: redis-benchmark counts commands, not time. */
const loadRedis = async (shape: Shape, options: LoadOptions): Promise<Load> => {
  const first = await benchmark(shape, options, FIRST)
  const rest = await benchmark(shape, options, Math.max(FIRST, Math.round(first.perSecond * options.seconds)))
  return { ...rest, count: first.count + rest.count, errors: first.errors + rest.errors }
}

const benchmark = async ({ command, pipeline }: Shape, options: LoadOptions, requests: number): Promise<Load> => {
  const args = ['-p', options.port, '-c', CONNECTIONS, '-P', pipeline, '-n', requests, '-d', VALUE_BYTES, '-t', command]
  const said = await run(
    'taskset',
    ['-c', String(options.core), 'redis-benchmark', ...args.map(String), '--csv', '-e'],
    { timeoutMs: (options.seconds + 60) * 1000 },
  )
  // "test","rps","avg_latency_ms","min_latency_ms","p50_latency_ms","p95_latency_ms","p99_latency_ms","max_latency_ms"
  const line = said.split('\n').find((each) => each.toLowerCase().startsWith(`"${command}"`))
  const [, rate, , , p50, , p99] = (line ?? '').split(',').map((field) => Number(field.replaceAll('"', '')))
  if (rate === undefined || p50 === undefined || p99 === undefined || !(rate > 0))
    throw new Error(`redis-benchmark: printed no figures:\n${said}`)
  const errors = said.match(/error/gi)?.length ?? 0
  return { count: requests, errors, perSecond: rate, p50Ms: p50, p99Ms: p99 }
}

const suite = (name: string, shape: Shape): Suite => ({
  name,
  mode: 'Redis',
  about: `${shape.command.toUpperCase()} of ${VALUE_BYTES} bytes, ${shape.pipeline} at a time on ${CONNECTIONS} kept connections; HAProxy as TCP`,
  contenders: [ours, haproxy, envoy, relay],
  packages: ['haproxy', 'redis-server', 'redis-tools', 'util-linux'],
  load: (options) => loadRedis(shape, options),
  startUpstream: async ({ core, directory }) => {
    const port = await freePort()
    const settings = ['--save', '', '--appendonly', 'no', '--maxclients', '20000', '--dir', directory]
    const args = ['--port', String(port), '--bind', '127.0.0.1', ...settings]
    const running = await start(core, 'redis-server', args, { port })
    // What GET is asked for.
    await run('redis-cli', ['-p', String(port), 'SET', 'key:__rand_int__', 'x'.repeat(VALUE_BYTES)])
    return { upstream: { port, tls: null }, running }
  },
})

export const redis: readonly Suite[] = [
  suite('redis-get', { command: 'get', pipeline: 1 }),
  suite('redis-set', { command: 'set', pipeline: 1 }),
  suite('redis-get-16', { command: 'get', pipeline: 16 }),
  suite('redis-set-16', { command: 'set', pipeline: 16 }),
]
