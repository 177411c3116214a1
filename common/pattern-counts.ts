/** Counts of regular expressions written out, because an engine that never backtracks knows only small ones. */

/** Most characters, classes and the like that a pattern may stand for with its counts written out. */
export const MAX_PATTERN_SIZE = 1000

/** V8's linear engine takes counts whose product is at most this; others it leaves to the engine that backtracks. */
const LINEAR_COUNT = 16

/** A pattern, or a part of one. */
interface Part {
  readonly text: string
  /** Its characters, classes and the like, with counts written out. */
  readonly size: number
  /** The greatest product of its counts. */
  readonly count: number
}

const EMPTY: Part = { text: '', size: 0, count: 1 }
const TOKEN = /\\[\s\S]|\[(?:\\[\s\S]|[^\\\]])*\]|\(\?:|[\s\S]/y
const REPEAT = /(?:([*+?])|\{(\d+)(?:(,)(\d*))?\})\??/y

/**
 * How many characters, classes and the like a pattern stands for when its counts are written out. Knows what the schema lets through;
 * for anything else the number means nothing, but there is one.
 */
export function patternSize(source: string): number {
  return new Reader(source).alternatives().size
}

/** The same pattern with its counts written out where they are too large for the linear engine. It matches the same whole values. */
export function withoutLargeCounts(source: string): string {
  const part = new Reader(source).alternatives()
  return part.count > LINEAR_COUNT && part.size <= MAX_PATTERN_SIZE ? part.text : source
}

class Reader {
  readonly #source: string
  #at = 0

  constructor(source: string) {
    this.#source = source
  }

  /** Up to the bracket that ends the group, or the end. */
  alternatives(): Part {
    let { text, size, count } = EMPTY
    while (this.#at < this.#source.length && this.#source[this.#at] !== ')') {
      const item = this.#item()
      size += item.size
      count = Math.max(count, item.count)
      // What is beyond the bound is not written out, only counted.
      if (size <= MAX_PATTERN_SIZE) text += item.text
    }
    return { text, size, count }
  }

  #item(): Part {
    TOKEN.lastIndex = this.#at
    const token = TOKEN.exec(this.#source)?.[0] ?? ''
    this.#at += token.length
    let part: Part
    if (token === '(' || token === '(?:') {
      const inner = this.alternatives()
      this.#at++
      part = { ...inner, text: `(?:${inner.text})` }
    } else part = { text: token, size: token === '|' || token === '^' || token === '$' ? 0 : 1, count: 1 }
    return this.#repeated(part)
  }

  #repeated(part: Part): Part {
    REPEAT.lastIndex = this.#at
    const [all = '', sign, least, comma, most] = REPEAT.exec(this.#source) ?? []
    this.#at += all.length
    if (sign !== undefined) return { ...part, text: part.text + sign }
    if (least === undefined) return part
    const low = Number(least)
    const isOpen = comma !== undefined && most === ''
    const high = comma === undefined ? low : isOpen ? low + 1 : Number(most)
    const size = part.size * high
    const count = part.count * Math.max(1, high)
    if (size > MAX_PATTERN_SIZE) return { text: '', size, count }
    const rest = isOpen ? `${part.text}*` : `${part.text}?`.repeat(Math.max(0, high - low))
    return { text: part.text.repeat(low) + rest, size, count }
  }
}
