/** Applications that write to Redis through the proxy 200 times a second while real Sentinels fail over: what is lost, and for how long nothing goes. */
import assert from 'node:assert/strict'
import type { TestContext } from 'node:test'
import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { type FailoverFigures, probeFailover } from './failover-probe.ts'
import { type RedisServer, redisProxy } from './redis.ts'
import { RedisWithSentinels } from './sentinels.ts'
import { type WriterFigures, writeSteadily } from './steady-writer.ts'

export const PASSWORD = 'first'
const AUTH = { redis: { password: { secretKeyRef: { name: 'redis', key: 'password' } } } }
/** Of events that reach us and of answers, on a machine that others use too; beside what it took from this process. */
export const SLACK_MS = 3_000
/** By which a write through the proxy may be later than that of an application which follows the Sentinels itself. */
const BEHIND_MS = 200
/** Sentinel promotes a replica at its next look after it has announced that: so much later at least. */
export const NOTICE_MS = 40
/** Writes that were under way while this process or the sidecar stood still. */
export const writesWithin = (ms: number): number => Math.ceil((ms * 200) / 1000)

/** When a failover was announced, and when the first Sentinel said that it was done. */
async function watch(all: RedisWithSentinels) {
  const times: { announced?: number; switched?: number } = {}
  const clients = all.addresses.map(({ port }) => new Redis({ port }))
  for (const client of clients) {
    client.on('error', () => {})
    client.on('message', (channel: string) => {
      if (channel === '+switch-master') times.switched ??= performance.now()
      else times.announced ??= performance.now()
    })
    await client.subscribe('+failover-state-send-slaveof-noone', '+switch-master')
  }
  const stop = () => {
    for (const client of clients) client.disconnect()
  }
  return { times, stop }
}

/** How many of the keys the server does not have. */
export async function missing(port: number, keys: readonly string[]): Promise<number> {
  const client = new Redis({ port, password: PASSWORD })
  const values = await client.mget([...keys])
  client.disconnect()
  return values.filter((value) => value === null).length
}

/** A master, two replicas, three Sentinels, and a proxy by them. */
export async function failoverWorld() {
  const all = await RedisWithSentinels.start({
    settings: [`requirepass ${PASSWORD}`, `masterauth ${PASSWORD}`],
    sentinelSettings: [`sentinel auth-pass mymaster ${PASSWORD}`],
    serverArgs: ['-a', PASSWORD],
  })
  const sentinel = { masterName: 'mymaster', sentinels: all.addresses }
  const timeouts = { timeouts: { connect: '30s' } }
  const proxy = await redisProxy({ sentinel, auth: AUTH }, timeouts, { redis: { password: PASSWORD } })
  return { all, proxy }
}

export type FailoverWorld = Awaited<ReturnType<typeof failoverWorld>>

export interface FailoverFound {
  readonly figures: readonly WriterFigures[]
  readonly keys: readonly string[]
  /** Acknowledged keys that the new master does not have. */
  readonly lost: number
  readonly failedAt: number
  readonly times: { readonly announced?: number; readonly switched?: number }
  readonly promoted: number
  /** Times that an idle connection of the application was closed. */
  readonly idleCloses: number
  readonly probe: FailoverFigures
}

/** Half of the writes by ioredis, half by node-redis, through the proxy. */
export async function underWrites(
  { all, proxy }: FailoverWorld,
  prefix: string,
  fail: () => unknown,
  /** Sentinels that will name the new master. */
  among: readonly RedisServer[] = all.sentinels,
): Promise<FailoverFound> {
  const io = new Redis({ port: proxy.port, maxRetriesPerRequest: 0 })
  io.on('error', () => {})
  const node = createClient({ socket: { port: proxy.port, host: '127.0.0.1' } })
  node.on('error', () => {})
  await node.connect()
  await io.ping()
  const idle = new Redis({ port: proxy.port, db: 3, connectionName: 'idle' })
  idle.on('error', () => {})
  let closes = 0
  idle.on('close', () => closes++)
  await idle.ping()
  const { times, stop } = await watch(all)
  const probed = await probeFailover({
    sentinels: all.sentinels.map(({ port }) => port),
    proxyPort: proxy.port,
    telemetryPort: proxy.proxy.telemetryPort,
    password: PASSWORD,
  })
  const master = all.masterPort()
  /** A hundred more of each, which is a second on a machine that has time. */
  const written = async () => {
    const goals = ends.map((end) => end.acknowledged.length + 100)
    while (ends.some((end, n) => end.acknowledged.length < goals[n]!))
      await new Promise((resolve) => setTimeout(resolve, 20))
  }
  const ends = [
    writeSteadily(`${prefix}-io-`, 10, (key, value) => io.set(key, value)),
    writeSteadily(`${prefix}-node-`, 10, (key, value) => node.set(key, value)),
  ]
  await written()
  const failedAt = performance.now()
  await fail()
  const promoted = await all.switched(master, among)
  while (all.serverAt(promoted).child.exitCode !== null) await new Promise((resolve) => setTimeout(resolve, 50))
  const probe = await probed(promoted)
  await written()
  const figures = await Promise.all(ends.map((end) => end()))
  assert.equal(await idle.client('GETNAME'), 'idle')
  assert.match(String(await idle.client('INFO')), / db=3 /)
  const idleCloses = closes
  for (const client of [io, idle]) client.disconnect()
  node.destroy()
  stop()
  const keys = figures.flatMap(({ acknowledged }) => acknowledged)
  const lost = await missing(promoted, keys)
  return { figures, keys, lost, failedAt, times, promoted, idleCloses, probe }
}

/** Writes the figures down. */
export function told(t: TestContext, what: string, found: FailoverFound) {
  const { figures, keys, lost, times, failedAt } = found
  const own = (times.switched ?? 0) - (times.announced ?? failedAt)
  const whole = (times.switched ?? 0) - failedAt
  const gap = Math.max(...figures.map(({ gapMs }) => gapMs))
  const sum = (of: (each: WriterFigures) => number) => figures.reduce((total, each) => total + of(each), 0)
  const errors = figures.flatMap((each) => each.errors)
  t.diagnostic(
    `${what}: ${sum(({ sent }) => sent)} writes, ${keys.length} acknowledged, ${lost} of them lost, ${errors.length} errors, ` +
      `nothing went for ${Math.round(gap)} ms; Sentinel from announcement to switch ${Math.round(own)} ms, from the start ${Math.round(whole)} ms; ` +
      `the first write through the proxy ${Math.round(found.probe.behindMs)} ms behind one of an application that follows the Sentinels`,
  )
  return { own, whole, gap, errors, lostMs: Math.max(...figures.map((each) => each.lostMs)) }
}

/** The machine may be late, the product may not. */
export function assertInTime({ probe }: FailoverFound): void {
  const { behindMs, lateMs, readonlys } = probe
  assert.ok(behindMs <= BEHIND_MS + lateMs, `${behindMs} ms behind, the machine ${lateMs} ms late`)
  assert.equal(readonlys, 0)
}
