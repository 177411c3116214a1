import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { Splitter, wantHeads } from '../../../../../proxy/protocol/postgres/splitter.ts'

function message(letter: string, bytes: number): Buffer {
  const body = Buffer.from(Array.from({ length: bytes }, (_, at) => at & 0xff))
  const head = Buffer.alloc(5)
  head.write(letter)
  head.writeInt32BE(4 + bytes, 1)
  return Buffer.concat([head, body])
}

const WANTED = wantHeads()
WANTED['Q'.charCodeAt(0)] = 64
WANTED['Z'.charCodeAt(0)] = 1000

/** How many messages are found in reads of `step` bytes. */
function count(text: Buffer, step: number): { found: number; isBroken: boolean } {
  const splitter = new Splitter(WANTED)
  let found = 0
  for (let at = 0; at < text.length; at += step) {
    splitter.feed(text, at, Math.min(text.length, at + step))
    while (splitter.next()) if (splitter.isLast) found++
  }
  return { found, isBroken: splitter.isBroken }
}

describe('Splitter', () => {
  it('finds the same messages at every split, and shows the wanted part of each at once', () => {
    const messages = [
      message('Q', 10),
      message('S', 0),
      message('Q', 200),
      message('D', 300),
      message('Z', 1),
      message('Z', 700),
    ]
    const text = Buffer.concat(messages)
    for (let step = 1; step <= text.length; step++) {
      const splitter = new Splitter(WANTED)
      const shared = Buffer.alloc(step)
      let whole: Buffer[] = []
      const seen: Buffer[] = []
      for (let at = 0; at < text.length; at += step) {
        const length = text.copy(shared, 0, at, Math.min(text.length, at + step))
        splitter.feed(shared, 0, length)
        while (splitter.next()) {
          const piece = Buffer.from(splitter.bytes.subarray(splitter.from, splitter.to))
          if (splitter.isFirst) {
            const wanted = Math.min(splitter.size, WANTED[splitter.code]!)
            assert.ok(piece.length >= wanted, `${piece.length} of ${wanted} bytes in reads of ${step}`)
          }
          whole.push(piece)
          if (!splitter.isLast) continue
          assert.equal(splitter.size, messages[seen.length]!.length)
          seen.push(Buffer.concat(whole))
          whole = []
        }
        shared.fill(0xee)
      }
      assert.deepEqual(Buffer.concat(seen), text)
      assert.equal(seen.length, messages.length)
      assert.equal(splitter.isBetween, true)
    }
  })

  it('finds no more behind a length that cannot be', () => {
    for (const length of [3, 0, -1, 0x40000001]) {
      const bytes = message('Q', 0)
      bytes.writeInt32BE(length, 1)
      for (const step of [1, 5]) {
        const text = Buffer.concat([message('S', 0), bytes, message('S', 0)])
        assert.deepEqual(count(text, step), { found: 1, isBroken: true })
      }
    }
  })

  it('keeps memory for what has come, not for what a length promises', () => {
    const splitter = new Splitter(wantHeads().fill(0x40000000))
    const head = message('Q', 100)
    head.writeInt32BE(0x3fffffff, 1)
    splitter.feed(head, 0, head.length)
    assert.equal(splitter.next(), false)
    assert.deepEqual([splitter.held, splitter.isInside], [105, false])
    const held = splitter.takeHeld()
    assert.deepEqual(held, head)
    assert.equal(splitter.isBetween, true)
  })
})
