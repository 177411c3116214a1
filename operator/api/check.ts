/** Checks an Ambassador without an API server, with the same rules and, for rules in CEL, the same words. */
import type { z } from 'zod'
import { GROUP, KIND, VERSION } from '../../common/names.ts'
import { notOneOf, objectName } from '../../common/schema-kit.ts'
import { ambassadorSpec, type DefaultedSpec } from './ambassador.ts'

/** One thing that is wrong. */
export interface Issue {
  /** Path such as `spec.upstreams[0].endpoints[1].port`. */
  readonly field: string
  /** The value and the remedy; does not repeat the field. */
  readonly message: string
}

export type Checked =
  | { readonly ok: true; readonly spec: DefaultedSpec }
  | { readonly ok: false; readonly issues: readonly Issue[] }

/** Checks a spec and sets its defaults. Never throws, whatever the value is. Unknown fields are passed over, as the API server prunes them. */
export function checkSpec(spec: unknown): Checked {
  const result = ambassadorSpec.safeParse(withoutNulls(spec), { reportInput: true })
  if (result.success) return { ok: true, spec: result.data }
  const issues = new Map<string, Issue>()
  for (const issue of result.error.issues) {
    const said = { field: fieldPath(['spec', ...issue.path]), message: say(issue) }
    issues.set(`${said.field} ${said.message}`, said)
  }
  return { ok: false, issues: [...issues.values()] }
}

/** Checks a whole object: that it is an Ambassador of this version, has a name, and its spec. Never throws. */
export function checkObject(object: unknown): Issue[] {
  if (object === null || typeof object !== 'object' || Array.isArray(object)) {
    return [{ field: '', message: 'is not an object, write apiVersion, kind, metadata and spec' }]
  }
  const { apiVersion, kind, metadata, spec } = object as Record<string, unknown>
  const issues: Issue[] = []
  const expect = (field: string, value: unknown, known: string) => {
    if (value === undefined) issues.push({ field, message: `is required, use ${known}` })
    else if (value !== known) issues.push({ field, message: `${quote(value)} is not known, use ${known}` })
  }
  expect('apiVersion', apiVersion, `${GROUP}/${VERSION}`)
  expect('kind', kind, KIND)
  const name = (metadata as { name?: unknown } | null | undefined)?.name
  const named = objectName().safeParse(name, { reportInput: true })
  if (!named.success) issues.push({ field: 'metadata.name', message: say(named.error.issues[0]!) })
  const checked = checkSpec(spec)
  return checked.ok ? issues : [...issues, ...checked.issues]
}

/** `['spec', 'upstreams', 0, 'name']` as `spec.upstreams[0].name`. The key `true` is `on` without quotes, and is called that. */
export function fieldPath(path: readonly PropertyKey[]): string {
  return path
    .map((part, index) => {
      if (typeof part === 'number') return `[${part}]`
      return `${index > 0 ? '.' : ''}${part === 'true' ? 'on' : String(part)}`
    })
    .join('')
}

/** The API server takes a field that is null for one that is not there. */
function withoutNulls(value: unknown): unknown {
  if (Array.isArray(value)) return value.map(withoutNulls)
  if (value === null || typeof value !== 'object') return value
  return Object.fromEntries(
    Object.entries(value)
      .filter(([, each]) => each !== null)
      .map(([key, each]) => [key, withoutNulls(each)]),
  )
}

/** The words for what the schema itself refuses; rules bring their own. */
function say(issue: z.core.$ZodIssue): string {
  const { input } = issue
  switch (issue.code) {
    case 'invalid_type':
      if (input === undefined) return 'is required, add it'
      if (issue.expected === 'string' && (typeof input === 'number' || typeof input === 'boolean')) {
        return `${input} is not a string, put it in quotes: "${input}"`
      }
      // Whoever writes a text where a reference belongs may have written the secret itself.
      if (issue.expected === 'object' && typeof input === 'string') return 'a text is not an object, see its fields'
      return `${quote(input)} is not ${WORDS[issue.expected] ?? issue.expected}${unquoted(issue.expected, input)}`
    case 'invalid_value':
      if (input === undefined) return `is required, use one of ${issue.values.join(', ')}`
      return notOneOf(input, issue.values)
    case 'too_small':
      if (issue.origin === 'array') return `must have at least ${plural(issue.minimum, 'item')}`
      return issue.origin === 'string' ? 'must not be empty' : issue.message
    case 'too_big':
      if (issue.origin === 'array') return `must have at most ${plural(issue.maximum, 'item')}`
      if (issue.origin !== 'string') return issue.message
      return `is longer than ${plural(issue.maximum, 'character')}, shorten it`
    default:
      return issue.message
  }
}

/** The remedy for a number or a boolean in quotes. */
function unquoted(expected: string, input: unknown): string {
  if (typeof input !== 'string') return ''
  const isMeant =
    expected === 'boolean' ? /^(true|false)$/.test(input) : WORDS[expected]?.endsWith('number') && /^-?\d+$/.test(input)
  return isMeant ? ', remove the quotes' : ''
}

const WORDS: Record<string, string> = {
  string: 'a string',
  number: 'a number',
  int: 'a whole number',
  array: 'a list',
  object: 'an object',
  boolean: 'true or false',
}

function plural(count: number | bigint, word: string): string {
  return `${count} ${word}${Number(count) === 1 ? '' : 's'}`
}

/** A value for a message: strings in quotes, numbers bare, the rest by its kind. */
function quote(value: unknown): string {
  if (typeof value === 'string') return `'${value.length > 64 ? `${value.slice(0, 64)}…` : value}'`
  if (Array.isArray(value)) return 'a list'
  if (value !== null && typeof value === 'object') return 'an object'
  return String(value)
}
