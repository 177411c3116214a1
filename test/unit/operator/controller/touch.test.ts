import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { InjectedPod } from '../../../../operator/controller/pods.ts'
import { Toucher, type TouchPace, WHILE_MISSING } from '../../../../operator/controller/touch.ts'
import { ApiError } from '../../../../operator/kube/errors.ts'
import { FakeClock, settle } from '../../../helpers/fake-clock.ts'
import { fakeKubeClient } from '../../../helpers/kube-client.ts'

function setup(pace?: TouchPace) {
  const clock = new FakeClock()
  const start = clock.now()
  const client = fakeKubeClient()
  const pods = new Map<string, Partial<InjectedPod>>()
  const lacking = new Map<string, string>()
  const at: number[] = []
  const toucher = new Toucher({
    client,
    clock,
    random: () => 1,
    ...(pace === undefined ? {} : { pace }),
    pod: (key) => pods.get(key) as InjectedPod | undefined,
    lacking: (pod) => lacking.get(`${pod.namespace}/${pod.name}`),
    onTouch: () => at.push(clock.now() - start),
  })
  const add = (name: string, hash: string, touched = ''): string => {
    pods.set(`shop/${name}`, { namespace: 'shop', name, touched })
    lacking.set(`shop/${name}`, hash)
    return `shop/${name}`
  }
  const values = () =>
    client.requests.map(
      ({ body }) =>
        (body as { metadata: { annotations: Record<string, string> } }).metadata.annotations['ambassador.dev/touched'],
    )
  return { clock, client, pods, lacking, toucher, at, add, values }
}

describe('toucher', () => {
  it('writes the hash into the annotation by a merge patch', async () => {
    const t = setup()
    t.toucher.consider(t.add('a', 'h1'))
    await settle()
    const [request] = t.client.requests
    assert.equal(request?.method, 'PATCH')
    assert.equal(request?.path, '/api/v1/namespaces/shop/pods/a')
    assert.equal(request?.contentType, 'application/merge-patch+json')
    assert.deepEqual(t.values(), ['h1'])
  })

  it('touches again with growing waits and always another value, until the sidecar has loaded', async () => {
    const t = setup()
    const key = t.add('a', 'h1')
    t.toucher.consider(key)
    await t.clock.advance(10_000)
    assert.deepEqual(t.at, [0, 800, 2400, 5600])
    assert.equal(new Set(t.values()).size, 4)
    for (const value of t.values()) assert.match(value ?? '', /^h1/)
    t.lacking.delete(key)
    await t.clock.advance(600_000)
    assert.equal(t.at.length, 4)
  })

  it('does not touch twice for what it was told twice', async () => {
    const t = setup()
    const key = t.add('a', 'h1')
    for (let i = 0; i < 5; i++) {
      t.toucher.consider(key)
      await t.clock.advance(100)
    }
    assert.equal(t.at.length, 1)
  })

  it('touches at once for a newer hash', async () => {
    const t = setup()
    const key = t.add('a', 'h1')
    t.toucher.consider(key)
    await t.clock.advance(100)
    t.lacking.set(key, 'h2')
    t.toucher.consider(key)
    await settle()
    assert.deepEqual(t.values(), ['h1', 'h2'])
  })

  it('changes the value that an earlier leader left, since the same value would be no change', async () => {
    const t = setup()
    t.toucher.consider(t.add('a', 'h1', 'h1'))
    await settle()
    assert.match(t.values()[0] ?? '', /^h1\../)
  })

  it('touches 20 pods a second after a burst of 40', async () => {
    const t = setup()
    for (let i = 0; i < 100; i++) {
      const key = t.add(`p${i}`, 'h1')
      t.toucher.consider(key)
    }
    await t.clock.advance(0)
    assert.equal(t.at.length, 40)
    await t.clock.advance(1000)
    assert.equal(t.at.length, 60)
  })

  it('forgets a pod that is gone and tries again after any other failure', async () => {
    const t = setup()
    t.client.respond(() => {
      throw new ApiError('gone', { status: 404, reason: 'NotFound' })
    })
    t.toucher.consider(t.add('a', 'h1'))
    await t.clock.advance(100_000)
    assert.equal(t.client.requests.length, 1)
    t.client.respond(() => {
      throw new ApiError('busy', { status: 500, reason: 'InternalError' })
    })
    t.toucher.consider(t.add('b', 'h1'))
    await t.clock.advance(1_000)
    assert.ok(t.client.requests.length >= 3)
  })
})

describe('toucher of pods that wait for a Secret', () => {
  it('touches after 5 s, and then so that nobody waits more than a quarter longer than he has waited', async () => {
    const t = setup(WHILE_MISSING)
    t.toucher.consider(t.add('a', 'h1', 'h1'))
    await t.clock.advance(4_999)
    assert.deepEqual(t.at, [])
    await t.clock.advance(3_600_000)
    assert.deepEqual(t.at.slice(0, 6), [5_000, 10_000, 15_000, 20_000, 25_000, 31_250])
    const waits = t.at.slice(1).map((at, i) => at - t.at[i]!)
    for (const [i, wait] of waits.entries()) {
      const bound = Math.min(60_000, Math.max(5_000, t.at[i]! / 4))
      assert.ok(wait <= bound + 1, `${wait} ms after ${t.at[i]} ms`)
    }
    assert.equal(waits.at(-1), 60_000)
    assert.equal(new Set(t.values()).size, t.at.length, 'each value is another')
    for (const value of t.values()) assert.match(value ?? '', /^h1\../)
  })

  it('stops when nothing is missing any more, and begins anew when something is missing again', async () => {
    const t = setup(WHILE_MISSING)
    const key = t.add('a', 'h1')
    t.toucher.consider(key)
    await t.clock.advance(600_000)
    const before = t.at.length
    t.lacking.delete(key)
    t.toucher.consider(key)
    await t.clock.advance(600_000)
    assert.equal(t.at.length, before)
    t.lacking.set(key, 'h1')
    t.toucher.consider(key)
    await t.clock.advance(10_000)
    assert.deepEqual(t.at.slice(before), [1_205_000, 1_210_000])
  })

  it('begins anew after a publish, which touches the pod by itself', async () => {
    const t = setup(WHILE_MISSING)
    const key = t.add('a', 'h1')
    t.toucher.consider(key)
    await t.clock.advance(400_000)
    const before = t.at.length
    t.lacking.set(key, 'h2')
    t.toucher.consider(key)
    await t.clock.advance(4_999)
    assert.equal(t.at.length, before)
    await t.clock.advance(1)
    assert.deepEqual(t.at.slice(before), [405_000])
  })

  it('is not hurried by reports that come meanwhile', async () => {
    const t = setup(WHILE_MISSING)
    const key = t.add('a', 'h1')
    for (let second = 0; second < 9; second++) {
      t.toucher.consider(key)
      await t.clock.advance(1_000)
    }
    assert.deepEqual(t.at, [5_000])
  })

  it('touches 5 pods a second after a burst of 10', async () => {
    const t = setup(WHILE_MISSING)
    for (let i = 0; i < 100; i++) t.toucher.consider(t.add(`p${i}`, 'h1'))
    await t.clock.advance(5_000)
    assert.equal(t.at.length, 10)
    await t.clock.advance(2_000)
    assert.equal(t.at.length, 20)
  })
})
