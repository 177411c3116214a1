/** Reads the documents of test/codec; its README.md says how they are written. */
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'

export interface Block {
  readonly kind: string
  readonly options: readonly string[]
  readonly bytes: Buffer
}

export interface Case {
  readonly title: string
  readonly blocks: readonly Block[]
}

const KINDS = new Set([
  ...['request', 'response', 'upstream', 'client', 'refused', 'incomplete'],
  ...['commands', 'replies', 'told'],
])

function bytesOf(lines: readonly string[]): Buffer {
  const text = lines.map((line) => (/(^|[^\\])(\\\\)*\\$/.test(line) ? line.slice(0, -1) : `${line}\r\n`)).join('')
  const plain = text.replace(/\\(r|n|t|0|\\|x[0-9a-fA-F]{2})/g, (_, name: string) => {
    const named = { r: '\r', n: '\n', t: '\t', '0': '\0', '\\': '\\' }[name]
    return named ?? String.fromCharCode(Number.parseInt(name.slice(1), 16))
  })
  return Buffer.from(plain, 'latin1')
}

function casesOf(document: string): Case[] {
  return document
    .split(/^## /m)
    .slice(1)
    .map((section) => {
      const title = section.slice(0, section.indexOf('\n')).trim()
      const blocks = [...section.matchAll(/^```(.*)\n((?:(?!```).*\n)*)```$/gm)].map(([, info = '', body = '']) => {
        const [kind = '', ...options] = info.trim().split(/\s+/)
        assert.ok(KINDS.has(kind), `'${title}': block '${kind}' is not one of ${[...KINDS].join(', ')}`)
        const lines = body.split('\n').slice(0, -1)
        return { kind, options, bytes: kind === 'refused' ? Buffer.from(lines.join('\n')) : bytesOf(lines) }
      })
      return { title, blocks }
    })
}

const FOLDER = join(import.meta.dirname, '../codec')

/** Every document with its cases, of one protocol (a folder) or of all. */
export function codecDocuments(protocol = '*'): { file: string; cases: readonly Case[] }[] {
  return globSync(`${protocol}/*.md`, { cwd: FOLDER })
    .sort()
    .map((file) => {
      const cases = casesOf(readFileSync(join(FOLDER, file), 'utf8'))
      assert.ok(cases.length > 0, `${file} has no case`)
      return { file, cases }
    })
}

/** A test for each case of a protocol: `check` is called with each number of bytes that a read of its first block may bring. */
export function testDocuments(protocol: string, check: (test: Case, chunkBytes: number) => void): void {
  for (const { file, cases } of codecDocuments(protocol)) {
    describe(file, () => {
      for (const test of cases) it(test.title, () => checkReads(test, check))
    })
  }
}

function checkReads(test: Case, check: (test: Case, chunkBytes: number) => void): void {
  const { length } = test.blocks[0]!.bytes
  for (const chunkBytes of [length, ...Array.from({ length }, (_, i) => i + 1)]) {
    try {
      check(test, chunkBytes)
    } catch (error) {
      if (error instanceof Error) error.message = `in reads of ${chunkBytes} bytes: ${error.message}`
      throw error
    }
  }
}
