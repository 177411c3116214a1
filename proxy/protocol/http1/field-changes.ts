/** Header fields that a route sets, adds and removes, compiled so that a head is written with them and no string is made. */
import type { HeaderChangesConfig } from '../../../common/proxy-config.ts'
import type { HeaderCredential } from '../../policy/credential.ts'
import { isWord, nameBytes, TOKEN, VALUE } from './tables.ts'

export class FieldChanges {
  /** Whole lines behind the fields that stay. */
  readonly lines: Buffer
  readonly #removed: readonly Uint8Array[]

  constructor(removed: readonly string[], lines: Buffer) {
    this.#removed = removed.map((name) => nameBytes(name.toLowerCase()))
    this.lines = lines
  }

  /** The same, and without the fields of one more name. */
  without(name: string): FieldChanges {
    return new FieldChanges([...this.#removed.map((each) => Buffer.from(each).toString('latin1')), name], this.lines)
  }

  /** Whether the field with this name goes. */
  removes(bytes: Uint8Array, nameStart: number, nameEnd: number): boolean {
    for (const name of this.#removed) if (isWord(bytes, nameStart, nameEnd, name)) return true
    return false
  }
}

/**
 * Compiles changes; null when there are none.
 * @param credential of the upstream: no route changes the field that holds it, and what a signature brings anew is removed
 * @throws {Error} for a name or value that is not well-formed: a config written by hand could end a line and begin another
 */
export function fieldChanges(config: HeaderChangesConfig, credential: HeaderCredential | null): FieldChanges | null {
  const replaced = credential?.signer?.replaces ?? []
  const isOwn = ({ name }: { readonly name: string }) =>
    name.toLowerCase() !== credential?.name && !replaced.includes(name.toLowerCase())
  const set = config.set.filter(isOwn)
  const added = [...set, ...config.add.filter(isOwn)]
  const removed = [...replaced, ...set.map(({ name }) => name), ...config.remove.filter((name) => isOwn({ name }))]
  if (added.length === 0 && removed.length === 0) return null
  for (const name of [...removed, ...added.map((each) => each.name)]) {
    if (name === '' || Buffer.from(name).some((byte) => TOKEN[byte] !== 1)) {
      throw new Error(`'${name}' is not the name of a header field, use letters, digits and dashes`)
    }
  }
  const lines = added.map(({ name, value }) => {
    if (Buffer.from(value).some((byte) => VALUE[byte] !== 1)) {
      throw new Error(`the value of header '${name}' has a control character, write one line of text`)
    }
    return `${name}: ${value}\r\n`
  })
  return new FieldChanges(removed, Buffer.from(lines.join('')))
}
