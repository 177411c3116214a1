/** SQL without what people put into it: literals become `?`, comments go, and what is left names the kind of statement. */

const QUOTE = 0x27
const DOUBLE = 0x22
const DOLLAR = 0x24
const BACKSLASH = 0x5c

/** What stands for literals, and for a list of them. */
const REDACTED = '?'

/** Words of statements whose literals are never shown, whatever the config says. */
const SENSITIVE = /passw|secret|token|crypt|credential|dblink|connection|user\s+mapping/i

export function isSensitive(text: string): boolean {
  return SENSITIVE.test(text)
}

/**
 * The statements of a text, each with its literals replaced by `?`, lists of them by one, comments left out and white space made
 * one space. What cannot be told for certain to be no literal is replaced too: the rest of a text behind a plain literal that ends
 * with a backslash, which ends elsewhere when standard_conforming_strings is off, and a literal without an end.
 */
export function redact(text: string): string[] {
  const out = new Shape()
  let at = 0
  while (at < text.length) {
    const code = text.charCodeAt(at)
    if (isSpace(code)) {
      out.space()
      at++
    } else if (code === 0x2d && text.charCodeAt(at + 1) === 0x2d) {
      // A comment ends with its line.
      const line = /[\r\n]/g
      line.lastIndex = at
      const found = line.exec(text)
      at = found === null ? text.length : found.index
      out.space()
    } else if (code === 0x2f && text.charCodeAt(at + 1) === 0x2a) {
      at = afterComment(text, at)
      out.space()
    } else if (code === QUOTE) {
      const end = afterLiteral(text, at, false)
      out.literal()
      if (end < 0) break
      at = end
    } else if (code === DOUBLE) {
      const end = afterQuoted(text, at)
      if (end < 0) {
        out.literal()
        break
      }
      out.add(text.slice(at, end))
      at = end
    } else if (code === DOLLAR) {
      const parameter = /\$\d+/y
      parameter.lastIndex = at
      const number = parameter.exec(text)
      if (number !== null) {
        out.add(number[0])
        at += number[0].length
        continue
      }
      const end = afterDollars(text, at)
      if (end === 0) {
        out.add('$')
        at++
        continue
      }
      out.literal()
      if (end < 0) break
      at = end
    } else if (isDigit(code) || (code === 0x2e && isDigit(text.charCodeAt(at + 1)))) {
      // A number, with whatever is glued to it: PostgreSQL takes no letter there that means something else.
      const number = /[0-9A-Za-z_.]+(?:(?<=[eE])[+-][0-9_]+)?/y
      number.lastIndex = at
      out.literal()
      at += number.exec(text)![0].length
    } else if (isLetter(code)) {
      const word = /[A-Za-z_\u0080-\uffff][\w$\u0080-\uffff]*/y
      word.lastIndex = at
      const name = word.exec(text)![0]
      const end = at + name.length
      const prefix = name.toLowerCase()
      // E'', B'', X'', N'' and U&'' are literals; U&"" is a name.
      if (text.charCodeAt(end) === QUOTE && ['e', 'b', 'x', 'n'].includes(prefix)) {
        const after = afterLiteral(text, end, prefix === 'e')
        out.literal()
        if (after < 0) break
        at = after
      } else if (prefix === 'u' && text.charCodeAt(end) === 0x26 && text.charCodeAt(end + 1) === QUOTE) {
        const after = afterLiteral(text, end + 1, false)
        out.literal()
        if (after < 0) break
        at = after
      } else {
        out.word(name)
        at = end
      }
    } else if (code === 0x3b) {
      out.end()
      at++
    } else {
      out.add(text[at]!)
      at++
    }
  }
  return out.done()
}

/** How much of a text outline() reads. */
export const OUTLINE_BYTES = 1024
const OUTLINE_LENGTH = 200
/** The value of a parameter is no literal when it has no quotes. */
const SET =
  /^((?:alter (?:role|user|database|system)\b.*? )?set (?:(?:session|local) )?(?:"[^"]*"|[^\s="])+ ?(?:=|to\b)).*/is

/**
 * For a line of the process log: the begin of statements, up to a NUL, as redact() shows them, without the values that SET gives;
 * at most 200 characters.
 */
