/** Follows what an application and its server say to each other: which replies are awaited, and what state the connection has by now. */
import { now } from '../../runtime/clock.ts'
import type { RedisCells } from './cells.ts'
import { type Command, commands, Kind } from './commands.ts'
import { CommandParser, type CommandSink, ReplyParser, type ReplySink, Type, wordHash } from './parser.ts'
import { Pending } from './pending.ts'
import { type Effect, effectOf, injectedAuth, injectedHello, replayOf } from './state.ts'

/** What a command of ours is entered as among those that wait: its reply is not for the application. */
const OURS = 0xffff
/** A MULTI inside of another one: that goes on when this one is refused. */
const NESTED = -1
const READONLY = wordHash('READONLY')
const LOADING = wordHash('LOADING')
const MASTERDOWN = wordHash('MASTERDOWN')
const RESET = wordHash('RESET')
const MESSAGES = new Set(['message', 'pmessage', 'smessage'].map(wordHash))
const SHARDED = new Set(['ssubscribe', 'sunsubscribe'].map(wordHash))
const CONFIRMATIONS = new Set([...['subscribe', 'psubscribe', 'unsubscribe', 'punsubscribe'].map(wordHash), ...SHARDED])

export interface ConversationHost {
  /** RESET is on its way: what follows it must wait for its reply. */
  onResetting(): void
  /** RESET took everything back, the login too. */
  onReset(): void
  /** The server refused a command of ours. */
  onOursRefused(): void
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
  isQuitting = false
  /** The bytes of the server are not replies any more. */
  isOpaque = false
  readonly #cells: RedisCells
  readonly #host: ConversationHost
  readonly #pending = new Pending()
  /** What pending commands change when they succeed, oldest first. */
  #effects: Effect[] | null = null
  /** What a new connection must be told to be like this one, by what it sets. */
  #replays: Map<string, Buffer> | null = null
  #isWatching = false
  #blocking = 0
  /** Channels and patterns, and beside them sharded channels, which the server counts for themselves. */
  #channels = 0
  #shards = 0
  #confirming = 0
  #isMonitor = false
  /** The connection has a state that no other can be given. */
  #isPinned = false
  #isSilent = false
  #skipsNext = false
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

