import assert from 'node:assert/strict'
import { describe, it } from 'node:test'
import fc from 'fast-check'
import { ambassadorLabel, configMapName, tokenName } from '../../../common/object-names.ts'

const NAME = /^[a-z0-9]([-a-z0-9]*[a-z0-9])?(\.[a-z0-9]([-a-z0-9]*[a-z0-9])?)*$/
const longName = fc.stringMatching(/^[a-z0-9]([-a-z0-9]{0,60}[a-z0-9])?(\.[a-z0-9]([-a-z0-9]{0,60}[a-z0-9])?){0,3}$/)

describe('names of derived objects', () => {
  it('are the name of the Ambassador behind a word while they fit', () => {
    assert.equal(configMapName('payments'), 'ambassador-payments')
    assert.equal(ambassadorLabel('payments'), 'payments')
  })

  it('are valid and within their limit whatever the name is', () => {
    fc.assert(
      fc.property(longName, (name) => {
        for (const [derived, max] of [
          [configMapName(name), 253],
          [ambassadorLabel(name), 63],
        ] as const) {
          assert.ok(derived.length <= max)
          assert.match(derived, NAME)
        }
      }),
    )
  })

  it('stay different for long names that begin alike', () => {
    const start = 'a'.repeat(250)
    assert.notEqual(configMapName(`${start}-x`), configMapName(`${start}-y`))
    assert.equal(configMapName(`${start}-x`).length, 253)
    assert.notEqual(ambassadorLabel(`${start}-x`), ambassadorLabel(`${start}-y`))
  })

  it('do not put a dash after a dot where they are cut', () => {
    assert.match(ambassadorLabel(`${'a'.repeat(53)}.${'b'.repeat(20)}`), /^a{53}-[0-9a-f]{8}$/)
  })

  it('tell tokens apart by audience and life, and show what can be shown of the audience', () => {
    assert.match(tokenName('https://Vault.example.com/', 3600), /^vault-example-com-[0-9a-f]{8}$/)
    assert.match(tokenName('://', 3600), /^[0-9a-f]{8}$/)
    assert.notEqual(tokenName('vault', 600), tokenName('vault', 3600))
    assert.notEqual(tokenName('a.b', 600), tokenName('a-b', 600))
    fc.assert(
      fc.property(fc.stringMatching(/^[!-~]{1,512}$/), (audience) => {
        assert.match(tokenName(audience, 3600), /^[a-z0-9]([-a-z0-9]{0,37}[a-z0-9])?$/)
      }),
    )
  })
})
