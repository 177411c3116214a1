import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { CONDITION_TYPES, CONDITIONS, type Condition, setCondition } from '../../../../operator/api/conditions.ts'

const AT = new Date('2026-01-02T03:04:05.678Z')
const LATER = new Date('2026-01-02T04:00:00Z')
const ready = (status: Condition['status'], reason: string) =>
  ({ type: 'Ready', status, reason, message: 'm', observedGeneration: 1 }) as const

describe('setCondition', () => {
  it('adds a condition with the time to the second', () => {
    assert.deepEqual(setCondition([], ready('True', 'Ready'), AT), [
      { ...ready('True', 'Ready'), lastTransitionTime: '2026-01-02T03:04:05Z' },
    ])
  })

  it('keeps the time while the status stays, whatever else changes', () => {
    const before = setCondition([], ready('False', 'NoPods'), AT)
    const [after] = setCondition(before, { ...ready('False', 'PodsNotReady'), message: 'other' }, LATER)
    assert.equal(after!.lastTransitionTime, '2026-01-02T03:04:05Z')
    assert.equal(after!.reason, 'PodsNotReady')
  })

  it('sets the time when the status changes', () => {
    const before = setCondition([], ready('False', 'NoPods'), AT)
    const [after] = setCondition(before, ready('True', 'Ready'), LATER)
    assert.equal(after!.lastTransitionTime, '2026-01-02T04:00:00Z')
  })

  it('shows conditions in one order and leaves those of others alone, at the end', () => {
    const others = [{ type: 'Other', status: 'True', reason: 'x', message: '', lastTransitionTime: 'x' }]
    const two = setCondition(
      setCondition(others, ready('True', 'Ready'), AT),
      { ...ready('True', 'Accepted'), type: 'Accepted' },
      AT,
    )
    assert.deepEqual(
      two.map((each) => each.type),
      ['Accepted', 'Ready', 'Other'],
    )
  })

  it('cuts a message that the API server would refuse', () => {
    const [after] = setCondition([], { ...ready('True', 'Ready'), message: 'x'.repeat(9000) }, AT)
    assert.equal(after!.message.length, 4096)
  })

  it('changes neither the list nor its items', () => {
    const before = Object.freeze(setCondition([], ready('False', 'NoPods'), AT).map((each) => Object.freeze(each)))
    setCondition(before, ready('True', 'Ready'), LATER)
    assert.equal(before[0]!.status, 'False')
  })
})

describe('the reasons', () => {
  it('exist for True, and are words that the API accepts', () => {
    for (const type of CONDITION_TYPES) {
      const reasons = Object.entries(CONDITIONS[type].reasons)
      assert.ok(
        reasons.some(([, { status }]) => status === 'True'),
        `${type} has no reason for True`,
      )
      for (const [reason, { text }] of reasons) {
        assert.match(reason, /^[A-Za-z]([A-Za-z0-9_,:]*[A-Za-z0-9_])?$/)
        assert.match(text, /\.$/, `${type} ${reason}`)
      }
    }
  })
})
