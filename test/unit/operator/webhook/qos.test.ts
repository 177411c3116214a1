import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { Json, JsonObject } from '../../../../operator/webhook/json.ts'
import { canonical, nanos } from '../../../../operator/webhook/quantities.ts'
import { asking, injected, sidecarOf, type World } from '../../../helpers/injection.ts'

const resources = (spec: JsonObject = {}, annotations: Record<string, Json> = {}, world: World = {}): unknown =>
  sidecarOf(injected(asking('payments', spec, annotations), world))['resources']

const annotation = (name: string, value: string): Record<string, string> => ({
  [`ambassador.dev/proxy-${name}`]: value,
})

const limited = (limits: JsonObject, requests?: JsonObject): JsonObject => ({
  name: 'app',
  resources: requests === undefined ? { limits } : { limits, requests },
})

describe('quantities', () => {
  it('are read in the whole grammar of Kubernetes', () => {
    for (const [text, value] of [
      ['1', 1_000_000_000n],
      ['10m', 10_000_000n],
      ['.5', 500_000_000n],
      ['1.', 1_000_000_000n],
      ['1n', 1n],
      ['0.1n', 1n],
      ['1u', 1000n],
      ['1k', 1_000_000_000_000n],
      ['1Ki', 1_024_000_000_000n],
      ['1e3', 1_000_000_000_000n],
      ['1E', 1_000_000_000_000_000_000_000_000_000n],
      ['12E-1', 1_200_000_000n],
      ['0', 0n],
    ] as const) {
      assert.equal(nanos(text), value, text)
    }
    for (const text of ['', '.', '-1', '+1', '1 Mi', '1mi', 'Mi', '1e', '1e100', '1'.repeat(33), '0x1', '١']) {
      assert.equal(nanos(text), undefined, text)
    }
  })

  it('are written as an API server writes them', () => {
    for (const [text, expected] of [
      ['0.05', '50m'],
      ['1000m', '1'],
      ['1500m', '1500m'],
      ['128Mi', '128Mi'],
      ['1024Mi', '1Gi'],
      ['1.5Gi', '1536Mi'],
      ['1e3', '1k'],
      ['0.5Ki', '512'],
      ['100000k', '100M'],
      ['word', 'word'],
    ] as const) {
      assert.equal(canonical(text), expected)
    }
  })
})

describe('resources of the sidecar', () => {
  it('are small, with a limit on memory alone', () => {
    assert.deepEqual(resources(), { limits: { memory: '128Mi' }, requests: { cpu: '10m', memory: '32Mi' } })
  })

  it('are those of the annotations', () => {
    assert.deepEqual(
      resources(
        {},
        {
          ...annotation('cpu-request', '0.1'),
          ...annotation('cpu-limit', '1'),
          ...annotation('memory-request', '64Mi'),
          ...annotation('memory-limit', '256Mi'),
        },
      ),
      { limits: { cpu: '1', memory: '256Mi' }, requests: { cpu: '100m', memory: '64Mi' } },
    )
  })

  it('move a default out of the way of an annotation', () => {
    assert.deepEqual(resources({}, annotation('memory-limit', '16Mi')), {
      limits: { memory: '16Mi' },
      requests: { cpu: '10m', memory: '16Mi' },
    })
    assert.deepEqual(resources({}, annotation('memory-request', '256Mi')), {
      limits: { memory: '256Mi' },
      requests: { cpu: '10m', memory: '256Mi' },
    })
    assert.deepEqual(resources({}, annotation('cpu-limit', '5m')), {
      limits: { cpu: '5m', memory: '128Mi' },
      requests: { cpu: '5m', memory: '32Mi' },
    })
  })

  it('are those of the installation', () => {
    const settings = {
      resources: { cpuRequest: '5m', cpuLimit: '500m', memoryRequest: '20Mi', memoryLimit: null, guaranteedCpu: '50m' },
    }
    assert.deepEqual(resources({}, {}, { settings }), {
      limits: { cpu: '500m' },
      requests: { cpu: '5m', memory: '20Mi' },
    })
  })

  it('keep a Guaranteed pod Guaranteed', () => {
    const guaranteed = { containers: [limited({ cpu: 1, memory: '1Gi' }, { cpu: '1000m', memory: '1024Mi' })] }
    const both = { cpu: '100m', memory: '128Mi' }
    assert.deepEqual(resources(guaranteed), { limits: both, requests: both })
    assert.deepEqual(resources({ containers: [limited({ cpu: '1', memory: '1Gi' })] }), {
      limits: both,
      requests: both,
    })
    const asked = { cpu: '250m', memory: '128Mi' }
    assert.deepEqual(resources(guaranteed, annotation('cpu-request', '250m')), { limits: asked, requests: asked })
  })

  it('do not take a Burstable pod for a Guaranteed one', () => {
    const full = limited({ cpu: '1', memory: '1Gi' })
    const burstable: JsonObject[] = [
      { containers: [limited({ cpu: '1', memory: '1Gi' }, { cpu: '1', memory: '1G' })] },
      { containers: [limited({ memory: '1Gi' })] },
      { containers: [full, { name: 'other' }] },
      { containers: [full], initContainers: [{ name: 'init' }] },
      { containers: [limited({ cpu: '0', memory: '1Gi' })] },
    ]
    for (const spec of burstable) {
      assert.deepEqual(resources(spec), { limits: { memory: '128Mi' }, requests: { cpu: '10m', memory: '32Mi' } })
    }
  })

  it('are left to the budget of the pod when it has one, unless asked for', () => {
    const budget = { resources: { limits: { cpu: '1', memory: '1Gi' } } }
    assert.equal(resources(budget), undefined)
    assert.deepEqual(resources(budget, annotation('cpu-request', '20m')), {
      limits: { memory: '128Mi' },
      requests: { cpu: '20m', memory: '32Mi' },
    })
  })

  it('are set for what the budget of the pod does not name, since quotas want it of each container', () => {
    assert.deepEqual(resources({ resources: { requests: { cpu: '1' } } }), {
      limits: { memory: '128Mi' },
      requests: { memory: '32Mi' },
    })
    assert.deepEqual(resources({ resources: { limits: { memory: '1Gi' } } }), { requests: { cpu: '10m' } })
    for (const none of [{}, { limits: {}, requests: null }] as JsonObject[]) {
      assert.deepEqual(resources({ resources: none }), resources({}))
    }
  })
})
