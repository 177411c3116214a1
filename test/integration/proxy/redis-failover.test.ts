/** Real Sentinels fail over under steady writes: what is lost, who sees an error, and for how long nothing goes. */
import assert from 'node:assert/strict'
import { mkdirSync, mkdtempSync, readFileSync, rmSync, writeFileSync } from 'node:fs'
import { tmpdir } from 'node:os'
import { join } from 'node:path'
import { after, before, describe, it } from 'node:test'
import { Redis } from 'ioredis'
import { freePort } from '../../helpers/ports.ts'
import { ProxyProcess } from '../../helpers/proxy-process.ts'
import {
  assertInTime,
  type FailoverWorld,
  failoverWorld,
  NOTICE_MS,
  PASSWORD,
  SLACK_MS,
  told,
  underWrites,
  writesWithin,
} from '../../helpers/redis-failover.ts'

describe('Redis by Sentinel, 200 writes a second during a failover', { timeout: 180_000 }, () => {
  let world: FailoverWorld
  let all: FailoverWorld['all']
  let proxy: FailoverWorld['proxy']

  before(async () => {
    world = await failoverWorld()
    all = world.all
    proxy = world.proxy
  })
  after(async () => {
    await proxy?.stop()
    await all?.stop()
  })

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
    let found = await underWrites(world, 'manual', () => all.failOver(all.sentinels[1]!))
    let switches = 1
    // A sidecar that stands still from the announcement to the promotion, which is a tenth of a second later, cannot hold anything back.
    while (found.lost > 0 && found.probe.longestMs > NOTICE_MS && switches < 3) {
      await all.settled()
      found = await underWrites(world, `manual-${switches++}`, () => all.failOver(all.sentinels[1]!))
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
    const found = await underWrites(world, 'kill', () => all.serverAt(all.masterPort()).child.kill('SIGKILL'))
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
