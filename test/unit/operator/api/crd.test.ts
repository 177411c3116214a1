import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { crd, schema } from '../../../../operator/api/crd.ts'
import type { Structural } from '../../../../operator/api/structural.ts'

function fields(node: Structural, path: string): [string, Structural, boolean][] {
  const below = Object.entries(node.properties ?? {}).flatMap(([name, field]): [string, Structural, boolean][] => [
    [`${path}.${name}`, field, node.required?.includes(name) === true],
    ...fields(field, `${path}.${name}`),
  ])
  return [...below, ...(node.items ? fields(node.items, `${path}[]`) : [])]
}

describe('the definition of Ambassador', () => {
  it('has the names, the status subresource and the columns of the API', () => {
    const { spec, metadata } = crd()
    const [version] = spec.versions
    assert.equal(metadata.name, 'ambassadors.ambassador.dev')
    assert.deepEqual(spec.names.shortNames, ['amb'])
    assert.deepEqual(version!.subresources, { status: {} })
    const columns = (priority: number) =>
      version!.additionalPrinterColumns.filter((each) => (each.priority ?? 0) === priority).map((each) => each.name)
    assert.deepEqual(columns(0), ['Protocol', 'Port', 'Ready', 'Reason', 'Pods', 'Current', 'Age'])
    assert.deepEqual(columns(1), ['Upstream', 'Version'])
  })

  it('tells a default, or that there is none, for every optional field of the spec', () => {
    const spec = schema().properties!.spec!
    const silent = fields(spec, 'spec').filter(
      ([, { description }, required]) => !required && !/ Default: .*\.$/.test(description!),
    )
    assert.deepEqual(
      silent.map(([path]) => path),
      [],
    )
  })

  it('ends every description with a full stop', () => {
    const { spec, status } = schema().properties!
    const open = [...fields(spec!, 'spec'), ...fields(status!, 'status')].filter(
      ([, { description }]) => !description!.endsWith('.'),
    )
    assert.deepEqual(
      open.map(([path]) => path),
      [],
    )
  })

  it('stays within what one request may carry', () => {
    assert.ok(JSON.stringify(crd()).length < 200_000)
  })
})
