import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import {
  CHUNK_BYTES,
  firstBytes,
  giveChunk,
  keepScratch,
  lend,
  lentPieces,
  scratchFor,
  takeBack,
  takeChunk,
} from '../../../../proxy/runtime/buffers.ts'

describe('memory for bytes on their way', () => {
  it('is used again when it was given back, and never while a socket holds it', () => {
    const one = takeChunk()
    const two = takeChunk()
    assert.notEqual(one, two)
    giveChunk(one)
    assert.equal(takeChunk(), one)
  })

  it('is one scratch buffer until a socket keeps it', () => {
    const first = scratchFor(10)
    assert.equal(scratchFor(CHUNK_BYTES), first)
    assert.ok(scratchFor(CHUNK_BYTES + 1).length > CHUNK_BYTES)
    keepScratch(first)
    assert.notEqual(scratchFor(10), first)
  })

  it('has one view for each length of the scratch buffer, of the right memory', () => {
    const scratch = scratchFor(10)
    const view = firstBytes(scratch, 7)
    scratch.write('abcdefgh')
    assert.equal(firstBytes(scratch, 7), view)
    assert.equal(view.toString(), 'abcdefg')
    assert.equal(firstBytes(scratch, 7 + 512).length, 519)
    keepScratch(scratch)
    const next = scratchFor(10)
    next.write('12345678')
    assert.equal(firstBytes(next, 7).toString(), '1234567')
    assert.equal(view.toString(), 'abcdefg')
  })

  it('comes in small pieces while many sockets hold some', () => {
    const held = Array.from({ length: 200 }, () => {
      const piece = takeChunk()
      lend()
      return piece
    })
    assert.equal(lentPieces(), 200)
    assert.ok(held.at(-1)!.length < CHUNK_BYTES / 4)
    const small = scratchFor(100)
    assert.ok(small.length < CHUNK_BYTES / 16, 'about as much as is needed')
    assert.equal(scratchFor(200), small)
    keepScratch(small)
    const next = scratchFor(100)
    assert.notEqual(next, small)
    giveChunk(small)
    keepScratch(next)
    assert.equal(scratchFor(100), small, 'what came back is used again')
    for (const piece of held) takeBack(piece)
    assert.equal(lentPieces(), 0)
    assert.equal(takeChunk().length, CHUNK_BYTES)
  })
})
