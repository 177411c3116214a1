import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Ambassador } from '../../../../operator/api/ambassador.ts'
import { projectConfigMap, type StoredConfigMap } from '../../../../operator/controller/config-maps.ts'
import type { Published } from '../../../../operator/controller/facts.ts'
import { Fleets, SHRINK_MS } from '../../../../operator/controller/fleets.ts'
import type { InjectedPod } from '../../../../operator/controller/pods.ts'
import { type ReconcileDeps, reconcile } from '../../../../operator/controller/reconcile.ts'
import { RefChecker } from '../../../../operator/controller/secret-checks.ts'
import { Pace, StatusWriter } from '../../../../operator/controller/write.ts'
import type { KubeRequest } from '../../../../operator/kube/client.ts'
import { ApiError } from '../../../../operator/kube/errors.ts'
import { fenced } from '../../../../operator/kube/fence.ts'
import type { KubeObject } from '../../../../operator/kube/objects.ts'
import { NO_SERVICES, type ResolvedService } from '../../../../operator/render/services.ts'
import { FakeClock } from '../../../helpers/fake-clock.ts'
import { fakeKubeClient } from '../../../helpers/kube-client.ts'

const KEY = 'shop/payments'

function ambassador(over: Partial<Ambassador> = {}): Ambassador {
  return {
    apiVersion: 'ambassador.dev/v1alpha1',
    kind: 'Ambassador',
    metadata: { name: 'payments', namespace: 'shop', uid: 'u1', generation: 1 },
    spec: {
      protocol: 'TCP',
      listen: { port: 5432 },
      upstreams: [{ name: 'db', endpoints: [{ host: 'db', port: 5432 }] }],
    },
    ...over,
  }
}

function injectedPod(name: string): InjectedPod {
  return {
    namespace: 'shop',
    name,
    uid: name,
    serves: ['payments'],
    lacks: [],
    ip: '10.0.0.1',
    telemetryPort: 14990,
    phase: 'Running',
    isRunning: true,
    isReady: true,
    restarts: 0,
    waiting: '',
    image: 'proxy',
    ownImage: '',
    touched: '',
    isLeftAlone: false,
    createdAt: 0,
  }
}

/** One Ambassador and the little API server that it needs. */
function setup() {
  const clock = new FakeClock()
  const client = fakeKubeClient()
  const state: {
    ambassador: Ambassador | undefined
    configMap: KubeObject | undefined
    cached: StoredConfigMap | undefined
    service: ResolvedService
    /** Injected pods with a sidecar that runs. */
    running: number
  } = {
    running: 0,
    service: NO_SERVICES({ namespace: 'shop', name: 'orders', port: 80 }),
    ambassador: ambassador(),
    configMap: undefined,
    cached: undefined,
  }
  let refuse: ApiError | undefined
  client.respond((request: KubeRequest) => {
    if (request.path.endsWith('/configmaps/ambassador-payments')) {
      if (request.method === undefined) {
        if (state.configMap === undefined) throw new ApiError('no', { status: 404, reason: 'NotFound' })
        return state.configMap
      }
      if (refuse !== undefined) throw refuse
      const object = request.body as KubeObject
      state.configMap = {
        ...object,
        metadata: {
          ...object.metadata,
          uid: 'c1',
          resourceVersion: '1',
          managedFields: [{ manager: 'ambassador-operator', operation: 'Apply' }],
        },
      }
      return state.configMap
    }
    const { status } = request.body as Pick<Ambassador, 'status'>
    state.ambassador = { ...state.ambassador!, ...(status === undefined ? {} : { status }) }
    return request.body
  })
  const events: string[] = []
  const published: (Published | null)[] = []
  const deps: ReconcileDeps = {
    client,
    clock,
    ambassadors: { get: () => state.ambassador },
    configMaps: { get: () => state.cached },
    injected: { byIndex: () => Array.from({ length: state.running }, (_, index) => injectedPod(`pod-${index}`)) },
    uninjected: { byIndex: () => [] },
    reports: { of: () => ({ kind: 'starting' }) },
    workloads: { rolloutsOf: () => ({ rollouts: [], unknown: false }) },
    services: { want: () => {}, known: async () => {}, resolve: () => state.service },
    pace: new Pace(clock),
    fleets: new Fleets(clock),
    refChecker: new RefChecker({ client, clock, namespaces: new Set() }),
    proxyImage: null,
    statusWriter: new StatusWriter({ client, clock }),
    events: { record: (_regarding, { reason }) => events.push(reason) },
    onPublished: (_key, each) => published.push(each),
    onConfigMap: (object) => {
      state.cached = projectConfigMap(object)
    },
  }
  const writes = () =>
    client.requests
      .filter(({ method }) => method === 'PATCH')
      .map(({ path, query }) => `${path.split('/').slice(-2).join('/')} force=${query?.['force']}`)
  return {
    clock,
    client,
    state,
    deps,
    events,
    published,
    writes,
    refuse: (error: ApiError | undefined) => {
      refuse = error
    },
    run: () => reconcile(KEY, deps),
    condition: (type: string) => {
      const found = state.ambassador?.status?.conditions?.find((each) => each.type === type)
      return found && `${found.status} ${found.reason}`
    },
  }
}

