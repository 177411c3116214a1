/** Runs the documents of this folder; README.md says how they are written. */
import assert from 'node:assert/strict'
import { globSync, readFileSync } from 'node:fs'
import { join } from 'node:path'
import { describe, it } from 'node:test'
import { type Relayed, relayRequests, relayResponse } from '../helpers/codec.ts'

interface Block {
  readonly kind: string
  readonly options: readonly string[]
  readonly bytes: Buffer
}

interface Case {
  readonly title: string
  readonly blocks: readonly Block[]
}

const KINDS = new Set(['request', 'response', 'upstream', 'client', 'refused', 'incomplete'])

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

function run({ blocks }: Case, chunkBytes: number): Relayed {
  const [input] = blocks
  assert.ok(input !== undefined && (input.kind === 'request' || input.kind === 'response'), 'begins with a message')
  const has = (option: string): boolean => input.options.includes(option)
  if (input.kind === 'response') {
    const shape = { isHead: has('head'), isOld: has('old'), closes: has('closes'), ends: has('fin') }
    return relayResponse(input.bytes, { chunkBytes, ...shape })
  }
  const credential = has('credential') ? 'Authorization: Bearer injected\r\n' : undefined
  return relayRequests(input.bytes, { chunkBytes, credential })
}

function check(test: Case, relayed: Relayed): void {
  const find = (...kinds: string[]): Block | undefined => test.blocks.find((block) => kinds.includes(block.kind))
  const sent = find('upstream', 'client')
  const refused = find('refused')
  const incomplete = find('incomplete')
  assert.ok(sent ?? refused ?? incomplete, 'says what is expected')
  const refusal = relayed.refused === null ? null : `${relayed.refused.status} ${relayed.refused.text}`
  assert.equal(refusal, refused?.bytes.toString() ?? null)
  if (sent !== undefined) {
    const expected = sent.bytes.toString('latin1')
    assert.equal(refused === undefined ? relayed.sent : relayed.sent.slice(0, expected.length), expected)
  } else assert.equal(relayed.sent, '', 'nothing may be passed on')
  if (refused === undefined) assert.equal(relayed.isIncomplete, incomplete !== undefined)
}

const folder = import.meta.dirname
for (const file of globSync('*/*.md', { cwd: folder }).sort()) {
  describe(file, () => {
    const cases = casesOf(readFileSync(join(folder, file), 'utf8'))
    assert.ok(cases.length > 0, `${file} has no case`)
    for (const test of cases) {
      it(test.title, () => {
        const { length } = test.blocks[0]!.bytes
        for (const chunkBytes of [length, ...Array.from({ length }, (_, i) => i + 1)]) {
          try {
            check(test, run(test, chunkBytes))
          } catch (error) {
            if (error instanceof Error) error.message = `in reads of ${chunkBytes} bytes: ${error.message}`
            throw error
          }
        }
      })
    }
  })
}
