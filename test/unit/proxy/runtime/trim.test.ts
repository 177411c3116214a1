import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { IdleTrim } from '../../../../proxy/runtime/trim.ts'

function trimming(isBusy: () => boolean = () => false) {
  const calls: unknown[] = []
  return { calls, trim: new IdleTrim(isBusy, () => (options) => void calls.push(options)) }
}

describe('IdleTrim', () => {
  it('collects once, and again only when the heap has grown much', () => {
    const { calls, trim } = trimming()
    trim.look()
    trim.look()
    assert.deepEqual(calls, [{ type: 'major', execution: 'sync', flavor: 'last-resort' }])
    // Strings of their own, on the heap and not beside it.
    const kept = Array.from({ length: 500_000 }, (_, i) => [`${i} ${i}`])
    trim.look()
    assert.equal(calls.length, 2)
    assert.equal(kept.length, 500_000)
  })

  it('waits while something is in the middle of work', () => {
    let isBusy = true
    const { calls, trim } = trimming(() => isBusy)
    trim.look()
    assert.equal(calls.length, 0)
    isBusy = false
    trim.look()
    assert.equal(calls.length, 1)
  })
})
