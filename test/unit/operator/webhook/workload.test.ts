import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import type { JsonObject } from '../../../../operator/webhook/json.ts'
import {
  copyAnnotation,
  hasController,
  removeCopy,
  templateOf,
  WORKLOAD_KINDS,
} from '../../../../operator/webhook/workload.ts'

const INJECT = 'ambassador.dev/inject'
const MARKER = 'ambassador.dev/copied-from-workload'

const workload = (
  own: string | undefined,
  template: Record<string, string> | undefined,
  kind = 'Deployment',
): JsonObject => {
  const pod: JsonObject = {
    metadata: { labels: { app: 'x' }, ...(template === undefined ? {} : { annotations: template }) },
    spec: { containers: [] },
  }
  return {
    kind,
    metadata: { name: 'x', annotations: { other: '1', ...(own === undefined ? {} : { [INJECT]: own }) } },
    spec: kind === 'CronJob' ? { jobTemplate: { spec: { template: pod } } } : { template: pod },
  }
}

/** Annotations of the template after the copy, or undefined. */
const copied = (own: string | undefined, template: Record<string, string> | undefined, kind?: string): unknown => {
  const result = copyAnnotation(workload(own, template, kind))
  return (templateOf(result.workload) as { metadata: JsonObject }).metadata['annotations']
}

const warning = (own: string, template: Record<string, string>): readonly string[] =>
  copyAnnotation(workload(own, template)).warnings

describe('the annotation of a workload', () => {
  for (const kind of WORKLOAD_KINDS) {
    it(`is copied into the template of a ${kind}, and marked as a copy`, () => {
      assert.deepEqual(copied('payments', undefined, kind), { [INJECT]: 'payments', [MARKER]: 'payments' })
    })
  }

  it('leaves everything else of the template as it is', () => {
    assert.deepEqual(copied('payments', { a: '1' }), { a: '1', [INJECT]: 'payments', [MARKER]: 'payments' })
  })

  it('changes the copy when it changes', () => {
    assert.deepEqual(copied('orders', { [INJECT]: 'payments', [MARKER]: 'payments' }), {
      [INJECT]: 'orders',
      [MARKER]: 'orders',
    })
  })

  it('changes nothing when the copy is there', () => {
    const object = workload('payments', { [INJECT]: 'payments', [MARKER]: 'payments' })
    assert.equal(copyAnnotation(object).workload, object)
  })

  it('is copied again when somebody removed the copy', () => {
    assert.deepEqual(copied('payments', { [MARKER]: 'payments' }), { [INJECT]: 'payments', [MARKER]: 'payments' })
  })

  it('takes the copy away when it goes', () => {
    assert.equal(copied(undefined, { [INJECT]: 'payments', [MARKER]: 'payments' }), undefined)
    assert.deepEqual(copied(undefined, { a: '1', [INJECT]: 'payments', [MARKER]: 'payments' }), { a: '1' })
  })

  it("leaves a template's own annotation alone when it goes", () => {
    const object = workload(undefined, { [INJECT]: 'payments' })
    assert.equal(copyAnnotation(object).workload, object)
  })

  it('takes a copy that was edited for the own annotation of the template', () => {
    assert.deepEqual(copied(undefined, { [INJECT]: 'mine', [MARKER]: 'payments' }), { [INJECT]: 'mine' })
    assert.deepEqual(copied('payments', { [INJECT]: 'mine', [MARKER]: 'payments' }), { [INJECT]: 'mine' })
  })

  it('loses against the own annotation of the template, with a warning', () => {
    assert.deepEqual(copied('payments', { [INJECT]: 'mine' }), { [INJECT]: 'mine' })
    assert.deepEqual(warning('payments', { [INJECT]: 'mine' }), [
      'ambassador.dev/inject: the pod template says "mine", which wins over "payments" on the Deployment; remove one of the two',
    ])
    assert.deepEqual(warning('mine', { [INJECT]: 'mine' }), [])
  })

  it('loses against "false" in the template, since that wins over everything', () => {
    assert.deepEqual(copied('payments', { [INJECT]: 'false' }), { [INJECT]: 'false' })
  })

  it('wins over everything as "false", and gives back what the template said when it goes', () => {
    const off = { [INJECT]: 'false', [MARKER]: 'false; was mine' }
    assert.deepEqual(copied('false', { [INJECT]: 'mine' }), off)
    assert.deepEqual(copied('false', off), off)
    assert.deepEqual(copied(undefined, off), { [INJECT]: 'mine' })
    assert.deepEqual(copied('payments', off), { [INJECT]: 'mine' })
    assert.deepEqual(copied('false', { [INJECT]: 'payments', [MARKER]: 'payments' }), {
      [INJECT]: 'false',
      [MARKER]: 'false',
    })
  })

  it('does nothing to an object without a template', () => {
    const object: JsonObject = { kind: 'Deployment', metadata: { annotations: { [INJECT]: 'payments' } }, spec: {} }
    assert.equal(copyAnnotation(object).workload, object)
    assert.equal(templateOf({ kind: 'constructor' }), undefined)
  })

  it('is taken out of the template by uninject, a copy alone', () => {
    const object = workload('payments', undefined)
    assert.deepEqual(removeCopy(copyAnnotation(object).workload), object)
    const own = workload('payments', { [INJECT]: 'payments' })
    assert.equal(removeCopy(own), own)
  })
})

describe('a workload', () => {
  it('has a controller when an owner says so', () => {
    const owned = (owner: JsonObject): JsonObject => ({ metadata: { ownerReferences: [owner] } })
    assert.equal(hasController(owned({ kind: 'Deployment', controller: true })), true)
    assert.equal(hasController(owned({ kind: 'App' })), false)
    assert.equal(hasController({ metadata: {} }), false)
  })
})
