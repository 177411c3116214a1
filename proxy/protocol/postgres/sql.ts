/** Reads SQL only as far as it takes to see whether it leaves something behind in the session that it runs in. */

/** What a statement leaves behind, so that its client needs the same connection to the server again. */
export type Pin =
  | 'set'
  | 'role'
  | 'prepare'
  | 'listen'
  | 'temporary_table'
  | 'advisory_lock'
  | 'cursor'
  | 'load'
  | 'dblink'
  | 'do'
  | 'other'

/** What a word may mean beside what is read here: a stored function, or a table or view that calls one. */
export interface Effects {
  readonly pin: Pin | null
  /** Bits of REPORTED_PARAMETERS that are set. */
  readonly parameters: number
  readonly asksSequences: boolean
  /** What it leaves behind cannot be told. */
  readonly isDoubtful: boolean
}

/** Knows what words mean in a database; see Lexicon. */
export interface Words {
  /** Of a word by hashOf(). Null: none; undefined: not known. */
  effectsOf(hash: number): Effects | null | undefined
}

/** For a log line: the kind of statement, nothing of its text. */
export const PIN_TEXT: Readonly<Record<Pin, string>> = {
  set: 'SET or set_config() of a parameter that the server does not report',
  role: 'SET ROLE or SET SESSION AUTHORIZATION',
  prepare: 'PREPARE',
  listen: 'LISTEN',
  temporary_table: 'a temporary table or another object in pg_temp',
  advisory_lock: 'an advisory lock of the session',
  cursor: 'DECLARE ... WITH HOLD',
  load: 'LOAD',
  dblink: 'dblink_connect()',
  do: 'DO with EXECUTE or with a body that cannot be read',
  other: 'a statement that changes the session',
}

/** Parameters that may be reported by the server (ParameterStatus), so that a pool can restore them; a bit of each. */
export const REPORTED_PARAMETERS = [
  'application_name',
  'client_encoding',
  'datestyle',
  'default_transaction_read_only',
  'intervalstyle',
  'scram_iterations',
  'search_path',
  'standard_conforming_strings',
  'timezone',
] as const

// Words that mean something. Keywords come first: in double quotes they are names.
const WORD = {
  none: 0,
  set: 1,
  reset: 2,
  prepare: 3,
  listen: 4,
  load: 5,
  declare: 6,
  create: 7,
  do: 8,
  update: 9,
  deallocate: 10,
  local: 11,
  global: 12,
  transaction: 13,
  constraints: 14,
  session: 15,
  characteristics: 16,
  authorization: 17,
  temp: 18,
  temporary: 19,
  replace: 20,
  into: 21,
  insert: 22,
  merge: 23,
  with: 24,
  hold: 25,
  true: 26,
  begin: 27,
  else: 29,
  loop: 30,
  execute: 31,
  time: 32,
  names: 33,
  schema: 34,
  discard: 35,
  alter: 36,
  drop: 37,
  savepoint: 38,
  release: 39,
  rollback: 40,
  commit: 41,
  start: 42,
  end: 43,
  abort: 44,
  fetch: 45,
  close: 46,
  move: 47,
  notify: 48,
  show: 49,
  unlisten: 50,
  role: 64,
  session_authorization: 65,
  pg_temp: 66,
  pg_settings: 67,
  set_config: 68,
  currval: 69,
  lastval: 70,
  pg_advisory_lock: 71,
  pg_advisory_lock_shared: 72,
  pg_try_advisory_lock: 73,
  pg_try_advisory_lock_shared: 74,
  dblink_connect: 75,
  dblink_connect_u: 76,
  pg_replication_origin_session_setup: 77,
  e: 78,
  u: 79,
} as const
/** Statements of these kinds call nothing, and may name something new each time, as savepoints are. */
const CALLS_NOTHING = new Uint8Array(256)
for (const name of [
  'savepoint',
  'release',
  'rollback',
  'commit',
  'start',
  'end',
  'abort',
  'fetch',
  'close',
  'move',
  'notify',
  'listen',
  'show',
  'unlisten',
  'deallocate',
] as const) {
  CALLS_NOTHING[WORD[name]] = 1
}
/** An object with a member of this name would be taken for a promise. */
const THEN = 28
const FIRST_NAME = 64
const FIRST_PARAMETER = 128

const LONGEST = 40
/** Whether a word of this first letter and length can be one of those: most cannot, and are passed over. */
const candidates = new Uint8Array(256 * LONGEST)
const codes = new Map<number, number>()

