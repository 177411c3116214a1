import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { KubeClient, KubeRequest } from '../../../../operator/kube/client.ts'
import { ApiError } from '../../../../operator/kube/errors.ts'
import { LeaderElector } from '../../../../operator/kube/leader.ts'
import { FakeClock, settle } from '../../../helpers/fake-clock.ts'

/** One Lease with optimistic concurrency, as the API server keeps it. */
class LeaseServer {
  lease: { metadata: { resourceVersion: string }; spec: Record<string, unknown> } | undefined
  isDown = false
  #version = 0

  client(): KubeClient {
    return {
      request: async <T>(request: KubeRequest) => {
        if (this.isDown) throw new ApiError('down', { status: 0, reason: 'Unreachable' })
        if (request.method === 'POST' || request.method === 'PUT') {
          const body = structuredClone(request.body) as NonNullable<LeaseServer['lease']>
          const isStale =
            request.method === 'POST'
              ? this.lease !== undefined
              : body.metadata.resourceVersion !== this.lease?.metadata.resourceVersion
          if (isStale) throw new ApiError('conflict', { status: 409, reason: 'Conflict' })
          this.lease = { ...body, metadata: { ...body.metadata, resourceVersion: String(++this.#version) } }
        }
        if (this.lease === undefined) throw new ApiError('none', { status: 404, reason: 'NotFound' })
        return structuredClone(this.lease) as T
      },
      open: () => Promise.reject(new Error('not a watch')),
      close() {},
    }
  }
}

function candidate(
  server: LeaseServer,
  clock: FakeClock,
  identity: string,
  isGone?: (identity: string) => Promise<boolean>,
) {
  const terms: AbortSignal[] = []
  const elector = new LeaderElector(
    {
      client: server.client(),
      namespace: 'sys',
      name: 'op',
      identity,
      clock,
      random: () => 0.5,
      ...(isGone === undefined ? {} : { isGone }),
    },
    async (signal) => {
      terms.push(signal)
      await new Promise<void>((resolve) => signal.addEventListener('abort', () => resolve()))
    },
  )
  elector.start()
  return { elector, terms }
}

describe('leader election', () => {
  it('takes the lease of a holder that is gone at once, and waits when it cannot find out', async () => {
    for (const [answer, leadsAtOnce] of [
      [() => Promise.resolve(true), true],
      [() => Promise.resolve(false), false],
      [() => Promise.reject(new Error('no right')), false],
    ] as const) {
      const server = new LeaseServer()
      const clock = new FakeClock()
      const gone = candidate(server, clock, 'gone_1')
      await settle()
      assert.equal(gone.elector.isLeading, true)
      server.isDown = true // it ends without the right to give the lease back
      await gone.elector.stop()
      server.isDown = false
      const asked: string[] = []
      const next = candidate(server, clock, 'next_1', (identity) => {
        asked.push(identity)
        return answer()
      })
      await settle()
      assert.deepEqual(asked, ['gone_1'])
      assert.equal(next.elector.isLeading, leadsAtOnce)
      await clock.advance(20_000)
      assert.equal(next.elector.isLeading, true, 'at the latest when the lease is over')
      await next.elector.stop()
    }
  })

  it('lets exactly one of two lead, with the lease written as the API wants it', async () => {
    const server = new LeaseServer()
    const clock = new FakeClock()
    const a = candidate(server, clock, 'a')
    await settle()
    const b = candidate(server, clock, 'b')
    await clock.advance(60_000)
    assert.equal(a.elector.isLeading, true)
    assert.equal(b.elector.isLeading, false)
    assert.equal(a.terms.length, 1)
    assert.equal(b.terms.length, 0)
    assert.equal(server.lease?.spec['holderIdentity'], 'a')
    assert.equal(server.lease?.spec['leaseDurationSeconds'], 15)
    assert.match(String(server.lease?.spec['renewTime']), /\.\d{6}Z$/)
    assert.equal(server.lease?.spec['leaseTransitions'], 0)
  })

  it('stops writing before another can start when the API server is gone', async () => {
    const server = new LeaseServer()
    const clock = new FakeClock()
    const a = candidate(server, clock, 'a')
    await settle()
    server.isDown = true
    await clock.advance(9_900)
    assert.equal(a.elector.isLeading, true)
    await clock.advance(200)
    assert.equal(a.elector.isLeading, false)
    assert.equal(a.terms[0]?.aborted, true)
  })

  it('hands over when the leader dies, only after its lease expired by the other clock', async () => {
    const server = new LeaseServer()
    const clock = new FakeClock()
    const dead = new FakeClock()
    dead.wallOffset += 3_600_000 // clocks an hour apart change nothing
    candidate(server, dead, 'a')
    await settle()
    const b = candidate(server, clock, 'b')
    await clock.advance(14_900)
    assert.equal(b.elector.isLeading, false)
    await clock.advance(3_000)
    assert.equal(b.elector.isLeading, true)
    assert.equal(server.lease?.spec['leaseTransitions'], 1)
  })

  it('gives the lease back when it stops, so that the other leads at its next try', async () => {
    const server = new LeaseServer()
    const clock = new FakeClock()
    const a = candidate(server, clock, 'a')
    await settle()
    const b = candidate(server, clock, 'b')
    await settle()
    const stopped = a.elector.stop()
    await clock.advance(1)
    await stopped
    assert.equal(a.terms[0]?.aborted, true)
    assert.equal(server.lease?.spec['holderIdentity'], '')
    await clock.advance(2_000)
    assert.equal(b.elector.isLeading, true)
  })

  it('gives the lease back although a renewal was cut off whose answer it never saw', async () => {
    const server = new LeaseServer()
    const clock = new FakeClock()
    const a = candidate(server, clock, 'a')
    await settle()
    server.lease = { ...server.lease!, metadata: { resourceVersion: '99' } }
    const stopped = a.elector.stop()
    await clock.advance(1)
    await stopped
    assert.equal(server.lease.spec['holderIdentity'], '')
  })

  it('does not write while its machine slept, although no timer of its own fired', async () => {
    const server = new LeaseServer()
    const clock = new FakeClock()
    const a = candidate(server, clock, 'a')
    await settle()
    clock.wallOffset += 60_000 // the monotonic clock stood still
    assert.equal(a.elector.isLeading, false)
    await clock.advance(2_000)
    assert.equal(a.terms[0]?.aborted, true)
  })

  it('stops at once when somebody took the lease away, and leads again when it is free', async () => {
    const server = new LeaseServer()
    const clock = new FakeClock()
    const a = candidate(server, clock, 'a')
    await settle()
    server.lease = { metadata: { resourceVersion: '99' }, spec: { holderIdentity: 'thief', leaseDurationSeconds: 15 } }
    await clock.advance(4_500)
    assert.equal(a.terms[0]?.aborted, true)
    assert.equal(a.elector.isLeading, false)
    await clock.advance(20_000)
    assert.equal(a.elector.isLeading, true)
    assert.equal(a.terms.length, 2)
  })

  it('leads again after an outage', async () => {
    const server = new LeaseServer()
    const clock = new FakeClock()
    const a = candidate(server, clock, 'a')
    await settle()
    server.isDown = true
    await clock.advance(30_000)
    server.isDown = false
    await clock.advance(5_000)
    assert.equal(a.elector.isLeading, true)
    assert.equal(a.terms.length, 2)
  })
})