describe('reconcile of an upstream that is a Service', () => {
  const spec = {
    protocol: 'TCP',
    listen: { port: 5432 },
    upstreams: [{ name: 'db', service: { name: 'orders', port: 80 } }],
  } as Ambassador['spec']
  const at = (...ips: string[]): ResolvedService => {
    return { kind: 'endpoints', endpoints: ips.map((ip) => ({ ip, port: 80 })), problem: null }
  }

  it('publishes new endpoints under the same hash, at most once a second, and calls that no restoration', async () => {
    const t = setup()
    t.state.ambassador = ambassador({ spec })
    t.state.service = at('10.0.0.1')
    await t.run()
    const [first] = t.published.slice(-1)
    await t.clock.advance(300)
    t.state.service = at('10.0.0.1', '10.0.0.2')
    const waitMs = await t.run()
    assert.equal(waitMs, 700)
    await t.clock.advance(700)
    t.state.service = at('10.0.0.2')
    await t.run()
    const [second] = t.published.slice(-1)
    assert.equal(first?.hash, second?.hash)
    assert.notEqual(first?.endpointsHash, second?.endpointsHash)
    assert.deepEqual(t.state.cached?.endpoints, { 'shop/orders:80': [{ ip: '10.0.0.2', port: 80 }] })
    assert.ok(!t.events.includes('Restored'), t.events.join())
  })

  it('says what is missing in ResolvedRefs, and publishes all the same, so that pods can start first', async () => {
    const t = setup()
    t.state.ambassador = ambassador({ spec })
    t.state.service = { kind: 'endpoints', endpoints: [], problem: { kind: 'Missing', message: 'it does not exist' } }
    await t.run()
    assert.equal(t.condition('ResolvedRefs'), 'False ReferenceMissing')
    assert.equal(t.condition('Programmed'), 'True NoPods')
  })
})

