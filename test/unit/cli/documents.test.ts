import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { parseDocuments, readDocuments, UnreadableError } from '../../../cli/documents.ts'
import { UsageError } from '../../../cli/exit.ts'

const FILE = `# a comment
kind: A
spec:
  list:
  - name: one
  - { name: two,
      deep: { x: 1 } }
  on: [a]
---
---
kind: List
items:
- kind: B
- kind: C
  spec: { port: 1 }
`

describe('parseDocuments', () => {
  const documents = parseDocuments(FILE, 'f.yaml')

  it('gives each object, the items of a List one by one, and passes over empty documents', () => {
    assert.deepEqual(
      documents.map(({ value }) => (value as { kind: string }).kind),
      ['A', 'B', 'C'],
    )
  })

  it('takes the items of a list with a kind of its own for what they are, and passes over those that are not there', () => {
    const text =
      'kind: PodList\napiVersion: v1\nitems:\n- metadata: { name: a }\n-\n- { kind: Other, apiVersion: x/v1 }\n---\nkind: List\nitems: [null]\n'
    const found = parseDocuments(text, 'f.yaml')
    assert.deepEqual(
      found.map(({ value }) => value),
      [
        { apiVersion: 'v1', kind: 'Pod', metadata: { name: 'a' } },
        { apiVersion: 'x/v1', kind: 'Other' },
      ],
    )
    assert.deepEqual(
      found.map(({ lineOf }) => lineOf('metadata.name')),
      [4, 6],
    )
  })

  it('knows the line of each field, and of the nearest one around a field that is not there', () => {
    const [a, b, c] = documents
    const lines = [
      '',
      'kind',
      'spec',
      'spec.list[0].name',
      'spec.list[1]',
      'spec.list[1].deep.x',
      'spec.list[1].deep.y.z',
      'spec.none',
      'none',
      'spec.on[0]',
      'spec.list[7].name',
    ]
    assert.deepEqual(
      lines.map((path) => a!.lineOf(path)),
      [2, 2, 3, 5, 6, 7, 7, 3, 2, 8, 4],
    )
    assert.equal(b!.lineOf('kind'), 13)
    assert.equal(c!.lineOf('spec.port'), 15)
    assert.equal(c!.lineOf(''), 14)
  })

  it('reads booleans as kubectl does', () => {
    const [document] = parseDocuments('on: [On, off, yes, "no", true, y]\n', 'f')
    assert.deepEqual(document!.value, { true: [true, false, true, 'no', true, true] })
  })

  it('reads anchors, merge keys and JSON', () => {
    const [anchored] = parseDocuments('a: &x { b: 1 }\nc: { <<: *x, d: 2 }\n', 'f')
    assert.deepEqual(anchored!.value, { a: { b: 1 }, c: { b: 1, d: 2 } })
    assert.equal(anchored!.lineOf('c.b'), 2)
    assert.deepEqual(parseDocuments('{"a": [1, null]}', 'f')[0]!.value, { a: [1, null] })
  })

  it('refuses an alias inside its own anchor, and aliases that stand for more than fits in memory', () => {
    assert.throws(() => parseDocuments('a: &x [ *x ]\n', 'f.yaml'), {
      name: 'UnreadableError',
      message: 'f.yaml: an anchor holds an alias of itself, write the value out',
    })
    const lines = ['a0: &a0 [x, x, x, x, x, x, x, x, x, x]']
    for (let i = 1; i < 9; i++)
      lines.push(
        `a${i}: &a${i} [${Array(10)
          .fill(`*a${i - 1}`)
          .join(', ')}]`,
      )
    assert.throws(() => parseDocuments(lines.join('\n'), 'f.yaml'), {
      name: 'UnreadableError',
      message: /^f\.yaml: its aliases stand for \d+ values, write fewer than 5000000$/,
    })
  })

  it('tells file and line of what is not YAML', () => {
    assert.throws(
      () => parseDocuments('a: 1\nb: [\n', 'f.yaml'),
      (error) => {
        assert.ok(error instanceof UnreadableError)
        assert.match(error.message, /^f\.yaml:\d: is not YAML: /)
        return true
      },
    )
  })

  it('keeps lines right when a key is an alias, and refuses keys that are objects', () => {
    const [document] = parseDocuments('a: &k x\n*k : 1\nb: 2\n', 'f')
    assert.equal(document!.lineOf('b'), 3)
    assert.throws(() => parseDocuments('{ ? { a: 1 } : b }', 'f'), UnreadableError)
  })
})

describe('readDocuments', () => {
  it('asks for a file when none is named', () => assert.rejects(readDocuments([]), UsageError))

  it('names a file that is not there', () =>
    assert.rejects(readDocuments(['/does/not/exist.yaml']), { message: '/does/not/exist.yaml: there is no such file' }))

  it('names a directory, and what to name in its place', () =>
    assert.rejects(readDocuments([import.meta.dirname]), {
      message: `${import.meta.dirname}: is a directory, name the files in it`,
    }))
})
