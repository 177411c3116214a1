/** Untyped JSON: pods are read and patched as the API server sent them, so that fields we do not know survive. */

export type Json = null | boolean | number | string | readonly Json[] | JsonObject
export interface JsonObject {
  readonly [key: string]: Json
}

/** The value when it is an object (not an array, not null). */
export function asObject(value: Json | undefined): JsonObject | undefined {
  return typeof value === 'object' && value !== null && !Array.isArray(value) ? (value as JsonObject) : undefined
}

/** The value when it is an array; otherwise an empty one, since absent, null and [] mean the same to Kubernetes. */
export function asList(value: Json | undefined): readonly Json[] {
  return Array.isArray(value) ? value : []
}

export function asString(value: Json | undefined): string | undefined {
  return typeof value === 'string' ? value : undefined
}

/** The objects of a list; anything else in it is passed over. */
export function objectsOf(value: Json | undefined): JsonObject[] {
  const objects: JsonObject[] = []
  for (const item of asList(value)) {
    const object = asObject(item)
    if (object !== undefined) objects.push(object)
  }
  return objects
}

/** Own property only: `constructor` of a parsed map is not there unless somebody wrote it. */
export function own(object: JsonObject | undefined, key: string): Json | undefined {
  return object !== undefined && Object.hasOwn(object, key) ? object[key] : undefined
}

/** A copy with one property more or changed. A key `__proto__` stays plain data, as in every object that JSON.parse made. */
export function withKey(object: JsonObject, key: string, value: Json): JsonObject {
  return Object.fromEntries([...Object.entries(object).filter(([k]) => k !== key), [key, value]])
}

/** A copy without one property; the same object when it does not have it. */
export function withoutKey(object: JsonObject, key: string): JsonObject {
  return Object.hasOwn(object, key) ? Object.fromEntries(Object.entries(object).filter(([k]) => k !== key)) : object
}

/** Deep equality; the order of keys does not count. */
export function equal(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true
  if (typeof a !== 'object' || typeof b !== 'object' || a === null || b === null) return false
  if (Array.isArray(a)) {
    return Array.isArray(b) && a.length === b.length && a.every((item, i) => equal(item, b[i]))
  }
  if (Array.isArray(b)) return false
  const left = a as JsonObject
  const right = b as JsonObject
  const keys = Object.keys(left)
  return (
    keys.length === Object.keys(right).length &&
    keys.every((key) => Object.hasOwn(right, key) && equal(left[key], right[key]))
  )
}

/**
 * Whether everything that we rendered is still there. What others added (defaults of the API server, a token mount, an
 * environment variable of another injector) does not count as a change.
 */
export function contains(actual: Json | undefined, rendered: Json): boolean {
  if (Array.isArray(rendered)) {
    if (!Array.isArray(actual)) return false
    if (rendered.every((item) => typeof item !== 'object')) return equal(actual, rendered)
    return rendered.every((item) => actual.some((other: Json) => contains(other, item)))
  }
  const expected = asObject(rendered)
  if (expected === undefined) return actual === rendered
  const found = asObject(actual)
  return found !== undefined && Object.keys(expected).every((key) => contains(own(found, key), expected[key] as Json))
}
