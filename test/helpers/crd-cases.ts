/** The objects in test/golden/crd: what is accepted, and what is refused with which words. */
import assert from 'node:assert/strict'
import { parseDocuments } from '../../cli/documents.ts'
import { goldenFiles } from './golden.ts'

export interface ValidCase {
  readonly name: string
  readonly text: string
  /** As kubectl reads it. */
  readonly object: unknown
}

/**
 * An invalid object with lines `field: message`, from the comments at the head of its file:
 * `says` the API server and we say alike, `offline` is ours and `server` the API server's own for what CEL does not check.
 */
export interface InvalidCase extends ValidCase {
  readonly says: readonly string[]
  readonly offline: readonly string[]
  readonly server: readonly string[]
}

/** test/golden/crd/valid. */
export function validCases(): ValidCase[] {
  return goldenFiles('crd/valid', '.yaml').map(({ name, text }) => ({ name, text, object: objectOf(text, name) }))
}

/** test/golden/crd/invalid. */
export function invalidCases(): InvalidCase[] {
  return goldenFiles('crd/invalid', '.yaml').map(({ name, text }) => {
    const says = header(text, 'says')
    const server = header(text, 'server')
    assert.ok(says.length + server.length > 0, `${name}: no line of its head tells what is said`)
    return { name, text, object: objectOf(text, name), says, offline: header(text, 'offline'), server }
  })
}

function objectOf(text: string, name: string): unknown {
  const documents = parseDocuments(text, name)
  assert.equal(documents.length, 1, `${name}: holds ${documents.length} objects, not one`)
  return documents[0]!.value
}

function header(text: string, word: string): string[] {
  const start = `# ${word}: `
  return text
    .split('\n')
    .filter((line) => line.startsWith(start))
    .map((line) => line.slice(start.length))
}
