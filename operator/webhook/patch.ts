/** diff(before, after): the smallest RFC 6902 patch that we know to make, so that nothing but our own fields is ever sent. */
import { asObject, equal, type Json, type JsonObject } from './json.ts'

export type PatchOperation =
  | { readonly op: 'add' | 'replace'; readonly path: string; readonly value: Json }
  | { readonly op: 'remove'; readonly path: string }

/** Lists whose product of lengths is above this are replaced whole instead of being aligned. */
const LARGEST_ALIGNMENT = 4_000_000

/** The operations that turn `before` into `after`, in an order in which they can be applied. Parts that are the same object are not looked into. */
export function diff(before: Json, after: Json): PatchOperation[] {
  const operations: PatchOperation[] = []
  diffValue(before, after, '', operations)
  return operations
}

/** RFC 6901 section 3: `~` first, or the `~` of an escaped slash would be escaped again. */
function escapePointer(key: string): string {
  return key.replaceAll('~', '~0').replaceAll('/', '~1')
}

function diffValue(before: Json, after: Json, path: string, operations: PatchOperation[]): void {
  if (before === after) return
  const left = asObject(before)
  const right = asObject(after)
  if (left !== undefined && right !== undefined) diffObject(left, right, path, operations)
  else if (Array.isArray(before) && Array.isArray(after)) diffList(before, after, path, operations)
  else if (!equal(before, after)) operations.push({ op: 'replace', path, value: after })
}

function diffObject(before: JsonObject, after: JsonObject, path: string, operations: PatchOperation[]): void {
  for (const key of Object.keys(before)) {
    if (!Object.hasOwn(after, key)) operations.push({ op: 'remove', path: `${path}/${escapePointer(key)}` })
  }
  for (const [key, value] of Object.entries(after)) {
    const at = `${path}/${escapePointer(key)}`
    if (Object.hasOwn(before, key)) diffValue(before[key] as Json, value, at, operations)
    else operations.push({ op: 'add', path: at, value })
  }
}

/**
 * Items with a name are the same item when the name is the same, others when they are equal; so a container that is
 * added in front is one `add` at 0 and the containers behind it are not touched.
 */
function diffList(before: readonly Json[], after: readonly Json[], path: string, operations: PatchOperation[]): void {
  if (before.length * after.length > LARGEST_ALIGNMENT) {
    if (!equal(before, after)) operations.push({ op: 'replace', path, value: after })
    return
  }
  const kept = align(before, after)
  const keptBefore = new Set(kept.map(([i]) => i))
  for (let i = before.length - 1; i >= 0; i--) {
    if (!keptBefore.has(i)) operations.push({ op: 'remove', path: `${path}/${i}` })
  }
  const partner = new Map(kept.map(([i, j]) => [j, i]))
  after.forEach((value, j) => {
    const i = partner.get(j)
    // In order, so that when index j is added everything before it stands already.
    if (i === undefined) operations.push({ op: 'add', path: `${path}/${j}`, value })
    else diffValue(before[i] as Json, value, `${path}/${j}`, operations)
  })
}

/** Pairs of indices of the items that are in both lists in the same order: the longest common subsequence. */
function align(before: readonly Json[], after: readonly Json[]): [number, number][] {
  const pairs: [number, number][] = []
  let start = 0
  while (start < before.length && start < after.length && isSameItem(before[start], after[start])) {
    pairs.push([start, start])
    start++
  }
  let endBefore = before.length
  let endAfter = after.length
  const tail: [number, number][] = []
  while (endBefore > start && endAfter > start && isSameItem(before[endBefore - 1], after[endAfter - 1])) {
    endBefore--
    endAfter--
    tail.push([endBefore, endAfter])
  }
  const rows = endBefore - start
  const columns = endAfter - start
  if (rows > 0 && columns > 0) {
    const width = columns + 1
    const length = new Uint32Array((rows + 1) * width)
    for (let i = rows - 1; i >= 0; i--) {
      for (let j = columns - 1; j >= 0; j--) {
        length[i * width + j] = isSameItem(before[start + i], after[start + j])
          ? (length[(i + 1) * width + j + 1] as number) + 1
          : Math.max(length[(i + 1) * width + j] as number, length[i * width + j + 1] as number)
      }
    }
    let i = 0
    let j = 0
    while (i < rows && j < columns) {
      if (isSameItem(before[start + i], after[start + j])) pairs.push([start + i++, start + j++])
      else if ((length[(i + 1) * width + j] as number) >= (length[i * width + j + 1] as number)) i++
      else j++
    }
  }
  return [...pairs, ...tail.reverse()]
}

function isSameItem(a: Json | undefined, b: Json | undefined): boolean {
  if (a === b) return true
  const left = asObject(a)
  const right = asObject(b)
  const name = left?.['name']
  if (typeof name === 'string' && right !== undefined) return right['name'] === name
  return equal(a, b)
}

/**
 * Applies a patch, for the command line and for tests.
 * @throws {Error} when an operation does not fit the document
 */
export function applyPatch(document: Json, operations: readonly PatchOperation[]): Json {
  return operations.reduce((current, operation) => {
    const keys = operation.path.split('/').slice(1)
    return applyOne(
      current,
      keys.map((key) => key.replaceAll('~1', '/').replaceAll('~0', '~')),
      operation,
    )
  }, document)
}

function applyOne(node: Json, keys: readonly string[], operation: PatchOperation): Json {
  const [key, ...rest] = keys
  if (key === undefined) return operation.op === 'remove' ? null : operation.value
  if (Array.isArray(node)) return applyToList(node, key, rest, operation)
  const object = asObject(node)
  if (object === undefined) throw misfit(operation)
  const there = Object.hasOwn(object, key)
  if (rest.length === 0 && operation.op === 'remove') {
    if (!there) throw misfit(operation)
    return Object.fromEntries(Object.entries(object).filter(([k]) => k !== key))
  }
  if (!there && (rest.length > 0 || operation.op !== 'add')) throw misfit(operation)
  const value = rest.length > 0 ? applyOne(object[key] as Json, rest, operation) : (operation as { value: Json }).value
  if (!there) return Object.fromEntries([...Object.entries(object), [key, value]])
  return Object.fromEntries(Object.entries(object).map(([k, v]) => [k, k === key ? value : v]))
}

function applyToList(
  list: readonly Json[],
  key: string,
  rest: readonly string[],
  operation: PatchOperation,
): readonly Json[] {
  const isAdd = rest.length === 0 && operation.op === 'add'
  const index = key === '-' && isAdd ? list.length : Number(key)
  if (!/^(0|[1-9]\d*|-)$/.test(key) || !(index >= 0 && index < list.length + (isAdd ? 1 : 0))) throw misfit(operation)
  if (isAdd) return list.toSpliced(index, 0, operation.value)
  if (rest.length === 0 && operation.op === 'remove') return list.toSpliced(index, 1)
  const value = rest.length > 0 ? applyOne(list[index] as Json, rest, operation) : (operation as { value: Json }).value
  return list.with(index, value)
}

function misfit(operation: PatchOperation): Error {
  return new Error(`patch: ${operation.op} '${operation.path}' does not fit the document`)
}
