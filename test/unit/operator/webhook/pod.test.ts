import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { equal, type Json, type JsonObject } from '../../../../operator/webhook/json.ts'
import { applyPatch, diff } from '../../../../operator/webhook/patch.ts'
import { applyPlan } from '../../../../operator/webhook/pod.ts'
import { findInjection } from '../../../../operator/webhook/status.ts'
import { uninjectPod } from '../../../../operator/webhook/uninject.ts'
import {
  ambassador,
  asking,
  injected,
  nodes,
  planFor,
  refusalOf,
  sidecarOf,
  type World,
} from '../../../helpers/injection.ts'

const TWO: World = {
  ambassadors: [
    ambassador('payments', { secrets: ['token'], hostnames: ['pay.example.com'] }),
    ambassador('cache', { port: 6379, configMaps: ['ca'], hostnames: ['redis'] }),
  ],
}

const specOf = (object: JsonObject): JsonObject => object['spec'] as JsonObject
const metaOf = (object: JsonObject): JsonObject => object['metadata'] as JsonObject
const copy = (object: JsonObject): JsonObject => JSON.parse(JSON.stringify(object)) as JsonObject
/** A pod as somebody edited it. */
const edited = (object: JsonObject, edit: (pod: never) => void): JsonObject => {
  const changed = copy(object)
  edit(changed as never)
  return changed
}
type Editable = {
  metadata: { name: string; annotations: Record<string, string>; labels: Record<string, string> }
  spec: {
    initContainers: Record<string, unknown>[]
    containers: Record<string, unknown>[]
    volumes: Record<string, unknown>[]
    hostAliases: { ip: string; hostnames: string[] }[]
  }
}

describe('applying a plan', () => {
  it('gives the same again when it is applied again', () => {
    const once = injected(asking('payments,cache'), TWO)
    assert.deepEqual(diff(once, injected(once, TWO)), [])
  })

  it('does not touch the pod that it is given', () => {
    const object = asking('payments,cache')
    const before = copy(object)
    injected(object, TWO)
    assert.deepEqual(object, before)
  })

  it('patches an ordinary pod with additions alone', () => {
    const object = asking('payments', {
      initContainers: [{ name: 'migrate' }],
      volumes: [{ name: 'data', emptyDir: {} }],
    })
    const patch = diff(object, injected(object))
    assert.deepEqual(
      patch.map(({ op, path }) => `${op} ${path}`),
      [
        'add /metadata/annotations/ambassador.dev~1status',
        'add /metadata/labels',
        'add /spec/initContainers/0',
        'add /spec/volumes/1',
      ],
    )
  })

  it('says in the pod what was injected', () => {
    const object = injected(asking('payments,cache'), TWO)
    const annotations = metaOf(object)['annotations'] as Record<string, string>
    assert.deepEqual(JSON.parse(annotations['ambassador.dev/status'] ?? ''), {
      version: '0.1.0',
      image: 'registry.example.com/ambassador-proxy:1.2.3',
      mode: 'Native',
      ambassadors: [
        { name: 'payments', configHash: '0123456789abcdef' },
        { name: 'cache', configHash: '0123456789abcdef' },
      ],
      added: {
        volumes: [
          'ambassador-config-payments',
          'ambassador-config-cache',
          'ambassador-secret-token',
          'ambassador-configmap-ca',
        ],
        hostnames: ['pay.example.com', 'redis'],
        annotations: [],
      },
      hash: findInjection(object)?.status.hash,
      before: { labels: 'absent', initContainers: 'absent', volumes: 'absent', hostAliases: 'absent' },
    })
    assert.equal((metaOf(object)['labels'] as JsonObject)['ambassador.dev/injected'], 'true')
  })

  it('names the first container of the application for kubectl where the sidecar stands before it', () => {
    const legacy = { nodes: nodes({ kubeletVersion: 'v1.28.0' }) }
    const key = 'kubectl.kubernetes.io/default-container'
    const named = (annotations: Record<string, string>): Json | undefined =>
      (metaOf(injected(asking('payments', {}, annotations), legacy))['annotations'] as JsonObject)[key]
    assert.equal(named({}), 'app')
    assert.equal(named({ [key]: 'other' }), 'other')
  })

  it('joins the line of loopback that the pod has, since lines are keyed by address', () => {
    const object = asking('payments', { hostAliases: [{ ip: '127.0.0.1', hostnames: ['mine'] }] })
    assert.deepEqual(specOf(injected(object, TWO))['hostAliases'], [
      { ip: '127.0.0.1', hostnames: ['mine', 'pay.example.com'] },
    ])
    assert.deepEqual(uninjectPod(injected(object, TWO)), object)
  })

  it('bounds the drain by the grace period of the pod', () => {
    const drain = (spec: JsonObject, annotations = {}): unknown =>
      (sidecarOf(injected(asking('payments', spec, annotations)))['env'] as JsonObject[]).find(
        (each) => each['name'] === 'AMBASSADOR_DRAIN_SECONDS',
      )?.['value']
    assert.equal(drain({}), '25')
    assert.equal(drain({ terminationGracePeriodSeconds: 3600 }), '25')
    assert.equal(drain({ terminationGracePeriodSeconds: 10 }), '8')
    assert.equal(drain({ terminationGracePeriodSeconds: 0 }), '0')
    assert.equal(drain({}, { 'ambassador.dev/drain-seconds': '7' }), '7')
  })

  it('leaves user and group to the namespace where the installation says so', () => {
    const context = sidecarOf(injected(asking('payments'), { settings: { runAsUser: null } }))['securityContext']
    assert.deepEqual(context, {
      allowPrivilegeEscalation: false,
      capabilities: { drop: ['ALL'] },
      privileged: false,
      readOnlyRootFilesystem: true,
      runAsNonRoot: true,
      seccompProfile: { type: 'RuntimeDefault' },
    })
  })
})

