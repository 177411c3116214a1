/** Reads along on the connection of an application, and tells of each statement when it has ended: what kind, how long, how many rows. */
import type { QueryLogConfig } from '../../../common/proxy-config.ts'
import { now } from '../../runtime/clock.ts'
import type { SocketTap } from '../../runtime/raw-socket.ts'
import { Back, Front, HEAD_BYTES } from './messages.ts'
import { isSensitive, redact } from './redact.ts'
import { Splitter, wantHeads } from './splitter.ts'

/** One statement that has ended. */
export interface QueryRecord {
  readonly database: string
  readonly protocol: 'simple' | 'extended'
  /** Without literals, unless the config says otherwise; at most MAX_SHOWN characters. */
  readonly statement: string
  /** Of its kind: the same for statements that differ in literals, case and white space alone. */
  readonly fingerprint: string
  readonly durationMs: number
  /** Rows that the server says; null when it says none. */
  readonly rows: number | null
  /** SQLSTATE; null when it did not fail. */
  readonly code: string | null
}

/** What is read of a statement; the rest of a longer one is not looked at. */
const MAX_TEXT_BYTES = 8 * 1024
const MAX_SHOWN = 2000
/** Names of statements and portals have at most 63 bytes each in the server. */
const NAMES_BYTES = HEAD_BYTES + 160
const TAG_BYTES = HEAD_BYTES + 80
const ERROR_BYTES = HEAD_BYTES + 160
/** Of a connection: prepared statements that are known, and messages without an answer. */
const MAX_STATEMENTS = 500
const MAX_OPEN = 20_000

const FROM_CLIENT = wantHeads()
FROM_CLIENT[Front.query] = HEAD_BYTES + MAX_TEXT_BYTES
FROM_CLIENT[Front.parse] = HEAD_BYTES + MAX_TEXT_BYTES
for (const code of [Front.bind, Front.describe, Front.execute, Front.close]) FROM_CLIENT[code] = NAMES_BYTES

const FROM_SERVER = wantHeads()
FROM_SERVER[Back.commandComplete] = TAG_BYTES
FROM_SERVER[Back.error] = ERROR_BYTES

/** What a client sent and the server has not answered. */
interface Open {
  readonly code: number
  /** Of the statement; null for Sync, and where it is not known. */
  readonly text: string | null
  at: number
  /** Of a simple query: how many of its statements have ended. */
  ended: number
}

export interface QueryLogOptions {
  readonly database: string
  /** Of the config in force; null: nothing is told. Asked for each statement. */
  readonly config: () => QueryLogConfig | null
  readonly onQuery: (record: QueryRecord) => void
  readonly random: () => number
}

export class QueryLog implements SocketTap {
  readonly #options: QueryLogOptions
  readonly #client = new Splitter(FROM_CLIENT)
  readonly #server = new Splitter(FROM_SERVER)
  /** Text of what is prepared, by name, and of what is bound, by portal. */
  readonly #statements = new Map<string, string>()
  readonly #portals = new Map<string, string>()
  #open: Open[] = []
  #first = 0
  /** What came before this cannot be told from what comes: nothing more is told of this connection. */
  #isLost = false

  constructor(options: QueryLogOptions) {
    this.#options = options
  }

