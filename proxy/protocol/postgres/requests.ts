/** Passes what a client asks on to a server: names of statements changed, statements prepared where they are not, and what changes the session noticed. */
import { LARGE_BYTES } from './batch.ts'
import { DOUBT } from './lexicon.ts'
import { Front, HEAD_BYTES, MAX_MESSAGE_BYTES, Transaction, unknownMessage } from './messages.ts'
import { out } from './outgoing.ts'
import type { Values } from './parameters.ts'
import type { Pool } from './pool.ts'
import { OUTLINE_BYTES } from './redact.ts'
import type { Server } from './server.ts'
import type { PinReason } from './session-host.ts'
import { Splitter, wantHeads } from './splitter.ts'
import { SqlScanner } from './sql.ts'
import { isOurName, Statement, type StatementEffects } from './statements.ts'
import { UnnamedStatement } from './unnamed.ts'

/** Whose requests they are. */
export interface Requester {
  readonly pool: Pool
  readonly isRaw: boolean
  /** It keeps the connection, on which parameters may be set that nobody knows of. */
  readonly isPinned: boolean
  readonly values: Values | null
  readonly maxStatements: number
  statements: Map<string, Statement> | null
  asksSequences: boolean
  /**
   * @param isStored it is a stored function, or a table or view, that needs the connection again
   * @param text of the statement that did it, as much of it as is known, good for the call alone; null: there is none
   */
  pin(reason: PinReason, isStored: boolean, text: Buffer | null): void
  /** What is stored in the database may be another thing when the transaction has ended. */
  changesSchema(): void
  /** Parameters may go back to what the session began with. */
  resetsParameters(): void
  /** Sends the client an answer of our own. */
  answer(bytes: Buffer): void
}

const WANTED = wantHeads().fill(LARGE_BYTES)
WANTED[Front.copyData] = HEAD_BYTES
const RAW = wantHeads()
RAW[Front.terminate] = HEAD_BYTES

const scanner = new SqlScanner()

/**
 * Parameters by which the server reads a text when it is prepared, and not when it is run: `'2026-01-02'::date`, a time without its
 * zone and names without their schema are looked up then.
 */
const DIALECT = [
  'client_encoding',
  'standard_conforming_strings',
  'datestyle',
  'intervalstyle',
  'timezone',
  'search_path',
] as const

const STATEMENT = 0x53 // S
/** Is a time of day when the text is prepared: who prepares it later means another one. */
const FLEETING = /'\s*(?:now|today|tomorrow|yesterday)\b/i
/** Parse of nothing as the unnamed statement: the server answers as to any other Parse. */
const PARSE_NOTHING = Buffer.from([Front.parse, 0, 0, 0, 8, 0, 0, 0, 0])
/** A statement that nobody has: to close it is no error. */
const NOBODYS = Buffer.from('ambassador_none\0')
const DEALLOCATE = /^\s*deallocate\s+(?:prepare\s+)?("(?:[^"]|"")+"|[a-z_\x80-\xff][\w$\x80-\xff]*)\s*;?\s*$/i
/** What may stand behind EXECUTE and DEALLOCATE, up to the end of a name. */
const NAMED =
  /(?:\s|--[^\n]*\n|\/\*[^*]*\*\/)*(?:prepare(?:\s|--[^\n]*\n|\/\*[^*]*\*\/)+(?!\s|;|$))?("(?:[^"]|"")+"|[a-z_\x80-\xff][\w$\x80-\xff]*)/iy
/** A statement of nothing, to be deallocated in place of one that clients share. */
const PREPARED_NOTHING = Buffer.alloc(3)
const SYNC = Buffer.from([Front.sync, 0, 0, 0, 4])
const DEALLOCATED = Buffer.from([0x43, 0, 0, 0, 15, ...Buffer.from('DEALLOCATE\0')])
const MAX_UNNAMED_BYTES = 64 * 1024

