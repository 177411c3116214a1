/** A connection to a server that clients use one after the other: what it owes to whom, and what it has prepared. */
import { now } from '../../runtime/clock.ts'
import type { RawSocket, SocketHandler } from '../../runtime/raw-socket.ts'
import type { Endpoint } from '../../upstream/endpoint.ts'
import { Back, Front, HEAD_BYTES, message, QUERY, Transaction } from './messages.ts'
import { out } from './outgoing.ts'
import { type Parameters, pairOf, type Values } from './parameters.ts'
import { fieldOf, stateOf } from './respond.ts'
import type { Rows } from './rows.ts'
import { Splitter, wantHeads } from './splitter.ts'
import type { Statement } from './statements.ts'

/** Whoever uses the connection. */
export interface ServerUser {
  readonly client: RawSocket
  /** The server owes nothing any more. Called behind what it sent. */
  onQuiet(): void
  /** A parameter that is reported has another value. Returns whether the client is told so now. */
  onValues(values: Values): boolean
  /** The server is ready and owes nothing more. Returns what the client gets in front of that; null: nothing. */
  onReady(): Buffer | null
  /** A command of the session itself has ended: the tag of DISCARD ALL, DEALLOCATE ALL or RESET. */
  onTag(tag: string): void
  /** What the client gets in place of an error; null: the error as it is. */
  onError(response: Buffer): Buffer | null
  /** A Parse of the client has failed. */
  onParseFailed(name: string, statement: Statement): void
  /** A Close of the client was passed over, as something before it failed: it has the statement still. */
  onCloseFailed(name: string, statement: Statement): void
  /** Something is known of the words that it was asked about. */
  onAnswered(): void
  /** It was asked for the parameters that it does not report. @param isKnown it has told them */
  onSettled(isKnown: boolean): void
  /** The server refuses plans that are older than a change of a table. */
  onOldPlan(): void
  /** The server takes CopyData and has got no end of it. Called behind what it sent. */
  onCopyIn(): void
  /** Nobody can tell any more what of the client's the server will read. */
  onUnsure(): void
  /** The connection is closed. */
  onServerGone(detail: string): void
}

export interface ServerOwner {
  readonly parameters: Parameters
  onServerClosed(server: Server): void
}

/** What DISCARD ALL does, in a form that may stand in one message with more. */
const RESET =
  'close all; set session authorization default; reset all; deallocate all; unlisten *; select pg_catalog.pg_advisory_unlock_all(); discard temp; discard sequences'

const enumOf = { sync: 0, query: 1, own: 2, copyEnd: 3, parse: 4, close: 5 } as const
type Kind = (typeof enumOf)[keyof typeof enumOf]

/** Something that the server was sent and will answer. */
interface Owed {
  readonly kind: Kind
  /** The client must not see the answer. */
  readonly isOurs: boolean
  /** Of a Parse; null: the unnamed one. */
  readonly statement: Statement | null
  /** What the client calls it; null: it does not know of this. */
  readonly name: string | null
  /** The server has had the statement before. */
  readonly isShared: boolean
  /** Of our own commands. */
  readonly done: Done | null
  /** Takes the rows of the answer; null: they are passed over. */
  readonly rows: Rows | null
  /** Messages of the extended protocol before this query, without a Sync between them, that are not answered yet. */
  steps: number
}

/** Told how a command of our own has ended: null, or the ErrorResponse. */
export type Done = (failure: Buffer | null) => void

function owed(kind: Kind, isOurs = false): Owed {
  return { kind, isOurs, statement: null, name: null, isShared: false, done: null, rows: null, steps: 0 }
}

const SYNC = owed(enumOf.sync)
const OUR_SYNC = owed(enumOf.own, true)
const QUERY_OWED = owed(enumOf.query)
const COPY_END = owed(enumOf.copyEnd)
const UNNAMED = owed(enumOf.parse)
const OUR_UNNAMED = owed(enumOf.parse, true)
const CLOSE = owed(enumOf.close)
const OUR_CLOSE = owed(enumOf.close, true)

