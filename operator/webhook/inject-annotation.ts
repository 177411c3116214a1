/** The annotation `ambassador.dev/inject`: which Ambassadors a pod asks for. */
import { Annotation, MAX_AMBASSADORS_PER_POD } from '../../common/names.ts'
import { asObject, asString, type Json, type JsonObject, own } from './json.ts'
import { type Denial, deny, type Skip, skip } from './reasons.ts'
import { shorten } from './settings-annotations.ts'

export interface Request {
  readonly kind: 'request'
  /** In the order of the annotation. */
  readonly names: readonly string[]
}

/** The value that opts out and wins over everything. */
export const OPT_OUT = 'false'

const NAME = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/
const MAX_NAME_LENGTH = 253
const KEY = Annotation.inject

/** The annotations of a pod, or undefined. */
export function annotationsOf(pod: JsonObject): JsonObject | undefined {
  return asObject(asObject(pod['metadata'])?.['annotations'])
}

/** Reads the annotation of a pod. */
export function requestOf(pod: JsonObject): Request | Skip | Denial {
  const value = own(annotationsOf(pod), KEY)
  return value === undefined || value === null ? skip('NotAnnotated') : parseInject(value)
}

/** Reads the value of the annotation. */
export function parseInject(value: Json): Request | Skip | Denial {
  const text = asString(value)
  if (text === undefined) {
    return deny('InvalidAnnotation', `${KEY}: the value is not a string; write it in quotes`)
  }
  if (text.trim() === OPT_OUT) return skip('OptedOut')
  if (text.trim() === '') {
    return deny('InvalidAnnotation', `${KEY}: names no Ambassador; write a name, or "false" to opt out`)
  }
  const names = new Set<string>()
  for (const [index, part] of text.split(',').entries()) {
    const name = part.trim()
    if (name === '') {
      return deny(
        'InvalidAnnotation',
        `${KEY}: item ${index + 1} of "${shorten(text)}" is empty; remove the comma too many`,
      )
    }
    const problem = problemOf(name)
    if (problem !== undefined) return deny('InvalidAnnotation', `${KEY}: ${problem}`)
    if (names.has(name)) {
      return deny('InvalidAnnotation', `${KEY}: Ambassador "${name}" is named twice; remove one of the two`)
    }
    names.add(name)
  }
  if (names.size > MAX_AMBASSADORS_PER_POD) {
    return deny(
      'TooManyAmbassadors',
      `${KEY}: ${names.size} Ambassadors are named; a pod can have at most ${MAX_AMBASSADORS_PER_POD}`,
    )
  }
  return { kind: 'request', names: [...names] }
}

function problemOf(name: string): string | undefined {
  const shown = shorten(name)
  if (name.includes('/')) {
    return `"${shown}" names another namespace; an Ambassador is taken from the namespace of the pod, write its name alone`
  }
  if (name === OPT_OUT) return `"${shown}" stands beside names; to opt out write "false" alone`
  if (/^(true|yes|no|enabled|disabled)$/i.test(name) || name.toLowerCase() === OPT_OUT) {
    return `"${shown}" is not the name of an Ambassador; write the names of Ambassadors, or "false" to opt out`
  }
  if (name.length > MAX_NAME_LENGTH || !NAME.test(name)) {
    return `"${shown}" is not a name; use lower-case letters, digits, dashes and dots, several names separated by commas`
  }
  return undefined
}
