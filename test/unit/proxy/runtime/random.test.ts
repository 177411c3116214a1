import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { fillRandom } from '../../../../proxy/runtime/random.ts'

describe('fillRandom', () => {
  it('fills all of the memory, with other bytes each time', () => {
    const bytes = Buffer.alloc(4096)
    const counts = new Uint32Array(256)
    fillRandom(bytes)
    for (const byte of bytes) counts[byte] = counts[byte]! + 1
    // 16 of each are expected; none at all, or 64, has a chance of less than one in ten thousand million.
    assert.ok(Math.max(...counts) < 64 && counts.filter((count) => count === 0).length < 8)
    const again = Buffer.alloc(4096)
    fillRandom(again)
    assert.notDeepEqual(again, bytes)
  })
})
