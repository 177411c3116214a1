/** Finds fields that the API does not know, as `kubectl apply` does: most of them are typos. */

import type { Issue } from '../operator/api/check.ts'
import { schema } from '../operator/api/crd.ts'
import type { Structural } from '../operator/api/structural.ts'
import { nearest } from '../operator/webhook/nearest.ts'

/** Made once: it takes longer than to look at a hundred objects. */
let whole: Structural | undefined

/** What a person who writes a field that ends like this wants, where the other fields beside it do not tell. */
const HINTS: readonly (readonly [end: string, hint: string])[] = [
  ['.srv.port', 'the SRV records have the ports: remove it'],
]

/** The unknown fields below `spec` of an Ambassador and beside it, each with the known one that was probably meant. */
export function unknownFields(object: object): Issue[] {
  const { properties, ...rest } = (whole ??= schema())
  // metadata is the API server's own; status is not written by people.
  const { metadata: _metadata, status: _status, ...checked } = object as Record<string, unknown>
  return below({ ...rest, properties: properties! }, checked, '')
}

function below(node: Structural, value: unknown, path: string): Issue[] {
  if (Array.isArray(value))
    return value.flatMap((item, index) => (node.items ? below(node.items, item, `${path}[${index}]`) : []))
  if (value === null || typeof value !== 'object' || node.type !== 'object') return []
  const known = node.properties ?? {}
  return Object.entries(value).flatMap(([name, child]) => {
    const own = path === '' ? name : `${path}.${name}`
    if (Object.hasOwn(known, name)) return below(known[name]!, child, own)
    const hint = HINTS.find(([end]) => own.endsWith(end))?.[1]
    return [{ field: own, message: `is not a field, ${hint ?? remedy(name, Object.keys(known))}` }]
  })
}

function remedy(name: string, known: readonly string[]): string {
  if (known.length === 0) return 'there are none here, remove it'
  const meant = nearest(name, known)
  return meant ? `did you mean ${meant}?` : `use one of ${known.join(', ')}`
}
