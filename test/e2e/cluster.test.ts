/** That the cluster itself does what the other end-to-end tests take for granted. */
import assert from 'node:assert/strict'
import { after, before, describe, it } from 'node:test'
import { PRODUCT_VERSION } from '../../common/names.ts'
import { type Cluster, clusterForTests } from '../cluster/cluster.ts'
import { Kubectl } from './lib/kubectl.ts'
import { APP_IMAGE, loadImages, NODE_IMAGE } from './lib/world.ts'

const NAMESPACE = 'e2e-cluster'

/** What the Pod Security Standard `restricted` asks for, and a root that cannot be written. */
const RESTRICTED = {
  allowPrivilegeEscalation: false,
  readOnlyRootFilesystem: true,
  runAsNonRoot: true,
  capabilities: { drop: ['ALL'] },
  seccompProfile: { type: 'RuntimeDefault' },
}

const SERVER = `require('node:http').createServer((_, answer) => answer.end('hello')).listen(8080)`

const POD = {
  apiVersion: 'v1',
  kind: 'Pod',
  metadata: { name: 'smoke', labels: { app: 'smoke' } },
  spec: {
    terminationGracePeriodSeconds: 1,
    initContainers: [
      {
        name: 'sidecar',
        image: NODE_IMAGE,
        restartPolicy: 'Always',
        command: ['node', '-e', SERVER],
        startupProbe: { httpGet: { port: 8080 }, periodSeconds: 1, failureThreshold: 60 },
        securityContext: RESTRICTED,
      },
    ],
    containers: [{ name: 'app', image: APP_IMAGE, securityContext: RESTRICTED }],
  },
}

const SERVICE = {
  apiVersion: 'v1',
  kind: 'Service',
  metadata: { name: 'greeter' },
  spec: { selector: { app: 'smoke' }, ports: [{ port: 80, targetPort: 8080 }] },
}

describe('the cluster', () => {
  let cluster: Cluster
  let kubectl: Kubectl
  before(async () => {
    cluster = await clusterForTests()
    await loadImages(cluster)
    kubectl = new Kubectl(cluster.binaries.kubectl, cluster.kubeconfig, NAMESPACE)
    await kubectl.freshNamespace(NAMESPACE, { 'pod-security.kubernetes.io/enforce': 'restricted' })
    await kubectl.apply([POD, SERVICE])
  })
  after(() => kubectl.run(['delete', 'namespace', NAMESPACE, '--wait=false']))

  it('makes a pod with a native sidecar ready', async () => {
    await kubectl.wait('pod/smoke', 'Ready')
    const pod = await kubectl.get('pod', 'smoke')
    assert.equal(pod.status.initContainerStatuses[0].ready, true)
  })

  it('runs commands in containers and shows their logs', async () => {
    const { stdout } = await kubectl.exec('smoke', ['id', '-u'])
    assert.equal(stdout, '65532\n')
    assert.equal((await kubectl.try(['logs', 'smoke', '-c', 'sidecar'])).code, 0)
  })

  it('has the command-line program in the image of the sidecar', async () => {
    const { stdout, stderr } = await kubectl.exec('smoke', ['ambassador', '--version'], 'sidecar')
    assert.equal(stdout, `${PRODUCT_VERSION}\n`, stderr)
  })

  it('answers under localhost of either family, and under the name of a Service', async () => {
    for (const host of [
      'localhost:8080',
      '127.0.0.1:8080',
      '[::1]:8080',
      'greeter',
      `greeter.${NAMESPACE}.svc.cluster.local`,
    ]) {
      const { stdout, stderr } = await kubectl.exec('smoke', ['wget', '-qO-', '-T', '10', `http://${host}/`])
      assert.equal(stdout, 'hello', `${host}: ${stderr}`)
    }
  })

  it('says of a name that does not exist that it does not, without a time-out', async () => {
    const { code, stderr } = await kubectl.exec('smoke', ['wget', '-qO-', '-T', '10', 'http://no-such-service/'])
    assert.equal(code, 1)
    assert.match(stderr, /bad address/)
  })
})