/** Of a name as the server spells it, byte for byte (latin1). */
export function hashOf(word: string): number {
  let hash = 0
  for (let at = 0; at < word.length; at++) hash = (Math.imul(hash, 31) + word.charCodeAt(at)) | 0
  return hash
}

for (const [word, code] of [
  ...Object.entries(WORD),
  ['then', THEN] as const,
  ...REPORTED_PARAMETERS.map((name, bit) => [name, FIRST_PARAMETER + bit] as const),
]) {
  if (code === WORD.none) continue
  candidates[word.charCodeAt(0) * LONGEST + word.length] = 1
  codes.set(hashOf(word), code)
}

// What a byte is; 0 is any other.
const SPACE = 1
const LETTER = 2
const DIGIT = 3
const QUOTE = 4
const DOUBLE_QUOTE = 5
const DOLLAR = 6
const MINUS = 7
const SLASH = 8
const SEMICOLON = 9
const OPEN = 10
const CLOSE = 11
const CLASS = new Uint8Array(256)
/** Capital letters as small ones. */
const LOWER = new Uint8Array(256)
for (let byte = 0; byte < 256; byte++) {
  const text = String.fromCharCode(byte)
  LOWER[byte] = byte < 0x80 ? text.toLowerCase().charCodeAt(0) : byte
  if (byte >= 0x80 || /[A-Za-z_]/.test(text)) CLASS[byte] = LETTER
  else if (/[0-9]/.test(text)) CLASS[byte] = DIGIT
  else if (/[ \t\r\n\f\v]/.test(text)) CLASS[byte] = SPACE
}
for (const [text, kind] of [
  ["'", QUOTE],
  ['"', DOUBLE_QUOTE],
  ['$', DOLLAR],
  ['-', MINUS],
  ['/', SLASH],
  [';', SEMICOLON],
  ['(', OPEN],
  [')', CLOSE],
] as const) {
  CLASS[text.charCodeAt(0)] = kind
}

// normal         => any other at the byte that begins it
// word           => normal at the byte behind it
// string, name   => normal behind the quote that is not doubled
// dollar         => tag or normal; tag => body; body => normal behind the same tag
type State =
  | 'normal'
  | 'word'
  | 'number'
  | 'string'
  | 'stringQuote'
  | 'escape'
  | 'name'
  | 'nameQuote'
  | 'minus'
  | 'line'
  | 'slash'
  | 'block'
  | 'blockStar'
  | 'blockSlash'
  | 'dollar'
  | 'tag'
  | 'body'
  | 'parameter'

const BACKSLASH = 0x5c
const STAR = 0x2a
const NEWLINE = 0x0a
const AMPERSAND = 0x26
const MAX_TAG_BYTES = 64

/** Reads one text of SQL, in as many pieces as it comes: begin(), feed() of each, end(); then the findings are complete. */
export class SqlScanner {
  /** The first thing found that needs the session again; null: nothing. */
  pin: Pin | null = null
  /** Bits of REPORTED_PARAMETERS that SET names. */
  parameters = 0
  /** It asks what the session did with sequences: currval() or lastval(). */
  asksSequences = false
  /** Statements that are not empty. */
  statements = 0
  /** The first one is DEALLOCATE. */
  isDeallocate = false
  /** It calls what cannot be read. */
  isDoubtful = false
  /** Words that are not known, by hashOf(). */
  readonly open: number[] = []
  /** `pin` is of something that is stored. */
  isStored = false
  /** Something that is stored may have changed behind it. */
  isChange = false
  /** Asked about every word that may name something stored; null: nobody is. */
  words: Words | null = null

  #state: State = 'normal'
  #isEscaping = false
  /** Of the string that is open: a backslash quotes. */
  #hasBackslashes = false
  #hash = 0
  #length = 0
  #firstLetter = 0
  /** Words of the statement so far, and those that count. */
  #position = 0
  #kind: number = WORD.none
  #previous: number = WORD.none
  #isSetDone = false
  /** The body of a DO is read as if it stood there without quotes. */
  #isDo = false
  #depth = 0
  /** Depth of parentheses inside of set_config(); 0: not in one. */
  #configDepth = 0
  #isConfigLocal = false
  #blockDepth = 0
  #tag: number[] = []
  #matched = -1
  #isUnicode = false
  /** It makes a temporary table, which lasts unless ON COMMIT DROP follows. */
  #isTemporary = false
  /** What `isChange` was before this statement. */
  #wasChange = false