describe('reconcile of a limit of the whole fleet', () => {
  const spec = {
    protocol: 'TCP',
    listen: { port: 5432 },
    upstreams: [{ name: 'db', endpoints: [{ host: 'db', port: 5432 }] }],
    rateLimit: { requests: 100, per: '1s', perFleet: true },
  } as Ambassador['spec']

  it('publishes the number of sidecars under the same hash: more at once, fewer when it lasts', async () => {
    const t = setup()
    t.state.ambassador = ambassador({ spec })
    await t.run()
    assert.equal(t.state.cached?.sidecars, 1, 'nobody yet, and the first one has it all')
    const hash = t.state.cached?.hash
    const first = t.published.at(-1)
    await t.clock.advance(5000)
    t.state.running = 4
    await t.run()
    assert.equal(t.state.cached?.sidecars, 4)
    assert.equal(t.state.cached?.hash, hash, 'for the sidecars it is the same config')
    assert.notEqual(t.published.at(-1)?.endpointsHash, first?.endpointsHash, 'which they have to read again')
    await t.clock.advance(5000)
    t.state.running = 3
    await t.run()
    await t.clock.advance(1000)
    assert.equal(await t.run(), SHRINK_MS - 1000, 'the status is written, and the fleet is looked at again')
    assert.equal(t.state.cached?.sidecars, 4)
    // The next pod of a rollout.
    await t.clock.advance(SHRINK_MS - 1001)
    t.state.running = 4
    await t.run()
    t.state.running = 3
    await t.run()
    await t.clock.advance(SHRINK_MS - 1)
    await t.run()
    assert.equal(t.state.cached?.sidecars, 4, 'it has to last anew')
    await t.clock.advance(1)
    await t.run()
    assert.equal(t.state.cached?.sidecars, 3)
    assert.ok(!t.events.includes('Restored'), t.events.join())
  })

  it('writes at most once a second while a fleet grows', async () => {
    const t = setup()
    t.state.ambassador = ambassador({ spec })
    await t.run()
    await t.clock.advance(400)
    t.state.running = 2
    assert.equal(await t.run(), 600)
    t.state.running = 9
    await t.clock.advance(600)
    await t.run()
    assert.equal(t.state.cached?.sidecars, 9)
    assert.equal(t.writes().filter((each) => each.startsWith('configmaps')).length, 2)
  })

  it('says nothing of the fleet where no limit is shared, however many there are', async () => {
    const t = setup()
    await t.run()
    t.state.running = 9
    await t.clock.advance(5000)
    await t.run()
    assert.deepEqual([t.state.cached?.sidecars, t.state.cached?.endpointsHash], [null, null])
    assert.equal(t.writes().filter((each) => each.startsWith('configmaps')).length, 1)
  })
})

describe('reconcile', () => {
  it('writes the ConfigMap before the status that tells of it, and then nothing', async () => {
    const t = setup()
    await t.run()
    assert.deepEqual(t.writes(), ['configmaps/ambassador-payments force=false', 'payments/status force=true'])
    assert.deepEqual(t.events, ['Published'])
    assert.equal(t.published[0]?.generation, 1)
    await t.clock.advance(5000)
    await t.run()
    assert.equal(t.writes().length, 2)
  })

  it('writes to an object only under the uid that it decided about', async () => {
    const t = setup()
    await t.run()
    const body = t.client.requests.at(-1)?.body as KubeObject
    assert.equal(body.metadata.uid, 'u1')
    t.state.cached = { ...t.state.cached!, digest: 'edited' }
    await t.clock.advance(5000)
    await t.run()
    const restored = t.client.requests.at(-1)
    assert.equal((restored!.body as KubeObject).metadata.uid, 'c1')
    assert.equal(restored?.query?.['force'], true)
    assert.deepEqual(t.events, ['Published', 'Restored'])
  })

  it('asks the API server whether one without our label is there, and leaves a foreign one alone', async () => {
    const t = setup()
    t.state.configMap = {
      metadata: { name: 'ambassador-payments', namespace: 'shop', uid: 'x', resourceVersion: '1' },
      data: { mine: 'yes' },
    }
    assert.equal(await t.run(), 10_000)
    assert.deepEqual(t.writes(), ['payments/status force=true'])
    assert.equal(t.condition('Accepted'), 'False NameTaken')
    assert.deepEqual(t.published, [null])
    t.state.configMap = undefined
    await t.clock.advance(10_000)
    await t.run()
    assert.equal(t.condition('Accepted'), 'True Accepted')
  })

  it('writes the status of one Ambassador at most once a second', async () => {
    const t = setup()
    await t.run()
    t.state.ambassador = { ...t.state.ambassador!, metadata: { ...t.state.ambassador!.metadata, generation: 2 } }
    assert.equal(await t.run(), 1000)
    assert.deepEqual(t.writes(), [
      'configmaps/ambassador-payments force=false',
      'payments/status force=true',
      'configmaps/ambassador-payments force=true',
    ])
    await t.clock.advance(1000)
    await t.run()
    assert.equal(t.state.ambassador.status?.observedGeneration, 2)
  })

  it('says in status what the API server answers to a ConfigMap that it does not take, and tries on', async () => {
    const t = setup()
    t.refuse(new ApiError('exceeded quota', { status: 403, reason: 'Forbidden' }))
    assert.equal(await t.run(), 30_000)
    assert.equal(t.condition('Programmed'), 'False PublishFailed')
    assert.equal(t.state.ambassador?.status?.config, undefined)
    t.refuse(undefined)
    await t.clock.advance(30_000)
    await t.run()
    assert.equal(t.condition('Programmed'), 'True NoPods')
  })

  it('leaves what may pass to the queue: a conflict, an API server that is away', async () => {
    for (const error of [
      new ApiError('conflict', { status: 409, reason: 'Conflict' }),
      new ApiError('down', { status: 0, reason: 'Unreachable' }),
    ]) {
      const t = setup()
      t.refuse(error)
      await assert.rejects(t.run(), error)
      assert.equal(t.condition('Programmed'), undefined)
    }
  })

  it('does nothing in a namespace that is being deleted', async () => {
    const t = setup()
    const details = { causes: [{ reason: 'NamespaceTerminating' }] }
    t.refuse(new ApiError('terminating', { status: 403, reason: 'Forbidden', details }))
    assert.equal(await t.run(), undefined)
    assert.equal(t.state.ambassador?.status, undefined)
    assert.deepEqual(t.events, [])
  })

  it('does nothing for an Ambassador that is gone or going', async () => {
    const t = setup()
    t.state.ambassador = undefined
    await t.run()
    t.state.ambassador = ambassador({
      metadata: { name: 'payments', namespace: 'shop', uid: 'u1', deletionTimestamp: 'now' },
    })
    await t.run()
    assert.deepEqual(t.writes(), [])
    assert.deepEqual(t.published, [null, null])
  })
})