describe('applying a plan to a pod that was injected', () => {
  const once = injected(asking('payments,cache'), TWO)

  it('keeps what the API server and other injectors added to the sidecar', () => {
    const defaulted = edited(once, (pod: Editable) => {
      const sidecar = pod.spec.initContainers[0] as { env: object[]; volumeMounts: object[]; tty?: boolean }
      sidecar.tty = false
      sidecar.env.push({ name: 'AWS_ROLE_ARN', value: 'x' })
      sidecar.volumeMounts.push({
        name: 'kube-api-access-x',
        mountPath: '/var/run/secrets/kubernetes.io/serviceaccount',
      })
      pod.spec.volumes.push({ name: 'kube-api-access-x', projected: {} })
    })
    assert.deepEqual(diff(defaulted, injected(defaulted, TWO)), [])
  })

  it('keeps its place when another injector went in front', () => {
    const moved = edited(once, (pod: Editable) => {
      pod.spec.initContainers.unshift({ name: 'istio-init' })
      pod.spec.volumes.unshift({ name: 'istio' })
    })
    assert.deepEqual(diff(moved, injected(moved, TWO)), [])
  })

  it('gives one sidecar to a pod that is created again under another name', () => {
    const renamed = edited(once, (pod: Editable) => {
      pod.metadata.name = 'checkout-copy'
    })
    const again = injected(renamed, TWO)
    assert.equal(sidecarOf(again)['name'], 'ambassador')
    assert.deepEqual(diff(renamed, again), [])
  })

  it('renders anew what an older version injected, in its place', () => {
    const older = injected(asking('payments,cache'), { ...TWO, settings: { image: 'ambassador-proxy:0.0.1' } })
    const patch = diff(older, injected(older, TWO))
    assert.deepEqual(
      patch.map(({ op, path }) => `${op} ${path}`),
      ['replace /metadata/annotations/ambassador.dev~1status', 'replace /spec/initContainers/0/image'],
    )
  })

  it('renders anew what was edited by hand', () => {
    const changed = edited(once, (pod: Editable) => {
      ;(pod.spec.initContainers[0] as { image: string }).image = 'mine'
    })
    assert.ok(equal(injected(changed, TWO), once))
  })

  it('takes volumes and names away with an Ambassador that is no longer asked for', () => {
    const fewer = edited(once, (pod: Editable) => {
      pod.metadata.annotations['ambassador.dev/inject'] = 'cache'
    })
    const wanted = injected(asking('cache'), TWO)
    assert.ok(equal(injected(fewer, TWO), wanted), JSON.stringify(diff(injected(fewer, TWO), wanted)))
  })

  it('takes the directory of a socket away with its Ambassador, also from the containers', () => {
    const world = {
      ambassadors: [ambassador('payments', { listenSocket: '/run/pay/a.sock' }), ambassador('cache', { port: 6379 })],
    }
    const both = edited(injected(asking('payments,cache'), world), (pod: Editable) => {
      pod.metadata.annotations['ambassador.dev/inject'] = 'cache'
    })
    assert.equal((specOf(both)['containers'] as JsonObject[])[0]?.['volumeMounts'] !== undefined, true)
    assert.ok(equal(injected(both, world), injected(asking('cache'), world)))
  })

  it('leaves a volume alone that has the name of a directory of sockets and is mounted elsewhere', () => {
    const world = { ambassadors: [ambassador('payments', { listenSocket: '/run/pay/a.sock' })] }
    const once = injected(asking('payments'), world)
    const name = (specOf(once)['volumes'] as JsonObject[]).at(-1)?.['name']
    const changed = edited(once, (pod: Editable) => {
      ;(pod.spec.containers[0] as { volumeMounts: object[] }).volumeMounts.push({ name, mountPath: '/mine' })
    })
    const bare = uninjectPod(changed)
    assert.deepEqual(
      (specOf(bare)['volumes'] as JsonObject[]).map((each) => each['name']),
      [name],
    )
    assert.deepEqual(
      (specOf(bare)['containers'] as JsonObject[])[0],
      (specOf(changed)['containers'] as JsonObject[])[0],
    )
    assert.equal(refusalOf(changed, world).reason, 'VolumeConflict')
  })

  it('changes the mode of the sidecar', () => {
    const legacy = edited(once, (pod: Editable) => {
      pod.metadata.annotations['ambassador.dev/native-sidecar'] = 'false'
    })
    const wanted = injected(asking('payments,cache', {}, { 'ambassador.dev/native-sidecar': 'false' }), TWO)
    assert.ok(equal(injected(legacy, TWO), wanted))
  })

  it('puts the label back that kubectl debug --copy-to drops', () => {
    const copied = edited(once, (pod: Editable) => {
      pod.metadata.labels = {}
    })
    assert.ok(equal(specOf(injected(copied, TWO)), specOf(once)))
    assert.deepEqual(metaOf(injected(copied, TWO))['labels'], { 'ambassador.dev/injected': 'true' })
  })
})

