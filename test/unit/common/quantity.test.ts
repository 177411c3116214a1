import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { percentRatio, quantityBytes } from '../../../common/quantity.ts'

describe('quantityBytes', () => {
  const good: [string, number][] = [
    ['0', 0],
    ['512', 512],
    ['64Ki', 65_536],
    ['1k', 1000],
    ['1.5Mi', 1_572_864],
    ['0.5', 1],
    ['0.001k', 1],
    ['1G', 1_000_000_000],
    ['2Gi', 2_147_483_648],
  ]
  for (const [text, bytes] of good)
    it(`reads '${text}' as ${bytes} bytes`, () => assert.equal(quantityBytes(text), bytes))

  for (const text of ['', 'Ki', '64KiB', '64K', '-1', '1e3', '64m', '1.Ki', '.5Ki', '1.2345', '1 Ki', '1Ti']) {
    it(`refuses '${text}'`, () => assert.equal(quantityBytes(text), undefined))
  }

  it('multiplies whole numbers exactly', () => {
    const unit = fc.constantFrom<[string, number]>(['', 1], ['k', 1000], ['Ki', 1024], ['Mi', 1024 ** 2], ['G', 1e9])
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 999_999 }), unit, (n, [name, size]) =>
        assert.equal(quantityBytes(`${n}${name}`), n * size),
      ),
    )
  })

  it('never throws, and gives whole bytes or nothing', () => {
    fc.assert(
      fc.property(fc.oneof(fc.string(), fc.stringMatching(/^[0-9.]{1,6}[kKMGi]{0,2}$/)), (text) => {
        const bytes = quantityBytes(text)
        assert.ok(bytes === undefined || (Number.isInteger(bytes) && bytes >= 0))
      }),
    )
  })
})

describe('percentRatio', () => {
  const good: [string, number][] = [
    ['0%', 0],
    ['20%', 0.2],
    ['12.5%', 0.125],
    ['100%', 1],
    ['100.00%', 1],
  ]
  for (const [text, ratio] of good) it(`reads '${text}' as ${ratio}`, () => assert.equal(percentRatio(text), ratio))

  for (const text of ['', '%', '20', '0.2', '101%', '100.1%', '-1%', '20 %', '1e1%', '.5%']) {
    it(`refuses '${text}'`, () => assert.equal(percentRatio(text), undefined))
  }

  it('keeps every share from 0 to 1', () => {
    fc.assert(
      fc.property(fc.integer({ min: 0, max: 10_000 }), (n) => {
        const ratio = percentRatio(`${(n / 100).toFixed(2)}%`)
        assert.ok(ratio !== undefined && Math.abs(ratio - n / 10_000) < 1e-12)
      }),
    )
  })
})
