/** Follows what an application and its server say to each other: which replies are awaited, and what state the connection has by now. */
import { now } from '../../runtime/clock.ts'
import type { RedisCells } from './cells.ts'
import { type Command, commands, Kind, OTHER } from './commands.ts'
import { CommandParser, type CommandSink, ReplyParser, type ReplySink, Type, wordHash } from './parser.ts'
import { Pending } from './pending.ts'
import {
  type Effect,
  effectOf,
  injectedAuth,
  injectedHello,
  isReplyMode,
  isUnanswered,
  PINS,
  type Replay,
  replayOf,
  resetWith,
} from './state.ts'

/** What a command of ours is entered as among those that wait: its reply is not for the application. */
const OURS = 0xffff
/** A MULTI inside of another one: that goes on when this one is refused. */
const NESTED = -1
/** A command of ours without which the connection is not like the one before. */
const VITAL = 1
const OK = wordHash('OK')
const READONLY = wordHash('READONLY')
const LOADING = wordHash('LOADING')
const MASTERDOWN = wordHash('MASTERDOWN')
const EXECABORT = wordHash('EXECABORT')
const RESET = wordHash('RESET')
const MESSAGES = new Set(['message', 'pmessage', 'smessage'].map(wordHash))
const PATTERNS = new Set(['psubscribe', 'punsubscribe'].map(wordHash))
const SHARDED = new Set(['ssubscribe', 'sunsubscribe'].map(wordHash))
const CONFIRMATIONS = new Set([...['subscribe', 'unsubscribe'].map(wordHash), ...PATTERNS, ...SHARDED])

export interface ConversationHost {
  /** RESET is on its way: what follows it must wait for its reply. */
  onResetting(): void
  /** A login of ours goes with it: what follows must wait for its reply. */
  onLoggingIn(): void
  /** RESET took everything back, the login too. */
  onReset(): void
  /** Nothing was taken back. */
  onResetRefused(): void
  /** The server refused a command of ours. @param isVital without it the connection is not like the one before */
  onOursRefused(isVital: boolean): void
  /** The server says itself that it is not the one to talk to. */
  onNotTheOne(): void
}

export class Conversation implements CommandSink, ReplySink {
  readonly commands = new CommandParser()
  replies = new ReplyParser()
  /** Commands of the application. */
  count = 0
  /** Commands of ours without their replies. */
  ours = 0
  isInMulti = false
  /** The bytes of the server are not replies any more. */
  isOpaque = false
  readonly #cells: RedisCells
  readonly #host: ConversationHost
  readonly #pending = new Pending()
  /** What pending commands change when they succeed, oldest first. */
  #effects: Effect[] | null = null
  /** Of the command that is looked at; null: it was passed on unseen. */
  #effect: Effect | null = null
  /** What a new connection must be told to be like this one, by what it sets. */
  #replays: Map<string, Buffer> | null = null
  #isWatching = false
  #blocking = 0
  /** A channel was asked for: what comes may be a message. */
  #hears = false
  /** What comes cannot be told from what was asked: channels without a confirmation, replies that were switched off in a transaction. */
  #isUnsure = false
  #channels = 0
  #patterns = 0
  #shards = 0
  /** Messages are pushes, and an array is a reply whatever it begins with. */
  #isResp3 = false
  #isMonitor = false
  /** Commands that end the connection and were not refused. */
  #quits = 0
  /** After a QUIT that is not answered the server takes no commands, and does not close the connection. */
  #hasQuitUnseen = false
  /** The connection has a state that no other can be given. */
  #isPinned = false
  #isSilent = false
  #skipsNext = false
  /** Replies that come before the server has done what it does not answer; -1: it has done it. */
  #unheard = -1
  /** Commands among those that wait which may turn the connection into one of replication. */
  #replications = 0
  #resets = 0

  constructor(cells: RedisCells, host: ConversationHost) {
    this.#cells = cells
    this.#host = host
  }

