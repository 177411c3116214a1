import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Held } from '../../../../../proxy/protocol/postgres/held.ts'

const text = (held: Held): string | undefined => held.bytes?.toString('latin1', 0, held.length)

describe('Held', () => {
  it('holds copies, one behind the other', () => {
    const held = new Held()
    const memory = Buffer.from('abcdef')
    held.add(memory, 1, 3)
    held.add(memory, 4, 6)
    memory.fill(0)
    assert.equal(text(held), 'bcef')
    assert.equal(held.take()?.toString(), 'bcef')
    assert.equal(held.bytes, null)
    assert.equal(held.take(), null)
  })

  it('keeps a part of what it holds, or of other bytes in its place, or nothing', () => {
    const held = new Held()
    held.add(Buffer.from('abcdef'), 0, 6)
    held.keep(held.bytes!, 2, held.length)
    assert.equal(text(held), 'cdef')
    held.keep(held.bytes!, 0, held.length)
    assert.equal(text(held), 'cdef')
    held.keep(Buffer.from('xyz'), 1, 3)
    assert.equal(text(held), 'yz')
    held.keep(Buffer.from('xyz'), 3, 3)
    assert.equal(held.bytes, null)
    assert.equal(held.length, 0)
  })
})
