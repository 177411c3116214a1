/**
 * The codec never takes what llhttp refuses, unknown methods aside, and understands what it takes in the same way.
 * `FUZZ_INPUTS=10000000 FUZZ_SEED=1 node --test test/fuzz/http1.test.ts` is the long mode: no time box.
 */
import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import { relayRequests } from '../helpers/codec.ts'
import { llhttp } from '../helpers/llhttp.ts'
import { compare, fuzz } from './http1.ts'

const TIME_BOX_MS = 4000
const inputs = Number(process.env['FUZZ_INPUTS'] ?? 0)
const seed = Number(process.env['FUZZ_SEED'] ?? Math.floor(Date.now() / 1000))

describe('the codec beside llhttp', () => {
  it('agrees on everything that it takes', (t) => {
    const started = performance.now()
    const report = inputs > 0 ? fuzz(seed, inputs) : fuzz(seed, 1e9, started + TIME_BOX_MS)
    const seconds = ((performance.now() - started) / 1000).toFixed(1)
    t.diagnostic(
      `seed ${seed}: ${report.inputs} inputs in ${seconds} s, ${report.accepted} messages taken and equal, ` +
        `${report.refused} inputs refused, ${report.stricter} of them taken by llhttp`,
    )
    assert.deepEqual(report.disagreements, [])
    assert.ok(report.accepted > report.inputs / 20, 'the generator makes messages that are taken')
  })

  it('would notice a message that only the codec takes', () => {
    const bytes = Buffer.from('GET / HTTP/1.1\r\nHost: a\r\n\r\n')
    const ours = relayRequests(bytes)
    assert.equal(compare(ours, llhttp('request', bytes), 'request'), null)
    const folded = Buffer.from('GET / HTTP/1.1\r\nHost: a\r\nX: b\n\r\n')
    assert.notEqual(compare(ours, llhttp('request', folded), 'request'), null)
    const other = Buffer.from('GET / HTTP/1.1\r\nHost: b\r\n\r\n')
    assert.notEqual(compare(ours, llhttp('request', other), 'request'), null)
  })
})