  /** A reply is awaited, to whatever command. */
  get isWaiting(): boolean {
    return this.#pending.count > 0
  }

  /** The application awaits a reply. */
  get isAsking(): boolean {
    return this.#pending.count > this.ours
  }

  /** No reply is awaited, and none has begun. */
  get isAnswered(): boolean {
    return this.#pending.count === 0 && this.replies.isAtBoundary
  }

  get isBusy(): boolean {
    return this.#pending.count > 0 || this.isInMulti
  }

  /** A command may take as long as it likes. */
  get isBlocking(): boolean {
    return this.#blocking > 0
  }

  /** Only the server knows when it has done what it was asked: the first of the commands waits itself, or none is answered. */
  get isServersToEnd(): boolean {
    if (this.isOpaque || this.#isMonitor || this.isUnheard || this.#isUnsure) return true
    const pending = this.#pending
    return pending.count > 0 && pending.command !== OURS && commands()[pending.command]!.kind === Kind.blocking
  }

  /** Nothing tells whether the server has everything by now. */
  get isUnheard(): boolean {
    return this.#isSilent || this.#skipsNext || this.#unheard >= 0
  }

  /** The only reply that is awaited is that of a command which is not complete. */
  get isHalfAsked(): boolean {
    return this.#pending.count === 1 && !this.commands.isAtBoundary && !this.isOpaque
  }

  /** The server is about to end the connection. */
  get isQuitting(): boolean {
    return this.#quits > 0
  }

  get #isSubscribed(): boolean {
    return this.#channels + this.#patterns + this.#shards > 0
  }

