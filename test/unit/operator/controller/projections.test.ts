import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Ambassador } from '../../../../operator/api/ambassador.ts'
import { digestOf, projectConfigMap, stateOf } from '../../../../operator/controller/config-maps.ts'
import { projectInjected, projectUninjected } from '../../../../operator/controller/pods.ts'
import { projectWorkload, selectorText } from '../../../../operator/controller/workloads.ts'
import type { KubeObject, ObjectMeta } from '../../../../operator/kube/objects.ts'
import { configMapOf } from '../../../../operator/render/objects.ts'
import { render } from '../../../../operator/render/render.ts'

const meta: ObjectMeta = {
  name: 'p',
  namespace: 'shop',
  uid: 'u',
  resourceVersion: '1',
  creationTimestamp: '2026-01-01T00:00:00Z',
}

function annotated(inject: string, more: Partial<ObjectMeta> = {}): KubeObject {
  return { metadata: { ...meta, annotations: { 'ambassador.dev/inject': inject }, ...more } }
}

function injectedPod(list: 'containers' | 'initContainers', state: object, more: Partial<ObjectMeta> = {}): KubeObject {
  const statuses = list === 'containers' ? 'containerStatuses' : 'initContainerStatuses'
  return {
    ...annotated('payments,orders', more),
    spec: {
      containers: [{ name: 'app', image: 'app' }],
      [list]: [
        {
          name: 'ambassador',
          image: 'proxy:1',
          env: [
            { name: 'AMBASSADOR_NAMES', value: 'payments' },
            { name: 'AMBASSADOR_TELEMETRY_PORT', value: '15990' },
          ],
        },
      ],
    },
    status: { phase: 'Running', podIP: '10.0.0.1', [statuses]: [{ name: 'ambassador', restartCount: 2, ...state }] },
  }
}

/** The pod of a Job whose sidecar is an ordinary container. */
function legacyJob(
  containers: readonly { name: string; state: object; restartPolicy?: string }[],
  restartPolicy = 'Never',
  annotations: Record<string, string> = {},
): KubeObject {
  const all = [{ name: 'ambassador', state: { running: {} } }, ...containers]
  return {
    metadata: { ...meta, annotations: { 'ambassador.dev/inject': 'payments', ...annotations } },
    spec: { restartPolicy, containers: all.map(({ state: _, ...container }) => container) },
    status: { phase: 'Running', containerStatuses: all.map(({ name, state }) => ({ name, state })) },
  } as unknown as KubeObject
}

describe('a sidecar that is an ordinary container', () => {
  const done = { terminated: { exitCode: 0 } }
  const failed = { terminated: { exitCode: 1 } }
  const cases: [title: string, pod: KubeObject, isLeftAlone: boolean][] = [
    ['whose application is done', legacyJob([{ name: 'app', state: done }]), true],
    ['whose application failed and is not started again', legacyJob([{ name: 'app', state: failed }]), true],
    ['whose application failed and is started again', legacyJob([{ name: 'app', state: failed }], 'OnFailure'), false],
    ['whose application is done, with OnFailure', legacyJob([{ name: 'app', state: done }], 'OnFailure'), true],
    ['whose application is always started again', legacyJob([{ name: 'app', state: done }], 'Always'), false],
    [
      'whose container has a restart policy of its own',
      legacyJob([{ name: 'app', state: failed, restartPolicy: 'Always' }]),
      false,
    ],
    [
      'of which another container runs',
      legacyJob([
        { name: 'app', state: done },
        { name: 'log', state: { running: {} } },
      ]),
      false,
    ],
    ['whose application has not started', legacyJob([{ name: 'app', state: { waiting: {} } }]), false],
    [
      'that was told already',
      legacyJob([{ name: 'app', state: done }], 'Never', {
        'ambassador.dev/application-ended': '2026-01-01T00:00:00Z',
      }),
      false,
    ],
  ]
  for (const [title, pod, isLeftAlone] of cases) {
    it(`${title} is ${isLeftAlone ? '' : 'not '}left alone`, () => {
      assert.equal(projectInjected(pod)?.isLeftAlone, isLeftAlone)
    })
  }

  it('that has ended itself is not left alone, and neither is a native one', () => {
    const pod = legacyJob([{ name: 'app', state: done }]) as unknown as {
      spec: { containers: unknown[]; initContainers?: unknown[] }
      status: { containerStatuses: { name: string; state: object }[] }
    }
    pod.status.containerStatuses[0]!.state = done
    assert.equal(projectInjected(pod as unknown as KubeObject)?.isLeftAlone, false)
    pod.spec = { containers: pod.spec.containers.slice(1), initContainers: pod.spec.containers.slice(0, 1) }
    assert.equal(projectInjected(pod as unknown as KubeObject)?.isLeftAlone, false)
  })
})

