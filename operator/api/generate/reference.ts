/** The reference page: every field, every condition and reason. */
import { GROUP, KIND, VERSION } from '../../../common/names.ts'
import { CONDITIONS } from '../conditions.ts'
import { schema } from '../crd.ts'
import type { Structural } from '../structural.ts'

/** The text of the page, as Markdown. */
export function reference(): string {
  const { spec, status } = schema().properties!
  return [
    '<!-- Generated from operator/api by `npm run generate`. Do not edit. -->',
    `# ${KIND} ${GROUP}/${VERSION}`,
    'One Ambassador is one dependency of an application: where it listens inside the pod, where it really goes, and which connectivity concerns it takes off the application. Short name `amb`, namespaced.',
    'Durations are written as in Go: `250ms`, `5s`, `1h30m`. Shares are percentages in quotes: `"20%"`. Quantities are quantities: `64Ki`. In the tables, *required* means required when the object around it is given.',
    '## Spec',
    ...tables('spec', spec!),
    '## Status',
    ...tables('status', status!),
    '## Conditions',
    'Each condition carries the generation that it is about. `kubectl wait amb/NAME --for=condition=Ready` waits for one.',
    ...Object.entries(CONDITIONS).flatMap(([type, { text, reasons }]) => [
      `### ${type}`,
      text,
      table(
        ['Reason', 'Status', 'Meaning'],
        Object.entries(reasons).map(([reason, { status, text }]) => [`\`${reason}\``, status, text]),
      ),
    ]),
    '',
  ].join('\n\n')
}

/** One table for the plain fields of each object, the objects below it after it. */
function tables(path: string, node: Structural): string[] {
  const rows: string[][] = []
  const below: string[] = []
  for (const [name, field] of Object.entries(node.properties ?? {})) {
    const isRequired = node.required?.includes(name) === true
    const own = `${path}.${name}${field.type === 'array' ? '[]' : ''}`
    rows.push([`\`${own}\``, typeOf(field), defaultOf(field, isRequired), allowed(field), text(field)])
    const inner = field.type === 'array' ? field.items! : field
    if (inner.properties) below.push(`### ${own}`, ...tables(own, inner))
  }
  return [table(['Field', 'Type', 'Default', 'Allowed', 'Meaning'], rows), ...below]
}

function typeOf(field: Structural): string {
  if (field.type === 'array') return field.items!.properties ? 'list of objects' : `list of ${field.items!.type}s`
  if (field['x-kubernetes-int-or-string']) return 'integer or string'
  return field.type ?? 'string'
}

const DEFAULT = / Default: (.*)\.$/

function text({ description = '' }: Structural): string {
  return description.replace(DEFAULT, '')
}

function defaultOf(field: Structural, isRequired: boolean): string {
  if (isRequired) return '*required*'
  const [, found] = DEFAULT.exec(field.description ?? '') ?? []
  return found ?? ''
}

/** Enum, bounds and the messages of rules, which say what is allowed in words. */
function allowed(field: Structural): string {
  const inner = field.type === 'array' ? field.items! : field
  const parts: string[] = []
  if (inner.enum)
    parts.push(
      inner.enum
        .filter((each) => typeof each === 'string')
        .map((each) => `\`${each}\``)
        .join(', '),
    )
  if (inner.minimum !== undefined && inner.maximum !== undefined) parts.push(`${inner.minimum} to ${inner.maximum}`)
  for (const { message } of inner['x-kubernetes-validations'] ?? []) if (!inner.properties) parts.push(remedy(message))
  if (field.type === 'array') parts.push(`${field.minItems ?? 0} to ${field.maxItems} items`)
  else if (field['x-kubernetes-validations'] && inner.properties)
    parts.push(...field['x-kubernetes-validations'].map((each) => each.message))
  return parts.join('; ')
}

/** `not a duration: use a number with a unit` as `a number with a unit`; other messages as they are. */
function remedy(message: string): string {
  return message.replace(/^not .*?: use /, '')
}

function table(head: readonly string[], rows: readonly (readonly string[])[]): string {
  const line = (cells: readonly string[]) => `| ${cells.map((each) => each.replaceAll('|', '\\|')).join(' | ')} |`
  return [line(head), line(head.map(() => '---')), ...rows.map(line)].join('\n')
}