describe('a status that is forged or malformed', () => {
  const own: JsonObject[] = [
    { name: 'app', image: 'app:1', volumeMounts: [{ name: 'ambassador-data', mountPath: '/etc/ambassador/config/x' }] },
  ]
  const spec: JsonObject = {
    containers: own,
    volumes: [{ name: 'ambassador-data', emptyDir: {} }],
    hostAliases: [{ ip: '127.0.0.1', hostnames: ['mine'] }],
  }
  const status = (changes: JsonObject): string =>
    JSON.stringify({
      version: '0.1.0',
      image: 'x',
      mode: 'Native',
      ambassadors: [{ name: 'payments', configHash: 'x' }],
      added: { volumes: ['ambassador-data'], hostnames: ['mine'], annotations: ['other.dev/keep'] },
      before: {},
      hash: 'x',
      ...changes,
    })

  it('takes nothing out of a pod that has no sidecar', () => {
    const texts = [
      '',
      'null',
      '[]',
      '{',
      '"x"',
      '{"added":{}}',
      status({}),
      status({ mode: 'Other' }),
      status({ added: null }),
    ]
    for (const text of texts) {
      const object = asking('payments', spec, { 'ambassador.dev/status': text })
      assert.equal(uninjectPod(object), object, text)
      const after = specOf(injected(object))
      assert.deepEqual(after['containers'], own)
      assert.deepEqual((after['volumes'] as Json[])[0], { name: 'ambassador-data', emptyDir: {} })
      assert.deepEqual(after['hostAliases'], spec['hostAliases'])
    }
  })

  it('does not make a container of the user ours', () => {
    const object = asking(
      'payments',
      {
        ...spec,
        containers: [...own, { name: 'ambassador', image: 'mine', env: [{ name: 'AMBASSADOR_NAMES', value: 'x' }] }],
      },
      { 'ambassador.dev/status': status({}) },
    )
    assert.equal(uninjectPod(object), object)
    const planned = planFor(object)
    assert.equal(planned.kind === 'denial' && planned.reason, 'NameConflict')
  })

  it('does not take out volumes that others mount, names that are not on loopback, or annotations of others', () => {
    const object = edited(injected(asking('payments')), (pod: Editable) => {
      const { annotations } = pod.metadata
      const parsed = JSON.parse(annotations['ambassador.dev/status'] ?? '') as { added: Record<string, string[]> }
      parsed.added = {
        volumes: ['ambassador-config-payments', 'app-data', 'ambassador-shared'],
        hostnames: ['elsewhere'],
        annotations: ['other.dev/keep'],
      }
      annotations['ambassador.dev/status'] = JSON.stringify(parsed)
      annotations['other.dev/keep'] = 'yes'
      pod.spec.volumes.push({ name: 'app-data', emptyDir: {} }, { name: 'ambassador-shared', emptyDir: {} })
      const mounts = (pod.spec.initContainers[0] as { volumeMounts: object[] }).volumeMounts
      mounts.push({ name: 'app-data', mountPath: '/etc/ambassador/config/a' })
      mounts.push({ name: 'ambassador-shared', mountPath: '/etc/ambassador/config/b' })
      pod.spec.containers[0] = { name: 'app', volumeMounts: [{ name: 'ambassador-shared', mountPath: '/x' }] }
      pod.spec.hostAliases = [{ ip: '10.0.0.1', hostnames: ['elsewhere'] }]
    })
    const bare = uninjectPod(object)
    assert.deepEqual(specOf(bare)['volumes'], [
      { name: 'app-data', emptyDir: {} },
      { name: 'ambassador-shared', emptyDir: {} },
    ])
    assert.deepEqual(specOf(bare)['hostAliases'], [{ ip: '10.0.0.1', hostnames: ['elsewhere'] }])
    assert.deepEqual(metaOf(bare)['annotations'], { 'ambassador.dev/inject': 'payments', 'other.dev/keep': 'yes' })
    assert.equal(specOf(bare)['initContainers'], undefined)
  })
})