  onRead(chunk: Buffer, length: number): void {
    if (this.#isLost) return
    const client = this.#client
    client.feed(chunk, 0, length)
    while (client.next()) if (client.isFirst) this.#onClient(client.code, client.bytes, client.from, client.to)
    if (client.isBroken || this.#open.length - this.#first > MAX_OPEN) this.#lose()
  }

  onWrite(data: Buffer): void {
    if (this.#isLost) return
    const server = this.#server
    server.feed(data, 0, data.length)
    while (server.next()) if (server.isFirst) this.#onServer(server.code, server.bytes, server.from, server.to)
    if (server.isBroken) this.#lose()
  }

  #lose(): void {
    this.#isLost = true
    this.#open = []
    this.#statements.clear()
    this.#portals.clear()
  }

  #onClient(code: number, bytes: Buffer, from: number, to: number): void {
    const at = from + HEAD_BYTES
    switch (code) {
      case Front.query:
        this.#push(code, textAt(bytes, at, to))
        return
      case Front.parse: {
        const text = textAt(bytes, endAt(bytes, at, to) + 1, to)
        keep(this.#statements, textAt(bytes, at, to), text)
        this.#push(code, text)
        return
      }
      case Front.bind: {
        const text = this.#statements.get(textAt(bytes, endAt(bytes, at, to) + 1, to)) ?? null
        keep(this.#portals, textAt(bytes, at, to), text)
        this.#push(code, text)
        return
      }
      case Front.execute:
        this.#push(code, this.#portals.get(textAt(bytes, at, to)) ?? null)
        return
      case Front.describe:
      case Front.close: {
        const isStatement = bytes[at] === STATEMENT
        const name = textAt(bytes, at + 1, to)
        const of = isStatement ? this.#statements : this.#portals
        this.#push(code, of.get(name) ?? null)
        if (code === Front.close) of.delete(name)
        return
      }
      case Front.sync:
      case Front.functionCall:
        this.#push(code, null)
        return
    }
  }

  #push(code: number, text: string | null): void {
    this.#open.push({ code, text, at: now(), ended: 0 })
  }

  #onServer(code: number, bytes: Buffer, from: number, to: number): void {
    const open = this.#open[this.#first]
    if (open === undefined) return
    switch (code) {
      case Back.parseComplete:
        this.#popIf(Front.parse)
        return
      case Back.bindComplete:
        this.#popIf(Front.bind)
        return
      case Back.closeComplete:
        this.#popIf(Front.close)
        return
      case Back.rowDescription:
      case Back.noData:
        this.#popIf(Front.describe)
        return
      case Back.commandComplete:
        this.#ended(open, rowsOf(textAt(bytes, from + HEAD_BYTES, to)), null)
        this.#popIf(Front.execute)
        return
      case Back.emptyQuery:
      case Back.portalSuspended:
        this.#popIf(Front.execute)
        return
      case Back.error:
        this.#ended(open, null, stateOf(bytes, from + HEAD_BYTES, to))
        // The server passes over what comes until Sync.
        if (open.code !== Front.query && open.code !== Front.functionCall) while (this.#popUnless(Front.sync));
        return
      case Back.readyForQuery:
        if (open.code === Front.query || open.code === Front.functionCall || open.code === Front.sync) this.#pop()
        return
    }
  }

  #pop(): void {
    this.#open[this.#first] = NOTHING
    this.#first++
    if (this.#first < this.#open.length) {
      if (this.#first < 64) return
      this.#open.splice(0, this.#first)
    } else this.#open.length = 0
    this.#first = 0
  }

  #popIf(code: number): void {
    if (this.#open[this.#first]?.code === code) this.#pop()
  }

  #popUnless(code: number): boolean {
    const open = this.#open[this.#first]
    if (open === undefined || open.code === code) return false
    this.#pop()
    return true
  }

  #ended(open: Open, rows: number | null, code: string | null): void {
    const config = this.#options.config()
    const startedAt = open.at
    const index = open.ended++
    // The next statement of a simple query begins where this one ends.
    open.at = now()
    if (config === null || open.text === null) return
    const durationMs = open.at - startedAt
    if (durationMs < config.minDurationMs) return
    if (config.sample < 1 && this.#options.random() >= config.sample) return
    const shapes = redact(open.text)
    const shape = open.code === Front.query ? (shapes[index] ?? shapes.at(-1)) : shapes.join('; ')
    if (shape === undefined) return
    const isShown =
      !config.redactLiterals && !isSensitive(open.text) && (open.code !== Front.query || shapes.length === 1)
    this.#options.onQuery({
      database: this.#options.database,
      protocol: open.code === Front.query ? 'simple' : 'extended',
      statement: (isShown ? open.text : shape).slice(0, MAX_SHOWN),
      fingerprint: fingerprint(shape),
      durationMs,
      rows,
      code,
    })
  }
}

const STATEMENT = 0x53 // S
const NOTHING: Open = { code: 0, text: null, at: 0, ended: 0 }

/** A string that a NUL ends, or the end of what was read. */
function textAt(bytes: Buffer, from: number, to: number): string {
  return bytes.toString('utf8', Math.min(from, to), endAt(bytes, from, to))
}

function endAt(bytes: Buffer, from: number, to: number): number {
  const end = bytes.indexOf(0, from)
  return end < 0 || end > to ? to : end
}

function keep(texts: Map<string, string>, name: string, text: string | null): void {
  texts.delete(name)
  if (text === null) return
  texts.set(name, text)
  if (texts.size > MAX_STATEMENTS) texts.delete(texts.keys().next().value as string)
}

/** `INSERT 0 3`, `SELECT 12`, `COPY 7`: the last number. Other tags have none. */
function rowsOf(tag: string): number | null {
  const found = / (\d{1,15})$/.exec(tag)
  return found === null ? null : Number(found[1])
}

/** The field C of an ErrorResponse. */
function stateOf(bytes: Buffer, from: number, to: number): string {
  const fields = bytes.toString('latin1', from, to).split('\0')
  return fields.find((field) => /^C[0-9A-Z]{5}$/.test(field))?.slice(1) ?? 'XX000'
}

function fingerprint(shape: string): string {
  const { createHash } = process.getBuiltinModule('node:crypto')
  return createHash('sha256').update(shape.toLowerCase()).digest('hex').slice(0, 16)
}