/** A client that pipelines more than this has the list of it made anew now and then. */
const MANY_OWED = 1024

/** A longer error is none. */
const WHOLE_BYTES = 64 * 1024
const WANTED = wantHeads()
for (const code of [Back.readyForQuery, Back.commandComplete, Back.parameterStatus, Back.error, Back.backendKeyData]) {
  WANTED[code] = WHOLE_BYTES
}

/** What goes through without a look. */
const PLAIN = new Uint8Array(256).fill(1)
for (const code of [
  Back.readyForQuery,
  Back.commandComplete,
  Back.parameterStatus,
  Back.error,
  Back.parseComplete,
  Back.closeComplete,
  Back.copyIn,
  Back.copyBoth,
  Back.bindComplete,
  Back.rowDescription,
  Back.noData,
  Back.emptyQuery,
  Back.portalSuspended,
]) {
  PLAIN[code] = 0
}

export class Server implements SocketHandler {
  readonly raw: RawSocket
  readonly endpoint: Endpoint
  /** Process and secret; null: it cannot be asked to cancel. */
  readonly key: Buffer | null
  readonly bornAt: number = now()
  idleSince = 0
  user: ServerUser | null = null
  /** Who used it before. */
  lastUser: ServerUser | null = null
  /** Of the last ReadyForQuery. */
  status: number = Transaction.idle
  /** Messages were sent that no Sync followed yet. */
  isUnsynced = false
  /** What its user has left behind cannot be told: it is reset before another one uses it. */
  isDoubtful = false
  /** Parameters that it does not report may be others than `values` says: it is asked before another one uses it. */
  isUnsettled = false
  /** Bits of RESTORABLE_PARAMETERS that it is asked about. */
  readonly asked: number
  /** Words of its user's statements that were not known when they were sent, each with how its statement begins. */
  readonly open = new Map<number, Buffer>()
  /** It is being asked about words. */
  isAsked = false
  /** Its user until then, who waits for the answer; null: nobody does. */
  asker: ServerUser | null = null
  /** The server takes CopyData. */
  isCopyIn = false
  /** It is not used again once it is free. */
  isDoomed = false
  /** It has told the client itself that the connection ends. */
  hasSaidGoodbye = false
  /** Cancel requests on their way to it, and what is done when none is any more. */
  cancels = 0
  onCancelled: (() => void) | null = null
  values: Values
  /** Those of the connection before anybody used it. */
  initial: Values
  /** Which unnamed statement it has: a number that a client gave it; 0: none. */
  unnamed = 0
  /** Prepared on it, with when each was used last. */
  readonly statements = new Map<Statement, number>()

  readonly #owner: ServerOwner
  readonly #splitter = new Splitter(WANTED)
  /** What is owed is [first, end); what is behind that is left there, so that the memory is used again. */
  #owed: Owed[] = []
  #first = 0
  #end = 0
  #ours = 0
  #passes = true
  #isQuiet = false
  #isCopyInNew = false
  #failure: Buffer | null = null
  /** Why a statement could not be prepared that the query behind it names. */
  #unprepared: Buffer | null = null
  /** What is done about our own commands that have ended. */
  readonly #over: (() => void)[] = []
  #ignoredSyncs = 0
  #uses = 0
  /** Answers to come that end in ReadyForQuery. */
  #rounds = 0
  /** Messages of the extended protocol behind the last Sync that are not answered yet. */
  #steps = 0
  /** Queries that were sent behind such messages. */
  #behindSteps = 0
  /** One of them has failed: the server passes over everything up to the Sync. */
  #isSkipping = false

