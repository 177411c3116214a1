/** A connection to a server that clients use one after the other: what it owes to whom, and what it has prepared. */
import { now } from '../../runtime/clock.ts'
import type { RawSocket, SocketHandler } from '../../runtime/raw-socket.ts'
import type { Endpoint } from '../../upstream/endpoint.ts'
import { Back, Front, HEAD_BYTES, message, QUERY, Transaction } from './messages.ts'
import { out } from './outgoing.ts'
import { type Parameters, pairOf, type Values } from './parameters.ts'
import { fieldOf, stateOf } from './respond.ts'
import { Splitter, wantHeads } from './splitter.ts'
import type { Statement } from './statements.ts'

/** Whoever uses the connection. */
export interface ServerUser {
  readonly client: RawSocket
  /** The server owes nothing any more. Called behind what it sent. */
  onQuiet(): void
  /** A parameter that is reported has another value. */
  onValues(values: Values): void
  /** A command of the session itself has ended: the tag of DISCARD ALL, DEALLOCATE ALL or RESET. */
  onTag(tag: string): void
  /** A Parse of the client has failed. */
  onParseFailed(name: string, statement: Statement): void
  /** The server refuses plans that are older than a change of a table. */
  onOldPlan(): void
  /** Nobody can tell any more what of the client's the server will read. */
  onUnsure(): void
  /** The connection is closed. */
  onServerGone(detail: string): void
}

export interface ServerOwner {
  readonly parameters: Parameters
  onServerClosed(server: Server): void
}

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
  readonly done: ((failure: Buffer | null) => void) | null
}

function owed(kind: Kind, isOurs = false): Owed {
  return { kind, isOurs, statement: null, name: null, isShared: false, done: null }
}

