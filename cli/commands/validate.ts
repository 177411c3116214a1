/** `ambassador validate`: says what the API server and the operator would say, without a cluster. */
import { parseArgs } from 'node:util'
import { Annotation, GROUP, KIND } from '../../common/names.ts'
import type { Ambassador } from '../../operator/api/ambassador.ts'
import { checkObject, type Issue } from '../../operator/api/check.ts'
import { render } from '../../operator/render/render.ts'
import { readDocuments, type SourceDocument, UnreadableError } from '../documents.ts'
import { Exit } from '../exit.ts'
import { unknownFields } from '../unknown-fields.ts'

export const summary = 'check Ambassadors as the API server and the operator would'

export const usage = `
Usage: ambassador validate -f FILE [-f FILE ...] [--quiet]

Checks every Ambassador in the files: fields, values, rules, and what can be seen across documents, such as two Ambassadors
with one port on the same workload. Other objects are passed over.

  -f, --file FILE   YAML or JSON, several documents allowed; - is the standard input
  -q, --quiet       print problems only

Each problem is one line: FILE:LINE: KIND 'NAME': FIELD: what is wrong and the remedy. Warnings do not make it fail.
Exit code: 0 no problem, 1 problems, 2 wrong usage.
`

interface Found {
  readonly document: SourceDocument
  readonly isWarning: boolean
  readonly subject: string
  readonly issue: Issue
}

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: { file: { type: 'string', short: 'f', multiple: true }, quiet: { type: 'boolean', short: 'q' } },
  })
  let documents: SourceDocument[]
  try {
    documents = await readDocuments(values.file ?? [])
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error
    console.log(error.message)
    return Exit.problem
  }
  const ambassadors = documents.filter(isOurs)
  const found = [...ambassadors.flatMap(problemsOf), ...sameNames(ambassadors), ...sharedPorts(documents)]
  for (const { document, isWarning, subject, issue } of found) {
    const place = `${document.file}:${document.lineOf(issue.field)}`
    const field = issue.field === '' ? '' : `${issue.field}: `
    console.log(`${place}: ${isWarning ? 'warning: ' : ''}${subject}: ${field}${issue.message}`)
  }
  const errors = found.filter((each) => !each.isWarning).length
  if (ambassadors.length === 0) {
    console.log(`${(values.file ?? []).join(', ')}: there is no Ambassador in it`)
    return Exit.problem
  }
  if (!values.quiet) {
    console.log(
      `${count(ambassadors.length, 'Ambassador')}, ${count(errors, 'problem')}, ${count(found.length - errors, 'warning')}`,
    )
  }
  return errors > 0 ? Exit.problem : Exit.ok
}

/** Anything of our group counts, so that a wrong kind or version is said and not passed over. */
function isOurs({ value }: SourceDocument): boolean {
  const { apiVersion, kind } = (value ?? {}) as { apiVersion?: unknown; kind?: unknown }
  return kind === KIND || (typeof apiVersion === 'string' && apiVersion.startsWith(`${GROUP}/`))
}

function problemsOf(document: SourceDocument): Found[] {
  const object = document.value as Ambassador
  const subject = subjectOf(document.value)
  const say = (isWarning: boolean) => (issue: Issue) => ({ document, isWarning, subject, issue })
  const errors = [...checkObject(object), ...unknownFields(object)]
  if (errors.length > 0) return errors.map(say(false))
  return render({ ambassador: object }).problems.map((problem) => say(problem.severity === 'Warning')(problem))
}

/** Of two objects with one name, an API server keeps the one that is applied last. */
function sameNames(ambassadors: readonly SourceDocument[]): Found[] {
  const found: Found[] = []
  const first = new Map<string, SourceDocument>()
  for (const document of ambassadors) {
    const name = (document.value as Partial<Ambassador>).metadata?.name
    if (typeof name !== 'string') continue
    const key = `${namespaceOf(document.value) ?? ''}/${name}`
    const other = first.get(key)
    if (other === undefined) {
      first.set(key, document)
      continue
    }
    const message = `'${name}' is the name of the Ambassador at ${other.file}:${other.lineOf('metadata.name')} too: the one that is applied last replaces the other, give it another name`
    found.push({
      document,
      isWarning: true,
      subject: subjectOf(document.value),
      issue: { field: 'metadata.name', message },
    })
  }
  return found
}

/** Two Ambassadors of one pod cannot listen on one port. */
function sharedPorts(documents: readonly SourceDocument[]): Found[] {
  const found: Found[] = []
  for (const document of documents) {
    const [names, field] = injected(document.value)
    const byPort = new Map<number, string>()
    for (const name of names) {
      const port = documents
        .map((each) => portOf(each.value, name, namespaceOf(document.value)))
        .find((each) => each !== undefined)
      if (port === undefined) continue
      const other = byPort.get(port)
      if (other !== undefined && other !== name) {
        const message = `Ambassadors '${other}' and '${name}' both listen on port ${port}: give one of them another port`
        found.push({ document, isWarning: false, subject: subjectOf(document.value), issue: { field, message } })
      }
      byPort.set(port, name)
    }
  }
  return found
}

interface Annotated {
  metadata?: { annotations?: Record<string, unknown> }
  spec?: { template?: Annotated; jobTemplate?: { spec?: { template?: Annotated } } }
}

/** The names in the annotation of a workload or pod, and where it stands. As in the webhook the template's annotation wins over the workload's, and "false" over both. */
function injected(value: unknown): [string[], string] {
  const object = value as Annotated | null
  const places: [Annotated | undefined | null, string][] = [
    [object?.spec?.template, 'spec.template.'],
    [object?.spec?.jobTemplate?.spec?.template, 'spec.jobTemplate.spec.template.'],
    [object, ''],
  ]
  const textAt = (place: Annotated | undefined | null): unknown => place?.metadata?.annotations?.[Annotation.inject]
  if (places.some(([place]) => textAt(place) === 'false')) return [[], '']
  for (const [place, path] of places) {
    const text = textAt(place)
    if (typeof text !== 'string') continue
    return [text.split(',').map((each) => each.trim()), `${path}metadata.annotations.${Annotation.inject}`]
  }
  return [[], '']
}

function portOf(value: unknown, name: string, namespace: string | undefined): number | undefined {
  const object = value as Partial<Ambassador> | null
  if (object?.kind !== KIND || object.metadata?.name !== name || namespaceOf(value) !== namespace) return undefined
  return object.spec?.listen?.port
}

function namespaceOf(value: unknown): string | undefined {
  return (value as { metadata?: { namespace?: string } } | null)?.metadata?.namespace
}

function subjectOf(value: unknown): string {
  const { kind, metadata } = (value ?? {}) as { kind?: unknown; metadata?: { name?: unknown } | null }
  const name = typeof metadata?.name === 'string' ? ` '${metadata.name}'` : ' without a name'
  return `${typeof kind === 'string' ? kind : 'object'}${name}`
}

function count(number: number, word: string): string {
  return `${number} ${word}${number === 1 ? '' : 's'}`
}
