/** `ambassador uninject`: prints pods and workloads without their sidecars. */
import { parseArgs } from 'node:util'
import type { JsonObject } from '../../operator/webhook/json.ts'
import { uninjectObject } from '../../operator/webhook/manifest.ts'
import { readDocuments, type SourceDocument, UnreadableError } from '../documents.ts'
import { Exit } from '../exit.ts'
import { printDocument } from '../print.ts'

export const summary = 'take sidecars out of pods and workloads of a YAML stream'

export const usage = `
Usage: ambassador uninject -f FILE [-f FILE ...]

Prints every object in the files as YAML, without the sidecars that Ambassador put in: its container, volumes, host names, label
and annotations, as the status annotation lists them. The annotation ambassador.dev/inject stays: take it away, or set it to "false",
so that the cluster does not inject again. What is not verifiably ours is left alone.

  -f, --file FILE   YAML or JSON, several documents allowed; - is the standard input

Exit code: 0 done, 1 a file cannot be read, 2 wrong usage.
`

export async function run(args: string[]): Promise<number> {
  const { values } = parseArgs({ args, options: { file: { type: 'string', short: 'f', multiple: true } } })
  let documents: SourceDocument[]
  try {
    documents = await readDocuments(values.file ?? [])
  } catch (error) {
    if (!(error instanceof UnreadableError)) throw error
    console.error(error.message)
    return Exit.problem
  }
  for (const { value } of documents) printDocument(uninjectObject(value as JsonObject))
  return Exit.ok
}