export class Requests {
  /** What is wrong with the bytes; null: nothing. */
  fault: string | null = null
  /** The client has said goodbye. */
  isTerminated = false
  readonly #requester: Requester
  readonly #splitter: Splitter
  /** What follows of a message that was begun goes to the server. */
  #follows = true
  /** Reads a long text that comes in pieces. */
  #long: SqlScanner | null = null
  /** How that text begins. */
  #longBegin: Buffer = NOTHING
  readonly #unnamed = new UnnamedStatement()
  #valuesSeen: Values | null = null
  /** Something that was sent may set parameters, and is not answered yet: what is prepared behind it is read by values not known here. */
  #isSetting = false
  #isEscaping = false
  #dialectSeen = ''

  constructor(requester: Requester) {
    this.#requester = requester
    this.#splitter = new Splitter(requester.isRaw ? RAW : WANTED)
  }

  /** In the middle of a message of which the server has a part. */
  get isInside(): boolean {
    return this.#splitter.isInside
  }

  /** The begin of a message that nothing was sent of. */
  takeHeld(): Buffer | null {
    return this.#splitter.takeHeld()
  }

  send(server: Server, bytes: Buffer, from: number, to: number): void {
    const splitter = this.#splitter
    if (this.#isSetting && server.owes === 0 && !server.isUnsynced) this.#isSetting = false
    splitter.feed(bytes, from, to)
    out.begin(server.raw, to - from + 512)
    while (splitter.next()) {
      if (!splitter.isFirst) {
        if (this.#long !== null) this.#readOn(server, splitter)
        if (this.#follows) out.add(splitter.bytes, splitter.from, splitter.to)
        continue
      }
      this.#follows = true
      if (this.#requester.isRaw ? this.#onRaw(server, splitter) : this.#onMessage(server, splitter)) {
        out.add(splitter.bytes, splitter.from, splitter.to)
      }
      if (this.isTerminated || this.fault !== null) break
    }
    out.flush()
    if (splitter.isBroken) this.fault = `a message of a length that cannot be, it has 4 to ${MAX_MESSAGE_BYTES} bytes`
  }

  /** What is owed must be known in any case. */
  #onRaw(server: Server, { code }: Splitter): boolean {
    switch (code) {
      case Front.query:
      case Front.functionCall:
        server.sentQuery()
        break
      case Front.sync:
        server.sentSync()
        break
      case Front.copyDone:
      case Front.copyFail:
        server.sentCopyEnd()
        break
      case Front.parse:
        server.sentParse(null, null, 'client')
        break
      case Front.close:
        server.sentClose(false)
        break
      case Front.terminate:
        this.isTerminated = true
        return false
      case Front.bind:
      case Front.describe:
      case Front.execute:
        server.sentStep()
        break
      default:
        break
    }
    return true
  }

  /** Returns whether the message goes to the server as it is; if not, what goes in its place is composed already. */
  #onMessage(server: Server, splitter: Splitter): boolean {
    const { code } = splitter
    if (server.isCopyIn && code !== Front.copyData) this.#onCopying(code)
    switch (code) {
      case Front.query:
        return this.#onQuery(server, splitter)
      case Front.parse:
        return this.#onParse(server, splitter)
      case Front.bind:
        return this.#onBind(server, splitter)
      case Front.describe:
        server.sentStep()
        return this.#onDescribe(server, splitter)
      case Front.close:
        return this.#onClose(server, splitter)
      case Front.execute:
        server.sentStep()
        return true
      case Front.sync:
        server.sentSync()
        return true
      case Front.functionCall:
        server.sentQuery()
        // It names a function by a number.
        server.isDoubtful = true
        return true
      case Front.copyDone:
      case Front.copyFail:
        server.sentCopyEnd()
        return true
      case Front.copyData:
      case Front.flush:
        return true
      case Front.terminate:
        this.isTerminated = true
        return false
      default:
        this.fault = unknownMessage(code)
        return false
    }
  }

  /** The server takes these as the end of the COPY, as an error, or not at all. */
  #onCopying(code: number): void {
    const isExpected = code === Front.copyDone || code === Front.copyFail || code === Front.sync || code === Front.flush
    if (!isExpected) this.#requester.pin('copy', false, null)
  }

