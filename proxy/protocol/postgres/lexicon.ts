/** What the words of statements mean in one database: whether a stored function, or a table or view that calls one, leaves something behind. */
import type { Effects, Words } from './pins.ts'
import { hashOf } from './sql-words.ts'

/** What could not be read. */
export const DOUBT: Effects = { pin: null, parameters: 0, asksSequences: false, isDoubtful: true }

/** What is stored may be changed by somebody else, without a word here: it is asked about again after this time. */
const AGAIN_MS = 5000
/** Questions about new words that may be asked at once, and how often one more: who uses a new name in each statement is not followed. */
const MAX_QUESTIONS = 20
const QUESTION_MS = 200
/** Words that are remembered. */
const MAX_WORDS = 20_000

/**
 * Functions of the server's own that run a text, or that set what only a reset undoes. Those that SqlScanner reads by name are
 * not among them.
 */
const DOUBTFUL = [
  'setseed',
  'set_limit',
  'query_to_xml',
  'query_to_xmlschema',
  'query_to_xml_and_xmlschema',
  'cursor_to_xml',
  'cursor_to_xmlschema',
  'table_to_xml',
  'table_to_xml_and_xmlschema',
  'schema_to_xml',
  'schema_to_xml_and_xmlschema',
  'database_to_xml',
  'database_to_xml_and_xmlschema',
  'ts_stat',
  'ts_rewrite',
].map(hashOf)

/** What the server is asked. */
export interface Question {
  /** Everything, and not only whether anything has changed. */
  readonly isAll: boolean
  /** Changes that were known of when it was asked. */
  readonly changes: number
}

/** Of all lexicons, so that what was read by one is not taken for what another one says. */
let versions = 0

export class Lexicon implements Words {
  /** Another number whenever an earlier statement may mean something else. */
  version: number = ++versions
  readonly #known = new Map<number, Effects | null>()
  /** Of every statement, whatever it names; null: nothing. */
  #anywhere: Effects | null = null
  #isStale = true
  /** The server has other things than those that were read; or nothing was read yet. */
  #isOutdated = true
  /** The server cannot be asked, as it has another catalogue. */
  #isUnreadable = false
  /** Changes that are known of. */
  #changes = 0
  #askedAt = Number.NEGATIVE_INFINITY
  #fingerprint: string | null = null
  #questions = MAX_QUESTIONS
  #refilledAt = 0

  /** Undefined: not known, or not any more. */
  effectsOf(hash: number): Effects | null | undefined {
    if (this.#isUnreadable) return null
    if (this.#isStale) return undefined
    const effects = this.#known.get(hash)
    return effects === null ? this.#anywhere : effects
  }

  /** What is stored may have changed: nothing is known until the server was asked. */
  doubt(): void {
    this.#isStale = true
    this.#changes++
    this.version = ++versions
  }

  /** Whether the server should be asked although no statement waits for the answer. */
  isDue(at: number): boolean {
    return at - this.#askedAt >= AGAIN_MS && !this.#isUnreadable
  }

  /** Whether one more question about new words may be asked. */
  mayAsk(at: number): boolean {
    const refill = Math.floor((at - this.#refilledAt) / QUESTION_MS)
    if (refill > 0) {
      this.#questions = Math.min(MAX_QUESTIONS, this.#questions + refill)
      this.#refilledAt = at
    }
    if (this.#questions === 0) return false
    this.#questions--
    return true
  }

  ask(at: number): Question {
    this.#askedAt = at
    return { isAll: this.#isOutdated, changes: this.#changes }
  }

  /**
   * The server has said what it has.
   * @param effects of each name that has any, by hashOf(), and of the empty one for every statement; null: it was not asked for that
   * @param words those that were asked about
   */
  learn(
    question: Question,
    fingerprint: string,
    effects: ReadonlyMap<number, Effects> | null,
    words: readonly number[],
  ): void {
    if (effects === null && fingerprint !== this.#fingerprint) {
      this.#isOutdated = true
      this.doubt()
      return
    }
    if (question.changes !== this.#changes) return
    const wasStale = this.#isStale
    this.#isStale = false
    if (effects !== null) this.#replace(fingerprint, effects)
    if (this.#known.size + words.length > MAX_WORDS) this.#forget()
    for (const hash of words) if (!this.#known.has(hash)) this.#known.set(hash, null)
    if (words.length > 0 || wasStale) this.version = ++versions
  }

  /** The server has no such catalogue: no word is looked up any more. */
  giveUp(): void {
    this.#isUnreadable = true
    this.version = ++versions
  }

  #replace(fingerprint: string, effects: ReadonlyMap<number, Effects>): void {
    this.#fingerprint = fingerprint
    this.#isOutdated = false
    this.#anywhere = effects.get(hashOf('')) ?? null
    for (const hash of this.#known.keys()) this.#known.set(hash, null)
    for (const hash of DOUBTFUL) this.#known.set(hash, DOUBT)
    for (const [hash, each] of effects) this.#known.set(hash, each)
  }

  #forget(): void {
    for (const [hash, effects] of this.#known) if (effects === null) this.#known.delete(hash)
  }
}
