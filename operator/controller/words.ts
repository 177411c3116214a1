/** How conditions name things: few names, then a number; one sentence, remedy last. */
import type { RefId } from './facts.ts'

/** Names that a message shows at most: a person looks at one pod, not at a hundred. */
const SHOWN = 5

/** `pod 'a'`, `pods 'a', 'b' and 7 more`: in order of name, so that the same pods give the same words. */
export function pods(names: readonly string[]): string {
  const sorted = [...names].sort()
  const shown = sorted.slice(0, SHOWN).map((name) => `'${name}'`)
  const more = sorted.length - shown.length
  const list = more > 0 ? `${shown.join(', ')} and ${more} more` : joined(shown)
  return `${sorted.length === 1 ? 'pod' : 'pods'} ${list}`
}

/** `1 sidecar`, `12 sidecars`. */
export function count(number: number, noun: string): string {
  return `${number} ${noun}${number === 1 ? '' : 's'}`
}

/** `key 'token' of Secret 'payments-token'` */
export function reference({ kind, name, key }: RefId): string {
  return `key '${key}' of ${kind} '${name}'`
}

/** At most five sentences. */
export function sentences(all: readonly string[]): string {
  const unique = [...new Set(all)].sort()
  const shown = unique.slice(0, SHOWN)
  return shown.join('; ') + (unique.length > shown.length ? `; and ${unique.length - shown.length} more` : '')
}

function joined(words: readonly string[]): string {
  return words.length < 2 ? words.join('') : `${words.slice(0, -1).join(', ')} and ${words.at(-1)}`
}

/** The word for what was just named. */
export function them(all: readonly unknown[]): string {
  return all.length === 1 ? 'it' : 'them'
}
