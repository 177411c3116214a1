/** Reporter of node:test that writes one JSON line per event to file descriptor 3, for test/runner/test-file.ts. */

import { writeSync } from 'node:fs'
import { basename } from 'node:path'
import type { TestEvent } from 'node:test/reporters'
import { inspect } from 'node:util'

/** What a test file tells the runner while it runs. */
export type FileEvent =
  | { readonly kind: 'enqueued' }
  | { readonly kind: 'completed' }
  | {
      readonly kind: 'result'
      readonly outcome: 'passed' | 'failed' | 'skipped'
      /** Titles from the outermost suite to the test. */
      readonly path: readonly string[]
      /** A suite fails by itself only when a hook of it fails. */
      readonly isSuite: boolean
      /** Failed because a test inside failed, or a hook around it. */
      readonly isEcho: boolean
      /** Why it failed or was skipped. */
      readonly detail: string
    }
  | { readonly kind: 'done' }

const CHANNEL = 3

// Written at once and not by a stream: a test may end its process.
const tell = (event: FileEvent): void => {
  writeSync(CHANNEL, `${JSON.stringify(event)}\n`)
}

// biome-ignore lint/style/noDefaultExport: node:test loads a reporter by its default export
export default async function* report(source: AsyncIterable<TestEvent>): AsyncGenerator<string> {
  const titles: string[] = []
  for await (const event of source) {
    if (event.type === 'test:enqueue') tell({ kind: 'enqueued' })
    else if (event.type === 'test:complete') tell({ kind: 'completed' })
    else if (event.type === 'test:start') {
      titles.length = event.data.nesting
      titles.push(event.data.name)
    } else if (event.type === 'test:pass' || event.type === 'test:fail') tell(resultOf(event, titles))
    else if (event.type === 'test:summary') tell({ kind: 'done' })
  }
  yield ''
}

const resultOf = (event: Extract<TestEvent, { type: 'test:pass' | 'test:fail' }>, titles: string[]): FileEvent => {
  const { data } = event
  titles.length = data.nesting
  const path = [...titles, data.name]
  const isSuite = data.details.type === 'suite'
  if (event.type === 'test:fail') {
    const { error } = event.data.details
    const isEcho = ['subtestsFailed', 'cancelledByParent'].includes(
      (error as { failureType?: string }).failureType ?? '',
    )
    return { kind: 'result', outcome: 'failed', path, isSuite, isEcho, detail: explain(error) }
  }
  const skip = data.skip ?? data.todo
  if (skip !== undefined && skip !== false) {
    const detail = typeof skip === 'string' ? skip : ''
    return { kind: 'result', outcome: 'skipped', path, isSuite, isEcho: false, detail }
  }
  // A file that declares no test is reported as one test of the file's name that passed.
  if (!isSuite && data.nesting === 0 && data.file !== undefined && data.name.endsWith(basename(data.file)))
    return { kind: 'result', outcome: 'failed', path, isSuite, isEcho: false, detail: 'has no test' }
  return { kind: 'result', outcome: 'passed', path, isSuite, isEcho: false, detail: '' }
}

/** The error of the test itself with its causes, without the frames of Node's own files. */
const explain = (error: unknown): string => {
  const own = error instanceof Error && error.cause !== undefined ? error.cause : error
  const lines: string[] = []
  for (let e: unknown = own, depth = 0; e !== undefined && depth < 5; depth++) {
    const text = e instanceof Error ? (e.stack ?? e.message) : typeof e === 'string' ? e : inspect(e, { depth: 5 })
    lines.push(
      ...`${depth === 0 ? '' : 'caused by '}${text}`.split('\n').filter((line) => !/^\s+at .*\(?node:/.test(line)),
    )
    e = e instanceof Error ? e.cause : undefined
  }
  return lines.join('\n').trimEnd()
}
