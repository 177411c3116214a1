/** Reads SQL only as far as it takes to see whether it leaves something behind in the session that it runs in. */
import { type Pin, RESTORABLE_PARAMETERS, stronger, type Words } from './pins.ts'
import {
  CALLS_NOTHING,
  CLASS,
  CLOSE,
  codeOf,
  DIGIT,
  DOLLAR,
  DOUBLE_QUOTE,
  FIRST_NAME,
  FIRST_PARAMETER,
  hashed,
  LETTER,
  LONGEST,
  LOWER,
  MINUS,
  OPEN,
  QUOTE,
  SEMICOLON,
  SLASH,
  SPACE,
  THEN,
  WORD,
} from './sql-words.ts'

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
  | 'configName'
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
const LESS = 0x3c
const COMMA = 0x2c
const MAX_TAG_BYTES = 64

/** Reads one text of SQL, in as many pieces as it comes: begin(), feed() of each, end(); then the findings are complete. */
export class SqlScanner {
  /** What was found that needs the session again, the first thing or the one that counts more; null: nothing. */
  pin: Pin | null = null
  /** Bits of RESTORABLE_PARAMETERS that SET names. */
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
  /** Where the word EXECUTE or DEALLOCATE ends that begins a statement, in the bytes that were fed last. */
  readonly namings: number[] = []
  /** `pin` is of something that is stored. */
  isStored = false
  /** Something that is stored may have changed behind it. */
  isChange = false
  /** It makes, changes or drops a function: what that did meanwhile may be gone before anybody can ask. */
  defines = false
  /** It has parameters go back to what the session began with. */
  resets = false
  /** Asked about every word that may name something stored; null: nobody is. */
  words: Words | null = null