describe('projection of an injected pod', () => {
  for (const list of ['containers', 'initContainers'] as const) {
    it(`finds the sidecar among ${list}`, () => {
      const pod = projectInjected(injectedPod(list, { ready: true, started: true, state: { running: {} } }))
      assert.deepEqual(pod, {
        namespace: 'shop',
        name: 'p',
        uid: 'u',
        serves: ['payments'],
        lacks: ['orders'],
        ip: '10.0.0.1',
        telemetryPort: 15990,
        phase: 'Running',
        isRunning: true,
        isReady: true,
        restarts: 2,
        waiting: '',
        image: 'proxy:1',
        ownImage: '',
        touched: '',
        isLeftAlone: false,
        createdAt: Date.parse('2026-01-01T00:00:00Z'),
      })
    })
  }

  it('does not call a sidecar running before its startup probe has passed', () => {
    const pod = projectInjected(injectedPod('initContainers', { ready: false, started: false, state: { running: {} } }))
    assert.deepEqual([pod?.isRunning, pod?.isReady], [false, false])
  })

  it('says why a sidecar waits', () => {
    const pod = projectInjected(
      injectedPod('initContainers', { ready: false, state: { waiting: { reason: 'CrashLoopBackOff' } } }),
    )
    assert.deepEqual([pod?.isRunning, pod?.waiting], [false, 'CrashLoopBackOff'])
  })

  it('does not keep a pod that is being deleted', () => {
    assert.equal(projectInjected(injectedPod('containers', {}, { deletionTimestamp: 'now' })), undefined)
  })

  it('keeps less than a kilobyte of a pod of ten', () => {
    const large = { ...injectedPod('containers', {}), other: 'x'.repeat(10_000) }
    assert.ok(JSON.stringify(projectInjected(large)).length < 500)
  })
})

describe('projection of a pod without a sidecar', () => {
  it('keeps those that ask for an Ambassador', () => {
    assert.deepEqual(projectUninjected(annotated(' payments , orders,payments')), {
      namespace: 'shop',
      name: 'p',
      asks: ['payments', 'orders'],
    })
  })

  for (const [name, object] of [
    ['asks for nothing', { metadata: meta }],
    ['opts out', annotated('false')],
    ['has an empty annotation', annotated(' ')],
    ['is being deleted', annotated('payments', { deletionTimestamp: 'now' })],
    [
      'is the copy of a static pod',
      annotated('payments', {
        annotations: { 'ambassador.dev/inject': 'payments', 'kubernetes.io/config.mirror': 'x' },
      }),
    ],
  ] as const) {
    it(`forgets one that ${name}`, () => assert.equal(projectUninjected(object), undefined))
  }
})