  #onQuery(server: Server, splitter: Splitter): boolean {
    const { bytes, from, to } = splitter
    this.#unnamed.end(server)
    if (splitter.isLast) {
      const textAt = from + HEAD_BYTES
      this.#scan(bytes, textAt, to - 1)
      if (scanner.isDeallocate && scanner.statements === 1 && this.#isDeallocated(server, splitter)) return false
      if (scanner.namings.length > 0 && !server.isUnsynced) {
        const named = this.#named(server, bytes, textAt, to - 1)
        if (named !== null) {
          if (server.isUnsynced) {
            out.add(SYNC, 0, SYNC.length)
            server.sentOurSync()
          }
          out.head(Front.query, HEAD_BYTES + named.text.length + 1)
          out.add(named.text, 0, named.text.length)
          out.add(NUL, 0, 1)
          server.sentQuery()
          return false
        }
      }
      this.#note(server, scanner, bytes, textAt, to - 1)
    } else {
      this.#long = new SqlScanner()
      this.#long.words = this.#requester.pool.lexicon
      this.#long.begin(this.#escapes())
      this.#longBegin = beginOf(bytes, from + HEAD_BYTES, to)
      this.#long.feed(bytes, from + HEAD_BYTES, to)
    }
    server.sentQuery()
    return true
  }

