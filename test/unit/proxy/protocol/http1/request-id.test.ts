import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { writeRequestId } from '../../../../../proxy/protocol/http1/request-id.ts'

const make = (wallMs: number): string => {
  const bytes = Buffer.alloc(40, '.')
  writeRequestId(bytes, 2, wallMs)
  assert.equal(bytes.toString('latin1', 0, 2) + bytes.toString('latin1', 38), '....')
  return bytes.toString('latin1', 2, 38)
}

describe('a request id', () => {
  it('is a UUID of version 7 whose first 48 bits are the time', () => {
    const time = Date.UTC(2026, 10, 21, 12)
    const id = make(time)
    assert.match(id, /^[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[89ab][0-9a-f]{3}-[0-9a-f]{12}$/)
    assert.equal(Number.parseInt(id.replaceAll('-', '').slice(0, 12), 16), time)
  })

  it('is never the same twice, also within one millisecond and over many refills of the randomness', () => {
    const ids = new Set(Array.from({ length: 20_000 }, () => make(1)))
    assert.equal(ids.size, 20_000)
  })
})
