/** `ambassador render`: prints the ConfigMaps that the operator would write. */
import { parseArgs } from 'node:util'
import { KIND } from '../../common/names.ts'
import type { Ambassador } from '../../operator/api/ambassador.ts'
import { checkObject } from '../../operator/api/check.ts'
import { configMapOf } from '../../operator/render/objects.ts'
import { problemText } from '../../operator/render/problems.ts'
import { render } from '../../operator/render/render.ts'
import { readDocuments, type SourceDocument, UnreadableError } from '../documents.ts'
import { Exit } from '../exit.ts'
import { printDocument } from '../print.ts'
import { noStandIn, SERVICE_USAGE, standIns } from '../services.ts'
import { unknownFields } from '../unknown-fields.ts'

export const summary = 'print the ConfigMaps that the operator would write for Ambassadors'

export const usage = `
Usage: ambassador render -f FILE [-f FILE ...] [-n NAMESPACE] [--service NAME=HOST:PORT ...]

Prints one ConfigMap for each Ambassador in the files, as YAML: what its sidecars would read. Problems and warnings go to the
standard error; an Ambassador with a problem is left out. Other objects are passed over.

  -f, --file FILE       YAML or JSON, several documents allowed; - is the standard input
  -n, --namespace NAME  namespace of Ambassadors that name none (default: default)
${SERVICE_USAGE}

Exit code: 0 all were rendered, 1 one was not, 2 wrong usage.
`

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      file: { type: 'string', short: 'f', multiple: true },
      namespace: { type: 'string', short: 'n' },
      service: { type: 'string', multiple: true },
    },
  })
  let documents: SourceDocument[]
  try {
    documents = await readDocuments(values.file ?? [])
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error
    console.error(error.message)
    return Exit.problem
  }
  const ambassadors = documents.filter(({ value }) => (value as { kind?: unknown } | null)?.kind === KIND)
  if (ambassadors.length === 0) {
    console.error(`${(values.file ?? []).join(', ')}: there is no Ambassador in it`)
    return Exit.problem
  }
  let exit: number = Exit.ok
  for (const document of ambassadors) {
    const object = document.value as Ambassador
    const say = (field: string, text: string) => console.error(`${document.file}:${document.lineOf(field)}: ${text}`)
    const broken = [...checkObject(object), ...unknownFields(object)]
    for (const { field, message } of broken) say(field, `${field}: ${message}`)
    if (broken.length > 0) {
      exit = Exit.problem
      continue
    }
    const namespace = object.metadata.namespace ?? values.namespace
    const ambassador = { ...object, metadata: { ...object.metadata, namespace } }
    const services = standIns(values.service ?? [], (ref) => {
      say(
        'spec.upstreams',
        `warning: spec.upstreams: ${noStandIn(ref)}, so it has no endpoint here: the operator fills them in`,
      )
    })
    const { config, problems } = render({ ambassador, services })
    for (const problem of problems) say(problem.field, `${problem.severity.toLowerCase()}: ${problemText(problem)}`)
    if (config) printDocument(configMapOf(ambassador, config))
    else exit = Exit.problem
  }
  return exit
}
