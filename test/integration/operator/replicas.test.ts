import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { createClient, type KubeClient } from '../../../operator/kube/client.ts'
import { keepReplicas } from '../../../operator/kube/replicas.ts'
import { connectTo } from '../../cluster/client.ts'
import { clusterForTests } from '../../cluster/cluster.ts'
import { Kubectl } from '../../e2e/lib/kubectl.ts'

const NAMESPACE = 'test-replicas'
const NAME = 'scaled'

/** As the chart makes it: without `replicas`. */
const DEPLOYMENT = {
  apiVersion: 'apps/v1',
  kind: 'Deployment',
  metadata: { name: NAME, namespace: NAMESPACE },
  spec: {
    selector: { matchLabels: { app: NAME } },
    template: {
      metadata: { labels: { app: NAME } },
      spec: { containers: [{ name: 'pause', image: 'localhost/pause:1', imagePullPolicy: 'IfNotPresent' }] },
    },
  },
}

describe('keepReplicas', () => {
  let kubectl: Kubectl
  let client: KubeClient
  const keep = (replicas: number): Promise<boolean> =>
    keepReplicas(client, { namespace: NAMESPACE, deployment: NAME, replicas })
  const replicas = async (): Promise<number> => (await kubectl.get('deployment', NAME)).spec.replicas

  before(async () => {
    const cluster = await clusterForTests()
    kubectl = new Kubectl(cluster.binaries.kubectl, cluster.kubeconfig, NAMESPACE)
    client = createClient(await connectTo(cluster.kubeconfig))
    await kubectl.freshNamespace(NAMESPACE)
    await kubectl.run(['apply', '--server-side', '--field-manager=helm', '-f', '-'], {
      input: JSON.stringify(DEPLOYMENT),
    })
  })
  after(async () => {
    client?.close()
    await kubectl?.run(['delete', 'namespace', NAMESPACE, '--ignore-not-found', '--wait=false'])
  })

  it('sets the number that nobody has set, and a new one later', async () => {
    assert.equal(await replicas(), 1)
    assert.equal(await keep(2), true)
    assert.equal(await replicas(), 2)
    assert.equal(await keep(3), true)
    assert.equal(await replicas(), 3)
  })

  it('lets a manifest without replicas be applied again without a conflict', async () => {
    const labelled = { ...DEPLOYMENT, metadata: { ...DEPLOYMENT.metadata, labels: { version: 'next' } } }
    await kubectl.run(['apply', '--server-side', '--field-manager=helm', '-f', '-'], {
      input: JSON.stringify(labelled),
    })
    assert.equal(await replicas(), 3)
  })

  it('leaves what a person has scaled', async () => {
    await kubectl.run(['scale', 'deployment', NAME, '--replicas=4'])
    assert.equal(await keep(2), false)
    assert.equal(await replicas(), 4)
  })

  it('throws when there is no such Deployment', async () => {
    const gone = keepReplicas(client, { namespace: NAMESPACE, deployment: 'gone', replicas: 2 })
    await assert.rejects(gone, { name: 'ApiError', status: 404 })
  })
})
