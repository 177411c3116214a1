/** zod to the structural OpenAPI schema that a CustomResourceDefinition takes; refuses what the API server would. */
import { z } from 'zod'
import { NO_FIELDS } from '../../common/schema-kit.ts'

/** The part of OpenAPI v3 that structural schemas use. */
export interface Structural {
  /** Absent only with preserve-unknown-fields and an enum, and with int-or-string. */
  type?: 'object' | 'array' | 'string' | 'integer' | 'number' | 'boolean'
  description?: string
  format?: string
  default?: unknown
  enum?: unknown[]
  pattern?: string
  minimum?: number
  maximum?: number
  minLength?: number
  maxLength?: number
  minItems?: number
  maxItems?: number
  required?: string[]
  properties?: Record<string, Structural>
  items?: Structural
  'x-kubernetes-preserve-unknown-fields'?: true
  /** A number or a text; then there is no type. */
  'x-kubernetes-int-or-string'?: true
  'x-kubernetes-list-type'?: 'map' | 'set' | 'atomic'
  'x-kubernetes-list-map-keys'?: string[]
  'x-kubernetes-validations'?: { rule: string; message: string; messageExpression?: string; fieldPath?: string }[]
}

const INT32 = [-2147483648, 2147483647]

/** Keys of a structural schema that we use, in the order in which they are written. Any other key is refused. */
const KEYS = [
  'description',
  'type',
  'format',
  'default',
  'enum',
  'pattern',
  'minimum',
  'maximum',
  'minLength',
  'maxLength',
  'minItems',
  'maxItems',
  'required',
  'properties',
  'items',
  'x-kubernetes-preserve-unknown-fields',
  'x-kubernetes-int-or-string',
  'x-kubernetes-list-type',
  'x-kubernetes-list-map-keys',
  'x-kubernetes-validations',
] as const

/**
 * The structural schema of a zod schema. Every field must have a description; the default is appended to it.
 * @throws {Error} naming the field, for what the API server refuses or what makes its rules too expensive: unions, references,
 * schemas for unknown keys, look-around in a pattern, strings and lists without a maximum, and fields without a description
 */
export function structural(schema: z.ZodType, path: string): Structural {
  const json = z.toJSONSchema(schema, { target: 'openapi-3.0', io: 'input', reused: 'inline', unrepresentable: 'any' })
  return convert(json as Record<string, unknown>, path)
}

function convert(json: Record<string, unknown>, path: string): Structural {
  const refuse = (what: string): never => {
    throw new Error(`${path}: ${what}`)
  }
  const { [NO_FIELDS]: hasNoFields, ...node } = json
  const isMixedEnum = node['x-kubernetes-preserve-unknown-fields'] === true && node.enum !== undefined
  const isIntOrString = node['x-kubernetes-int-or-string'] === true
  if (isMixedEnum || isIntOrString) delete node.anyOf
  for (const key of Object.keys(node)) {
    if (!(KEYS as readonly string[]).includes(key))
      refuse(`'${key}' cannot be in a structural schema, write the rule in CEL`)
  }
  const { type } = node as { type?: Structural['type'] }
  if (type === undefined && !isMixedEnum && !isIntOrString) refuse('has no type, a structural schema needs one')
  if (typeof node.pattern === 'string') checkPattern(node.pattern, refuse)
  for (const each of (node['x-kubernetes-validations'] ?? []) as { rule: string }[]) checkPattern(each.rule, refuse)
  if (type === 'integer') integer(node)
  if (type === 'string' && node.maxLength === undefined && node.enum === undefined) refuse('needs a maxLength')
  if (type === 'array') {
    if (node.maxItems === undefined) refuse('needs maxItems')
    node.items = convert(node.items as Record<string, unknown>, `${path}[]`)
  }
  if (type === 'object') {
    const { properties = {}, required = [] } = node as { properties?: Record<string, object>; required?: string[] }
    if (hasNoFields === true) {
      delete node.properties
      return inOrder(node)
    }
    if (Object.keys(properties).length === 0) refuse('has no fields')
    node.properties = Object.fromEntries(
      Object.entries(properties).map(([name, field]) => {
        const child = convert(field as Record<string, unknown>, `${path}.${name}`)
        return [name, { ...child, description: describe(child, required.includes(name), `${path}.${name}`) }]
      }),
    )
  }
  return inOrder(node)
}

/** The API server compiles patterns with RE2, which has no look-around and no back references. */
function checkPattern(pattern: string, refuse: (what: string) => never): void {
  if (/\(\?<?[=!]|\\[1-9]/.test(pattern))
    refuse(`'${pattern}' has look-around or a back reference, which RE2 does not know`)
}

/** Says the width by a format instead of by bounds that nobody meant. */
function integer(node: Record<string, unknown>): void {
  const isInt32 = (node.minimum as number) >= INT32[0]! && (node.maximum as number) <= INT32[1]!
  node.format = isInt32 ? 'int32' : 'int64'
  const meant = (bound: unknown) =>
    !INT32.includes(bound as number) && Math.abs(bound as number) !== Number.MAX_SAFE_INTEGER
  for (const key of ['minimum', 'maximum']) if (!meant(node[key])) delete node[key]
}

/** The description of a field, ending with its default. */
function describe(field: Structural, isRequired: boolean, path: string): string {
  const { description } = field
  if (!description) throw new Error(`${path}: has no description`)
  if (isRequired) return description
  if (field.default === undefined) return description
  return `${description} Default: ${defaultText(field.default)}.`
}

/** A default for a reader. */
export function defaultText(value: unknown): string {
  if (Array.isArray(value)) return `[${value.map(String).join(', ')}]`
  if (value !== null && typeof value === 'object') return 'the defaults of its fields'
  return String(value)
}

function inOrder(node: Record<string, unknown>): Structural {
  return Object.fromEntries(
    KEYS.filter((key) => node[key] !== undefined).map((key) => [key, node[key]]),
  ) as unknown as Structural
}
