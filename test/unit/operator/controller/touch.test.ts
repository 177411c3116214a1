import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { InjectedPod } from '../../../../operator/controller/pods.ts'
import { Toucher } from '../../../../operator/controller/touch.ts'
import { ApiError } from '../../../../operator/kube/errors.ts'
import { FakeClock, settle } from '../../../helpers/fake-clock.ts'
import { fakeKubeClient } from '../../../helpers/kube-client.ts'

function setup() {
  const clock = new FakeClock()
  const start = clock.now()
  const client = fakeKubeClient()
  const pods = new Map<string, Partial<InjectedPod>>()
  const lagging = new Map<string, string>()
  const at: number[] = []
  const toucher = new Toucher({
    client,
    clock,
    random: () => 1,
    pod: (key) => pods.get(key) as InjectedPod | undefined,
    lagging: (pod) => lagging.get(`${pod.namespace}/${pod.name}`),
    onTouch: () => at.push(clock.now() - start),
  })
  const add = (name: string, hash: string, touched = ''): string => {
    pods.set(`shop/${name}`, { namespace: 'shop', name, touched })
    lagging.set(`shop/${name}`, hash)
    return `shop/${name}`
  }
  const values = () =>
    client.requests.map(
      ({ body }) =>
        (body as { metadata: { annotations: Record<string, string> } }).metadata.annotations['ambassador.dev/touched'],
    )
  return { clock, client, pods, lagging, toucher, at, add, values }
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
    t.lagging.delete(key)
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
    t.lagging.set(key, 'h2')
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
