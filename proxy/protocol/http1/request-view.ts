/** A request head as routes look at it; strings are made of what is asked for. */
import type { RequestView } from '../../routing/router.ts'
import type { RequestFacts } from './headers.ts'
import type { HeadParser } from './parser.ts'
import { isWord, nameBytes } from './tables.ts'

/** Names of fields that routes ask for, as bytes. There are as many as the configs name. */
const names = new Map<string, Uint8Array>()

/** One object is used for one head after the other. */
export class HeadView implements RequestView {
  #head!: HeadParser
  #facts!: RequestFacts

  of(head: HeadParser, facts: RequestFacts): this {
    this.#head = head
    this.#facts = facts
    return this
  }

  method(): string {
    const { bytes, start, methodEnd } = this.#head
    return bytes.toString('latin1', start, methodEnd)
  }

  target(): string {
    const { pathStart, targetPrefix } = this.#facts
    const rest = this.#head.bytes.toString('latin1', pathStart, this.#head.targetEnd)
    return targetPrefix === 0 ? rest : String.fromCharCode(targetPrefix) + rest
  }

  header(name: string): string | null {
    return fieldText(this.#head, name)
  }
}

/** The fields of an answer, of one after the other. */
export class AnswerFields {
  #head!: HeadParser

  of(head: HeadParser): this {
    this.#head = head
    return this
  }

  field(name: string): string | null {
    return fieldText(this.#head, name)
  }
}

/** The values of a field of a request or response; null when it has none. @param name in lower case */
export function fieldText(head: HeadParser, name: string): string | null {
  const { bytes, count } = head
  let wanted = names.get(name)
  if (wanted === undefined) {
    wanted = nameBytes(name)
    names.set(name, wanted)
  }
  let value: string | null = null
  for (let i = 0; i < count; i++) {
    if (!isWord(bytes, head.nameStart(i), head.nameEnd(i), wanted)) continue
    const own = bytes.toString('utf8', head.valueStart(i), head.valueEnd(i))
    // Cookies are joined as RFC 9113 section 8.2.3 says; a comma may be part of one.
    value = value === null ? own : `${value}${name === 'cookie' ? '; ' : ', '}${own}`
  }
  return value
}