describe('fence', () => {
  it('lets reads pass and stops writes the moment that leading is over', async () => {
    const client = fakeKubeClient()
    let leads = true
    const term = new AbortController()
    const writer = fenced(client, { mayWrite: () => leads, signal: term.signal })
    await writer.request({ method: 'PATCH', path: '/x', body: {} })
    leads = false
    await assert.rejects(writer.request({ method: 'PATCH', path: '/x', body: {} }), { reason: 'NotLeading' })
    await writer.request({ path: '/x' })
    assert.deepEqual(
      client.requests.map(({ method }) => method),
      ['PATCH', undefined],
    )
    assert.equal(client.requests[0]?.signal?.aborted, false)
    term.abort()
    assert.equal(client.requests[0]?.signal?.aborted, true)
  })
})

describe('checks of Secrets', () => {
  const references = { secrets: [{ name: 's', keys: ['a', 'b'] }], configMaps: [{ name: 'c', keys: ['x'] }] }

  it('looks only where it may', async () => {
    const client = fakeKubeClient()
    const checker = new RefChecker({ client, clock: new FakeClock(), namespaces: new Set(['shop']) })
    assert.equal(await checker.check('elsewhere', references), null)
    assert.equal(client.requests.length, 0)
  })

  it('tells what is found, which key is missing and which object, and believes an answer for ten seconds', async () => {
    const client = fakeKubeClient()
    const clock = new FakeClock()
    client.respond(({ path }) => {
      if (path.includes('configmaps')) throw new ApiError('no', { status: 404, reason: 'NotFound' })
      return { data: { a: 'c2VjcmV0' } }
    })
    const checker = new RefChecker({ client, clock, namespaces: new Set(['shop']) })
    const expected = [
      { kind: 'Secret', name: 's', key: 'a', state: 'Found' },
      { kind: 'Secret', name: 's', key: 'b', state: 'KeyMissing' },
      { kind: 'ConfigMap', name: 'c', key: 'x', state: 'ObjectMissing' },
    ]
    assert.deepEqual(await checker.check('shop', references), expected)
    await clock.advance(9000)
    await checker.check('shop', references)
    assert.equal(client.requests.length, 2)
    await clock.advance(1000)
    await checker.check('shop', references)
    assert.equal(client.requests.length, 4)
  })

  it('is as if it were not asked when the API server does not let it', async () => {
    const client = fakeKubeClient()
    client.respond(() => {
      throw new ApiError('no', { status: 403, reason: 'Forbidden' })
    })
    const checker = new RefChecker({ client, clock: new FakeClock(), namespaces: new Set(['shop']) })
    assert.equal(await checker.check('shop', references), null)
  })
})
