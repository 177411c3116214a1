/** Golden files: expected results that are kept beside their input, and written anew with UPDATE_GOLDEN=1. */
import assert from 'node:assert/strict'
import { existsSync, readdirSync, readFileSync, writeFileSync } from 'node:fs'
import { join } from 'node:path'

const GOLDEN = join(import.meta.dirname, '../golden')
const isUpdate = process.env['UPDATE_GOLDEN'] === '1'

export interface GoldenFile {
  /** File name without the suffix. */
  readonly name: string
  readonly path: string
  readonly text: string
}

/** The files of a folder below test/golden whose names end in a suffix, in order of name. An empty folder is an error. */
export function goldenFiles(folder: string, suffix: string): GoldenFile[] {
  const names = readdirSync(join(GOLDEN, folder)).filter((name) => name.endsWith(suffix))
  assert.ok(names.length > 0, `test/golden/${folder} has no *${suffix}`)
  return names.sort().map((name) => {
    const path = join(GOLDEN, folder, name)
    return { name: name.slice(0, -suffix.length), path, text: readFileSync(path, 'utf8') }
  })
}

/** Compares a text with a file below test/golden, or writes it there with UPDATE_GOLDEN=1. */
export function matchGolden(file: string, actual: string): void {
  const path = join(GOLDEN, file)
  if (isUpdate) {
    writeFileSync(path, actual)
    return
  }
  assert.ok(existsSync(path), `test/golden/${file} is missing, write it with UPDATE_GOLDEN=1`)
  assert.equal(
    actual,
    readFileSync(path, 'utf8'),
    `differs from test/golden/${file}; if that is meant, UPDATE_GOLDEN=1 writes it`,
  )
}
