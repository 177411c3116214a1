/** Reads YAML or JSON documents from files as kubectl reads them, and knows on which line each field stands. */
import { readFile } from 'node:fs/promises'
import { text } from 'node:stream/consumers'
import {
  boolYaml11Tag,
  CORE_SCHEMA,
  constructFromEvents,
  EVENT_ID,
  type Event,
  getScalarValue,
  mergeTag,
  parseEvents,
  YAMLException,
} from 'js-yaml'
import { UsageError } from './exit.ts'

/** One object in a file. */
export interface SourceDocument {
  /** Path as given, or `<stdin>`. */
  readonly file: string
  readonly value: unknown
  /** Line of a field, from 1: of the nearest field around it when it is not there. Path such as `spec.listen.port`. */
  lineOf(path: string): number
}

/** A file that cannot be read or is not YAML. The message says where and why. */
export class UnreadableError extends Error {
  override readonly name = 'UnreadableError'
}

// kubectl, Helm and the API server take on, off, yes and no for booleans, as YAML 1.1 does. Reading them in another way would
// call a file good that they refuse, or the reverse.
const SCHEMA = CORE_SCHEMA.withTags(boolYaml11Tag, mergeTag)

/**
 * Every object in some files, in order; `-` is the standard input. The items of a list are objects of their own.
 * @throws {UsageError} when no file is named
 * @throws {UnreadableError}
 */
export async function readDocuments(files: readonly string[]): Promise<SourceDocument[]> {
  if (files.length === 0) throw new UsageError('no file is named: use -f FILE, or -f - for the standard input')
  const documents: SourceDocument[] = []
  for (const file of files) documents.push(...parseDocuments(await contentOf(file), file === '-' ? '<stdin>' : file))
  return documents
}

async function contentOf(file: string): Promise<string> {
  try {
    return file === '-' ? await text(process.stdin) : await readFile(file, 'utf8')
  } catch (error) {
    const { code, message } = error as NodeJS.ErrnoException
    throw new UnreadableError(`${file}: ${UNREADABLE[code ?? ''] ?? message}`)
  }
}

const UNREADABLE: Readonly<Record<string, string>> = {
  ENOENT: 'there is no such file',
  EISDIR: 'is a directory, name the files in it',
  EACCES: 'may not be read by this user, change its mode or its owner',
}

/** The objects of one text. Empty documents are passed over. */
export function parseDocuments(source: string, file: string): SourceDocument[] {
  try {
    const events = parseEvents(source, { filename: file })
    const values = constructFromEvents(events, { source, filename: file, schema: SCHEMA })
    const fault = aliasFault(values)
    if (fault !== undefined) throw new UnreadableError(`${file}: ${fault}`)
    const places = offsets(events, source)
    return values.flatMap((value, index) =>
      value === null || value === undefined ? [] : expand(value, places[index] ?? new Map(), source, file),
    )
  } catch (error) {
    if (!(error instanceof YAMLException)) throw error
    const line = error.mark ? `:${error.mark.line + 1}` : ''
    throw new UnreadableError(`${file}${line}: is not YAML: ${error.reason}`)
  }
}

/** Values in all documents of a file, each use of an alias counted: far above any manifest, and still printed in a moment. */
const MOST_VALUES = 5_000_000

/** Why values with aliases cannot be used, or undefined: one that holds itself has no end, and few lines can stand for more than fits in memory. */
function aliasFault(values: readonly unknown[]): string | undefined {
  const sizes = new Map<object, number>()
  const sizeOf = (value: unknown): number => {
    if (value === null || typeof value !== 'object') return 1
    const known = sizes.get(value)
    if (known !== undefined) return known
    sizes.set(value, Number.NaN) // until its end is reached, which one that holds itself never does
    let size = 1
    for (const each of Object.values(value)) size += sizeOf(each)
    sizes.set(value, size)
    return size
  }
  const size = sizeOf(values)
  if (Number.isNaN(size)) return 'an anchor holds an alias of itself, write the value out'
  return size > MOST_VALUES ? `its aliases stand for ${size} values, write fewer than ${MOST_VALUES}` : undefined
}

type Offsets = ReadonlyMap<string, number>

/** An object, or each item of a list, which may have the kind List or one of its own, such as PodList: there the items need not say theirs. */
function expand(value: unknown, places: Offsets, source: string, file: string): SourceDocument[] {
  const { apiVersion, kind, items } = value as { apiVersion?: unknown; kind?: unknown; items?: unknown }
  const at = (prefix: string) => (path: string) => lineAt(source, nearestOffset(places, prefix, path))
  if (typeof kind !== 'string' || !kind.endsWith('List') || !Array.isArray(items)) {
    return [{ file, value, lineOf: at('') }]
  }
  const head = kind === 'List' ? {} : { apiVersion, kind: kind.slice(0, -'List'.length) }
  return items.flatMap((item: unknown, index) => {
    if (item === null || item === undefined) return []
    const isObject = typeof item === 'object' && !Array.isArray(item)
    return [{ file, value: isObject ? { ...head, ...item } : item, lineOf: at(`items[${index}]`) }]
  })
}

function nearestOffset(places: Offsets, prefix: string, path: string): number {
  for (let at = path === '' || prefix === '' ? prefix + path : `${prefix}.${path}`; at !== ''; ) {
    const found = places.get(at)
    if (found !== undefined) return found
    at = at.slice(0, Math.max(0, at.lastIndexOf('.'), at.lastIndexOf('[')))
  }
  return places.get('') ?? 0
}

function lineAt(source: string, offset: number): number {
  let line = 1
  for (let at = source.indexOf('\n'); at >= 0 && at < offset; at = source.indexOf('\n', at + 1)) line++
  return line
}

/** Where each field of each document begins: of a field of a mapping its key, of an item of a list its value. */
function offsets(events: readonly Event[], source: string): Offsets[] {
  const documents: Map<string, number>[] = []
  let next = 0
  const node = (path: string, places: Map<string, number>): void => {
    const event = events[next++]
    if (!event) return
    if (event.type === EVENT_ID.MAPPING) {
      if (!places.has(path)) places.set(path, event.start)
      while (events[next] && events[next]!.type !== EVENT_ID.POP) {
        // A key is one event: a scalar or an alias. Other keys were refused when the values were made.
        const key = events[next++]!
        const name = key.type === EVENT_ID.SCALAR ? getScalarValue(source, key) : '?'
        const own = path === '' ? name : `${path}.${name}`
        if (key.type === EVENT_ID.SCALAR) places.set(own, key.valueStart)
        node(own, places)
      }
      next++
    } else if (event.type === EVENT_ID.SEQUENCE) {
      if (!places.has(path)) places.set(path, event.start)
      for (let index = 0; events[next] && events[next]!.type !== EVENT_ID.POP; index++)
        node(`${path}[${index}]`, places)
      next++
    } else if (event.type === EVENT_ID.SCALAR && !places.has(path)) {
      places.set(path, event.valueStart)
    }
  }
  while (next < events.length) {
    const event = events[next++]!
    if (event.type !== EVENT_ID.DOCUMENT) continue
    const places = new Map<string, number>()
    if (events[next]?.type !== EVENT_ID.POP) node('', places)
    next++
    documents.push(places)
  }
  return documents
}