  /** @param isEscaping standard_conforming_strings is off: a backslash quotes in every string */
  begin(isEscaping: boolean): void {
    this.pin = null
    this.parameters = 0
    this.asksSequences = false
    this.statements = 0
    this.isDeallocate = false
    this.isDoubtful = false
    this.open.length = 0
    this.isStored = false
    this.isChange = false
    this.#isTemporary = false
    this.#state = 'normal'
    this.#isEscaping = isEscaping
    this.#isDo = false
    this.#depth = 0
    this.#configDepth = 0
    this.#isUnicode = false
    this.#startStatement()
  }

  /** Begins with the body of a stored function, which is read as that of a DO. */
  beginBody(): void {
    this.begin(false)
    this.#isDo = true
  }

  #startStatement(): void {
    this.#wasChange = this.isChange
    if (this.#isTemporary) this.#found('temporary_table')
    this.#isTemporary = false
    this.#position = 0
    this.#kind = WORD.none
    this.#previous = WORD.none
    this.#isSetDone = false
  }

  feed(bytes: Buffer, from: number, to: number): void {
    let at = from
    while (at < to) {
      switch (this.#state) {
        case 'normal': {
          const byte = bytes[at]!
          const kind = CLASS[byte]!
          at++
          if (kind === SPACE) continue
          if (kind === LETTER) {
            this.#state = 'word'
            this.#hash = LOWER[byte]!
            this.#firstLetter = LOWER[byte]!
            this.#length = 1
          } else this.#onSign(byte, kind)
          break
        }
        case 'word': {
          let hash = this.#hash
          const start = at
          while (at < to) {
            const byte = bytes[at]!
            const kind = CLASS[byte]!
            if (kind !== LETTER && kind !== DIGIT && kind !== DOLLAR) break
            hash = (Math.imul(hash, 31) + LOWER[byte]!) | 0
            at++
          }
          this.#length += at - start
          this.#hash = hash
          if (at < to) {
            this.#state = 'normal'
            this.#endWord(false)
          }
          break
        }
        case 'string':
          while (at < to) {
            const byte = bytes[at++]!
            if (byte === 0x27) {
              this.#state = 'stringQuote'
              break
            }
            if (byte === BACKSLASH && this.#hasBackslashes) {
              this.#state = 'escape'
              break
            }
          }
          break
        case 'stringQuote':
          // Two quotes are one that is part of the text.
          if (bytes[at] === 0x27) {
            this.#state = 'string'
            at++
          } else this.#state = 'normal'
          break
        case 'escape':
          this.#state = 'string'
          at++
          break
        case 'name': {
          let hash = this.#hash
          const start = at
          let isEnd = false
          while (at < to) {
            const byte = bytes[at]!
            if (byte === 0x22) {
              isEnd = true
              break
            }
            if (at === start && this.#length === 0) this.#firstLetter = byte
            hash = (Math.imul(hash, 31) + byte) | 0
            at++
          }
          this.#length += at - start
          this.#hash = hash
          if (isEnd) {
            at++
            this.#state = 'nameQuote'
          }
          break
        }
        case 'nameQuote':
          if (bytes[at] === 0x22) {
            // No word that counts here has a quote in it.
            this.#length = LONGEST
            this.#hash = (Math.imul(this.#hash, 31) + 0x22) | 0
            this.#state = 'name'
            at++
          } else {
            this.#state = 'normal'
            this.#endWord(true)
          }
          break
        case 'number': {
          const kind = CLASS[bytes[at]!]!
          if (kind === LETTER || kind === DIGIT || bytes[at] === 0x2e) at++
          else this.#state = 'normal'
          break
        }
        case 'parameter':
          if (CLASS[bytes[at]!] === DIGIT) at++
          else this.#state = 'normal'
          break
        case 'minus':
          if (bytes[at] === 0x2d) {
            this.#state = 'line'
            at++
          } else this.#state = 'normal'
          break
        case 'line': {
          const end = bytes.indexOf(NEWLINE, at)
          if (end < 0 || end >= to) at = to
          else {
            at = end + 1
            this.#state = 'normal'
          }
          break
        }
        case 'slash':
          if (bytes[at] === STAR) {
            this.#state = 'block'
            this.#blockDepth = 1
            at++
          } else this.#state = 'normal'
          break
        case 'block': {
          const byte = bytes[at++]!
          if (byte === STAR) this.#state = 'blockStar'
          else if (byte === 0x2f) this.#state = 'blockSlash'
          break
        }
        case 'blockStar':
          if (bytes[at] === 0x2f) {
            at++
            this.#blockDepth--
            this.#state = this.#blockDepth === 0 ? 'normal' : 'block'
          } else this.#state = 'block'
          break
        case 'blockSlash':
          if (bytes[at] === STAR) {
            at++
            this.#blockDepth++
          }
          this.#state = 'block'
          break
        case 'dollar': {
          // $1 is a parameter; $$ and $tag$ begin a string.
          const byte = bytes[at]!
          const kind = CLASS[byte]!
          if (kind === DIGIT) this.#state = 'parameter'
          else if (kind === LETTER || kind === DOLLAR) {
            this.#tag = []
            this.#state = 'tag'
          } else this.#state = 'normal'
          break
        }
        case 'tag': {
          const byte = bytes[at]!
          const kind = CLASS[byte]!
          if (kind === DOLLAR) {
            at++
            this.#matched = -1
            // Of a DO, the text inside is what runs; the tag at its end is an empty string that ends where the text does.
            this.#state = this.#isDo ? 'normal' : 'body'
            if (this.#isDo) this.#restart()
          } else if ((kind === LETTER || kind === DIGIT) && this.#tag.length < MAX_TAG_BYTES) {
            this.#tag.push(byte)
            at++
          } else this.#state = 'normal'
          break
        }
        case 'body':
          at = this.#readBody(bytes, at, to)
          break
      }
    }
  }

  /** Looks for the tag that ends a dollar-quoted string. */
  #readBody(bytes: Buffer, from: number, to: number): number {
    const tag = this.#tag
    for (let at = from; at < to; at++) {
      const byte = bytes[at]!
      if (byte === 0x24) {
        if (this.#matched === tag.length) {
          this.#state = 'normal'
          return at + 1
        }
        this.#matched = 0
      } else if (this.#matched >= 0) {
        if (this.#matched < tag.length && tag[this.#matched] === byte) this.#matched++
        else this.#matched = -1
      }
    }
    return to
  }

  /** The text has ended. */
  end(): void {
    if (this.#state === 'word') this.#endWord(false)
    else if (this.#state === 'nameQuote') this.#endWord(true)
    if (this.#configDepth > 0) this.#found('set')
    if (this.#isTemporary) this.#found('temporary_table')
    this.#isTemporary = false
    this.#state = 'normal'
  }

  #found(pin: Pin): void {
    this.pin ??= pin
  }

  #onSign(byte: number, kind: number): void {
    if (this.#configDepth > 0 && kind !== CLOSE) this.#isConfigLocal = false
    const isUnicode = this.#isUnicode
    this.#isUnicode = false
    switch (kind) {
      case QUOTE:
        // E'...' has a word before its quote.
        this.#hasBackslashes = this.#isEscaping || (this.#previous === WORD.e && this.#length === 1)
        this.#state = 'string'
        if (this.#isDo && this.#position <= 3 && this.#kind === WORD.do) this.#found('do')
        break
      case DOUBLE_QUOTE:
        // A name may be written in code points: it is not worth reading them.
        if (isUnicode) this.#found('other')
        this.#state = 'name'
        this.#hash = 0
        this.#length = 0
        this.#firstLetter = 0
        break
      case DOLLAR:
        this.#state = 'dollar'
        break
      case MINUS:
        this.#state = 'minus'
        break
      case SLASH:
        this.#state = 'slash'
        break
      case DIGIT:
        this.#state = 'number'
        break
      case SEMICOLON:
        if (this.#depth === 0) this.#restart()
        break
      case OPEN:
        this.#depth++
        break
      case CLOSE:
        if (this.#depth > 0) this.#depth--
        if (this.#configDepth > 0 && this.#depth < this.#configDepth) {
          if (!this.#isConfigLocal) this.#found('set')
          this.#configDepth = 0
        }
        break
      default:
        this.#isUnicode = byte === AMPERSAND && this.#previous === WORD.u
    }
    if (kind !== QUOTE) this.#length = 0
  }

  #restart(): void {
    if (this.#configDepth > 0) this.#found('set')
    this.#configDepth = 0
    this.#startStatement()
  }

  #endWord(isQuoted: boolean): void {
    const length = this.#length
    let code: number = WORD.none
    if (length < LONGEST && candidates[this.#firstLetter * LONGEST + length] === 1) {
      code = codes.get(this.#hash) ?? WORD.none
      if (isQuoted && code < FIRST_NAME) code = WORD.none
    }
    if (this.words !== null) this.#ask(this.words, this.#position === 0 ? code : this.#kind)
    if (this.#position === 0) {
      this.statements++
      if (this.statements === 1) this.isDeallocate = code === WORD.deallocate
      this.#kind = code
      this.#onFirstWord(code)
    } else if (this.#kind === WORD.set && !this.#isSetDone) this.#onSetWord(code)
    else if (code !== WORD.none) this.#onWord(code)
    if (this.#kind === WORD.prepare && this.#position === 1 && code !== WORD.transaction) this.#found('prepare')
    if (this.#configDepth > 0) this.#isConfigLocal = code === WORD.true && this.#depth === this.#configDepth
    this.#position++
    // A table that is called temp may be inserted into.
    const isInserting = code === WORD.into && (this.#previous === WORD.insert || this.#previous === WORD.merge)
    this.#previous = isInserting ? WORD.none : code
    if (code === WORD.set_config) {
      if (this.#configDepth > 0) this.#found('set')
      this.#configDepth = this.#depth + 1
      this.#isConfigLocal = false
    }
    // In a block, a statement follows without a semicolon.
    if (this.#isDo && (code === WORD.begin || code === THEN || code === WORD.else || code === WORD.loop)) {
      this.#startStatement()
    }
  }

  #ask(words: Words, kind: number): void {
    if (CALLS_NOTHING[kind] === 1 || (kind === WORD.declare && this.#position === 1)) return
    const effects = words.effectsOf(this.#hash)
    if (effects === null) return
    if (effects === undefined) {
      this.open.push(this.#hash)
      return
    }
    if (effects.isDoubtful) this.isDoubtful = true
    if (effects.asksSequences) this.asksSequences = true
    this.parameters |= effects.parameters
    if (effects.pin === null || this.pin !== null) return
    this.pin = effects.pin
    this.isStored = true
  }

  #onFirstWord(code: number): void {
    if (code === WORD.create || code === WORD.alter || code === WORD.drop || code === WORD.do) this.isChange = true
    if (code === WORD.listen) this.#found('listen')
    else if (code === WORD.load) this.#found('load')
    else if (code === WORD.do) this.#isDo = true
    else if (code === WORD.execute && this.#isDo) this.#found('do')
    else if (code >= FIRST_NAME) this.#onWord(code)
  }

  /** The words behind SET, until the parameter is known. */
  #onSetWord(code: number): void {
    if (this.#position === 1) {
      if (code === WORD.local || code === WORD.transaction || code === WORD.constraints) {
        this.#isSetDone = true
        return
      }
      // A word more: SESSION goes before a parameter, and before two things of its own.
      if (code === WORD.session) return
    }
    this.#isSetDone = true
    if (code === WORD.role || code === WORD.authorization || code === WORD.session_authorization) this.#found('role')
    else if (code === WORD.time) this.parameters |= bitOf('timezone')
    else if (code === WORD.names) this.parameters |= bitOf('client_encoding')
    else if (code === WORD.schema) this.parameters |= bitOf('search_path')
    else if (code >= FIRST_PARAMETER) this.parameters |= 1 << (code - FIRST_PARAMETER)
    else this.#found('set')
  }

  #onWord(code: number): void {
    const previous = this.#previous
    switch (code) {
      case WORD.temp:
      case WORD.temporary:
        if (this.#kind === WORD.create) {
          if (this.#position === 1 || [WORD.local, WORD.global, WORD.replace].some((each) => each === previous)) {
            this.#isTemporary = true
            this.isChange = this.#wasChange
          }
        } else if (previous === WORD.into || previous === WORD.local || previous === WORD.global) {
          this.#found('temporary_table')
        }
        break
      case WORD.drop:
        if (previous === WORD.commit) this.#isTemporary = false
        break
      case WORD.hold:
        if (this.#kind === WORD.declare && previous === WORD.with) this.#found('cursor')
        break
      case WORD.execute:
        if (this.#isDo) this.#found('do')
        break
      case WORD.pg_temp:
        this.#found('temporary_table')
        break
      case WORD.pg_settings:
        if (this.#kind === WORD.update) this.#found('set')
        break
      case WORD.currval:
      case WORD.lastval:
        this.asksSequences = true
        break
      case WORD.pg_advisory_lock:
      case WORD.pg_advisory_lock_shared:
      case WORD.pg_try_advisory_lock:
      case WORD.pg_try_advisory_lock_shared:
        this.#found('advisory_lock')
        break
      case WORD.dblink_connect:
      case WORD.dblink_connect_u:
        this.#found('dblink')
        break
      case WORD.pg_replication_origin_session_setup:
        this.#found('other')
        break
      default:
        break
    }
  }
}

function bitOf(name: (typeof REPORTED_PARAMETERS)[number]): number {
  return 1 << REPORTED_PARAMETERS.indexOf(name)
}