  /** @param unreported bits of RESTORABLE_PARAMETERS that this server does not report, whatever others of its pool do */
  constructor(owner: ServerOwner, raw: RawSocket, endpoint: Endpoint, key: Buffer | null, unreported: number) {
    this.#owner = owner
    this.asked = owner.parameters.asked | unreported
    this.raw = raw
    this.endpoint = endpoint
    this.key = key
    this.values = owner.parameters.initial
    this.initial = this.values
    raw.handler = this
  }

  /** One of the parameters that it is asked about may not be as at its begin. */
  get hasAsked(): boolean {
    const { parameters } = this.#owner
    return this.asked !== parameters.asked || parameters.hasAsked(this.values)
  }

  /** Nothing is owed, and no transaction is open. */
  get isFree(): boolean {
    return this.owes === 0 && !this.isUnsynced && !this.isCopyIn && this.status === Transaction.idle
  }

  /** Answers that its user waits for; those to our own commands are none. */
  get owes(): number {
    return this.#end - this.#first - this.#ours
  }

  // --- what was sent ------------------------------------------------------------------------------------------------------------

  sentQuery(): void {
    if (this.#isSkipping) return
    this.#rounds++
    // Its end is also that of what was sent without a Sync, unless something of that fails: then the server passes over the query too.
    this.isUnsynced = false
    if (this.#steps === 0) this.#push(QUERY_OWED)
    else {
      this.#behindSteps++
      this.#push({ ...QUERY_OWED, steps: this.#steps })
      this.#steps = 0
    }
  }

  sentSync(): void {
    if (this.isCopyIn) {
      this.#ignoredSyncs++
      return
    }
    this.isUnsynced = false
    this.#steps = 0
    this.#isSkipping = false
    this.#rounds++
    this.#push(SYNC)
  }

  /** A Bind, Describe or Execute. */
  sentStep(): void {
    this.isUnsynced = true
    this.#steps++
  }

  /** A Sync of ours behind a Parse of ours, in front of a simple query that needs it. */
  sentOurSync(): void {
    this.isUnsynced = false
    this.#steps = 0
    this.#rounds++
    this.#ours++
    this.#push(OUR_SYNC)
  }

  sentCopyEnd(): void {
    if (this.isCopyIn) this.isCopyIn = false
    else this.#push(COPY_END)
  }

  /**
   * @param statement null: the unnamed one
   * @param name what the client calls it
   * @param of whose it is: of the client; ours, so that the client does not see the answer; or of the client and in place of one
   * that the server has had before
   */
  sentParse(statement: Statement | null, name: string | null, of: 'client' | 'ours' | 'shared'): void {
    this.sentStep()
    const isOurs = of === 'ours'
    if (statement === null) this.#push(isOurs ? OUR_UNNAMED : UNNAMED)
    else
      this.#push({
        kind: enumOf.parse,
        isOurs,
        statement,
        name,
        isShared: of === 'shared',
        done: null,
        rows: null,
        steps: 0,
      })
  }

  /**
   * @param statement the client's, which it does not know any more; null: another one, or a portal
   * @param name what the client called it
   */
  sentClose(isOurs: boolean, statement: Statement | null = null, name: string | null = null): void {
    this.sentStep()
    if (statement === null) this.#push(isOurs ? OUR_CLOSE : CLOSE)
    else this.#push({ kind: enumOf.close, isOurs, statement, name, isShared: false, done: null, rows: null, steps: 0 })
  }

