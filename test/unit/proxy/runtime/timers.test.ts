import assert from 'node:assert/strict'
import { once } from 'node:events'
import { type AddressInfo, connect, createServer, type Socket } from 'node:net'
import { afterEach, beforeEach, describe, it } from 'node:test'
import { CoarseTimer, linkedTimers, TICK_MS } from '../../../../proxy/runtime/timers.ts'

/** How long this process had to wait for the processor at worst while the test ran: nothing can fire then. */
let stallMs = 0
let watch: NodeJS.Timeout

beforeEach(() => {
  let last = performance.now()
  stallMs = 0
  watch = setInterval(() => {
    const now = performance.now()
    stallMs = Math.max(stallMs, now - last)
    last = now
  }, 2)
})

afterEach(() => clearInterval(watch))

/** Waits by the wheel itself: what is due before is over then, however late the process is. The watch above keeps that alive. */
const reached = (ms: number) => new Promise<void>((resolve) => new CoarseTimer(resolve).set(performance.now() + ms))

describe('CoarseTimer', () => {
  it('fires at its time or a tick later, never before', async () => {
    const late: number[] = []
    for (const ms of [1, 20, 50, 130]) {
      const due = performance.now() + ms
      new CoarseTimer(() => late.push(performance.now() - due)).set(due)
    }
    await reached(180)
    assert.equal(late.length, 4)
    for (const ms of late) assert.ok(ms >= 0 && ms < 40 + stallMs, String(ms))
  })

  it('does not fire when it was cleared, and leaves the wheel by itself', async () => {
    let count = 0
    const timer = new CoarseTimer(() => count++)
    timer.set(performance.now() + 20)
    timer.clear()
    assert.equal(linkedTimers(), 1)
    await reached(60)
    assert.equal(count, 0)
    assert.equal(linkedTimers(), 0)
  })

  it('fires once, at the last of the times that it was set to', async () => {
    const times: number[] = []
    const start = performance.now()
    const timer = new CoarseTimer(() => times.push(performance.now() - start))
    timer.set(start + 20)
    timer.set(start + 90)
    timer.set(start + 60)
    await reached(140)
    assert.equal(times.length, 1)
    assert.ok(times[0]! >= 60 && times[0]! < 60 + 5 * TICK_MS + stallMs + stallMs, String(times[0]))
    assert.equal(linkedTimers(), 0)
  })

  it('fires earlier when it is set to an earlier time', async () => {
    const start = performance.now()
    let at = 0
    const timer = new CoarseTimer(() => {
      at = performance.now() - start
    })
    timer.set(start + 5000)
    timer.set(start + 30)
    await reached(100)
    assert.ok(at >= 30 && at < 90 + stallMs, String(at))
    assert.equal(linkedTimers(), 0)
  })

  it('may be set again by what it fires, and may release its neighbours', async () => {
    const start = performance.now()
    let again = 0
    const neighbour = new CoarseTimer(() => assert.fail('was released'))
    const timer = new CoarseTimer(() => {
      neighbour.release()
      if (++again < 3) timer.set(performance.now() + 10)
    })
    // In the wheel a newer timer of a slot comes first.
    neighbour.set(start + 20)
    timer.set(start + 20)
    // On a process that stood still each of them is due only when the one before has fired.
    while (again < 3) await reached(10)
    await reached(30)
    assert.equal(again, 3)
    assert.equal(linkedTimers(), 0)
  })

  it('holds a thousand deadlines of any length and fires each at its time', async () => {
    const start = performance.now()
    const late: number[] = []
    let count = 0
    const timers = Array.from({ length: 1000 }, (_, i) => {
      const due = start + ((i * 7919) % 120)
      const timer = new CoarseTimer(() => {
        count++
        late.push(performance.now() - due)
      })
      timer.set(i % 10 === 9 ? due + 60_000 : due)
      return timer
    })
    await reached(220)
    assert.equal(count, 900)
    assert.ok(late.every((ms) => ms >= 0))
    for (const timer of timers) timer.release()
    assert.equal(linkedTimers(), 0)
  })

  it('hears what came while the process stood still before it says that it did not come', async (t) => {
    const server = createServer().listen(0, '127.0.0.1')
    await once(server, 'listening')
    const peer = connect((server.address() as AddressInfo).port, '127.0.0.1')
    const [[socket]] = (await Promise.all([once(server, 'connection'), once(peer, 'connect')])) as [[Socket], unknown]
    t.after(() => {
      for (const each of [peer, socket]) each.destroy()
      server.close()
    })
    const events: string[] = []
    const deadline = new CoarseTimer(() => events.push('deadline'))
    socket.on('data', () => {
      events.push('data')
      deadline.clear()
    })
    const later = reached(60)
    deadline.set(performance.now() + 30)
    // The kernel has it at once, and nobody reads it while the process stands still.
    peer.write('x')
    Atomics.wait(new Int32Array(new SharedArrayBuffer(4)), 0, 0, 300)
    await later
    assert.deepEqual(events, ['data'])
  })
})