const SYNC = owed(enumOf.sync)
const QUERY_OWED = owed(enumOf.query)
const COPY_END = owed(enumOf.copyEnd)
const UNNAMED = owed(enumOf.parse)
const OUR_UNNAMED = owed(enumOf.parse, true)
const CLOSE = owed(enumOf.close)
const OUR_CLOSE = owed(enumOf.close, true)

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
  /** Which unnamed statement it has: a number that a client gave it; 0: none. */
  unnamed = 0
  /** Prepared on it, with when each was used last. */
  readonly statements = new Map<Statement, number>()

  readonly #owner: ServerOwner
  readonly #splitter = new Splitter(WANTED)
  readonly #owed: Owed[] = []
  #first = 0
  #ours = 0
  #passes = true
  #isQuiet = false
  #failure: Buffer | null = null
  #ignoredSyncs = 0
  #uses = 0

  constructor(owner: ServerOwner, raw: RawSocket, endpoint: Endpoint, key: Buffer | null) {
    this.#owner = owner
    this.raw = raw
    this.endpoint = endpoint
    this.key = key
    this.values = owner.parameters.initial
    raw.handler = this
  }

  /** Nothing is owed, and no transaction is open. */
  get isFree(): boolean {
    return this.owes === 0 && !this.isUnsynced && !this.isCopyIn && this.status === Transaction.idle
  }

  get owes(): number {
    return this.#owed.length - this.#first
  }

  // --- what was sent ------------------------------------------------------------------------------------------------------------

  sentQuery(): void {
    this.#owed.push(QUERY_OWED)
  }

  sentSync(): void {
    if (this.isCopyIn) {
      this.#ignoredSyncs++
      return
    }
    this.isUnsynced = false
    this.#owed.push(SYNC)
  }

  sentCopyEnd(): void {
    if (this.isCopyIn) this.isCopyIn = false
    else this.#owed.push(COPY_END)
  }

  /**
   * @param statement null: the unnamed one
   * @param name what the client calls it
   * @param of whose it is: of the client; ours, so that the client does not see the answer; or of the client and in place of one
   * that the server has had before
   */
  sentParse(statement: Statement | null, name: string | null, of: 'client' | 'ours' | 'shared'): void {
    this.isUnsynced = true
    const isOurs = of === 'ours'
    if (statement === null) this.#owed.push(isOurs ? OUR_UNNAMED : UNNAMED)
    else this.#owed.push({ kind: enumOf.parse, isOurs, statement, name, isShared: of === 'shared', done: null })
  }

  sentClose(isOurs: boolean): void {
    this.isUnsynced = true
    this.#owed.push(isOurs ? OUR_CLOSE : CLOSE)
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
   * @param done told how it ended: null, or the ErrorResponse
   */
  run(sql: string, done: ((failure: Buffer | null) => void) | null): void {
    this.#ours++
    this.unnamed = 0
    this.#owed.push({ kind: enumOf.own, isOurs: true, statement: null, name: null, isShared: false, done })
    this.raw.write(message(QUERY, Buffer.from(`${sql}\0`, 'latin1')))
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
      if (this.#passes && user !== null) out.add(splitter.bytes, splitter.from, splitter.to)
    }
    if (user !== null) {
      out.flush()
      if (user.client.backlog > 0) this.raw.pause()
    }
    if (splitter.isBroken) {
      this.#gone('the server does not speak the protocol of PostgreSQL')
      return
    }
    if (!this.#isQuiet) return
    this.#isQuiet = false
    if (this.owes === 0) this.user?.onQuiet()
  }

  /** Returns whether the client gets it. */
  #onMessage(code: number, bytes: Buffer, at: number): boolean {
    const head = this.#first < this.#owed.length ? this.#owed[this.#first]! : null
    const isOurs = head?.kind === enumOf.own
    switch (code) {
      case Back.readyForQuery:
        this.status = bytes[at + HEAD_BYTES]!
        return this.#onReady()
      case Back.parameterStatus:
        this.#onParameter(bytes.subarray(at + HEAD_BYTES, this.#splitter.to), isOurs)
        break
      case Back.error:
        this.#onError(bytes.subarray(at, this.#splitter.to), isOurs)
        break
      case Back.commandComplete:
        this.#onTag(bytes, at)
        break
      case Back.parseComplete:
      case Back.closeComplete:
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
      if (this.#first === this.#owed.length) break
      const each = this.#owed[this.#first++]!
      if (each.kind === enumOf.parse) this.#onUnparsed(each)
      if (each.kind !== enumOf.sync && each.kind !== enumOf.query && each.kind !== enumOf.own) continue
      this.#compact()
      if (each.kind !== enumOf.own) {
        this.#isQuiet = true
        return true
      }
      this.#ours--
      const failure = this.#failure
      this.#failure = null
      each.done?.(failure)
      return false
    }
    this.#compact()
    this.#isQuiet = true
    return true
  }

  #compact(): void {
    if (this.#first < this.#owed.length) return
    this.#owed.length = 0
    this.#first = 0
  }

  /** The server has passed it over because something before it failed, or it failed itself. */
  #onUnparsed({ statement, name, isShared }: Owed): void {
    if (statement === null || isShared) this.unnamed = 0
    if (statement === null) return
    if (!isShared) this.statements.delete(statement)
    if (name !== null) this.user?.onParseFailed(name, statement)
  }

  #onParameter(body: Buffer, isOurs: boolean): void {
    const [name, value] = pairOf(body)
    this.values = this.#owner.parameters.with(this.values, name, value)
    if (!isOurs) this.user?.onValues(this.values)
  }

  #onError(response: Buffer, isOurs: boolean): void {
    if (isOurs) {
      this.#failure = Buffer.from(response)
      return
    }
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
    if (this.#ours === 0) this.user?.onTag(tag)
  }

  /**
   * The server takes CopyData, and passes over a Sync that comes before the end of it: those that were sent behind the Execute
   * are not answered.
   */
  #onCopyIn(): void {
    const list = this.#owed
    let at = this.#first
    const isSimple = list[at]?.kind === enumOf.query
    if (isSimple) at++
    else this.isUnsynced = true
    while (at < list.length && list[at]!.kind === enumOf.sync) list.splice(at, 1)
    if (at === list.length) this.isCopyIn = true
    else if (list[at]!.kind === enumOf.copyEnd) {
      list.splice(at, 1)
      if (!isSimple && list.slice(at).some(({ kind }) => kind === enumOf.sync)) this.isUnsynced = false
    } else this.user?.onUnsure()
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
    const { user } = this
    this.user = null
    this.lastUser = null
    this.raw.destroy()
    user?.onServerGone(detail)
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
