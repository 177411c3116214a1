/** Masters and Sentinels that stand still, die or come back while applications write to Redis 200 times a second. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { Redis } from 'ioredis'
import {
  assertInTime,
  type FailoverWorld,
  failoverWorld,
  missing,
  NOTICE_MS,
  PASSWORD,
  SLACK_MS,
  told,
  underWrites,
  writesWithin,
} from '../../helpers/redis-failover.ts'
import { writeSteadily } from '../../helpers/steady-writer.ts'

describe('Redis by Sentinel, 200 writes a second while something stands still', { timeout: 240_000 }, () => {
  let world: FailoverWorld

  before(async () => {
    world = await failoverWorld()
  })
  after(async () => {
    for (const { child } of [...(world?.all.servers ?? []), ...(world?.all.sentinels ?? [])]) child.kill('SIGCONT')
    await world?.proxy.stop()
    await world?.all.stop()
  })

  it('leaves a master that stands still with the Sentinels, and does not go back when it wakes and thinks that it still is one', async (t) => {
    const { all, proxy } = world
    const old = all.masterPort()
    const { child } = all.serverAt(old)
    const found = await underWrites(world, 'frozen', () => child.kill('SIGSTOP'))
    const { whole, gap, errors, lostMs } = told(t, 'the master stands still', found)
    assertInTime(found)
    const few = 20 + writesWithin(lostMs + found.probe.longestMs)
    // What was sent before anybody knew: nobody can tell what became of it.
    const most = few + writesWithin(whole + SLACK_MS)
    assert.ok(errors.length < most, `${errors.length} errors, fewer than ${most} are expected: ${errors[0]}`)
    assert.ok(gap < whole + SLACK_MS + lostMs, `${gap} ms, Sentinel ${whole} ms, the process was ${lostMs} ms late`)
    assert.ok(found.lost < few, `${found.lost} lost, fewer than ${few} are expected`)

    const io = new Redis({ port: proxy.port, maxRetriesPerRequest: 0 })
    io.on('error', () => {})
    await io.ping()
    const writer = writeSteadily('awake-', 10, (key, value) => io.set(key, value))
    child.kill('SIGCONT')
    // It learns that it was replaced from the Sentinels, which close the connections of its clients.
    const asking = new Redis({ port: old, password: PASSWORD })
    asking.on('error', () => {})
    const isReplica = () =>
      asking.info('replication').then(
        (text) => text.includes('role:slave'),
        () => false,
      )
    while (!(await isReplica())) await new Promise((resolve) => setTimeout(resolve, 50))
    asking.disconnect()
    const goal = writer.acknowledged.length + 50
    while (writer.acknowledged.length < goal) await new Promise((resolve) => setTimeout(resolve, 20))
    const { acknowledged, errors: later } = await writer()
    io.disconnect()
    assert.deepEqual(later, [])
    assert.equal(await missing(found.promoted, acknowledged), 0)
  })

  it('follows a switch although one of the Sentinels stands still', async (t) => {
    const { all } = world
    await all.settled()
    const [first, second, third] = all.sentinels
    const fail = () => {
      third!.child.kill('SIGSTOP')
      return all.failOver(first!)
    }
    const found = await underWrites(world, 'mute', fail, [first!, second!])
    const { own, gap, errors, lostMs } = told(t, 'one Sentinel stands still', found)
    third!.child.kill('SIGCONT')
    assertInTime(found)
    assert.deepEqual(errors, [])
    assert.equal(found.idleCloses, 0)
    assert.ok(gap < own + SLACK_MS + lostMs, `${gap} ms, Sentinel ${own} ms, the process was ${lostMs} ms late`)
    // A sidecar that stands still between the announcement and the promotion cannot hold anything back.
    const { longestMs } = found.probe
    const excused = longestMs > NOTICE_MS ? writesWithin(longestMs) : 0
    assert.ok(found.lost <= excused, `${found.lost} lost, ${excused} are excused`)
  })

  it('holds everything while the master is dead and no Sentinel says anything, and goes on with them', async (t) => {
    const { all } = world
    await all.settled()
    const master = all.masterPort()
    const found = await underWrites(world, 'alone', async () => {
      for (const { child } of all.sentinels) child.kill('SIGSTOP')
      all.serverAt(master).child.kill('SIGKILL')
      await new Promise((resolve) => setTimeout(resolve, 1_000))
      for (const { child } of all.sentinels) child.kill('SIGCONT')
    })
    const { whole, gap, errors, lostMs } = told(t, 'all Sentinels stand still and the master dies', found)
    assertInTime(found)
    const few = 20 + writesWithin(lostMs + found.probe.longestMs)
    assert.ok(errors.length < few, `${errors.length} errors, fewer than ${few} are expected: ${errors[0]}`)
    assert.ok(gap < whole + SLACK_MS + lostMs, `${gap} ms, Sentinel ${whole} ms, the process was ${lostMs} ms late`)
    assert.ok(found.lost < few, `${found.lost} lost, fewer than ${few} are expected`)
    assert.equal(found.idleCloses, 0)
  })
})