describe('any pod', () => {
  const name = fc.stringMatching(/^[a-z]([a-z0-9-]{0,8}[a-z0-9])?$/).filter((each) => each !== 'ambassador')
  const text = fc.oneof(fc.string({ maxLength: 5 }), fc.constantFrom('__proto__', 'constructor', 'a/b', 'a~1b'))
  const anything = fc.jsonValue({ maxDepth: 2 }) as fc.Arbitrary<Json>
  const collection = <T extends Json>(items: fc.Arbitrary<T>) =>
    fc.constantFrom<Json[]>([], [null] as Json[]).chain(() => items)
  const maybe = (key: string, values: fc.Arbitrary<Json>) =>
    fc.oneof(
      fc.constant<[string, Json][]>([]),
      fc.constant<[string, Json][]>([[key, null]]),
      values.map((value): [string, Json][] => [[key, value]]),
    )
  const objectOf = (...parts: fc.Arbitrary<[string, Json][]>[]) =>
    fc.tuple(...parts).map((entries) => Object.fromEntries(entries.flat()) as JsonObject)
  const strings = fc
    .array(fc.tuple(text, fc.string({ maxLength: 3 })), { maxLength: 3 })
    .map((e) => Object.fromEntries(e))
  const container = objectOf(
    name.map((value): [string, Json][] => [['name', value]]),
    maybe('image', fc.string({ maxLength: 5 })),
    maybe('env', fc.array(objectOf(name.map((n): [string, Json][] => [['name', n]])), { maxLength: 2 })),
    maybe('volumeMounts', fc.array(objectOf(name.map((n): [string, Json][] => [['name', n]])), { maxLength: 2 })),
    maybe('unknownField', anything),
  )
  /** Of both kinds; the API server takes no name twice. */
  const containers = fc
    .tuple(
      fc.uniqueArray(container, { minLength: 1, maxLength: 5, selector: (each) => each['name'] }),
      fc.nat(2),
      fc.constantFrom('absent', 'null', 'list'),
    )
    .map(([all, most, how]): [string, Json][] => {
      const inits = how === 'list' ? Math.min(most, all.length - 1) : 0
      const list: [string, Json][] = [['containers', all.slice(inits)]]
      if (how !== 'absent') list.push(['initContainers', how === 'null' ? null : all.slice(0, inits)])
      return list
    })
  const alias = objectOf(
    fc.constantFrom('127.0.0.1', '10.0.0.1', '::1').map((ip): [string, Json][] => [['ip', ip]]),
    maybe('hostnames', fc.array(name, { maxLength: 2 })),
  )
  const volume = objectOf(
    name.map((value): [string, Json][] => [['name', value]]),
    maybe('emptyDir', fc.constant({})),
  )
  const uniqueAliases = fc.uniqueArray(alias, { maxLength: 3, selector: (each) => each['ip'] })
  const anyPod = fc
    .tuple(
      objectOf(
        strings.map((annotations): [string, Json][] => [
          ['annotations', { ...annotations, 'ambassador.dev/inject': 'payments,cache' }],
        ]),
        maybe('labels', strings),
        maybe('generateName', name),
        maybe('unknownField', anything),
      ),
      objectOf(
        containers,
        maybe('volumes', collection(fc.array(volume, { maxLength: 2 }))),
        maybe('hostAliases', uniqueAliases),
        maybe('unknownField', anything),
        maybe('nodeName', fc.constantFrom('old', 'new')),
      ),
    )
    .map(([metadata, spec]): JsonObject => ({ apiVersion: 'v1', kind: 'Pod', metadata, spec }))

  const world: World = {
    ambassadors: TWO.ambassadors!.map((each) => ({ ...each, listenSocket: `/run/${each.name}/a.sock` })),
    nodes: nodes({ name: 'old', kubeletVersion: 'v1.28.0' }, { name: 'new', kubeletVersion: 'v1.34.0' }),
  }

  it('is the same injected twice as once, is itself again when uninjected, and its patch gives the injected pod', () => {
    let count = 0
    fc.assert(
      fc.property(anyPod, (object) => {
        const planned = planFor(object, world)
        if (planned.kind !== 'plan') {
          assert.ok(planned.kind === 'denial' && planned.reason === 'HostnameConflict', JSON.stringify(planned))
          return
        }
        count++
        const once = applyPlan(object, planned)
        const twice = injected(once, world)
        assert.ok(equal(twice, once), 'twice')
        assert.deepEqual(diff(once, twice), [])
        const bare = uninjectPod(once)
        assert.ok(equal(bare, object), `uninject: ${JSON.stringify(diff(bare, object))}`)
        assert.ok(equal(applyPatch(object, diff(object, once)), once), 'patch')
      }),
      { numRuns: 3000 },
    )
    assert.ok(count > 1000, `only ${count} pods were injected`)
  })

  it('keeps what it does not know byte for byte', () => {
    fc.assert(
      fc.property(anyPod, (object) => {
        const planned = planFor(object, world)
        if (planned.kind !== 'plan') return
        for (const operation of diff(object, applyPlan(object, planned))) {
          assert.doesNotMatch(operation.path, /unknownField|image|env/)
        }
      }),
      { numRuns: 500 },
    )
  })
})
