/** When a relay ends an idle connection and asks sockets that it does not read, in time that passes as the test says. */
import assert from 'node:assert/strict'
import { after, before, describe, it, mock } from 'node:test'
import { Relay, type RelayEnd } from '../../../../../proxy/protocol/tcp/relay.ts'
import { refreshClock } from '../../../../../proxy/runtime/clock.ts'
import { NO_HANDLER, type RawSocket, type SocketHandler } from '../../../../../proxy/runtime/raw-socket.ts'
import { linkedTimers } from '../../../../../proxy/runtime/timers.ts'

const PROBE_MS = 1_000

/** Counts how often it is asked whether its peer is still there: by a write of nothing. */
class FakeSocket {
  handler: SocketHandler = NO_HANDLER
  isPaused = false
  ended = false
  destroyed = false
  readonly knowsReset = true
  readonly writeError = null
  readonly backlog = 0
  probes = 0

  write(data: Buffer): boolean {
    if (data.length === 0) this.probes++
    return true
  }
  lend(data: Buffer): boolean {
    return this.write(data)
  }
  end(): void {}
  resume(): void {}
  destroy(): void {
    this.destroyed = true
  }
  reset(): void {
    this.destroyed = true
  }
  sendEnd(): void {
    this.ended = true
    this.handler.onEnd()
  }
  close(): void {
    this.destroyed = true
    this.handler.onClose(null)
  }
}

describe('the times of a relay', () => {
  let time = 0

  const pass = (ms: number): void => {
    for (const end = time + ms; time < end; ) {
      time++
      mock.timers.tick(1)
    }
    refreshClock()
  }

  const relay = (idleMs: number | null) => {
    const [client, upstream] = [new FakeSocket(), new FakeSocket()]
    const owner = { idleMs, farewell: () => null, onUpstreamClosed: () => {}, end: null as RelayEnd | null }
    const onRelayEnd = (end: RelayEnd): void => {
      owner.end = end
    }
    const as = (socket: FakeSocket) => socket as unknown as RawSocket
    new Relay(Object.assign(owner, { onRelayEnd }), as(client), as(upstream)).start(null, false)
    return { client, upstream, owner }
  }

  // Once for all: what arms the timers of the process goes on from one test to the next.
  before(() => {
    time = Math.ceil(performance.now())
    mock.method(performance, 'now', () => time)
    mock.timers.enable({ apis: ['setTimeout'] })
    refreshClock()
  })

  after(() => {
    mock.timers.reset()
    mock.restoreAll()
  })

  it('are both kept when the idle time is the shorter one', () => {
    const { client, upstream, owner } = relay(200)
    pass(150)
    client.sendEnd()
    pass(190)
    assert.deepEqual([client.destroyed, upstream.destroyed], [false, false])
    pass(40)
    assert.deepEqual([client.destroyed, upstream.destroyed, client.probes], [true, true, 0])
    client.close()
    upstream.close()
    assert.deepEqual([owner.end, linkedTimers()], [{ kind: 'idle' }, 0])
  })

  it('are both kept when the idle time is the longer one', () => {
    const { client, upstream, owner } = relay(3 * PROBE_MS + 500)
    client.sendEnd()
    const probes = [1, 2, 3].map(() => {
      pass(PROBE_MS + 20)
      return client.probes
    })
    assert.deepEqual([probes, upstream.probes, client.destroyed], [[1, 2, 3], 0, false])
    pass(500)
    assert.deepEqual([client.probes, client.destroyed, upstream.destroyed], [3, true, true])
    client.close()
    upstream.close()
    assert.deepEqual([owner.end, linkedTimers()], [{ kind: 'idle' }, 0])
  })

  it('are no times at all while both sockets are read and there is no idle time', () => {
    const { client, upstream } = relay(null)
    client.handler.onData(Buffer.from('x'), 1)
    assert.equal(linkedTimers(), 0)
    pass(10 * PROBE_MS)
    assert.deepEqual([client.destroyed, client.probes, upstream.probes], [false, 0, 0])
  })
})
