import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { CloseHabit } from '../../../../proxy/upstream/close-habit.ts'

describe('the habit of a server to close connections', () => {
  it('is none until it was seen, and again ten seconds after the last time', () => {
    const habit = new CloseHabit()
    assert.equal(habit.isRisky(0, 0), false)
    habit.saw(5, 1000)
    assert.equal(habit.isRisky(5, 1001), true)
    habit.saw(5, 9000)
    assert.equal(habit.isRisky(5, 18_999), true)
    assert.equal(habit.isRisky(5, 19_000), false)
    habit.saw(2000, 20_000)
    assert.equal(habit.isRisky(5, 20_001), false, 'what was forgotten does not come back')
  })

  it('of closing right behind an answer spares what outlives that', () => {
    const habit = new CloseHabit()
    habit.saw(1, 0)
    assert.equal(habit.isRisky(0, 1), true)
    assert.equal(habit.isRisky(20, 1), true)
    assert.equal(habit.isRisky(30, 1), false)
  })

  it('of closing at any time spares nothing that it was seen to reach', () => {
    const habit = new CloseHabit()
    for (const restMs of [3, 48, 20]) habit.saw(restMs, 0)
    for (let restMs = 0; restMs < 100; restMs++) assert.equal(habit.isRisky(restMs, 1), true)
  })

  it('of an idle time of its own spares what has rested less than half of it', () => {
    const habit = new CloseHabit()
    habit.saw(2000, 0)
    habit.saw(2010, 10)
    assert.equal(habit.isRisky(900, 20), false)
    assert.equal(habit.isRisky(1900, 20), true)
    assert.equal(habit.isRisky(2100, 20), true)
  })
})
