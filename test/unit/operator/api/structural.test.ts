import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { z } from 'zod'
import { doc, enumWithOff, rule } from '../../../../common/schema-kit.ts'
import { structural } from '../../../../operator/api/structural.ts'

const field = (schema: z.ZodType) => z.object({ x: doc(schema, 'A field.') })

describe('structural', () => {
  const refused: [string, z.ZodType, RegExp][] = [
    ['a union', z.union([z.string().max(1), z.int()]), /spec\.x: 'anyOf' cannot be in a structural schema/],
    [
      'a discriminated union',
      z.discriminatedUnion('k', [z.object({ k: z.literal('a') }), z.object({ k: z.literal('b') })]),
      /spec\.x: 'oneOf'/,
    ],
    ['a strict object', z.strictObject({ y: doc(z.int(), 'Y.') }), /spec\.x: 'additionalProperties'/],
    ['a record', z.record(z.string(), z.int()), /spec\.x: 'additionalProperties'/],
    ['look-ahead', z.hostname().max(10), /spec\.x: .* look-around/],
    [
      'look-ahead in CEL',
      rule(z.string().max(3), { cel: "self.matches('(?!a)')", holds: () => true, message: 'm' }),
      /spec\.x: .* look-around/,
    ],
    ['a string without a maximum', z.string(), /spec\.x: needs a maxLength/],
    ['a list without a maximum', z.array(z.int()), /spec\.x: needs maxItems/],
    ['any value', z.any(), /spec\.x: has no type/],
    ['an object without fields', z.object({}), /spec\.x: has no fields/],
    ['a string without a maximum in a list', z.array(z.string()).max(3), /spec\.x\[\]: needs a maxLength/],
  ]
  for (const [what, schema, message] of refused) {
    it(`refuses ${what} with the path of the field`, () =>
      assert.throws(() => structural(field(schema), 'spec'), message))
  }

  it('refuses a field without a description', () => {
    assert.throws(
      () => structural(z.object({ y: z.object({ z: z.int() }).meta({ description: 'Y.' }) }), 'spec'),
      /spec\.y\.z: has no description/,
    )
  })

  it('says the width of integers and keeps the bounds that were meant', () => {
    const { properties } = structural(
      z.object({ small: doc(z.int32().min(1), 'S.'), large: doc(z.int().min(0), 'L.') }),
      'spec',
    )
    assert.deepEqual(properties!.small, { description: 'S.', type: 'integer', format: 'int32', minimum: 1 })
    assert.deepEqual(properties!.large, { description: 'L.', type: 'integer', format: 'int64', minimum: 0 })
  })

  it('ends descriptions with the default', () => {
    const { properties } = structural(
      z.object({
        n: doc(z.int32(), 'N.').default(3),
        o: doc(z.object({ m: doc(z.int32(), 'M.').default(1) }), 'O.').prefault({}),
      }),
      'spec',
    )
    assert.equal(properties!.n!.description, 'N. Default: 3.')
    assert.equal(properties!.o!.description, 'O. Default: the defaults of its fields.')
    assert.deepEqual(properties!.o!.default, {})
  })

  it('keeps an enum that takes false for Off, without a type', () => {
    const { properties } = structural(field(enumWithOff(['All', 'Off'])), 'spec')
    assert.deepEqual(properties!.x, {
      description: 'A field.',
      enum: ['All', 'Off', false],
      'x-kubernetes-preserve-unknown-fields': true,
    })
  })
})
