/** Evaluates the CEL rules of a structural schema as the API server does, for comparing them with our predicates. */
import { isIP } from 'node:net'
import { Environment } from '@marcbachmann/cel-js'
import { quantityBytes } from '../../common/quantity.ts'
import { isAddress } from '../../common/schema-kit.ts'
import { fieldPath } from '../../operator/api/check.ts'
import type { Structural } from '../../operator/api/structural.ts'

class Quantity {
  readonly bytes: number
  constructor(bytes: number) {
    this.bytes = bytes
  }
}

// Functions of Kubernetes that plain CEL does not have.
const environment = new Environment({ unlistedVariablesAreDyn: true })
  .registerType('Quantity', Quantity)
  .registerFunction('quantity(string): Quantity', (text: string) => new Quantity(quantityBytes(text) ?? Number.NaN))
  .registerFunction('Quantity.compareTo(Quantity): int', (a: Quantity, b: Quantity) =>
    BigInt(Math.sign(a.bytes - b.bytes)),
  )
  .registerFunction('isIP(string): bool', (text: string) => isAddress(text))
  .registerFunction('isCIDR(string): bool', (text: string) => {
    const [address = '', bits = '', ...more] = text.split('/')
    return (
      more.length === 0 &&
      isAddress(address) &&
      /^(0|[1-9]\d{0,2})$/.test(bits) &&
      Number(bits) <= (isIP(address) === 4 ? 32 : 128)
    )
  })

type Evaluate = (context: { self: unknown }) => unknown
const programs = new Map<string, Evaluate>()

/** Compiles each expression once. */
function program(expression: string): Evaluate {
  const known = programs.get(expression)
  if (known) return known
  const compiled = environment.parse(expression) as unknown as Evaluate
  programs.set(expression, compiled)
  return compiled
}

/** What a rule says; undefined when it ends with an error. */
function evaluate(rule: string, self: unknown): unknown {
  const run = program(rule)
  try {
    return run({ self })
  } catch {
    return undefined
  }
}

/** Every rule below a schema that a value breaks, as `field: message`. The value must fit the schema and have its defaults. */
export function brokenRules(node: Structural, value: unknown, path: readonly PropertyKey[]): string[] {
  const broken: string[] = []
  const self = celValue(node, value)
  for (const { rule, message, messageExpression, fieldPath: below = '' } of node['x-kubernetes-validations'] ?? []) {
    const held = evaluate(rule, self)
    if (held === true) continue
    // As the API server does it: a rule that cannot be evaluated is broken, and said in its plain words.
    const text = messageExpression && held !== undefined ? program(messageExpression)({ self }) : message
    broken.push(`${fieldPath([...path, ...below.split('.').filter(Boolean)])}: ${text}`)
  }
  if (Array.isArray(value)) {
    return [...broken, ...value.flatMap((item, index) => brokenRules(node.items!, item, [...path, index]))]
  }
  if (value === null || typeof value !== 'object') return broken
  for (const [name, child] of Object.entries(value)) {
    const schema = node.properties?.[name]
    if (schema) broken.push(...brokenRules(schema, child, [...path, name]))
  }
  return broken
}

/** A value as CEL sees it: whole numbers are ints, and a field whose name is a word of the language has underscores. */
function celValue(node: Structural, value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => celValue(node.items!, item))
  if (value !== null && typeof value === 'object') {
    return Object.fromEntries(
      Object.entries(value).flatMap(([name, child]) => {
        const schema = node.properties?.[name]
        // Without a type a field is not there for CEL.
        if (!schema?.type && !schema?.['x-kubernetes-int-or-string']) return []
        return [[name === 'true' || name === 'in' ? `__${name}__` : name, celValue(schema, child)]]
      }),
    )
  }
  const isInt = node.type === 'integer' || (node['x-kubernetes-int-or-string'] && typeof value === 'number')
  return isInt ? BigInt(value as number) : value
}

/** What the API server makes of an object before it looks at the rules: fields that are null are absent, defaults are set. */
export function defaulted(node: Structural, value: unknown): unknown {
  if (Array.isArray(value)) return value.map((item) => (node.items ? defaulted(node.items, item) : item))
  if (value === null || typeof value !== 'object') return value
  const result: Record<string, unknown> = {}
  for (const [name, child] of Object.entries(value)) {
    if (child !== null) result[name] = child
  }
  for (const [name, child] of Object.entries(node.properties ?? {})) {
    if (result[name] === undefined && child.default !== undefined) result[name] = structuredClone(child.default)
    if (result[name] !== undefined) result[name] = defaulted(child, result[name])
  }
  return result
}
