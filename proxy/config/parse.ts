/** Checks a ProxyConfig that somebody wrote against the generated JSON schema. The schema library itself would cost every sidecar 5 MB. */
import schema from '../../common/proxy-config.schema.json' with { type: 'json' }
import type { ProxyConfig } from '../../common/proxy-config.ts'

/** The part of JSON schema that the generated file uses; another keyword in it fails the parity test, not silently. */
interface Schema {
  readonly $ref?: string
  readonly type?: string
  readonly const?: unknown
  readonly enum?: readonly unknown[]
  readonly anyOf?: readonly Schema[]
  readonly oneOf?: readonly Schema[]
  readonly properties?: Readonly<Record<string, Schema>>
  readonly required?: readonly string[]
  readonly items?: Schema
  readonly minItems?: number
  readonly maxItems?: number
  readonly minLength?: number
  readonly maxLength?: number
  readonly minimum?: number
  readonly maximum?: number
}

const DEFINITIONS = (schema as unknown as { readonly $defs?: Readonly<Record<string, Schema>> }).$defs ?? {}

/**
 * Reads a config. Unknown keys are allowed (an older proxy, a newer operator).
 * @throws {Error} whose message names the field, the value and what is expected
 */
export function parseConfig(value: unknown): ProxyConfig {
  const problem = check(schema as unknown as Schema, value, '')
  if (problem !== null) throw new Error(`config: ${problem}`)
  return value as ProxyConfig
}

/** What is wrong with `value`, or null. */
function check(rule: Schema, value: unknown, path: string): string | null {
  if (rule.$ref !== undefined) {
    const target = DEFINITIONS[rule.$ref.slice('#/$defs/'.length)]
    return target === undefined ? `${path}: unknown definition ${rule.$ref}` : check(target, value, path)
  }
  const choices = rule.anyOf ?? rule.oneOf
  if (choices !== undefined) return checkChoice(choices, value, path)
  if (rule.const !== undefined && value !== rule.const) return wrong(path, value, JSON.stringify(rule.const))
  if (rule.enum !== undefined && !rule.enum.includes(value)) return wrong(path, value, rule.enum.join(' or '))
  switch (rule.type) {
    case 'object':
      return checkObject(rule, value, path)
    case 'array':
      return checkArray(rule, value, path)
    case 'string': {
      if (typeof value !== 'string') return wrong(path, value, 'a string')
      const { minLength = 0, maxLength = Number.POSITIVE_INFINITY } = rule
      if (value.length < minLength) return wrong(path, value, 'text, not nothing')
      return value.length > maxLength ? wrong(path, value, `at most ${maxLength} characters`) : null
    }
    case 'integer':
    case 'number': {
      if (typeof value !== 'number' || !Number.isFinite(value)) return wrong(path, value, 'a number')
      if (rule.type === 'integer' && !Number.isInteger(value)) return wrong(path, value, 'a whole number')
      const { minimum = Number.NEGATIVE_INFINITY, maximum = Number.POSITIVE_INFINITY } = rule
      return value < minimum || value > maximum ? wrong(path, value, `${minimum} to ${maximum}`) : null
    }
    case 'boolean':
      return typeof value === 'boolean' ? null : wrong(path, value, 'true or false')
    case 'null':
      return value === null ? null : wrong(path, value, 'null')
    default:
      return null
  }
}

function checkObject(rule: Schema, value: unknown, path: string): string | null {
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return wrong(path, value, 'an object')
  const object = value as Record<string, unknown>
  for (const key of rule.required ?? []) {
    if (!Object.hasOwn(object, key)) return `${join(path, key)}: is missing`
  }
  for (const [key, inner] of Object.entries(rule.properties ?? {})) {
    if (!Object.hasOwn(object, key)) continue
    const problem = check(inner, object[key], join(path, key))
    if (problem !== null) return problem
  }
  return null
}

function checkArray(rule: Schema, value: unknown, path: string): string | null {
  if (!Array.isArray(value)) return wrong(path, value, 'a list')
  const { minItems = 0, maxItems = Number.POSITIVE_INFINITY } = rule
  if (value.length < minItems) return `${path}: has ${value.length} items, use at least ${minItems}`
  if (value.length > maxItems) return `${path}: has ${value.length} items, use at most ${maxItems}`
  for (let i = 0; i < value.length; i++) {
    const problem = rule.items === undefined ? null : check(rule.items, value[i], join(path, String(i)))
    if (problem !== null) return problem
  }
  return null
}

/** One of several shapes: null or something, or objects told apart by `kind`. The message is that of the shape that was meant. */
function checkChoice(choices: readonly Schema[], value: unknown, path: string): string | null {
  if (value === null && choices.some((choice) => choice.type === 'null')) return null
  const rest = choices.filter((choice) => choice.type !== 'null')
  if (rest.length === 1) return check(rest[0] as Schema, value, path)
  if (value === null || typeof value !== 'object' || Array.isArray(value)) return wrong(path, value, 'an object')
  const kind = (value as { kind?: unknown }).kind
  const kinds = rest.map((choice) => choice.properties?.['kind']?.const)
  const meant = rest[kinds.indexOf(kind)]
  return meant === undefined ? wrong(join(path, 'kind'), kind, kinds.join(' or ')) : check(meant, value, path)
}

function join(path: string, key: string): string {
  return path === '' ? key : `${path}.${key}`
}

function wrong(path: string, value: unknown, expected: string): string {
  const text = typeof value === 'string' ? `'${value}'` : (JSON.stringify(value) ?? 'nothing')
  return `${path || 'document'}: ${text.length > 60 ? `${text.slice(0, 60)}...` : text} is not allowed, use ${expected}`
}
