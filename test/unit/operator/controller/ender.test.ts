import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Ender } from '../../../../operator/controller/ender.ts'
import type { InjectedPod } from '../../../../operator/controller/pods.ts'
import { ApiError } from '../../../../operator/kube/errors.ts'
import { FakeClock, settle } from '../../../helpers/fake-clock.ts'
import { fakeKubeClient } from '../../../helpers/kube-client.ts'

function setup() {
  const clock = new FakeClock()
  const client = fakeKubeClient()
  const pods = new Map<string, Partial<InjectedPod>>()
  const ender = new Ender({ client, clock, pod: (key) => pods.get(key) as InjectedPod | undefined })
  return { clock, client, pods, ender }
}

describe('ender', () => {
  it('writes into the annotation since when the application has ended, by a merge patch', async () => {
    const { clock, client, pods, ender } = setup()
    pods.set('shop/a', { isLeftAlone: true })
    ender.consider('shop/a')
    await settle()
    assert.deepEqual(
      client.requests.map(({ method, path, contentType, body }) => ({ method, path, contentType, body })),
      [
        {
          method: 'PATCH',
          path: '/api/v1/namespaces/shop/pods/a',
          contentType: 'application/merge-patch+json',
          body: {
            metadata: {
              annotations: { 'ambassador.dev/application-ended': new Date(clock.wall()).toISOString() },
            },
          },
        },
      ],
    )
  })

  it('leaves a pod alone whose application runs, and one that is gone', async () => {
    const { client, pods, ender } = setup()
    pods.set('shop/a', { isLeftAlone: false })
    ender.consider('shop/a')
    ender.consider('shop/b')
    await settle()
    assert.deepEqual(client.requests, [])
  })

  it('tries again after a failure, and not for a pod that is gone', async () => {
    const { client, clock, pods, ender } = setup()
    client.respond(() => {
      throw new ApiError('busy', { status: 500, reason: 'InternalError' })
    })
    pods.set('shop/a', { isLeftAlone: true })
    ender.consider('shop/a')
    await clock.advance(1_000)
    const tries = client.requests.length
    assert.ok(tries >= 2)
    client.respond(() => {
      throw new ApiError('gone', { status: 404, reason: 'NotFound' })
    })
    await clock.advance(100_000)
    assert.equal(client.requests.length, tries + 1)
  })
})
