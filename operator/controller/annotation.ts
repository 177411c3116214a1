/** The inject annotation, as far as somebody needs it who only looks on: the webhook has refused what is not well-formed. */
import { Annotation } from '../../common/names.ts'

/** Names of the Ambassadors that an annotated object asks for; empty when it asks for none or opts out. */
export function askedFor(annotations: Readonly<Record<string, string>> | undefined): readonly string[] {
  const value = annotations?.[Annotation.inject]?.trim()
  if (value === undefined || value === '' || value === 'false') return []
  return namesIn(value)
}

/** The names in a comma-separated list, each once. The same list gives the same array, since thousands of pods carry it. */
export function namesIn(list: string): readonly string[] {
  let names = known.get(list)
  if (names === undefined) {
    names = [...new Set(list.split(',').map((name) => name.trim()))].filter((name) => name !== '')
    if (known.size >= MAX_KNOWN) known.clear()
    known.set(list, names)
  }
  return names
}

const MAX_KNOWN = 1000
const known = new Map<string, readonly string[]>()