  #readOn(server: Server, splitter: Splitter): void {
    const long = this.#long!
    long.feed(splitter.bytes, splitter.from, splitter.to)
    if (!splitter.isLast) return
    this.#long = null
    long.end()
    if (long.asksSequences) this.#requester.asksSequences = true
    const begin = this.#longBegin
    this.#longBegin = NOTHING
    this.#follow(server, long, begin, 0, begin.length)
  }

  #scan(bytes: Buffer, from: number, to: number): void {
    scanner.words = this.#requester.pool.lexicon
    scanner.begin(this.#escapes())
    scanner.feed(bytes, from, to)
    scanner.end()
  }

  #escapes(): boolean {
    this.#look()
    return this.#isEscaping
  }

  /** What the meaning of a text depends on: where one of DIALECT is another, the same text is another statement. */
  #dialect(): string {
    this.#look()
    return this.#dialectSeen
  }

  #look(): void {
    const { values, pool } = this.#requester
    if (values === this.#valuesSeen || values === null) return
    this.#valuesSeen = values
    this.#unnamed.doubt()
    this.#isEscaping = pool.parameters.valueOf(values, 'standard_conforming_strings') === 'off'
    this.#dialectSeen = `${DIALECT.map((name) => pool.parameters.valueOf(values, name)).join('\x01')}\0`
  }

  /** Draws the consequences of what a text was found to do. */
  #note(server: Server, found: StatementEffects, bytes: Buffer | null, from: number, to: number): void {
    if (found.asksSequences && !this.#requester.asksSequences) {
      this.#requester.asksSequences = true
      // The connection may know sequences of another client; what this one has used in its transaction must stay.
      if (server.isFree && out.isEmpty) server.run('discard sequences', null)
    }
    this.#follow(server, found, bytes, from, to)
  }

  #follow(server: Server, found: StatementEffects, bytes: Buffer | null, from: number, to: number): void {
    const { pin, parameters, isDoubtful, open, isStored, isChange, resets, defines } = found
    if (open.length > 0) {
      const begin = bytes === null ? NOTHING : beginOf(bytes, from, to)
      for (const hash of open) if (!server.open.has(hash)) server.open.set(hash, begin)
    }
    // A function that is called and dropped in one transaction is not there when the server is asked about it.
    if (isDoubtful || defines) server.isDoubtful = true
    if ((parameters & server.asked) !== 0 || (resets && server.hasAsked)) server.isUnsettled = true
    if (parameters !== 0 || pin !== null || isDoubtful || open.length > 0 || resets) this.#isSetting = true
    if (resets) this.#requester.resetsParameters()
    if (isChange) this.#requester.changesSchema()
    const requester = this.#requester
    if (pin !== null) requester.pin(pin, isStored, bytes?.subarray(from, to) ?? null)
  }

  /** Of a statement that was prepared, as far as is known by now. */
  #effectsOf(statement: Statement): StatementEffects {
    const { version } = this.#requester.pool.lexicon
    const { body } = statement
    if (statement.version !== version && body !== null) {
      this.#scan(body, 0, body.indexOf(0))
      statement.effects = effectsIn(scanner)
      statement.version = version
    }
    return statement.effects
  }

  /** DEALLOCATE of a statement that the client has prepared by the protocol: the server knows it by another name. */
  #isDeallocated(server: Server, { bytes, from, to }: Splitter): boolean {
    const { statements } = this.#requester
    if (statements === null || server.owes > 0 || !out.isEmpty || server.status === Transaction.failed) return false
    const found = DEALLOCATE.exec(bytes.toString('latin1', from + HEAD_BYTES, to - 1))?.[1]
    if (found === undefined) return false
    const name = found.startsWith('"') ? found.slice(1, -1).replaceAll('""', '"') : found.toLowerCase()
    if (!statements.delete(name)) return false
    const ready = Buffer.from([0x5a, 0, 0, 0, 5, server.status])
    this.#requester.answer(Buffer.concat([DEALLOCATED, ready]))
    return true
  }

  /**
   * The text that was scanned, with the names that the server has for statements which the client prepared by the protocol. They are
   * prepared in front of it. Null: it names none.
   */
  #named(server: Server, bytes: Buffer, from: number, to: number): Named | null {
    const { statements } = this.#requester
    if (statements === null || server.status === Transaction.failed) return null
    const text = bytes.toString('latin1', from, to)
    const uses: Statement[] = []
    let given = ''
    let at = 0
    // Preparing may scan other texts.
    for (const behind of [...scanner.namings]) {
      NAMED.lastIndex = behind - from
      const found = NAMED.exec(text)?.[1]
      if (found === undefined || /^all$/i.test(found)) continue
      const end = NAMED.lastIndex
      const name = found.startsWith('"') ? found.slice(1, -1).replaceAll('""', '"') : found.toLowerCase()
      const statement = statements.get(name)
      if (statement === undefined || statement.body === null) continue
      const isExecute = /execute$/i.test(text.slice(0, behind - from))
      const used = isExecute ? statement : new Statement(PREPARED_NOTHING, null, NO_EFFECTS, 0)
      if (!isExecute) statements.delete(name)
      uses.push(used)
      given += `${text.slice(at, end - found.length)}"${used.name.toString('latin1', 0, used.name.length - 1)}"`
      at = end
    }
    if (at === 0) return null
    this.#note(server, scanner, bytes, from, to)
    for (const each of uses) this.#use(server, each)
    return { text: Buffer.from(given + text.slice(at), 'latin1'), uses }
  }

  /** Has the server know a statement that a text names, and draws the consequences of it. */
  #use(server: Server, statement: Statement): void {
    if (statement.effects !== NO_EFFECTS) {
      const { body } = statement
      this.#note(server, this.#effectsOf(statement), body, 0, body?.length ?? 0)
    }
    this.#ensure(server, statement, null)
  }

  // --- prepared statements ------------------------------------------------------------------------------------------------------

  #onParse(server: Server, splitter: Splitter): boolean {
    const { bytes, from, to } = splitter
    const nameAt = from + HEAD_BYTES
    const textAt = bytes.indexOf(0, nameAt) + 1
    if (textAt === 0 || textAt > to) return true
    if (!splitter.isLast) {
      this.#requester.pin('large_statement', false, bytes.subarray(textAt, to))
      return this.#onLongParse(server, splitter, textAt)
    }
    const isUnnamed = textAt === nameAt + 1
    if (isUnnamed) {
      this.#look()
      if (this.#unnamed.isAgain(this.#requester.pool.lexicon.version, bytes, textAt, to)) {
        this.#unnamed.parse(server)
        return true
      }
    }
    const end = bytes.indexOf(0, textAt)
    const textEnd = end < 0 ? to : Math.min(end, to)
    this.#scan(bytes, textAt, textEnd)
    if (scanner.namings.length > 0 && textEnd < to) {
      const named = this.#named(server, bytes, textAt, textEnd)
      if (named !== null) return this.#onNamedParse(server, splitter, named, textAt, textEnd)
    }
    if (isUnnamed) {
      this.#note(server, scanner, bytes, textAt, textEnd)
      if (to - textAt > MAX_UNNAMED_BYTES) this.#requester.pin('large_statement', false, bytes.subarray(textAt, to))
      const effects = scanner.isDoubtful || scanner.open.length > 0 ? effectsIn(scanner) : null
      const plainVersion = isPlain(scanner) ? this.#requester.pool.lexicon.version : -1
      this.#unnamed.keep(bytes, textAt, to, effects, plainVersion)
      this.#unnamed.parse(server)
      return true
    }
    if (scanner.asksSequences) this.#note(server, scanner, bytes, textAt, textEnd)
    const name = bytes.toString('latin1', nameAt, textAt - 1)
    const { pool } = this.#requester
    this.#requester.statements ??= new Map()
    const { statements } = this.#requester
    const known = statements.get(name)
    if (known !== undefined) {
      // The server itself says that there is one already.
      this.#rename(splitter, nameAt, textAt, this.#ensure(server, known, name).name)
      server.sentParse(null, null, 'client')
      return false
    }
    const text = bytes.toString('latin1', textAt, to)
    const isOwn = this.#isSetting || server.isUnsettled || this.#requester.isPinned || FLEETING.test(text)
    const key = isOwn ? null : this.#dialect() + text
    let statement = key === null ? undefined : pool.statements.get(key)
    if (statement === undefined) {
      const body = Buffer.from(bytes.subarray(textAt, to))
      statement = new Statement(body, key, effectsIn(scanner), pool.lexicon.version)
      pool.statements.add(statement)
    }
    statements.set(name, statement)
    if (server.statements.has(statement)) {
      server.touch(statement)
      server.unnamed = 0
      out.add(PARSE_NOTHING, 0, PARSE_NOTHING.length)
      server.sentParse(statement, name, 'shared')
      return false
    }
    this.#makeRoom(server)
    server.touch(statement)
    this.#rename(splitter, nameAt, textAt, statement.name)
    server.sentParse(statement, name, 'client')
    return false
  }

  /** A text that names statements: it is the client's own, and what it names is prepared again wherever it is used. */
  #onNamedParse(server: Server, splitter: Splitter, named: Named, textAt: number, textEnd: number): boolean {
    const { bytes, from, to } = splitter
    const nameAt = from + HEAD_BYTES
    const body = Buffer.concat([named.text, bytes.subarray(textEnd, to)])
    if (textAt === nameAt + 1) {
      this.#unnamed.keep(body, 0, body.length, null, -1)
      this.#unnamed.uses = named.uses
      out.head(Front.parse, HEAD_BYTES + 1 + body.length)
      out.add(NUL, 0, 1)
      out.add(body, 0, body.length)
      this.#unnamed.parse(server)
      return false
    }
    const name = bytes.toString('latin1', nameAt, textAt - 1)
    const { statements } = this.#requester
    if (statements === null || statements.has(name)) return true
    const statement = new Statement(body, null, { ...NO_EFFECTS }, this.#requester.pool.lexicon.version, named.uses)
    statements.set(name, statement)
    this.#makeRoom(server)
    server.touch(statement)
    out.head(Front.parse, HEAD_BYTES + statement.name.length + body.length)
    out.add(statement.name, 0, statement.name.length)
    out.add(body, 0, body.length)
    server.sentParse(statement, name, 'client')
    return false
  }

  /** A statement that is too long to be kept: it is prepared once, on the connection that the client keeps. */
  #onLongParse(server: Server, splitter: Splitter, textAt: number): boolean {
    const { bytes, from } = splitter
    const nameAt = from + HEAD_BYTES
    if (textAt === nameAt + 1) {
      this.#unnamed.drop()
      this.#unnamed.parse(server)
      return true
    }
    const name = bytes.toString('latin1', nameAt, textAt - 1)
    const statement = new Statement(null, null, UNREAD, 0)
    this.#requester.statements ??= new Map()
    this.#requester.statements.set(name, statement)
    server.touch(statement)
    this.#rename(splitter, nameAt, textAt, statement.name)
    server.sentParse(statement, name, 'client')
    return false
  }

  /** The message with another name in it. */
  #rename(splitter: Splitter, nameAt: number, behind: number, name: Buffer): void {
    const { bytes, from, to, code, size } = splitter
    out.head(code, size + name.length - (behind - nameAt))
    if (nameAt > from + HEAD_BYTES) out.add(bytes, from + HEAD_BYTES, nameAt)
    out.add(name, 0, name.length)
    out.add(bytes, behind, to)
  }

  /**
   * Has the server know a statement of the client before it is used.
   * @param name what the client calls it; null: it stands in a text by its name on the server
   * @returns the statement to use: one that is shared is not prepared anew by a client to which its text means something else by now
   */
  #ensure(server: Server, wanted: Statement, name: string | null): Statement {
    let statement = wanted
    const { body } = statement
    if (!server.statements.has(statement) && body !== null) {
      if (name !== null && statement.key !== null && !statement.key.startsWith(this.#dialect())) {
        statement = new Statement(body, null, statement.effects, statement.version, statement.uses)
        this.#requester.statements?.set(name, statement)
      }
      this.#makeRoom(server)
      out.head(Front.parse, HEAD_BYTES + statement.name.length + body.length)
      out.add(statement.name, 0, statement.name.length)
      out.add(body, 0, body.length)
      server.sentParse(statement, null, 'ours')
    }
    server.touch(statement)
    return statement
  }

  #makeRoom(server: Server): void {
    if (server.statements.size < this.#requester.maxStatements) return
    const oldest = server.oldest()
    if (oldest === null) return
    server.statements.delete(oldest)
    out.head(Front.close, HEAD_BYTES + 1 + oldest.name.length)
    out.add(KIND, 0, 1)
    out.add(oldest.name, 0, oldest.name.length)
    server.sentClose(true)
  }

  #onBind(server: Server, splitter: Splitter): boolean {
    server.sentStep()
    const { bytes, from, to } = splitter
    const nameAt = bytes.indexOf(0, from + HEAD_BYTES) + 1
    if (nameAt === 0 || nameAt >= to) return true
    const behind = bytes.indexOf(0, nameAt) + 1
    if (behind === 0 || behind > to) return true
    return this.#onUse(server, splitter, nameAt, behind)
  }

  #onDescribe(server: Server, splitter: Splitter): boolean {
    const { bytes, from, to } = splitter
    if (bytes[from + HEAD_BYTES] !== STATEMENT) return true
    return this.#onUse(server, splitter, from + HEAD_BYTES + 1, to)
  }

  /** A message that names a statement at [nameAt, behind). */
  #onUse(server: Server, splitter: Splitter, nameAt: number, behind: number): boolean {
    if (behind === nameAt + 1) {
      const { effects, body, length, uses } = this.#unnamed
      if (splitter.code === Front.bind) for (const each of uses) this.#use(server, each)
      if (effects !== null && splitter.code === Front.bind) this.#follow(server, effects, body, 0, length)
      this.#unnamed.ensure(server)
      return true
    }
    const name = splitter.bytes.toString('latin1', nameAt, behind - 1)
    const statement = this.#requester.statements?.get(name)
    if (statement === undefined) {
      // The server says that there is none, unless SQL has made it; but a name like ours may be that of another client.
      if (!isOurName(name)) return true
      this.#rename(splitter, nameAt, behind, NOBODYS)
    } else {
      if (splitter.code === Front.bind) {
        const { body } = statement
        this.#note(server, this.#effectsOf(statement), body, 0, body?.length ?? 0)
        for (const each of statement.uses) this.#use(server, each)
      }
      this.#rename(splitter, nameAt, behind, this.#ensure(server, statement, name).name)
    }
    return false
  }

  #onClose(server: Server, splitter: Splitter): boolean {
    const { bytes, from, to } = splitter
    const nameAt = from + HEAD_BYTES + 1
    if (bytes[from + HEAD_BYTES] !== STATEMENT || to <= nameAt + 1) {
      server.sentClose(false)
      if (bytes[from + HEAD_BYTES] === STATEMENT) this.#unnamed.end(server)
      return true
    }
    const name = bytes.toString('latin1', nameAt, to - 1)
    const { statements } = this.#requester
    const statement = statements?.get(name)
    server.sentClose(false, statement, name)
    // Made by SQL, on the connection that the client keeps for it; or shared with others, and then it stays.
    if (statement !== undefined) statements?.delete(name)
    else if (!isOurName(name)) return true
    this.#rename(splitter, nameAt, to, NOBODYS)
    return false
  }
}

