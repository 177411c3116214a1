/** Runs bytes through the parsers of Redis in reads of any size, as a session does, and collects what they tell. */
import type { Command } from '../../proxy/protocol/redis/commands.ts'
import { CommandParser, ReplyParser, wordHash } from '../../proxy/protocol/redis/parser.ts'

export interface Told {
  /** One line for each command or reply. */
  readonly lines: readonly string[]
  /** Why it is refused; null: it is not. */
  readonly failure: string | null
  /** Something has begun and is not over. */
  readonly isIncomplete: boolean
  /** Bytes that may be passed on; without the gathered commands, which may be replaced. */
  readonly passed: number
}

/** Where the reads end: after each of these many bytes, the last one again and again. */
export type Reads = (at: number) => number

export function tellCommands(bytes: Buffer, reads: Reads): Told {
  const parser = new CommandParser()
  const lines: string[] = []
  const sink = {
    onCommand: ({ name }: Command, args: number) => {
      lines.push(`${name} ${args}`)
    },
  }
  let passed = 0
  let kept = Buffer.alloc(0)
  for (let from = 0; from < bytes.length; ) {
    const to = Math.min(bytes.length, from + reads(from))
    // What is behind the read belongs to nobody: a parser that looks there reads garbage.
    const chunk = Buffer.concat([kept, bytes.subarray(from, to), Buffer.from('\r\n$9\r\n*garbage')])
    const end = kept.length + to - from
    let at = 0
    for (;;) {
      const start = at
      at = parser.run(chunk, at, end, sink)
      passed += at - start
      if (parser.stop !== 'gathered') break
      lines.push(`gathered ${parser.args.map((arg) => arg.toString('latin1')).join(' ')}`)
      at = parser.next
    }
    if (parser.stop === 'bad') return { lines, failure: parser.failure, isIncomplete: false, passed }
    kept = Buffer.from(chunk.subarray(at, end))
    from = to
  }
  return { lines, failure: null, isIncomplete: kept.length > 0 || !parser.isAtBoundary, passed }
}

const WORDS = ['OK', 'PONG', 'RESET', 'READONLY', 'LOADING', 'MASTERDOWN', 'message', 'subscribe', 'unsubscribe']
const WORD_OF = new Map(WORDS.map((word) => [wordHash(word), word]))

export function tellReplies(bytes: Buffer, reads: Reads, options: { readonly isWordWanted?: boolean } = {}): Told {
  const parser = new ReplyParser()
  parser.isWordWanted = options.isWordWanted ?? false
  const lines: string[] = []
  const sink = {
    onReply: (type: number, word: number, integer: number) => {
      const known = WORD_OF.get(word)
      lines.push(
        [String.fromCharCode(type), known, integer >= 0 ? integer : undefined]
          .filter((part) => part !== undefined)
          .join(' '),
      )
    },
  }
  for (let from = 0; from < bytes.length; ) {
    const to = Math.min(bytes.length, from + reads(from))
    const chunk = Buffer.concat([bytes.subarray(from, to), Buffer.from('\r\n$9\r\n*garbage')])
    const at = parser.run(chunk, 0, to - from, sink)
    if (parser.failure !== null) return { lines, failure: parser.failure, isIncomplete: false, passed: from + at }
    from = to
  }
  return { lines, failure: null, isIncomplete: !parser.isAtBoundary, passed: bytes.length }
}