  /** Notes that a statement is used now. */
  touch(statement: Statement): void {
    this.statements.set(statement, ++this.#uses)
  }

  /** The statement that was not used for longest. */
  oldest(): Statement | null {
    let found: Statement | null = null
    let least = Number.POSITIVE_INFINITY
    for (const [statement, use] of this.statements) {
      if (use >= least) continue
      least = use
      found = statement
    }
    return found
  }

  /**
   * Runs a command of our own behind what was sent; its answer goes to nobody.
   */
  run(sql: string, done: Done | null, rows: Rows | null = null): void {
    this.#ours++
    this.#rounds++
    this.unnamed = 0
    this.#push({ kind: enumOf.own, isOurs: true, statement: null, name: null, isShared: false, done, rows, steps: 0 })
    this.raw.write(message(QUERY, Buffer.from(`${sql}\0`, 'latin1')))
  }

  /** Undoes what its user may have left behind. One that cannot be reset is doubtful still, and not used again. */
  reset(done: Done | null): void {
    this.statements.clear()
    this.run(`${RESET}; select pg_catalog.setseed(${Math.random()})`, (failure) => {
      if (failure === null) {
        this.isDoubtful = false
        this.isUnsettled = false
        this.take(this.initial)
      } else this.isDoomed = true
      done?.(failure)
    })
  }

  /** Of these, it has those that it does not report; the others it tells of. */
  take(values: Values): void {
    this.values = this.#owner.parameters.merge(this.values, values, this.asked)
  }

  // --- what comes ---------------------------------------------------------------------------------------------------------------

  onData(chunk: Buffer, length: number): void {
    const { user } = this
    const splitter = this.#splitter
    splitter.feed(chunk, 0, length)
    if (user !== null) out.begin(user.client, length + 256)
    while (splitter.next()) {
      if (splitter.isFirst) {
        this.#passes =
          (PLAIN[splitter.code] === 1 && this.#ours === 0) ||
          this.#onMessage(splitter.code, splitter.bytes, splitter.from)
      }
      if (this.#passes) {
        if (user !== null) out.add(splitter.bytes, splitter.from, splitter.to)
      } else if (this.#ours > 0 && splitter.code === Back.dataRow) this.#owed[this.#first]?.rows?.take(splitter)
    }
    if (user !== null) {
      out.flush()
      if (user.client.backlog > 0) this.raw.pause()
    }
    if (splitter.isBroken) {
      this.#gone('the server does not speak the protocol of PostgreSQL')
      return
    }
    if (this.#over.length > 0) for (const over of this.#over.splice(0)) over()
    if (this.#isCopyInNew) {
      this.#isCopyInNew = false
      if (this.isCopyIn) this.user?.onCopyIn()
    }
    if (!this.#isQuiet) return
    this.#isQuiet = false
    if (this.owes === 0) this.user?.onQuiet()
  }

  /** Returns whether the client gets it. */
  #onMessage(code: number, bytes: Buffer, at: number): boolean {
    const head = this.#first < this.#end ? this.#owed[this.#first]! : null
    const isOurs = head?.kind === enumOf.own
    switch (code) {
      case Back.readyForQuery:
        this.status = bytes[at + HEAD_BYTES]!
        if (!this.#onReady()) return false
        this.#unprepared = null
        if (this.owes === 0) {
          const before = this.user?.onReady() ?? null
          if (before !== null) out.add(before, 0, before.length)
        }
        return true
      case Back.parameterStatus:
        return this.#onParameter(bytes.subarray(at + HEAD_BYTES, this.#splitter.to), isOurs)
      case Back.error: {
        const failed = bytes.subarray(at, this.#splitter.to)
        if (head?.kind === enumOf.parse && head.isOurs && this.#nextRound() === OUR_SYNC) {
          this.#unprepared = Buffer.from(failed)
          return false
        }
        // The query names a statement that could not be prepared for it: why is what its client must hear.
        const isUnprepared = this.#unprepared !== null && !isOurs && stateOf(failed) === '26000'
        const response = isUnprepared ? this.#unprepared! : failed
        this.#onError(response, isOurs)
        if (isUnprepared) {
          out.add(response, 0, response.length)
          return false
        }
        const told = isOurs || !this.#splitter.isLast ? null : (this.user?.onError(response) ?? null)
        if (told === null) break
        out.add(told, 0, told.length)
        return false
      }
      case Back.commandComplete:
        this.#onTag(bytes, at)
        this.#onStep()
        break
      case Back.bindComplete:
      case Back.rowDescription:
      case Back.noData:
      case Back.emptyQuery:
      case Back.portalSuspended:
        this.#onStep()
        break
      case Back.parseComplete:
      case Back.closeComplete:
        this.#onStep()
        if (head?.kind === enumOf.parse || head?.kind === enumOf.close) {
          this.#first++
          return !head.isOurs
        }
        break
      case Back.copyIn:
        this.#onCopyIn()
        break
      case Back.copyBoth:
        this.user?.onUnsure()
        break
      default:
        break
    }
    return !isOurs
  }

  #onReady(): boolean {
    this.isCopyIn = false
    this.#ignoredSyncs = 0
    for (;;) {
      if (this.#first === this.#end) break
      const each = this.#owed[this.#first++]!
      if (each.kind === enumOf.parse) this.#onUnparsed(each)
      else if (each.name !== null && each.statement !== null) this.user?.onCloseFailed(each.name, each.statement)
      if (each.kind !== enumOf.sync && each.kind !== enumOf.query && each.kind !== enumOf.own) continue
      this.#rounds--
      if (each.kind === enumOf.query && each !== QUERY_OWED) this.#behindSteps--
      this.#compact()
      if (each.kind !== enumOf.own) {
        this.#isQuiet = true
        return true
      }
      this.#ours--
      const failure = this.#failure
      this.#failure = null
      // It may send something, which must wait for what is being passed on.
      if (each.done !== null) this.#over.push(() => each.done!(failure))
      return false
    }
    this.#compact()
    this.#isQuiet = true
    return true
  }

  /** A message of the extended protocol is answered. Those before a Sync need not be counted. */
  #onStep(): void {
    if (this.#rounds === 0) this.#steps--
    else if (this.#behindSteps > 0) {
      const next = this.#nextRound()
      if (next !== null && next.steps > 0) next.steps--
    }
  }

  /** What ReadyForQuery comes for next. */
  #nextRound(): Owed | null {
    for (let at = this.#first; at < this.#end; at++) {
      const each = this.#owed[at]!
      if (each.kind === enumOf.sync || each.kind === enumOf.query || each.kind === enumOf.own) return each
    }
    return null
  }

  /** Something has failed that a query was sent behind without a Sync: that and all up to the Sync is passed over. */
  #skip(): void {
    while (this.#first < this.#end) {
      const each = this.#owed[this.#first]!
      if (each.kind === enumOf.sync) return
      this.#first++
      if (each.kind === enumOf.query) {
        this.#rounds--
        if (each !== QUERY_OWED) this.#behindSteps--
      } else if (each.kind === enumOf.parse) this.#onUnparsed(each)
      else if (each.name !== null && each.statement !== null) this.user?.onCloseFailed(each.name, each.statement)
    }
    this.isUnsynced = true
    this.#isSkipping = true
    this.#steps = 0
  }

  #push(each: Owed): void {
    this.#owed[this.#end++] = each
  }

  #compact(): void {
    if (this.#first < this.#end) {
      if (this.#first < MANY_OWED) return
      this.#owed = this.#owed.slice(this.#first, this.#end)
      this.#end -= this.#first
    } else {
      this.#end = 0
      if (this.#owed.length > MANY_OWED) this.#owed = []
    }
    this.#first = 0
  }

  /** The server has passed it over because something before it failed, or it failed itself. */
  #onUnparsed({ statement, name, isShared }: Owed): void {
    if (statement === null || isShared) this.unnamed = 0
    if (statement === null) return
    if (!isShared) this.statements.delete(statement)
    if (name !== null) this.user?.onParseFailed(name, statement)
  }

  /** Returns whether the client gets it. */
  #onParameter(body: Buffer, isOurs: boolean): boolean {
    const { parameters } = this.#owner
    const [name, value] = pairOf(body)
    if (parameters.isAsked(name) || !parameters.has(name)) return !isOurs
    this.values = parameters.with(this.values, name, value)
    return !isOurs && (this.user?.onValues(this.values) ?? true)
  }

  #onError(response: Buffer, isOurs: boolean): void {
    if (isOurs) {
      this.#failure = Buffer.from(response)
      return
    }
    if (this.#rounds === 0) this.#isSkipping = this.isUnsynced
    else if (this.#behindSteps > 0 && (this.#nextRound()?.steps ?? 0) > 0) this.#skip()
    if (this.isCopyIn) {
      this.isCopyIn = false
      // One of them may be read only now, and then it is answered.
      if (this.#ignoredSyncs > 0) this.user?.onUnsure()
    }
    const state = stateOf(response)
    if (state === '0A000' && fieldOf(response, 'R') === 'RevalidateCachedQuery') {
      this.unnamed = 0
      this.user?.onOldPlan()
    } else if (state === '26000') {
      // What is noted here may have been deallocated by somebody, where it could not be seen.
      this.isDoomed = true
    }
    const severity = fieldOf(response, 'V')
    if (severity === 'FATAL' || severity === 'PANIC') {
      this.hasSaidGoodbye = true
      this.isDoomed = true
    }
  }

  #onTag(bytes: Buffer, at: number): void {
    const letter = bytes[at + HEAD_BYTES]
    if (letter !== 0x44 && letter !== 0x52) return
    const { size } = this.#splitter
    if (size !== 17 && size !== 20 && size !== 11) return
    const tag = bytes.toString('latin1', at + HEAD_BYTES, at + size - 1)
    if (tag === 'DISCARD ALL' || tag === 'DEALLOCATE ALL') {
      this.statements.clear()
      this.unnamed = 0
    }
    // What was sent behind it may set some again, so they stay unsettled.
    if (tag === 'DISCARD ALL') this.take(this.initial)
    if (this.#ours === 0) this.user?.onTag(tag)
  }

  /**
   * The server takes CopyData, and passes over a Sync that comes before the end of it: those that were sent behind the Execute
   * are not answered.
   */
  #onCopyIn(): void {
    const list = this.#owed.slice(this.#first, this.#end)
    let at = 0
    const isSimple = list[0] !== undefined && list[0].kind === enumOf.query && list[0].steps === 0
    if (isSimple) at++
    else this.isUnsynced = true
    while (at < list.length && list[at]!.kind === enumOf.sync) {
      list.splice(at, 1)
      this.#rounds--
      // The Execute is still to be answered.
      if (!isSimple) this.#steps = 1
    }
    if (at === list.length) {
      this.isCopyIn = true
      this.#isCopyInNew = true
    } else if (list[at]!.kind === enumOf.copyEnd) {
      list.splice(at, 1)
      if (!isSimple && list.slice(at).some(({ kind }) => kind === enumOf.sync)) this.isUnsynced = false
    } else this.user?.onUnsure()
    this.#owed = list
    this.#first = 0
    this.#end = list.length
  }

  onDrain(): void {
    this.user?.client.resume()
  }

  onEnd(): void {
    this.#gone('the server closed the connection')
  }

  onClose(error: Error | null): void {
    const code = (error as NodeJS.ErrnoException | null)?.code
    this.#gone(`the server broke the connection${code === undefined ? '' : ` (${code})`}`)
    this.endpoint.leave()
    this.#owner.onServerClosed(this)
  }

  #gone(detail: string): void {
    this.isDoomed = true
    const user = this.user ?? this.asker
    this.user = null
    this.asker = null
    this.lastUser = null
    this.raw.destroy()
    user?.onServerGone(detail)
  }

  /** Closes at once, and tells whoever uses it. @param why for a person */
  cut(why: string): void {
    this.#gone(why)
  }

  /** Says goodbye and closes. */
  close(): void {
    this.isDoomed = true
    this.user = null
    this.raw.write(message(Front.terminate))
    this.raw.destroy()
  }

  /** Closes at once; what was under way is rolled back by the server. */
  destroy(): void {
    this.isDoomed = true
    this.user = null
    this.raw.destroy()
  }
}
