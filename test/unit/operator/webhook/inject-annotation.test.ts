import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { parseInject, requestOf } from '../../../../operator/webhook/inject-annotation.ts'
import type { Json, JsonObject } from '../../../../operator/webhook/json.ts'

const names = (value: string): readonly string[] => {
  const asked = parseInject(value)
  assert.equal(asked.kind, 'request')
  return asked.kind === 'request' ? asked.names : []
}

const refuses = (value: Json, message: string, reason = 'InvalidAnnotation') => {
  assert.deepEqual(parseInject(value), { kind: 'denial', reason, message: `ambassador.dev/inject: ${message}` })
}

describe('the annotation ambassador.dev/inject', () => {
  it('keeps the order and drops spaces', () => {
    assert.deepEqual(names(' payments , orders-db,cache.v2'), ['payments', 'orders-db', 'cache.v2'])
  })

  it('opts out with "false"', () => {
    assert.deepEqual(parseInject(' false '), { kind: 'skip', reason: 'OptedOut' })
  })

  it('is not there: the pod is skipped', () => {
    const without: JsonObject[] = [{}, { annotations: null }, { annotations: {} }, { annotations: { other: 'x' } }]
    for (const metadata of without) {
      assert.deepEqual(requestOf({ metadata }), { kind: 'skip', reason: 'NotAnnotated' })
    }
  })

  it('refuses an empty value', () => {
    refuses(' ', 'names no Ambassador; write a name, or "false" to opt out')
  })

  it('refuses an empty item and says which', () => {
    refuses('payments,,cache', 'item 2 of "payments,,cache" is empty; remove the comma too many')
    refuses('payments,', 'item 2 of "payments," is empty; remove the comma too many')
  })

  it('refuses the same name twice', () => {
    refuses('payments,cache, payments', 'Ambassador "payments" is named twice; remove one of the two')
  })

  it('refuses more than 16 and takes 16', () => {
    const many = (count: number) => Array.from({ length: count }, (_, i) => `a${i}`).join(',')
    assert.equal(names(many(16)).length, 16)
    refuses(many(17), '17 Ambassadors are named; a pod can have at most 16', 'TooManyAmbassadors')
  })

  it('refuses a name in another namespace', () => {
    refuses(
      'other/payments',
      '"other/payments" names another namespace; an Ambassador is taken from the namespace of the pod, write its name alone',
    )
  })

  it('refuses words that other injectors use', () => {
    const text = 'is not the name of an Ambassador; write the names of Ambassadors, or "false" to opt out'
    for (const word of ['true', 'enabled', 'False']) refuses(word, `"${word}" ${text}`)
  })

  it('refuses "false" beside names', () => {
    refuses('payments,false', '"false" stands beside names; to opt out write "false" alone')
  })

  it('refuses what no object can be called, and cuts it in the message', () => {
    const text = 'is not a name; use lower-case letters, digits, dashes and dots, several names separated by commas'
    for (const name of ['Payments', 'a_b', '-a', 'a..b', 'a b', 'ä', '__proto__']) refuses(name, `"${name}" ${text}`)
    refuses('a'.repeat(254), `"${'a'.repeat(79)}…" ${text}`)
    assert.deepEqual(names('a'.repeat(253)), ['a'.repeat(253)])
  })

  it('refuses a value that is no string', () => {
    refuses(false, 'the value is not a string; write it in quotes')
    refuses(['payments'], 'the value is not a string; write it in quotes')
  })
})
