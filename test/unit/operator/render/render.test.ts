import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { parseProxyConfig } from '../../../../common/proxy-config.ts'
import type { Ambassador } from '../../../../operator/api/ambassador.ts'
import { configMapOf } from '../../../../operator/render/objects.ts'
import { references } from '../../../../operator/render/references.ts'
import { acceptance, render } from '../../../../operator/render/render.ts'
import { validCases } from '../../../helpers/crd-cases.ts'

const SPEC = {
  protocol: 'HTTP',
  listen: { port: 8081 },
  upstreams: [{ name: 'live', endpoints: [{ host: 'api.example.com', port: 80 }] }],
}
const object = (spec: unknown, metadata: object = {}) =>
  ({
    apiVersion: 'ambassador.dev/v1alpha1',
    kind: 'Ambassador',
    metadata: { name: 'payments', ...metadata },
    spec,
  }) as Ambassador

describe('render', () => {
  it('never throws, whatever is stored', () => {
    const anything = fc.anything({ withNullPrototype: true, withBigInt: true, withDate: true })
    const broken = fc
      .tuple(fc.constantFrom(...Object.keys(SPEC), 'retry', 'timeouts', 'rateLimit', 'accessLog'), anything)
      .map(([key, value]) => ({ ...SPEC, [key]: value }))
    fc.assert(
      fc.property(fc.oneof(anything, broken), (spec) => {
        const { config, problems } = render({ ambassador: object(spec) })
        assert.equal(
          config === null,
          problems.some(({ severity }) => severity === 'Error'),
        )
        references(spec as Ambassador['spec'])
      }),
      { numRuns: 3000 },
    )
  })

  it('never throws when one field of a valid spec is replaced by anything', () => {
    const specs = validCases().map((each) => (each.object as Ambassador).spec)
    fc.assert(
      fc.property(fc.constantFrom(...specs), fc.nat(), fc.anything(), (spec, where, value) => {
        const copy = structuredClone(spec)
        replace(copy, where, value)
        const { config, problems } = render({ ambassador: object(copy) })
        references(copy)
        if (config) parseProxyConfig(JSON.parse(JSON.stringify(config)))
        else assert.ok(problems.length > 0)
      }),
      { numRuns: 3000 },
    )
  })

  it('gives the same hash for another generation, and another one for other content', () => {
    const hashOf = (spec: unknown, metadata?: object) => render({ ambassador: object(spec, metadata) }).config!.hash
    assert.equal(hashOf(SPEC, { generation: 1 }), hashOf(SPEC, { generation: 2 }))
    assert.notEqual(hashOf(SPEC), hashOf({ ...SPEC, listen: { port: 8082 } }))
  })

  it('gives the same config whether the API server has set the defaults or nobody has', () => {
    const stored = {
      ...SPEC,
      upstreams: [
        {
          name: 'live',
          endpoints: [{ host: 'api.example.com', port: 80, weight: 1, priority: 0 }],
          limits: { maxConnections: 1024, maxPendingRequests: 1024 },
        },
      ],
      timeouts: { connect: '5s' },
      accessLog: { mode: 'Errors' },
    }
    assert.deepEqual(render({ ambassador: object(stored) }), render({ ambassador: object(SPEC) }))
  })

  it('changes nothing of what it is given', () => {
    const frozen = deepFreeze(object(structuredClone(SPEC)))
    assert.ok(render({ ambassador: frozen }).config)
  })
})

describe('acceptance', () => {
  it('is plain for a good spec', () => {
    assert.deepEqual(acceptance([]), { status: 'True', reason: 'Accepted', message: 'the spec is valid' })
  })

  it('tells warnings with the field', () => {
    const two = { ...SPEC, upstreams: [...SPEC.upstreams, { ...SPEC.upstreams[0], name: 'beta' }] }
    assert.deepEqual(acceptance(render({ ambassador: object(two) }).problems), {
      status: 'True',
      reason: 'AcceptedWithWarnings',
      message:
        "spec.upstreams[1]: upstream 'beta' is used by no route: all traffic goes to 'live', remove it or put it first",
    })
  })

  it('tells errors and not warnings when there are both', () => {
    const { status, reason, message } = acceptance([
      { severity: 'Warning', condition: 'Accepted', reason: 'AcceptedWithWarnings', field: 'spec.a', message: 'w' },
      { severity: 'Error', condition: 'Accepted', reason: 'Invalid', field: 'spec.b', message: 'e' },
      { severity: 'Error', condition: 'Accepted', reason: 'Invalid', field: '', message: 'f' },
    ])
    assert.deepEqual([status, reason, message], ['False', 'Invalid', 'spec.b: e; f'])
  })
})

describe('configMapOf', () => {
  const config = render({ ambassador: object(SPEC) }).config!

  it('is owned by the Ambassador, labelled, and holds the config as one line of JSON', () => {
    const made = configMapOf(object(SPEC, { namespace: 'shop', uid: 'u-1' }), config)
    assert.deepEqual(made.metadata, {
      name: 'ambassador-payments',
      namespace: 'shop',
      labels: { 'ambassador.dev/ambassador': 'payments', 'app.kubernetes.io/managed-by': 'ambassador-operator' },
      ownerReferences: [
        {
          apiVersion: 'ambassador.dev/v1alpha1',
          kind: 'Ambassador',
          name: 'payments',
          uid: 'u-1',
          controller: true,
          blockOwnerDeletion: false,
        },
      ],
    })
    assert.deepEqual(Object.keys(made.data), ['config.json'])
    assert.deepEqual(JSON.parse(made.data['config.json']!), config)
    assert.equal(made.data['config.json']!.split('\n').length, 2)
  })

  it('has no owner outside a cluster', () => {
    assert.deepEqual(Object.keys(configMapOf(object(SPEC), config).metadata), ['name', 'labels'])
  })
})

/** Replaces the n-th value of a tree, counted round and round. */
function replace(root: unknown, n: number, value: unknown): void {
  const places: [Record<PropertyKey, unknown>, PropertyKey][] = []
  const walk = (node: unknown) => {
    if (node === null || typeof node !== 'object') return
    for (const key of Object.keys(node)) {
      places.push([node as Record<PropertyKey, unknown>, key])
      walk((node as Record<PropertyKey, unknown>)[key])
    }
  }
  walk(root)
  const [node, key] = places[n % places.length]!
  node[key] = value
}

function deepFreeze<T>(value: T): T {
  if (value !== null && typeof value === 'object') for (const each of Object.values(value)) deepFreeze(each)
  return Object.freeze(value)
}
