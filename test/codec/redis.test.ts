/** Runs the documents of Redis; README.md says how they are written. */
import assert from 'node:assert/strict'
import { type Case, testDocuments } from '../helpers/codec-documents.ts'
import { tellCommands, tellReplies } from '../helpers/redis-codec.ts'

function check({ blocks }: Case, chunkBytes: number): void {
  const [input] = blocks
  assert.ok(input !== undefined && (input.kind === 'commands' || input.kind === 'replies'), 'begins with bytes')
  const reads = () => chunkBytes
  const isWordWanted = input.options.includes('subscribing')
  const told =
    input.kind === 'commands' ? tellCommands(input.bytes, reads) : tellReplies(input.bytes, reads, { isWordWanted })
  const find = (kind: string) => blocks.find((block) => block.kind === kind)
  const expected = find('told')?.bytes.toString('latin1').split('\r\n').slice(0, -1) ?? []
  assert.deepEqual(told.lines, expected)
  assert.equal(told.failure, find('refused')?.bytes.toString() ?? null)
  assert.equal(told.isIncomplete, find('incomplete') !== undefined)
}

testDocuments('redis', check)