describe('projection of a workload', () => {
  const workload = (annotations: Record<string, string>, spec: object = {}): KubeObject => ({
    metadata: meta,
    spec: { template: { metadata: { annotations } }, selector: { matchLabels: { app: 'x' } }, ...spec },
    status: { replicas: 2, updatedReplicas: 1 },
  })

  it('keeps those whose template names an Ambassador', () => {
    const projected = projectWorkload('Deployment', workload({ 'ambassador.dev/inject': 'payments' }))
    assert.deepEqual([projected?.asks, projected?.selector, projected?.waitsForDelete], [['payments'], 'app=x', false])
    assert.equal(projectWorkload('Deployment', workload({})), undefined)
    assert.equal(projectWorkload('Deployment', { metadata: meta }), undefined)
  })

  it('sees that a workload updates on delete', () => {
    const onDelete = workload({ 'ambassador.dev/inject': 'payments' }, { updateStrategy: { type: 'OnDelete' } })
    assert.equal(projectWorkload('DaemonSet', onDelete)?.waitsForDelete, true)
    const bare = workload({ 'ambassador.dev/inject': 'payments' })
    assert.equal(projectWorkload('ReplicaSet', bare)?.waitsForDelete, true, 'a ReplicaSet keeps the pods that it has')
  })

  it('writes every kind of selector in the words of a query', () => {
    assert.equal(
      selectorText({
        matchLabels: { app: 'x' },
        matchExpressions: [
          { key: 'tier', operator: 'In', values: ['a', 'b'] },
          { key: 'env', operator: 'NotIn', values: ['dev'] },
          { key: 'new', operator: 'Exists' },
          { key: 'old', operator: 'DoesNotExist' },
        ],
      }),
      'app=x,tier in (a,b),env notin (dev),new,!old',
    )
  })
})

describe('a ConfigMap', () => {
  const ambassador: Ambassador = {
    apiVersion: 'ambassador.dev/v1alpha1',
    kind: 'Ambassador',
    metadata: { name: 'payments', namespace: 'shop', uid: 'u1', generation: 4 },
    spec: {
      protocol: 'TCP',
      listen: { port: 5432 },
      upstreams: [{ name: 'db', endpoints: [{ host: 'db', port: 5432 }] }],
    },
  }
  const { config } = render({ ambassador })
  const wanted = configMapOf(ambassador, config!)
  const applied = [{ manager: 'ambassador-operator', operation: 'Apply' }]
  const stored = (metadata: object, rest: object = {}): KubeObject => ({
    ...wanted,
    metadata: { ...wanted.metadata, name: 'c', uid: 'c1', resourceVersion: '1', managedFields: applied, ...metadata },
    ...rest,
  })

  it('of ours is recognised, with what is published in it', () => {
    assert.deepEqual(stateOf(projectConfigMap(stored({})), 'u1'), {
      kind: 'ours',
      uid: 'c1',
      digest: digestOf(wanted),
      endpointsHash: null,
      sidecars: null,
      endpoints: {},
      hash: config?.hash,
      generation: 4,
    })
  })

  for (const [name, object] of [
    ['other data', stored({}, { data: { 'config.json': 'edited' } })],
    ['no data', stored({}, { data: undefined })],
    ['no label', stored({ labels: {} })],
    ['no owner', stored({ ownerReferences: [] })],
    [
      'the owner of an Ambassador that was made again',
      stored({ ownerReferences: [{ ...wanted.metadata.ownerReferences![0], uid: 'old' }] }),
    ],
  ] as const) {
    it(`of ours with ${name} is ours and not right`, () => {
      const state = stateOf(projectConfigMap(object), 'u1')
      assert.equal(state.kind, 'ours')
      assert.notEqual(state.kind === 'ours' && state.digest, digestOf(wanted))
    })
  }

  it('of ours stays right when somebody adds what we do not write', () => {
    const more = stored(
      { labels: { ...wanted.metadata.labels, team: 'x' }, annotations: { a: 'b' } },
      { data: { ...wanted.data, more: 'y' } },
    )
    assert.equal(projectConfigMap(more).digest, digestOf(wanted))
  })

  it('that nobody of us made is foreign, whatever is in it', () => {
    const foreign = stored({ ownerReferences: undefined, managedFields: [{ manager: 'kubectl', operation: 'Update' }] })
    assert.deepEqual(stateOf(projectConfigMap(foreign), 'u1'), { kind: 'foreign' })
    assert.deepEqual(stateOf(undefined, 'u1'), { kind: 'absent' })
  })
})
