/** Runs the documents of HTTP/1.1; README.md says how they are written. */
import assert from 'node:assert/strict'
import { type Relayed, relayRequests, relayResponse } from '../helpers/codec.ts'
import { type Block, type Case, testDocuments } from '../helpers/codec-documents.ts'

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

testDocuments('http1', (test, chunkBytes) => check(test, run(test, chunkBytes)))
