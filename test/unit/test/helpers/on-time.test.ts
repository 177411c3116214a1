import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { onTime } from '../../../helpers/on-time.ts'

/** Stands still, as a machine does that has something else to do. */
function stall(ms: number): void {
  for (const end = performance.now() + ms; performance.now() < end; );
}

describe('onTime', () => {
  it('makes another attempt when one fails while the process stood still, and none when it succeeds', async () => {
    let attempts = 0
    const result = await onTime(60, async () => {
      if (++attempts > 1) return attempts
      stall(100)
      throw new Error('too late')
    })
    assert.equal(result, 2)
    await onTime(60, async () => {
      attempts++
      stall(100)
    })
    assert.equal(attempts, 3)
  })

  it('tells the failure of an attempt that was on time, and of the last one on a machine that never is', async () => {
    let attempts = 0
    const failing = (late: number) =>
      onTime(late, async () => {
        attempts++
        throw new Error(`attempt ${attempts}`)
      })
    await assert.rejects(failing(600_000), { message: 'attempt 1' })
    attempts = 0
    await assert.rejects(failing(-1_000_000), { message: 'attempt 20' })
  })
})
