import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { KubeClient, KubeRequest } from '../../../../operator/kube/client.ts'
import { ApiError } from '../../../../operator/kube/errors.ts'
import { isHolderGone } from '../../../../operator/kube/holder.ts'

function clientOf(pods: readonly string[], failure?: number): KubeClient {
  return {
    request: async <T>({ path }: KubeRequest) => {
      if (failure !== undefined) throw new ApiError('no', { status: failure, reason: 'No' })
      const name = path.slice('/api/v1/namespaces/sys/pods/'.length)
      if (!pods.includes(name)) throw new ApiError('none', { status: 404, reason: 'NotFound' })
      return { metadata: { name } } as T
    },
    open: () => Promise.reject(new Error('not a watch')),
    close() {},
  }
}

const ask = (client: KubeClient, identity: string) =>
  isHolderGone({ client, namespace: 'sys', ownPod: 'me' }, identity, new AbortController().signal)

describe('isHolderGone', () => {
  it('is true for a holder whose pod does not exist', async () => {
    assert.equal(await ask(clientOf(['me']), 'other-7d9f_ab12'), true)
  })

  it('is false while the pod exists, also one that is being deleted', async () => {
    assert.equal(await ask(clientOf(['me', 'other-7d9f']), 'other-7d9f_ab12'), false)
  })

  it('is false where replicas are no pods, and for identities that are not ours', async () => {
    assert.equal(await ask(clientOf([]), 'other-7d9f_ab12'), false)
    assert.equal(await ask(clientOf(['me']), 'somebody'), false)
  })

  it('passes on what keeps the question from being answered', async () => {
    await assert.rejects(ask(clientOf(['me'], 403), 'other-7d9f_ab12'), { status: 403 })
  })
})