export function outline(statements: Buffer): string {
  const begin = statements.subarray(0, OUTLINE_BYTES)
  const nul = begin.indexOf(0)
  const text = begin.toString('utf8', 0, nul < 0 ? begin.length : nul)
  const shapes = redact(text).map((shape) => shape.replace(SET, '$1 ?'))
  return shapes.join('; ').slice(0, OUTLINE_LENGTH)
}

/** Puts the parts of statements together. Each part is a token, with a space before it where there was white space. */
class Shape {
  readonly #statements: string[] = []
  #parts: string[] = []
  #wantsSpace = false
  #wasWord = false

  space(): void {
    this.#wantsSpace = true
  }

  word(name: string): void {
    // Glued to a literal it would change what was there.
    if (this.#wasWord) this.#wantsSpace = true
    this.add(name)
    this.#wasWord = true
  }

  add(part: string): void {
    const last = this.#token(1)
    const isClosing = part === ',' || part === ')'
    const wants = (this.#wantsSpace && !isClosing && last !== '(') || last === ','
    this.#parts.push(wants && last !== '' ? ` ${part}` : part)
    this.#wantsSpace = false
    this.#wasWord = false
    if (part === ')' && this.#isListAt(1) && this.#token(4) === ',' && this.#isListAt(5)) this.#parts.length -= 4
  }

  literal(): void {
    // A list of literals is one, however long: else each length would be a kind of statement. So are literals on two lines.
    if (this.#token(1) === ',' && this.#token(2) === REDACTED) this.#parts.length -= 1
    else if (this.#token(1) !== REDACTED) this.add(REDACTED)
    this.#wantsSpace = false
    this.#wasWord = true
  }

  end(): void {
    if (this.#parts.length > 0) this.#statements.push(this.#parts.join(''))
    this.#parts = []
    this.#wantsSpace = false
    this.#wasWord = false
  }

  done(): string[] {
    this.end()
    return this.#statements
  }

  /** The token so many from the end, without its space; empty: there is none. */
  #token(fromEnd: number): string {
    const part = this.#parts[this.#parts.length - fromEnd] ?? ''
    return part.charCodeAt(0) === 0x20 ? part.slice(1) : part
  }

  /** Whether what ends so many from the end is `(?)`: a second one says no more. */
  #isListAt(fromEnd: number): boolean {
    return this.#token(fromEnd) === ')' && this.#token(fromEnd + 1) === REDACTED && this.#token(fromEnd + 2) === '('
  }
}

/** Behind the literal that begins at the quote `at`; -1: it has no end, or nobody can tell where it is. */
function afterLiteral(text: string, at: number, hasEscapes: boolean): number {
  for (let i = at + 1; i < text.length; i++) {
    const code = text.charCodeAt(i)
    if (code === BACKSLASH) {
      if (hasEscapes) i++
      else if (text.charCodeAt(i + 1) === QUOTE) return -1
    } else if (code === QUOTE) {
      if (text.charCodeAt(i + 1) !== QUOTE) return i + 1
      i++
    }
  }
  return -1
}

function afterQuoted(text: string, at: number): number {
  for (let i = at + 1; i < text.length; i++) {
    if (text.charCodeAt(i) !== DOUBLE) continue
    if (text.charCodeAt(i + 1) !== DOUBLE) return i + 1
    i++
  }
  return -1
}

/** Behind a literal in dollars; 0: none begins here, -1: it has no end. */
function afterDollars(text: string, at: number): number {
  const tag = /\$(?:[A-Za-z_\u0080-\uffff][\w\u0080-\uffff]*)?\$/y
  tag.lastIndex = at
  const found = tag.exec(text)
  if (found === null) return 0
  const end = text.indexOf(found[0], at + found[0].length)
  return end < 0 ? -1 : end + found[0].length
}

/** Comments of this kind may have others in them. One without an end goes on to the end of the text. */
function afterComment(text: string, at: number): number {
  let depth = 0
  for (let i = at; i < text.length - 1; i++) {
    const two = text.slice(i, i + 2)
    if (two === '/*') {
      depth++
      i++
    } else if (two === '*/') {
      i++
      if (--depth === 0) return i + 1
    }
  }
  return text.length
}

function isSpace(code: number): boolean {
  return code === 0x20 || (code >= 9 && code <= 13)
}

function isDigit(code: number): boolean {
  return code >= 0x30 && code <= 0x39
}

function isLetter(code: number): boolean {
  return (code >= 0x41 && code <= 0x5a) || (code >= 0x61 && code <= 0x7a) || code === 0x5f || code >= 0x80
}