/** Draws the consequences of words that were not known when they were sent, and are by now. */
export function settle(server: Server, requester: Requester): void {
  const { lexicon } = requester.pool
  for (const [hash, begin] of server.open) {
    const effects = lexicon.effectsOf(hash)
    if (effects === undefined) continue
    server.open.delete(hash)
    if (effects === null) continue
    if (effects.isDoubtful) server.isDoubtful = true
    if (effects.asksSequences) requester.asksSequences = true
    if ((effects.parameters & server.asked) !== 0) server.isUnsettled = true
    if (effects.pin !== null) requester.pin(effects.pin, true, begin)
  }
}

/** As much of a statement as a log line may need, kept for when it is known what it did. */
function beginOf(bytes: Buffer, from: number, to: number): Buffer {
  return Buffer.from(bytes.subarray(from, Math.min(to, from + OUTLINE_BYTES)))
}

/** A statement that was too long to be read: its client keeps the connection. */
const UNREAD: StatementEffects = { ...DOUBT, open: [], isStored: false, isChange: true, resets: false, defines: true }

/** Nothing has to be done about a statement of these effects. */
function isPlain({ pin, parameters, asksSequences, isDoubtful, open, isChange, resets }: StatementEffects): boolean {
  return pin === null && parameters === 0 && !asksSequences && !isDoubtful && open.length === 0 && !isChange && !resets
}

function effectsIn({
  pin,
  parameters,
  asksSequences,
  isDoubtful,
  open,
  isStored,
  isChange,
  resets,
  defines,
}: SqlScanner): StatementEffects {
  return { pin, parameters, asksSequences, isDoubtful, open: [...open], isStored, isChange, resets, defines }
}

/** A text that names statements as the server does, and those statements. */
interface Named {
  readonly text: Buffer
  readonly uses: readonly Statement[]
}

const NO_EFFECTS: StatementEffects = {
  pin: null,
  parameters: 0,
  asksSequences: false,
  isDoubtful: false,
  open: [],
  isStored: false,
  isChange: false,
  resets: false,
  defines: false,
}

const NUL = Buffer.alloc(1)
const NOTHING = Buffer.alloc(0)
const KIND = Buffer.from([STATEMENT])
