import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { JsonObject } from '../../../../operator/webhook/json.ts'
import { supportsNative } from '../../../../operator/webhook/native.ts'
import { asking, injected, nodes } from '../../../helpers/injection.ts'

const OLD = { kubeletVersion: 'v1.28.15', name: 'old', labels: { pool: 'old', size: '4' } }
const NEW = { kubeletVersion: 'v1.34.4', name: 'new', labels: { pool: 'new', size: '16' } }
const BOTH = nodes(OLD, NEW)

const affinity = (...nodeSelectorTerms: JsonObject[]): JsonObject => ({
  affinity: { nodeAffinity: { requiredDuringSchedulingIgnoredDuringExecution: { nodeSelectorTerms } } },
})
const expression = (key: string, operator: string, ...values: string[]): JsonObject => ({
  matchExpressions: [{ key, operator, values }],
})

describe('the native sidecar', () => {
  it('needs kubelets of 1.29 or newer on every node', () => {
    for (const [version, is] of [
      ['v1.28.15', false],
      ['v1.29.0', true],
      ['v1.30.0-gke.1', true],
      ['1.31.1+k3s1', true],
      ['v2.0.0', true],
      ['N/A', false],
      ['', false],
    ] as const) {
      assert.equal(supportsNative({}, nodes({ kubeletVersion: version })), is, version)
    }
    assert.equal(supportsNative({}, BOTH), false)
  })

  it('is taken for granted while no node is known', () => {
    assert.equal(supportsNative({}, nodes()), true)
  })

  it('asks the node that the pod names', () => {
    assert.equal(supportsNative({ nodeName: 'new' }, BOTH), true)
    assert.equal(supportsNative({ nodeName: 'old' }, BOTH), false)
    assert.equal(supportsNative({ nodeName: 'unknown' }, BOTH), false)
  })

  it('asks only nodes that the node selector allows', () => {
    assert.equal(supportsNative({ nodeSelector: { pool: 'new' } }, BOTH), true)
    assert.equal(supportsNative({ nodeSelector: { pool: 'old' } }, BOTH), false)
    assert.equal(supportsNative({ nodeSelector: { constructor: 'new' } }, BOTH), false)
  })

  it('asks all nodes when none fits, as in a group that is scaled to zero', () => {
    assert.equal(supportsNative({ nodeSelector: { pool: 'empty' } }, BOTH), false)
  })

  it('asks only nodes that the required affinity allows', () => {
    const is = (...terms: JsonObject[]) => supportsNative(affinity(...terms), BOTH)
    assert.equal(is(expression('pool', 'In', 'new', 'other')), true)
    assert.equal(is(expression('pool', 'NotIn', 'old')), true)
    assert.equal(is(expression('size', 'Gt', '8')), true)
    assert.equal(is(expression('size', 'Lt', '8')), false)
    assert.equal(is(expression('pool', 'Exists')), false)
    assert.equal(is(expression('pool', 'DoesNotExist')), false)
    assert.equal(is({ matchFields: [{ key: 'metadata.name', operator: 'In', values: ['new'] }] }), true)
    assert.equal(is(expression('pool', 'In', 'new'), expression('pool', 'In', 'old')), false)
    assert.equal(is(expression('pool', 'Fuzzy', 'new')), false)
  })

  it('does not ask nodes whose taints the pod does not tolerate', () => {
    const taint = { key: 'virtual', value: 'yes', effect: 'NoSchedule' }
    const virtual = { ...OLD, taints: [taint] }
    const cluster = nodes(virtual, NEW)
    assert.equal(supportsNative({}, cluster), true)
    assert.equal(supportsNative({ tolerations: [{ operator: 'Exists' }] }, cluster), false)
    assert.equal(supportsNative({ tolerations: [{ key: 'virtual', operator: 'Exists' }] }, cluster), false)
    assert.equal(supportsNative({ tolerations: [{ key: 'virtual', value: 'yes' }] }, cluster), false)
    assert.equal(supportsNative({ tolerations: [{ key: 'virtual', value: 'no' }] }, cluster), true)
    assert.equal(supportsNative({ tolerations: [{ operator: 'Exists', effect: 'NoExecute' }] }, cluster), true)
    const preferred = nodes({ ...OLD, taints: [{ ...taint, effect: 'PreferNoSchedule' }] }, NEW)
    assert.equal(supportsNative({}, preferred), false)
  })

  it('is the first init container, and an ordinary container first in the list where it cannot be', () => {
    const spec = { initContainers: [{ name: 'migrate' }], containers: [{ name: 'app' }] }
    const names = (object: JsonObject, list: string): unknown[] =>
      ((object['spec'] as JsonObject)[list] as JsonObject[]).map((each) => each['name'])
    const native = injected(asking('payments', spec))
    assert.deepEqual(names(native, 'initContainers'), ['ambassador', 'migrate'])
    assert.deepEqual(names(native, 'containers'), ['app'])
    const legacy = injected(asking('payments', spec), { nodes: BOTH })
    assert.deepEqual(names(legacy, 'initContainers'), ['migrate'])
    assert.deepEqual(names(legacy, 'containers'), ['ambassador', 'app'])
  })

  it('is decided by the annotation when that is not auto', () => {
    const mode = (value: string, world: Parameters<typeof injected>[1]): unknown => {
      const object = injected(asking('payments', {}, { 'ambassador.dev/native-sidecar': value }), world)
      return 'initContainers' in (object['spec'] as JsonObject)
    }
    assert.equal(mode('true', { nodes: BOTH }), true)
    assert.equal(mode('false', {}), false)
    assert.equal(mode('auto', { nodes: BOTH }), false)
  })

  it('is decided by the installation when the pod does not say', () => {
    const object = injected(asking('payments'), { settings: { nativeSidecar: 'false' } })
    assert.equal('initContainers' in (object['spec'] as JsonObject), false)
  })
})
