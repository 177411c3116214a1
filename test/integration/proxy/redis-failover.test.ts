/** Real Sentinels fail over under steady writes: what is lost, who sees an error, and for how long nothing goes. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it, type TestContext } from 'node:test'
import { Redis } from 'ioredis'
import { createClient } from 'redis'
import { probeFailover } from '../../helpers/failover-probe.ts'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import { redisProxy } from '../../helpers/redis.ts'
import { RedisWithSentinels } from '../../helpers/sentinels.ts'
import { type WriterFigures, writeSteadily } from '../../helpers/steady-writer.ts'

const PASSWORD = 'first'
const AUTH = { redis: { password: { secretKeyRef: { name: 'redis', key: 'password' } } } }
/** Of events that reach us and of answers, on a machine that others use too; beside what it took from this process. */
const SLACK_MS = 3_000
/** By which a write through the proxy may be later than that of an application which follows the Sentinels itself. */
const BEHIND_MS = 200
/** Sentinel promotes a replica at its next look after it has announced that: so much later at least. */
const NOTICE_MS = 40
/** Writes that were under way while this process or the sidecar stood still. */
const writesWithin = (ms: number): number => Math.ceil((ms * 200) / 1000)

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
async function missing(port: number, keys: readonly string[]): Promise<number> {
  const client = new Redis({ port, password: PASSWORD })
  const values = await client.mget([...keys])
  client.disconnect()
  return values.filter((value) => value === null).length
}

describe('Redis by Sentinel, 200 writes a second during a failover', { timeout: 180_000 }, () => {
  let all: RedisWithSentinels
  let proxy: Awaited<ReturnType<typeof redisProxy>>

  before(async () => {
    all = await RedisWithSentinels.start({
      settings: [`requirepass ${PASSWORD}`, `masterauth ${PASSWORD}`],
      sentinelSettings: [`sentinel auth-pass mymaster ${PASSWORD}`],
      serverArgs: ['-a', PASSWORD],
    })
    const sentinel = { masterName: 'mymaster', sentinels: all.addresses }
    const upstream = { sentinel, auth: AUTH }
    const timeouts = { timeouts: { connect: '30s' } }
    proxy = await redisProxy(upstream, timeouts, { redis: { password: PASSWORD } })
  })
  after(async () => {
    await proxy?.stop()
    await all?.stop()
  })

  /** Half of the writes by ioredis, half by node-redis, through the proxy. */
  async function underWrites(prefix: string, fail: () => unknown) {
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
    const promoted = await all.switched(master)
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

  function told(t: TestContext, what: string, found: Awaited<ReturnType<typeof underWrites>>) {
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
  function assertInTime({ probe }: Awaited<ReturnType<typeof underWrites>>): void {
    const { behindMs, lateMs, readonlys } = probe
    assert.ok(behindMs <= BEHIND_MS + lateMs, `${behindMs} ms behind, the machine ${lateMs} ms late`)
    assert.equal(readonlys, 0)
  }

  it('is found by the example redis-sentinel, for an application that knows one server and no password', async () => {
    const root = mkdtempSync(join(tmpdir(), 'ambassador-example-'))
    let text = readFileSync(join(import.meta.dirname, '../../../examples/redis-sentinel/ambassador.yaml'), 'utf8')
    for (const [index, { port }] of all.addresses.entries()) {
      text = text.replace(`host: sentinel-${index + 1}, port: 26379`, `host: 127.0.0.1, port: ${port}`)
    }
    const port = await freePort()
    writeFileSync(join(root, 'ambassador.yaml'), text.replace('port: 6379', `port: ${port}`))
    mkdirSync(join(root, 'redis'))
    writeFileSync(join(root, 'redis', 'password'), PASSWORD)
    const own = ['--telemetry-port', `${await freePort()}`, '--admin-port', `${await freePort()}`, '--secrets', root]
    const args = ['cli/main.ts', 'run', '-f', join(root, 'ambassador.yaml'), ...own]
    const example = await ProxyProcess.start({}, args)
    try {
      await example.line(({ msg }) => msg === 'config in force')
      const client = new Redis({ port })
      assert.equal(await client.set('greeting', 'hello'), 'OK')
      assert.match(await client.info('replication'), /role:master/)
      client.disconnect()
    } finally {
      await example.end()
      rmSync(root, { recursive: true })
    }
  })

  it('loses nothing that was acknowledged when a person asks for it, and no application sees an error', async (t) => {
    let found = await underWrites('manual', () => all.failOver(all.sentinels[1]!))
    let switches = 1
    // A sidecar that stands still from the announcement to the promotion, which is a tenth of a second later, cannot hold anything back.
    while (found.lost > 0 && found.probe.longestMs > NOTICE_MS && switches < 3) {
      await all.settled()
      found = await underWrites(`manual-${switches++}`, () => all.failOver(all.sentinels[1]!))
    }
    const { own, gap, errors, lostMs } = told(t, 'manual failover', found)
    assertInTime(found)
    assert.deepEqual(errors, [])
    assert.equal(found.lost, 0)
    assert.equal(found.idleCloses, 0)
    assert.ok(found.keys.length > 200, `${found.keys.length}`)
    assert.ok(gap < own + SLACK_MS + lostMs, `${gap} ms, Sentinel ${own} ms, the process was ${lostMs} ms late`)
    const metrics = await (await fetch(`http://127.0.0.1:${proxy.proxy.telemetryPort}/metrics`)).text()
    assert.equal(Number(/^ambassador_master_switches_total\{.*\} (\d+)$/m.exec(metrics)?.[1]), switches)
    assert.match(metrics, /^ambassador_endpoints\{.*state="available"\} 1$/m)
  })

  it('goes on as soon as the Sentinels do when the master is killed', async (t) => {
    // The old master is a replica by now, as far as it comes back.
    await all.settled()
    const found = await underWrites('kill', () => all.serverAt(all.masterPort()).child.kill('SIGKILL'))
    const { whole, gap, errors, lostMs } = told(t, 'kill -9 of the master', found)
    assertInTime(found)
    // What was under way on the two connections when it died is told; what came later is held.
    for (const error of errors) assert.match(error, /ambassador: upstream_reset|closed|max retries/i)
    // One that told everything until there is a new master would tell hundreds.
    const few = 20 + writesWithin(lostMs + found.probe.longestMs)
    assert.ok(errors.length < few, `${errors.length} errors, fewer than ${few} are expected`)
    assert.ok(gap < whole + SLACK_MS + lostMs, `${gap} ms, Sentinel ${whole} ms, the process was ${lostMs} ms late`)
    // Redis replicates behind the acknowledgement: what the dead master had not sent yet is nobody's to save.
    assert.ok(found.lost < few, `${found.lost} lost, fewer than ${few} are expected`)
    assert.equal(found.idleCloses, 0)
  })
})
