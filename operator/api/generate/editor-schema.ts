/** JSON Schema for editors: the same fields, strict about unknown ones, so that a typo is underlined. */
import { GROUP, KIND, VERSION } from '../../../common/names.ts'
import { schema } from '../crd.ts'
import type { Structural } from '../structural.ts'

/** The text of the schema. */
export function editorSchema(): string {
  const { description, properties } = schema()
  return `${JSON.stringify(
    {
      $schema: 'http://json-schema.org/draft-07/schema#',
      $comment: 'Generated from operator/api by `npm run generate`. Do not edit.',
      title: `${KIND} ${GROUP}/${VERSION}`,
      description,
      type: 'object',
      required: ['apiVersion', 'kind', 'metadata', 'spec'],
      additionalProperties: false,
      properties: {
        apiVersion: { const: `${GROUP}/${VERSION}` },
        kind: { const: KIND },
        metadata: { type: 'object', required: ['name'] },
        spec: plain(properties!.spec!),
        status: plain(properties!.status!),
      },
    },
    null,
    2,
  )}\n`
}

function plain(node: Structural): Record<string, unknown> {
  const { properties, items, format, ...rest } = node
  const known = Object.fromEntries(Object.entries(rest).filter(([key]) => !key.startsWith('x-kubernetes-')))
  return {
    ...known,
    ...(node['x-kubernetes-int-or-string'] && { type: ['integer', 'string'] }),
    ...(format === 'date-time' && { format }),
    ...(items && { items: plain(items) }),
    ...(properties && {
      additionalProperties: false,
      properties: Object.fromEntries(Object.entries(properties).map(([name, field]) => [name, plain(field)])),
    }),
  }
}
