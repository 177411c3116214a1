import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { equal, type Json, type JsonObject } from '../../../../operator/webhook/json.ts'
import { applyPatch, diff } from '../../../../operator/webhook/patch.ts'

const parse = (text: string): Json => JSON.parse(text) as Json

describe('diff', () => {
  it('gives nothing for equal documents, whatever the order of their keys', () => {
    assert.deepEqual(diff({ a: [1, { b: 2, c: 3 }], d: null }, { d: null, a: [1, { c: 3, b: 2 }] }), [])
  })

  it('adds a container in front as one operation at index 0', () => {
    const others: JsonObject[] = [{ name: 'a', image: 'x' }, { name: 'b' }]
    const before = { initContainers: others }
    const after = { initContainers: [{ name: 'ambassador' }, ...others.map((each) => ({ ...each }))] }
    assert.deepEqual(diff(before, after), [{ op: 'add', path: '/initContainers/0', value: { name: 'ambassador' } }])
  })

  it('creates a list that was absent or null in one operation', () => {
    assert.deepEqual(diff({}, { v: [1, 2] }), [{ op: 'add', path: '/v', value: [1, 2] }])
    assert.deepEqual(diff({ v: null }, { v: [1, 2] }), [{ op: 'replace', path: '/v', value: [1, 2] }])
  })

  it('changes one field of a named item and leaves its neighbours alone', () => {
    const list = (image: string): JsonObject[] => [{ name: 'a', image, x: [1] }, { name: 'b' }]
    const [before, after] = [{ c: list('1') }, { c: list('2') }]
    assert.deepEqual(diff(before, after), [{ op: 'replace', path: '/c/0/image', value: '2' }])
  })

  it('moves an item as a removal and an addition of that item alone', () => {
    const [a, b, c] = [{ name: 'a' }, { name: 'b' }, { name: 'c' }]
    assert.deepEqual(diff([a, b, c], [c, a, b]), [
      { op: 'remove', path: '/2' },
      { op: 'add', path: '/0', value: c },
    ])
  })

  it('removes from the end, so that indices stay right', () => {
    assert.deepEqual(diff(['a', 'b', 'c', 'd'], ['b']), [
      { op: 'remove', path: '/3' },
      { op: 'remove', path: '/2' },
      { op: 'remove', path: '/0' },
    ])
  })

  it('escapes ~ before / in keys', () => {
    assert.deepEqual(diff({}, { 'a/b~c~1': 1 }), [{ op: 'add', path: '/a~1b~0c~01', value: 1 }])
  })

  it('treats __proto__, constructor and toString as plain keys', () => {
    const before = parse('{"m":{"__proto__":"x","constructor":"y"}}')
    const after = parse('{"m":{"__proto__":"z","constructor":"y","toString":"w"}}')
    assert.deepEqual(diff(before, after), [
      { op: 'replace', path: '/m/__proto__', value: 'z' },
      { op: 'add', path: '/m/toString', value: 'w' },
    ])
    assert.equal(JSON.stringify(applyPatch(before, diff(before, after))), JSON.stringify(after))
  })

  it('replaces a list whole when aligning it would take seconds', () => {
    const before = Array.from({ length: 3000 }, (_, i) => i)
    const after = before.map((i) => i + 1)
    assert.deepEqual(diff({ l: before }, { l: after }), [{ op: 'replace', path: '/l', value: after }])
  })

  it('replaces a document of another type', () => {
    assert.deepEqual(diff({ a: 1 }, [1]), [{ op: 'replace', path: '', value: [1] }])
  })

  it('applied to the document before gives the document after, for any two documents', () => {
    const key = fc.oneof(fc.constantFrom('__proto__', 'constructor', 'a/b', 'a~b', '~1', '', 'name', 'x'), fc.string())
    const { node } = fc.letrec<{ node: Json }>((tie) => ({
      node: fc.oneof(
        { maxDepth: 4 },
        fc.constantFrom(null, true, false, 0, 1, '', 'a'),
        fc.array(tie('node'), { maxLength: 5 }),
        fc.array(fc.tuple(key, tie('node')), { maxLength: 5 }).map((entries) => Object.fromEntries(entries)),
      ),
    }))
    fc.assert(
      fc.property(node, node, (before, after) => {
        const frozen = JSON.stringify(before)
        assert.ok(equal(applyPatch(before, diff(before, after)), after))
        assert.equal(JSON.stringify(before), frozen)
        assert.deepEqual(diff(after, after), [])
      }),
      { numRuns: 2000 },
    )
  })
})

describe('applyPatch', () => {
  const refuses = (document: Json, path: string) =>
    assert.throws(() => applyPatch(document, [{ op: 'replace', path, value: 1 }]), {
      message: `patch: replace '${path}' does not fit the document`,
    })

  it('refuses an operation that does not fit', () => {
    refuses({}, '/a')
    refuses([1], '/1')
    refuses([1], '/01')
    refuses([1], '/-')
    refuses({ a: 1 }, '/a/b')
    refuses({}, '/toString')
  })

  it('adds at the end of a list with -', () => {
    assert.deepEqual(applyPatch({ a: [1] }, [{ op: 'add', path: '/a/-', value: 2 }]), { a: [1, 2] })
  })
})
