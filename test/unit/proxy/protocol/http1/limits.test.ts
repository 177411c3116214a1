/** The limits of a message, which are too long for a document. */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { relayRequests, relayResponse } from '../../../../helpers/codec.ts'

const START = 'GET / HTTP/1.1\r\nHost: a\r\n'
const SIZES = [1 << 20, 4096, 1000, 7]

function refusal(text: string): (string | null)[] {
  const bytes = Buffer.from(text, 'latin1')
  return SIZES.map((chunkBytes) => relayRequests(bytes, { chunkBytes }).refused).map(
    (f) => f && `${f.status} ${f.text}`,
  )
}

const all = (text: string | null): (string | null)[] => SIZES.map(() => text)

describe('limits of a message', () => {
  it('takes a request line of 8 KiB and refuses a longer one with 414', () => {
    const line = (length: number): string => `GET /${'a'.repeat(length - 'GET / HTTP/1.1\r\n'.length)} HTTP/1.1\r\n`
    assert.deepEqual(refusal(`${line(8192)}Host: a\r\n\r\n`), all(null))
    assert.deepEqual(refusal(`${line(8193)}Host: a\r\n\r\n`), all('414 the request line is longer than 8 KiB'))
    assert.deepEqual(refusal('A'.repeat(9000)), all('414 the request line is longer than 8 KiB'))
  })

  it('takes 100 fields and refuses more with 431', () => {
    const fields = (count: number): string => Array.from({ length: count - 1 }, (_, i) => `x-${i}: v\r\n`).join('')
    assert.deepEqual(refusal(`${START}${fields(100)}\r\n`), all(null))
    assert.deepEqual(refusal(`${START}${fields(101)}\r\n`), all('431 the head has more than 100 fields'))
  })

  it('takes a head of 64 KiB and refuses a longer one with 431', () => {
    const field = `x: ${'v'.repeat(995)}\r\n`
    const head = (length: number): string => {
      const rest = length - START.length - 60 * field.length
      return `${START}${field.repeat(60)}x: ${'v'.repeat(rest - 7)}\r\n\r\n`
    }
    assert.equal(head(65_536).length, 65_536)
    assert.deepEqual(refusal(head(65_536)), all(null))
    assert.deepEqual(refusal(head(65_537)), all('431 the head is longer than 64 KiB'))
  })

  it('takes a field line of 16 KiB and refuses a longer one with 431', () => {
    const fields = (length: number): string => `${START}x: ${'v'.repeat(length - 3)}\r\n\r\n`
    assert.deepEqual(refusal(fields(16_384)), all(null))
    assert.deepEqual(refusal(fields(16_385)), all('431 a field line is longer than 16 KiB'))
    assert.deepEqual(refusal(`${START}${'x'.repeat(20_000)}`), all('431 a field line is longer than 16 KiB'))
  })

  it('takes 1 KiB of chunk extensions and refuses more', () => {
    const body = (bytes: number): string =>
      `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n1;${'e'.repeat(bytes - 1)}\r\nx\r\n0\r\n\r\n`
    assert.deepEqual(refusal(body(1024)), all(null))
    assert.deepEqual(refusal(body(1025)), all('400 the chunk extensions of a message are longer than 1 KiB'))
    assert.deepEqual(refusal(body(100_000)), all('400 the chunk extensions of a message are longer than 1 KiB'))
  })

  it('takes 8 KiB of trailers in 64 fields and refuses more', () => {
    const body = (trailers: string): string =>
      `POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n${trailers}\r\n`
    const long = (bytes: number): string => `x: ${'v'.repeat(bytes - 7)}\r\n`
    const many = (count: number): string => 'x: v\r\n'.repeat(count)
    const tooLong = '431 the trailer section is longer than 8 KiB or has more than 64 fields'
    assert.deepEqual(refusal(body(long(8192))), all(null))
    assert.deepEqual(refusal(body(long(8193))), all(tooLong))
    assert.deepEqual(refusal(body(many(64))), all(null))
    assert.deepEqual(refusal(body(many(65))), all(tooLong))
    assert.deepEqual(refusal(body('x'.repeat(20_000))), all(tooLong))
  })

  it('refuses a response head of more than 64 KiB, a long status line too', () => {
    for (const chunkBytes of SIZES) {
      const field = Buffer.from(`HTTP/1.1 200 OK\r\n${`x: ${'v'.repeat(1000)}\r\n`.repeat(70)}\r\n`)
      const line = Buffer.from(`HTTP/1.1 200 ${'v'.repeat(70_000)}\r\n\r\n`)
      assert.equal(relayResponse(field, { chunkBytes }).refused?.text, 'the head is longer than 64 KiB')
      assert.equal(relayResponse(line, { chunkBytes }).refused?.text, 'the head is longer than 64 KiB')
    }
  })

  it('chunks a body that ends with its connection, and its end is the last chunk', () => {
    const bytes = Buffer.from('HTTP/1.1 200 OK\r\n\r\nhello world')
    const whole = relayResponse(bytes, { ends: true })
    assert.equal(whole.sent, 'HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\nb\r\nhello world\r\n0\r\n\r\n')
    for (let chunkBytes = 1; chunkBytes < bytes.length; chunkBytes++) {
      const { sent } = relayResponse(bytes, { chunkBytes, ends: true })
      const again = relayResponse(Buffer.from(sent), { chunkBytes: 3 })
      assert.equal(again.isIncomplete, false)
      assert.equal(again.messages[0]?.body, 'hello world')
    }
    assert.equal(relayResponse(bytes).isIncomplete, true)
  })
})