  get #isSubscribed(): boolean {
    return this.#channels > 0 || this.#shards > 0
  }

  /** RESET has not been answered. */
  get isResetting(): boolean {
    return this.#resets > 0
  }

  /** An application that sends no more waits for nothing that has an end. */
  get mayEndUnanswered(): boolean {
    return this.#pending.count === 0 || this.#blocking > 0 || this.#isMonitor
  }

  /** A command of ours and its reply are seen by nobody. */
  get isPlain(): boolean {
    return (
      this.#pending.count === 0 &&
      this.commands.isAtBoundary &&
      !this.isInMulti &&
      !this.#isSilent &&
      !this.#skipsNext &&
      !this.#isSubscribed &&
      this.#confirming === 0 &&
      !this.#isMonitor &&
      !this.isOpaque &&
      this.#blocking === 0
    )
  }

  /** Another connection can be made like this one, and nothing is under way. */
  get canMove(): boolean {
    return (
      this.#pending.count === 0 &&
      this.commands.isAtBoundary &&
      this.replies.isAtBoundary &&
      !this.isInMulti &&
      !this.#isWatching &&
      !this.#isSubscribed &&
      !this.#isMonitor &&
      !this.isOpaque &&
      !this.#isPinned &&
      !this.#isSilent &&
      !this.#skipsNext &&
      !this.isQuitting
    )
  }

  /** Goes on with a new connection. Returns what makes it like the one before. */
  begin(): readonly Buffer[] {
    this.replies = new ReplyParser()
    return this.#replays === null ? [] : replayOf(this.#replays)
  }

  /** A command of ours was sent. */
  expectOurs(): void {
    this.#pending.push(OURS, now(), 0)
    this.ours++
  }

  // From the application.

  onCommand(command: Command, args: number): void {
    this.count++
    this.#cells.onCommand(command.index)
    if (this.#isSilent) return
    if (this.#skipsNext) {
      this.#skipsNext = false
      return
    }
    if (command.kind === Kind.plain) {
      this.#pending.push(command.index, now(), 0)
      return
    }
    this.#onSpecial(command, args)
  }

  #onSpecial(command: Command, args: number): void {
    const isNested = command.kind === Kind.multi && this.isInMulti
    this.#pending.push(command.index, now(), isNested ? NESTED : args - 1)
    switch (command.kind) {
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
        this.#confirming++
        this.replies.isWordWanted = true
        break
      case Kind.quit:
        this.isQuitting = true
        break
      case Kind.replication:
        this.isOpaque = true
        break
    }
  }

  /**
   * A command whose arguments matter. Returns what is sent in its place; null: it is sent as it is.
   * @param line the AUTH with our credential; null: there is none
   */
  onGathered(command: Command, args: readonly Buffer[], line: Buffer | null): Buffer | null {
    if (command.kind === Kind.client && this.#onClientReply(args)) return null
    const wasSilent = this.#isSilent || this.#skipsNext
    this.onCommand(command, args.length)
    if (command.kind === Kind.reset) {
      this.#resets++
      if (line !== null || wasSilent) this.#host.onResetting()
      return null
    }
    if (this.isInMulti || wasSilent) {
      this.#isPinned = true
      return command.kind === Kind.auth && line !== null ? injectedAuth(line, args) : null
    }
    this.#effects ??= []
    this.#effects.push(effectOf(command.kind, args, line !== null))
    if (line === null) return null
    if (command.kind === Kind.auth) return injectedAuth(line, args)
    return command.kind === Kind.hello ? injectedHello(line, args) : null
  }

  /** CLIENT REPLY decides which commands get a reply. True when it gets none itself. */
  #onClientReply(args: readonly Buffer[]): boolean {
    if (args.length !== 3 || args[1]!.toString('latin1').toLowerCase() !== 'reply' || this.isInMulti) return false
    const mode = args[2]!.toString('latin1').toLowerCase()
    if (mode === 'on') this.#isSilent = false
    if (mode !== 'off' && mode !== 'skip') return false
    this.count++
    this.#cells.onCommand(commands().find(({ name }) => name === 'client')?.index ?? 0)
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
    const pending = this.#pending
    if (type === Type.push || this.#confirming > 0 || this.#isSubscribed) {
      if (this.#onPush(type, word, integer)) return
    }
    if (pending.count === 0) return
    const index = pending.command
    if (index === OURS) {
      pending.shift()
      this.ours--
      if (type === Type.error) this.#host.onOursRefused()
      return
    }
    this.#cells.onReply(index, now() - pending.time)
    const { extra } = pending
    pending.shift()
    if (type === Type.error) this.#onError(word)
    const { kind } = commands()[index]!
    if (kind !== Kind.plain) this.#onSpecialReply(kind, type, extra)
  }

  /** What channels send, and what confirms a subscription. True when it answers no other command. */
  #onPush(type: number, word: number, integer: number): boolean {
    const pending = this.#pending
    const isHead = pending.count > 0 && pending.command !== OURS && this.#isSubscription(pending.command)
    if (type === Type.push || type === Type.array) {
      if (CONFIRMATIONS.has(word)) {
        if (integer >= 0 && SHARDED.has(word)) this.#shards = integer
        else if (integer >= 0) this.#channels = integer
        if (!isHead) return true
        const left = pending.extra - 1
        // Without names, one comes for each channel there was: the last one is seen by what follows it.
        if (left <= 0 && (left === 0 || integer === 0)) this.#endSubscription()
        else pending.extra = left < 0 ? -2 : left
        return true
      }
      if (type === Type.push || MESSAGES.has(word)) return true
    }
    if (isHead && pending.extra < 0) this.#endSubscription()
    return false
  }

  #isSubscription(index: number): boolean {
    const { kind } = commands()[index]!
    return kind === Kind.subscribe || kind === Kind.unsubscribe
  }

  #endSubscription(): void {
    this.#cells.onReply(this.#pending.command, now() - this.#pending.time)
    this.#pending.shift()
    this.#confirming--
  }

  #onSpecialReply(kind: Kind, type: number, extra: number): void {
    switch (kind) {
      case Kind.multi:
        if (type === Type.error && extra !== NESTED) this.isInMulti = false
        break
      case Kind.blocking:
        this.#blocking--
        break
      case Kind.subscribe:
      case Kind.unsubscribe:
        // Refused: nothing else answers it in band.
        this.#confirming--
        break
      case Kind.monitor:
        this.#isMonitor = type !== Type.error
        break
      case Kind.reset:
        this.#onReset()
        break
      case Kind.auth:
      case Kind.hello:
      case Kind.select:
      case Kind.client: {
        const effect = this.#effects?.shift()
        if (effect == null || type === Type.error) break
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

  /** RESET took everything back, the login too. */
  #onReset(): void {
    this.isInMulti = false
    this.#isWatching = false
    this.#isMonitor = false
    this.#isPinned = false
    this.#isSilent = false
    this.#skipsNext = false
    this.#channels = 0
    this.#shards = 0
    this.#replays = null
    this.#resets = Math.max(0, this.#resets - 1)
    this.#host.onReset()
  }

  /** The server says itself that it is not the one to talk to. */
  #onError(word: number): void {
    if (word === READONLY || word === LOADING || word === MASTERDOWN) this.#host.onNotTheOne()
  }
}
