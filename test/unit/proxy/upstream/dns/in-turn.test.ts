import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { InTurn } from '../../../../../proxy/upstream/dns/in-turn.ts'

describe('work that is done in turn', () => {
  it('is begun by so many at a time, in the order of those who came, also when some of it fails', async () => {
    const inTurn = new InTurn(2)
    const begun: number[] = []
    const ends = Array.from({ length: 5 }, () => Promise.withResolvers<void>())
    const works = ends.map(({ promise }, i) =>
      inTurn.run(async () => {
        begun.push(i)
        await promise
        if (i === 1) throw new Error('broken')
        return i
      }),
    )
    const failure = assert.rejects(works[1]!, /broken/)
    const settled = () => new Promise((resolve) => setImmediate(resolve))
    await settled()
    assert.deepEqual(begun, [0, 1])
    ends[1]!.resolve()
    await failure
    await settled()
    assert.deepEqual(begun, [0, 1, 2])
    for (const { resolve } of ends) resolve()
    assert.deepEqual(await Promise.all([works[0], works[2], works[3], works[4]]), [0, 2, 3, 4])
    assert.deepEqual(begun, [0, 1, 2, 3, 4])
    // The places are free again.
    assert.equal(await inTurn.run(async () => 'next'), 'next')
  })
})
