/** `ambassador inject`: prints pods and workloads with their sidecars, as the webhook would make them. */
import { parseArgs } from 'node:util'
import { KIND } from '../../common/names.ts'
import type { Ambassador } from '../../operator/api/ambassador.ts'
import type { InjectableAmbassador } from '../../operator/webhook/ambassador.ts'
import type { JsonObject } from '../../operator/webhook/json.ts'
import { injectObject, publishedFrom } from '../../operator/webhook/manifest.ts'
import { DEFAULT_SETTINGS } from '../../operator/webhook/settings.ts'
import { readDocuments, type SourceDocument, UnreadableError } from '../documents.ts'
import { Exit, UsageError } from '../exit.ts'
import { printDocument } from '../print.ts'

/** As `npm run images` tags it. */
const DEFAULT_IMAGE = 'localhost/ambassador-proxy:dev'

export const summary = 'put sidecars into pods and workloads of a YAML stream'

export const usage = `
Usage: ambassador inject -f FILE [-f FILE ...] [--ambassadors FILE ...] [-n NAMESPACE] [--image IMAGE]

Prints every object in the files as YAML. Pods, and the pod templates of Deployments, StatefulSets, DaemonSets, ReplicaSets, Jobs
and CronJobs, that carry the annotation ambassador.dev/inject (a workload may carry it itself) get the sidecar that the operator
would give them; everything else is printed as it is. The Ambassadors that they name are looked for in the same files and in those
of --ambassadors, which are not printed.

  -f, --file FILE         YAML or JSON, several documents allowed; - is the standard input
      --ambassadors FILE  more files with Ambassadors
  -n, --namespace NAME    namespace of objects that name none (default: default)
      --image IMAGE       image of the sidecar (default: ${DEFAULT_IMAGE})

Injecting twice gives the same; \`ambassador uninject\` gives back what was there.
Exit code: 0 done, 1 an object cannot be injected (it is left out), 2 wrong usage.
`

interface Placed {
  readonly namespace: string
  readonly ambassador: InjectableAmbassador
}

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({
    args,
    options: {
      file: { type: 'string', short: 'f', multiple: true },
      ambassadors: { type: 'string', multiple: true },
      namespace: { type: 'string', short: 'n' },
      image: { type: 'string' },
    },
  })
  const files = values.file ?? []
  if ([...files, ...(values.ambassadors ?? [])].filter((file) => file === '-').length > 1) {
    throw new UsageError('the standard input can be read once: use - for one file')
  }
  const fallback = values.namespace ?? 'default'
  let documents: SourceDocument[]
  let others: SourceDocument[]
  try {
    documents = await readDocuments(files)
    others = values.ambassadors === undefined ? [] : await readDocuments(values.ambassadors)
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error
    console.error(error.message)
    return Exit.problem
  }
  const placed = [...documents, ...others].flatMap((document) => ambassadorOf(document, fallback))
  const settings = { ...DEFAULT_SETTINGS, image: values.image ?? DEFAULT_IMAGE }
  let exit: number = Exit.ok
  for (const document of documents) {
    const object = document.value as JsonObject
    const namespace = namespaceOf(object) ?? fallback
    const ambassadors = new Map(
      placed.filter((each) => each.namespace === namespace).map(({ ambassador }) => [ambassador.name, ambassador]),
    )
    const say = (text: string) => console.error(`${document.file}:${document.lineOf('metadata.annotations')}: ${text}`)
    const result = injectObject(object, { namespace, ambassadors, settings })
    if (result.kind === 'denial') {
      say(`${subjectOf(object)}: ${result.message}`)
      exit = Exit.problem
      continue
    }
    if (result.kind === 'injected') for (const text of result.warnings) say(`warning: ${subjectOf(object)}: ${text}`)
    printDocument(result.kind === 'injected' ? result.object : object)
  }
  return exit
}

function ambassadorOf(document: SourceDocument, fallback: string): Placed[] {
  const object = document.value as Ambassador
  if ((object as { kind?: unknown } | null)?.kind !== KIND || typeof object.metadata?.name !== 'string') return []
  return [{ namespace: object.metadata.namespace ?? fallback, ambassador: publishedFrom(object) }]
}

function namespaceOf(object: JsonObject): string | undefined {
  return (object as { metadata?: { namespace?: string } | null } | null)?.metadata?.namespace
}

function subjectOf(object: JsonObject): string {
  const { kind, metadata } = object as { kind?: unknown; metadata?: { name?: unknown; generateName?: unknown } | null }
  return `${String(kind)} '${String(metadata?.name ?? metadata?.generateName ?? '')}'`
}