  #state: State = 'normal'
  #isEscaping = false
  /** Of the string that is open: a backslash quotes. */
  #hasBackslashes = false
  #hash = 0
  #length = 0
  /** Behind the word that has ended. */
  #at = 0
  #firstLetter = 0
  /** Words of the statement so far, and those that count. */
  #position = 0
  #kind: number = WORD.none
  #previous: number = WORD.none
  #isSetDone = false
  /** The body of a DO is read as if it stood there without quotes. */
  #isDo = false
  /** The next word is the first one of the body of a DO. */
  #isBodyNext = false
  #depth = 0
  /** Depth of parentheses inside of set_config(); 0: not in one. */
  #configDepth = 0
  #isConfigLocal = false
  /** Whether its first argument is a name that is written out; that counts when a comma follows. */
  #configName: 'next' | 'read' | 'sure' | 'none' = 'none'
  /** The bit of that parameter; 0: it cannot be restored. */
  #configBit = 0
  #blockDepth = 0
  #tag: number[] = []
  #matched = -1
  #isUnicode = false
  /** It makes a temporary table, which lasts unless ON COMMIT DROP follows. */
  #isTemporary = false
  /** It sets the user of the session, unless DEFAULT follows. */
  #isRole = false
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
    if (this.open.length > 0) this.open.length = 0
    if (this.namings.length > 0) this.namings.length = 0
    this.isStored = false
    this.isChange = false
    this.resets = false
    this.defines = false
    this.#isTemporary = false
    this.#isRole = false
    this.#state = 'normal'
    this.#isEscaping = isEscaping
    this.#isDo = false
    this.#isBodyNext = false
    this.#depth = 0
    this.#configDepth = 0
    this.#configName = 'none'
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
    this.#endStatement()
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
            hash = hashed(hash, LOWER[byte]!)
            at++
          }
          this.#length += at - start
          this.#hash = hash
          if (at < to) {
            this.#state = 'normal'
            this.#at = at
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
        case 'configName': {
          const byte = bytes[at++]!
          if (byte === 0x27) {
            this.#state = 'stringQuote'
            this.#onConfigName()
            break
          }
          if (this.#length === 0) this.#firstLetter = LOWER[byte]!
          this.#hash = hashed(this.#hash, LOWER[byte]!)
          this.#length++
          break
        }
        case 'stringQuote':
          // Two quotes are one that is part of the text.
          if (bytes[at] === 0x27) {
            this.#state = 'string'
            this.#configName = 'none'
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
            hash = hashed(hash, byte)
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
            this.#hash = hashed(this.#hash, 0x22)
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
            if (this.#isDo) {
              this.#isBodyNext = this.#kind === WORD.do
              this.#restart()
            }
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
    this.#endStatement()
    this.#state = 'normal'
  }

  /** What the rest of a statement might have taken back. */
  #endStatement(): void {
    if (this.#isTemporary) this.#found('temporary_table')
    if (this.#isRole) this.#found('role')
    this.#isTemporary = false
    this.#isRole = false
  }

  #found(pin: Pin): void {
    const found = stronger(this.pin, pin)
    if (found === this.pin) return
    this.pin = found
    this.isStored = false
  }

  #onSign(byte: number, kind: number): void {
    if (this.#configDepth > 0 && kind !== CLOSE) {
      this.#isConfigLocal = false
      this.#onConfigSign(byte, kind)
    }
    const isUnicode = this.#isUnicode
    this.#isUnicode = false
    switch (kind) {
      case QUOTE:
        // E'...' has a word before its quote.
        this.#hasBackslashes = this.#isEscaping || (this.#previous === WORD.e && this.#length === 1)
        this.#state = this.#configName === 'next' && !this.#hasBackslashes ? 'configName' : 'string'
        if (this.#isDo && this.#position <= 3 && this.#kind === WORD.do) this.#found('do')
        if (this.#isLanguageNext()) this.#found('language')
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
          if (!this.#isConfigLocal) this.#onConfigSet()
          this.#configDepth = 0
        }
        break
      default:
        if (byte === LESS) this.#isBodyNext = false
        this.#isUnicode = byte === AMPERSAND && this.#previous === WORD.u
    }
    if (kind !== QUOTE) this.#length = 0
  }

  /** Behind set_config and its parenthesis comes the name, and a comma. */
  #onConfigSign(byte: number, kind: number): void {
    if (this.#configName === 'read') this.#configName = byte === COMMA ? 'sure' : 'none'
    else if (this.#configName === 'next') {
      if (kind === QUOTE) {
        this.#hash = 0
        this.#firstLetter = 0
      } else if (kind !== OPEN || this.#depth + 1 !== this.#configDepth) this.#configName = 'none'
    }
  }

  #onConfigName(): void {
    const code = codeOf(this.#firstLetter, this.#length, this.#hash)
    this.#configBit = code >= FIRST_PARAMETER ? 1 << (code - FIRST_PARAMETER) : 0
    this.#configName = 'read'
    this.#length = 0
  }

  /** For the session. */
  #onConfigSet(): void {
    if (this.#configName === 'sure' && this.#configBit !== 0) this.parameters |= this.#configBit
    else this.#found('set')
  }

  #restart(): void {
    if (this.#configDepth > 0) this.#found('set')
    this.#configDepth = 0
    this.#startStatement()
  }

  /** In a DO behind LANGUAGE, which stands before its body or behind it. */
  #isLanguageNext(): boolean {
    if (!this.#isDo || this.#previous !== WORD.language) return false
    return this.#kind === WORD.do || (this.#kind === WORD.language && this.#position === 1)
  }

  #endWord(isQuoted: boolean): void {
    let code = codeOf(this.#firstLetter, this.#length, this.#hash)
    if (isQuoted && code < FIRST_NAME) code = WORD.none
    if (this.words !== null) this.#ask(this.words, this.#position === 0 ? code : this.#kind)
    if (this.#isDo) this.#onDoWord(code)
    if (this.#position === 0) {
      this.statements++
      if (this.statements === 1) this.isDeallocate = code === WORD.deallocate
      this.#kind = code
      this.#onFirstWord(code)
    } else if (this.#kind === WORD.set && !this.#isSetDone) this.#onSetWord(code)
    else if (code !== WORD.none) this.#onWord(code)
    if (this.#kind === WORD.prepare && this.#position === 1 && code !== WORD.transaction) this.#found('prepare')
    if (this.#configName === 'next' || this.#configName === 'read') this.#configName = 'none'
    if (this.#configDepth > 0) this.#isConfigLocal = code === WORD.true && this.#depth === this.#configDepth
    this.#position++
    // A table that is called temp may be inserted into.
    const isInserting = code === WORD.into && (this.#previous === WORD.insert || this.#previous === WORD.merge)
    this.#previous = isInserting ? WORD.none : code
    if (code === WORD.set_config) {
      if (this.#configDepth > 0) this.#found('set')
      this.#configDepth = this.#depth + 1
      this.#isConfigLocal = false
      this.#configName = 'next'
    }
    // In a block, a statement follows without a semicolon.
    if (this.#isDo && (code === WORD.begin || code === THEN || code === WORD.else || code === WORD.loop)) {
      this.#startStatement()
    }
  }

  /** A body that does not begin as PL/pgSQL does is of another language, as is one of which LANGUAGE says so. */
  #onDoWord(code: number): void {
    if (this.#isBodyNext) {
      this.#isBodyNext = false
      if (code !== WORD.begin && code !== WORD.declare) this.#found('language')
    }
    if (code !== WORD.plpgsql && this.#isLanguageNext()) this.#found('language')
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
    const found = stronger(this.pin, effects.pin)
    if (found === this.pin) return
    this.pin = found
    this.isStored = true
  }

  #onFirstWord(code: number): void {
    if (code === WORD.create || code === WORD.alter || code === WORD.drop || code === WORD.do) this.isChange = true
    if (code === WORD.reset) this.resets = true
    else if (code === WORD.listen) this.#found('listen')
    else if (code === WORD.load) this.#found('load')
    else if (code === WORD.do) this.#isDo = true
    else if (code === WORD.execute && this.#isDo) this.#found('do')
    else if (code === WORD.execute || code === WORD.deallocate) this.namings.push(this.#at)
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
    if (code === WORD.role) this.#found('role')
    else if (code === WORD.authorization || code === WORD.session_authorization) this.#isRole = true
    else if (code === WORD.time) this.parameters |= bitOf('timezone')
    else if (code === WORD.names) this.parameters |= bitOf('client_encoding')
    else if (code === WORD.schema) this.parameters |= bitOf('search_path')
    else if (code === WORD.characteristics) this.parameters |= CHARACTERISTICS
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
      case WORD.function:
      case WORD.procedure:
      case WORD.routine:
      case WORD.extension:
      case WORD.schema:
      case WORD.owned:
        // CREATE OR REPLACE FUNCTION; what else is made has the names of functions in its text.
        if (this.#position <= 3 && isDefinition(this.#kind)) this.defines = true
        break
      case WORD.default:
        this.#isRole = false
        if (this.#kind === WORD.set && this.parameters !== 0) this.resets = true
        break
      case WORD.local:
        if (this.#kind === WORD.set && this.parameters !== 0) this.resets = true
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

function bitOf(name: (typeof RESTORABLE_PARAMETERS)[number]): number {
  return 1 << RESTORABLE_PARAMETERS.indexOf(name)
}

/** What SET SESSION CHARACTERISTICS AS TRANSACTION may set. */
const CHARACTERISTICS =
  bitOf('default_transaction_isolation') |
  bitOf('default_transaction_read_only') |
  bitOf('default_transaction_deferrable')

function isDefinition(kind: number): boolean {
  return kind === WORD.create || kind === WORD.alter || kind === WORD.drop
}
