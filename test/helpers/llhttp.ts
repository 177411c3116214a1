/** The parser inside Node as an oracle: what llhttp makes of the same bytes, with every leniency off. For tests only. */
import { createRequire } from 'node:module'
import type { Message } from './codec.ts'

interface Binding {
  readonly HTTPParser: {
    new (): Parser
    readonly REQUEST: number
    readonly RESPONSE: number
    readonly kOnMessageBegin: number
    readonly kOnHeaders: number
    readonly kOnHeadersComplete: number
    readonly kOnBody: number
    readonly kOnMessageComplete: number
    readonly kLenientNone: number
  }
  readonly methods: readonly string[]
  readonly allMethods: readonly string[]
}

interface Parser {
  initialize(type: number, resource: object, maxHeaderSize: number, lenient: number): void
  execute(bytes: Buffer): number | Error
  finish(): Error | undefined
  [event: number]: (...values: never[]) => unknown
}

type Common = { readonly HTTPParser: Binding['HTTPParser']; readonly methods: readonly string[] }
const common = createRequire(import.meta.url)('_http_common') as Common
const { HTTPParser } = common

/** Methods that llhttp knows; it refuses every other one. */
export const LLHTTP_METHODS: ReadonlySet<string> = new Set(common.methods)

export interface OracleResult {
  readonly messages: readonly Message[]
  /** Its code (`HPE_INVALID_...`); null when it took everything. */
  readonly refused: string | null
}

/** One for all: a parser is never collected, and initialize() makes it new. */
const parser = new HTTPParser()

interface MutableMessage {
  start: string
  fields: (readonly [string, string])[]
  body: string
  isComplete: boolean
}

/**
 * @param skipsBody for responses: the request was HEAD
 * @param ends the peer sent FIN behind the bytes
 */
export function llhttp(side: 'request' | 'response', bytes: Buffer, skipsBody = false, ends = false): OracleResult {
  parser.initialize(side === 'request' ? HTTPParser.REQUEST : HTTPParser.RESPONSE, {}, 1 << 20, HTTPParser.kLenientNone)
  const messages: MutableMessage[] = []
  let fields: string[] = []
  const flush = (message: MutableMessage): void => {
    for (let i = 0; i < fields.length; i += 2) message.fields.push([fields[i]!, fields[i + 1]!])
    fields = []
  }
  parser[HTTPParser.kOnMessageBegin] = () => {}
  let target = ''
  // Called before kOnHeadersComplete when there are many fields, and for trailers.
  parser[HTTPParser.kOnHeaders] = ((list: string[], url: string) => {
    fields.push(...list)
    target += url
  }) as never
  parser[HTTPParser.kOnHeadersComplete] = ((
    _major: number,
    _minor: number,
    list: string[] | undefined,
    method: number,
    url: string,
    status: number,
  ) => {
    if (list !== undefined) fields.push(...list)
    const start = side === 'request' ? `${common.methods[method]} ${url ?? target}` : String(status)
    const message: MutableMessage = { start, fields: [], body: '', isComplete: false }
    flush(message)
    messages.push(message)
    // 1: no body whatever the fields say.
    return skipsBody ? 1 : 0
  }) as never
  parser[HTTPParser.kOnBody] = ((chunk: Buffer) => {
    messages.at(-1)!.body += chunk.toString('latin1')
  }) as never
  parser[HTTPParser.kOnMessageComplete] = () => {
    fields = []
    target = ''
    messages.at(-1)!.isComplete = true
  }
  const result = parser.execute(bytes)
  if (result instanceof Error) return { messages, refused: (result as NodeJS.ErrnoException).code ?? 'unknown' }
  const finished = ends ? parser.finish() : undefined
  return { messages, refused: finished === undefined ? null : ((finished as NodeJS.ErrnoException).code ?? 'unknown') }
}