  /** A server before RESP3 takes no commands but those of channels. */
  get #isRestricted(): boolean {
    return this.#isSubscribed && !this.#isResp3
  }

  get #isResetNext(): boolean {
    const { command, extra } = this.#pending
    return command !== OURS && commands()[command]!.kind === Kind.reset && extra === 0
  }

  /** RESET has not been answered. */
  get isResetting(): boolean {
    return this.#resets > 0
  }

  /** A command of ours and its reply are seen by nobody. */
  get isPlain(): boolean {
    return (
      this.#pending.count === 0 &&
      this.commands.isAtBoundary &&
      !this.isInMulti &&
      !this.isUnheard &&
      !this.#isSubscribed &&
      !this.#isUnsure &&
      !this.#isMonitor &&
      !this.isOpaque
    )
  }

  /** Another connection can be made like this one, and nothing is under way. */
  get canMove(): boolean {
    return this.isAnswered && this.commands.isAtBoundary && !this.isInMulti && !this.isQuitting && !this.isTied
  }

  /** It has what no other connection can be given, whether something is under way or not; a transaction apart, which has an end. */
  get isTied(): boolean {
    return (
      this.#isWatching || this.#isSubscribed || this.#isMonitor || this.isOpaque || this.#isPinned || this.isUnheard
    )
  }

  /** Goes on with a new connection. Returns what makes it like the one before. */
  begin(): readonly Replay[] {
    this.replies = new ReplyParser()
    return this.#replays === null ? [] : replayOf(this.#replays)
  }

  /** A command of ours was sent. */
  expectOurs(isVital: boolean): void {
    this.#pending.push(OURS, now(), isVital ? VITAL : 0)
    this.ours++
  }

  // From the application.

  onCommand(command: Command, args: number): void {
    this.count++
    this.#cells.onCommand(command.index)
    if (this.#isSilent || this.#skipsNext || this.#isMonitor) {
      this.#onUnanswered(command, args)
      return
    }
    if (command.kind === Kind.plain) {
      this.#pending.push(command.index, now(), 0)
      return
    }
    this.#onSpecial(command, args)
  }

  /** Nothing tells what becomes of it, so that the connection may have any state from here on. */
  #onUnanswered({ kind, name }: Command, args: number): void {
    this.#skipsNext = false
    this.#unheard = this.#pending.count
    if (kind === Kind.plain) return
    this.#isPinned = true
    if (kind === Kind.multi && args === 1) this.isInMulti = this.#isUnsure = true
    else if (kind === Kind.exec && args === 1) this.isInMulti = false
    else if (kind === Kind.subscribe || kind === Kind.unsubscribe) {
      this.#isUnsure = true
      this.#listen()
    } else if (kind === Kind.monitor) this.#beginMonitor()
    else if (kind === Kind.quit) {
      this.#quits++
      this.#isUnsure = true
      this.#hasQuitUnseen = name === 'quit'
    } else if (kind === Kind.replication) this.isOpaque = true
  }

  #listen(): void {
    this.#hears = true
    this.#isUnsure ||= this.isInMulti
    this.replies.isWordWanted = true
  }

  #onSpecial(command: Command, args: number): void {
    const isNested = command.kind === Kind.multi && this.isInMulti
    this.#pending.push(command.index, now(), isNested ? NESTED : args - 1)
    switch (command.kind) {
      case Kind.auth:
      case Kind.hello:
      case Kind.select:
      case Kind.client:
        this.#effects ??= []
        this.#effects.push(this.#effect === null || this.isInMulti ? PINS : this.#effect)
        break
      // With arguments that the server refuses, nothing begins and nothing ends; neither does EXEC outside of MULTI.
      case Kind.multi:
        if (args === 1) this.isInMulti = true
        break
      case Kind.exec:
        if (args !== 1 || !this.isInMulti) break
        this.isInMulti = false
        this.#isWatching = false
        break
      case Kind.watch:
        if (args > 1) this.#isWatching = true
        break
      case Kind.unwatch:
        if (args === 1 && !this.isInMulti) this.#isWatching = false
        break
      case Kind.blocking:
        this.#blocking++
        break
      case Kind.subscribe:
      case Kind.unsubscribe:
        this.#listen()
        if (this.isInMulti) this.#isPinned = true
        break
      case Kind.quit:
        this.#quits++
        break
      case Kind.replication:
        this.#replications++
        break
    }
  }

  /** Whether it depends on replies that have not come if this command gets one. */
  isUnclear(command: Command, args: readonly Buffer[]): boolean {
    if (this.#pending.count === 0 || this.isOpaque || this.#hasQuitUnseen) return false
    if (!(this.isInMulti || (this.#hears && !this.#isResp3))) return false
    return command.kind === Kind.client ? isReplyMode(args) : command.kind === Kind.replconf && isUnanswered(args)
  }

  /** The server is about to answer a command that turns the connection into one of replication, and `byte` does not begin a refusal. */
  turnsOpaque(byte: number): boolean {
    // What begins the data is a status, a bulk string, or an empty line while they are made ready.
    const isData = byte === Type.simple || byte === Type.bulk || byte === 0x0a
    if (this.#replications === 0 || !isData || !this.replies.isAtBoundary) return false
    const pending = this.#pending
    if (pending.count === 0 || pending.command === OURS) return false
    this.isOpaque = commands()[pending.command]!.kind === Kind.replication
    return this.isOpaque
  }

  /** Replies have to be looked at one by one. */
  get isOneByOne(): boolean {
    return this.ours > 0 || this.#replications > 0
  }

  #shift(): void {
    this.#pending.shift()
    if (this.#unheard >= 0) this.#unheard--
  }

  /**
   * A command whose arguments matter. Returns what is sent in its place; null: it is sent as it is.
   * @param line the AUTH with our credential; null: there is none
   */
  onGathered(command: Command, args: readonly Buffer[], line: Buffer | null): Buffer | null {
    const { kind } = command
    if (kind === Kind.client && this.#onClientReply(args)) return null
    if (kind === Kind.replconf && this.isInMulti && isUnanswered(args)) this.#isUnsure = true
    else if (kind === Kind.replconf && !this.#isRestricted && isUnanswered(args)) {
      this.count++
      this.#cells.onCommand(command.index)
      this.#onUnanswered(OTHER, args.length)
      return null
    }
    if (kind === Kind.reset && args.length === 1 && !this.isOpaque && !this.#hasQuitUnseen)
      return this.#onResetCommand(command, line)
    this.#effect = effectOf(kind, args, line !== null)
    this.onCommand(command, args.length)
    this.#effect = null
    if (line === null) return null
    if (kind === Kind.auth) return injectedAuth(line, args)
    return kind === Kind.hello ? injectedHello(line, args) : null
  }

  #onResetCommand(command: Command, line: Buffer | null): Buffer | null {
    if (this.#skipsNext) {
      // The one command of which the server does not say that it did it.
      this.count++
      this.#cells.onCommand(command.index)
      this.#clear()
      if (line === null) return null
      this.expectOurs(true)
      this.#host.onLoggingIn()
      return resetWith(line)
    }
    // It takes that back first, and answers.
    this.#isSilent = false
    const isSeen = !this.#isMonitor
    this.onCommand(command, 1)
    if (isSeen) this.isInMulti = false
    this.#resets++
    this.#host.onResetting()
    return null
  }

  /** CLIENT REPLY decides which commands get a reply. True when it gets none itself. */
  #onClientReply(args: readonly Buffer[]): boolean {
    if (!isReplyMode(args) || this.#isRestricted) return false
    if (this.isInMulti) {
      this.#isUnsure = true
      return false
    }
    const mode = args[2]!.toString('latin1').toLowerCase()
    // With channels, a server before RESP3 refuses it, in silence too.
    if (mode === 'on' && !(this.#isUnsure && !this.#isResp3)) this.#isSilent = false
    if (mode !== 'off' && mode !== 'skip') return false
    this.count++
    this.#cells.onCommand(commands().find(({ name }) => name === 'client')?.index ?? 0)
    this.#onUnanswered(OTHER, args.length)
    if (mode === 'off') this.#isSilent = true
    else this.#skipsNext = !this.#isSilent
    return true
  }

  // From the server.

  /** Whether what comes next answers a command of ours; a reply of ours that began goes on being one. */
  isNextOurs(byte: number): boolean {
    if (this.#pending.count === 0 || this.#pending.command !== OURS) return false
    return !this.replies.isAtBoundary || byte !== Type.push
  }

  onReply(type: number, word: number, integer: number): void {
    if (this.#isMonitor) {
      if (type === Type.simple && word === RESET) this.#onReset()
      return
    }
    if ((this.#hears || type === Type.push) && this.#onPush(type, word, integer)) return
    const pending = this.#pending
    if (pending.count === 0) return
    const index = pending.command
    const { extra } = pending
    // Before it there may be replies that nobody could expect.
    if (this.#resets > 0 && type === Type.simple && word !== RESET && this.#isResetNext) return
    if (index === OURS) {
      this.#shift()
      this.ours--
      if (type === Type.error) this.#host.onOursRefused(extra === VITAL)
      return
    }
    this.#cells.onReply(index, now() - pending.time)
    this.#shift()
    if (type === Type.error) this.#onError(word)
    const { kind } = commands()[index]!
    if (kind !== Kind.plain) this.#onSpecialReply(index, type, word, extra)
  }

  /** What channels send, and what confirms a subscription. True when it answers no other command. */
  #onPush(type: number, word: number, integer: number): boolean {
    const pending = this.#pending
    const isPush = type === Type.push
    if (isPush) this.#isResp3 = true
    const isHead = pending.count > 0 && pending.command !== OURS && this.#isSubscription(pending.command)
    // Before RESP3 a message is an array like a reply: of those, a server with subscriptions sends none but PONG.
    const mayBeMessage = isPush || (type === Type.array && !this.#isResp3 && (this.#isSubscribed || this.#isUnsure))
    if ((mayBeMessage || (isHead && type === Type.array)) && CONFIRMATIONS.has(word)) {
      const before = this.#onConfirmation(word, Math.max(0, integer))
      if (!isHead) return true
      // Without names, one comes for each that there was, or one for none.
      pending.extra = (pending.extra > 0 ? pending.extra : Math.max(1, before)) - 1
      if (pending.extra === 0) this.#endSubscription()
      return true
    }
    return isPush || (mayBeMessage && MESSAGES.has(word))
  }

  /** @param count of channels and patterns together, or of sharded channels. Returns how many of the kind there were. */
  #onConfirmation(word: number, count: number): number {
    if (SHARDED.has(word)) {
      const before = this.#shards
      this.#shards = count
      return before
    }
    if (PATTERNS.has(word)) {
      const before = this.#patterns
      this.#patterns = Math.max(0, count - this.#channels)
      return before
    }
    const before = this.#channels
    this.#channels = Math.max(0, count - this.#patterns)
    return before
  }

  #isSubscription(index: number): boolean {
    const { kind } = commands()[index]!
    return kind === Kind.subscribe || kind === Kind.unsubscribe
  }

  #endSubscription(): void {
    this.#cells.onReply(this.#pending.command, now() - this.#pending.time)
    this.#shift()
  }

  #onSpecialReply(index: number, type: number, word: number, extra: number): void {
    const { kind, name } = commands()[index]!
    const isError = type === Type.error
    switch (kind) {
      case Kind.multi:
        if (extra === NESTED) this.#isUnsure ||= !isError
        else if (isError) this.isInMulti = false
        break
      case Kind.exec:
        // An EXEC with arguments ends the transaction too, in newer servers.
        if (word !== EXECABORT || extra === 0) break
        this.isInMulti = false
        this.#isWatching = false
        break
      case Kind.blocking:
        this.#blocking--
        break
      case Kind.quit:
        // SHUTDOWN that succeeds is not answered.
        if (isError || name === 'shutdown') this.#quits--
        break
      case Kind.replication:
        this.#replications--
        break
      case Kind.monitor:
        if (word === OK) this.#beginMonitor()
        break
      case Kind.reset:
        if (extra > 0) break
        if (!isError) this.#onReset()
        else this.#onResetRefused()
        break
      case Kind.auth:
      case Kind.hello:
      case Kind.select:
      case Kind.client: {
        const effect = this.#effects?.shift()
        if (effect === undefined || isError) break
        if (kind === Kind.hello && type !== Type.simple) this.#isResp3 = type === Type.map
        if (effect.pins) this.#isPinned = true
        for (const [key, command] of effect.replays) {
          this.#replays ??= new Map()
          if (command === null) this.#replays.delete(key)
          else this.#replays.set(key, command)
        }
        break
      }
    }
  }

  /** What is awaited cannot be told from what it sees. */
  #beginMonitor(): void {
    this.#isMonitor = true
    this.#pending.clear()
    this.ours = 0
    this.#effects = null
    this.#unheard = -1
    this.#blocking = 0
    this.#replications = 0
  }

  /** RESET took everything back, the login too. */
  #onReset(): void {
    this.#clear()
    this.#resets = Math.max(0, this.#resets - 1)
    this.#host.onReset()
  }

  /** Everything is as it was, and it may have been in the middle of a transaction. */
  #onResetRefused(): void {
    this.#isPinned = true
    this.#resets = Math.max(0, this.#resets - 1)
    this.#host.onResetRefused()
  }

  /** It is as a new connection is, before its login. */
  #clear(): void {
    this.isInMulti = false
    this.#isWatching = false
    this.#isMonitor = false
    this.#isPinned = false
    this.#isSilent = false
    this.#skipsNext = false
    this.#unheard = -1
    this.#hears = false
    this.#isUnsure = false
    this.#isResp3 = false
    this.#channels = 0
    this.#patterns = 0
    this.#shards = 0
    this.#replays = null
  }

  /** The server says itself that it is not the one to talk to. */
  #onError(word: number): void {
    if (word === READONLY || word === LOADING || word === MASTERDOWN) this.#host.onNotTheOne()
  }
}
